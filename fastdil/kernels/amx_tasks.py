"""The parameters of `fastdil.kernels.amx`, what one task of it covers, and how its scratch memory is laid out.

Samples, groups and blocks of outputs are counted as in `fastdil.kernels.gemm_tasks`. A task computes a *box* of the
outputs of a region; the samples that the box reads are split once for all taps, into a *window*.
"""

from __future__ import annotations

import numpy as np

from fastdil.jit import helper
from fastdil.kernels import gemm_tasks
from fastdil.kernels.copies import ENTRY_FIELDS
from fastdil.kernels.gemm_tasks import (
    CHANNELS_AT_ONCE,
    CHUNK_BLOCKS,
    COLUMN_TABLE,
    ENTRIES,
    KERNEL_TAPS,
    LINES,
    LINES_AT_ONCE,
    MERGE_BLOCKS,
    PANEL,
    PIXELS,
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
    REGIONS,
    ROW_TABLE,
    RUNS,
    STATE_FIELDS,
    STRIPS,
    SUMS,
    TAP_TABLE,
    TAPS_AT_ONCE,
    VECTORS,
    find_region,
    open_outputs,
)
from fastdil.kernels.geometry import DD, DH, DW, GEOMETRY, GROUP_IN, SD, SH, SW
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.tile_unit import BLOCK, ROW_BYTES, STEP_TERMS, TILE_BYTES, TILE_ROWS, UNIT_BYTES
from fastdil.workspace import lay_out

#: Bytes of the sums of a block of outputs by pixels.
SUM_BYTES = BLOCK * BLOCK * 4
#: Bytes of one step of one part: two tiles.
STEP_BYTES = 2 * TILE_BYTES
#: Where the unit's memory is followed by sums that are to be added to others, and by what was seen of the samples.
SPARE, EXTENT = UNIT_BYTES, UNIT_BYTES + SUM_BYTES
_TILES_BYTES = EXTENT + 128
#: Numbers of a vector, vectors of a row of a strip, and strips of the window that are looked up and fetched together.
LANES = 16
WIDTH = BLOCK // LANES
CHUNK_STRIPS = 8

#: This kernel's own parameters, after those of `gemm_tasks`; most are byte offsets of parts of the scratch memory.
(
    PARTS,  # into which a number is split
    BLOCK_STEPS,  # most steps of one block of the reduction
    IS_DIRECT,  # whether tiles are loaded from the window
    IS_CHAINED,  # whether blocks of the reduction go on from the sums of the ones before
    MERGE_EVERY,  # so many blocks are added plainly before they are merged, rounding errors kept; 0: all are
    TOTALS,  # tiles that a sum takes
    WINDOW_STEPS,  # steps of the channels that the window holds
    KEPT_STRIPS,  # strips whose sums are kept and then stored together: all of a box, or some of a single block
    BOX,  # the record of `open_box`
    WINDOW,
    SPLIT,  # the samples of one strip, side by side
    TILES,  # memory of the unit
    PLACES,  # bytes from the begin of the window to each pixel of the box, or to its tiles
    OFFSETS,  # from there to the samples of each tap
    PANEL_OFFSETS,  # the same within `SPLIT`
) = range(GEOMETRY + gemm_tasks.FIELDS, GEOMETRY + gemm_tasks.FIELDS + 15)
FIELDS = gemm_tasks.FIELDS + 15

#: A region as in `gemm_tasks`, and the outputs per axis of its boxes.
R_BOX_D, R_BOX_H, R_BOX_W = range(gemm_tasks.REGION_FIELDS, gemm_tasks.REGION_FIELDS + 3)
REGION_FIELDS = gemm_tasks.REGION_FIELDS + 3

#: A box as a region, and its window: places from tap to tap and places in all, per axis, and bytes of one part of
#: one step.
(
    B_STEP_D, B_STEP_H, B_STEP_W, B_PLACES_D, B_PLACES_H, B_PLACES_W, B_PART_BYTES,
) = range(gemm_tasks.REGION_FIELDS, gemm_tasks.REGION_FIELDS + 7)  # fmt: skip
BOX_FIELDS = gemm_tasks.REGION_FIELDS + 7


@helper
def window_step(outputs, stride, dilation):
    """Places from one tap's samples to the next one's, on one axis: they overlap, or lie behind each other."""
    return outputs if stride > 1 else min(outputs, dilation)


@helper
def window_bytes(places):
    """Bytes of one part of one step at so many places: whole strips, and a tile that begins at the last place."""
    return ((places + BLOCK - 1) // BLOCK * BLOCK + TILE_ROWS) * ROW_BYTES


@helper
def tiles_of(depth, height, width, places_height, places_width):
    """How many tiles of 16 neighbouring places a box of outputs takes, and whether all its places are cut into them.

    Otherwise each line begins with a tile of its own.
    """
    by_lines = depth * height * ((width + TILE_ROWS - 1) // TILE_ROWS)
    last = ((depth - 1) * places_height + height - 1) * places_width + width
    in_all = (last + TILE_ROWS - 1) // TILE_ROWS
    return min(by_lines, in_all), in_all < by_lines


@helper
def open_axis(params, region, box, first, outputs, lo, hi, size, number, stride, dilation, step, places):
    """One axis of `open_box`: the box number `number` of those of `size` outputs. Arguments are fields."""
    begin = number * size
    count, taps = min(size, load_i64(region, outputs) - begin), load_i64(region, hi) - load_i64(region, lo)
    store_i64(box, first, load_i64(region, first) + begin)
    store_i64(box, outputs, count)
    store_i64(box, lo, load_i64(region, lo))
    store_i64(box, hi, load_i64(region, hi))
    between = window_step(count, load_i64(params, stride), load_i64(params, dilation))
    store_i64(box, step, between)
    store_i64(box, places, (taps - 1) * between + count)


@helper
def open_box(params, state, scratch, task):
    """Decode a task: its region, narrowed to a box of outputs, and the window of that; returns the box's address."""
    region = find_region(params + (GEOMETRY + FIELDS) * 8, REGION_FIELDS, load_i64(params, REGIONS), task)
    box, number = scratch + load_i64(params, BOX), open_outputs(params, region, state, task)
    height, width = load_i64(region, R_BOX_H), load_i64(region, R_BOX_W)
    across = (load_i64(region, R_WIDTH) + width - 1) // width
    down = (load_i64(region, R_HEIGHT) + height - 1) // height
    open_axis(
        params, region, box, R_W, R_WIDTH, R_W_LO, R_W_HI, width, number % across, SW, DW, B_STEP_W, B_PLACES_W
    )  # fmt: skip
    number //= across
    open_axis(
        params, region, box, R_H, R_HEIGHT, R_H_LO, R_H_HI, height, number % down, SH, DH, B_STEP_H, B_PLACES_H
    )  # fmt: skip
    open_axis(
        params, region, box, R_D, R_DEPTH, R_D_LO, R_D_HI, load_i64(region, R_BOX_D), number // down, SD, DD, B_STEP_D,
        B_PLACES_D,
    )  # fmt: skip
    places = load_i64(box, B_PLACES_D) * load_i64(box, B_PLACES_H) * load_i64(box, B_PLACES_W)
    store_i64(box, B_PART_BYTES, window_bytes(places))
    depth, height, width = load_i64(box, R_DEPTH), load_i64(box, R_HEIGHT), load_i64(box, R_WIDTH)
    pixels = depth * height * width
    strips = (pixels + BLOCK - 1) // BLOCK
    if load_i64(params, IS_DIRECT) != 0:
        tiles, _ = tiles_of(depth, height, width, load_i64(box, B_PLACES_H), load_i64(box, B_PLACES_W))
        strips = (tiles + 1) // 2
    store_i64(state, PIXELS, pixels)
    store_i64(state, STRIPS, strips)
    store_i64(state, VECTORS, strips * WIDTH)
    lines = (load_i64(box, R_D_HI) - load_i64(box, R_D_LO)) * (load_i64(box, R_H_HI) - load_i64(box, R_H_LO))
    store_i64(state, LINES, lines)
    return box


@helper
def channel_steps(channels, taps, block_steps):
    """Steps of the channels of one block of the reduction, of at most `block_steps` steps of the taps of them.

    As few blocks as leave room for all taps, of equal size.
    """
    steps = (channels + STEP_TERMS - 1) // STEP_TERMS
    most = max(block_steps // taps, 1)
    blocks = (steps + most - 1) // most
    return (steps + blocks - 1) // blocks


@helper
def cut_terms(params, box, state):
    """How many taps and channels make one block of the reduction."""
    block_steps = load_i64(params, BLOCK_STEPS)
    steps = channel_steps(load_i64(params, GROUP_IN), load_i64(params, KERNEL_TAPS), block_steps)
    most_taps = block_steps // steps
    taps_at_once = min(load_i64(box, R_W_HI) - load_i64(box, R_W_LO), most_taps)
    store_i64(state, CHANNELS_AT_ONCE, steps * STEP_TERMS)
    store_i64(state, TAPS_AT_ONCE, taps_at_once)
    store_i64(state, LINES_AT_ONCE, min(most_taps // taps_at_once, load_i64(state, LINES)))
    store_i64(state, MERGE_BLOCKS, load_i64(params, MERGE_EVERY))


def scratch_layout(params: np.ndarray, strips: int, places: int) -> int:
    """Write the byte offsets of the scratch memory's parts into `params`; returns its size per worker.

    `strips` and `places` are the most of any box and its window.
    """
    parts, most_taps = int(params[PARTS]), int(min(params[KERNEL_TAPS], params[BLOCK_STEPS]))
    chunk = CHUNK_STRIPS * BLOCK
    return lay_out(
        params,
        (
            (None, STATE_FIELDS * 8),
            (BOX, BOX_FIELDS * 8),
            (PANEL, chunk * STEP_TERMS * 4),
            (WINDOW, int(params[WINDOW_STEPS]) * parts * window_bytes(places)),
            (SPLIT, int(params[BLOCK_STEPS]) * parts * STEP_BYTES),
            (SUMS, int(params[TOTALS] * params[KEPT_STRIPS] * params[CHUNK_BLOCKS]) * SUM_BYTES),
            (TILES, _TILES_BYTES),
            (ROW_TABLE, chunk * 8),
            (COLUMN_TABLE, chunk * 8),
            (ENTRIES, CHUNK_STRIPS * WIDTH * ENTRY_FIELDS * 8),
            (PLACES, strips * BLOCK * 8),
            (TAP_TABLE, most_taps * 8),
            (OFFSETS, most_taps * 8),
            (PANEL_OFFSETS, most_taps * 8),
            (RUNS, strips * (1 + 3 * BLOCK) * 8),
        ),
    )
