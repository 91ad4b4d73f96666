"""Micro-kernels: the register tiles in which all multiplications of `im2col` and `direct` happen.

A tile is `rows` output channels by `width` vectors of neighbouring outputs. Its accumulators live in registers as phi
nodes over one chain of the reduction; each step loads `width` vectors of samples and broadcasts `rows` weights.
Chains start from zero and are short, because the rounding errors of equal terms all point the same way: the sum of
n equal products is off by up to n / 8 eps.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.intrinsics import Vectors, constant, counted_loop, literals, returns


def _close_chain(vectors: Vectors, tile, sums: list, resume) -> None:
    """Store the accumulators, or add them to what the tile holds."""
    with vectors.builder.if_else(vectors.builder.icmp_signed("!=", resume, constant(0))) as (add, replace):
        with add:
            for i, value in enumerate(sums):
                at = vectors.at(tile, i * vectors.lanes)
                vectors.store(vectors.add(vectors.load(at), value), at)
        with replace:
            for i, value in enumerate(sums):
                vectors.store(value, vectors.at(tile, i * vectors.lanes))


def _close_chain_exactly(vectors: Vectors, tile, errors, sums: list, resume) -> None:
    """Add the accumulators to the tile, and what that rounds away to `errors` (TwoSum: Knuth; Moller 1965)."""
    is_first = vectors.builder.icmp_signed("==", resume, constant(0))
    for i, value in enumerate(sums):
        _two_sum(vectors, value, vectors.at(tile, i * vectors.lanes), vectors.at(errors, i * vectors.lanes), is_first)


def _two_sum(vectors: Vectors, value, total, errors, is_first) -> None:
    before = vectors.builder.select(is_first, vectors.zero, vectors.load(total))
    error = vectors.builder.select(is_first, vectors.zero, vectors.load(errors))
    after = vectors.add(before, value)
    added = vectors.sub(after, before)
    lost = vectors.add(vectors.sub(before, vectors.sub(after, added)), vectors.sub(value, added))
    vectors.store(after, total)
    vectors.store(vectors.add(error, lost), errors)


def _accumulate(vectors: Vectors, sums: list, samples: list, weights: list) -> list:
    """One step of the reduction: outer product of the weights at these addresses, one per row, and the samples."""
    width = len(samples)
    result = list(sums)
    for row, address in enumerate(weights):
        weight = vectors.splat(vectors.load_scalar(address))
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
        zeros = [vectors.zero] * (tile_rows * tile_width)

        def over_taps(tap, carried):
            first = vectors.at(weights, integers.load_scalar(integers.at(tap_offsets, tap)))

            def over_channels(index, inner):
                at_weights, at_panel, *inner_sums = inner
                samples = [vectors.load(vectors.at(at_panel, v * lane_count)) for v in range(tile_width)]
                places = [vectors.at(at_weights, row) for row in range(tile_rows)]
                inner_sums = _accumulate(vectors, inner_sums, samples, places)
                return [vectors.at(at_weights, tile_rows), vectors.at(at_panel, line * lane_count), *inner_sums]

            results = counted_loop(builder, nchannels, [first, *carried], over_channels)
            return results[1:]

        _, *sums = counted_loop(builder, ntaps, [panel, *zeros], over_taps)
        _close_chain(vectors, tile, sums, resume)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, stride, weights, tap_offsets, ntaps, nchannels, panel, tile, resume,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def stencil_tile(
    typingctx, kind, lanes, rows, width, masked, table, nlines, chain_lines, ntaps, x, step, weights, tap_step,
    row_step, masks, tile, errors, resume,
):  # fmt: skip
    """A tile of a stencil: samples come straight from the rows of the input, wherever the taps fall.

    `table` lists `nlines` pairs of element offsets: of the line of samples behind `x`, of its weights behind
    `weights`. Tap t reads the vectors that start ``t * step`` elements into the line; its weight for tile row r stands
    ``t * tap_step + r * row_step`` elements into the line's weights. With `masked`, `masks` lists for each tap and
    vector the lanes to read; the others count as zeros. `tile` is a buffer of ``rows * width`` vectors, added to if
    `resume`; every `chain_lines` lines make one chain. With `errors` (an address, else 0) the chains are added exactly.
    """
    kind_name, lane_count, tile_rows, tile_width, is_masked = literals(kind, lanes, rows, width, masked)

    def codegen(context, builder, signature, args):
        table, nlines, chain_lines, ntaps, x, step, weights, tap_step, row_step, masks, tile, errors, resume = args[5:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        row_shifts = [vectors.at(constant(0), builder.mul(row_step, constant(row))) for row in range(tile_rows)]
        sample_step, weight_step = vectors.at(constant(0), step), vectors.at(constant(0), tap_step)

        def load(address, tap_masks, vector):
            if not is_masked:
                return vectors.load(address)
            bits = integers.load_scalar(integers.at(tap_masks, vector))
            return vectors.load_masked(address, vectors.mask_from_bits(bits))

        def over_lines(line, carried):
            entry = integers.at(carried[0], builder.mul(line, constant(2)))
            at = vectors.at(x, integers.load_scalar(entry))
            at_weights = vectors.at(weights, integers.load_scalar(integers.at(entry, 1)))

            def over_taps(tap, inner):
                at, at_weights, tap_masks, *sums = inner
                samples = [load(vectors.at(at, v * lane_count), tap_masks, v) for v in range(tile_width)]
                places = [builder.add(at_weights, shift) for shift in row_shifts]
                sums = _accumulate(vectors, sums, samples, places)
                following = [builder.add(at, sample_step), builder.add(at_weights, weight_step)]
                return [*following, integers.at(tap_masks, tile_width), *sums]

            return [carried[0], *counted_loop(builder, ntaps, [at, at_weights, masks, *carried[1:]], over_taps)[3:]]

        def over_chains(chain, carried):
            done = builder.mul(chain, chain_lines)
            left = builder.sub(nlines, done)
            count = builder.select(builder.icmp_signed("<", left, chain_lines), left, chain_lines)
            part = integers.at(table, builder.mul(done, constant(2)))
            _, *sums = counted_loop(builder, count, [part, *zeros], over_lines)
            with builder.if_else(builder.icmp_signed("==", errors, constant(0))) as (plainly, exactly):
                with plainly:
                    _close_chain(vectors, tile, sums, carried[0])
                with exactly:
                    _close_chain_exactly(vectors, tile, errors, sums, carried[0])
            return [constant(1)]

        zeros = [vectors.zero] * (tile_rows * tile_width)
        chains = builder.udiv(builder.add(nlines, builder.sub(chain_lines, constant(1))), chain_lines)
        # Once even without lines: the tile is zero then.
        chains = builder.select(builder.icmp_signed(">", chains, constant(1)), chains, constant(1))
        counted_loop(builder, chains, [resume], over_chains)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, masked, table, nlines, chain_lines, ntaps, x, step, weights, tap_step, row_step,
        masks, tile, errors, resume,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def merge_tile(typingctx, kind, lanes, part, total, errors, count, resume):
    """Add a tile of `count` vectors to a total, and what that rounds away to `errors`.

    Long reductions need it: 100 equal parts added one by one are off by 12 eps.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        part, total, errors, count, resume = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)
        is_first = builder.icmp_signed("==", resume, constant(0))

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            value = vectors.load(vectors.at(part, shift))
            _two_sum(vectors, value, vectors.at(total, shift), vectors.at(errors, shift), is_first)
            return []

        counted_loop(builder, count, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, part, total, errors, count, resume)), codegen


@intrinsic(prefer_literal=True)
def settle_tile(typingctx, kind, lanes, total, errors, count):
    """Add the errors that were kept to the sums; where a sum is infinite its error is NaN, and ignored."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        total, errors, count = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            at = vectors.at(total, shift)
            error, value = vectors.load(vectors.at(errors, shift)), vectors.load(at)
            vectors.store(vectors.add_unless_nan(value, error), at)
            return []

        counted_loop(builder, count, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, total, errors, count)), codegen


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
