"""Weights transformed to all frequencies, in the order in which `fastdil.kernels.winograd` reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import GROUP_IN, GROUP_OUT, KD, lanes_of
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.pack import pack_real_rows
from fastdil.kernels.winograd_tasks import GROUP_BLOCKS, PART, PROBES, SPECTRUM, SPECTRUM_STEP, W_PLAIN, W_PLAIN_PROBES
from fastdil.kernels.winograd_tiles import tile_shape
from fastdil.kernels.winograd_transforms import TAPS, transform_weights


def _make_weight_kernel(
    kind: str, size: int, lanes: int, rows: int, height_form: int, width_form: int, name: str
) -> Any:
    stamp = jit.source_stamp()
    taps = TAPS[height_form] * TAPS[width_form]

    def transform_block(params, x, w, bias, out, scratch, task):
        """Task = one *spectrum*: one block of outputs, one part of the channels, at all frequencies.

        ``[group][part][block]``; the block behind the last one of a group is its probes. Written at
        ``out + task * SPECTRUM``, there ``[frequency][tap of the depth][channel][row]``. `params` and `w` are those of
        the convolution.
        """
        stamp  # noqa: B018 - a closure cell in the cache key
        channels, part, depths = load_i64(params, GROUP_IN), load_i64(params, PART), load_i64(params, KD)
        blocks, parts = load_i64(params, GROUP_BLOCKS), (channels + part - 1) // part
        block, rest = task % (blocks + 1), task // (blocks + 1)
        first, group = rest % parts * part, rest // parts
        outputs, weights, row = load_i64(params, GROUP_OUT), load_i64(w, W_PLAIN), block * rows
        if block == blocks:
            outputs, weights, row = PROBES, load_i64(w, W_PLAIN_PROBES), 0
        output_terms, terms = channels * depths * taps, min(part, channels - first)
        source = weights + ((group * outputs + row) * output_terms + first * depths * taps) * size
        packed, tap_step = scratch + lanes * rows * size, terms * rows * size
        pack_real_rows(
            kind, lanes, rows, size, packed, source, output_terms, outputs - row, terms, depths * taps, rows,
            terms * rows, scratch,
        )  # fmt: skip
        target, step = out + task * load_i64(params, SPECTRUM), load_i64(params, SPECTRUM_STEP)
        for depth in range(depths):
            transform_weights(
                kind, rows, height_form, width_form, packed + depth * taps * tap_step, tap_step,
                target + depth * tap_step, step, terms * rows,
            )  # fmt: skip

    return jit.callback(transform_block, name, KERNEL_ARGUMENTS)


@cache
def weight_kernel(kind: str, vector_bytes: int, height_form: int, width_form: int) -> Any:
    """The kernel that transforms weights; its vectors are as long as a register tile has rows."""
    rows, _ = tile_shape(vector_bytes)
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    name = f"winograd_weights_{height_form}x{width_form}_{kind}_{8 * vector_bytes}bit"
    return _make_weight_kernel(kind, size, lanes, rows, height_form, width_form, name)
