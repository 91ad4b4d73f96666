"""Micro-kernels: the register tiles in which all multiplications of `im2col` and `direct` happen.

A tile is `rows` output channels by `width` vectors of neighbouring outputs. Its accumulators live in registers as phi
nodes over the whole reduction; each step loads `width` vectors of samples and broadcasts `rows` weights.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.intrinsics import Vectors, clamp, constant, counted_loop, literals, low_bits, returns


def _open_tile(vectors: Vectors, rows: int, width: int, tile, resume) -> list:
    """Accumulators: what the tile buffer holds if `resume` is non-zero, else zeros."""
    on = vectors.builder.icmp_signed("!=", resume, constant(0))
    count = vectors.builder.select(on, constant(1), constant(0))

    def reload(index, _):
        return [vectors.load(vectors.at(tile, i * vectors.lanes)) for i in range(rows * width)]

    return counted_loop(vectors.builder, count, [vectors.zero] * (rows * width), reload)


def _close_tile(vectors: Vectors, tile, sums: list) -> None:
    for i, value in enumerate(sums):
        vectors.store(value, vectors.at(tile, i * vectors.lanes))


def _accumulate(vectors: Vectors, sums: list, samples: list, weights, rows: int) -> list:
    """One step of the reduction: outer product of `rows` weights and the sample vectors."""
    width = len(samples)
    result = list(sums)
    for row in range(rows):
        weight = vectors.splat(vectors.load_scalar(vectors.at(weights, row)))
        for column in range(width):
            i = row * width + column
            result[i] = vectors.fma(weight, samples[column], result[i])
    return result


@intrinsic(prefer_literal=True)
def gemm_tile(typingctx, kind, lanes, rows, width, stride, weights, tap_offsets, ntaps, nchannels, panel, tile, resume):
    """``tile (+)= weights @ panel`` over `ntaps` x `nchannels` terms.

    `weights` holds `rows` consecutive numbers per term; the terms of tap t start `tap_offsets[t]` elements further on.
    The panel has one line of `stride` vectors per term, of which the first `width` are used. `tile` is a buffer of
    ``rows * width`` vectors, added to if `resume`.
    """
    kind_name, lane_count, tile_rows, tile_width, line = literals(kind, lanes, rows, width, stride)

    def codegen(context, builder, signature, args):
        weights, tap_offsets, ntaps, nchannels, panel, tile, resume = args[5:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        sums = _open_tile(vectors, tile_rows, tile_width, tile, resume)

        def over_taps(tap, carried):
            first = vectors.at(weights, integers.load_scalar(integers.at(tap_offsets, tap)))

            def over_channels(index, inner):
                at_weights, at_panel, *inner_sums = inner
                samples = [vectors.load(vectors.at(at_panel, v * lane_count)) for v in range(tile_width)]
                inner_sums = _accumulate(vectors, inner_sums, samples, at_weights, tile_rows)
                return [vectors.at(at_weights, tile_rows), vectors.at(at_panel, line * lane_count), *inner_sums]

            results = counted_loop(builder, nchannels, [first, *carried], over_channels)
            return results[1:]

        _, *sums = counted_loop(builder, ntaps, [panel, *sums], over_taps)
        _close_tile(vectors, tile, sums)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, stride, weights, tap_offsets, ntaps, nchannels, panel, tile, resume,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def stencil_tile(
    typingctx, kind, lanes, rows, width, table, nlines, ntaps, x, weights, step, tile, resume, first, last, masked
):
    """A tile of a stencil: samples come straight from the rows of the input, wherever the taps fall.

    `table` lists `nlines` pairs of element offsets: of the row of samples behind `x`, of its weights behind
    `weights`. Tap t reads the vectors that start ``t * step`` elements into the row. With `masked`, only positions
    from `first` to before `last` (elements relative to the tile's start, tap 0) are read; the others count as zeros.
    """
    kind_name, lane_count, tile_rows, tile_width, is_masked = literals(kind, lanes, rows, width, masked)

    def codegen(context, builder, signature, args):
        table, nlines, ntaps, x, weights, step, tile, resume, first, last = args[4:14]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        sums = _open_tile(vectors, tile_rows, tile_width, tile, resume)
        load = _edge_loader(vectors, first, last) if is_masked else _inner_loader(vectors)

        def over_lines(line, carried):
            entry = integers.at(table, builder.mul(line, constant(2)))
            row = vectors.at(x, integers.load_scalar(entry))
            line_weights = vectors.at(weights, integers.load_scalar(integers.at(entry, 1)))

            def over_taps(tap, inner):
                at, at_weights, *inner_sums = inner
                samples = [load(row, at, v * lane_count) for v in range(tile_width)]
                inner_sums = _accumulate(vectors, inner_sums, samples, at_weights, tile_rows)
                return [builder.add(at, step), vectors.at(at_weights, tile_rows), *inner_sums]

            return counted_loop(builder, ntaps, [constant(0), line_weights, *carried], over_taps)[2:]

        _close_tile(vectors, tile, counted_loop(builder, nlines, sums, over_lines))
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, table, nlines, ntaps, x, weights, step, tile, resume, first, last, masked,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


def _inner_loader(vectors: Vectors) -> Callable:
    return lambda row, at, shift: vectors.load(vectors.at(vectors.at(row, at), shift))


def _edge_loader(vectors: Vectors, first, last) -> Callable:
    """Loads that touch only positions first..last-1 of a row; the mask is two shifts, cheaper than a compare."""
    builder = vectors.builder

    def load(row, at, shift):
        position = builder.add(at, constant(shift))
        skip = clamp(builder, builder.sub(first, position), vectors.lanes)
        stop = clamp(builder, builder.sub(last, position), vectors.lanes)
        bits = builder.and_(low_bits(builder, stop), builder.not_(low_bits(builder, skip)))
        return vectors.load_masked(vectors.at(row, position), vectors.mask_from_bits(bits))

    return load


@intrinsic(prefer_literal=True)
def fma_chains(typingctx, kind, lanes, chains, steps, target):
    """`steps` multiply-adds in each of `chains` independent registers; their sum goes to `target`."""
    kind_name, lane_count, chain_count = literals(kind, lanes, chains)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        factor = vectors.load(args[4])

        def step(_, sums):
            return [vectors.fma(factor, value, factor) for value in sums]

        sums = counted_loop(builder, args[3], [factor] * chain_count, step)
        total = sums[0]
        for value in sums[1:]:
            total = vectors.add(total, value)
        vectors.store(total, args[4])
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, chains, steps, target)), codegen
