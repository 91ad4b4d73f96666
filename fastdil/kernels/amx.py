"""Matrix products on the tile unit: the compiled part of the method `amx`.

Tasks, regions and the way of samples and sums are those of `fastdil.kernels.gemm`. Between them, every panel of float32
samples is split into one, two or three bfloat16 parts, which lie as the tile unit reads them, strip by strip of 32
pixels; weights were split once, when they were packed. A block of the reduction is summed in the unit's registers, from
zero, and then added to the sums in memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.amx_tasks import EXTENT, SPARE, STEP_BYTES, SUM_BYTES, cut_terms
from fastdil.kernels.copies import copy_vectors, fill_zeros
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.gemm_samples import classify_block, fill_tables, fill_tap_table, pack_panel
from fastdil.kernels.gemm_sums import STORE_STRIPS, fill_runs, merge_sums, plan_sums, store_sums
from fastdil.kernels.gemm_tasks import (
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
    PARTS,
    PIXELS,
    R_W_HI,
    R_W_LO,
    RUNS,
    SAMPLE,
    SPLIT,
    STRIPS,
    SUMS,
    TAP_TABLE,
    TAPS_AT_ONCE,
    TILES,
    VECTORS,
    open_task,
    region_of,
)
from fastdil.kernels.geometry import GROUP_IN, XC, XN, lanes_of
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.tile_unit import (
    BLOCK,
    ROW_BYTES,
    STEP_TERMS,
    TILE_ROWS,
    clear_extent,
    close_tiles,
    multiply_tiles,
    open_tiles,
    split_lines,
    write_extent,
)
from fastdil.kernels.totals import add_vectors

#: What the `w` argument points to: packed weights, and what tasks report of their samples (`write_extent`).
W_PACKED, W_REPORT = range(2)
REPORT_BYTES = 8

#: Parameters of the weight packer: output channels and input channels per group, taps, blocks of outputs per group,
#: steps of the channels that are packed together, parts of a number.
P_OUTPUTS, P_CHANNELS, P_TAPS, P_BLOCKS, P_STEPS, P_PARTS = range(6)
#: Scratch memory of the packer: one step of weights, and what was seen of them.
_STAGED = STEP_TERMS * BLOCK * 4
PACKER_SCRATCH = _STAGED + 128


@helper
def split_step(parts, source, count, target, extent):
    """`split_lines`, for a number of parts that is not known at compile time."""
    if parts == 1:
        split_lines(1, source, count, target, extent)
    elif parts == 2:
        split_lines(2, source, count, target, extent)
    else:
        split_lines(3, source, count, target, extent)


@helper
def multiply_block(unit, parts, memory, weights, tap_table, taps, steps, samples, target):
    """`multiply_tiles`, for a number of parts that is not known at compile time: one kernel serves all precisions."""
    if parts == 1:
        multiply_tiles(unit, 1, memory, weights, tap_table, taps, steps, samples, target)
    elif parts == 2:
        multiply_tiles(unit, 2, memory, weights, tap_table, taps, steps, samples, target)
    else:
        multiply_tiles(unit, 3, memory, weights, tap_table, taps, steps, samples, target)


@helper
def split_panel(params, state, scratch, taps, channels, step, steps):
    """Split the packed samples of up to 32 channels: step number `step` of the `steps` of each tap."""
    panel, target, parts = scratch + load_i64(params, PANEL), scratch + load_i64(params, SPLIT), load_i64(params, PARTS)
    extent = scratch + load_i64(params, TILES) + EXTENT
    for index in range(load_i64(state, STRIPS) * taps):
        source = panel + index * channels * BLOCK * 4
        split_step(parts, source, channels, target + (index * steps + step) * parts * STEP_BYTES, extent)


@helper
def multiply_panel(unit, lanes, width, params, state, scratch, weights, bias, out, taps, steps, done, is_last):
    """Multiply the split panel with all outputs of the task; store them if this was the last block of the reduction.

    `done` blocks of it came before. `weights` are those of the block's channels.
    """
    tap_table, tiles = scratch + load_i64(params, TAP_TABLE), scratch + load_i64(params, TILES)
    sums, samples = scratch + load_i64(params, SUMS), scratch + load_i64(params, SPLIT)
    first_block, blocks = load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK) - load_i64(state, FIRST_BLOCK)
    parts, vectors = load_i64(params, PARTS), BLOCK * width
    step_bytes = parts * STEP_BYTES
    block_bytes = load_i64(params, KERNEL_TAPS) * steps * step_bytes
    resume, merges, tile_step, result = plan_sums(state, SUM_BYTES, done, is_last)
    strips = load_i64(state, STRIPS)
    for first_strip in range(0, strips, STORE_STRIPS):
        last_strip = min(first_strip + STORE_STRIPS, strips)
        for strip in range(first_strip, last_strip):
            at_samples = samples + strip * taps * steps * step_bytes
            for block in range(blocks):
                tile = sums + (strip * blocks + block) * tile_step
                at_weights = weights + (first_block + block) * block_bytes
                target = tile if resume == 0 else tiles + SPARE
                multiply_block(unit, parts, tiles, at_weights, tap_table, taps, steps, at_samples, target)
                if resume != 0:
                    add_vectors("f32", lanes, tile, target, vectors)
                if merges:
                    merge_sums("f32", lanes, state, tile, SUM_BYTES, vectors, done, is_last)
        if is_last:
            store_sums(
                "f32", lanes, BLOCK, width, 4, 1, params, state, scratch, first_strip, last_strip, tile_step, result,
                bias, out,
            )  # fmt: skip


@helper
def open_block(lanes, width, params, region, state, scratch, task):
    """Decode a task and cut its terms; strips are whole, so that nothing is split that was not packed."""
    open_task(params, region, state, task, BLOCK, lanes, 1)
    store_i64(state, VECTORS, load_i64(state, STRIPS) * width)
    cut_terms(params, region, state)
    runs = scratch + load_i64(params, RUNS)
    fill_runs(params, region, runs, load_i64(state, FIRST_PIXEL), load_i64(state, PIXELS), BLOCK)


def _make_amx_kernel(unit: str, lanes: int, name: str) -> Any:
    stamp = jit.source_stamp()
    width = BLOCK // lanes

    def amx(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        region, state, tiles = region_of(params, task), scratch, scratch + load_i64(params, TILES)
        open_block(lanes, width, params, region, state, scratch, task)
        open_tiles(unit, tiles)
        clear_extent(tiles + EXTENT)
        first_pixel, pixels = load_i64(state, FIRST_PIXEL), load_i64(state, PIXELS)
        group_in, group, at_once = load_i64(params, GROUP_IN), load_i64(state, GROUP), load_i64(state, CHANNELS_AT_ONCE)
        # The weights of one step of the channels, all outputs and taps, and of a group.
        channel_bytes = load_i64(params, GROUP_BLOCKS) * load_i64(params, KERNEL_TAPS) * STEP_BYTES
        channel_bytes *= load_i64(params, PARTS)
        packed = load_i64(w, W_PACKED) + group * ((group_in + STEP_TERMS - 1) // STEP_TERMS) * channel_bytes
        lines, tap_end = load_i64(state, LINES), load_i64(region, R_W_HI)
        lines_at_once, taps_at_once = load_i64(state, LINES_AT_ONCE), load_i64(state, TAPS_AT_ONCE)
        sample = x + (load_i64(state, SAMPLE) * load_i64(params, XN) + group * group_in * load_i64(params, XC)) * 4
        done = np.int64(0)  # a literal would compile `multiply_panel` a second time
        for line in range(0, lines, lines_at_once):
            line_count = min(lines_at_once, lines - line)
            for tap in range(load_i64(region, R_W_LO), tap_end, taps_at_once):
                tap_count = min(taps_at_once, tap_end - tap)
                taps, lanes_all = line_count * tap_count, load_i64(state, VECTORS) * lanes
                fill_tables(params, region, scratch, first_pixel, pixels, lanes_all, line, line_count, tap, tap_count)
                fill_tap_table(params, region, scratch + load_i64(params, TAP_TABLE), line, line_count, tap, tap_count)
                classify_block(params, state, scratch, lanes, taps, tap_count)
                for channel in range(0, group_in, at_once):
                    end = min(channel + at_once, group_in)
                    steps = (end - channel + STEP_TERMS - 1) // STEP_TERMS
                    for step in range(steps):
                        first = channel + step * STEP_TERMS
                        channels = min(STEP_TERMS, end - first)
                        source = sample + first * load_i64(params, XC) * 4
                        pack_panel("f32", lanes, width, 4, params, state, scratch, source, taps, tap_count, channels)
                        split_panel(params, state, scratch, taps, channels, step, steps)
                    is_last = line + line_count == lines and tap + tap_count == tap_end and end == group_in
                    multiply_panel(
                        unit, lanes, width, params, state, scratch,
                        packed + channel // STEP_TERMS * channel_bytes, bias, out, taps, steps, done, is_last,
                    )  # fmt: skip
                    done += 1
        close_tiles(unit, tiles)
        write_extent(tiles + EXTENT, load_i64(w, W_REPORT) + task * REPORT_BYTES)

    return jit.callback(amx, name, KERNEL_ARGUMENTS)


@cache
def amx_kernel(unit: str, vector_bytes: int) -> Any:
    """The compiled kernel for the ``"native"`` or ``"emulated"`` unit and a vector width."""
    name = f"amx_f32_{BLOCK}x{BLOCK}_{unit}_{8 * vector_bytes}bit"
    return _make_amx_kernel(unit, lanes_of("f32", vector_bytes), name)


@helper
def stage_weights(scratch, source, outputs, channels, taps, row_step):
    """Up to 32 output by 32 input channels of one tap, as lines of samples would lie in a panel.

    A row of weights becomes a row of a tile as two neighbouring lines do: the even channels of output r stand in line
    2r, the odd ones in line 2r + 1, those of output ``16 + r`` behind them.
    """
    fill_zeros("f32", TILE_ROWS, scratch, _STAGED // ROW_BYTES)
    for output in range(outputs):
        at = scratch + output % TILE_ROWS * 2 * BLOCK * 4 + output // TILE_ROWS * ROW_BYTES
        for odd in range(2):
            copy_vectors(
                "f32", 1, at + odd * BLOCK * 4, 4, source + (output * row_step + odd * taps) * 4, 2 * taps * 4,
                (channels + 1 - odd) // 2, 1,
            )  # fmt: skip


def _make_weight_packer(name: str) -> Any:
    stamp = jit.source_stamp()

    def pack_amx_weights(params, x, w, bias, out, scratch, task):
        """Task = one block of outputs of one group: out[group][steps of channels][block][tap][step]; report at `x`."""
        stamp  # noqa: B018 - a closure cell in the cache key
        outputs, channels, taps = load_i64(params, P_OUTPUTS), load_i64(params, P_CHANNELS), load_i64(params, P_TAPS)
        blocks, at_once, parts = load_i64(params, P_BLOCKS), load_i64(params, P_STEPS), load_i64(params, P_PARTS)
        group, block = task // blocks, task % blocks
        all_steps, row_step, first = (channels + STEP_TERMS - 1) // STEP_TERMS, channels * taps, block * BLOCK
        source = w + (group * outputs + first) * row_step * 4
        clear_extent(scratch + _STAGED)
        for begin in range(0, all_steps, at_once):
            steps = min(at_once, all_steps - begin)
            target = out + ((group * all_steps + begin) * blocks + block * steps) * taps * parts * STEP_BYTES
            for step in range(steps):
                channel = (begin + step) * STEP_TERMS
                count = min(STEP_TERMS, channels - channel)
                for tap in range(taps):
                    at = source + (channel * taps + tap) * 4
                    stage_weights(scratch, at, min(BLOCK, outputs - first), count, taps, row_step)
                    to = target + (tap * steps + step) * parts * STEP_BYTES
                    split_step(parts, scratch, STEP_TERMS, to, scratch + _STAGED)
        write_extent(scratch + _STAGED, x + task * REPORT_BYTES)

    return jit.callback(pack_amx_weights, name, KERNEL_ARGUMENTS)


@cache
def weight_packer() -> Any:
    """The kernel that splits weights and packs them in blocks of 32 outputs."""
    return _make_weight_packer("pack_amx_weights_f32")
