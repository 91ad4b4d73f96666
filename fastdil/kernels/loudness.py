"""How loud the samples of a task are and what the taps see of them, found out on the way: see `algorithms.tameness`."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.copies import fill_zeros
from fastdil.kernels.geometry import DW, GROUP_IN, GROUP_OUT, KD, KH, OH, OW, UNIT
from fastdil.kernels.intrinsics import load_element, load_i64
from fastdil.kernels.phase_layout import (
    ENERGY,
    LENGTH,
    LINES,
    R_COUNT,
    R_FIRST,
    R_HEIGHT,
    R_LANE,
    ROW_STEP,
    ROWS,
    RUN_FIELDS,
    SUMS,
)
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


@intrinsic(prefer_literal=True)
def measure(typingctx, kind, lanes, data, length, energy, largest):
    """Store the energy of each lane (real and imaginary parts together); raise the lanes' `largest` magnitudes."""
    kind_name, lane_count = literals(kind, lanes)
    unrolled = 2  # points: an addition takes four cycles

    def codegen(context, builder, signature, args):
        data, length, energy, largest = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def larger(value, most):
            size = vectors.absolute(value)
            return builder.select(builder.fcmp_ordered(">", size, most), size, most)

        def body(index, carried):
            at, *sums = carried
            for i in range(2 * unrolled):
                value = vectors.load(vectors.at(at, i * lane_count))
                sums[i] = vectors.fma(value, value, sums[i])
                sums[2 * unrolled + i % 2] = larger(value, sums[2 * unrolled + i % 2])
            return [vectors.at(at, 2 * unrolled * lane_count), *sums]

        start = [vectors.zero] * (2 * unrolled) + [vectors.load(largest)] * 2
        _, *sums = counted_loop(builder, builder.udiv(length, constant(unrolled)), [data, *start], body)
        total = vectors.add(vectors.add(sums[0], sums[1]), vectors.add(sums[2], sums[3]))
        vectors.store(total, energy)
        vectors.store(larger(sums[4], sums[5]), largest)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, data, length, energy, largest)), codegen


@intrinsic(prefer_literal=True)
def weigh(typingctx, kind, lanes, width, weights, values, count, totals):
    """Add ``weights[i] * abs(values[i])`` over `count` neighbours of `width` vectors to the vectors at `totals`."""
    kind_name, lane_count, vector_count = literals(kind, lanes, width)

    def codegen(context, builder, signature, args):
        weights, values, count, totals = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        places = [vectors.at(totals, i * lane_count) for i in range(vector_count)]

        def body(index, carried):
            at_weight, at, *sums = carried
            weight = vectors.splat(vectors.load_scalar(at_weight))
            for i in range(vector_count):
                value = vectors.absolute(vectors.load(vectors.at(at, i * lane_count)))
                sums[i] = vectors.fma(value, weight, sums[i])
            return [vectors.at(at_weight, 1), vectors.at(at, vector_count * lane_count), *sums]

        _, _, *sums = counted_loop(builder, count, [weights, values, *(vectors.load(p) for p in places)], body)
        for total, place in zip(sums, places, strict=True):
            vectors.store(total, place)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, width, weights, values, count, totals)), codegen


@helper
def seen(kind, size, params, runs, count, sums, row, place):
    """The largest sum over the lanes whose output number `place` of row `row` exists."""
    largest = 0.0
    for index in range(count):
        run = runs + index * RUN_FIELDS * 8
        if load_i64(run, R_HEIGHT) + row * load_i64(params, ROW_STEP) < load_i64(params, OH):
            first = load_i64(run, R_FIRST) + place * load_i64(params, DW)
            for lane in range(min(load_i64(run, R_COUNT), load_i64(params, OW) - first)):
                largest = max(largest, load_element(kind, sums + (load_i64(run, R_LANE) + lane) * size))
    return largest


@helper
def largest_lane(kind, lanes, size, vector):
    """The largest element of a vector; NaN if one is."""
    largest = 0.0
    for lane in range(lanes):
        value = load_element(kind, vector + lane * size)
        if value > largest or value != value:  # then nothing is larger
            largest = value
    return largest


@helper
def loudness(kind, lanes, size, params, scratch, squares):
    """The largest mean square of a sequence, each line weighed with the square of its weights."""
    channels = load_i64(params, GROUP_IN) * load_i64(params, UNIT)
    outputs, rows = load_i64(params, GROUP_OUT) * load_i64(params, UNIT), load_i64(params, ROWS)
    count, lines = load_i64(params, KH) * channels, load_i64(params, LINES)
    energy, total = scratch + load_i64(params, ENERGY), scratch + load_i64(params, SUMS)
    largest = 0.0
    for row in range(rows):
        for output in range(outputs):
            fill_zeros(kind, lanes, total, 1)
            for depth in range(load_i64(params, KD)):
                weights = squares + (output * load_i64(params, KD) + depth) * count * size
                first = energy + (depth * lines + row) * channels * lanes * size
                weigh(kind, lanes, 1, weights, first, count, total)
            value = largest_lane(kind, lanes, size, total)
            if value > largest or value != value:
                largest = value
    return largest / load_i64(params, LENGTH)
