"""The window of a box: the samples that it reads, split once for all taps, and the way from there to the tile unit.

A window is a small array ``[step of channels][part][pair of channels][place]`` of words of two bfloat16 numbers. Its
places are those of a box of samples where neighbouring outputs read neighbouring ones, or those of one tap after those
of another. Either way a tap's samples stand at one distance from the first tap's, whatever stride, dilation, padding
mode or layout the input has.

The tile unit reads a strip of 32 pixels from there, two tiles of 16 neighbours of a line, or from a copy in which the
samples of all taps stand side by side and aligned. Rows of tiles that begin within a cache line take a second access
each: one core of a Xeon (Granite Rapids) reached 1.2 to 1.7 TFLOP/s from the window, 2.0 to 2.2 from copies. These take
30 to 60 ns for what 32 outputs multiply in 30, so they pay where many outputs share them, or lines are short.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.amx_tasks import (
    B_PITCH,
    B_PLACES_D,
    B_PLACES_H,
    B_PLACES_W,
    B_STEP_D,
    B_STEP_H,
    B_STEP_W,
    CHUNK_VECTORS,
    EXTENT,
    LANES,
    OFFSETS,
    PANEL_OFFSETS,
    PARTS,
    PLACE_ENTRIES,
    PLACES,
    SPLIT,
    STEP_BYTES,
    TILES,
    WIDTH,
    WINDOW,
    tiles_of,
)
from fastdil.kernels.copies import ENTRY_FIELDS, MOST_RUNS, OUTSIDE, classify_lanes, fill_ramp, gather_vectors
from fastdil.kernels.gemm_samples import fetch_strips
from fastdil.kernels.gemm_tasks import (
    COLUMN_TABLE,
    ENTRIES,
    PANEL,
    R_D,
    R_D_HI,
    R_D_LO,
    R_DEPTH,
    R_H,
    R_H_HI,
    R_H_LO,
    R_HEIGHT,
    R_W,
    R_W_HI,
    R_W_LO,
    R_WIDTH,
    ROW_TABLE,
    RUNS,
    STRIPS,
    VECTORS,
)
from fastdil.kernels.geometry import OH, OW, XC
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.pack import fill_columns, fill_constant, lane_step, row_offset
from fastdil.kernels.split import split_lines
from fastdil.kernels.tile_unit import BLOCK, ROW_BYTES, STEP_TERMS, TILE_ROWS
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Bytes of one line of a strip: a word for each of its 32 pixels.
_LINE = BLOCK * 4


@helper
def split_step(parts, source, count, target, pitch, half_step, part_step, extent):
    """`split_lines`, for a number of parts that is not known at compile time."""
    if parts == 1:
        split_lines(1, source, count, target, pitch, half_step, part_step, extent)
    elif parts == 2:
        split_lines(2, source, count, target, pitch, half_step, part_step, extent)
    else:
        split_lines(3, source, count, target, pitch, half_step, part_step, extent)


@helper
def fill_place_columns(params, box, target, place, count):
    """Offsets along the width of the samples at `count` places of a line of the window, from `place` on."""
    step, taps = load_i64(box, B_STEP_W), load_i64(box, R_W_HI) - load_i64(box, R_W_LO)
    done = 0
    while done < count:
        tap = min((place + done) // step, taps - 1)
        output = place + done - tap * step
        used = count - done if tap == taps - 1 else min(count - done, step - output)
        fill_columns(params, target + done * 8, load_i64(box, R_W) + output, used, load_i64(box, R_W_LO) + tap)
        done += used


@helper
def fill_place_tables(params, box, rows, columns, first, count):
    """Row and column offsets of the samples at `count` places of the window, from number `first` on."""
    width, height = load_i64(box, B_PLACES_W), load_i64(box, B_PLACES_H)
    places = load_i64(box, B_PLACES_D) * height * width
    step_depth, step_height = load_i64(box, B_STEP_D), load_i64(box, B_STEP_H)
    done, inside = 0, min(count, places - first)
    while done < inside:
        line, column = (first + done) // width, (first + done) % width
        depth, line = line // height, line % height
        tap_depth = min(depth // step_depth, load_i64(box, R_D_HI) - load_i64(box, R_D_LO) - 1)
        tap_height = min(line // step_height, load_i64(box, R_H_HI) - load_i64(box, R_H_LO) - 1)
        offset = row_offset(
            params, load_i64(box, R_D) + depth - tap_depth * step_depth,
            load_i64(box, R_H) + line - tap_height * step_height, load_i64(box, R_D_LO) + tap_depth,
            load_i64(box, R_H_LO) + tap_height,
        )  # fmt: skip
        used = min(width - column, inside - done)
        fill_constant(rows + done * 8, used, offset)
        fill_place_columns(params, box, columns + done * 8, column, used)
        done += used
    fill_constant(rows + inside * 8, count - inside, OUTSIDE)
    fill_constant(columns + inside * 8, count - inside, OUTSIDE)


@helper
def fill_window(params, box, scratch, source, channels):
    """Fetch and split the samples of `channels` channels for all places of the window."""
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    entries, panel, window = (
        scratch + load_i64(params, ENTRIES), scratch + load_i64(params, PANEL), scratch + load_i64(params, WINDOW)
    )  # fmt: skip
    parts, extent = load_i64(params, PARTS), scratch + load_i64(params, TILES) + EXTENT
    step, channel_bytes = lane_step(params, LANES), load_i64(params, XC) * 4
    pitch = load_i64(box, B_PITCH)
    all_vectors = pitch // _LINE * WIDTH
    for first in range(0, all_vectors, CHUNK_VECTORS):
        vectors = min(CHUNK_VECTORS, all_vectors - first)
        fill_place_tables(params, box, rows, columns, first * LANES, vectors * LANES)
        for vector in range(vectors):
            shift = vector * LANES * 8
            classify_lanes(LANES, rows + shift, columns + shift, step, entries + vector * ENTRY_FIELDS * 8)
        for channel in range(0, channels, STEP_TERMS):
            count = min(STEP_TERMS, channels - channel)
            fetch_strips(
                "f32", LANES, WIDTH, 4, step, panel, _LINE, count * _LINE, source + channel * channel_bytes,
                channel_bytes, count, vectors, entries, rows, columns,
            )  # fmt: skip
            target = window + channel // STEP_TERMS * parts * TILE_ROWS * pitch + first * ROW_BYTES
            for strip in range(vectors // WIDTH):
                split_step(
                    parts, panel + strip * count * _LINE, count, target + strip * _LINE, pitch, ROW_BYTES,
                    TILE_ROWS * pitch, extent,
                )  # fmt: skip


@helper
def place_pixels(params, state, box, scratch):
    """Where in the window the first tap's samples of all pixels of the box are, and how to fetch them by vector."""
    table, entries = scratch + load_i64(params, PLACES), scratch + load_i64(params, PLACE_ENTRIES)
    width, lanes_all, done = load_i64(box, R_WIDTH), load_i64(state, VECTORS) * LANES, 0
    for depth in range(load_i64(box, R_DEPTH)):
        for line in range(load_i64(box, R_HEIGHT)):
            place = (depth * load_i64(box, B_PLACES_H) + line) * load_i64(box, B_PLACES_W)
            fill_ramp(table + done * 8, width, place, 1, place + width, 1)
            done += width
    fill_constant(table + done * 8, lanes_all - done, OUTSIDE)
    zeros = table + lanes_all * 8
    fill_constant(zeros, LANES, 0)
    for vector in range(load_i64(state, VECTORS)):
        classify_lanes(LANES, table + vector * LANES * 8, zeros, 1, entries + vector * ENTRY_FIELDS * 8)


@helper
def place_tiles(params, state, box, scratch):
    """Where in the window the tiles of the box begin, line by line, and the runs of outputs of its strips."""
    places, runs = scratch + load_i64(params, PLACES), scratch + load_i64(params, RUNS)
    width, height = load_i64(box, R_WIDTH), load_i64(box, R_HEIGHT)
    across, record = tiles_of(width), (1 + 3 * BLOCK) * 8
    tiles = load_i64(box, R_DEPTH) * height * across
    for tile in range(2 * load_i64(state, STRIPS)):
        line, column = tile // across, tile % across * LANES
        depth, line = line // height, line % height
        at = runs + tile // 2 * record
        if tile % 2 == 0:
            store_i64(at, 0, 0)
        if tile == tiles:  # the last strip's second one, of which nothing is stored
            store_i64(places, tile, load_i64(places, tile - 1))
            return
        store_i64(places, tile, (depth * load_i64(box, B_PLACES_H) + line) * load_i64(box, B_PLACES_W) + column)
        row = (load_i64(box, R_D) + depth) * load_i64(params, OH) + load_i64(box, R_H) + line
        add_run(
            at, tile % 2 * LANES, min(LANES, width - column), row * load_i64(params, OW) + load_i64(box, R_W) + column
        )  # fmt: skip


@helper
def add_run(runs, first, count, place):
    """One more run of outputs of a strip (`gemm_sums.fill_runs`), or the last one goes on."""
    found = load_i64(runs, 0)
    last = runs + 3 * (found - 1) * 8
    if found > 0:
        length = load_i64(last, 2)
        if load_i64(last, 1) + length == first and load_i64(last, 3) + length == place:
            store_i64(last, 2, length + count)
            return
    store_i64(runs, 0, found + 1)
    store_i64(last, 4, first)
    store_i64(last, 5, count)
    store_i64(last, 6, place)


@helper
def fill_offsets(params, box, scratch, line, lines, tap, taps, steps):
    """Bytes from the first tap's samples to those of the taps of this block, in a row of the window, and in a copy."""
    offsets, in_panel = scratch + load_i64(params, OFFSETS), scratch + load_i64(params, PANEL_OFFSETS)
    heights, first = load_i64(box, R_H_HI) - load_i64(box, R_H_LO), load_i64(box, R_W_LO)
    tap_bytes = steps * load_i64(params, PARTS) * STEP_BYTES
    for index in range(lines):
        depth, height = (line + index) // heights, (line + index) % heights
        above = depth * load_i64(box, B_STEP_D) * load_i64(box, B_PLACES_H) + height * load_i64(box, B_STEP_H)
        start = above * load_i64(box, B_PLACES_W)
        for inner in range(taps):
            number = index * taps + inner
            store_i64(offsets, number, (start + (tap + inner - first) * load_i64(box, B_STEP_W)) * 4)
            store_i64(in_panel, number, number * tap_bytes)


@intrinsic(prefer_literal=True)
def copy_taps(typingctx, runs, target, source, pitch, rows, offsets, taps, entries):
    """For each of `taps`: copy `rows` rows of 32 words, `pitch` bytes apart, to where they follow each other.

    `entries` are of two vectors, each made of up to `runs` runs (0: of one that is whole); `offsets` are the taps'.
    """
    (run_count,) = literals(runs)

    def codegen(context, builder, signature, args):
        target, source, pitch, rows, offsets, taps, entries = args[1:]
        words, integers = Vectors(builder, "f32", LANES), Vectors(builder, "i64", 1)
        parts = []
        for vector in range(WIDTH):
            fields = [
                integers.load_scalar(integers.at(entries, vector * ENTRY_FIELDS + i))
                for i in range(2 * max(run_count, 1))
            ]
            starts = [words.at(constant(0), start) for start in fields[::2]]
            parts.append(list(zip(starts, map(words.mask_from_bits, fields[1::2]), strict=True)))

        def fetch(at, runs):
            if run_count == 0:
                return words.load(builder.add(at, runs[0][0]))
            value = words.zero
            for start, mask in runs:
                value = words.load_masked(builder.add(at, start), mask, value)
            return value

        def over_taps(tap, carried):
            def over_rows(_, inner):
                to, at = inner
                for number, runs in enumerate(parts):
                    words.store(fetch(at, runs), words.at(to, number * LANES))
                return [words.at(to, BLOCK), builder.add(at, pitch)]

            base = builder.add(source, integers.load_scalar(integers.at(offsets, tap)))
            return counted_loop(builder, rows, [carried[0], base], over_rows)[:1]

        counted_loop(builder, taps, [target], over_taps)
        return context.get_dummy_value()

    return returns(types.void, (runs, target, source, pitch, rows, offsets, taps, entries)), codegen


@helper
def most_runs(entries):
    """The most runs of the two vectors of a strip: 0 if both are whole and of one, -1 if one has too many."""
    count, is_whole = 1, True
    for vector in range(WIDTH):
        bits = load_i64(entries, vector * ENTRY_FIELDS + 1)
        if bits < 0:
            return -1
        is_whole = is_whole and bits == (1 << LANES) - 1
        for run in range(1, MOST_RUNS):
            if load_i64(entries, vector * ENTRY_FIELDS + 2 * run + 1) != 0:
                count = max(count, run + 1)
    return 0 if is_whole else count


@helper
def copy_strip(params, state, box, scratch, strip, source, rows, taps):
    """Copy `rows` rows of samples of a strip of pixels, for each of `taps`, from the window to `SPLIT`."""
    target, offsets, pitch = (
        scratch + load_i64(params, SPLIT),
        scratch + load_i64(params, OFFSETS),
        load_i64(box, B_PITCH),
    )
    first = strip * WIDTH
    entries = scratch + load_i64(params, PLACE_ENTRIES) + first * ENTRY_FIELDS * 8
    runs = most_runs(entries)
    if runs == 0:
        copy_taps(0, target, source, pitch, rows, offsets, taps, entries)
    elif runs == 1:
        copy_taps(1, target, source, pitch, rows, offsets, taps, entries)
    elif runs == 2:
        copy_taps(2, target, source, pitch, rows, offsets, taps, entries)
    elif runs > 0:
        copy_taps(4, target, source, pitch, rows, offsets, taps, entries)
    else:
        places = scratch + load_i64(params, PLACES)
        for tap in range(taps):
            for vector in range(WIDTH):
                gather_vectors(
                    "f32", LANES, target + tap * rows * _LINE + vector * ROW_BYTES, _LINE,
                    source + load_i64(offsets, tap), pitch, rows, places + (first + vector) * LANES * 8,
                    places + load_i64(state, VECTORS) * LANES * 8,
                )  # fmt: skip
