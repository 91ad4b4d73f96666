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
from fastdil.kernels.copies import ENTRY_FIELDS, OUTSIDE, classify_lanes, copy_runs, gather_vectors
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    GEOMETRY,
    GROUP_IN,
    GROUP_OUT,
    GROUPS,
    KD,
    KH,
    KW,
    OH,
    OUT_PIXELS,
    OW,
    UNIT,
    XC,
    XN,
    lanes_of,
)
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.pack import fill_columns, fill_constant, row_offset
from fastdil.kernels.store import store_tile
from fastdil.kernels.tiles import gemm_tile, merge_tile, settle_tile
from fastdil.workspace import ALIGNMENT

#: Terms of the reduction that are packed at a time: a strip of 192 stays in L1.
BLOCK_TERMS = 192
#: Terms that are summed in registers before they are added to the tile: equal terms then err by 6 eps, not 24.
CHAIN_TERMS = 48
#: Chains that may be added plainly; beyond, `merge_tile` keeps what rounding loses between blocks. With the chain's own
#: error that leaves every sum within the 8 eps that the contract allows.
PLAIN_CHAINS = 12

#: This kernel's own parameters, after the geometry.
(
    REGIONS,  # how many
    CHUNK_BLOCKS,  # weight blocks per task
    GROUP_BLOCKS,  # weight blocks per group
    BLOCK_PIXELS,  # most pixels per task
    KERNEL_TAPS,  # taps of the whole kernel
    PANEL,
    SUMS,
    ROW_TABLE,
    COLUMN_TABLE,
    ENTRIES,
    TAP_OFFSETS,
    RUNS,  # byte offsets of the parts of the scratch memory
) = range(GEOMETRY, GEOMETRY + 12)
FIELDS = 12

#: One region: first task, first output per axis, outputs per axis, blocks, taps per axis as [lo, hi).
(
    R_TASK, R_D, R_H, R_W, R_DEPTH, R_HEIGHT, R_WIDTH, R_BLOCKS, R_D_LO, R_D_HI, R_H_LO, R_H_HI, R_W_LO, R_W_HI,
) = range(14)  # fmt: skip
REGION_FIELDS = 14

#: What `open_block` works out for a task, at the start of the worker's scratch memory.
(
    FIRST_PIXEL, PIXELS, STRIPS, VECTORS, GROUP, SAMPLE, FIRST_BLOCK, LAST_BLOCK, LINES, LINES_AT_ONCE, TAPS_AT_ONCE,
    CHANNELS_AT_ONCE, SEVERAL, MERGE_BLOCKS,
) = range(14)  # fmt: skip
STATE_FIELDS = 14


def tile_shape(vector_bytes: int) -> tuple[int, int]:
    """Output rows and vectors of the register tile: 24 accumulators of 32 registers, or 12 of 16."""
    return (8, 3) if vector_bytes == 64 else (4, 3)


def part_sizes(channels: int) -> tuple[int, ...]:
    """How `open_block` cuts the channels of a group: equal parts that fit a chain, the last one may be smaller."""
    each = -(-channels // -(-channels // CHAIN_TERMS))
    return (*(each,) * ((channels - 1) // each), channels - (channels - 1) // each * each)


@helper
def region_of(params, task):
    """Address of the region that holds a task."""
    first = params + (GEOMETRY + FIELDS) * 8
    index = load_i64(params, REGIONS) - 1
    while load_i64(first, index * REGION_FIELDS + R_TASK) > task:
        index -= 1
    return first + index * REGION_FIELDS * 8


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
def fill_tap_offsets(params, region, target, block_step, row, rows, tap, taps):
    """Where the packed weights of each tap of this block start."""
    heights = load_i64(region, R_H_HI) - load_i64(region, R_H_LO)
    for index in range(rows):
        depth = load_i64(region, R_D_LO) + (row + index) // heights
        height = load_i64(region, R_H_LO) + (row + index) % heights
        line = (depth * load_i64(params, KH) + height) * load_i64(params, KW)
        for inner in range(taps):
            store_i64(target, index * taps + inner, (line + tap + inner) * block_step)


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
def open_block(params, region, state, task, strip_pixels, lanes, unit):
    """Decode a task: which pixels of which sample, which group, which blocks of output rows; how to cut the terms."""
    blocks, rest = load_i64(region, R_BLOCKS), task - load_i64(region, R_TASK)
    block_pixels, chunk_blocks = load_i64(params, BLOCK_PIXELS), load_i64(params, CHUNK_BLOCKS)
    groups, group_blocks = load_i64(params, GROUPS), load_i64(params, GROUP_BLOCKS)
    first_pixel, rest = rest % blocks * block_pixels, rest // blocks
    chunks = (group_blocks + chunk_blocks - 1) // chunk_blocks
    first_block, rest = rest % chunks * chunk_blocks, rest // chunks
    pixels = load_i64(region, R_DEPTH) * load_i64(region, R_HEIGHT) * load_i64(region, R_WIDTH) - first_pixel
    pixels = min(pixels, block_pixels)
    store_i64(state, FIRST_PIXEL, first_pixel)
    store_i64(state, PIXELS, pixels)
    store_i64(state, STRIPS, (pixels + strip_pixels - 1) // strip_pixels)
    store_i64(state, VECTORS, (pixels * unit + lanes - 1) // lanes)
    store_i64(state, GROUP, rest % groups)
    store_i64(state, SAMPLE, rest // groups)
    store_i64(state, FIRST_BLOCK, first_block)
    store_i64(state, LAST_BLOCK, min(first_block + chunk_blocks, group_blocks))

    lines = (load_i64(region, R_D_HI) - load_i64(region, R_D_LO)) * (
        load_i64(region, R_H_HI) - load_i64(region, R_H_LO)
    )
    width_taps = load_i64(region, R_W_HI) - load_i64(region, R_W_LO)
    group_in = load_i64(params, GROUP_IN)
    # A chain runs over the channels of one tap where there are enough of them: long inner loops, in equal parts.
    parts = (group_in + CHAIN_TERMS - 1) // CHAIN_TERMS
    channels_at_once = (group_in + parts - 1) // parts
    most_taps = BLOCK_TERMS // channels_at_once
    taps_at_once = min(width_taps, most_taps)
    lines_at_once = min(most_taps // taps_at_once, lines)
    store_i64(state, LINES, lines)
    store_i64(state, LINES_AT_ONCE, lines_at_once)
    store_i64(state, TAPS_AT_ONCE, taps_at_once)
    store_i64(state, CHANNELS_AT_ONCE, channels_at_once)
    several = lines * width_taps * group_in > lines_at_once * taps_at_once * channels_at_once
    store_i64(state, SEVERAL, 1 if several else 0)
    # Blocks whose chains may be added plainly before they are merged; 0 if that holds for all of them together. Counted
    # with all taps of the kernel's width, so that sums do not depend on which of them a region leaves out.
    chain_taps = CHAIN_TERMS // channels_at_once
    block_taps = lines_at_once * min(load_i64(params, KW), most_taps)
    block_chains = (block_taps + chain_taps - 1) // chain_taps
    is_long = load_i64(params, KERNEL_TAPS) * group_in > PLAIN_CHAINS * CHAIN_TERMS
    store_i64(state, MERGE_BLOCKS, max(PLAIN_CHAINS // block_chains, 1) if is_long else 0)


@helper
def classify_block(params, state, scratch, lanes, taps, width_taps):
    """For each tap and vector of the block: copy or gather (`ENTRIES`)."""
    vectors = load_i64(state, VECTORS)
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    entries = scratch + load_i64(params, ENTRIES)
    for index in range(taps):
        row = rows + index // width_taps * vectors * lanes * 8
        column = columns + index % width_taps * vectors * lanes * 8
        for vector in range(vectors):
            shift = vector * lanes * 8
            entry = entries + (index * vectors + vector) * ENTRY_FIELDS * 8
            classify_lanes(lanes, row + shift, column + shift, entry)


@helper
def runs_suffice(entries, count):
    """Whether each of `count` vectors is made of at most two runs, so that nothing must be gathered."""
    fewest = 0
    for index in range(count):
        fewest = min(fewest, load_i64(entries, index * ENTRY_FIELDS + 1))
    return fewest == 0


@helper
def pack_panel(kind, lanes, width, size, params, state, scratch, source, taps, width_taps, channels):
    """Fetch the samples of `taps` x `channels` terms for every pixel of the block, strip by strip."""
    vectors, channel_bytes = load_i64(state, VECTORS), load_i64(params, XC) * size
    rows, columns = scratch + load_i64(params, ROW_TABLE), scratch + load_i64(params, COLUMN_TABLE)
    entries, panel = scratch + load_i64(params, ENTRIES), scratch + load_i64(params, PANEL)
    line, step = width * lanes * size, ENTRY_FIELDS * 8
    for index in range(taps):
        row = rows + index // width_taps * vectors * lanes * 8
        column = columns + index % width_taps * vectors * lanes * 8
        for first in range(0, vectors, width):
            count = min(width, vectors - first)
            target = panel + (first // width * taps + index) * channels * line
            entry = entries + (index * vectors + first) * step
            if count == width and runs_suffice(entry, width):
                # A whole strip at a time: each line of the cache that a channel fills is used up at once.
                copy_runs(kind, lanes, width, target, line, source, channel_bytes, channels, entry)
                continue
            for vector in range(count):
                place, lane = target + vector * lanes * size, (first + vector) * lanes * 8
                if runs_suffice(entry + vector * step, 1):
                    copy_runs(kind, lanes, 1, place, line, source, channel_bytes, channels, entry + vector * step)
                else:
                    gather_vectors(kind, lanes, place, line, source, channel_bytes, channels, row + lane, column + lane)


@helper
def multiply_chain(kind, lanes, rows, width, used, weights, tap_offsets, taps, channels, panel, tile, resume):
    """One chain of one tile of `rows` x `used` vectors; a strip at the end of a block may use fewer than `width`."""
    if used == 3:
        gemm_tile(kind, lanes, rows, 3, width, weights, tap_offsets, taps, channels, panel, tile, resume)
    elif used == 2:
        gemm_tile(kind, lanes, rows, 2, width, weights, tap_offsets, taps, channels, panel, tile, resume)
    else:
        gemm_tile(kind, lanes, rows, 1, width, weights, tap_offsets, taps, channels, panel, tile, resume)


@helper
def multiply_tile(kind, lanes, rows, width, size, used, weights, tap_offsets, taps, channels, panel, tile, resume):
    """All terms of a block for one tile, chain by chain."""
    line = width * lanes * size
    taps_at_once = CHAIN_TERMS // channels
    for tap in range(0, taps, taps_at_once):
        multiply_chain(
            kind, lanes, rows, width, used, weights, tap_offsets + tap * 8, min(taps_at_once, taps - tap), channels,
            panel + tap * channels * line, tile, resume,
        )  # fmt: skip
        resume = 1


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
    tap_offsets, runs = scratch + load_i64(params, TAP_OFFSETS), scratch + load_i64(params, RUNS)
    first_block, last_block = load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK)
    group_out = load_i64(params, GROUP_OUT)
    group = load_i64(state, GROUP)
    sample_channel = load_i64(state, SAMPLE) * load_i64(params, GROUPS) * group_out
    block_bytes = load_i64(params, KERNEL_TAPS) * load_i64(params, GROUP_IN) * rows * size
    # In a long reduction each tile is followed by its total and by the errors of that.
    merge_blocks, tile_bytes = load_i64(state, MERGE_BLOCKS), rows * line
    tile_step = load_i64(state, SEVERAL) * tile_bytes * (3 if merge_blocks > 0 else 1)
    resume, merges = done, False
    if merge_blocks > 0:
        resume, merges = done % merge_blocks, is_last or (done + 1) % merge_blocks == 0
    for strip in range(load_i64(state, STRIPS)):
        used = min(width, load_i64(state, VECTORS) - strip * width)
        for block in range(first_block, last_block):
            tile = sums + (strip * (last_block - first_block) + block - first_block) * tile_step
            multiply_tile(
                kind, lanes, rows, width, size, used, weights + block * block_bytes, tap_offsets, taps, channels,
                panel + strip * taps * channels * line, tile, resume,
            )  # fmt: skip
            if merges:
                total = tile + tile_bytes
                merge_tile(kind, lanes, tile, total, total + tile_bytes, rows * used, done // merge_blocks)
                if is_last:
                    settle_tile(kind, lanes, total, total + tile_bytes, rows * used)
                tile = total
            if is_last:
                first = block * (rows // unit)
                channel = group * group_out + first
                store_tile(
                    kind, lanes, size, unit, params, tile, used * lanes * size, min(rows // unit, group_out - first),
                    channel, bias, out + (sample_channel + channel) * load_i64(params, OUT_PIXELS) * unit * size,
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
        group_bytes = load_i64(params, GROUP_BLOCKS) * load_i64(params, KERNEL_TAPS) * group_in * rows * size
        lines, lines_at_once = load_i64(state, LINES), load_i64(state, LINES_AT_ONCE)
        tap_end, taps_at_once = load_i64(region, R_W_HI), load_i64(state, TAPS_AT_ONCE)
        channels_at_once = load_i64(state, CHANNELS_AT_ONCE)
        block_lanes = load_i64(state, VECTORS) * lanes
        sample = x + load_i64(state, SAMPLE) * load_i64(params, XN) * size
        done = 0
        for line in range(0, lines, lines_at_once):
            line_count = min(lines_at_once, lines - line)
            for tap in range(load_i64(region, R_W_LO), tap_end, taps_at_once):
                tap_count = min(taps_at_once, tap_end - tap)
                taps = line_count * tap_count
                fill_tables(params, region, scratch, first_pixel, pixels, block_lanes, line, line_count, tap, tap_count)
                fill_tap_offsets(
                    params, region, scratch + load_i64(params, TAP_OFFSETS), group_in * rows,
                    line, line_count, tap, tap_count,
                )  # fmt: skip
                classify_block(params, state, scratch, lanes, taps, tap_count)
                is_last_tap = line + line_count == lines and tap + tap_count == tap_end
                for channel in range(0, group_in, channels_at_once):
                    channels = min(channels_at_once, group_in - channel)
                    source = sample + (group * group_in + channel) * load_i64(params, XC) * size
                    pack_panel(kind, lanes, width, size, params, state, scratch, source, taps, tap_count, channels)
                    multiply_block(
                        kind, lanes, rows, width, size, unit, params, state, scratch,
                        w + group * group_bytes + channel * rows * size, bias, out, taps, channels, done,
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


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int) -> int:
    """Write the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    rows, width = tile_shape(vector_bytes)
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    unit = int(params[UNIT])
    strips = -(-int(params[BLOCK_PIXELS]) * unit // (width * lanes))
    block_lanes = strips * width * lanes
    # `open_block` with all taps; a region with fewer taps on one axis may take more on another, never more in all.
    most_taps = min(int(params[KW]), BLOCK_TERMS)
    most_lines = min(BLOCK_TERMS, int(params[KD] * params[KH]))
    most_both = min(BLOCK_TERMS, most_taps * most_lines)
    terms = min(BLOCK_TERMS, int(params[GROUP_IN]) * most_both)
    parts = (
        (None, STATE_FIELDS * 8),
        (PANEL, terms * block_lanes * size),
        (SUMS, 3 * strips * int(params[CHUNK_BLOCKS]) * rows * width * lanes * size),
        (ROW_TABLE, most_lines * block_lanes * 8),
        (COLUMN_TABLE, most_taps * block_lanes * 8),
        (ENTRIES, most_both * strips * width * ENTRY_FIELDS * 8),
        (TAP_OFFSETS, most_both * 8),
        (RUNS, strips * (1 + 3 * (width * lanes // unit)) * 8),
    )
    offset = 0
    for field, needed in parts:
        if field is not None:
            params[field] = offset
        offset += -(-needed // ALIGNMENT) * ALIGNMENT
    return offset
