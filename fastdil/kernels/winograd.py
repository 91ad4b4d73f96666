"""Minimal filtering on the dilation phases: the compiled part of `winograd`.

With three taps and dilation d, outputs i, i + d, i + 2 d and i + 3 d read the samples i, i + d up to i + 5 d: a tile of
Winograd's F(4,3), whatever d is; two taps make F(5,2), four F(3,4), five F(2,5). Where that suits the outputs better,
a tile has five samples and one output less, or is F(2,2). A *line* is a group of as many output rows that are d apart
(one row if the height has one tap); its tiles start at all columns of every fourth run of d.

One task takes several lines (or a chunk of one) of one sample, one group and one chunk of output channels. It walks
over input channels, with all taps of the depth, in parts: transform their samples to all frequencies, in scratch
memory; multiply with the transformed weights, which it makes itself where they are many, frequency by frequency; and
transform back when the last part is in.
Lines of a task may be a dilation of the depth apart: their taps along the depth then share the transformed samples.
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
from fastdil.kernels.intrinsics import call_on_row, load_element, load_i64, store_element
from fastdil.kernels.totals import settle_tile
from fastdil.kernels.winograd_guard import MOST_LOAD, largest_of, look_at_tile, taps_of
from fastdil.kernels.winograd_products import multiply_part
from fastdil.kernels.winograd_samples import clear, fill_columns, transform_part
from fastdil.kernels.winograd_tasks import (
    COLUMN_STEP,
    ERRORS,
    FIRST_BLOCK,
    FIRST_COLUMN,
    GROUP,
    IS_SHARED,
    JOINED,
    LAST_BLOCK,
    LINE_TILES,
    LOADS,
    OUTPUTS_AT,
    PANEL,
    PART,
    PIECES,
    PITCH,
    PROBES,
    REPORT_FIELDS,
    REPORT_ROWS,
    ROW_PITCH,
    ROW_STEP,
    ROWS,
    SAMPLE,
    STRIPS,
    SUMS,
    TASK_BLOCKS,
    TASK_LINE_COUNT,
    VECTORS,
    W_LOUDEST,
    W_PLAIN,
    W_PLAIN_PROBES,
    W_REPORT,
    ZEROS,
    first_output,
    line_at,
    open_task,
    panel_width,
)
from fastdil.kernels.winograd_tiles import CHAIN_TERMS, LINE_CHAIN_TERMS, tile_shape
from fastdil.kernels.winograd_transforms import OUTPUTS, SAMPLES, combine_frequencies, join_runs
from fastdil.workspace import ALIGNMENT


@helper
def spread(step):
    """The next odd number of cache lines: samples at all frequencies then lie in different sets of L1."""
    return (step // ALIGNMENT | 1) * ALIGNMENT


@helper
def store_row(kind, lanes, size, params, target, source, count, shift):
    """Bias, activation and store of neighbouring outputs."""
    finish_row(kind, lanes, target, source, count, shift, load_i64(params, RELU))
    activate = load_i64(params, ACTIVATE)
    if activate != 0:
        call_on_row(activate, target, count)


@helper
def store_line(
    kind, lanes, size, width_form, width_outputs, params, state, scratch, source, output_step, target, shift
):  # fmt: skip
    """One output row of one channel: put the runs of its tiles' outputs in order; `target` is the row's start."""
    step, tiles, column = load_i64(params, COLUMN_STEP), load_i64(state, LINE_TILES), load_i64(state, FIRST_COLUMN)
    left = load_i64(params, OW) - column
    target += column * size
    if load_i64(params, PIECES) > 1 or width_outputs == 1:
        for which in range(width_outputs):
            count = min(tiles, left - which * step)
            if count > 0:
                store_row(
                    kind, lanes, size, params, target + which * step * size, source + which * output_step, count, shift
                )
        return
    joined = scratch + load_i64(params, JOINED)
    if lanes > 1 and step == 1:
        join_runs(kind, lanes, width_form, 1, joined, source, output_step, tiles)
    elif lanes >= 2 and step == 2:
        join_runs(kind, lanes, width_form, 2, joined, source, output_step, tiles)
    elif lanes >= 4 and step == 4:
        join_runs(kind, lanes, width_form, 4, joined, source, output_step, tiles)
    elif lanes >= 8 and step == 8:
        join_runs(kind, lanes, width_form, 8, joined, source, output_step, tiles)
    elif lanes >= 16 and step == 16:
        join_runs(kind, lanes, width_form, 16, joined, source, output_step, tiles)
    else:
        for done in range(0, tiles, step):
            count = min(step, tiles - done)
            for which in range(width_outputs):
                at = joined + (width_outputs * done + which * step) * size
                copy_run(kind, lanes, at, source + which * output_step + done * size, count)
    count = min((tiles + step - 1) // step * width_outputs * step, left)
    store_row(kind, lanes, size, params, target, joined, count, shift)


@helper
def combine_channel(
    kind, lanes, rows, width, size, height_form, width_form, params, state, scratch, index, frequency_step
):  # fmt: skip
    """Transform the sums of one output channel back, all tiles of the task; returns their largest load."""
    strip_bytes, tile_bytes = width * lanes * size, rows * width * lanes * size
    strips, block = load_i64(state, STRIPS), index // rows - load_i64(state, FIRST_BLOCK)
    sums = scratch + load_i64(params, SUMS) + block * load_i64(state, VECTORS) * rows * lanes * size
    outputs, loads = scratch + load_i64(params, OUTPUTS_AT), scratch + load_i64(params, LOADS)
    for strip in range(strips):
        used = min(width, load_i64(state, VECTORS) - strip * width)
        combine_frequencies(
            kind, lanes, height_form, width_form, sums + strip * tile_bytes + index % rows * used * lanes * size,
            frequency_step, outputs + strip * strip_bytes, strips * strip_bytes, loads + strip * strip_bytes, used,
        )  # fmt: skip
    return largest_of(kind, lanes, loads, load_i64(state, TASK_LINE_COUNT) * load_i64(state, LINE_TILES))


@helper
def is_louder(load, most):
    """Whether a load exceeds the largest one so far; NaN exceeds all, and stays."""
    return most == most and not load <= most


@helper
def finish_task(
    kind, lanes, rows, width, size, height_form, width_form, height_outputs, width_outputs, params, state, scratch,
    bias, out, frequency_step,
):  # fmt: skip
    """Transform the sums of all frequencies back and store the outputs; returns the channel of the largest load."""
    group_out, out_pixels = load_i64(params, GROUP_OUT), load_i64(params, OUT_PIXELS)
    row_step = load_i64(params, ROW_STEP)
    out_height, out_width = load_i64(params, OH), load_i64(params, OW)
    outputs, output_step = scratch + load_i64(params, OUTPUTS_AT), load_i64(state, STRIPS) * width * lanes * size
    first = load_i64(state, FIRST_BLOCK) * rows
    loudest, most = first, -1.0
    for index in range(first, min(load_i64(state, LAST_BLOCK) * rows, group_out)):
        load = combine_channel(
            kind, lanes, rows, width, size, height_form, width_form, params, state, scratch, index, frequency_step
        )
        if is_louder(load, most):
            loudest, most = index, load
        channel = load_i64(state, GROUP) * group_out + index
        shift = bias + channel * size if bias != 0 else 0
        plane = out + (load_i64(state, SAMPLE) * load_i64(params, GROUPS) * group_out + channel) * out_pixels * size
        for line in range(load_i64(state, TASK_LINE_COUNT)):
            depth, group = line_at(params, state, line)
            row = first_output(group, row_step, height_outputs)
            at = outputs + line * load_i64(state, LINE_TILES) * size
            for which in range(height_outputs):
                if row + which * row_step < out_height:
                    target = plane + (depth * out_height + row + which * row_step) * out_width * size
                    store_line(
                        kind, lanes, size, width_form, width_outputs, params, state, scratch,
                        at + which * width_outputs * output_step, output_step, target, shift,
                    )  # fmt: skip
    return loudest


@helper
def find_probe(kind, lanes, rows, width, size, height_form, width_form, params, state, scratch, frequency_step):
    """The probe that has the largest load, counted like an output behind the last block."""
    first = load_i64(state, LAST_BLOCK) * rows
    loudest, most = first, -1.0
    for index in range(first, first + PROBES):
        load = combine_channel(
            kind, lanes, rows, width, size, height_form, width_form, params, state, scratch, index, frequency_step
        )
        if is_louder(load, most):
            loudest, most = index, load
    return loudest


@helper
def report_load(
    kind, lanes, rows, width, size, height_form, width_form, height_outputs, width_outputs, params, state, scratch, x,
    w, channel, frequency_step, most_load, report,
):  # fmt: skip
    """Write the largest load of the task, which is in `channel`, and what a look at its tile shows.

    Only the loudest tile of a sample counts: there is no look where another task has seen a louder one. Channels behind
    the last block are probes: their signs are random, so their errors say nothing of other outputs.
    """
    load = combine_channel(
        kind, lanes, rows, width, size, height_form, width_form, params, state, scratch, channel, frequency_step
    )
    tile, loads = 0, scratch + load_i64(params, LOADS)
    while load_element(kind, loads + tile * size) < load:
        tile += 1
    probe, group = channel - load_i64(state, LAST_BLOCK) * rows, load_i64(state, GROUP)
    weights, row = load_i64(w, W_PLAIN), group * load_i64(params, GROUP_OUT) + channel
    if probe >= 0:
        weights, row = load_i64(w, W_PLAIN_PROBES), group * PROBES + probe
    weights += row * load_i64(params, GROUP_IN) * taps_of(params) * size
    seen, error = 0.0, 0.0
    # Threads may overwrite each other's: what stands there is at most the largest, which is never passed over.
    loudest = load_i64(w, W_LOUDEST) + (2 * load_i64(state, SAMPLE) + (0 if probe < 0 else 1)) * 8
    if load > 0.0 and load >= load_element("f64", loudest):
        store_element("f64", loudest, load)
        strip_bytes, outputs = load_i64(state, STRIPS) * width * lanes * size, scratch + load_i64(params, OUTPUTS_AT)
        seen, error = look_at_tile(
            kind, size, height_outputs, width_outputs, params, state, x, weights, tile, outputs, strip_bytes, load,
            most_load,
        )  # fmt: skip
    store_element("f64", report, load)
    store_element("f64", report + 8, seen)
    store_element("f64", report + 16, error if probe < 0 else 0.0)


def _make_winograd_kernel(
    kind: str, size: int, lanes: int, rows: int, width: int, height_form: int, width_form: int, name: str
) -> Any:
    stamp = jit.source_stamp()
    height_samples, width_samples = SAMPLES[height_form], SAMPLES[width_form]
    height_outputs, width_outputs = OUTPUTS[height_form], OUTPUTS[width_form]
    frequencies = height_samples * width_samples
    is_plane = 1 not in (height_form, width_form)
    chain, most_load = CHAIN_TERMS if is_plane else LINE_CHAIN_TERMS, MOST_LOAD[is_plane]

    def winograd(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        state = scratch
        open_task(params, state, task, width, lanes, width_outputs)
        clear(kind, lanes, scratch + load_i64(params, ROWS), height_samples * load_i64(params, ROW_PITCH) // size)
        clear(kind, lanes, scratch + load_i64(params, ZEROS), load_i64(params, ROW_PITCH) // size)
        fill_columns(params, state, scratch)
        channels, part, pitch = load_i64(params, GROUP_IN), load_i64(params, PART), load_i64(params, PITCH)
        panel_lines = part if load_i64(params, IS_SHARED) != 0 else part * load_i64(params, KD)
        panel_step = spread(panel_lines * pitch)
        sums_step = spread((load_i64(params, TASK_BLOCKS) + 1) * load_i64(state, VECTORS) * rows * lanes * size)
        # Lines of the panel end within a vector whose other lanes are multiplied too: with zeros, not with what was
        # there before. A tap of the depth may see a part of the next vector.
        tiles = panel_width(params, state) * load_i64(state, LINE_TILES)
        end = scratch + load_i64(params, PANEL) + tiles // lanes * lanes * size
        for frequency in range(frequencies):
            for vector in range(2):
                at = end + frequency * panel_step + vector * lanes * size
                copy_vectors(kind, lanes, at, pitch, at, 0, panel_lines, 0)
        for channel in range(0, channels, part):
            count = min(part, channels - channel)
            transform_part(
                kind, lanes, size, height_form, width_form, height_samples, height_outputs, width_outputs, params,
                state, scratch, x, channel, count, panel_step,
            )  # fmt: skip
            multiply_part(
                kind, lanes, rows, width, size, frequencies, chain, params, state, scratch, w, channel, count,
                panel_step, sums_step,
            )  # fmt: skip
        errors, sums = load_i64(params, ERRORS), scratch + load_i64(params, SUMS)
        if errors > 0:
            settle_tile(kind, lanes, sums, sums + errors, frequencies * sums_step // (lanes * size))
        loudest = finish_task(
            kind, lanes, rows, width, size, height_form, width_form, height_outputs, width_outputs, params, state,
            scratch, bias, out, sums_step,
        )  # fmt: skip
        report = load_i64(w, W_REPORT) + task * REPORT_ROWS * REPORT_FIELDS * 8
        report_load(
            kind, lanes, rows, width, size, height_form, width_form, height_outputs, width_outputs, params, state,
            scratch, x, w, loudest, sums_step, most_load, report,
        )  # fmt: skip
        if load_i64(state, FIRST_BLOCK) == 0:
            probe = find_probe(
                kind, lanes, rows, width, size, height_form, width_form, params, state, scratch, sums_step
            )
            report_load(
                kind, lanes, rows, width, size, height_form, width_form, height_outputs, width_outputs, params, state,
                scratch, x, w, probe, sums_step, most_load, report + REPORT_FIELDS * 8,
            )  # fmt: skip

    return jit.callback(winograd, name, KERNEL_ARGUMENTS)


@cache
def winograd_kernel(kind: str, vector_bytes: int, height_form: int, width_form: int) -> Any:
    """The compiled kernel for one element kind, vector width and forms of height and width (`winograd_transforms`)."""
    rows, width = tile_shape(vector_bytes)
    lanes = lanes_of(kind, vector_bytes)
    name = f"winograd_{height_form}x{width_form}_{kind}_{8 * vector_bytes}bit"
    return _make_winograd_kernel(kind, int(kind[1:]) // 8, lanes, rows, width, height_form, width_form, name)
