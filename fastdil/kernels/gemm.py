"""Packed implicit GEMM: the compiled part of `im2col`.

One task is a block of output pixels of one region, one sample, one group and one chunk of output channels. It walks
over the reduction in blocks of at most `BLOCK_TERMS` terms: gather a panel of samples that stays in cache, multiply it
with the packed weights strip by strip, and store when the last block is in. A region is a box of outputs with a
constant set of taps, so taps that fall on padding cost nothing. (im2col: Chellapilla et al. 2006; here its matrix is
never built.)

Measured on a two-core AVX-512 machine: a strip of one panel (192 terms x 48 lanes, 36 KiB) stays in the 48 KiB L1 while
all output channels pass over it; the weights then stream from L2 at 3 bytes a cycle.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.gemm_samples import classify_block, fill_tables, pack_panel
from fastdil.kernels.gemm_tasks import (
    CHAIN_TAPS,
    CHANNELS_AT_ONCE,
    FIRST_BLOCK,
    FIRST_PIXEL,
    GROUP,
    GROUP_BLOCKS,
    KERNEL_TAPS,
    LAST_BLOCK,
    LINES,
    LINES_AT_ONCE,
    MERGE_BLOCKS,
    PANEL,
    PART,
    PIXELS,
    R_D,
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
    RUNS,
    SAMPLE,
    STRIPS,
    SUMS,
    TAP_TABLE,
    TAPS_AT_ONCE,
    VECTORS,
    open_block,
    region_of,
)
from fastdil.kernels.geometry import GROUP_IN, GROUP_OUT, GROUPS, KH, KW, OH, OUT_PIXELS, OW, XC, XN, lanes_of
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.store import neighbouring_strips, store_strips, store_tile
from fastdil.kernels.tiles import gemm_tile, tile_shape
from fastdil.kernels.totals import merge_tile, settle_tile

#: Strips whose rows are stored together. Alone, a strip's row shares its first and last cache line with other strips',
#: which must come from memory twice where rows of the result are a power of two apart and push each other out.
STORE_STRIPS = 4


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
def fill_runs(params, region, target, first_pixel, pixels, strip_pixels):
    """Per strip: how many runs of neighbouring outputs, and each run's first pixel, length and place in a channel."""
    height, width = load_i64(region, R_HEIGHT), load_i64(region, R_WIDTH)
    out_width, out_height = load_i64(params, OW), load_i64(params, OH)
    # Rows that follow each other without a gap are one run.
    whole = width == out_width and (height == out_height or load_i64(region, R_DEPTH) == 1)
    record = 1 + 3 * strip_pixels
    for strip in range((pixels + strip_pixels - 1) // strip_pixels):
        at = target + strip * record * 8
        end = min((strip + 1) * strip_pixels, pixels)
        done, runs = strip * strip_pixels, 0
        while done < end:
            pixel = first_pixel + done
            line, column = pixel // width, pixel % width
            depth = load_i64(region, R_D) + line // height
            row = load_i64(region, R_H) + line % height
            count = end - done if whole else min(width - column, end - done)
            store_i64(at, 1 + runs * 3, done - strip * strip_pixels)
            store_i64(at, 2 + runs * 3, count)
            store_i64(at, 3 + runs * 3, (depth * out_height + row) * out_width + load_i64(region, R_W) + column)
            runs += 1
            done += count
        store_i64(at, 0, runs)


@helper
def multiply_tile(
    kind, lanes, rows, width, params, state, used, weights, block, tap_table, taps, tap_groups, channels, parts, panel,
    tile, resume,
):  # fmt: skip
    """All terms of a block for one tile of `rows` x `used` vectors; a strip at the end may use fewer than `width`."""
    kernel_taps, part = load_i64(params, KERNEL_TAPS), load_i64(state, PART)
    part_step = part * load_i64(params, GROUP_BLOCKS) * kernel_taps * rows
    chain_taps = load_i64(state, CHAIN_TAPS)
    if used == 3:
        gemm_tile(
            kind, lanes, rows, 3, width, weights, part_step, block, kernel_taps, tap_table, taps, tap_groups,
            chain_taps, channels, parts, part, panel, tile, resume,
        )  # fmt: skip
    elif used == 2:
        gemm_tile(
            kind, lanes, rows, 2, width, weights, part_step, block, kernel_taps, tap_table, taps, tap_groups,
            chain_taps, channels, parts, part, panel, tile, resume,
        )  # fmt: skip
    else:
        gemm_tile(
            kind, lanes, rows, 1, width, weights, part_step, block, kernel_taps, tap_table, taps, tap_groups,
            chain_taps, channels, parts, part, panel, tile, resume,
        )  # fmt: skip


@helper
def multiply_block(
    kind, lanes, rows, width, size, unit, params, state, scratch, weights, bias, out, taps, channels, done, is_last
):
    """Multiply the packed panel with all output rows of the task; store the tiles that are complete.

    `done` blocks of the reduction came before.
    """
    line = width * lanes * size
    record = (1 + 3 * (width * lanes // unit)) * 8
    panel, sums = scratch + load_i64(params, PANEL), scratch + load_i64(params, SUMS)
    tap_table, runs = scratch + load_i64(params, TAP_TABLE), scratch + load_i64(params, RUNS)
    first_block, last_block = load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK)
    blocks, strips, vectors = last_block - first_block, load_i64(state, STRIPS), load_i64(state, VECTORS)
    group_out, pixel_bytes = load_i64(params, GROUP_OUT), load_i64(params, OUT_PIXELS) * unit * size
    group = load_i64(state, GROUP)
    sample_channel = load_i64(state, SAMPLE) * load_i64(params, GROUPS) * group_out
    parts = (channels + load_i64(state, PART) - 1) // load_i64(state, PART)
    tap_groups = (taps + load_i64(state, CHAIN_TAPS) - 1) // load_i64(state, CHAIN_TAPS)
    # In a long reduction each tile is followed by its total and by the errors of that.
    merge_blocks, tile_bytes = load_i64(state, MERGE_BLOCKS), rows * line
    resume, merges, result, tile_step = done, False, 0, tile_bytes
    if merge_blocks > 0:
        resume, merges = done % merge_blocks, is_last or (done + 1) % merge_blocks == 0
        result, tile_step = tile_bytes, 3 * tile_bytes
    for first_strip in range(0, strips, STORE_STRIPS):
        last_strip = min(first_strip + STORE_STRIPS, strips)
        for strip in range(first_strip, last_strip):
            used = min(width, vectors - strip * width)
            for block in range(blocks):
                tile = sums + (strip * blocks + block) * tile_step
                multiply_tile(
                    kind, lanes, rows, width, params, state, used, weights, first_block + block, tap_table, taps,
                    tap_groups, channels, parts, panel + strip * taps * channels * line, tile, resume,
                )  # fmt: skip
                if merges:
                    total = tile + tile_bytes
                    merge_tile(kind, lanes, tile, total, total + tile_bytes, rows * used, done // merge_blocks)
                    if is_last:
                        settle_tile(kind, lanes, total, total + tile_bytes, rows * used)
        if not is_last:
            continue
        whole = neighbouring_strips(runs, record, first_strip, last_strip, width * lanes) if unit == 1 else 0
        for block in range(blocks):
            first = (first_block + block) * (rows // unit)
            channel = group * group_out + first
            target, outputs = out + (sample_channel + channel) * pixel_bytes, min(rows // unit, group_out - first)
            if whole > 0:
                store_strips(
                    kind, lanes, width, size, params, sums + (first_strip * blocks + block) * tile_step + result,
                    blocks * tile_step, whole, outputs, channel, bias,
                    target + load_i64(runs + first_strip * record, 3) * size,
                )  # fmt: skip
            for strip in range(first_strip + whole, last_strip):
                store_tile(
                    kind, lanes, size, unit, params, sums + (strip * blocks + block) * tile_step + result,
                    min(width, vectors - strip * width) * lanes * size, outputs, channel, bias, target,
                    runs + strip * record,
                )  # fmt: skip


def _make_gemm_kernel(kind: str, size: int, lanes: int, rows: int, width: int, unit: int, name: str) -> Any:
    stamp = jit.source_stamp()
    strip_pixels = width * lanes // unit

    def gemm(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        region, state = region_of(params, task), scratch
        open_block(params, region, state, task, strip_pixels, lanes, unit)
        first_pixel, pixels = load_i64(state, FIRST_PIXEL), load_i64(state, PIXELS)
        fill_runs(params, region, scratch + load_i64(params, RUNS), first_pixel, pixels, strip_pixels)
        group_in, group = load_i64(params, GROUP_IN), load_i64(state, GROUP)
        channel_bytes = load_i64(params, GROUP_BLOCKS) * load_i64(params, KERNEL_TAPS) * rows * size
        lines, lines_at_once = load_i64(state, LINES), load_i64(state, LINES_AT_ONCE)
        tap_end, taps_at_once = load_i64(region, R_W_HI), load_i64(state, TAPS_AT_ONCE)
        channels_at_once = load_i64(state, CHANNELS_AT_ONCE)
        block_lanes = load_i64(state, VECTORS) * lanes
        sample = x + load_i64(state, SAMPLE) * load_i64(params, XN) * size
        done = np.int64(0)  # a literal would compile `multiply_block` a second time
        for line in range(0, lines, lines_at_once):
            line_count = min(lines_at_once, lines - line)
            for tap in range(load_i64(region, R_W_LO), tap_end, taps_at_once):
                tap_count = min(taps_at_once, tap_end - tap)
                taps = line_count * tap_count
                fill_tables(params, region, scratch, first_pixel, pixels, block_lanes, line, line_count, tap, tap_count)
                fill_tap_table(params, region, scratch + load_i64(params, TAP_TABLE), line, line_count, tap, tap_count)
                classify_block(params, state, scratch, lanes, taps, tap_count)
                is_last_tap = line + line_count == lines and tap + tap_count == tap_end
                for channel in range(0, group_in, channels_at_once):
                    channels = min(channels_at_once, group_in - channel)
                    source = sample + (group * group_in + channel) * load_i64(params, XC) * size
                    pack_panel(kind, lanes, width, size, params, state, scratch, source, taps, tap_count, channels)
                    multiply_block(
                        kind, lanes, rows, width, size, unit, params, state, scratch,
                        w + (group * group_in + channel) * channel_bytes, bias, out, taps, channels, done,
                        is_last_tap and channel + channels == group_in,
                    )  # fmt: skip
                    done += 1

    return jit.callback(gemm, name, KERNEL_ARGUMENTS)


@cache
def gemm_kernel(kind: str, vector_bytes: int, unit: int) -> Any:
    """The compiled kernel for one element kind, vector width and unit (2: complex)."""
    rows, width = tile_shape(vector_bytes)
    lanes = lanes_of(kind, vector_bytes)
    name = f"gemm_{kind}_{rows}x{width * lanes}_{'complex' if unit == 2 else 'real'}_{8 * vector_bytes}bit"
    return _make_gemm_kernel(kind, int(kind[1:]) // 8, lanes, rows, width, unit, name)
