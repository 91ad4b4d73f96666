"""Packing: weights into the order of the micro-kernels, samples into panels.

Whatever stride, dilation, padding mode or layout a problem has is a matter of the offsets computed here. A sample's
offset is the sum of a row part and a column part; a vector of samples that are neighbours in memory is copied, any
other is gathered.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    DD,
    DH,
    DW,
    LD,
    LH,
    LW,
    MODE,
    ND,
    NH,
    NW,
    SD,
    SH,
    SW,
    UNIT,
    XD,
    XH,
    XW,
    source_index,
)
from fastdil.kernels.intrinsics import OUTSIDE, copy_vectors, fill_ramp, load_i64, store_i64

# Parameters of the weight packer.
(W_ROWS, W_GROUP_ROWS, W_CHANNELS, W_TAPS, W_CHANNEL_STEP, W_TAP_STEP, W_UNIT, W_BLOCKS) = range(8)


@helper
def row_offset(params, out_depth, out_height, tap_depth, tap_height):
    """Offset of the row of samples that an output row reads through one (depth, height) tap, or `OUTSIDE`."""
    mode = load_i64(params, MODE)
    depth = source_index(
        out_depth * load_i64(params, SD) + tap_depth * load_i64(params, DD) - load_i64(params, LD),
        load_i64(params, ND),
        mode,
    )
    height = source_index(
        out_height * load_i64(params, SH) + tap_height * load_i64(params, DH) - load_i64(params, LH),
        load_i64(params, NH),
        mode,
    )
    if depth < 0 or height < 0:
        return OUTSIDE
    return depth * load_i64(params, XD) + height * load_i64(params, XH)


@helper
def fill_columns(params, target, out_width, count, tap):
    """Offsets along the width of `count` neighbouring outputs through one tap, one per lane."""
    unit, step, size = load_i64(params, UNIT), load_i64(params, XW), load_i64(params, NW)
    mode, stride = load_i64(params, MODE), load_i64(params, SW)
    position = out_width * stride + tap * load_i64(params, DW) - load_i64(params, LW)
    if mode == 0 and unit == 1:
        fill_ramp(target, count, position, stride, size, step)
        return
    for index in range(count):
        source = source_index(position + index * stride, size, mode)
        for part in range(unit):
            store_i64(target, index * unit + part, source * step + part if source >= 0 else OUTSIDE)


@helper
def fill_constant(target, count, value):
    """`count` equal integers."""
    for index in range(count):
        store_i64(target, index, value)


def _make_weight_packer(kind: str, size: int) -> Any:
    stamp = jit.source_stamp()

    def pack_weights(params, x, w, bias, out, scratch, task):
        """Task = one block of output rows of one group: out[c * channel_step + tap * tap_step + row]."""
        stamp  # noqa: B018 - a closure cell in the cache key
        rows, unit = load_i64(params, W_ROWS), load_i64(params, W_UNIT)
        channels, taps = load_i64(params, W_CHANNELS), load_i64(params, W_TAPS)
        channel_step, tap_step = load_i64(params, W_CHANNEL_STEP), load_i64(params, W_TAP_STEP)
        group_rows, blocks = load_i64(params, W_GROUP_ROWS), load_i64(params, W_BLOCKS)
        group, block = task // blocks, task % blocks
        terms = channels * taps
        first = block * rows
        target = out + task * terms * rows * size
        for row in range(rows):
            inside = 1 if first + row < group_rows else 0
            # Row r of a complex group is the real (r even) or imaginary part of output r // 2.
            output = group * (group_rows // unit) + (first + row) // unit
            source = w + (output * terms * unit + (first + row) % unit) * size
            for channel in range(channels):
                at = target + (channel * channel_step + row) * size
                read = source + channel * taps * unit * size
                for _tap in range(taps):
                    copy_vectors(kind, 1, at, 0, read, 0, 1, inside)
                    at += tap_step * size
                    read += unit * size

    return jit.callback(pack_weights, f"pack_weights_{kind}", KERNEL_ARGUMENTS)


@cache
def weight_packer(kind: str) -> Any:
    """The kernel that packs weights of one element kind."""
    return _make_weight_packer(kind, int(kind[1:]) // 8)
