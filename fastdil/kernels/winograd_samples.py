"""How `fastdil.kernels.winograd` fetches samples, whatever the padding, and transforms them to all frequencies."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.copies import OUTSIDE, copy_run, copy_vectors, fill_zeros
from fastdil.kernels.geometry import DD, DH, GROUP_IN, LD, LH, LW, MODE, ND, NH, NW, XC, XD, XH, XN, XW, source_index
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.winograd_tasks import (
    COLUMN_STEP,
    COLUMNS,
    FIRST_COLUMN,
    FIRST_LINE,
    GROUP,
    LAST_LINE,
    LINE_TILES,
    LINES_AT,
    PANEL,
    PIECE,
    PIECE_PITCH,
    PIECES,
    PITCH,
    PLANE_LINES,
    ROW_PITCH,
    ROW_STEP,
    ROWS,
    SAMPLE,
    ZEROS,
)
from fastdil.kernels.winograd_tiles import transform_columns, transform_rows


@helper
def clear(kind, lanes, target, count):
    """Set `count` elements to zero, and the rest of the last vector."""
    fill_zeros(kind, lanes, target, (count + lanes - 1) // lanes)


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
                    clear(kind, lanes, line, count)
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
