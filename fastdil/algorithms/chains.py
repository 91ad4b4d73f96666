"""In which order and in which chains `direct` and `im2col` sum the products of one output of a causal convolution.

`fastdil.streaming` sums its products in the same way, sample by sample, and so gets the same bits. Where the order of
a method changes, its function here changes with it; `tests/test_streaming.py` compares the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fastdil.kernels import gemm_tasks, stencil


class Chain(NamedTuple):
    """Products that are summed in one register, from zero."""

    terms: list[tuple[int, int]]  #: (tap, channel of the group), in order
    resume: bool  #: whether the chain is added to the sum so far, or starts a new one
    merge: int  #: -1, or that sum is then merged exactly into the total, which is empty if this is 0


def _im2col(group_in: int, taps: int) -> Iterator[Chain]:
    """Blocks of taps and of parts of the channels; in a block, chains of whole taps (`fastdil.kernels.gemm`)."""
    part = gemm_tasks.part_size(group_in)
    block_taps, block_parts = gemm_tasks.block_shape(group_in, taps)
    chain_taps = gemm_tasks.CHAIN_TERMS // part
    block_chains = -(-block_taps // chain_taps) * block_parts
    is_long = taps * group_in > gemm_tasks.PLAIN_CHAINS * gemm_tasks.CHAIN_TERMS
    merge_blocks = max(gemm_tasks.PLAIN_CHAINS // block_chains, 1) if is_long else 0
    channels_at_once = part * block_parts
    blocks = [(tap, c) for tap in range(0, taps, block_taps) for c in range(0, group_in, channels_at_once)]
    for done, (first, channel) in enumerate(blocks):
        merges = is_long and (done == len(blocks) - 1 or (done + 1) % merge_blocks == 0)
        end, channel_end = min(first + block_taps, taps), min(channel + channels_at_once, group_in)
        listed = [
            [(t, c) for t in range(tap, min(tap + chain_taps, end)) for c in range(start, min(start + part, group_in))]
            for start in range(channel, channel_end, part)
            for tap in range(first, end, chain_taps)
        ]
        resume = (done % merge_blocks if is_long else done) > 0
        for index, terms in enumerate(listed):
            is_last = index == len(listed) - 1
            yield Chain(terms, resume or index > 0, done // merge_blocks if merges and is_last else -1)


def _direct(group_in: int, taps: int) -> Iterator[Chain]:
    """Blocks of taps, then lines, one per channel; several whole lines make a chain (`fastdil.kernels.stencil`)."""
    block_taps = min(taps, stencil.CHAIN_TERMS)
    chain_lines = stencil.CHAIN_TERMS // block_taps
    is_long = -(-group_in // chain_lines) * -(-taps // stencil.CHAIN_TERMS) > stencil.PLAIN_CHAINS
    is_first = True
    for tap in range(0, taps, stencil.CHAIN_TERMS):
        some = range(tap, min(tap + stencil.CHAIN_TERMS, taps))
        for line in range(0, group_in, chain_lines):
            terms = [(t, c) for c in range(line, min(line + chain_lines, group_in)) for t in some]
            yield Chain(terms, not is_first and not is_long, int(not is_first) if is_long else -1)
            is_first = False


#: Method -> the chains of one output, from channels per group and taps.
ORDERS: dict[str, Callable[[int, int], Iterator[Chain]]] = {"im2col": _im2col, "direct": _direct}


def refusal(method: str) -> str | None:
    """None, or why a method's sums depend on more than the samples that an output sees."""
    if method in ORDERS:
        return None
    return f"its sums depend on the length of the signal, or it is not built for single samples; {list(ORDERS)} are"


def runs(chains: list[Chain]) -> np.ndarray:
    """The terms of all chains as rows (tap, first channel, how many, first term, step from term to term)."""
    rows: list[list[int]] = []
    terms = enumerate(term for chain in chains for term in chain.terms)
    for tap, channel, term in sorted((tap, channel, index) for index, (tap, channel) in terms):
        last = rows[-1] if rows else None
        if last and last[0] == tap and last[2] == 1:
            last[4] = term - last[3]
        if last and last[0] == tap and last[4] > 0 and term == last[3] + last[2] * last[4]:
            last[2] += 1
        else:
            rows.append([tap, channel, 1, term, 0])
    return np.array(rows, np.int64)
