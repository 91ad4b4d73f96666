"""Splitting weights and packing them in the order in which `fastdil.kernels.amx` reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.amx import REPORT_BYTES
from fastdil.kernels.amx_tasks import STEP_BYTES
from fastdil.kernels.amx_window import split_step
from fastdil.kernels.copies import copy_vectors, fill_zeros
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.split import clear_extent, write_extent
from fastdil.kernels.tile_unit import BLOCK, ROW_BYTES, STEP_TERMS, TILE_BYTES, TILE_ROWS

#: Parameters of the weight packer: output channels and input channels per group, taps, blocks of outputs per group,
#: steps of the channels that are packed together, parts of a number.
P_OUTPUTS, P_CHANNELS, P_TAPS, P_BLOCKS, P_STEPS, P_PARTS = range(6)
#: Scratch memory of the packer: one step of weights, and what was seen of them.
_STAGED = STEP_TERMS * BLOCK * 4
PACKER_SCRATCH = _STAGED + 128


@helper
def stage_weights(scratch, source, outputs, channels, taps, row_step):
    """Up to 32 output by 32 input channels of one tap, as lines of samples would lie in a panel.

    A row of weights becomes a row of a tile as two neighbouring lines do: the even channels of output r stand in line
    2r, the odd ones in line 2r + 1, those of output ``16 + r`` behind them.
    """
    fill_zeros("f32", TILE_ROWS, scratch, _STAGED // ROW_BYTES)
    for output in range(outputs):
        at = scratch + output % TILE_ROWS * 2 * BLOCK * 4 + output // TILE_ROWS * ROW_BYTES
        for odd in range(2):
            copy_vectors(
                "f32", 1, at + odd * BLOCK * 4, 4, source + (output * row_step + odd * taps) * 4, 2 * taps * 4,
                (channels + 1 - odd) // 2, 1,
            )  # fmt: skip


def _make_weight_packer(name: str) -> Any:
    stamp = jit.source_stamp()

    def pack_amx_weights(params, x, w, bias, out, scratch, task):
        """Task = one block of outputs of one group: out[group][steps of channels][block][tap][step]; report at `x`."""
        stamp  # noqa: B018 - a closure cell in the cache key
        outputs, channels, taps = load_i64(params, P_OUTPUTS), load_i64(params, P_CHANNELS), load_i64(params, P_TAPS)
        blocks, at_once, parts = load_i64(params, P_BLOCKS), load_i64(params, P_STEPS), load_i64(params, P_PARTS)
        group, block = task // blocks, task % blocks
        all_steps, row_step, first = (channels + STEP_TERMS - 1) // STEP_TERMS, channels * taps, block * BLOCK
        source = w + (group * outputs + first) * row_step * 4
        clear_extent(scratch + _STAGED)
        for begin in range(0, all_steps, at_once):
            steps = min(at_once, all_steps - begin)
            target = out + ((group * all_steps + begin) * blocks + block * steps) * taps * parts * STEP_BYTES
            for step in range(steps):
                channel = (begin + step) * STEP_TERMS
                count = min(STEP_TERMS, channels - channel)
                for tap in range(taps):
                    at = source + (channel * taps + tap) * 4
                    stage_weights(scratch, at, min(BLOCK, outputs - first), count, taps, row_step)
                    to = target + (tap * steps + step) * parts * STEP_BYTES
                    split_step(
                        parts, scratch, STEP_TERMS, to, ROW_BYTES, TILE_BYTES, 2 * TILE_BYTES, scratch + _STAGED
                    )  # fmt: skip
        write_extent(scratch + _STAGED, x + task * REPORT_BYTES)

    return jit.callback(pack_amx_weights, name, KERNEL_ARGUMENTS)


@cache
def weight_packer() -> Any:
    """The kernel that splits weights and packs them in blocks of 32 outputs."""
    return _make_weight_packer("pack_amx_weights_f32")
