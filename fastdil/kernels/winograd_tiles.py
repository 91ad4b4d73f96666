"""The register tile of `fastdil.kernels.winograd`: products of one frequency, between the transforms."""

from __future__ import annotations

from functools import partial

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.tiles import accumulate
from fastdil.kernels.totals import close_chain, close_chain_exactly
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Products that are summed in registers before they are added to the tile. Short, because transformed samples and
#: weights may cancel against each other at the end: their sums must be better than those of plain products.
CHAIN_TERMS = 12
#: The same where a single axis is transformed.
LINE_CHAIN_TERMS = 16
#: Sums of chains that stay in registers, beside as many chains, while a tile is computed: in memory, they would be
#: loaded and stored for every chain (LLVM did both twice).
_MOST_TOTALS = 12
#: Chains during which the lines of a tile are fetched, to which they will be added.
_FETCHING_CHAINS = 6


def tile_shape(vector_bytes: int) -> tuple[int, int]:
    """Output rows and vectors of the tile: 24 sums, or 8 where there are 16 registers.

    4 x 3 sums would leave none of 16 to the totals of short chains, which then took 17 % of the time and not 2 (Zen 3).
    """
    return (8, 3) if vector_bytes == 64 else (4, 2)


@intrinsic(prefer_literal=True)
def frequency_tile(
    typingctx, kind, lanes, rows, width, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume,
    is_half,
):  # fmt: skip
    """``tile (+)= weights @ panel`` over `taps` times `terms` products, of a tap in equal chains of `chain` at most.

    `weights` holds `rows` consecutive numbers per product; lines of the panel are `pitch` bytes apart, taps `tap_step`.
    `tile` is added to if `resume`; what that rounds away is kept at `errors`, unless this is 0.
    If `is_half`, four rows are enough.
    """
    kind_name, lane_count, tile_rows, tile_width, most_terms = literals(kind, lanes, rows, width, chain)

    def codegen(context, builder, signature, args):
        weights, panel, taps, tap_step, terms, pitch, tile, errors, resume, is_half = args[5:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows_at_once = tile_rows if tile_rows * tile_width <= _MOST_TOTALS else tile_rows // 2
        zeros = [vectors.zero] * (rows_at_once * tile_width)
        chains = builder.sdiv(builder.add(terms, constant(most_terms - 1)), constant(most_terms))

        def step(_, carried):
            at_weights, at_panel, *sums = carried
            samples = [vectors.load(vectors.at(at_panel, v * lane_count)) for v in range(tile_width)]
            sums = accumulate(vectors, sums, samples, [vectors.at(at_weights, row) for row in range(rows_at_once)])
            return [vectors.at(at_weights, tile_rows), builder.add(at_panel, pitch), *sums]

        def add_chain(places, _, carried):
            at_weights, at_panel, left, ahead, *totals = carried
            # The tile and its errors, which may have left L2 since the last block of terms.
            for place in places:
                for line in range(lines_per_chain):
                    vectors.prefetch(builder.add(place, builder.add(ahead, constant(64 * line))))
            ahead = builder.add(ahead, constant(64 * lines_per_chain))
            count = builder.select(builder.icmp_signed("<", left, most), left, most)
            at_weights, at_panel, *sums = counted_loop(builder, count, [at_weights, at_panel, *zeros], step)
            totals = [vectors.add(total, value) for total, value in zip(totals, sums, strict=True)]
            return [at_weights, at_panel, builder.sub(left, most), ahead, *totals]

        def add_tap(places, _, carried):
            at_weights, at_panel, *rest = carried
            start = [at_weights, at_panel, terms, *rest]
            results = counted_loop(builder, chains, start, partial(add_chain, places))
            return [results[0], builder.add(at_panel, tap_step), *results[3:]]

        most = builder.sdiv(builder.add(terms, builder.sub(chains, constant(1))), chains)
        is_exact = builder.icmp_signed("!=", errors, constant(0))
        lines_per_chain = -(-rows_at_once * tile_width * lane_count * vectors.size // (64 * _FETCHING_CHAINS))

        def add_rows(part, _):
            row = builder.mul(part, constant(rows_at_once))
            shift = builder.mul(row, constant(tile_width * lane_count))
            here, here_errors = vectors.at(tile, shift), vectors.at(errors, shift)
            places = [here, builder.select(is_exact, here_errors, here)]
            start = [vectors.at(weights, row), panel, constant(0), *zeros]
            totals = counted_loop(builder, taps, start, partial(add_tap, places))[3:]
            with builder.if_else(is_exact) as (exactly, plainly):
                with exactly:
                    close_chain_exactly(vectors, here, here_errors, totals, resume)
                with plainly:
                    close_chain(vectors, here, totals, resume)
            return []

        parts = tile_rows // rows_at_once
        is_whole = builder.icmp_signed("==", is_half, constant(0))
        counted_loop(builder, builder.select(is_whole, constant(parts), constant(1)), [], add_rows)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume, is_half
    )  # fmt: skip
    return returns(types.void, arguments), codegen
