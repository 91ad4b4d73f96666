"""Micro-kernels: the register tiles in which all multiplications of `im2col` and `direct` happen.

A tile is `rows` output channels by `width` vectors of neighbouring outputs. Its accumulators live in registers as phi
nodes over one chain of the reduction; each step loads `width` vectors of samples and broadcasts `rows` weights.
Chains start from zero and are short, because the rounding errors of equal terms all point the same way: the sum of
n equal products is off by up to n / 8 eps.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.finish import optional_bias, store_row
from fastdil.kernels.totals import add_to_tile, close_chain, close_chain_exactly
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


def tile_shape(vector_bytes: int) -> tuple[int, int]:
    """Output rows and vectors of the tile of a matrix product: 24 accumulators of 32 registers, or 12 of 16."""
    return (8, 3) if vector_bytes == 64 else (4, 3)


def accumulate(vectors: Vectors, sums: list, samples: list, weights: list) -> list:
    """One step of the reduction: outer product of the weights at these addresses, one per row, and the samples."""
    width = len(samples)
    result = list(sums)
    for row, address in enumerate(weights):
        weight = vectors.splat(vectors.load_scalar(address))
        for column in range(width):
            i = row * width + column
            result[i] = vectors.fma(weight, samples[column], result[i])
    return result


def load_samples(vectors: Vectors, at, masks, width: int, is_masked: bool) -> list:
    """`width` vectors of samples that follow each other, under the masks listed for them if `is_masked`."""
    places = [vectors.at(at, v * vectors.lanes) for v in range(width)]
    if not is_masked:
        return [vectors.load(place) for place in places]
    integers = Vectors(vectors.builder, "i64", 1)
    bits = [integers.load_scalar(integers.at(masks, v)) for v in range(width)]
    return [vectors.load_masked(place, vectors.mask_from_bits(b)) for place, b in zip(places, bits, strict=True)]


def _add_terms(
    vectors: Vectors, shape: tuple[int, int, int], count, at_weights, at_panel, sums: list, ahead=None
) -> list:
    """`count` steps over weights and lines of a panel that follow each other; returns where they end, and the sums.

    `shape` is rows and vectors of the tile, and elements of a line. Weights that lie `ahead` bytes ahead are fetched.
    """
    rows, width, line = shape

    def step(_, carried):
        at_weights, at_panel, *sums = carried
        samples = [vectors.load(vectors.at(at_panel, v * vectors.lanes)) for v in range(width)]
        places = [vectors.at(at_weights, row) for row in range(rows)]
        if ahead is not None:
            vectors.prefetch(vectors.builder.add(at_weights, ahead))
        return [vectors.at(at_weights, rows), vectors.at(at_panel, line), *accumulate(vectors, sums, samples, places)]

    return counted_loop(vectors.builder, count, [at_weights, at_panel, *sums], step)[1:]


@intrinsic(prefer_literal=True)
def chain_tile(typingctx, kind, lanes, rows, width, stride, weights, count, panel, tile, resume):
    """``tile (+)= weights @ panel`` over `count` terms in one chain.

    `weights` holds `rows` numbers per term, the panel a line of `stride` vectors, of which the first `width` are used.
    `tile` is a buffer of ``rows * width`` vectors, added to if `resume`.
    """
    kind_name, lane_count, tile_rows, tile_width, line = literals(kind, lanes, rows, width, stride)

    def codegen(context, builder, signature, args):
        weights, count, panel, tile, resume = args[5:]
        vectors, shape = Vectors(builder, kind_name, lane_count), (tile_rows, tile_width, line * lane_count)
        zeros = [vectors.zero] * (tile_rows * tile_width)
        _, *sums = _add_terms(vectors, shape, count, weights, panel, zeros)
        close_chain(vectors, tile, sums, resume)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, rows, width, stride, weights, count, panel, tile, resume)), codegen


@intrinsic(prefer_literal=True)
def gemm_tile(
    typingctx, kind, lanes, rows, width, stride, weights, part_step, block, kernel_taps, tap_table, taps, tap_groups,
    chain_taps, channels, parts, part, panel, tile, resume,
):  # fmt: skip
    """``tile (+)= weights @ panel`` over `taps` x `channels` terms, in chains of `chain_taps` taps x `part` channels.

    There are `tap_groups` times `parts` chains, ordered by part, then tap; several parts only with `chain_taps` of 1.
    `weights` is ordered by part, block of `rows` outputs, tap and channel: parts start `part_step` elements apart, a
    block has `kernel_taps` taps, and `tap_table` lists those of the panel, which is ordered by tap and channel. The
    rest is as in `chain_tile`.
    """
    kind_name, lane_count, tile_rows, tile_width, line = literals(kind, lanes, rows, width, stride)

    def codegen(context, builder, signature, args):
        weights, part_step, block, kernel_taps, tap_table, taps, tap_groups, chain_taps = args[5:13]
        channels, parts, part, panel, tile, resume = args[13:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        shape, zeros = (tile_rows, tile_width, line * lane_count), [vectors.zero] * (tile_rows * tile_width)
        part_bytes, line_size = vectors.at(constant(0), part_step), constant(line * lane_count)
        tap_bytes = vectors.at(constant(0), builder.mul(channels, line_size))
        first_tap = builder.mul(block, kernel_taps)

        def limited(left, most):
            return builder.select(builder.icmp_signed("<", left, most), left, most)

        def add_chain(at_weights, table, count, some_channels, at_panel, resume):
            """One chain: `count` taps of the table, for some of the channels."""
            # The same weights of the next block are read next, and lie elsewhere where the panel has not all taps.
            tap_size = builder.mul(some_channels, constant(tile_rows))
            ahead = vectors.at(constant(0), builder.mul(kernel_taps, tap_size))

            def over_taps(tap, carried):
                number = builder.add(first_tap, integers.load_scalar(integers.at(table, tap)))
                first = vectors.at(at_weights, builder.mul(number, tap_size))
                return _add_terms(vectors, shape, some_channels, first, carried[0], carried[1:], ahead)

            _, *sums = counted_loop(builder, count, [at_panel, *zeros], over_taps)
            close_chain(vectors, tile, sums, resume)

        def over_parts(index, carried):
            at_weights, at_panel, resume = carried
            some_channels = limited(builder.sub(channels, builder.mul(index, part)), part)

            def over_tap_groups(index, inner):
                first = builder.mul(index, chain_taps)
                count = limited(builder.sub(taps, first), chain_taps)
                add_chain(at_weights, integers.at(tap_table, first), count, some_channels, inner[0], inner[1])
                return [builder.add(inner[0], builder.mul(tap_bytes, chain_taps)), constant(1)]

            counted_loop(builder, tap_groups, [at_panel, resume], over_tap_groups)
            following = vectors.at(at_panel, builder.mul(some_channels, line_size))
            return [builder.add(at_weights, part_bytes), following, constant(1)]

        counted_loop(builder, parts, [weights, panel, resume], over_parts)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, stride, weights, part_step, block, kernel_taps, tap_table, taps, tap_groups,
        chain_taps, channels, parts, part, panel, tile, resume,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


def _store_rows(
    vectors: Vectors, sums: list, width: int, out, outputs, count, row_bytes, bias, mapped, relu, is_far
) -> None:
    """Store `count` sums of the first `outputs` rows, `row_bytes` apart, each with its element at `bias` (0: none).

    With `is_far` the lines that follow, of which each row will be stored next, are asked for.
    """
    builder, has_bias = vectors.builder, vectors.builder.icmp_signed("!=", bias, constant(0))
    is_short = builder.icmp_signed("<", count, constant(width * vectors.lanes))
    for row in range(len(sums) // width):
        with builder.if_then(builder.icmp_signed(">", outputs, constant(row))):
            shift = optional_bias(vectors, builder.select(has_bias, vectors.at(bias, row), bias), mapped, 1)
            at = builder.add(out, builder.mul(row_bytes, constant(row)))
            store_row(vectors, sums[row * width : (row + 1) * width], at, count, is_short, shift, relu)
            with builder.if_then(builder.icmp_signed("!=", is_far, constant(0))):
                for v in range(width):
                    vectors.prefetch(vectors.at(at, builder.add(count, constant(v * vectors.lanes))), for_writing=True)


@intrinsic(prefer_literal=True)
def stencil_tile(
    typingctx, kind, lanes, rows, width, masked, ahead, table, nlines, chain_lines, ntaps, x, step, weights, tap_step,
    masks, tile, errors, resume, out, outputs, count, row_bytes, bias, relu, is_far,
):  # fmt: skip
    """A tile of a stencil: samples come straight from the rows of the input, wherever the taps fall.

    `table` lists `nlines` pairs of element offsets: of the line of samples behind `x`, of its weights behind
    `weights`. Tap t reads the vectors that start ``t * step`` elements into the line; its weight for tile row r stands
    ``t * tap_step + r`` elements into the line's weights. With `masked`, `masks` lists for each tap and
    vector the lanes to read; the others count as zeros. With `ahead` each line asks for the samples that the next tile
    will read of it. `tile` is a buffer of ``rows * width`` vectors, added to if `resume`; every `chain_lines` lines
    make one chain. With `errors` (an address, else 0) the chains are added exactly.

    With `out` (an address, else 0; not with `errors`) the last chain, and what the tile holds, go straight to `outputs`
    rows of the result, `count` sums of each (`_store_rows`).
    """
    kind_name, lane_count, tile_rows, tile_width, is_masked, is_ahead = literals(
        kind, lanes, rows, width, masked, ahead
    )

    def codegen(context, builder, signature, args):
        table, nlines, chain_lines, ntaps, x, step, weights, tap_step, masks, tile, errors, resume = args[6:18]
        out, outputs, count, row_bytes, bias, relu, is_far = args[18:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        sample_step, weight_step = vectors.at(constant(0), step), vectors.at(constant(0), tap_step)

        def over_lines(line, carried):
            entry = integers.at(carried[0], builder.mul(line, constant(2)))
            at = vectors.at(x, integers.load_scalar(entry))
            at_weights = vectors.at(weights, integers.load_scalar(integers.at(entry, 1)))
            if is_ahead:
                last = builder.add(at, builder.mul(sample_step, builder.sub(ntaps, constant(1))))
                for place in range(tile_width * lane_count, 2 * tile_width * lane_count, 64 // vectors.size):
                    vectors.prefetch(vectors.at(last, place))

            def over_taps(tap, inner):
                at, at_weights, tap_masks, *sums = inner
                samples = load_samples(vectors, at, tap_masks, tile_width, is_masked)
                places = [vectors.at(at_weights, row) for row in range(tile_rows)]
                sums = accumulate(vectors, sums, samples, places)
                following = [builder.add(at, sample_step), builder.add(at_weights, weight_step)]
                return [*following, integers.at(tap_masks, tile_width), *sums]

            return [carried[0], *counted_loop(builder, ntaps, [at, at_weights, masks, *carried[1:]], over_taps)[3:]]

        def over_chains(chain, carried):
            done = builder.mul(chain, chain_lines)
            left = builder.sub(nlines, done)
            some = builder.select(builder.icmp_signed("<", left, chain_lines), left, chain_lines)
            part = integers.at(table, builder.mul(done, constant(2)))
            _, *sums = counted_loop(builder, some, [part, *zeros], over_lines)
            is_result = builder.icmp_signed("==", chain, last_chain)
            with builder.if_else(is_result) as (straight, chained):
                with straight:
                    totals = add_to_tile(vectors, tile, sums, carried[0])
                    _store_rows(
                        vectors, totals, tile_width, out, outputs, count, row_bytes, bias, weights, relu, is_far
                    )
                with chained, builder.if_else(builder.icmp_signed("==", errors, constant(0))) as (plainly, exactly):
                    with plainly:
                        close_chain(vectors, tile, sums, carried[0])
                    with exactly:
                        close_chain_exactly(vectors, tile, errors, sums, carried[0])
            return [constant(1)]

        zeros = [vectors.zero] * (tile_rows * tile_width)
        chains = builder.udiv(builder.add(nlines, builder.sub(chain_lines, constant(1))), chain_lines)
        # Once even without lines: the tile is zero then.
        chains = builder.select(builder.icmp_signed(">", chains, constant(1)), chains, constant(1))
        is_straight = builder.icmp_signed("!=", out, constant(0))
        last_chain = builder.select(is_straight, builder.sub(chains, constant(1)), chains)
        counted_loop(builder, chains, [resume], over_chains)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, masked, ahead, table, nlines, chain_lines, ntaps, x, step, weights, tap_step, masks,
        tile, errors, resume, out, outputs, count, row_bytes, bias, relu, is_far,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


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
