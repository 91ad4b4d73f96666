"""Channels mixed at each frequency: a matrix product of spectra, for all lanes of a task.

Frequencies f and L - f are worked on together: real taps have conjugate spectra there, so one broadcast weight serves
both. A sum of many channels is cut into chains as in `fastdil.kernels.tiles`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import fill_zeros
from fastdil.kernels.geometry import GROUP_IN, KD, KH, UNIT, lanes_of
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.phase_layout import (
    DATA,
    DATA_STEP,
    LINES,
    OUTPUTS,
    PAIR_COUNT,
    PAIRS,
    PANEL,
    ROWS,
    SUMS,
    TILE_ROWS,
)
from fastdil.kernels.totals import two_sum
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Channels that are summed in registers.
CHAIN_CHANNELS = 16
#: Chains that may be added plainly.
PLAIN_CHAINS = 2

#: What becomes of a finished chain: it replaces the sums, is added to them, or added with what rounding loses kept.
REPLACE, ADD, ADD_EXACTLY = range(3)


@intrinsic(prefer_literal=True)
def pack_pair(typingctx, kind, lanes, panel, data, channel_step, channels, first, second):
    """Copy the points at byte offsets `first` and `second` of every channel side by side into the panel."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        panel, data, channel_step, channels, first, second = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            to, at = carried
            for i, place in enumerate((builder.add(at, first), builder.add(at, second))):
                for part in range(2):
                    value = vectors.load(vectors.at(place, part * lane_count))
                    vectors.store(value, vectors.at(to, (2 * i + part) * lane_count))
            return [vectors.at(to, 4 * lane_count), builder.add(at, channel_step)]

        counted_loop(builder, channels, [panel, data], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, panel, data, channel_step, channels, first, second)), codegen


@intrinsic(prefer_literal=True)
def mix_chain(typingctx, kind, lanes, rows, weights, panel, count, target, second, row_step, how, errors):
    """One chain: complex weights of `rows` outputs times `count` channels of a panel.

    `weights` lists real and imaginary parts of `rows` numbers per channel. The sums of row r at the first frequency
    go to ``target + r * row_step``, those at the second, whose weights are the conjugates, `second` bytes further on.
    `how` is one of `REPLACE`, `ADD`, `ADD_EXACTLY`; `errors` is the distance in bytes from sums to what they lost.
    """
    kind_name, lane_count, row_count = literals(kind, lanes, rows)

    def codegen(context, builder, signature, args):
        weights, panel, count, target, second, row_step, how, errors = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        # A single row has too few sums to keep the multiply-add units busy: real and imaginary weights sum apart.
        apart = row_count == 1
        sums = [vectors.zero] * (4 * row_count * (2 if apart else 1))

        def body(index, carried):
            at, w, *sums = carried
            samples = [vectors.load(vectors.at(at, i * lane_count)) for i in range(4)]
            for row in range(row_count):
                real = vectors.splat(vectors.load_scalar(vectors.at(w, 2 * row)))
                imaginary = vectors.splat(vectors.load_scalar(vectors.at(w, 2 * row + 1)))
                minus = builder.fneg(imaginary)
                for i in range(4):
                    sums[4 * row + i] = vectors.fma(samples[i], real, sums[4 * row + i])
                # i w times x, at the second frequency -i w times x
                for i, factor in enumerate((minus, imaginary, imaginary, minus)):
                    to = 4 + i if apart else 4 * row + i
                    sums[to] = vectors.fma(samples[i ^ 1], factor, sums[to])
            return [vectors.at(at, 4 * lane_count), vectors.at(w, 2 * row_count), *sums]

        _, _, *sums = counted_loop(builder, count, [panel, weights, *sums], body)
        if apart:
            sums = [vectors.add(a, b) for a, b in zip(sums[:4], sums[4:], strict=True)]
        places = []
        for row in range(row_count):
            at = builder.add(target, builder.mul(row_step, constant(row)))
            for place in (at, builder.add(at, second)):
                places += [place, vectors.at(place, lane_count)]

        def close(value, place):
            vectors.store(value, place)

        def close_plainly(value, place):
            vectors.store(vectors.add(vectors.load(place), value), place)

        def close_exactly(value, place):
            two_sum(vectors, value, place, builder.add(place, errors))

        for code, action in ((REPLACE, close), (ADD, close_plainly), (ADD_EXACTLY, close_exactly)):
            with builder.if_then(builder.icmp_signed("==", how, constant(code))):
                for value, place in zip(sums, places, strict=True):
                    action(value, place)
        return context.get_dummy_value()

    arguments = (kind, lanes, rows, weights, panel, count, target, second, row_step, how, errors)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def settle_pair(typingctx, kind, lanes, rows, sums, errors, target, second, row_step):
    """Move `rows` finished sums (two points of two vectors each) to their places, with what rounding lost added."""
    kind_name, lane_count, row_count = literals(kind, lanes, rows)

    def codegen(context, builder, signature, args):
        sums, errors, target, second, row_step = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        for row in range(row_count):
            at = builder.add(target, builder.mul(row_step, constant(row)))
            for i, place in enumerate((at, builder.add(at, second))):
                for part in range(2):
                    source = vectors.at(sums, (4 * row + 2 * i + part) * lane_count)
                    value = vectors.add(vectors.load(source), vectors.load(builder.add(source, errors)))
                    vectors.store(value, vectors.at(place, part * lane_count))
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, rows, sums, errors, target, second, row_step)), codegen


@helper
def mix_tile(kind, lanes, tile, size, params, scratch, weights, first_row, target, second):
    """One tile of outputs at one pair of frequencies: all its lines, chain by chain."""
    channels = load_i64(params, GROUP_IN) * load_i64(params, UNIT)
    depths, lines, data_step = load_i64(params, KD), load_i64(params, LINES), load_i64(params, DATA_STEP)
    count = (load_i64(params, KH) + load_i64(params, TILE_ROWS) - 1) * channels
    parts = (count + CHAIN_CHANNELS - 1) // CHAIN_CHANNELS
    each = (count + parts - 1) // parts
    sums, line, errors = scratch + load_i64(params, SUMS), 4 * lanes * size, tile * 4 * lanes * size
    place, other, step, how = target, second, data_step, REPLACE
    if depths * parts > 1:
        fill_zeros(kind, lanes, sums, tile * 8)
        place, other, step = sums, 2 * lanes * size, line
        how = ADD_EXACTLY if depths * parts > PLAIN_CHAINS else ADD
    for depth in range(depths):
        at = scratch + load_i64(params, PANEL) + (depth * lines + first_row) * channels * line
        for done in range(0, count, each):
            chain = min(each, count - done)
            mix_chain(kind, lanes, tile, weights, at + done * line, chain, place, other, step, how, errors)
            weights += chain * tile * 2 * size
    if depths * parts > 1:
        settle_pair(kind, lanes, tile, sums, errors, target, second, data_step)


def _make_mix(kind: str, lanes: int, tile: int, name: str) -> Any:
    stamp, size = jit.source_stamp(), int(kind[1:]) // 8

    def mix(params, scratch, spectra):
        stamp  # noqa: B018 - a closure cell in the cache key
        channels = load_i64(params, GROUP_IN) * load_i64(params, UNIT)
        tile_rows, outputs, rows = load_i64(params, TILE_ROWS), load_i64(params, OUTPUTS), load_i64(params, ROWS)
        depths, data_step = load_i64(params, KD), load_i64(params, DATA_STEP)
        data, panel = scratch + load_i64(params, DATA), scratch + load_i64(params, PANEL)
        tile_lines = (load_i64(params, KH) + tile_rows - 1) * channels * depths
        weights, pairs = spectra, load_i64(params, PAIRS)
        for pair in range(load_i64(params, PAIR_COUNT)):
            first, second = load_i64(pairs, 2 * pair), load_i64(pairs, 2 * pair + 1)
            pack_pair(kind, lanes, panel, data, data_step, depths * load_i64(params, LINES) * channels, first, second)
            for output in range(0, outputs, tile // tile_rows):
                for row in range(0, rows, tile_rows):
                    target = data + (row * outputs + output) * data_step + first
                    mix_tile(kind, lanes, tile, size, params, scratch, weights, row, target, second - first)
                weights += tile_lines * tile * 2 * size

    return jit.callback(mix, name, 3)


@cache
def mixing_kernel(kind: str, vector_bytes: int, tile: int) -> Any:
    """The compiled part ``(params, scratch, spectra)`` that mixes channels, for tiles of so many outputs.

    The spectra of a task's lines become those of its outputs, in the same place.
    """
    lanes = lanes_of(kind, vector_bytes)
    return _make_mix(kind, lanes, tile, f"mix_spectra_{kind}_{tile}_{8 * vector_bytes}bit")
