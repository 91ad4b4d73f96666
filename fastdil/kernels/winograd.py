"""Minimal filtering on the dilation phases: the compiled part of `winograd`.

With dilation d, outputs i and i + d read the samples i, i + d, i + 2 d and i + 3 d: a tile of Winograd's F(2,3),
whatever d is. A *line* is a pair of output rows that are d apart (one row if the height has one tap); its tiles are all
columns whose run of d columns is even.

One task takes several lines (or a chunk of one) of one sample, one group and one chunk of output channels. It walks
over input channels, and the taps of the depth, in blocks: transform their samples to all frequencies, in scratch memory
that stays in L2; multiply with the transformed weights, frequency by frequency; and transform back when the last block
is in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import copy_run, copy_vectors
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.finish import finish_row
from fastdil.kernels.geometry import ACTIVATE, GROUP_IN, GROUP_OUT, GROUPS, KD, OH, OUT_PIXELS, OW, RELU, lanes_of
from fastdil.kernels.intrinsics import call_on_row, load_i64
from fastdil.kernels.tiles import tile_shape
from fastdil.kernels.totals import add_vectors, merge_tile, settle_tile
from fastdil.kernels.winograd_samples import clear, fill_columns, transform_block
from fastdil.kernels.winograd_tasks import (
    BLOCK_CHANNELS,
    BLOCK_TAPS,
    COLUMN_STEP,
    ERRORS,
    FIRST_BLOCK,
    FIRST_COLUMN,
    FIRST_LINE,
    GROUP,
    GROUP_BLOCKS,
    JOINED,
    LAST_BLOCK,
    LAST_LINE,
    LINE_TILES,
    OUTPUTS_AT,
    PANEL,
    PART,
    PIECES,
    PITCH,
    PLANE_LINES,
    ROW_PITCH,
    ROW_STEP,
    ROWS,
    SAMPLE,
    STRIPS,
    SUMS,
    TASK_BLOCKS,
    VECTORS,
    ZEROS,
    open_task,
)
from fastdil.kernels.winograd_tiles import (
    OUTPUTS,
    SAMPLES,
    combine_frequencies,
    frequency_tile,
    join_runs,
    transform_weights,
)
from fastdil.workspace import ALIGNMENT


@helper
def spread(step):
    """The next odd number of cache lines: samples at all frequencies then lie in different sets of L1."""
    return (step // ALIGNMENT | 1) * ALIGNMENT


@helper
def multiply_tile(kind, lanes, rows, used, weights, panel, pitch, terms, tile):
    """One tile; the last strip may use fewer vectors than the others."""
    if used == 3:
        frequency_tile(kind, lanes, rows, 3, weights, panel, pitch, terms, tile)
    elif used == 2:
        frequency_tile(kind, lanes, rows, 2, weights, panel, pitch, terms, tile)
    else:
        frequency_tile(kind, lanes, rows, 1, weights, panel, pitch, terms, tile)


@helper
def multiply_block(
    kind, lanes, rows, width, size, frequencies, params, state, scratch, weights, terms, is_first, frequency_step,
    sums_step,
):  # fmt: skip
    """Multiply the panel with the weights of the task's outputs, at all frequencies; `weights` is the first one's."""
    all_terms = load_i64(params, GROUP_IN) * load_i64(params, KD)
    block_bytes = all_terms * rows * size
    strip_bytes, tile_bytes = width * lanes * size, rows * width * lanes * size
    group_blocks, first = load_i64(params, GROUP_BLOCKS), load_i64(state, FIRST_BLOCK)
    panel, sums, part = (
        scratch + load_i64(params, PANEL),
        scratch + load_i64(params, SUMS),
        scratch + load_i64(params, PART),
    )
    strips, pitch, errors = load_i64(state, STRIPS), load_i64(params, PITCH), load_i64(params, ERRORS)
    for frequency in range(frequencies):
        for block in range(first, load_i64(state, LAST_BLOCK)):
            at = weights + (frequency * group_blocks + block) * block_bytes
            for strip in range(strips):
                used = min(width, load_i64(state, VECTORS) - strip * width)
                samples = panel + strip * strip_bytes
                if errors > 0:
                    multiply_tile(kind, lanes, rows, used, at, samples, pitch, terms, part)
                    merge_tile(kind, lanes, part, sums, sums + errors, rows * used, 0 if is_first else 1)
                elif is_first:
                    multiply_tile(kind, lanes, rows, used, at, samples, pitch, terms, sums)
                else:
                    multiply_tile(kind, lanes, rows, used, at, samples, pitch, terms, part)
                    add_vectors(kind, lanes, sums, part, rows * used)
                sums += tile_bytes
        panel += frequency_step
        sums += sums_step - (load_i64(state, LAST_BLOCK) - first) * strips * tile_bytes


@helper
def store_row(kind, lanes, size, params, target, source, count, shift):
    """Bias, activation and store of neighbouring outputs."""
    finish_row(kind, lanes, target, source, count, shift, load_i64(params, RELU))
    activate = load_i64(params, ACTIVATE)
    if activate != 0:
        call_on_row(activate, target, count)


@helper
def store_line(kind, lanes, size, width_outputs, params, state, scratch, even, output_step, target, shift):
    """One output row of one channel: put the runs of its tiles' outputs in order; `target` is the row's start."""
    step, tiles, column = load_i64(params, COLUMN_STEP), load_i64(state, LINE_TILES), load_i64(state, FIRST_COLUMN)
    left, odd = load_i64(params, OW) - column, even + output_step
    target += column * size
    if load_i64(params, PIECES) > 1 or width_outputs == 1:
        store_row(kind, lanes, size, params, target, even, tiles, shift)
        if width_outputs > 1 and left > step:
            store_row(kind, lanes, size, params, target + step * size, odd, min(tiles, left - step), shift)
        return
    joined = scratch + load_i64(params, JOINED)
    if lanes > 1 and step == 1:
        join_runs(kind, lanes, 1, joined, even, odd, tiles)
    elif lanes > 2 and step == 2:
        join_runs(kind, lanes, 2, joined, even, odd, tiles)
    elif lanes > 4 and step == 4:
        join_runs(kind, lanes, 4, joined, even, odd, tiles)
    elif lanes > 8 and step == 8:
        join_runs(kind, lanes, 8, joined, even, odd, tiles)
    else:
        for done in range(0, tiles, step):
            count = min(step, tiles - done)
            copy_run(kind, lanes, joined + 2 * done * size, even + done * size, count)
            copy_run(kind, lanes, joined + (2 * done + step) * size, odd + done * size, count)
    store_row(kind, lanes, size, params, target, joined, min((tiles + step - 1) // step * 2 * step, left), shift)


@helper
def finish_task(
    kind, lanes, rows, width, size, height_taps, width_taps, height_outputs, width_outputs, params, state, scratch,
    bias, out, frequency_step,
):  # fmt: skip
    """Transform the sums of all frequencies back and store the outputs."""
    strip_bytes, tile_bytes = width * lanes * size, rows * width * lanes * size
    strips, first_block = load_i64(state, STRIPS), load_i64(state, FIRST_BLOCK)
    group_out, out_pixels = load_i64(params, GROUP_OUT), load_i64(params, OUT_PIXELS)
    lines, row_step = load_i64(params, PLANE_LINES), load_i64(params, ROW_STEP)
    out_height, out_width = load_i64(params, OH), load_i64(params, OW)
    outputs, output_step = scratch + load_i64(params, OUTPUTS_AT), strips * strip_bytes
    for index in range(first_block * rows, min(load_i64(state, LAST_BLOCK) * rows, group_out)):
        sums = scratch + load_i64(params, SUMS) + (index // rows - first_block) * strips * tile_bytes
        for strip in range(strips):
            used = min(width, load_i64(state, VECTORS) - strip * width)
            combine_frequencies(
                kind, lanes, height_taps, width_taps, sums + strip * tile_bytes + index % rows * used * lanes * size,
                frequency_step, outputs + strip * strip_bytes, output_step, used,
            )  # fmt: skip
        channel = load_i64(state, GROUP) * group_out + index
        shift = bias + channel * size if bias != 0 else 0
        plane = out + (load_i64(state, SAMPLE) * load_i64(params, GROUPS) * group_out + channel) * out_pixels * size
        for line in range(load_i64(state, FIRST_LINE), load_i64(state, LAST_LINE)):
            pair = line % lines
            row = pair // row_step * 2 * row_step + pair % row_step
            at = outputs + (line - load_i64(state, FIRST_LINE)) * load_i64(state, LINE_TILES) * size
            for which in range(height_outputs):
                if row + which * row_step < out_height:
                    target = plane + ((line // lines) * out_height + row + which * row_step) * out_width * size
                    store_line(
                        kind, lanes, size, width_outputs, params, state, scratch,
                        at + which * width_outputs * output_step, output_step, target, shift,
                    )  # fmt: skip


def _make_winograd_kernel(
    kind: str, size: int, lanes: int, rows: int, width: int, height_taps: int, width_taps: int, name: str
) -> Any:
    stamp = jit.source_stamp()
    height_samples, width_samples = SAMPLES[height_taps], SAMPLES[width_taps]
    height_outputs, width_outputs = OUTPUTS[height_taps], OUTPUTS[width_taps]
    frequencies = height_samples * width_samples

    def winograd(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        state = scratch
        open_task(params, state, task, width, lanes)
        clear(kind, lanes, scratch + load_i64(params, ROWS), height_samples * load_i64(params, ROW_PITCH) // size)
        clear(kind, lanes, scratch + load_i64(params, ZEROS), load_i64(params, ROW_PITCH) // size)
        fill_columns(params, state, scratch)
        group_in, depths = load_i64(params, GROUP_IN), load_i64(params, KD)
        taps_at_once, channels_at_once = load_i64(params, BLOCK_TAPS), load_i64(params, BLOCK_CHANNELS)
        pitch = load_i64(params, PITCH)
        panel_step = spread(taps_at_once * channels_at_once * pitch)
        sums_step = spread(load_i64(params, TASK_BLOCKS) * load_i64(state, STRIPS) * rows * width * lanes * size)
        # Rows end within a vector whose other lanes are multiplied too: with zeros, not with what was there before.
        last = scratch + load_i64(params, PANEL) + (load_i64(state, VECTORS) - 1) * lanes * size
        for frequency in range(frequencies):
            at = last + frequency * panel_step
            copy_vectors(kind, lanes, at, pitch, at, 0, taps_at_once * channels_at_once, 0)
        weights = (
            w + load_i64(state, GROUP) * load_i64(params, GROUP_BLOCKS) * frequencies * depths * group_in * rows * size
        )
        is_first = True
        for tap in range(0, depths, taps_at_once):
            taps = min(taps_at_once, depths - tap)
            for channel in range(0, group_in, channels_at_once):
                channels = min(channels_at_once, group_in - channel)
                transform_block(
                    kind, lanes, size, height_taps, width_taps, height_samples, params, state, scratch, x, tap, taps,
                    channel, channels, panel_step,
                )  # fmt: skip
                multiply_block(
                    kind, lanes, rows, width, size, frequencies, params, state, scratch,
                    weights + (tap * group_in + channel) * rows * size, taps * channels, is_first, panel_step,
                    sums_step,
                )  # fmt: skip
                is_first = False
        errors, sums = load_i64(params, ERRORS), scratch + load_i64(params, SUMS)
        if errors > 0:
            settle_tile(kind, lanes, sums, sums + errors, frequencies * sums_step // (lanes * size))
        finish_task(
            kind, lanes, rows, width, size, height_taps, width_taps, height_outputs, width_outputs, params, state,
            scratch, bias, out, sums_step,
        )  # fmt: skip

    return jit.callback(winograd, name, KERNEL_ARGUMENTS)


@cache
def winograd_kernel(kind: str, vector_bytes: int, height_taps: int, width_taps: int) -> Any:
    """The compiled kernel for one element kind, vector width and the taps along height and width."""
    rows, width = tile_shape(vector_bytes)
    lanes = lanes_of(kind, vector_bytes)
    name = f"winograd_{height_taps}x{width_taps}_{kind}_{8 * vector_bytes}bit"
    return _make_winograd_kernel(kind, int(kind[1:]) // 8, lanes, rows, width, height_taps, width_taps, name)


# Parameters of the weight transform: groups, blocks per group, taps of the depth, elements of one tap of one block.
(V_GROUPS, V_BLOCKS, V_DEPTHS, V_ELEMENTS) = range(4)


def _make_weight_kernel(kind: str, size: int, lanes: int, height_taps: int, width_taps: int, name: str) -> Any:
    stamp = jit.source_stamp()
    taps, frequencies = height_taps * width_taps, SAMPLES[height_taps] * SAMPLES[width_taps]

    def transform_packed(params, x, w, bias, out, scratch, task):
        """Task = one block of one group: ``[group][frequency][block][depth][element]``; energies go to `bias`."""
        stamp  # noqa: B018 - a closure cell in the cache key
        blocks, depths, elements = load_i64(params, V_BLOCKS), load_i64(params, V_DEPTHS), load_i64(params, V_ELEMENTS)
        group, block = task // blocks, task % blocks
        for depth in range(depths):
            transform_weights(
                kind, lanes, height_taps, width_taps, w + (task * depths + depth) * taps * elements * size,
                elements * size, out + ((group * frequencies * blocks + block) * depths + depth) * elements * size,
                blocks * depths * elements * size, bias + (task * depths + depth) * elements * 8, elements,
            )  # fmt: skip

    return jit.callback(transform_packed, name, KERNEL_ARGUMENTS)


@cache
def weight_kernel(kind: str, vector_bytes: int, height_taps: int, width_taps: int) -> Any:
    """The kernel that transforms packed weights; its vectors are as long as a register tile has rows."""
    rows, _ = tile_shape(vector_bytes)
    name = f"winograd_weights_{height_taps}x{width_taps}_{kind}_{8 * vector_bytes}bit"
    return _make_weight_kernel(kind, int(kind[1:]) // 8, rows, height_taps, width_taps, name)
