"""How `fastdil.kernels.amx` cuts the reduction, and how its scratch memory is laid out; the rest is `gemm_tasks`."""

from __future__ import annotations

import numpy as np

from fastdil.jit import helper
from fastdil.kernels.copies import ENTRY_FIELDS
from fastdil.kernels.gemm_tasks import (
    BLOCK_PIXELS,
    CHANNELS_AT_ONCE,
    CHUNK_BLOCKS,
    COLUMN_TABLE,
    ENTRIES,
    KERNEL_TAPS,
    LINES,
    LINES_AT_ONCE,
    MERGE_BLOCKS,
    PANEL,
    PARTS,
    PLAIN_CHAINS,
    R_W_HI,
    R_W_LO,
    ROW_TABLE,
    RUNS,
    SPLIT,
    STATE_FIELDS,
    SUMS,
    TAP_TABLE,
    TAPS_AT_ONCE,
    TILES,
)
from fastdil.kernels.geometry import GROUP_IN, KD, KH, KW, lanes_of
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.tile_unit import BLOCK, STEP_TERMS, TILE_BYTES, UNIT_BYTES
from fastdil.workspace import lay_out

#: Steps of one block of the reduction, times parts: 32 pixels of them take 36 KiB and stay in an L1 of 48 KiB. With
#: three parts a block is 6 sums of 32 large products, and as many of each kind of small ones (`docs/amx.md`).
BLOCK_STEPS = 18
#: Bytes of the sums of a block of outputs by pixels.
SUM_BYTES = BLOCK * BLOCK * 4
#: Bytes of one step of one part: two tiles.
STEP_BYTES = 2 * TILE_BYTES
#: Where the unit's memory is followed by sums that are to be added to others, and by what was seen of the samples.
SPARE, EXTENT = UNIT_BYTES, UNIT_BYTES + SUM_BYTES
_TILES_BYTES = EXTENT + 128


def channel_steps(channels: int, taps: int, parts: int) -> int:
    """Steps of the channels of one block: as few blocks as leave room for all taps, of equal size."""
    steps = -(-channels // STEP_TERMS)
    most = max(BLOCK_STEPS // parts // taps, 1)
    return -(-steps // -(-steps // most))


@helper
def cut_terms(params, region, state):
    """How many taps and channels of a region make one block."""
    parts, group_in, kernel_taps = load_i64(params, PARTS), load_i64(params, GROUP_IN), load_i64(params, KERNEL_TAPS)
    steps = (group_in + STEP_TERMS - 1) // STEP_TERMS
    most = max(BLOCK_STEPS // parts // kernel_taps, 1)
    blocks = (steps + most - 1) // most
    steps = (steps + blocks - 1) // blocks
    most_taps = BLOCK_STEPS // parts // steps
    taps_at_once = min(load_i64(region, R_W_HI) - load_i64(region, R_W_LO), most_taps)
    store_i64(state, CHANNELS_AT_ONCE, steps * STEP_TERMS)
    store_i64(state, TAPS_AT_ONCE, taps_at_once)
    store_i64(state, LINES_AT_ONCE, min(most_taps // taps_at_once, load_i64(state, LINES)))
    # Blocks that the whole kernel takes at most.
    width_blocks = (load_i64(params, KW) + most_taps - 1) // most_taps
    line_blocks = load_i64(params, KD) * load_i64(params, KH) * width_blocks
    store_i64(state, MERGE_BLOCKS, PLAIN_CHAINS if line_blocks * blocks > PLAIN_CHAINS else 0)


def scratch_layout(params: np.ndarray, vector_bytes: int) -> int:
    """Write the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    lanes, taps, parts = lanes_of("f32", vector_bytes), int(params[KERNEL_TAPS]), int(params[PARTS])
    pixels = -(-int(params[BLOCK_PIXELS]) // BLOCK) * BLOCK
    strips, steps = pixels // BLOCK, channel_steps(int(params[GROUP_IN]), taps, parts)
    block_taps = min(taps, BLOCK_STEPS // parts // steps)
    lines = min(int(params[KD] * params[KH]), block_taps)
    columns = min(int(params[KW]), block_taps)
    most_taps = min(lines * columns, BLOCK_STEPS // parts // steps)
    return lay_out(
        params,
        (
            (None, STATE_FIELDS * 8),
            (PANEL, most_taps * STEP_TERMS * pixels * 4),
            (SPLIT, most_taps * steps * parts * STEP_BYTES * strips),
            (SUMS, 3 * strips * int(params[CHUNK_BLOCKS]) * SUM_BYTES),
            (TILES, _TILES_BYTES),
            (ROW_TABLE, lines * pixels * 8),
            (COLUMN_TABLE, columns * pixels * 8),
            (ENTRIES, most_taps * (pixels // lanes) * ENTRY_FIELDS * 8),
            (TAP_TABLE, most_taps * 8),
            (RUNS, strips * (1 + 3 * BLOCK) * 8),
        ),
    )
