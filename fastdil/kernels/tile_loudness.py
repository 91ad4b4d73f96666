"""How loud an input is, and how much of that the taps see: what `winograd` asks before it computes.

A tile's rounding errors grow with everything it reads, the contract's bound with the sums of ``|w| |x|``. Two passes
compare them: one finds the pixel with the largest loudness ``sum_c v_c |x_c|``, where ``v_c`` is the largest Euclidean
norm of a kernel of input channel c; the other sums ``|w| |x|`` at the outputs that read this pixel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import copy_vectors, fill_zeros
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    DD,
    DH,
    DW,
    GEOMETRY,
    GROUP_IN,
    GROUPS,
    KD,
    KH,
    KW,
    LD,
    LH,
    LW,
    MODE,
    ND,
    NH,
    NW,
    OD,
    XC,
    XD,
    XH,
    XN,
    XW,
    lanes_of,
    source_index,
)
from fastdil.kernels.intrinsics import load_element, load_i64, store_element
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Parameters after the geometry: pixels of a line (a row, or all rows where they follow each other without a gap), how
#: many of them one task takes at most, tasks of one sample and group, rows of absolute weights per group.
LINE, STRIPE, STRIPES, ROWS = range(GEOMETRY, GEOMETRY + 4)
FIELDS = 4
#: Most pixels of a task: their sums stay in L1.
MOST_PIXELS = 2048
#: Output channels per group, those with the largest weights, at which the sums are worked out.
MOST_ROWS = 4


@intrinsic(prefer_literal=True)
def add_magnitudes(typingctx, kind, lanes, sums, samples, weight, count):
    """``sums += weight * abs(samples)`` for `count` neighbours; the last vector of sums is written whole."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        sums, samples, weight, count = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)
        factor = vectors.splat(vectors.load_scalar(weight))

        def add(at, value):
            magnitude = vectors.maximum(value, vectors.sub(vectors.zero, value))
            vectors.store(vectors.fma(factor, magnitude, vectors.load(at)), at)

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            add(vectors.at(sums, shift), vectors.load(vectors.at(samples, shift)))
            return []

        whole = builder.sdiv(count, constant(lane_count))
        counted_loop(builder, whole, [], body)
        done = builder.mul(whole, constant(lane_count))
        left = builder.sub(count, done)
        with builder.if_then(builder.icmp_signed(">", left, constant(0))):
            add(
                vectors.at(sums, done),
                vectors.load_masked(vectors.at(samples, done), vectors.first_lanes(left)),
            )
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, sums, samples, weight, count)), codegen


@helper
def magnitude_at(kind, size, params, sample, weights, rows, depth, height, width):
    """The largest ``sum |w| |x|`` of one output over the `rows` rows of absolute weights."""
    mode, channels = load_i64(params, MODE), load_i64(params, GROUP_IN)
    depths, heights, widths = load_i64(params, KD), load_i64(params, KH), load_i64(params, KW)
    taps, largest = depths * heights * widths, 0.0
    for row in range(rows):
        total = 0.0
        for tap in range(taps):
            position = depth + tap // (heights * widths) * load_i64(params, DD) - load_i64(params, LD)
            at_depth = source_index(position, load_i64(params, ND), mode)
            position = height + tap // widths % heights * load_i64(params, DH) - load_i64(params, LH)
            at_height = source_index(position, load_i64(params, NH), mode)
            position = width + tap % widths * load_i64(params, DW) - load_i64(params, LW)
            at_width = source_index(position, load_i64(params, NW), mode)
            if at_depth < 0 or at_height < 0 or at_width < 0:
                continue
            offset = (
                at_depth * load_i64(params, XD) + at_height * load_i64(params, XH) + at_width * load_i64(params, XW)
            )
            at, at_weight = sample + offset * size, weights + (row * channels * taps + tap) * size
            for _channel in range(channels):
                total += abs(load_element(kind, at)) * load_element(kind, at_weight)
                at += load_i64(params, XC) * size
                at_weight += taps * size
        largest = max(largest, total)
    return largest


@helper
def output_that_reads(params, axis, position, which):
    """The output along an axis whose first, middle or last tap falls on a sample, or the nearest one."""
    taps, outputs = load_i64(params, KD + axis), load_i64(params, OD + axis)
    tap = 0 if which == 0 else taps // 2 if which == 1 else taps - 1
    return min(max(position + load_i64(params, LD + axis) - tap * load_i64(params, DD + axis), 0), outputs - 1)


def _make_loudness_kernel(kind: str, size: int, lanes: int, name: str) -> Any:
    stamp = jit.source_stamp()

    def find_loudest(params, x, w, bias, out, scratch, task):
        """Write the largest loudness of a stripe and its pixel."""
        stamp  # noqa: B018 - a closure cell in the cache key
        stripes, stripe, length = load_i64(params, STRIPES), load_i64(params, STRIPE), load_i64(params, LINE)
        groups, channels, heights = load_i64(params, GROUPS), load_i64(params, GROUP_IN), load_i64(params, NH)
        plane, in_line = task // stripes, (length + stripe - 1) // stripe
        line, column = task % stripes // in_line, task % stripes % in_line * stripe
        count, group = min(stripe, length - column), plane % groups
        source = x + (plane // groups * load_i64(params, XN) + group * channels * load_i64(params, XC)) * size
        # Where all rows are one line, it is the first one.
        source += (line // heights * load_i64(params, XD) + line % heights * load_i64(params, XH)) * size
        source += column * load_i64(params, XW) * size
        fill_zeros(kind, lanes, scratch, (count + lanes - 1) // lanes)
        gathered = scratch + (count + lanes) * size
        for channel in range(channels):
            samples = source + channel * load_i64(params, XC) * size
            if load_i64(params, XW) != 1:
                copy_vectors(kind, 1, gathered, size, samples, load_i64(params, XW) * size, count, 1)
                samples = gathered
            add_magnitudes(kind, lanes, scratch, samples, w + (group * channels + channel) * size, count)
        largest, pixel = -1.0, 0
        for index in range(count):
            loudness = load_element(kind, scratch + index * size)
            if not loudness <= largest:  # NaN is kept
                largest, pixel = loudness, index
                if loudness != loudness:
                    break
        store_element("f64", out + task * 16, largest)
        store_element("f64", out + task * 16 + 8, float(line * length + column + pixel))

    return jit.callback(find_loudest, name, KERNEL_ARGUMENTS)


def _make_magnitude_kernel(kind: str, size: int, name: str) -> Any:
    stamp = jit.source_stamp()

    def see_loudest(params, x, w, bias, out, scratch, task):
        """Of one sample and group: its largest loudness, and the largest ``sum |w| |x|`` where that is read.

        `bias` is the address of what `find_loudest` wrote. `out` holds a factor for the loudness; outputs are looked
        at until ``sum |w| |x|`` is beyond the product.
        """
        stamp  # noqa: B018 - a closure cell in the cache key
        stripes, groups, rows = load_i64(params, STRIPES), load_i64(params, GROUPS), load_i64(params, ROWS)
        largest, pixel = -1.0, 0.0
        for index in range(task * stripes, (task + 1) * stripes):
            loudness = load_element("f64", bias + index * 16)
            if not loudness <= largest:
                largest, pixel = loudness, load_element("f64", bias + index * 16 + 8)
                if loudness != loudness:
                    break
        heights, widths = load_i64(params, NH), load_i64(params, NW)
        at = int(pixel)
        depth, height, width = at // (heights * widths), at // widths % heights, at % widths
        channels = load_i64(params, GROUP_IN)
        taps = load_i64(params, KD) * load_i64(params, KH) * load_i64(params, KW)
        group = task % groups
        sample = x + (task // groups * load_i64(params, XN) + group * channels * load_i64(params, XC)) * size
        weights = w + group * rows * channels * taps * size
        seen, enough = 0.0, largest * load_element("f64", out + task * 16)
        for which in range(27):
            if seen >= enough > 0.0:
                break
            a, b, c = (which // 9 + 1) % 3, (which // 3 + 1) % 3, (which + 1) % 3  # the middle taps first
            # Two outputs or one, where the axis has so many taps.
            if a >= load_i64(params, KD) or b >= load_i64(params, KH) or c >= load_i64(params, KW):
                continue
            magnitude = magnitude_at(
                kind, size, params, sample, weights, rows, output_that_reads(params, 0, depth, a),
                output_that_reads(params, 1, height, b), output_that_reads(params, 2, width, c),
            )  # fmt: skip
            seen = max(seen, magnitude)
        store_element("f64", out + task * 16, largest)
        store_element("f64", out + task * 16 + 8, seen)

    return jit.callback(see_loudest, name, KERNEL_ARGUMENTS)


@cache
def loudness_kernel(kind: str, vector_bytes: int) -> Any:
    """The compiled search for the loudest pixel."""
    return _make_loudness_kernel(
        kind, int(kind[1:]) // 8, lanes_of(kind, vector_bytes), f"find_loudest_{kind}_{8 * vector_bytes}bit"
    )


@cache
def magnitude_kernel(kind: str) -> Any:
    """The compiled sums at the outputs that read it."""
    return _make_magnitude_kernel(kind, int(kind[1:]) // 8, f"see_loudest_{kind}")
