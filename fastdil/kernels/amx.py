"""Matrix products on the tile unit: the compiled part of the method `amx`.

One task is a slab of outputs of one region, sample and group, box by box, and a chunk of output channels. For as many
channels as fit the cache, the samples that a box reads are split into one, two or three bfloat16 parts, once for all
taps (`fastdil.kernels.amx_window`). Then, a block of the reduction at a time and strip by strip of 32 pixels: the
samples of the block's taps, in the window or copied side by side where lines are short, stay in L1 while all outputs of
the task pass over them, and the weights, which were split when they were packed, stream from L2.

A block is summed in the unit's registers. It goes on from the sums in memory, or it begins at zero and is then added to
them, so that the error of a long chain of products stays below float32's own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.amx_tasks import (
    B_PART_BYTES,
    EXTENT,
    IS_CHAINED,
    IS_DIRECT,
    KEPT_STRIPS,
    LANES,
    OFFSETS,
    PANEL_OFFSETS,
    PARTS,
    PLACES,
    SPARE,
    SPLIT,
    STEP_BYTES,
    SUM_BYTES,
    TILES,
    WIDTH,
    WINDOW,
    WINDOW_STEPS,
    boxes_of,
    cut_terms,
    open_box,
    open_slab,
)
from fastdil.kernels.amx_window import (
    copy_strip,
    fill_offsets,
    fill_window,
    move_window,
    place_pixels,
    place_tiles,
)
from fastdil.kernels.copies import copy_run
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.gemm_samples import fill_tap_table
from fastdil.kernels.gemm_sums import fill_runs, merge_sums, plan_sums, store_sums
from fastdil.kernels.gemm_tasks import (
    CHANNELS_AT_ONCE,
    FIRST_BLOCK,
    GROUP,
    GROUP_BLOCKS,
    KERNEL_TAPS,
    LAST_BLOCK,
    LINES,
    LINES_AT_ONCE,
    PIXELS,
    R_W_HI,
    R_W_LO,
    RUNS,
    SAMPLE,
    STRIPS,
    SUMS,
    TAP_TABLE,
    TAPS_AT_ONCE,
)
from fastdil.kernels.geometry import GROUP_IN, XC, XN
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.split import clear_extent, transpose_tile, write_extent
from fastdil.kernels.tile_unit import (
    BLOCK,
    ROW_BYTES,
    STEP_TERMS,
    TILE_BYTES,
    TILE_ROWS,
    close_tiles,
    multiply_tiles,
    open_tiles,
)
from fastdil.kernels.totals import add_vectors

#: What the `w` argument points to: packed weights, and what tasks report of their samples (`write_extent`).
W_PACKED, W_REPORT = range(2)
REPORT_BYTES = 8

#: Vectors of a block's sums.
_VECTORS = BLOCK * WIDTH


@helper
def multiply_block(
    unit, parts, memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume
):
    """`multiply_tiles`, for a number of parts that is not known at compile time: one kernel serves all precisions."""
    if parts == 1:
        multiply_tiles(
            unit, 1, memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume
        )  # fmt: skip
    elif parts == 2:
        multiply_tiles(
            unit, 2, memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume
        )  # fmt: skip
    else:
        multiply_tiles(
            unit, 3, memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume
        )  # fmt: skip


@helper
def turn_block(source, target):
    """The sums of 32 pixels by 32 outputs, as rows of outputs."""
    for tile in range(4):
        row, column = tile // 2 * TILE_ROWS * 2 * ROW_BYTES, tile % 2 * ROW_BYTES
        turned = tile % 2 * TILE_ROWS * 2 * ROW_BYTES + tile // 2 * ROW_BYTES
        transpose_tile(source + row + column, target + turned)


@helper
def multiply_strip(
    unit, params, state, scratch, samples, half, part_bytes, offsets, weights, taps, steps, sums, done, is_last
):
    """Multiply the samples of a strip with the weights of all outputs of the task, and add that to its sums."""
    tap_table, tiles = scratch + load_i64(params, TAP_TABLE), scratch + load_i64(params, TILES)
    parts, chained = load_i64(params, PARTS), load_i64(params, IS_CHAINED)
    block_bytes = load_i64(params, KERNEL_TAPS) * steps * parts * STEP_BYTES
    resume, merges, tile_step, result = plan_sums(state, SUM_BYTES, done, is_last)
    for block in range(load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK)):
        is_spare = (chained == 0 and resume != 0) or (is_last and not merges and done == 0)
        multiply_block(
            unit, parts, tiles, samples, half, part_bytes, offsets, weights + block * block_bytes, tap_table, taps,
            steps, tiles + SPARE if is_spare else sums, 0 if is_spare else resume,
        )  # fmt: skip
        if is_spare and resume != 0:
            add_vectors("f32", LANES, sums, tiles + SPARE, _VECTORS)
        if merges:
            merge_sums("f32", LANES, state, sums, SUM_BYTES, _VECTORS, done, is_last)
        if is_last:
            if resume != 0 or not is_spare:
                copy_run("f32", LANES, tiles + SPARE, sums + result, SUM_BYTES // 4)
            turn_block(tiles + SPARE, sums + result)
        sums += tile_step


@helper
def multiply_window(unit, params, state, box, scratch, weights, bias, out, step, steps, taps, done, is_last):
    """One block of the reduction for the whole box; stores the outputs if it was the last one.

    `done` blocks came before. `weights` are those of the block's channels, which begin at a `step` of the window.
    """
    blocks, strips = load_i64(state, LAST_BLOCK) - load_i64(state, FIRST_BLOCK), load_i64(state, STRIPS)
    _, _, tile_step, result = plan_sums(state, SUM_BYTES, done, is_last)
    parts, window_bytes = load_i64(params, PARTS), load_i64(box, B_PART_BYTES)
    places = scratch + load_i64(params, PLACES)
    window, panel = scratch + load_i64(params, WINDOW) + step * parts * window_bytes, scratch + load_i64(params, SPLIT)
    direct, kept = load_i64(params, IS_DIRECT), load_i64(params, KEPT_STRIPS)
    for first in range(0, strips, kept):
        last = min(first + kept, strips)
        # Places of sums are those of a box that keeps all of them.
        sums = scratch + load_i64(params, SUMS) - first * blocks * tile_step
        for strip in range(first, last):
            offsets = scratch + load_i64(params, OFFSETS)
            if direct != 0:
                place, part_bytes = load_i64(places, 2 * strip), window_bytes
                samples, half = window + place, load_i64(places, 2 * strip + 1) - place
            else:
                copy_strip(panel, window, window_bytes, steps * parts, places + strip * BLOCK * 8, offsets, taps)
                samples, offsets = panel, scratch + load_i64(params, PANEL_OFFSETS)
                part_bytes, half = np.int64(STEP_BYTES), np.int64(TILE_BYTES)
            multiply_strip(
                unit, params, state, scratch, samples, half, part_bytes, offsets, weights, taps, steps,
                sums + strip * blocks * tile_step, done, is_last,
            )  # fmt: skip
        if is_last:
            store_sums(
                "f32", LANES, BLOCK, WIDTH, 4, 1, params, state, sums, scratch + load_i64(params, RUNS), first, last,
                tile_step, result, bias, out,
            )  # fmt: skip


@helper
def multiply_channels(unit, params, state, box, scratch, weights, bias, out, step, channels, done, is_last):
    """All taps of `channels` channels, from a `step` of the window on; returns the blocks of the reduction so far."""
    steps = (channels + STEP_TERMS - 1) // STEP_TERMS
    lines, first_tap, end_tap = load_i64(state, LINES), load_i64(box, R_W_LO), load_i64(box, R_W_HI)
    lines_at_once, taps_at_once = load_i64(state, LINES_AT_ONCE), load_i64(state, TAPS_AT_ONCE)
    tap_table = scratch + load_i64(params, TAP_TABLE)
    for line in range(0, lines, lines_at_once):
        line_count = min(lines_at_once, lines - line)
        for tap in range(first_tap, end_tap, taps_at_once):
            tap_count = min(taps_at_once, end_tap - tap)
            fill_tap_table(params, box, tap_table, line, line_count, tap, tap_count)
            fill_offsets(params, box, scratch, line, line_count, tap, tap_count, steps)
            multiply_window(
                unit, params, state, box, scratch, weights, bias, out, step, steps, line_count * tap_count, done,
                is_last and line + line_count == lines and tap + tap_count == end_tap,
            )  # fmt: skip
            done += 1
    return done


@helper
def multiply_box(unit, params, state, box, scratch, sample, weights, step_bytes, bias, out, shared):
    """All outputs of a box. Its window has its first `shared` places already."""
    if load_i64(params, IS_DIRECT) != 0:
        place_tiles(params, state, box, scratch)
    else:
        fill_runs(params, box, scratch + load_i64(params, RUNS), 0, load_i64(state, PIXELS), BLOCK)
        place_pixels(params, box, scratch)
    group_in, at_once = load_i64(params, GROUP_IN), load_i64(state, CHANNELS_AT_ONCE)
    window_channels = load_i64(params, WINDOW_STEPS) * STEP_TERMS
    done = np.int64(0)  # a literal would compile `multiply_channels` a second time
    for first in range(0, group_in, window_channels):
        window_end = min(first + window_channels, group_in)
        source = sample + first * load_i64(params, XC) * 4
        fill_window(params, box, scratch, source, window_end - first, first == 0, shared)
        for channel in range(first, window_end, at_once):
            end = min(channel + at_once, window_end)
            done = multiply_channels(
                unit, params, state, box, scratch, weights + channel // STEP_TERMS * step_bytes, bias, out,
                (channel - first) // STEP_TERMS, end - channel, done, end == group_in,
            )  # fmt: skip


def _make_amx_kernel(unit: str, name: str) -> Any:
    stamp = jit.source_stamp()

    def amx(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        state, tiles = scratch, scratch + load_i64(params, TILES)
        box = open_slab(params, state, scratch, task)
        cut_terms(params, box, state)
        open_tiles(unit, tiles)
        clear_extent(tiles + EXTENT)
        group_in, group = load_i64(params, GROUP_IN), load_i64(state, GROUP)
        # The weights of one step of the channels, all outputs and taps, and of a group.
        step_bytes = (
            load_i64(params, GROUP_BLOCKS) * load_i64(params, KERNEL_TAPS) * load_i64(params, PARTS) * STEP_BYTES
        )
        weights = load_i64(w, W_PACKED) + group * ((group_in + STEP_TERMS - 1) // STEP_TERMS) * step_bytes
        sample = x + (load_i64(state, SAMPLE) * load_i64(params, XN) + group * group_in * load_i64(params, XC)) * 4
        for number in range(boxes_of(box)):
            shared = open_box(params, state, box, number)
            if shared > 0:
                move_window(params, box, scratch, shared)
            multiply_box(unit, params, state, box, scratch, sample, weights, step_bytes, bias, out, shared)
        close_tiles(unit, tiles)
        write_extent(tiles + EXTENT, load_i64(w, W_REPORT) + task * REPORT_BYTES)

    return jit.callback(amx, name, KERNEL_ARGUMENTS)


@cache
def amx_kernel(unit: str) -> Any:
    """The compiled kernel for the ``"native"`` or ``"emulated"`` unit."""
    return _make_amx_kernel(unit, f"amx_f32_{BLOCK}x{BLOCK}_{unit}")
