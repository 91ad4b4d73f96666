"""Stencils: the compiled part of `direct`.

Samples are read straight from the rows of the input, at whatever distance the taps stand: dilation only changes the
addresses. A task is a run of units, a unit is (part of) one output row of one group. Three ways to fetch the samples of
a tile are split before the multiplications: inside the row plain loads; at the ends of a zero-padded row loads under a
mask; and for strides, other padding modes and views with a step along the width, a gathered panel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
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
    OUTSIDE,
    OW,
    SW,
    UNIT,
    XC,
    XN,
    XW,
    lanes_of,
)
from fastdil.kernels.intrinsics import gather_vectors, load_i64, store_i64
from fastdil.kernels.pack import fill_columns, fill_constant, row_offset
from fastdil.kernels.store import store_tile
from fastdil.kernels.tiles import stencil_tile
from fastdil.workspace import ALIGNMENT

#: Terms summed in registers before they are added to the tile in memory: bounds the rounding error of one chain.
CHAIN_TERMS = 256

#: This kernel's own parameters, after the geometry.
(
    UNITS,  # in all
    TASK_UNITS,  # per task
    CHUNKS,  # units per output row
    CHUNK_PIXELS,  # outputs per unit
    GROUP_BLOCKS,  # weight blocks per group
    SKIP_PADDING,  # 0 if padding zeros must be multiplied (a weight is not finite)
    TABLE,
    PANEL_TABLE,
    PANEL,
    SUMS,
    COLUMNS,
    NO_ROWS,
    RUN,  # byte offsets of the parts of the scratch memory
) = range(GEOMETRY, GEOMETRY + 13)
FIELDS = 13


def tile_shape(real_rows: int, real_width: int, lanes: int, vector_bytes: int) -> tuple[int, int]:
    """Output rows and vectors of the register tile for this many real output rows and samples along the width.

    Rows share the loaded samples; a single row needs many vectors so that eight independent sums hide the latency of
    the multiply-add.
    """
    shapes = {1: 8, 2: 6, 4: 4, 8: 3} if vector_bytes == 64 else {1: 8, 2: 4, 4: 2}
    rows = next((rows for rows in shapes if rows >= real_rows), max(shapes))
    width = shapes[rows]
    while rows <= 2 and width > 2 and (width // 2) * lanes >= real_width:
        width //= 2
    return rows, width


@helper
def fill_table(params, table, group_source, out_depth, out_height, rows):
    """List the lines of samples that an output row reads: offset of the line, offset of its weights."""
    depths, heights, widths = load_i64(params, KD), load_i64(params, KH), load_i64(params, KW)
    skip = load_i64(params, SKIP_PADDING)
    lines = 0
    for depth in range(depths):
        for height in range(heights):
            offset = row_offset(params, out_depth, out_height, depth, height)
            if offset == OUTSIDE and skip != 0:
                continue
            for channel in range(load_i64(params, GROUP_IN)):
                line = offset if offset == OUTSIDE else offset + group_source + channel * load_i64(params, XC)
                store_i64(table, 2 * lines, line)
                store_i64(table, 2 * lines + 1, ((channel * depths + depth) * heights + height) * widths * rows)
                lines += 1
    return lines


@helper
def pack_lines(kind, lanes, width, size, params, scratch, x, table, lines, first, taps, out_width, count, rows):
    """Gather the samples of one tile, and list them as lines of a panel."""
    unit = load_i64(params, UNIT)
    columns, no_rows = scratch + load_i64(params, COLUMNS), scratch + load_i64(params, NO_ROWS)
    panel, panel_table = scratch + load_i64(params, PANEL), scratch + load_i64(params, PANEL_TABLE)
    strip = width * lanes
    for tap in range(taps):
        target = columns + tap * strip * 8
        fill_columns(params, target, out_width, count, first + tap)
        fill_constant(target + count * unit * 8, strip - count * unit, OUTSIDE)
    for line in range(lines):
        offset = load_i64(table, 2 * line)
        # A line of padding is gathered from nowhere: every sum of offsets stays negative.
        fill_constant(no_rows, lanes, offset if offset == OUTSIDE else 0)
        source = x if offset == OUTSIDE else x + offset * size
        for tap in range(taps):
            for vector in range(width):
                place = (line * taps + tap) * strip + vector * lanes
                column = columns + (tap * strip + vector * lanes) * 8
                gather_vectors(kind, lanes, panel + place * size, 0, source, 0, 1, no_rows, column)
        store_i64(panel_table, 2 * line, line * taps * strip)
        store_i64(panel_table, 2 * line + 1, load_i64(table, 2 * line + 1) + first * rows)


@helper
def multiply_lines(
    kind, lanes, rows, width, size, params, scratch, x, table, lines, first, taps, weights, tile, resume, way, position
):
    """Add the products of `lines` x `taps` terms to a tile; `way` is 0 inside, 1 at an end, 2 from the panel."""
    unit = load_i64(params, UNIT)
    if way == 2:
        panel, panel_table = scratch + load_i64(params, PANEL), scratch + load_i64(params, PANEL_TABLE)
        step = width * lanes
        stencil_tile(kind, lanes, rows, width, panel_table, lines, taps, panel, weights, step, tile, resume, 0, 0, 0)
        return
    step = load_i64(params, DW) * unit
    start = position + first * step
    at, at_weights = x + start * size, weights + first * rows * size
    if way == 0:
        stencil_tile(kind, lanes, rows, width, table, lines, taps, at, at_weights, step, tile, resume, 0, 0, 0)
    else:
        last = load_i64(params, NW) * unit - start
        stencil_tile(kind, lanes, rows, width, table, lines, taps, at, at_weights, step, tile, resume, -start, last, 1)


@helper
def way_to_fetch(params, position, strip):
    """How a tile whose first tap stands at `position` of the row gets its samples (`multiply_lines`)."""
    unit = load_i64(params, UNIT)
    if load_i64(params, SW) != 1 or load_i64(params, XW) != unit or load_i64(params, SKIP_PADDING) == 0:
        return 2
    reach = (load_i64(params, KW) - 1) * load_i64(params, DW) * unit
    if position >= 0 and position + reach + strip <= load_i64(params, NW) * unit:
        return 0
    return 1 if load_i64(params, MODE) == 0 else 2


def _make_stencil_kernel(kind: str, size: int, lanes: int, rows: int, width: int, unit: int, name: str) -> Any:
    stamp = jit.source_stamp()
    strip = width * lanes
    strip_pixels, tile_bytes = strip // unit, rows * strip * size

    def stencil(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        table, sums = scratch + load_i64(params, TABLE), scratch + load_i64(params, SUMS)
        run = scratch + load_i64(params, RUN)
        groups, group_in, group_out = load_i64(params, GROUPS), load_i64(params, GROUP_IN), load_i64(params, GROUP_OUT)
        depth_taps, all_taps = load_i64(params, KD) * load_i64(params, KH), load_i64(params, KW)
        blocks, out_width = load_i64(params, GROUP_BLOCKS), load_i64(params, OW)
        chunks, chunk_pixels = load_i64(params, CHUNKS), load_i64(params, CHUNK_PIXELS)
        taps_at_once = min(all_taps, CHAIN_TERMS)
        lines_at_once = CHAIN_TERMS // taps_at_once
        line_of, lines = -1, 0
        first_unit = task * load_i64(params, TASK_UNITS)
        for index in range(first_unit, min(first_unit + load_i64(params, TASK_UNITS), load_i64(params, UNITS))):
            out_line = index // chunks
            out_height = out_line % load_i64(params, OH)
            out_depth = out_line // load_i64(params, OH) % load_i64(params, OD)
            plane = out_line // (load_i64(params, OH) * load_i64(params, OD))
            group, sample = plane % groups, plane // groups
            if out_line != line_of:
                source = sample * load_i64(params, XN) + group * group_in * load_i64(params, XC)
                lines = fill_table(params, table, source, out_depth, out_height, rows)
                line_of = out_line
            several = 1 if lines > lines_at_once or all_taps > taps_at_once else 0
            begin = index % chunks * chunk_pixels
            for column in range(begin, min(begin + chunk_pixels, out_width), strip_pixels):
                count = min(strip_pixels, min(begin + chunk_pixels, out_width) - column)
                position = (column - load_i64(params, LW)) * unit
                way = way_to_fetch(params, position, strip)
                store_i64(run, 0, 1)
                store_i64(run, 1, 0)
                store_i64(run, 2, count)
                store_i64(run, 3, (out_depth * load_i64(params, OH) + out_height) * out_width + column)
                resume, line = 0, 0
                while line < lines or resume == 0:  # once even if no line is inside: the tile is zero then
                    line_count = min(lines_at_once, lines - line)
                    for tap in range(0, all_taps, taps_at_once):
                        taps = min(taps_at_once, all_taps - tap)
                        if way == 2:
                            pack_lines(
                                kind, lanes, width, size, params, scratch, x, table + line * 16, line_count,
                                tap, taps, column, count, rows,
                            )  # fmt: skip
                        is_last = line + line_count >= lines and tap + taps == all_taps
                        for block in range(blocks):
                            tile = sums + several * block * tile_bytes
                            place = (group * blocks + block) * group_in * depth_taps * all_taps * rows
                            multiply_lines(
                                kind, lanes, rows, width, size, params, scratch, x, table + line * 16, line_count,
                                tap, taps, w + place * size, tile, resume, way, position,
                            )  # fmt: skip
                            if is_last:
                                first = block * (rows // unit)
                                channel = group * group_out + first
                                base = (sample * groups * group_out + channel) * load_i64(params, OUT_PIXELS)
                                store_tile(
                                    kind, lanes, size, unit, params, tile, strip * size,
                                    min(rows // unit, group_out - first), channel, bias, out + base * unit * size, run,
                                )  # fmt: skip
                        resume = 1
                    line += line_count

    return jit.callback(stencil, name, KERNEL_ARGUMENTS)


@cache
def stencil_kernel(kind: str, vector_bytes: int, unit: int, rows: int, width: int) -> Any:
    """The compiled kernel for one element kind, vector width, unit (2: complex) and tile."""
    lanes = lanes_of(kind, vector_bytes)
    name = f"stencil_{kind}_{rows}x{width * lanes}_{'complex' if unit == 2 else 'real'}_{8 * vector_bytes}bit"
    return _make_stencil_kernel(kind, int(kind[1:]) // 8, lanes, rows, width, unit, name)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, rows: int, width: int) -> int:
    """Write the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    lines = int(params[GROUP_IN] * params[KD] * params[KH])
    taps = min(int(params[KW]), CHAIN_TERMS)
    lines_at_once = CHAIN_TERMS // taps
    parts = (
        (TABLE, lines * 16),
        (PANEL_TABLE, lines_at_once * 16),
        (PANEL, lines_at_once * taps * width * lanes * size),
        (SUMS, int(params[GROUP_BLOCKS]) * rows * width * lanes * size),
        (COLUMNS, taps * width * lanes * 8),
        (NO_ROWS, lanes * 8),
        (RUN, 4 * 8),
    )
    offset = 0
    for field, needed in parts:
        params[field] = offset
        offset += -(-needed // ALIGNMENT) * ALIGNMENT
    return offset
