"""How `fastdil.kernels.gemm` fetches the samples of a block of pixels, wherever its taps fall."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.copies import copy_pairs, copy_runs, copy_strips, gather_vectors
from fastdil.kernels.gemm_tasks import (
    COLUMN_TABLE,
    ENTRIES,
    PANEL,
    R_D,
    R_D_LO,
    R_H,
    R_H_HI,
    R_H_LO,
    R_HEIGHT,
    R_W,
    R_WIDTH,
    ROW_TABLE,
    VECTORS,
)
from fastdil.kernels.geometry import KH, KW, UNIT, XC
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.pack import fill_columns, fill_constant, lane_step, row_offset
from fastdil.kernels.places import ENTRY_FIELDS, MOST_RUNS, OUTSIDE, classify_lanes


@helper
def fill_tables(params, region, scratch, first_pixel, pixels, lanes, row, rows, tap, taps):
    """Row offsets of (depth, height) taps row..row+rows and column offsets of width taps tap..tap+taps, per lane."""
    unit = load_i64(params, UNIT)
    height, width = load_i64(region, R_HEIGHT), load_i64(region, R_WIDTH)
    heights = load_i64(region, R_H_HI) - load_i64(region, R_H_LO)
    row_table = scratch + load_i64(params, ROW_TABLE)
    column_table = scratch + load_i64(params, COLUMN_TABLE)
    done = 0
    while done < pixels:
        pixel = first_pixel + done
        line, column = pixel // width, pixel % width
        out_depth = load_i64(region, R_D) + line // height
        out_height = load_i64(region, R_H) + line % height
        count = min(width - column, pixels - done)
        for index in range(rows):
            tap_depth = load_i64(region, R_D_LO) + (row + index) // heights
            tap_height = load_i64(region, R_H_LO) + (row + index) % heights
            offset = row_offset(params, out_depth, out_height, tap_depth, tap_height)
            fill_constant(row_table + (index * lanes + done * unit) * 8, count * unit, offset)
        for index in range(taps):
            target = column_table + (index * lanes + done * unit) * 8
            fill_columns(params, target, load_i64(region, R_W) + column, count, tap + index)
        done += count
    for index in range(rows):
        fill_constant(row_table + (index * lanes + pixels * unit) * 8, lanes - pixels * unit, OUTSIDE)
    for index in range(taps):
        fill_constant(column_table + (index * lanes + pixels * unit) * 8, lanes - pixels * unit, OUTSIDE)


@helper
def fill_tap_table(params, region, target, row, rows, tap, taps):
    """The numbers of the taps of this block."""
    heights = load_i64(region, R_H_HI) - load_i64(region, R_H_LO)
    for index in range(rows):
        depth = load_i64(region, R_D_LO) + (row + index) // heights
        height = load_i64(region, R_H_LO) + (row + index) % heights
        line = (depth * load_i64(params, KH) + height) * load_i64(params, KW)
        for inner in range(taps):
            store_i64(target, index * taps + inner, line + tap + inner)


@helper
def classify_block(params, state, scratch, lanes, taps, width_taps):
    """For each tap and vector of the block: copy or gather (`ENTRIES`)."""
    vectors = load_i64(state, VECTORS)
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    entries, step = scratch + load_i64(params, ENTRIES), lane_step(params, lanes)
    for index in range(taps):
        row = rows + index // width_taps * vectors * lanes * 8
        column = columns + index % width_taps * vectors * lanes * 8
        for vector in range(vectors):
            shift = vector * lanes * 8
            entry = entries + (index * vectors + vector) * ENTRY_FIELDS * 8
            classify_lanes(lanes, row + shift, column + shift, step, entry)


@helper
def runs_suffice(entries, count):
    """Whether each of `count` vectors is made of few runs, so that nothing must be gathered."""
    fewest = 0
    for index in range(count):
        fewest = min(fewest, load_i64(entries, index * ENTRY_FIELDS + 1))
    return fewest == 0


@helper
def whole_strips(entries, vectors, width, lanes):
    """How many of the next strips are made of whole vectors that are one run each."""
    count, is_whole = 0, True
    while is_whole and (count + 1) * width <= vectors:
        for vector in range(count * width, (count + 1) * width):
            entry = entries + vector * ENTRY_FIELDS * 8
            is_whole = is_whole and load_i64(entry, 1) == (1 << lanes) - 1 and load_i64(entry, 3) == 0
        count += is_whole
    return count


@helper
def fetch_vectors(kind, lanes, target, target_step, source, source_step, count, step, entry, rows, columns):
    """`count` times one vector, put together from the runs of its `entry`, or gathered where those are too many."""
    if load_i64(entry, 1) < 0:
        gather_vectors(kind, lanes, target, target_step, source, source_step, count, rows, columns)
    elif step == 1:
        copy_runs(kind, lanes, 1, target, target_step, source, source_step, count, entry)
    elif load_i64(entry, 3) == 0:
        copy_pairs(kind, lanes, 1, target, target_step, source, source_step, count, entry)
    else:
        copy_pairs(kind, lanes, MOST_RUNS, target, target_step, source, source_step, count, entry)


@helper
def fetch_strips(
    kind, lanes, width, size, step, target, target_step, strip_step, source, source_step, count, vectors, entries, rows,
    columns,
):  # fmt: skip
    """`count` times: fetch one sample for every pixel, `vectors` vectors of them, strip by strip."""
    first = 0
    while first < vectors:
        to, entry = target + first // width * strip_step, entries + first * ENTRY_FIELDS * 8
        whole, used = whole_strips(entry, vectors - first, width, lanes), min(width, vectors - first)
        if whole > 0:
            copy_strips(
                kind, lanes, width, to, target_step, strip_step, source, source_step, count, entry, whole
            )  # fmt: skip
        elif used == width and step == 1 and runs_suffice(entry, width):
            copy_runs(kind, lanes, width, to, target_step, source, source_step, count, entry)
        else:
            for vector in range(used):
                lane = (first + vector) * lanes * 8
                fetch_vectors(
                    kind, lanes, to + vector * lanes * size, target_step, source, source_step, count, step,
                    entry + vector * ENTRY_FIELDS * 8, rows + lane, columns + lane,
                )  # fmt: skip
        first += max(whole, 1) * width


@helper
def pack_panel(kind, lanes, width, size, params, state, scratch, source, taps, width_taps, channels):
    """Fetch the samples of `taps` x `channels` terms for every pixel of the block, strip by strip."""
    vectors, channel_bytes = load_i64(state, VECTORS), load_i64(params, XC) * size
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    entries, panel = scratch + load_i64(params, ENTRIES), scratch + load_i64(params, PANEL)
    line, step, lanes_bytes = width * lanes * size, lane_step(params, lanes), vectors * lanes * 8
    for index in range(taps):
        fetch_strips(
            kind, lanes, width, size, step, panel + index * channels * line, line, taps * channels * line, source,
            channel_bytes, channels, vectors, entries + index * vectors * ENTRY_FIELDS * 8,
            rows + index // width_taps * lanes_bytes, columns + index % width_taps * lanes_bytes,
        )  # fmt: skip
