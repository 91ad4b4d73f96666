"""Sums of a task of `fastdil.kernels.gemm`: adding blocks of the reduction, the way of finished tiles to the result."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.gemm_tasks import (
    FIRST_BLOCK,
    GROUP,
    LAST_BLOCK,
    MERGE_BLOCKS,
    R_D,
    R_DEPTH,
    R_H,
    R_HEIGHT,
    R_W,
    R_WIDTH,
    SAMPLE,
    VECTORS,
)
from fastdil.kernels.geometry import GROUP_OUT, GROUPS, OH, OUT_PIXELS, OW
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.store import neighbouring_strips, store_strips, store_tile
from fastdil.kernels.totals import merge_tile, settle_tile

#: Strips whose rows are stored together. Alone, a strip's row shares its first and last cache line with other strips',
#: which must come from memory twice where rows of the result are a power of two apart and push each other out.
STORE_STRIPS = 4


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
def plan_sums(state, tile_bytes, done, is_last):
    """How a block of the reduction is added, after `done` others.

    Whether it is added to a tile that was begun, whether that tile is then merged into its total, the bytes from tile
    to tile, and where in these the result is.
    """
    merge_blocks = load_i64(state, MERGE_BLOCKS)
    if merge_blocks == 0:
        return done, False, tile_bytes, 0
    # In a long reduction each tile is followed by its total and by the errors of that.
    return done % merge_blocks, is_last or (done + 1) % merge_blocks == 0, 3 * tile_bytes, tile_bytes


@helper
def merge_sums(kind, lanes, state, tile, tile_bytes, vectors, done, is_last):
    """Add a tile to its total, which is the result after the last block."""
    total = tile + tile_bytes
    merge_tile(kind, lanes, tile, total, total + tile_bytes, vectors, done // load_i64(state, MERGE_BLOCKS))
    if is_last:
        settle_tile(kind, lanes, total, total + tile_bytes, vectors)


@helper
def store_sums(
    kind,
    lanes,
    rows,
    width,
    size,
    unit,
    params,
    state,
    sums,
    runs,
    first_strip,
    last_strip,
    tile_step,
    result,
    bias,
    out,
):
    """Bias, activation and store of the finished tiles of some strips."""
    record = (1 + 3 * (width * lanes // unit)) * 8
    first_block, last_block = load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK)
    blocks, vectors = last_block - first_block, load_i64(state, VECTORS)
    group_out, pixel_bytes = load_i64(params, GROUP_OUT), load_i64(params, OUT_PIXELS) * unit * size
    sample_channel = load_i64(state, SAMPLE) * load_i64(params, GROUPS) * group_out
    for block in range(blocks):
        first = (first_block + block) * (rows // unit)
        channel = load_i64(state, GROUP) * group_out + first
        target, outputs = out + (sample_channel + channel) * pixel_bytes, min(rows // unit, group_out - first)
        strip = first_strip
        while strip < last_strip:
            run, tile = runs + strip * record, sums + (strip * blocks + block) * tile_step + result
            whole = neighbouring_strips(runs, record, strip, last_strip, width * lanes) if unit == 1 else 0
            if whole > 0:
                store_strips(
                    kind, lanes, width, size, params, tile, blocks * tile_step, whole, outputs, channel, bias,
                    target + load_i64(run, 3) * size,
                )  # fmt: skip
            else:
                store_tile(
                    kind, lanes, size, unit, params, tile, min(width, vectors - strip * width) * lanes * size, outputs,
                    channel, bias, target, run,
                )  # fmt: skip
            strip += max(whole, 1)
