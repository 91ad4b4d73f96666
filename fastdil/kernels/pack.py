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
from fastdil.kernels.copies import copy_vectors, interleave_rows
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
    lanes_of,
    source_index,
)
from fastdil.kernels.intrinsics import any_nonfinite, load_i64, store_i64
from fastdil.kernels.places import OUTSIDE, fill_ramp

# Parameters of the weight packer.
(
    W_GROUP_ROWS,
    W_CHANNELS,
    W_TAPS,
    W_PART,  # channels that are packed together
    W_TAPS_FIRST,  # whether they are neighbours, and not the taps of one
    W_BLOCKS,
) = range(6)


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


@helper
def lane_step(params, lanes):
    """Elements between the samples of neighbouring outputs: 2 where `copy_pairs` can fetch them, else 1."""
    is_pairs = load_i64(params, SW) * load_i64(params, XW) == 2 and load_i64(params, UNIT) == 1 and lanes <= 32
    return 2 if is_pairs else 1


@helper
def pack_complex_row(kind, size, target, source, present, channels, taps, channel_step, tap_step):
    """The real or the imaginary parts of one output's weights, `channel_step` and `tap_step` elements apart."""
    for channel in range(channels):
        at, read = target + channel * channel_step * size, source + channel * taps * 2 * size
        for _tap in range(taps):
            copy_vectors(kind, 1, at, 0, read, 0, 1, present)
            at += tap_step * size
            read += 2 * size


@helper
def pack_real_rows(
    kind, lanes, rows, size, target, source, row_step, present, channels, taps, channel_step, tap_step, scratch
):
    """The weights of `rows` outputs, of which `present` exist, side by side: transposed `lanes` terms at a time."""
    terms = channels * taps
    channel, tap = 0, 0
    for first in range(0, terms, lanes):
        count = min(lanes, terms - first)
        interleave_rows(kind, lanes, rows, scratch, source + first * size, row_step * size, present, count)
        for index in range(count):
            at = target + (channel * channel_step + tap * tap_step) * size
            copy_vectors(kind, rows, at, 0, scratch + index * rows * size, 0, 1, (1 << rows) - 1)
            tap += 1
            if tap == taps:
                channel, tap = channel + 1, 0


@helper
def note_nonfinite(kind, lanes, source, count, found):
    """Store 1 at `found` if one of `count` weights is Inf or NaN; they are about to be packed, so this fetches them."""
    if any_nonfinite(kind, lanes, source, count) != 0:
        store_i64(found, 0, 1)


def _make_weight_packer(kind: str, size: int, lanes: int, rows: int, unit: int, name: str) -> Any:
    stamp = jit.source_stamp()

    def pack_weights(params, x, w, bias, out, scratch, task):
        """Task = one block of output rows of one group: out[group][part][block], there [tap][channel][row] or so.

        `bias` is where to store 1 if a weight is Inf or NaN.
        """
        stamp  # noqa: B018 - a closure cell in the cache key
        channels, taps = load_i64(params, W_CHANNELS), load_i64(params, W_TAPS)
        part, taps_first = load_i64(params, W_PART), load_i64(params, W_TAPS_FIRST)
        group_rows, blocks = load_i64(params, W_GROUP_ROWS), load_i64(params, W_BLOCKS)
        group, block = task // blocks, task % blocks
        first, terms = block * rows, channels * taps
        for channel in range(0, channels, part):
            count = min(part, channels - channel)
            channel_step, tap_step = (rows, count * rows) if taps_first != 0 else (taps * rows, rows)
            target = out + ((group * channels + channel) * blocks + block * count) * taps * rows * size
            if unit == 1:
                source = w + ((group * group_rows + first) * terms + channel * taps) * size
                for row in range(min(rows, group_rows - first)):
                    note_nonfinite(kind, lanes, source + row * terms * size, count * taps, bias)
                pack_real_rows(
                    kind, lanes, rows, size, target, source, terms, group_rows - first, count, taps, channel_step,
                    tap_step, scratch,
                )  # fmt: skip
                continue
            for row in range(rows):
                # Row r of a complex group is the real (r even) or imaginary part of output r // 2.
                output = group * (group_rows // 2) + (first + row) // 2
                source = w + ((output * terms + channel * taps) * 2 + (first + row) % 2) * size
                present = 1 if first + row < group_rows else 0
                if present == 1 and row % 2 == 0:
                    note_nonfinite(kind, lanes, source, count * taps * 2, bias)
                pack_complex_row(
                    kind, size, target + row * size, source, present, count, taps, channel_step, tap_step
                )  # fmt: skip

    return jit.callback(pack_weights, name, KERNEL_ARGUMENTS)


@cache
def weight_packer(kind: str, vector_bytes: int, rows: int, unit: int) -> Any:
    """The kernel that packs weights of one element kind in blocks of `rows` real output rows."""
    lanes = lanes_of(kind, vector_bytes)
    name = f"pack_weights_{kind}_{rows}_{'complex' if unit == 2 else 'real'}_{8 * vector_bytes}bit"
    return _make_weight_packer(kind, int(kind[1:]) // 8, lanes, rows, unit, name)


def weight_scratch(kind: str, vector_bytes: int, rows: int) -> int:
    """Bytes of scratch memory that the packer needs per worker."""
    return lanes_of(kind, vector_bytes) * rows * (int(kind[1:]) // 8)
