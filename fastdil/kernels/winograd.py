"""Minimal filtering on the dilation phases: the compiled part of `winograd`.

With dilation d, outputs i and i + d read the samples i, i + d, i + 2 d and i + 3 d: a tile of Winograd's F(2,3),
whatever d is. A *line* is a pair of output rows that are d apart (one row if the height has one tap); its tiles are all
columns whose run of d columns is even.

One task takes several lines (or a chunk of one) of one sample, one group and one chunk of output channels. It walks
over input channels, and the taps of the depth, in blocks: transform their samples to all frequencies, in scratch memory
that stays in L2; multiply with the transformed weights, frequency by frequency; and transform back when the last block
is in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    ACTIVATE,
    DD,
    DH,
    GEOMETRY,
    GROUP_IN,
    GROUP_OUT,
    GROUPS,
    KD,
    LD,
    LH,
    LW,
    MODE,
    ND,
    NH,
    NW,
    OH,
    OUT_PIXELS,
    OW,
    RELU,
    XC,
    XD,
    XH,
    XN,
    XW,
    lanes_of,
    source_index,
)
from fastdil.kernels.intrinsics import OUTSIDE, call_on_row, copy_vectors, finish_row, load_i64, store_i64
from fastdil.kernels.tiles import merge_tile, settle_tile
from fastdil.kernels.winograd_tiles import (
    OUTPUTS,
    SAMPLES,
    add_vectors,
    combine_frequencies,
    copy_run,
    frequency_tile,
    join_runs,
    transform_columns,
    transform_rows,
    transform_weights,
)
from fastdil.workspace import ALIGNMENT

#: Terms whose blocks are added plainly; beyond, what rounding loses is kept (`merge_tile`).
PLAIN_TERMS = 256
#: This kernel's own parameters, after the geometry.
(
    LINES,  # of one sample: depths times lines of one depth
    PLANE_LINES,  # of one depth
    TASK_LINES,
    LINE_BLOCKS,  # tasks that share the lines of a sample
    ROW_STEP,
    COLUMN_STEP,  # outputs per run: the dilation, or the whole axis where it has one tap
    TILES,  # of one line
    CHUNK,  # most tiles of a line in one task
    CHUNKS,
    RUN_CHUNKS,  # chunks of one run, if a chunk never holds a whole one; else 0
    GROUP_BLOCKS,  # weight blocks per group
    TASK_BLOCKS,
    BLOCK_TAPS,  # taps of the depth that are worked on at a time
    BLOCK_CHANNELS,
    PITCH,  # bytes from one channel's frequencies to the next one's
    ROW_PITCH,  # bytes of one row of samples after the transform along the height
    PIECE_PITCH,  # bytes from the samples 0 of a line's tiles to the samples 1
    PIECES,  # of a row that are fetched apart
    PIECE,  # samples of one
    PANEL,
    SUMS,
    PART,
    ROWS,
    LINES_AT,
    ZEROS,
    COLUMNS,
    OUTPUTS_AT,
    JOINED,  # byte offsets of the parts of the scratch memory
    ERRORS,  # bytes from sums to what was rounded away from them, if blocks are added exactly; else 0
) = range(GEOMETRY, GEOMETRY + 29)
FIELDS = 29

#: What `open_task` works out, at the start of the worker's scratch memory.
(
    SAMPLE,
    GROUP,
    FIRST_BLOCK,
    LAST_BLOCK,
    FIRST_LINE,
    LAST_LINE,
    FIRST_TILE,
    LINE_TILES,
    FIRST_COLUMN,
    STRIPS,
    VECTORS,
) = range(11)
STATE_FIELDS = 11


def tile_shape(vector_bytes: int) -> tuple[int, int]:
    """Output rows and vectors of the register tile, as in `fastdil.kernels.gemm`."""
    return (8, 3) if vector_bytes == 64 else (4, 3)


@helper
def open_task(params, state, task, width, lanes):
    """Decode a task."""
    rest, line_blocks, chunks = task, load_i64(params, LINE_BLOCKS), load_i64(params, CHUNKS)
    line_block, rest = rest % line_blocks, rest // line_blocks
    chunk, rest = rest % chunks, rest // chunks
    blocks, task_blocks = load_i64(params, GROUP_BLOCKS), load_i64(params, TASK_BLOCKS)
    out_chunks = (blocks + task_blocks - 1) // task_blocks
    first_block, rest = rest % out_chunks * task_blocks, rest // out_chunks
    groups = load_i64(params, GROUPS)
    store_i64(state, GROUP, rest % groups)
    store_i64(state, SAMPLE, rest // groups)
    store_i64(state, FIRST_BLOCK, first_block)
    store_i64(state, LAST_BLOCK, min(first_block + task_blocks, blocks))
    first_line = line_block * load_i64(params, TASK_LINES)
    last_line = min(first_line + load_i64(params, TASK_LINES), load_i64(params, LINES))
    store_i64(state, FIRST_LINE, first_line)
    store_i64(state, LAST_LINE, last_line)
    step, most, parts = load_i64(params, COLUMN_STEP), load_i64(params, CHUNK), load_i64(params, RUN_CHUNKS)
    first = chunk * most
    last = first + most
    if parts > 0:
        first = chunk // parts * step + chunk % parts * most
        last = min(first + most, (chunk // parts + 1) * step)
    tiles = min(last, load_i64(params, TILES)) - first
    store_i64(state, FIRST_TILE, first)
    store_i64(state, LINE_TILES, tiles)
    store_i64(state, FIRST_COLUMN, first // step * 2 * step + first % step)
    vectors = ((last_line - first_line) * tiles + lanes - 1) // lanes
    store_i64(state, VECTORS, vectors)
    store_i64(state, STRIPS, (vectors + width - 1) // width)


@helper
def clear(kind, lanes, size, target, count):
    """Set `count` elements to zero, and the rest of the last vector."""
    copy_vectors(kind, lanes, target, lanes * size, target, 0, (count + lanes - 1) // lanes, 0)


@helper
def spread(step):
    """The next odd number of cache lines: samples at all frequencies then lie in different sets of L1."""
    return (step // ALIGNMENT | 1) * ALIGNMENT


@helper
def fill_columns(params, state, scratch):
    """Where the samples of all pieces of a row stand, as offsets into a row of the input, or `OUTSIDE`."""
    count, step = load_i64(params, PIECE), load_i64(params, COLUMN_STEP)
    first, mode, size = (
        load_i64(state, FIRST_COLUMN) - load_i64(params, LW),
        load_i64(params, MODE),
        load_i64(params, NW),
    )
    for piece in range(load_i64(params, PIECES)):
        for index in range(count):
            source = source_index(first + piece * step + index, size, mode)
            store_i64(
                scratch + load_i64(params, COLUMNS), piece * count + index,
                source * load_i64(params, XW) if source >= 0 else OUTSIDE,
            )  # fmt: skip


@helper
def copy_samples(kind, lanes, size, params, target, row, columns, count, first):
    """Samples `first` to ``first + count`` (which may lie outside) of a row of the input, whatever the padding."""
    inside = min(max(-first, 0), count)
    end = max(min(load_i64(params, NW) - first, count), inside)
    step = load_i64(params, XW)
    for index in range(count):
        if inside <= index < end:
            continue
        offset = load_i64(columns, index)
        at = row + (offset if offset != OUTSIDE else 0) * size
        copy_vectors(kind, 1, target + index * size, 0, at, 0, 1, 1 if offset != OUTSIDE else 0)
    source = row + (first + inside) * step * size
    if step == 1:
        # Whole vectors may reach beyond the end into what was written there.
        whole = (end - inside) // lanes
        copy_run(kind, lanes, target + inside * size, source, whole * lanes)
        inside += whole * lanes
        source += whole * lanes * size
    copy_vectors(kind, 1, target + inside * size, size, source, step * size, end - inside, 1)


@helper
def row_address(params, size, plane, position):
    """Address of a row of the first channel, or 0 for padding zeros."""
    height = source_index(position, load_i64(params, NH), load_i64(params, MODE))
    return plane + height * load_i64(params, XH) * size if height >= 0 else 0


@helper
def transform_line(
    kind, lanes, size, height_taps, width_taps, height_samples, params, state, scratch, plane, channels, first_row,
    target, frequency_step,
):  # fmt: skip
    """All frequencies of one line's tiles in `channels` channels; `plane` is that of the first, or 0 for padding."""
    step = load_i64(params, DH)
    first = first_row - load_i64(params, LH)
    row0 = row_address(params, size, plane, first) if plane != 0 else 0
    row1, row2, row3 = 0, 0, 0
    if plane != 0 and height_samples > 1:
        row1 = row_address(params, size, plane, first + step)
        row2 = row_address(params, size, plane, first + 2 * step)
        row3 = row_address(params, size, plane, first + 3 * step)
    channel_bytes = load_i64(params, XC) * size
    rows, zeros = scratch + load_i64(params, ROWS), scratch + load_i64(params, ZEROS)
    row_pitch, piece_pitch = load_i64(params, ROW_PITCH), load_i64(params, PIECE_PITCH)
    count, pieces = load_i64(params, PIECE), load_i64(params, PIECES)
    column_step, tiles = load_i64(params, COLUMN_STEP), load_i64(state, LINE_TILES)
    begin = load_i64(state, FIRST_COLUMN) - load_i64(params, LW)
    is_plain = load_i64(params, MODE) == 0 and load_i64(params, XW) == 1
    lines, columns = scratch + load_i64(params, LINES_AT), scratch + load_i64(params, COLUMNS)
    for channel in range(channels):
        move = channel * channel_bytes
        for piece in range(pieces):
            at, place = begin + piece * column_step, rows + piece * piece_pitch
            if is_plain:
                inside = min(max(-at, 0), count)
                end = max(min(load_i64(params, NW) - at, count), inside)
                shift = move + (at + inside) * size
                transform_rows(
                    kind, lanes, height_taps, place + inside * size, row_pitch,
                    row0 + shift if row0 != 0 else zeros, row1 + shift if row1 != 0 else zeros,
                    row2 + shift if row2 != 0 else zeros, row3 + shift if row3 != 0 else zeros, end - inside,
                )  # fmt: skip
                continue
            for index in range(height_samples):
                row = row0 if index == 0 else row1 if index == 1 else row2 if index == 2 else row3
                line = lines + index * row_pitch
                if row == 0:
                    clear(kind, lanes, size, line, count)
                else:
                    copy_samples(
                        kind, lanes, size, params, line, row + move, columns + piece * count * 8, count, at
                    )  # fmt: skip
            transform_rows(
                kind, lanes, height_taps, place, row_pitch, lines, lines + row_pitch, lines + 2 * row_pitch,
                lines + 3 * row_pitch, count,
            )  # fmt: skip
        if pieces > 1 or width_taps == 1:
            transform_columns(
                kind, lanes, height_samples, width_taps, 0, rows, row_pitch, piece_pitch, target, frequency_step, tiles
            )
        elif lanes > 1 and column_step == 1:
            transform_columns(
                kind, lanes, height_samples, width_taps, 1, rows, row_pitch, 0, target, frequency_step, tiles
            )
        elif lanes > 2 and column_step == 2:
            transform_columns(
                kind, lanes, height_samples, width_taps, 2, rows, row_pitch, 0, target, frequency_step, tiles
            )
        elif lanes > 4 and column_step == 4:
            transform_columns(
                kind, lanes, height_samples, width_taps, 4, rows, row_pitch, 0, target, frequency_step, tiles
            )
        elif lanes > 8 and column_step == 8:
            transform_columns(
                kind, lanes, height_samples, width_taps, 8, rows, row_pitch, 0, target, frequency_step, tiles
            )
        else:
            for done in range(0, tiles, column_step):
                transform_columns(
                    kind, lanes, height_samples, width_taps, 0, rows + 2 * done * size, row_pitch, column_step * size,
                    target + done * size, frequency_step, min(column_step, tiles - done),
                )  # fmt: skip
        target += load_i64(params, PITCH)


@helper
def transform_block(
    kind, lanes, size, height_taps, width_taps, height_samples, params, state, scratch, x, tap, taps, channel, channels,
    frequency_step,
):  # fmt: skip
    """Fill the panel: some channels, and some taps of the depth, of all lines of the task."""
    lines, row_step = load_i64(params, PLANE_LINES), load_i64(params, ROW_STEP)
    first = load_i64(state, FIRST_LINE)
    source = x + (
        load_i64(state, SAMPLE) * load_i64(params, XN)
        + (load_i64(state, GROUP) * load_i64(params, GROUP_IN) + channel) * load_i64(params, XC)
    ) * size  # fmt: skip
    for line in range(first, load_i64(state, LAST_LINE)):
        pair = line % lines
        row = pair // row_step * 2 * row_step + pair % row_step
        at = scratch + load_i64(params, PANEL) + (line - first) * load_i64(state, LINE_TILES) * size
        for index in range(taps):
            depth = line // lines + (tap + index) * load_i64(params, DD) - load_i64(params, LD)
            depth = source_index(depth, load_i64(params, ND), load_i64(params, MODE))
            plane = source + depth * load_i64(params, XD) * size if depth >= 0 else 0
            transform_line(
                kind, lanes, size, height_taps, width_taps, height_samples, params, state, scratch, plane, channels,
                row, at + index * channels * load_i64(params, PITCH), frequency_step,
            )  # fmt: skip


@helper
def multiply_tile(kind, lanes, rows, used, weights, panel, pitch, terms, tile):
    """One tile; the last strip may use fewer vectors than the others."""
    if used == 3:
        frequency_tile(kind, lanes, rows, 3, weights, panel, pitch, terms, tile)
    elif used == 2:
        frequency_tile(kind, lanes, rows, 2, weights, panel, pitch, terms, tile)
    else:
        frequency_tile(kind, lanes, rows, 1, weights, panel, pitch, terms, tile)


@helper
def multiply_block(
    kind, lanes, rows, width, size, frequencies, params, state, scratch, weights, terms, is_first, frequency_step,
    sums_step,
):  # fmt: skip
    """Multiply the panel with the weights of the task's outputs, at all frequencies; `weights` is the first one's."""
    all_terms = load_i64(params, GROUP_IN) * load_i64(params, KD)
    block_bytes = all_terms * rows * size
    strip_bytes, tile_bytes = width * lanes * size, rows * width * lanes * size
    group_blocks, first = load_i64(params, GROUP_BLOCKS), load_i64(state, FIRST_BLOCK)
    panel, sums, part = (
        scratch + load_i64(params, PANEL),
        scratch + load_i64(params, SUMS),
        scratch + load_i64(params, PART),
    )
    strips, pitch, errors = load_i64(state, STRIPS), load_i64(params, PITCH), load_i64(params, ERRORS)
    for frequency in range(frequencies):
        for block in range(first, load_i64(state, LAST_BLOCK)):
            at = weights + (frequency * group_blocks + block) * block_bytes
            for strip in range(strips):
                used = min(width, load_i64(state, VECTORS) - strip * width)
                samples = panel + strip * strip_bytes
                if errors > 0:
                    multiply_tile(kind, lanes, rows, used, at, samples, pitch, terms, part)
                    merge_tile(kind, lanes, part, sums, sums + errors, rows * used, 0 if is_first else 1)
                elif is_first:
                    multiply_tile(kind, lanes, rows, used, at, samples, pitch, terms, sums)
                else:
                    multiply_tile(kind, lanes, rows, used, at, samples, pitch, terms, part)
                    add_vectors(kind, lanes, sums, part, rows * used)
                sums += tile_bytes
        panel += frequency_step
        sums += sums_step - (load_i64(state, LAST_BLOCK) - first) * strips * tile_bytes


@helper
def store_row(kind, lanes, size, params, target, source, count, shift):
    """Bias, activation and store of neighbouring outputs."""
    finish_row(kind, lanes, target, source, count, shift, load_i64(params, RELU))
    activate = load_i64(params, ACTIVATE)
    if activate != 0:
        call_on_row(activate, target, count)


@helper
def store_line(kind, lanes, size, width_outputs, params, state, scratch, even, output_step, target, shift):
    """One output row of one channel: put the runs of its tiles' outputs in order; `target` is the row's start."""
    step, tiles, column = load_i64(params, COLUMN_STEP), load_i64(state, LINE_TILES), load_i64(state, FIRST_COLUMN)
    left, odd = load_i64(params, OW) - column, even + output_step
    target += column * size
    if load_i64(params, PIECES) > 1 or width_outputs == 1:
        store_row(kind, lanes, size, params, target, even, tiles, shift)
        if width_outputs > 1 and left > step:
            store_row(kind, lanes, size, params, target + step * size, odd, min(tiles, left - step), shift)
        return
    joined = scratch + load_i64(params, JOINED)
    if lanes > 1 and step == 1:
        join_runs(kind, lanes, 1, joined, even, odd, tiles)
    elif lanes > 2 and step == 2:
        join_runs(kind, lanes, 2, joined, even, odd, tiles)
    elif lanes > 4 and step == 4:
        join_runs(kind, lanes, 4, joined, even, odd, tiles)
    elif lanes > 8 and step == 8:
        join_runs(kind, lanes, 8, joined, even, odd, tiles)
    else:
        for done in range(0, tiles, step):
            count = min(step, tiles - done)
            copy_run(kind, lanes, joined + 2 * done * size, even + done * size, count)
            copy_run(kind, lanes, joined + (2 * done + step) * size, odd + done * size, count)
    store_row(kind, lanes, size, params, target, joined, min((tiles + step - 1) // step * 2 * step, left), shift)


@helper
def finish_task(
    kind, lanes, rows, width, size, height_taps, width_taps, height_outputs, width_outputs, params, state, scratch,
    bias, out, frequency_step,
):  # fmt: skip
    """Transform the sums of all frequencies back and store the outputs."""
    strip_bytes, tile_bytes = width * lanes * size, rows * width * lanes * size
    strips, first_block = load_i64(state, STRIPS), load_i64(state, FIRST_BLOCK)
    group_out, out_pixels = load_i64(params, GROUP_OUT), load_i64(params, OUT_PIXELS)
    lines, row_step = load_i64(params, PLANE_LINES), load_i64(params, ROW_STEP)
    out_height, out_width = load_i64(params, OH), load_i64(params, OW)
    outputs, output_step = scratch + load_i64(params, OUTPUTS_AT), strips * strip_bytes
    for index in range(first_block * rows, min(load_i64(state, LAST_BLOCK) * rows, group_out)):
        sums = scratch + load_i64(params, SUMS) + (index // rows - first_block) * strips * tile_bytes
        for strip in range(strips):
            used = min(width, load_i64(state, VECTORS) - strip * width)
            combine_frequencies(
                kind, lanes, height_taps, width_taps, sums + strip * tile_bytes + index % rows * used * lanes * size,
                frequency_step, outputs + strip * strip_bytes, output_step, used,
            )  # fmt: skip
        channel = load_i64(state, GROUP) * group_out + index
        shift = bias + channel * size if bias != 0 else 0
        plane = out + (load_i64(state, SAMPLE) * load_i64(params, GROUPS) * group_out + channel) * out_pixels * size
        for line in range(load_i64(state, FIRST_LINE), load_i64(state, LAST_LINE)):
            pair = line % lines
            row = pair // row_step * 2 * row_step + pair % row_step
            at = outputs + (line - load_i64(state, FIRST_LINE)) * load_i64(state, LINE_TILES) * size
            for which in range(height_outputs):
                if row + which * row_step < out_height:
                    target = plane + ((line // lines) * out_height + row + which * row_step) * out_width * size
                    store_line(
                        kind, lanes, size, width_outputs, params, state, scratch,
                        at + which * width_outputs * output_step, output_step, target, shift,
                    )  # fmt: skip


def _make_winograd_kernel(
    kind: str, size: int, lanes: int, rows: int, width: int, height_taps: int, width_taps: int, name: str
) -> Any:
    stamp = jit.source_stamp()
    height_samples, width_samples = SAMPLES[height_taps], SAMPLES[width_taps]
    height_outputs, width_outputs = OUTPUTS[height_taps], OUTPUTS[width_taps]
    frequencies = height_samples * width_samples

    def winograd(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        state = scratch
        open_task(params, state, task, width, lanes)
        clear(kind, lanes, size, scratch + load_i64(params, ROWS), height_samples * load_i64(params, ROW_PITCH) // size)
        clear(kind, lanes, size, scratch + load_i64(params, ZEROS), load_i64(params, ROW_PITCH) // size)
        fill_columns(params, state, scratch)
        group_in, depths = load_i64(params, GROUP_IN), load_i64(params, KD)
        taps_at_once, channels_at_once = load_i64(params, BLOCK_TAPS), load_i64(params, BLOCK_CHANNELS)
        pitch = load_i64(params, PITCH)
        panel_step = spread(taps_at_once * channels_at_once * pitch)
        sums_step = spread(load_i64(params, TASK_BLOCKS) * load_i64(state, STRIPS) * rows * width * lanes * size)
        # Rows end within a vector whose other lanes are multiplied too: with zeros, not with what was there before.
        last = scratch + load_i64(params, PANEL) + (load_i64(state, VECTORS) - 1) * lanes * size
        for frequency in range(frequencies):
            at = last + frequency * panel_step
            copy_vectors(kind, lanes, at, pitch, at, 0, taps_at_once * channels_at_once, 0)
        weights = (
            w + load_i64(state, GROUP) * load_i64(params, GROUP_BLOCKS) * frequencies * depths * group_in * rows * size
        )
        is_first = True
        for tap in range(0, depths, taps_at_once):
            taps = min(taps_at_once, depths - tap)
            for channel in range(0, group_in, channels_at_once):
                channels = min(channels_at_once, group_in - channel)
                transform_block(
                    kind, lanes, size, height_taps, width_taps, height_samples, params, state, scratch, x, tap, taps,
                    channel, channels, panel_step,
                )  # fmt: skip
                multiply_block(
                    kind, lanes, rows, width, size, frequencies, params, state, scratch,
                    weights + (tap * group_in + channel) * rows * size, taps * channels, is_first, panel_step,
                    sums_step,
                )  # fmt: skip
                is_first = False
        errors, sums = load_i64(params, ERRORS), scratch + load_i64(params, SUMS)
        if errors > 0:
            settle_tile(kind, lanes, sums, sums + errors, frequencies * sums_step // (lanes * size))
        finish_task(
            kind, lanes, rows, width, size, height_taps, width_taps, height_outputs, width_outputs, params, state,
            scratch, bias, out, sums_step,
        )  # fmt: skip

    return jit.callback(winograd, name, KERNEL_ARGUMENTS)


@cache
def winograd_kernel(kind: str, vector_bytes: int, height_taps: int, width_taps: int) -> Any:
    """The compiled kernel for one element kind, vector width and the taps along height and width."""
    rows, width = tile_shape(vector_bytes)
    lanes = lanes_of(kind, vector_bytes)
    name = f"winograd_{height_taps}x{width_taps}_{kind}_{8 * vector_bytes}bit"
    return _make_winograd_kernel(kind, int(kind[1:]) // 8, lanes, rows, width, height_taps, width_taps, name)


# Parameters of the weight transform: groups, blocks per group, taps of the depth, elements of one tap of one block.
(V_GROUPS, V_BLOCKS, V_DEPTHS, V_ELEMENTS) = range(4)


def _make_weight_kernel(kind: str, size: int, lanes: int, height_taps: int, width_taps: int, name: str) -> Any:
    stamp = jit.source_stamp()
    taps, frequencies = height_taps * width_taps, SAMPLES[height_taps] * SAMPLES[width_taps]

    def transform_packed(params, x, w, bias, out, scratch, task):
        """Task = one block of one group: ``[group][frequency][block][depth][element]``; energies go to `bias`."""
        stamp  # noqa: B018 - a closure cell in the cache key
        blocks, depths, elements = load_i64(params, V_BLOCKS), load_i64(params, V_DEPTHS), load_i64(params, V_ELEMENTS)
        group, block = task // blocks, task % blocks
        for depth in range(depths):
            transform_weights(
                kind, lanes, height_taps, width_taps, w + (task * depths + depth) * taps * elements * size,
                elements * size, out + ((group * frequencies * blocks + block) * depths + depth) * elements * size,
                blocks * depths * elements * size, bias + (task * depths + depth) * elements * 8, elements,
            )  # fmt: skip

    return jit.callback(transform_packed, name, KERNEL_ARGUMENTS)


@cache
def weight_kernel(kind: str, vector_bytes: int, height_taps: int, width_taps: int) -> Any:
    """The kernel that transforms packed weights; its vectors are as long as a register tile has rows."""
    rows, _ = tile_shape(vector_bytes)
    name = f"winograd_weights_{height_taps}x{width_taps}_{kind}_{8 * vector_bytes}bit"
    return _make_weight_kernel(kind, int(kind[1:]) // 8, rows, height_taps, width_taps, name)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, height_taps: int, width_taps: int) -> int:
    """Write pitches and the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    rows, width = tile_shape(vector_bytes)
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    strip = width * lanes
    is_exact = int(params[GROUP_IN] * params[KD]) > PLAIN_TERMS
    height_samples, width_samples = SAMPLES[height_taps], SAMPLES[width_taps]
    frequencies, tile_outputs = height_samples * width_samples, OUTPUTS[height_taps] * OUTPUTS[width_taps]
    chunk, step = int(params[CHUNK]), int(params[COLUMN_STEP])
    tiles = int(params[TASK_LINES]) * chunk
    strips = -(-tiles // strip)
    is_apart = width_taps == 1 or int(params[RUN_CHUNKS]) > 0
    pieces = width_samples if is_apart else 1
    runs = -(-chunk // step)
    # Side by side, a row holds all samples of its tiles; some of its last vectors reach beyond.
    piece = chunk if is_apart else (2 * runs + width_samples - 2) * step
    piece_pitch = (-(-piece // lanes) + 3) * ALIGNMENT * (lanes * size) // ALIGNMENT
    params[PIECES], params[PIECE], params[PIECE_PITCH] = pieces, piece, piece_pitch
    params[ROW_PITCH] = pieces * piece_pitch
    # An odd number of cache lines, so that neighbouring channels do not compete for the same part of L1.
    params[PITCH] = (-(-(strips * strip + lanes) * size // ALIGNMENT) | 1) * ALIGNMENT
    terms = int(params[BLOCK_TAPS]) * int(params[BLOCK_CHANNELS])
    sums = frequencies * (int(params[TASK_BLOCKS]) * strips * rows * strip * size + ALIGNMENT)
    params[ERRORS] = sums if is_exact else 0
    parts = (
        (None, STATE_FIELDS * 8),
        (PANEL, frequencies * (terms * int(params[PITCH]) + ALIGNMENT)),
        (SUMS, 2 * sums if is_exact else sums),
        (PART, rows * strip * size),
        (ROWS, height_samples * int(params[ROW_PITCH])),
        (LINES_AT, 4 * int(params[ROW_PITCH])),
        (ZEROS, int(params[ROW_PITCH])),
        (COLUMNS, pieces * piece * 8),
        (OUTPUTS_AT, (tile_outputs * strips * strip + lanes) * size),
        (JOINED, (2 * (runs + 1) * min(step, chunk) + 4 * lanes) * size),
    )
    offset = 0
    for field, needed in parts:
        if field is not None:
            params[field] = offset
        offset += -(-needed // ALIGNMENT) * ALIGNMENT
    return offset
