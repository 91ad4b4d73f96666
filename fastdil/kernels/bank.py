"""Filter banks: many filters on one series, each response pooled in registers or stored.

A register tile is a few filters by a few vectors of neighbouring positions; each tap loads the vectors once for all its
filters. The series lies in a window with zeros around it, so no tap is tested for the border. Pools are kept as one
vector per filter, and folded across lanes once, at the end of the series. How positions are cut into tiles depends on
the series alone, so results do not depend on the number of threads.
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
from fastdil.kernels.intrinsics import load_element, load_i64, store_element, store_i64
from fastdil.kernels.rows import fill_window, load_i32
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Filters and vectors of a register tile: 16 sums and 4 samples of 32 registers, 8 and 2 of 16.
ROWS = 4
_WIDTH = {64: 4, 32: 2, 16: 2}
#: What becomes of a response: bits of the kernel's name.
STORE, MAX, MEAN, PPV = 1, 2, 4, 8
#: Positions that are worked on at a time.
SEGMENT_POSITIONS = 4096
#: Bytes that may be read behind a window.
SLACK = 512

#: Parameters; sizes of scratch parts and states in bytes. Tables are addresses of 64-bit integers, one line for each
#: dilation: offsets of the taps from the first sample of a window, its span and the least offset, the filters in
#: their blocks (-1: none), whether a block is padded, the first and last position of an unpadded filter.
(
    LENGTH, DILATIONS, FILTERS, TAPS, BLOCKS, GROUP, GROUPS, SEGMENT, THRESHOLDS, POOLS, MAX_AT, MEAN_AT, PPV_AT,
    OUT_LENGTH, WEIGHT_STEP, BIASES, LIMITS, LIMIT_STEP, OFFSETS, SPANS, BLOCK_STEP, ROW_TABLE, PAD_TABLE, WINDOW,
    STATE, FIELDS,
) = range(26)  # fmt: skip


def state_bytes(thresholds: int) -> int:
    """Of one filter, in whole vectors: largest values (64), sums in float64 (128), counts of each threshold (64)."""
    return 192 + 64 * thresholds


@intrinsic(prefer_literal=True)
def bank_tile(
    typingctx, kind, lanes, width, masked, pools, weights, biases, offsets, taps, source, count, targets, state,
    state_step, thresholds, limits,
):  # fmt: skip
    """Responses of four filters at ``width * lanes`` positions, or at the first `count` of one vector if `masked`.

    `weights` holds four numbers per tap, `offsets` the distance of each tap's samples from `source` in elements. Where
    an address in `targets` is 0 the response is not stored.
    """
    kind_name, lane_count, tile_width, is_masked, wanted = literals(kind, lanes, width, masked, pools)

    def codegen(context, builder, signature, args):
        weights, biases, offsets, taps, source, count, targets, state, state_step, thresholds, limits = args[5:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        mask = vectors.first_lanes(count) if is_masked else None
        sums = []
        for row in range(ROWS):
            sums += [vectors.splat(vectors.load_scalar(vectors.at(biases, row)))] * tile_width

        def tap(index, carried):
            base = vectors.at(source, integers.load_scalar(integers.at(offsets, index)))
            line = vectors.at(weights, builder.mul(index, constant(ROWS)))
            samples = [vectors.load(vectors.at(base, i * lane_count)) for i in range(tile_width)]
            result = []
            for row in range(ROWS):
                weight = vectors.splat(vectors.load_scalar(vectors.at(line, row)))
                for column, sample in enumerate(samples):
                    result.append(vectors.fma(weight, sample, carried[row * tile_width + column]))
            return result

        sums = counted_loop(builder, taps, sums, tap)
        for row in range(ROWS):
            values = sums[row * tile_width : (row + 1) * tile_width]
            if wanted & STORE:
                _store(vectors, integers.load_scalar(integers.at(targets, row)), values, mask)
            mine = builder.add(state, builder.mul(state_step, constant(row)))
            if wanted & MAX:
                _keep_largest(vectors, mine, values, mask)
            if wanted & MEAN:
                _add_up(vectors, builder.add(mine, constant(64)), values, mask)
            if wanted & PPV:
                first = vectors.at(limits, builder.mul(thresholds, constant(row)))
                _count_above(vectors, builder.add(mine, constant(192)), values, mask, thresholds, first)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, width, masked, pools, weights, biases, offsets, taps, source, count, targets, state, state_step,
        thresholds, limits,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


def _store(vectors: Vectors, target, values: list, mask) -> None:
    with vectors.builder.if_then(vectors.builder.icmp_signed("!=", target, constant(0))):
        for column, value in enumerate(values):
            at = vectors.at(target, column * vectors.lanes)
            if mask is None:
                vectors.store(value, at)
            else:
                vectors.store_masked(value, at, mask)


def _keep_largest(vectors: Vectors, state, values: list, mask) -> None:
    largest = vectors.load(state)
    for value in values:
        value = value if mask is None else vectors.builder.select(mask, value, vectors.filled(float("-inf")))
        largest = vectors.maximum(largest, value)
    vectors.store(largest, state)


def _add_up(vectors: Vectors, state, values: list, mask) -> None:
    """Sums in float64: a long series must not lose what it adds."""
    builder, doubles = vectors.builder, Vectors(vectors.builder, "f64", vectors.lanes)
    total = doubles.load(state)
    for value in values:
        value = value if mask is None else builder.select(mask, value, vectors.zero)
        total = doubles.add(total, value if vectors.kind == "f64" else builder.fpext(value, doubles.type))
    doubles.store(total, state)


def _count_above(vectors: Vectors, state, values: list, mask, thresholds, limits) -> None:
    builder, integers = vectors.builder, Vectors(vectors.builder, "i32", vectors.lanes)

    def body(index, carried):
        limit = vectors.splat(vectors.load_scalar(vectors.at(limits, index)))
        at = builder.add(state, builder.mul(index, constant(64)))
        found = integers.load(at)
        for value in values:
            above = builder.fcmp_ordered(">", value, limit)  # false where the response is NaN
            above = above if mask is None else builder.and_(above, mask)
            found = integers.sub(found, builder.sext(above, integers.type))
        integers.store(found, at)
        return []

    counted_loop(builder, thresholds, [], body)


@helper
def open_state(kind, lanes, size, state, thresholds):
    """Start the pools of one filter."""
    for lane in range(lanes):
        store_element(kind, state + lane * size, -np.inf)
        store_element("f64", state + 64 + lane * 8, 0.0)
    for index in range(thresholds * 8):
        store_i64(state + 192, index, 0)


@helper
def close_state(kind, lanes, size, params, state, positions, out):
    """Fold the pools of one filter across lanes, and store its features."""
    if load_i64(params, MAX_AT) >= 0:
        largest = load_element(kind, state)
        for lane in range(1, lanes):
            value = load_element(kind, state + lane * size)
            if value > largest or value != value:
                largest = value
        store_element(kind, out + load_i64(params, MAX_AT) * size, largest)
    if load_i64(params, MEAN_AT) >= 0:
        total = 0.0
        for lane in range(lanes):
            total += load_element("f64", state + 64 + lane * 8)
        store_element(kind, out + load_i64(params, MEAN_AT) * size, total / positions)
    if load_i64(params, PPV_AT) >= 0:
        for index in range(load_i64(params, THRESHOLDS)):
            count = 0
            for lane in range(lanes):
                count += load_i32(state + 192 + index * 64, lane)
            store_element(kind, out + (load_i64(params, PPV_AT) + index) * size, count / positions)


@helper
def fill_targets(params, targets, rows, out, size, line, position):
    """Where each of four filters stores the response at a position; 0 where there is no filter."""
    for row in range(ROWS):
        number = load_i64(rows, row)
        place = (line * load_i64(params, FILTERS) + number) * load_i64(params, OUT_LENGTH) + position
        store_i64(targets, row, out + place * size if number >= 0 else 0)


@cache
def bank_kernel(kind: str, vector_bytes: int, pools: int) -> Any:
    """The compiled kernel; a task is some blocks of four filters on one series at one dilation."""
    lanes, size, width = lanes_of(kind, vector_bytes), int(kind[1:]) // 8, _WIDTH[vector_bytes]
    strip, pooled = width * lanes, pools & (MAX | MEAN | PPV)
    stamp = jit.source_stamp()

    def bank(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        groups, dilations, length = load_i64(params, GROUPS), load_i64(params, DILATIONS), load_i64(params, LENGTH)
        group, line = task % groups, task // groups
        dilation, series = line % dilations, line // dilations
        taps, thresholds = load_i64(params, TAPS), load_i64(params, THRESHOLDS)
        offsets = load_i64(params, OFFSETS) + dilation * taps * 8
        spans = load_i64(params, SPANS) + dilation * 32
        table = dilation * load_i64(params, BLOCK_STEP)
        first_block = group * load_i64(params, GROUP)
        last_block = min(first_block + load_i64(params, GROUP), load_i64(params, BLOCKS))
        segment, step = load_i64(params, SEGMENT), load_i64(params, STATE)
        targets, states, window = scratch, scratch + 64, scratch + load_i64(params, WINDOW)
        for start in range(0, length, segment):
            stop = min(start + segment, length)
            least, span = load_i64(spans, 0), load_i64(spans, 1)
            source = x + series * length * size
            fill_window(kind, lanes, size, window, source, length, start + least, stop - start + span)
            for block in range(first_block, last_block):
                rows = load_i64(params, ROW_TABLE) + (table + block) * ROWS * 8
                padded = load_i64(load_i64(params, PAD_TABLE), table + block)
                begin, end = 0 if padded else load_i64(spans, 2), length if padded else load_i64(spans, 3)
                state = states + (block - first_block) * ROWS * step
                weights = w + (dilation * load_i64(params, WEIGHT_STEP) + block * taps * ROWS) * size
                place = table + block
                biases = load_i64(params, BIASES) + place * ROWS * size
                limits = (
                    load_i64(params, LIMITS)
                    + (dilation * load_i64(params, LIMIT_STEP) + block * ROWS * thresholds) * size
                )
                if pooled and start == 0:
                    for row in range(ROWS):
                        open_state(kind, lanes, size, state + row * step, thresholds)
                position, high = max(start, begin), min(stop, end)
                while position < high:
                    if pools & STORE:
                        fill_targets(params, targets, rows, out, size, line, position - begin)
                    at = window + (position - start) * size
                    if high - position >= strip:
                        bank_tile(
                            kind, lanes, width, 0, pools, weights, biases, offsets, taps, at, strip, targets, state,
                            step, thresholds, limits,
                        )  # fmt: skip
                        position += strip
                    else:
                        bank_tile(
                            kind, lanes, 1, 1, pools, weights, biases, offsets, taps, at, high - position, targets,
                            state, step, thresholds, limits,
                        )  # fmt: skip
                        position += lanes
                if pooled and stop == length:
                    for row in range(ROWS):
                        number = load_i64(rows, row)
                        if number >= 0:
                            feature = (line * load_i64(params, FILTERS) + number) * load_i64(params, POOLS)
                            close_state(
                                kind, lanes, size, params, state + row * step, end - begin, out + feature * size
                            )

    return jit.callback(bank, f"bank_{kind}_{8 * vector_bytes}bit_{pools}", KERNEL_ARGUMENTS)
