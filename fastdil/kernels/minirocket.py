"""MiniRocket's inner step: 84 responses per dilation, compared with their biases and counted, never stored.

The kernels have nine taps, -1 but for three that are 2. With A = -x and G = 3x, a response is the sum of A at all nine
places plus G at the three (Dempster, Schmidt and Webb 2021, section 3.2.1). Sums are shared by prefix: all kernels of a
dilation share the sum of A, those with the same first and second place the sum up to there, so each costs one
addition per position more. They are added in this order and in float32, as in the reference implementation.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.intrinsics import load_i64, store_element, store_i64
from fastdil.kernels.rows import combine_rows, copy_or_zero, fill_window, fold_to, load_i32
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Taps of a kernel, and kernels: the ways to choose three of nine places.
TAPS, KERNELS = 9, 84
#: Biases that are compared in one pass over the responses, by bytes of a vector: they and their counts fill registers.
_CHUNK = {64: 8, 32: 4, 16: 4}

#: Positions that are worked on at a time, so that the rows they need stay in the cache.
SEGMENT_POSITIONS = 2048
#: Bytes that may be read and written behind a row: rows are worked on in whole vectors.
SLACK = 128

#: Parameters. Sizes are in bytes but for the segment, which is in positions; `SUBSETS` is the address of a table that
#: holds, for each dilation and kernel, the address of a list of channels and its length; `ONE` is for `count_above`.
SERIES, CHANNELS, LENGTH, FEATURES, SEGMENT, PART, WINDOW, COUNTER_BYTES, SUBSETS, ONE, TABLE = range(11)
#: Then for each dilation: itself, features per kernel, those of all dilations before it, distance of rows of samples.
DILATION, PER_KERNEL, BEFORE, ROW_STEP, TABLE_FIELDS = range(5)


@intrinsic(prefer_literal=True)
def count_above(typingctx, lanes, features, sums, last, count, biases, counters, one):
    """Count, for each of `features` biases, the positions where ``sums + last`` exceeds it; add to 32-bit `counters`.

    Counters after the last feature, up to a power of two, are read and written too, but not changed. `one` is 1, in a
    form that the compiler does not know: with a constant it makes three instructions of the two with AVX-512, a
    comparison and an addition under its mask.
    """
    lane_count, chunk = literals(lanes, features)
    rounded = 1 << (chunk - 1).bit_length()

    def codegen(context, builder, signature, args):
        sums, last, count, biases, counters, one = args[2:]
        floats, integers = Vectors(builder, "f32", lane_count), Vectors(builder, "i32", lane_count)
        ones = integers.splat(builder.trunc(one, integers.element))
        limits = [floats.splat(floats.load_scalar(floats.at(biases, i))) for i in range(chunk)]

        def step(at, found, mask):
            response = floats.add(floats.load(floats.at(sums, at)), floats.load(floats.at(last, at)))
            result = []
            for limit, number in zip(limits, found, strict=True):
                above = builder.fcmp_ordered(">", response, limit)  # false where the response is NaN
                above = above if mask is None else builder.and_(above, mask)
                result.append(integers.add(number, builder.select(above, ones, integers.zero)))
            return result

        whole = builder.udiv(count, constant(lane_count))
        done = builder.mul(whole, constant(lane_count))
        rest = builder.sub(count, done)
        zeros = [integers.zero] * chunk
        found = counted_loop(builder, whole, zeros, lambda i, n: step(builder.mul(i, constant(lane_count)), n, None))
        partial = builder.select(builder.icmp_signed(">", rest, constant(0)), constant(1), constant(0))
        mask = floats.first_lanes(rest)
        found = counted_loop(builder, partial, found, lambda i, n: step(done, n, mask))
        found += [integers.zero] * (rounded - chunk)
        each = min(rounded, lane_count)
        few = Vectors(builder, "i32", each)
        for first in range(0, rounded, each):
            group, at = found[first : first + each], few.at(counters, first)
            total = fold_to(group, lane_count, lambda n: Vectors(builder, "i32", n), lambda v, a, b: v.add(a, b))
            few.store(few.add(few.load(at), total), at)
        return context.get_dummy_value()

    return returns(types.void, (lanes, features, sums, last, count, biases, counters, one)), codegen


@helper
def count_features(lanes, chunk, features, sums, last, count, biases, counters, one):
    """`count_above` for any number of features, in chunks of at most `chunk` (4 or 8)."""
    done = 0
    while features - done >= chunk:
        count_above(lanes, chunk, sums, last, count, biases + done * 4, counters + done * 4, one)
        done += chunk
    rest, biases, counters = features - done, biases + done * 4, counters + done * 4
    if rest == 1:
        count_above(lanes, 1, sums, last, count, biases, counters, one)
    elif rest == 2:
        count_above(lanes, 2, sums, last, count, biases, counters, one)
    elif rest == 3:
        count_above(lanes, 3, sums, last, count, biases, counters, one)
    if chunk == 8:
        if rest == 4:
            count_above(lanes, 4, sums, last, count, biases, counters, one)
        elif rest == 5:
            count_above(lanes, 5, sums, last, count, biases, counters, one)
        elif rest == 6:
            count_above(lanes, 6, sums, last, count, biases, counters, one)
        elif rest == 7:
            count_above(lanes, 7, sums, last, count, biases, counters, one)


@helper
def fill_rows(lanes, samples, tripled, alpha, source, length, start, dilation, row_step, count):
    """Fill what all kernels share at `count` positions: three times the samples at each place, and the sum of all nine.

    Place j stands ``j * row_step`` elements behind `samples` and `tripled`. Where that is the dilation, the nine rows
    overlap and are copied as one.
    """
    middle = TAPS // 2
    if row_step == dilation:
        extent = count + (TAPS - 1) * dilation
        fill_window("f32", lanes, 4, samples, source, length, start - middle * dilation, extent)
    else:
        extent = (TAPS - 1) * row_step + count
        for tap in range(TAPS):
            first = start + (tap - middle) * dilation
            fill_window("f32", lanes, 4, samples + tap * row_step * 4, source, length, first, count)
    combine_rows("f32", lanes, 1, tripled, samples, samples, extent)
    combine_rows("f32", lanes, 1, tripled, tripled, samples, extent)
    # The middle first, then from left to right: the order of the reference implementation, which rounds.
    combine_rows("f32", lanes, 1, alpha, samples + middle * row_step * 4, samples, count)
    for tap in range(1, TAPS):
        if tap != middle:
            combine_rows("f32", lanes, 1, alpha, alpha, samples + tap * row_step * 4, count)


@helper
def sum_channels(lanes, alphas, part, tripled, window, subset, a, b, c, count, total, scratch):
    """The response of one kernel summed over its channels; a, b and c are its three places in bytes."""
    channels = load_i64(subset, 0)
    for index in range(load_i64(subset, 1)):
        channel = load_i64(channels, index)
        rows, alpha = tripled + channel * window, alphas + channel * part
        target = scratch if index else total
        combine_rows("f32", lanes, -1, target, rows + a, alpha, count)
        combine_rows("f32", lanes, 1, target, target, rows + b, count)
        combine_rows("f32", lanes, 1, target, target, rows + c, count)
        if index:
            combine_rows("f32", lanes, 1, total, total, scratch, count)


@helper
def store_proportions(params, counters, per_kernel, number, dilation, out):
    """Counts as proportions of the positions they were counted over."""
    length = load_i64(params, LENGTH)
    for kernel in range(KERNELS):
        size = length - (number + kernel) % 2 * (TAPS - 1) * dilation
        for feature in range(kernel * per_kernel, (kernel + 1) * per_kernel):
            store_element("f32", out + feature * 4, load_i32(counters, feature) / size)


@cache
def minirocket_kernel(vector_bytes: int) -> Any:
    """The compiled kernel; a task is one dilation of one series."""
    lanes, chunk = lanes_of("f32", vector_bytes), _CHUNK[vector_bytes]
    stamp = jit.source_stamp()

    def minirocket(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        series, channels, length = load_i64(params, SERIES), load_i64(params, CHANNELS), load_i64(params, LENGTH)
        number, sample = task // series, task % series
        table = params + (TABLE + number * TABLE_FIELDS) * 8
        dilation, per_kernel = load_i64(table, DILATION), load_i64(table, PER_KERNEL)
        step, biases = load_i64(table, ROW_STEP), w + KERNELS * load_i64(table, BEFORE) * 4
        segment, part, window = load_i64(params, SEGMENT), load_i64(params, PART), load_i64(params, WINDOW)
        counters, reach, one = scratch, TAPS // 2 * dilation, load_i64(params, ONE)
        first_sum = counters + load_i64(params, COUNTER_BYTES)
        pair_sum, zeros = first_sum + part, first_sum + 2 * part
        samples = zeros + part
        tripled, alphas = samples + window, samples + window + channels * window
        for index in range(load_i64(params, COUNTER_BYTES) // 8):
            store_i64(counters, index, 0)
        copy_or_zero("f32", lanes, zeros, 0, segment)
        for start in range(0, length, segment):
            stop = min(start + segment, length)
            count = stop - start
            for channel in range(channels):
                source = x + (sample * channels + channel) * length * 4
                rows, alpha = tripled + channel * window, alphas + channel * part
                fill_rows(lanes, samples, rows, alpha, source, length, start, dilation, step, count)
            kernel = 0
            for a in range(TAPS - 2):
                if channels == 1:
                    combine_rows("f32", lanes, -1, first_sum, tripled + a * step * 4, alphas, count)
                for b in range(a + 1, TAPS - 1):
                    if channels == 1:
                        combine_rows("f32", lanes, 1, pair_sum, first_sum, tripled + b * step * 4, count)
                    for c in range(b + 1, TAPS):
                        last = tripled + c * step * 4
                        if channels > 1:
                            subset, last = load_i64(params, SUBSETS) + (number * KERNELS + kernel) * 16, zeros
                            sum_channels(
                                lanes, alphas, part, tripled, window, subset, a * step * 4, b * step * 4, c * step * 4,
                                count, pair_sum, first_sum,
                            )  # fmt: skip
                        edge = (number + kernel) % 2 * reach
                        low, high = max(start, edge) - start, min(stop, length - edge) - start
                        if high > low:
                            place = kernel * per_kernel * 4
                            count_features(
                                lanes, chunk, per_kernel, pair_sum + low * 4, last + low * 4, high - low,
                                biases + place, counters + place, one,
                            )  # fmt: skip
                        kernel += 1
        target = out + (sample * load_i64(params, FEATURES) + KERNELS * load_i64(table, BEFORE)) * 4
        store_proportions(params, counters, per_kernel, number, dilation, target)

    return jit.callback(minirocket, f"minirocket_{8 * vector_bytes}bit", KERNEL_ARGUMENTS)


def fill_params(
    shape: tuple[int, ...], dilations: np.ndarray, per_kernel: np.ndarray, subsets: int
) -> tuple[np.ndarray, int]:
    """Parameters of the kernel, and the bytes of scratch memory that it needs."""
    series, channels, length = shape
    segment = min(SEGMENT_POSITIONS, length)
    apart = -(-segment // 16) * 16 + 16  # rows that do not overlap: aligned, and not a power of two apart
    steps = np.where((TAPS - 1) * dilations <= segment, dilations, apart)
    part = _rounded(segment * 4 + SLACK)
    window = _rounded((segment + (TAPS - 1) * int(steps.max())) * 4 + SLACK)
    counters = _rounded(KERNELS * int(per_kernel.max()) * 4 + SLACK)
    before = np.cumsum(per_kernel) - per_kernel
    head = [series, channels, length, KERNELS * int(per_kernel.sum()), segment, part, window, counters, subsets, 1]
    table = np.stack([dilations, per_kernel, before, steps], axis=1).astype(np.int64)
    scratch = counters + 3 * part + window + channels * (window + part)
    return np.concatenate([np.array(head, np.int64), table.ravel()]), scratch


def _rounded(size: int) -> int:
    return -(-size // 64) * 64
