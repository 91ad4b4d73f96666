"""How `fastdil.kernels.winograd` fetches samples, whatever the padding, and transforms them to all frequencies."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.copies import copy_run, copy_vectors, fill_zeros
from fastdil.kernels.geometry import (
    DD,
    DH,
    GROUP_IN,
    KD,
    LD,
    MODE,
    ND,
    NH,
    NW,
    XC,
    XD,
    XH,
    XN,
    XW,
    source_index,
)
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.places import OUTSIDE
from fastdil.kernels.winograd_tasks import (
    COLUMN_STEP,
    COLUMNS,
    COLUMNS_BEFORE,
    COPY_TABLE,
    FIRST_COLUMN,
    GROUP,
    IS_SHARED,
    LINE_TILES,
    LINES_AT,
    PANEL,
    PIECE,
    PIECE_PITCH,
    PIECES,
    PITCH,
    ROW_PITCH,
    ROW_STEP,
    ROW_TABLES,
    ROWS,
    ROWS_BEFORE,
    SAMPLE,
    ZEROS,
    first_output,
    line_at,
    panel_width,
)
from fastdil.kernels.winograd_transforms import transform_columns, transform_rows


@helper
def clear(kind, lanes, target, count):
    """Set `count` elements to zero, and the rest of the last vector."""
    fill_zeros(kind, lanes, target, (count + lanes - 1) // lanes)


@helper
def fill_columns(params, state, scratch):
    """Where the samples of all pieces of a row stand, as offsets into a row of the input, or `OUTSIDE`."""
    count, step = load_i64(params, PIECE), load_i64(params, COLUMN_STEP)
    first, mode, size = (
        load_i64(state, FIRST_COLUMN) - load_i64(params, COLUMNS_BEFORE),
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
def find_rows(params, size, height_samples, table, plane, first_row):
    """List the addresses of a line's rows in the first channel, 0 for padding zeros (all, if `plane` is 0)."""
    first, step = first_row - load_i64(params, ROWS_BEFORE), load_i64(params, DH)
    for index in range(height_samples):
        store_i64(table, index, row_address(params, size, plane, first + index * step) if plane != 0 else 0)


@helper
def fetch_piece(
    kind, lanes, size, height_form, height_samples, params, state, scratch, table, piece, move, following, next_move
):  # fmt: skip
    """Samples of all rows of a line, transformed along the height; `move` is the bytes from the first channel on.

    The line that is listed at `following`, `next_move` bytes on, comes next.
    """
    count, at = load_i64(params, PIECE), load_i64(state, FIRST_COLUMN) - load_i64(params, COLUMNS_BEFORE)
    at += piece * load_i64(params, COLUMN_STEP)
    row_pitch = load_i64(params, ROW_PITCH)
    place = scratch + load_i64(params, ROWS) + piece * load_i64(params, PIECE_PITCH)
    zeros = scratch + load_i64(params, ZEROS)
    if load_i64(params, MODE) == 0 and load_i64(params, XW) == 1:
        inside = min(max(-at, 0), count)
        end = max(min(load_i64(params, NW) - at, count), inside)
        transform_rows(
            kind, lanes, height_form, place + inside * size, row_pitch, table, zeros, move + (at + inside) * size,
            end - inside, following, next_move + (at + inside) * size,
        )  # fmt: skip
        return
    lines, columns = scratch + load_i64(params, LINES_AT), scratch + load_i64(params, COLUMNS) + piece * count * 8
    copies = scratch + load_i64(params, COPY_TABLE)
    for index in range(height_samples):
        row, line = load_i64(table, index), lines + index * row_pitch
        if row == 0:
            clear(kind, lanes, line, count)
        else:
            copy_samples(kind, lanes, size, params, line, row + move, columns, count, at)
        store_i64(copies, index, line)
    transform_rows(kind, lanes, height_form, place, row_pitch, copies, zeros, 0, count, copies, 0)


@helper
def transform_columns_of(
    kind, lanes, size, width_form, height_samples, width_outputs, params, state, rows, piece_pitch, target,
    frequency_step,
):  # fmt: skip
    """All frequencies of one line's tiles, whose samples are transformed along the height and start at `rows`."""
    row_pitch, pieces = load_i64(params, ROW_PITCH), load_i64(params, PIECES)
    column_step, tiles = load_i64(params, COLUMN_STEP), load_i64(state, LINE_TILES)
    if pieces > 1 or width_form == 1:
        transform_columns(
            kind, lanes, height_samples, width_form, 0, rows, row_pitch, piece_pitch, target, frequency_step, tiles
        )
    elif lanes > 1 and column_step == 1:
        transform_columns(kind, lanes, height_samples, width_form, 1, rows, row_pitch, 0, target, frequency_step, tiles)
    elif lanes >= 2 and column_step == 2:
        transform_columns(kind, lanes, height_samples, width_form, 2, rows, row_pitch, 0, target, frequency_step, tiles)
    elif lanes >= 4 and column_step == 4:
        transform_columns(kind, lanes, height_samples, width_form, 4, rows, row_pitch, 0, target, frequency_step, tiles)
    elif lanes >= 8 and column_step == 8:
        transform_columns(kind, lanes, height_samples, width_form, 8, rows, row_pitch, 0, target, frequency_step, tiles)
    elif lanes >= 16 and column_step == 16:
        transform_columns(
            kind, lanes, height_samples, width_form, 16, rows, row_pitch, 0, target, frequency_step, tiles
        )
    else:
        for done in range(0, tiles, column_step):
            transform_columns(
                kind, lanes, height_samples, width_form, 0, rows + width_outputs * done * size, row_pitch,
                column_step * size, target + done * size, frequency_step, min(column_step, tiles - done),
            )  # fmt: skip


@helper
def transform_line(
    kind, lanes, size, height_form, width_form, height_samples, width_outputs, params, state, scratch, table, move,
    following, next_move, target, frequency_step,
):  # fmt: skip
    """All frequencies of one line's tiles in one channel, `move` bytes behind the one whose rows `table` lists."""
    rows, row, piece_pitch = scratch + load_i64(params, ROWS), load_i64(table, 0), load_i64(params, PIECE_PITCH)
    pieces, column_step = load_i64(params, PIECES), load_i64(params, COLUMN_STEP)
    first = load_i64(state, FIRST_COLUMN) - load_i64(params, COLUMNS_BEFORE)
    # Whole vectors are read: up to one for each output of a tile, and as many samples, beyond the last piece.
    beyond = first + (pieces - 1) * column_step + load_i64(params, PIECE) + 2 * width_outputs * lanes
    is_inside = row != 0 and first >= 0 and beyond <= load_i64(params, NW) and load_i64(params, XW) == 1
    if height_samples == 1 and is_inside:  # the row can be read where it lies
        rows, piece_pitch = row + move + first * size, column_step * size
    else:
        for piece in range(pieces):
            fetch_piece(
                kind, lanes, size, height_form, height_samples, params, state, scratch, table, piece, move, following,
                next_move,
            )  # fmt: skip
    transform_columns_of(
        kind, lanes, size, width_form, height_samples, width_outputs, params, state, rows, piece_pitch, target,
        frequency_step,
    )  # fmt: skip


@helper
def transform_part(
    kind, lanes, size, height_form, width_form, height_samples, height_outputs, width_outputs, params, state, scratch,
    x, first_channel, channels, frequency_step,
):  # fmt: skip
    """Fill the panel: some channels of all lines that the taps of the depth see.

    ``[tap of the depth][channel][line]``, or where taps share lines, ``[channel][line]``. One channel after the other,
    so that all frequencies of its tiles, which lines fill piece by piece, stay in L1.
    """
    taps = 1 if load_i64(params, IS_SHARED) != 0 else load_i64(params, KD)
    lines, row_step = panel_width(params, state), load_i64(params, ROW_STEP)
    tables, table_bytes = scratch + load_i64(params, ROW_TABLES), height_samples * 8
    target, line_bytes = scratch + load_i64(params, PANEL), load_i64(state, LINE_TILES) * size
    channel = load_i64(state, GROUP) * load_i64(params, GROUP_IN) + first_channel
    source = x + (load_i64(state, SAMPLE) * load_i64(params, XN) + channel * load_i64(params, XC)) * size
    for tap in range(taps):
        for line in range(lines):
            depth, group = line_at(params, state, line)
            depth += tap * load_i64(params, DD) - load_i64(params, LD)
            depth = source_index(depth, load_i64(params, ND), load_i64(params, MODE))
            plane = source + depth * load_i64(params, XD) * size
            row = first_output(group, row_step, height_outputs)
            find_rows(params, size, height_samples, tables + line * table_bytes, plane if depth >= 0 else 0, row)
        for index in range(channels):
            move = index * load_i64(params, XC) * size
            for line in range(lines):
                following, next_move = tables + (line + 1) * table_bytes, move
                if line + 1 == lines:
                    following, next_move = tables, move + load_i64(params, XC) * size
                transform_line(
                    kind, lanes, size, height_form, width_form, height_samples, width_outputs, params, state, scratch,
                    tables + line * table_bytes, move, following, next_move, target + line * line_bytes,
                    frequency_step,
                )  # fmt: skip
            target += load_i64(params, PITCH)
