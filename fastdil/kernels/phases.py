"""Overlap-save on dilation phases: the compiled part of `fft`.

A convolution with dilation d is d independent dense ones, each on every d-th sample. Along the width, outputs are cut
into sequences: one phase, `BLOCK` outputs long, read from `LENGTH` samples. Sequences of one sample and group fill the
lanes of two vectors, neighbouring phases side by side, because they are neighbours in memory. One task transforms
them for all lines of samples that its outputs read, mixes lines at each frequency, and transforms back.

A line is one channel of one row of samples. Kernel rows and depths are lines too: `ROWS` output rows a dilation apart
share ``taps + ROWS - 1`` of them, and mixing adds up the kernel's rows.

Whether the data suit a transform is found out on the way and reported, task by task: see `algorithms.tameness`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import fill_zeros
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import GROUP_IN, GROUP_OUT, GROUPS, KD, KH, KW, OUT_PIXELS, UNIT, XC, XN, lanes_of
from fastdil.kernels.intrinsics import call_part, call_with_table, load_i64, store_element
from fastdil.kernels.loudness import largest_lane, loudness, measure, seen, weigh
from fastdil.kernels.phase_layout import (
    BLOCK,
    DATA,
    DATA_STEP,
    ENERGY,
    FORWARD,
    INVERSE,
    LARGEST,
    LENGTH,
    LINES,
    MIX,
    OUTPUTS,
    REPORT_FIELDS,
    ROWS,
    RUNS,
    SEEN,
    SPECTRUM,
    STAGING,
    STEPS,
    TASKS,
    W_ABSOLUTE,
    W_REPORT,
    W_SPECTRA,
    W_SQUARES,
    is_dense,
    list_runs,
)
from fastdil.kernels.phase_lines import fill_line, interleave_line, store_line


@helper
def transform_lines(kind, lanes, size, params, scratch, runs, count, source, absolute):
    """Load, measure and transform all lines of a task."""
    channels, unit = load_i64(params, GROUP_IN) * load_i64(params, UNIT), load_i64(params, UNIT)
    lines, length, taps = load_i64(params, LINES), load_i64(params, LENGTH), load_i64(params, KW)
    energy, sums = scratch + load_i64(params, ENERGY), scratch + load_i64(params, SEEN)
    largest, row, heights = scratch + load_i64(params, LARGEST), load_i64(params, ROWS) // 2, load_i64(params, KH)
    dense = is_dense(params)
    fill_zeros(kind, lanes, scratch + load_i64(params, STAGING), length // lanes)
    fill_zeros(kind, lanes, sums, 2)
    fill_zeros(kind, lanes, largest, 1)
    at = scratch + load_i64(params, DATA)
    for depth in range(load_i64(params, KD)):
        for line in range(lines):
            for channel in range(channels):
                begin = source + (channel // unit * load_i64(params, XC) + channel % unit) * size
                if dense:
                    interleave_line(kind, lanes, size, params, scratch, at, runs, count, begin, depth, line)
                else:
                    fill_line(kind, lanes, size, params, scratch, at, runs, count, begin, depth, line)
                measure(kind, lanes, at, length, energy, largest)
                if 0 <= line - row < heights:
                    term = (depth * heights + line - row) * channels + channel
                    place = at + load_i64(params, BLOCK) // 2 * 2 * lanes * size
                    weigh(kind, lanes, 2, absolute + term * taps * size, place, taps, sums)
                call_with_table(load_i64(params, FORWARD), at, load_i64(params, STEPS))
                energy += lanes * size
                at += load_i64(params, DATA_STEP)


def _make_kernel(kind: str, lanes: int, name: str) -> Any:
    stamp, size = jit.source_stamp(), int(kind[1:]) // 8

    def phases(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        tasks, groups, unit = load_i64(params, TASKS), load_i64(params, GROUPS), load_i64(params, UNIT)
        group, sample = task // tasks % groups, task // tasks // groups
        group_in, group_out = load_i64(params, GROUP_IN), load_i64(params, GROUP_OUT)
        depths, heights = load_i64(params, KD), load_i64(params, KH)
        channels, outputs = group_in * unit, group_out * unit
        terms = depths * heights * channels
        runs = scratch + load_i64(params, RUNS)
        count = list_runs(params, runs, task % tasks * 2 * lanes, 2 * lanes)
        source = x + (sample * load_i64(params, XN) + group * group_in * load_i64(params, XC)) * size
        absolute = load_i64(w, W_ABSOLUTE) + group * terms * load_i64(params, KW) * size
        transform_lines(kind, lanes, size, params, scratch, runs, count, source, absolute)
        spectra = load_i64(w, W_SPECTRA) + group * load_i64(params, SPECTRUM) * size
        call_part(load_i64(params, MIX), params, scratch, spectra)
        for row in range(load_i64(params, ROWS)):
            for output in range(outputs):
                at = scratch + load_i64(params, DATA)
                at += (row * load_i64(params, OUTPUTS) + output) * load_i64(params, DATA_STEP)
                call_with_table(load_i64(params, INVERSE), at, load_i64(params, STEPS))
                channel = group * outputs + output
                plane = sample * groups * group_out + channel // unit
                target = out + (plane * load_i64(params, OUT_PIXELS) * unit + channel % unit) * size
                shift = bias + channel * size if bias != 0 else 0
                store_line(kind, lanes, size, params, scratch, at, runs, count, target, row, shift)
        report = load_i64(w, W_REPORT) + task * REPORT_FIELDS * 8
        squares = load_i64(w, W_SQUARES) + group * outputs * terms * size
        sums, row, place = scratch + load_i64(params, SEEN), load_i64(params, ROWS) // 2, load_i64(params, BLOCK) // 2
        store_element("f64", report, loudness(kind, lanes, size, params, scratch, squares))
        store_element("f64", report + 8, seen(kind, size, params, runs, count, sums, row, place))
        store_element("f64", report + 16, largest_lane(kind, lanes, size, scratch + load_i64(params, LARGEST)))

    return jit.callback(phases, name, KERNEL_ARGUMENTS)


@cache
def phase_kernel(kind: str, vector_bytes: int) -> Any:
    """The compiled kernel for one element kind and vector width, but for transforms and mixing, which it calls."""
    return _make_kernel(kind, lanes_of(kind, vector_bytes), f"phases_{kind}_{8 * vector_bytes}bit")
