"""Packed weights transformed to all frequencies, in the order in which `fastdil.kernels.winograd` reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.tiles import tile_shape
from fastdil.kernels.winograd_tiles import SAMPLES, TAPS, transform_weights

# Parameters of the weight transform: groups, blocks per group, taps of the depth, channels, those of a part.
(V_GROUPS, V_BLOCKS, V_DEPTHS, V_CHANNELS, V_PART) = range(5)


def _make_weight_kernel(kind: str, size: int, lanes: int, height_form: int, width_form: int, name: str) -> Any:
    stamp = jit.source_stamp()
    taps, frequencies = TAPS[height_form] * TAPS[width_form], SAMPLES[height_form] * SAMPLES[width_form]

    def transform_packed(params, x, w, bias, out, scratch, task):
        """Task = one block of outputs of one group; `w` is ``[group][block][tap][channel][row]``.

        Ordered as a task of the convolution reads them: ``[group][frequency][part][block][tap][channel][row]``.
        """
        stamp  # noqa: B018 - a closure cell in the cache key
        blocks, depths, channels = load_i64(params, V_BLOCKS), load_i64(params, V_DEPTHS), load_i64(params, V_CHANNELS)
        part, row_bytes, terms = load_i64(params, V_PART), lanes * size, depths * channels
        group, block = task // blocks, task % blocks
        target = out + group * frequencies * blocks * terms * row_bytes
        for first in range(0, channels, part):
            count = min(part, channels - first)
            at = target + (first * blocks + block * count) * depths * row_bytes
            for depth in range(depths):
                source = w + ((task * depths + depth) * taps * channels + first) * row_bytes
                transform_weights(
                    kind, lanes, height_form, width_form, source, channels * row_bytes, at,
                    blocks * terms * row_bytes, count * lanes,
                )  # fmt: skip
                at += count * row_bytes

    return jit.callback(transform_packed, name, KERNEL_ARGUMENTS)


@cache
def weight_kernel(kind: str, vector_bytes: int, height_form: int, width_form: int) -> Any:
    """The kernel that transforms packed weights; its vectors are as long as a register tile has rows."""
    rows, _ = tile_shape(vector_bytes)
    name = f"winograd_weights_{height_form}x{width_form}_{kind}_{8 * vector_bytes}bit"
    return _make_weight_kernel(kind, int(kind[1:]) // 8, rows, height_form, width_form, name)
