"""Stencils on planes: the compiled part of `direct` for groups with one output channel, depthwise layers and images.

A register tile is several output rows that are `dilation` apart: they read the same lines of samples, so each line is
loaded once for all of them; unaligned loads are what bounds these kernels. Where an output is a single line of taps (a
short filter along signals or rows), a tile is one row. A task is a run of units, a unit a part of such a group of rows,
or of all rows of a phase.

At the ends of a zero-padded row, samples are loaded under masks; with another padding mode, the lines are first laid
out as that mode continues them. Where planes are small, so that most tiles are at an end, whole planes are laid out.
Views with a step along the width, strides and weights that are not finite are left to `fastdil.kernels.stencil`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import fill_zeros
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    ACTIVATE,
    DW,
    GEOMETRY,
    GROUP_IN,
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
    XC,
    XN,
    lanes_of,
)
from fastdil.kernels.intrinsics import call_on_row, load_i64, store_i64
from fastdil.kernels.laid_out import (
    LAID_OUT,
    LAID_OUT_FIELDS,
    lay_out_line,
    lay_out_parts,
    lay_out_plane,
    segment_runs,
)
from fastdil.kernels.pack import fill_constant, row_offset
from fastdil.kernels.places import OUTSIDE
from fastdil.kernels.plane_tiles import plane_run
from fastdil.kernels.stencil import CHAIN_TERMS, PLAIN_CHAINS, fill_masks

#: A sum of at most so many products stays in registers from the first to the last: equal terms err by 7.7 eps.
SINGLE_TERMS = 56
#: Masks of so many bytes are kept for the tiles at the ends of rows.
_SLOT_BYTES = 1 << 15

#: This kernel's own parameters, after those of a laid-out plane.
(
    UNITS,  # in all
    TASK_UNITS,  # per task
    CHUNKS,  # units per group of output rows
    CHUNK_PIXELS,  # outputs per unit and row
    UNIT_ROWS,  # output rows of a unit: those of a tile, or all of a phase where planes are laid out
    ROW_GROUPS, ROW_STEP,  # units per phase; distance of the rows of a unit, and number of phases
    PLANES, PLANE_BLOCK,  # planes in all; that take turns at the same rows, so that one list of lines serves them all
    CHAIN_LINES,  # kernel rows whose terms make one chain
    IS_LONG,  # 1 if there are so many chains that their sums must be exact
    SLOTS, SLOT_STEP,  # tiles at row ends that are remembered, and bytes for each
    RUNS, RUN_SAMPLES, SEGMENT_STEP,  # what a tile reads of a line, if it is laid out: see `segment_runs`
    TABLE, SEGMENT_TABLE, SEGMENTS, SUMS, TAGS, ENDS, CLOSES,  # byte offsets into the scratch memory
) = range(LAID_OUT_FIELDS, LAID_OUT_FIELDS + 23)  # fmt: skip
FIELDS = LAID_OUT_FIELDS + 23 - GEOMETRY


@helper
def fill_lines(params, table, out_depth, out_height, lines):
    """List where `lines` lines stand, the first that an output row reads and those after it, sheet by sheet."""
    depths = load_i64(params, KD)
    for depth in range(depths):
        for line in range(lines):
            offset = row_offset(params, out_depth, out_height, depth, line)
            for channel in range(load_i64(params, GROUP_IN)):
                at = offset if offset == OUTSIDE else offset + channel * load_i64(params, XC)
                store_i64(table, (channel * depths + depth) * lines + line, at)


@helper
def fill_phases(params, table, out_depth, phases, lines):
    """List the lines that the output rows of each phase read."""
    sheets = load_i64(params, GROUP_IN) * load_i64(params, KD)
    for phase in range(phases):
        fill_lines(params, table + phase * sheets * lines * 8, out_depth, phase, lines)


@helper
def fill_closes(closes, heights, chain_lines):
    """Mark the kernel rows after which a chain ends: every so many, and the last."""
    for row in range(heights):
        store_i64(closes, row, 1 if (row + 1) % chain_lines == 0 or row == heights - 1 else 0)


@helper
def end_of_row(params, scratch, position, width, lanes):
    """Masks for the tile whose first tap reads at `position`: remembered if seen lately."""
    slot = (position + load_i64(params, LW)) // (width * lanes) % load_i64(params, SLOTS)
    tags, at = scratch + load_i64(params, TAGS), scratch + load_i64(params, ENDS) + slot * load_i64(params, SLOT_STEP)
    if load_i64(tags, slot) != position:
        store_i64(tags, slot, position)
        fill_masks(params, at, position, load_i64(params, KW), width, lanes)
    return at


@helper
def fill_segments(kind, lanes, size, params, scratch, source, table, position, lines):
    """Lay out the part of each line that one tile reads, from `position` on, as the padding mode continues it."""
    runs, run = load_i64(params, RUNS), load_i64(params, RUN_SAMPLES)
    segments = scratch + load_i64(params, SEGMENTS)
    for line in range(lines):
        offset, target = load_i64(table, line), segments + line * runs * run * size
        if offset == OUTSIDE:  # a line of padding on another axis, or a depth without samples
            fill_zeros(kind, lanes, target, runs * run // lanes)
        else:
            row = source + offset * size
            lay_out_line(kind, lanes, size, params, target, row, position, runs, run, load_i64(params, DW))
        store_i64(scratch + load_i64(params, SEGMENT_TABLE), line, line * runs * run)


@helper
def is_inside(params, position, strip):
    """Whether all taps of the tile whose first tap reads at `position` lie in the row, as it is or laid out."""
    reach = (load_i64(params, KW) - 1) * load_i64(params, DW) + strip
    return load_i64(params, LAID_OUT) != 0 or (position >= 0 and position + reach <= load_i64(params, NW))


@helper
def first_sample(params, column):
    """Where the first tap of the output `column` reads in its row, as it is or laid out."""
    return column if load_i64(params, LAID_OUT) else column - load_i64(params, LW)


@helper
def plane_unit(
    kind, lanes, rows, width, size, single, params, scratch, source, weights, table, table_step, target, row_bytes,
    begin, end, present, shift,
):  # fmt: skip
    """The outputs `begin` to `end` of `present` rows of one plane; `target` is the first of them."""
    strip, heights, all_taps = width * lanes, load_i64(params, KH), load_i64(params, KW)
    sheets, step, mode = load_i64(params, GROUP_IN) * load_i64(params, KD), load_i64(params, DW), load_i64(params, MODE)
    relu, lines, closes = load_i64(params, RELU), heights + rows - 1, scratch + load_i64(params, CLOSES)
    sums = scratch + load_i64(params, SUMS)
    errors = sums + rows * strip * size if load_i64(params, IS_LONG) else 0
    column = begin
    while column < end:
        position, at, outputs = first_sample(params, column), target + (column - begin) * size, end - column
        inside = is_inside(params, position, strip)
        if not inside:
            outputs = min(outputs, strip)
        elif not load_i64(params, LAID_OUT):  # as many as lie inside with all their taps
            outputs = min(outputs, (load_i64(params, NW) - (all_taps - 1) * step - position) // strip * strip)
        if inside or mode != 0:
            first, samples, table_lines, tap_step = table, source + position * size, table_step, step
            if not inside:
                fill_segments(kind, lanes, size, params, scratch, source, table, position, sheets * lines)
                first, samples = scratch + load_i64(params, SEGMENT_TABLE), scratch + load_i64(params, SEGMENTS)
                table_lines, tap_step = lines, load_i64(params, SEGMENT_STEP)
            plane_run(
                kind, lanes, rows, width, single, 0, first, sheets, table_lines, heights, all_taps, CHAIN_TERMS, closes,
                samples, tap_step, weights, 0, sums, errors, outputs, present, at, row_bytes, shift, relu,
            )  # fmt: skip
        else:
            ends = end_of_row(params, scratch, position, width, lanes)
            plane_run(
                kind, lanes, rows, width, single, 1, table, sheets, table_step, heights, all_taps, CHAIN_TERMS, closes,
                source + position * size, step, weights, ends, sums, errors, outputs, present, at, row_bytes, shift,
                relu,
            )  # fmt: skip
        column += outputs
    if load_i64(params, ACTIVATE):
        for row in range(present):
            call_on_row(load_i64(params, ACTIVATE), target + row * row_bytes, end - begin)


def _make_plane_kernel(kind: str, size: int, lanes: int, rows: int, width: int, single: int, name: str) -> Any:
    stamp = jit.source_stamp()

    def planes(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        row_step, row_groups = load_i64(params, ROW_STEP), load_i64(params, ROW_GROUPS)
        plane_count, plane_block = load_i64(params, PLANES), load_i64(params, PLANE_BLOCK)
        chunks, height, depths = load_i64(params, CHUNKS), load_i64(params, OH), load_i64(params, OD)
        channels, groups = load_i64(params, GROUP_IN), load_i64(params, GROUPS)
        unit_rows, table = load_i64(params, UNIT_ROWS), scratch + load_i64(params, TABLE)
        lines = unit_rows + load_i64(params, KH) - 1
        sheets, out_width = channels * load_i64(params, KD), load_i64(params, OW)
        phase_bytes, terms = sheets * lines * 8, sheets * load_i64(params, KH) * load_i64(params, KW)
        is_laid_out = load_i64(params, LAID_OUT) != 0
        fill_constant(scratch + load_i64(params, TAGS), load_i64(params, SLOTS), OUTSIDE)
        fill_closes(scratch + load_i64(params, CLOSES), load_i64(params, KH), load_i64(params, CHAIN_LINES))
        listed, laid_out = -1, -1
        index = task * load_i64(params, TASK_UNITS)
        last = min(index + load_i64(params, TASK_UNITS), load_i64(params, UNITS))
        # Planes of a block take turns at the same rows; all phases of one group of rows follow each other, so they find
        # their samples in cache. Divisions cost as much as the products of a small unit: decode once, then count.
        chunk, rest = index % chunks, index // chunks
        turn, rest = rest % plane_block, rest // plane_block
        phase, rest = rest % row_step, rest // row_step
        row_group, rest = rest % row_groups, rest // row_groups
        depth, first_plane = rest % depths, rest // depths * plane_block
        while index < last:
            plane, first_row = first_plane + turn, row_group * unit_rows * row_step + phase
            present = 0
            while present < unit_rows and first_row + present * row_step < height:
                present += 1
            if present > 0 and plane < plane_count:
                unit_table = table
                if is_laid_out:
                    unit_table += phase * phase_bytes
                    source = scratch + load_i64(params, LAID_OUT)
                    if plane != laid_out:
                        lay_out_plane(kind, lanes, size, params, scratch, x, plane, laid_out < 0)
                        laid_out = plane
                    if depth != listed:
                        fill_phases(params, table, depth, row_step, lines)
                        listed = depth
                else:
                    source = x + (
                        plane // groups * load_i64(params, XN) + plane % groups * channels * load_i64(params, XC)
                    ) * size  # fmt: skip
                    if depth * height + first_row != listed:
                        fill_lines(params, table, depth, first_row, lines)
                        listed = depth * height + first_row
                group, begin = plane % groups, chunk * load_i64(params, CHUNK_PIXELS)
                first_output = (depth * height + first_row) * out_width + begin
                plane_unit(
                    kind, lanes, rows, width, size, single, params, scratch, source, w + group * terms * size,
                    unit_table, lines, out + (plane * load_i64(params, OUT_PIXELS) + first_output) * size,
                    row_step * out_width * size, begin, min(begin + load_i64(params, CHUNK_PIXELS), out_width), present,
                    bias + group * size if bias != 0 else 0,
                )  # fmt: skip
            index += 1
            chunk += 1
            if chunk == chunks:
                chunk, turn = 0, turn + 1
            if turn == plane_block:
                turn, phase = 0, phase + 1
            if phase == row_step:
                phase, row_group = 0, row_group + 1
            if row_group == row_groups:
                row_group, depth = 0, depth + 1
            if depth == depths:
                depth, first_plane = 0, first_plane + plane_block

    return jit.callback(planes, name, KERNEL_ARGUMENTS)


@cache
def plane_kernel(kind: str, vector_bytes: int, rows: int, width: int, single: bool) -> Any:
    """The compiled kernel for one element kind, vector width and tile; `single`: at most `SINGLE_TERMS` products."""
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    name = f"planes_{kind}_{rows}x{width * lanes}_{'single' if single else 'chains'}_{8 * vector_bytes}bit"
    return _make_plane_kernel(kind, size, lanes, rows, width, int(single), name)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, rows: int, width: int) -> int:
    """Write chains, slots and the byte offsets of the scratch memory's parts into `params`; returns its size.

    ``params[LAID_OUT]`` is as in `lay_out_parts`.
    """
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    strip, taps = width * lanes, int(params[KW])
    sheets = int(params[GROUP_IN] * params[KD])
    lines, phases = int(params[KH] + params[UNIT_ROWS]) - 1, int(params[ROW_STEP]) if params[LAID_OUT] else 1
    segment_lines = sheets * (int(params[KH]) + rows - 1)
    chain_lines = CHAIN_TERMS // min(taps, CHAIN_TERMS)
    chains = sheets * -(-int(params[KH]) // chain_lines) * -(-taps // CHAIN_TERMS)
    runs, run, step = segment_runs(strip, taps, int(params[DW]), lanes) if params[MODE] else (0, 0, 0)
    slot = 8 * taps * width
    terms = sheets * int(params[KH]) * taps
    is_long = terms > SINGLE_TERMS and chains > PLAIN_CHAINS and kind[0] == "f"
    params[CHAIN_LINES], params[IS_LONG] = chain_lines, int(is_long)
    params[SLOTS], params[SLOT_STEP] = max(_SLOT_BYTES // slot, 1), slot
    params[RUNS], params[RUN_SAMPLES], params[SEGMENT_STEP] = runs, run, step
    parts = (
        (TABLE, phases * sheets * lines * 8),
        (SEGMENT_TABLE, segment_lines * 8),
        (SEGMENTS, segment_lines * runs * run * size),
        (SUMS, 2 * rows * strip * size),
        (TAGS, int(params[SLOTS]) * 8),
        (ENDS, int(params[SLOTS]) * slot),
        (CLOSES, int(params[KH]) * 8),
    )
    return lay_out_parts(params, parts, size)
