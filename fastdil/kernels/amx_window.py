"""The window of a box: the samples that it reads, split once for all taps, as the tile unit reads them.

A window is a small array ``[step of channels][part][place][channel]`` of bfloat16 numbers: the 32 channels of a step
stand side by side, whatever layout the input has, and 16 neighbouring places are a tile. Its places are those of a box
of samples where neighbouring outputs read neighbouring ones, or those of one tap after those of another. Either way a
tap's samples stand at one distance from the first tap's, whatever stride, dilation and padding mode a problem has; and
any distance keeps tiles aligned. (With neighbouring places side by side, a tile that began within a cache line took two
accesses for each row: 1.2 to 1.7 TFLOP/s of one core of a Granite Rapids, 2.0 to 2.2 where they were aligned.)

A strip of 32 pixels is two tiles of the window, which may hold places between lines that no output wants; or, where
lines are short, any 32 pixels, which are copied to stand side by side.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.amx_tasks import (
    B_BOX_OUTPUTS,
    B_PART_BYTES,
    B_PLACES_D,
    B_PLACES_H,
    B_PLACES_W,
    B_STEP_D,
    B_STEP_H,
    B_STEP_W,
    CHUNK_STRIPS,
    EXTENT,
    LANES,
    OFFSETS,
    PANEL_OFFSETS,
    PARTS,
    PLACES,
    SLAB_AXIS,
    STEP_BYTES,
    TILES,
    WIDTH,
    WINDOW,
    WINDOW_STEPS,
    places_of,
    tiles_of,
)
from fastdil.kernels.copies import copy_run, copy_vectors, fill_zeros
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
)
from fastdil.kernels.geometry import DW, OH, OW, SW, XC
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.pack import fill_columns, fill_constant, lane_step, row_offset
from fastdil.kernels.places import ENTRY_FIELDS, OUTSIDE, classify_lanes, fill_ramp
from fastdil.kernels.split import split_samples
from fastdil.kernels.tile_unit import BLOCK, ROW_BYTES, STEP_TERMS, TILE_BYTES, TILE_ROWS
from fastdil.kernels.vectors import Vectors, constant, counted_loop

#: Bytes of one line of a strip, the floats of 32 places, and of the lines of all channels of a step.
_LINE = BLOCK * 4
_STRIP = STEP_TERMS * _LINE


@helper
def fill_place_columns(params, box, target, place, count):
    """Offsets along the width of the samples at `count` places of a line of the window, from `place` on."""
    step, taps = load_i64(box, B_STEP_W), load_i64(box, R_W_HI) - load_i64(box, R_W_LO)
    if step == load_i64(params, DW) and load_i64(params, SW) == 1:  # neighbours all along
        taps = 1
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
    places = places_of(box)
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
def used_strips(entries, first, strips):
    """How many of the strips from number `first` on have a sample, before one that has none; negative: have none."""
    count = 0
    for strip in range(first, strips):
        entry = entries + strip * WIDTH * ENTRY_FIELDS * 8
        is_used = load_i64(entry, 1) != 0 or load_i64(entry, ENTRY_FIELDS + 1) != 0
        if (is_used and count < 0) or (not is_used and count > 0):
            return count
        count += 1 if is_used else -1
    return count


@helper
def split_strips(params, box, scratch, source, channels, entry, strip, strips, lane):
    """Fetch and split the samples of some strips, the first of them number `strip` of the window.

    `entry` is that of the first one, `lane` its place in the tables.
    """
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    panel, extent = scratch + load_i64(params, PANEL), scratch + load_i64(params, TILES) + EXTENT
    parts, part_bytes = load_i64(params, PARTS), load_i64(box, B_PART_BYTES)
    channel_bytes = load_i64(params, XC) * 4
    for channel in range(0, channels, STEP_TERMS):
        count = min(STEP_TERMS, channels - channel)
        fetch_strips(
            "f32", LANES, WIDTH, 4, lane_step(params, LANES), panel, _LINE, _STRIP, source + channel * channel_bytes,
            channel_bytes, count, strips * WIDTH, entry, rows + lane * 8, columns + lane * 8,
        )  # fmt: skip
        target = scratch + load_i64(params, WINDOW) + channel // STEP_TERMS * parts * part_bytes
        for vector in range(strips * WIDTH):
            lines = panel + vector // WIDTH * _STRIP + vector % WIDTH * ROW_BYTES
            if count < STEP_TERMS:
                copy_vectors("f32", LANES, lines + count * _LINE, _LINE, lines, 0, STEP_TERMS - count, 0)
            split_samples(parts, lines, target + (strip * WIDTH + vector) * TILE_BYTES, part_bytes, extent)


@helper
def move_window(params, box, scratch, shared):
    """Move the last `shared` places of the window of the box before to the begin of this one's."""
    axis, shift = load_i64(params, SLAB_AXIS), load_i64(box, B_BOX_OUTPUTS)
    for inner in range(axis + 1, 3):
        shift *= load_i64(box, B_PLACES_D + inner)
    window, part_bytes = scratch + load_i64(params, WINDOW), load_i64(box, B_PART_BYTES)
    for _part in range(load_i64(params, WINDOW_STEPS) * load_i64(params, PARTS)):
        copy_run("f32", LANES, window, window + shift * ROW_BYTES, shared * LANES)
        window += part_bytes


@helper
def fill_window(params, box, scratch, source, channels, is_first, place):
    """Fetch and split the samples of `channels` channels for all places of the window from the strip of `place` on.

    Strips of nothing but padding zeros are written for the task's first channels only: they stay.
    """
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    entries, part_bytes = scratch + load_i64(params, ENTRIES), load_i64(box, B_PART_BYTES)
    all_parts = load_i64(params, WINDOW_STEPS) * load_i64(params, PARTS)
    all_strips = (places_of(box) + BLOCK - 1) // BLOCK
    for first in range(place // BLOCK, all_strips, CHUNK_STRIPS):
        strips, strip = min(CHUNK_STRIPS, all_strips - first), 0
        fill_place_tables(params, box, rows, columns, first * BLOCK, strips * BLOCK)
        for vector in range(strips * WIDTH):
            shift = vector * LANES * 8
            classify_lanes(
                LANES, rows + shift, columns + shift, lane_step(params, LANES), entries + vector * ENTRY_FIELDS * 8
            )  # fmt: skip
        while strip < strips:
            count = used_strips(entries, strip, strips)
            if count > 0:
                entry = entries + strip * WIDTH * ENTRY_FIELDS * 8
                split_strips(params, box, scratch, source, channels, entry, first + strip, count, strip * BLOCK)
            elif is_first:
                at = scratch + load_i64(params, WINDOW) + (first + strip) * WIDTH * TILE_BYTES
                for part in range(all_parts):
                    fill_zeros("f32", LANES, at + part * part_bytes, -count * WIDTH * TILE_ROWS)
            strip += abs(count)


@helper
def place_pixels(params, box, scratch):
    """Where in the window the first tap's samples of all pixels of the box are."""
    table, width, done = scratch + load_i64(params, PLACES), load_i64(box, R_WIDTH), 0
    for depth in range(load_i64(box, R_DEPTH)):
        for line in range(load_i64(box, R_HEIGHT)):
            place = (depth * load_i64(box, B_PLACES_H) + line) * load_i64(box, B_PLACES_W)
            fill_ramp(table + done * 8, width, place, 1, place + width, ROW_BYTES)
            done += width
    # Nothing is stored of the others.
    fill_constant(table + done * 8, -done % BLOCK, 0)


@helper
def place_tiles(params, state, box, scratch):
    """Where in the window the tiles of the box begin, and the runs of outputs of its strips."""
    places, runs = scratch + load_i64(params, PLACES), scratch + load_i64(params, RUNS)
    depth, height, width = load_i64(box, R_DEPTH), load_i64(box, R_HEIGHT), load_i64(box, R_WIDTH)
    places_height, places_width = load_i64(box, B_PLACES_H), load_i64(box, B_PLACES_W)
    tiles, in_all = tiles_of(depth, height, width, places_height, places_width)
    across = (width + TILE_ROWS - 1) // TILE_ROWS
    for tile in range(2 * load_i64(state, STRIPS)):
        at = runs + tile // 2 * (1 + 3 * BLOCK) * 8
        if tile % 2 == 0:
            store_i64(at, 0, 0)
        if tile == tiles:  # the last strip's second one, of which nothing is stored
            store_i64(places, tile, load_i64(places, tile - 1))
            return
        line, column = tile // across, tile % across * TILE_ROWS
        first = (line // height * places_height + line % height) * places_width + column
        if in_all:
            first = tile * TILE_ROWS
        store_i64(places, tile, first * ROW_BYTES)
        place, end = first, first + TILE_ROWS
        while place < end:
            line, column = place // places_width, place % places_width
            layer, row = line // places_height, line % places_height
            if column < width and row < height and layer < depth:
                count = min(end - place, width - column)
                out = (load_i64(box, R_D) + layer) * load_i64(params, OH) + load_i64(box, R_H) + row
                out = out * load_i64(params, OW) + load_i64(box, R_W) + column
                add_run(at, tile % 2 * TILE_ROWS + place - first, count, out)
                place += count
            else:
                place += min(end - place, places_width - column)


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
    """Bytes from the first tap's samples to those of the taps of this block, in the window and in a copy."""
    offsets, in_panel = scratch + load_i64(params, OFFSETS), scratch + load_i64(params, PANEL_OFFSETS)
    heights, first = load_i64(box, R_H_HI) - load_i64(box, R_H_LO), load_i64(box, R_W_LO)
    tap_bytes = steps * load_i64(params, PARTS) * STEP_BYTES
    for index in range(lines):
        depth, height = (line + index) // heights, (line + index) % heights
        above = depth * load_i64(box, B_STEP_D) * load_i64(box, B_PLACES_H) + height * load_i64(box, B_STEP_H)
        start = above * load_i64(box, B_PLACES_W)
        for inner in range(taps):
            number = index * taps + inner
            store_i64(offsets, number, (start + (tap + inner - first) * load_i64(box, B_STEP_W)) * ROW_BYTES)
            store_i64(in_panel, number, number * tap_bytes)


@intrinsic
def copy_strip(typingctx, target, window, part_bytes, parts, places, offsets, taps):
    """The samples of the 32 pixels at `places` for each of `taps` and `parts`, side by side.

    Places and offsets are in bytes; parts, of all steps, stand `part_bytes` apart in the window.
    """

    def codegen(context, builder, signature, args):
        target, window, part_bytes, parts, places, offsets, taps = args
        words, integers = Vectors(builder, "i32", LANES), Vectors(builder, "i64", 1)

        def over_taps(tap, carried):
            def over_parts(_, inner):
                def over_pixels(pixel, _):
                    at = builder.add(inner[1], integers.load_scalar(integers.at(places, pixel)))
                    shift = builder.mul(pixel, constant(ROW_BYTES))
                    words.store(words.load(at), builder.add(inner[0], shift))
                    return []

                counted_loop(builder, constant(BLOCK), [], over_pixels)
                return [builder.add(inner[0], constant(STEP_BYTES)), builder.add(inner[1], part_bytes)]

            base = builder.add(window, integers.load_scalar(integers.at(offsets, tap)))
            return counted_loop(builder, parts, [carried[0], base], over_parts)[:1]

        counted_loop(builder, taps, [target], over_taps)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 7), codegen
