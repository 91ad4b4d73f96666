"""Stencils: the compiled part of `direct`.

Samples are read straight from the rows of the input, at whatever distance the taps stand: dilation only changes the
addresses. A task is a run of units; a unit is a part of one output row of one group. The rows of a register tile are
several output channels of one output row. (`planes` serves groups with one output channel.)

Three ways to fetch the samples of a tile are told apart before the multiplications: inside the row plain loads; at the
ends of a zero-padded row loads under a mask; and for strides, other padding modes and views with a step along the
width, a gathered panel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import copy_pairs, every_second_bit, fill_zeros, gather_vectors
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    ACTIVATE,
    DW,
    GEOMETRY,
    GROUP_IN,
    GROUP_OUT,
    GROUPS,
    KD,
    KH,
    KW,
    LW,
    MODE,
    NW,
    OD,
    OH,
    OUT_PIXELS,
    OW,
    RELU,
    SW,
    UNIT,
    XC,
    XN,
    XW,
    lanes_of,
)
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.pack import fill_columns, fill_constant, lane_step, row_offset
from fastdil.kernels.places import OUTSIDE
from fastdil.kernels.store import store_tile
from fastdil.kernels.tiles import stencil_tile
from fastdil.kernels.totals import settle_tile
from fastdil.workspace import lay_out

#: Terms summed in registers before they are added to the tile in memory: equal terms then err by 6 eps at most.
CHAIN_TERMS = 48
#: Chains that may be added plainly; beyond, `merge_tile` keeps what rounding loses.
PLAIN_CHAINS = 12
#: Terms that are gathered at a time.
_PANEL_TERMS = 256

#: This kernel's own parameters, after the geometry.
(
    UNITS,  # in all
    TASK_UNITS,  # per task
    CHUNKS,  # units per output row
    CHUNK_PIXELS,  # outputs per unit
    GROUP_BLOCKS,  # weight blocks per group
    TASK_BLOCKS,  # of these, so many are computed for all of a task's units before the next ones
    CHAIN_LINES,  # lines whose terms make one chain
    PANEL_LINES,  # lines that are gathered at a time
    IS_LONG,  # 1 if there are so many chains that their sums must be exact
    IS_FAR,  # 1 if the result does not stay in the cache
    SKIP_PADDING,  # 0 if padding zeros must be multiplied (a weight is not finite)
    TABLE, PANEL_TABLE, PANEL, SUMS, COLUMNS, FILLED, NO_ROWS, MASKS, RUN,  # byte offsets of the parts of the scratch
) = range(GEOMETRY, GEOMETRY + 20)  # fmt: skip
FIELDS = 20

# How a tile gets its samples.
_INSIDE, _AT_END, _GATHERED = range(3)


@helper
def fill_channel_table(params, table, out_depth, out_height, rows):
    """List the lines that one output row reads: offset of the line, offset of its packed weights. Returns how many."""
    depths, heights, widths = load_i64(params, KD), load_i64(params, KH), load_i64(params, KW)
    skip = load_i64(params, SKIP_PADDING)
    lines = 0
    for depth in range(depths):
        for height in range(heights):
            offset = row_offset(params, out_depth, out_height, depth, height)
            if offset == OUTSIDE and skip != 0:
                continue
            for channel in range(load_i64(params, GROUP_IN)):
                line = offset if offset == OUTSIDE else offset + channel * load_i64(params, XC)
                store_i64(table, 2 * lines, line)
                store_i64(table, 2 * lines + 1, ((channel * depths + depth) * heights + height) * widths * rows)
                lines += 1
    return lines


@helper
def fill_masks(params, masks, position, taps, width, lanes):
    """For each tap and vector of a tile that starts at `position`: the lanes that lie inside the row."""
    unit = load_i64(params, UNIT)
    end, step = load_i64(params, NW) * unit, load_i64(params, DW) * unit
    for tap in range(taps):
        for vector in range(width):
            at = position + tap * step + vector * lanes
            skip, stop = min(max(-at, 0), lanes), min(max(end - at, 0), lanes)
            store_i64(masks, tap * width + vector, ((1 << stop) - 1) & ~((1 << skip) - 1))


@helper
def fill_pairs(params, entries, filled, column, count, first, taps, width, lanes):
    """For each tap and vector of `count` outputs: where its samples, two elements apart, begin, and which there are.

    The column and the first tap are kept at `filled`: on narrow maps they are the same for all rows.
    """
    if load_i64(filled, 0) == column and load_i64(filled, 1) == first:
        return
    store_i64(filled, 0, column)
    store_i64(filled, 1, first)
    stride, end = load_i64(params, SW), load_i64(params, NW)
    for tap in range(taps):
        for vector in range(width):
            output = vector * lanes
            position = (column + output) * stride + (first + tap) * load_i64(params, DW) - load_i64(params, LW)
            # Rounded up after a division by the stride, 1 or 2: shifts, where divisions would cost as much as the copy.
            skip = min((max(-position, 0) + stride - 1) >> (stride - 1), lanes)
            stop = max(min((end - position + stride - 1) >> (stride - 1), count - output, lanes), 0)
            bits = ((1 << stop) - 1) & ~((1 << skip) - 1)
            entry = entries + (tap * width + vector) * 16
            # Nothing is loaded under an empty mask, but from a mapped address, or it takes a microcode assist.
            store_i64(entry, 0, position * load_i64(params, XW) if bits != 0 else 0)
            store_i64(entry, 1, every_second_bit(bits))


@helper
def fill_places(params, columns, column, count, first, taps, strip):
    """For each tap and lane of `count` outputs: the offset of its sample."""
    unit = load_i64(params, UNIT)
    for tap in range(taps):
        target = columns + tap * strip * 8
        fill_columns(params, target, column, count, first + tap)
        fill_constant(target + count * unit * 8, strip - count * unit, OUTSIDE)


@helper
def pack_lines(kind, lanes, width, size, params, scratch, x, table, lines, first, taps, column, count, tap_step):
    """Fetch the samples of one tile, and list them as lines of a panel."""
    columns, no_rows = scratch + load_i64(params, COLUMNS), scratch + load_i64(params, NO_ROWS)
    panel, panel_table = scratch + load_i64(params, PANEL), scratch + load_i64(params, PANEL_TABLE)
    strip, is_pairs = width * lanes, load_i64(params, MODE) == 0 and lane_step(params, lanes) == 2
    if is_pairs:
        filled = scratch + load_i64(params, FILLED)
        fill_pairs(params, columns, filled, column, count, first, taps, width, lanes)
    else:
        fill_places(params, columns, column, count, first, taps, strip)
        fill_constant(no_rows, lanes, 0)
    for line in range(lines):
        offset, target = load_i64(table, 2 * line), panel + line * taps * strip * size
        source = x + offset * size
        if offset == OUTSIDE:
            fill_zeros(kind, lanes, target, taps * width)
        elif is_pairs:
            for index in range(taps * width):
                place = target + index * lanes * size
                copy_pairs(kind, lanes, 1, place, 0, source, 0, 1, columns + index * 16)
        else:
            for index in range(taps * width):
                place, lane_columns = target + index * lanes * size, columns + index * lanes * 8
                gather_vectors(kind, lanes, place, 0, source, 0, 1, no_rows, lane_columns)
        store_i64(panel_table, 2 * line, line * taps * strip)
        store_i64(panel_table, 2 * line + 1, load_i64(table, 2 * line + 1) + first * tap_step)


@helper
def finish_block(kind, lanes, rows, width, size, unit, params, tile, errors, outputs, channel, bias, out, run):
    """Store the finished tile of a block, whose first output channel is `channel` and starts at `out`."""
    if errors != 0:
        settle_tile(kind, lanes, tile, errors, rows * width)
    store_tile(kind, lanes, size, unit, params, tile, width * lanes * size, outputs, channel, bias, out, run)


@helper
def compute_tile(
    kind, lanes, rows, width, size, unit, ahead, params, scratch, x, table, lines, weights, block_step, way, column,
    count, first_block, channel, bias, out,
):  # fmt: skip
    """Some output channels of a group for one tile of neighbouring outputs, from a list of the lines they read.

    A block of channels is stored before the next one is computed: its stores are on their way to memory meanwhile. Sums
    go from registers to the result unless they must first be put in order, made exact or handed to an activation.
    """
    last_block = min(first_block + load_i64(params, TASK_BLOCKS), load_i64(params, GROUP_BLOCKS))
    all_taps, is_long = load_i64(params, KW), load_i64(params, IS_LONG)
    group_out, relu, tile_bytes = load_i64(params, GROUP_OUT), load_i64(params, RELU), rows * width * lanes * size
    tile, run = scratch + load_i64(params, SUMS), scratch + load_i64(params, RUN)
    plane_bytes = load_i64(params, OUT_PIXELS) * unit * size
    is_plain = unit == 1 and is_long == 0 and load_i64(params, ACTIVATE) == 0
    panel, panel_table = scratch + load_i64(params, PANEL), scratch + load_i64(params, PANEL_TABLE)
    masks, is_far = scratch + load_i64(params, MASKS), load_i64(params, IS_FAR)
    step, chain_lines = load_i64(params, DW) * unit, load_i64(params, CHAIN_LINES)
    lines_at_once = load_i64(params, PANEL_LINES) if way == _GATHERED else max(lines, 1)
    resume = 0
    for tap in range(0, all_taps, CHAIN_TERMS):
        taps = min(CHAIN_TERMS, all_taps - tap)
        position = (column - load_i64(params, LW)) * unit + tap * step
        if way == _AT_END and all_taps > CHAIN_TERMS:
            fill_masks(params, masks, position, taps, width, lanes)
        line = 0
        while line < lines or resume == 0:  # once even without lines: the tile is zero then
            line_count, part = min(lines_at_once, lines - line), table + line * 16
            if way == _GATHERED:
                pack_lines(
                    kind, lanes, width, size, params, scratch, x, part, line_count, tap, taps, column, count, rows
                )
            # Samples stand in the panel, whose table counts the taps of earlier chains itself, or in x.
            is_gathered = way == _GATHERED
            listed = panel_table if is_gathered else part
            samples = panel if is_gathered else x + position * size
            sample_step, weight_shift = width * lanes if is_gathered else step, 0 if is_gathered else tap * rows * size
            is_last = line + line_count == lines and tap + taps == all_taps
            for block in range(first_block, last_block):
                base, target = weights + block * block_step * size + weight_shift, tile + 2 * block * tile_bytes
                errors, first = target + tile_bytes if is_long else 0, block * (rows // unit)
                outputs, at = min(rows // unit, group_out - first), out + first * plane_bytes
                shift = bias + (channel + first) * size if bias != 0 else 0
                result = at + load_i64(run, 3) * size if is_last and is_plain else 0
                if way == _AT_END:
                    stencil_tile(
                        kind, lanes, rows, width, 1, 0, listed, line_count, chain_lines, taps, samples, sample_step,
                        base, rows, masks, target, errors, resume, result, outputs, count, plane_bytes, shift,
                        relu, is_far,
                    )  # fmt: skip
                else:
                    stencil_tile(
                        kind, lanes, rows, width, 0, ahead, listed, line_count, chain_lines, taps, samples, sample_step,
                        base, rows, 0, target, errors, resume, result, outputs, count, plane_bytes, shift,
                        relu, is_far,
                    )  # fmt: skip
                if is_last and not is_plain:
                    finish_block(
                        kind, lanes, rows, width, size, unit, params, target, errors, outputs, channel + first, bias,
                        at, run,
                    )  # fmt: skip
            resume = 1
            line += max(line_count, 1)


@helper
def way_to_fetch(params, column, strip):
    """How the tile that starts at output `column` gets its samples."""
    unit = load_i64(params, UNIT)
    if load_i64(params, SW) != 1 or load_i64(params, XW) != unit or load_i64(params, SKIP_PADDING) == 0:
        return _GATHERED
    position = (column - load_i64(params, LW)) * unit
    reach = (load_i64(params, KW) - 1) * load_i64(params, DW) * unit
    if position >= 0 and position + reach + strip <= load_i64(params, NW) * unit:
        return _INSIDE
    return _AT_END if load_i64(params, MODE) == 0 else _GATHERED


@helper
def open_tile(params, masks, run, line, column, count, width, lanes, masked_column):
    """How the tile at `column` of output row `line` is fetched; fills its masks unless they are `masked_column`'s."""
    store_i64(run, 0, 1)
    store_i64(run, 1, 0)
    store_i64(run, 2, count)
    store_i64(run, 3, line * load_i64(params, OW) + column)
    way = way_to_fetch(params, column, width * lanes)
    if way == _AT_END and column != masked_column and load_i64(params, KW) <= CHAIN_TERMS:
        position = (column - load_i64(params, LW)) * load_i64(params, UNIT)
        fill_masks(params, masks, position, load_i64(params, KW), width, lanes)
    return way


def _make_channel_kernel(
    kind: str, size: int, lanes: int, rows: int, width: int, unit: int, ahead: int, name: str
) -> Any:
    """Tile rows are output channels of one output row (or their real and imaginary parts)."""
    stamp = jit.source_stamp()
    strip_pixels = width * lanes // unit

    def stencil(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        table, run = scratch + load_i64(params, TABLE), scratch + load_i64(params, RUN)
        masks = scratch + load_i64(params, MASKS)
        groups, group_in, group_out = load_i64(params, GROUPS), load_i64(params, GROUP_IN), load_i64(params, GROUP_OUT)
        height, blocks = load_i64(params, OH), load_i64(params, GROUP_BLOCKS)
        chunks, chunk_pixels = load_i64(params, CHUNKS), load_i64(params, CHUNK_PIXELS)
        block_step = group_in * load_i64(params, KD) * load_i64(params, KH) * load_i64(params, KW) * rows
        plane_bytes = load_i64(params, OUT_PIXELS) * unit * size
        listed, lines, masked_column = -1, 0, -1
        store_i64(scratch + load_i64(params, FILLED), 0, -1)  # no column yet
        first_unit = task * load_i64(params, TASK_UNITS)
        units = min(load_i64(params, TASK_UNITS), load_i64(params, UNITS) - first_unit)
        for first_block in range(0, blocks, load_i64(params, TASK_BLOCKS)):
            for index in range(first_unit, first_unit + units):
                line = index // chunks
                plane = line // (height * load_i64(params, OD))
                group, sample = plane % groups, plane // groups
                plane_line = line % (height * load_i64(params, OD))
                if plane_line != listed:
                    lines = fill_channel_table(params, table, plane_line // height, plane_line % height, rows)
                    listed = plane_line
                source = x + (sample * load_i64(params, XN) + group * group_in * load_i64(params, XC)) * size
                begin = index % chunks * chunk_pixels
                end = min(begin + chunk_pixels, load_i64(params, OW))
                for column in range(begin, end, strip_pixels):
                    count = min(strip_pixels, end - column)
                    way = open_tile(params, masks, run, plane_line, column, count, width, lanes, masked_column)
                    masked_column = column if way == _AT_END else masked_column
                    compute_tile(
                        kind, lanes, rows, width, size, unit, ahead, params, scratch, source, table, lines,
                        w + group * blocks * block_step * size, block_step, way, column, count, first_block,
                        group * group_out, bias, out + plane * group_out * plane_bytes,
                    )  # fmt: skip

    return jit.callback(stencil, name, KERNEL_ARGUMENTS)


@cache
def stencil_kernel(kind: str, vector_bytes: int, unit: int, rows: int, width: int, ahead: int) -> Any:
    """The compiled kernel for one element kind, vector width, unit (2: complex) and tile.

    With `ahead`, samples of the next tile are asked for; a kernel of its own, since a branch per line cost 3 to 10 %.
    """
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    name = f"stencil_{kind}_{rows}x{width * lanes}_{'complex' if unit == 2 else 'real'}_{8 * vector_bytes}bit"
    return _make_channel_kernel(kind, size, lanes, rows, width, unit, ahead, name + "_ahead" * ahead)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, rows: int, width: int) -> int:
    """Write the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    table = int(params[GROUP_IN] * params[KD] * params[KH]) * 16
    taps = min(int(params[KW]), CHAIN_TERMS)
    chain_lines = CHAIN_TERMS // taps
    panel_lines = max(_PANEL_TERMS // taps // chain_lines, 1) * chain_lines  # whole chains, wherever a tile is gathered
    strip = width * lanes
    chains = -(-table // 16 // chain_lines) * -(-int(params[KW]) // CHAIN_TERMS)
    params[CHAIN_LINES], params[PANEL_LINES] = chain_lines, panel_lines
    params[IS_LONG] = int(chains > PLAIN_CHAINS and kind[0] == "f")
    parts = (
        (TABLE, table),
        (PANEL_TABLE, panel_lines * 16),
        (PANEL, panel_lines * taps * strip * size),
        (SUMS, 2 * int(params[GROUP_BLOCKS]) * rows * strip * size),
        (COLUMNS, taps * max(strip * 8, width * 16)),
        (FILLED, 2 * 8),
        (NO_ROWS, lanes * 8),
        (MASKS, taps * width * 8),
        (RUN, 4 * 8),
    )
    return lay_out(params, parts)
