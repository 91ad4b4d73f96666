"""The parameters of `fastdil.kernels.amx`, what one task of it covers, and how its scratch memory is laid out.

Samples, groups and blocks of outputs are counted as in `fastdil.kernels.gemm_tasks`. A task computes a *slab* of the
outputs of a region, one *box* after another along one axis. The samples that a box reads are split once for all taps,
into a *window*; those that the box before has read too are moved within it.
"""

from __future__ import annotations

import numpy as np

from fastdil.jit import helper
from fastdil.kernels import gemm_tasks
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
    R_H_HI,
    R_H_LO,
    R_HEIGHT,
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
from fastdil.kernels.geometry import DD, GEOMETRY, GROUP_IN, SD
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.places import ENTRY_FIELDS
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
    SLAB_AXIS,  # along which the boxes of a slab follow each other
    BOX,  # the record of `open_slab`
    WINDOW,
    SPLIT,  # the samples of one strip, side by side
    TILES,  # memory of the unit
    PLACES,  # bytes from the begin of the window to each pixel of the box, or to its tiles
    OFFSETS,  # from there to the samples of each tap
    PANEL_OFFSETS,  # the same within `SPLIT`
) = range(GEOMETRY + gemm_tasks.FIELDS, GEOMETRY + gemm_tasks.FIELDS + 16)
FIELDS = gemm_tasks.FIELDS + 16

#: A region as in `gemm_tasks`, the outputs per axis of its slabs, and of a slab's boxes along its axis.
R_SLAB_D, R_SLAB_H, R_SLAB_W, R_BOX = range(gemm_tasks.REGION_FIELDS, gemm_tasks.REGION_FIELDS + 4)
REGION_FIELDS = gemm_tasks.REGION_FIELDS + 4

#: A box as a region, and its window: places from tap to tap and places in all, per axis, and bytes of one part of
#: one step; along the axis of the slab the slab's first output, its outputs, and those of one box.
(
    B_STEP_D, B_STEP_H, B_STEP_W, B_PLACES_D, B_PLACES_H, B_PLACES_W, B_PART_BYTES, B_SLAB_FIRST, B_SLAB_OUTPUTS,
    B_BOX_OUTPUTS,
) = range(gemm_tasks.REGION_FIELDS, gemm_tasks.REGION_FIELDS + 10)  # fmt: skip
BOX_FIELDS = gemm_tasks.REGION_FIELDS + 10


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
def places_of(box):
    """Places of a box's window."""
    return load_i64(box, B_PLACES_D) * load_i64(box, B_PLACES_H) * load_i64(box, B_PLACES_W)


@helper
def open_axis(params, region, box, axis, number):
    """One axis of `open_slab`: the slab number `number`."""
    size = load_i64(region, R_SLAB_D + axis)
    begin = number * size
    count, lo, hi = min(size, load_i64(region, R_DEPTH + axis) - begin), R_D_LO + 2 * axis, R_D_HI + 2 * axis
    store_i64(box, R_D + axis, load_i64(region, R_D + axis) + begin)
    store_i64(box, R_DEPTH + axis, count)
    store_i64(box, lo, load_i64(region, lo))
    store_i64(box, hi, load_i64(region, hi))
    if axis == load_i64(params, SLAB_AXIS):
        store_i64(box, B_SLAB_FIRST, load_i64(box, R_D + axis))
        store_i64(box, B_SLAB_OUTPUTS, count)
        count = min(count, load_i64(region, R_BOX))
        store_i64(box, B_BOX_OUTPUTS, count)
    between = window_step(count, load_i64(params, SD + axis), load_i64(params, DD + axis))
    store_i64(box, B_STEP_D + axis, between)
    store_i64(box, B_PLACES_D + axis, (load_i64(box, hi) - load_i64(box, lo) - 1) * between + count)


@helper
def open_slab(params, state, scratch, task):
    """Decode a task: its region, narrowed to a slab of outputs; returns the address of the record for its boxes."""
    region = find_region(params + (GEOMETRY + FIELDS) * 8, REGION_FIELDS, load_i64(params, REGIONS), task)
    box, number = scratch + load_i64(params, BOX), open_outputs(params, region, state, task)
    for axis in range(2, -1, -1):
        size = load_i64(region, R_SLAB_D + axis)
        slabs = (load_i64(region, R_DEPTH + axis) + size - 1) // size
        open_axis(params, region, box, axis, number % slabs)
        number //= slabs
    store_i64(box, B_PART_BYTES, window_bytes(places_of(box)))
    lines = (load_i64(box, R_D_HI) - load_i64(box, R_D_LO)) * (load_i64(box, R_H_HI) - load_i64(box, R_H_LO))
    store_i64(state, LINES, lines)
    return box


@helper
def boxes_of(box):
    """How many boxes a slab has."""
    return (load_i64(box, B_SLAB_OUTPUTS) + load_i64(box, B_BOX_OUTPUTS) - 1) // load_i64(box, B_BOX_OUTPUTS)


@helper
def open_box(params, state, box, number):
    """Narrow a slab to the box number `number`; returns how many places of its window the box before has, too."""
    axis, size = load_i64(params, SLAB_AXIS), load_i64(box, B_BOX_OUTPUTS)
    count = min(size, load_i64(box, B_SLAB_OUTPUTS) - number * size)
    taps = load_i64(box, R_D_HI + 2 * axis) - load_i64(box, R_D_LO + 2 * axis)
    shared = (taps - 1) * load_i64(box, B_STEP_D + axis)
    store_i64(box, R_D + axis, load_i64(box, B_SLAB_FIRST) + number * size)
    store_i64(box, R_DEPTH + axis, count)
    store_i64(box, B_PLACES_D + axis, shared + count)
    depth, height, width = load_i64(box, R_DEPTH), load_i64(box, R_HEIGHT), load_i64(box, R_WIDTH)
    pixels = depth * height * width
    strips = (pixels + BLOCK - 1) // BLOCK
    if load_i64(params, IS_DIRECT) != 0:
        tiles, _ = tiles_of(depth, height, width, load_i64(box, B_PLACES_H), load_i64(box, B_PLACES_W))
        strips = (tiles + 1) // 2
    store_i64(state, PIXELS, pixels)
    store_i64(state, STRIPS, strips)
    store_i64(state, VECTORS, strips * WIDTH)
    if number == 0:
        return 0
    for inner in range(axis + 1, 3):
        shared *= load_i64(box, B_PLACES_D + inner)
    return shared


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
