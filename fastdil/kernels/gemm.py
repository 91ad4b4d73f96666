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
from fastdil.kernels.gemm_samples import classify_block, fill_tables, fill_tap_table, pack_panel
from fastdil.kernels.gemm_sums import STORE_STRIPS, fill_runs, merge_sums, plan_sums, store_sums
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
    PANEL,
    PART,
    PIXELS,
    R_W_HI,
    R_W_LO,
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
from fastdil.kernels.geometry import GROUP_IN, XC, XN, lanes_of
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.tiles import gemm_tile, tile_shape


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
    tile_bytes = rows * line
    panel, sums = scratch + load_i64(params, PANEL), scratch + load_i64(params, SUMS)
    tap_table = scratch + load_i64(params, TAP_TABLE)
    first_block, last_block = load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK)
    blocks, strips, vectors = last_block - first_block, load_i64(state, STRIPS), load_i64(state, VECTORS)
    parts = (channels + load_i64(state, PART) - 1) // load_i64(state, PART)
    tap_groups = (taps + load_i64(state, CHAIN_TAPS) - 1) // load_i64(state, CHAIN_TAPS)
    resume, merges, tile_step, result = plan_sums(state, tile_bytes, done, is_last)
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
                    merge_sums(kind, lanes, state, tile, tile_bytes, rows * used, done, is_last)
        if is_last:
            store_sums(
                kind, lanes, rows, width, size, unit, params, state, sums, scratch + load_i64(params, RUNS),
                first_strip, last_strip, tile_step, result, bias, out,
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
