"""The parameters of `fastdil.kernels.gemm`, what one task of it covers, and how its scratch memory is laid out."""

from __future__ import annotations

import numpy as np

from fastdil.jit import helper
from fastdil.kernels.geometry import GEOMETRY, GROUP_IN, GROUPS, KD, KH, KW, UNIT, lanes_of
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.places import ENTRY_FIELDS
from fastdil.kernels.tiles import tile_shape
from fastdil.workspace import lay_out

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
    CHUNK_BLOCKS,  # most weight blocks per task
    GROUP_BLOCKS,  # weight blocks per group
    BLOCK_PIXELS,  # most pixels per task
    KERNEL_TAPS,  # taps of the whole kernel
    PANEL,
    SUMS,
    ROW_TABLE,
    COLUMN_TABLE,
    ENTRIES,
    TAP_TABLE,
    RUNS,  # byte offsets of the parts of the scratch memory
) = range(GEOMETRY, GEOMETRY + 12)
FIELDS = 12

#: One region: first task, first output per axis, outputs per axis, blocks, weight blocks per task, taps per axis as
#: [lo, hi).
(
    R_TASK, R_D, R_H, R_W, R_DEPTH, R_HEIGHT, R_WIDTH, R_BLOCKS, R_CHUNK_BLOCKS, R_D_LO, R_D_HI, R_H_LO, R_H_HI, R_W_LO,
    R_W_HI,
) = range(15)  # fmt: skip
REGION_FIELDS = 15

#: What `open_block` works out for a task, at the start of the worker's scratch memory.
(
    FIRST_PIXEL, PIXELS, STRIPS, VECTORS, GROUP, SAMPLE, FIRST_BLOCK, LAST_BLOCK, LINES, LINES_AT_ONCE, TAPS_AT_ONCE,
    CHANNELS_AT_ONCE, PART, CHAIN_TAPS, MERGE_BLOCKS,
) = range(15)  # fmt: skip
STATE_FIELDS = 15


def part_size(channels: int) -> int:
    """Channels of one part of a group, as `open_block` cuts it: equal parts that fit a chain, but for the last."""
    channels = max(channels, 1)
    return -(-channels // -(-channels // CHAIN_TERMS))


def block_shape(channels: int, taps: int) -> tuple[int, int]:
    """Taps and parts of the channels of one block of the reduction of a signal, as `open_block` cuts it."""
    part = part_size(channels)
    most_taps = BLOCK_TERMS // part
    return min(taps, most_taps), min(most_taps // min(taps, most_taps), -(-channels // part))


@helper
def find_region(first, fields, regions, task):
    """Address of the one of so many records of `fields` integers, by first task, that holds a task."""
    index = regions - 1
    while load_i64(first, index * fields + R_TASK) > task:
        index -= 1
    return first + index * fields * 8


@helper
def region_of(params, task):
    """Address of the region that holds a task."""
    return find_region(params + (GEOMETRY + FIELDS) * 8, REGION_FIELDS, load_i64(params, REGIONS), task)


@helper
def open_outputs(params, region, state, task):
    """Which sample, which group, which blocks of output rows a task is about; returns which pixels of the region."""
    blocks, chunk_blocks = load_i64(region, R_BLOCKS), load_i64(region, R_CHUNK_BLOCKS)
    groups, group_blocks = load_i64(params, GROUPS), load_i64(params, GROUP_BLOCKS)
    number = task - load_i64(region, R_TASK)
    chunks, rest = (group_blocks + chunk_blocks - 1) // chunk_blocks, number // blocks
    first_block, rest = rest % chunks * chunk_blocks, rest // chunks
    store_i64(state, GROUP, rest % groups)
    store_i64(state, SAMPLE, rest // groups)
    store_i64(state, FIRST_BLOCK, first_block)
    store_i64(state, LAST_BLOCK, min(first_block + chunk_blocks, group_blocks))
    return number % blocks


@helper
def open_task(params, region, state, task, strip_pixels, lanes, unit):
    """Decode a task: which pixels of which sample, which group, which blocks of output rows, how many lines of taps."""
    block_pixels = load_i64(params, BLOCK_PIXELS)
    first_pixel = open_outputs(params, region, state, task) * block_pixels
    pixels = load_i64(region, R_DEPTH) * load_i64(region, R_HEIGHT) * load_i64(region, R_WIDTH) - first_pixel
    pixels = min(pixels, block_pixels)
    store_i64(state, FIRST_PIXEL, first_pixel)
    store_i64(state, PIXELS, pixels)
    store_i64(state, STRIPS, (pixels + strip_pixels - 1) // strip_pixels)
    store_i64(state, VECTORS, (pixels * unit + lanes - 1) // lanes)
    lines = (load_i64(region, R_D_HI) - load_i64(region, R_D_LO)) * (
        load_i64(region, R_H_HI) - load_i64(region, R_H_LO)
    )
    store_i64(state, LINES, lines)


@helper
def open_block(params, region, state, task, strip_pixels, lanes, unit):
    """Decode a task, and how to cut its terms."""
    open_task(params, region, state, task, strip_pixels, lanes, unit)
    lines, width_taps = load_i64(state, LINES), load_i64(region, R_W_HI) - load_i64(region, R_W_LO)
    group_in = load_i64(params, GROUP_IN)
    # A chain runs over a part of the channels of one tap, or over all of them and several taps where they are few.
    parts = (group_in + CHAIN_TERMS - 1) // CHAIN_TERMS
    part = (group_in + parts - 1) // parts
    most_taps, kernel_taps = BLOCK_TERMS // part, load_i64(params, KERNEL_TAPS)
    taps_at_once = min(width_taps, most_taps)
    lines_at_once = min(most_taps // taps_at_once, lines)
    # Small kernels leave room for several parts. This and the next count all taps of the kernel, so that sums do not
    # depend on which of them a region leaves out.
    parts_at_once = min(most_taps // min(kernel_taps, most_taps), parts)
    store_i64(state, PART, part)
    store_i64(state, LINES_AT_ONCE, lines_at_once)
    store_i64(state, TAPS_AT_ONCE, taps_at_once)
    store_i64(state, CHANNELS_AT_ONCE, min(part * parts_at_once, group_in))
    # Blocks whose chains may be added plainly before they are merged; 0 if that holds for all of them together.
    chain_taps = CHAIN_TERMS // part
    store_i64(state, CHAIN_TAPS, chain_taps)
    block_taps = lines_at_once * min(load_i64(params, KW), most_taps)
    block_chains = (block_taps + chain_taps - 1) // chain_taps * parts_at_once
    is_long = kernel_taps * group_in > PLAIN_CHAINS * CHAIN_TERMS
    store_i64(state, MERGE_BLOCKS, max(PLAIN_CHAINS // block_chains, 1) if is_long else 0)


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
        (TAP_TABLE, most_both * 8),
        (RUNS, strips * (1 + 3 * (width * lanes // unit)) * 8),
    )
    return lay_out(params, parts)
