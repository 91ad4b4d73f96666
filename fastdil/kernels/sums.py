"""Weighted sums of whole rows: the vector arithmetic of `fastdil.kernels.atrous`.

Every lane is an output of its own, and its terms are added in the order in which they are listed.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Vectors whose sums are in registers at a time: their weights and addresses are loaded once.
_TILE = 4


class _Step:
    """The arithmetic of `smooth_vectors` on one tile after another.

    With few terms (`unrolled`, else 0) their addresses and weights stay in registers; of any number they are loaded
    anew for every tile.
    """

    def __init__(self, vectors: Vectors, unrolled: int, operands: tuple):
        self.vectors, self.integers = vectors, Vectors(vectors.builder, "i64", 1)
        self.out, self.centre, self.table, self.terms, self.weights, self.previous, self.detail, self.ahead = operands
        self.gain = vectors.splat(vectors.load_scalar(self.weights))
        self.fixed = [self._term(constant(term)) for term in range(unrolled)]

    def _term(self, term) -> tuple:
        """Address of a source and its weight in all lanes."""
        vectors, integers = self.vectors, self.integers
        weight = vectors.load_scalar(vectors.at(self.weights, vectors.builder.add(term, constant(1))))
        return integers.load_scalar(integers.at(self.table, term)), vectors.splat(weight)

    def tile(self, at, width: int, mask) -> None:
        """Smooth `width` vectors that start `at` elements into the operands."""
        vectors, builder = self.vectors, self.vectors.builder
        places = [builder.add(at, constant(v * vectors.lanes)) for v in range(width)]
        centres = _load(vectors, self.centre, places, mask)
        if self.ahead is not None:
            for place in places:
                vectors.prefetch(vectors.at(self.ahead, place))

        def add(term: tuple, sums: list) -> list:
            source, weight = term
            changes = [vectors.sub(a, b) for a, b in zip(_load(vectors, source, places, mask), centres, strict=True)]
            return [vectors.fma(weight, change, total) for change, total in zip(changes, sums, strict=True)]

        sums = [builder.fmul(self.gain, value) for value in centres]
        for term in self.fixed:
            sums = add(term, sums)
        if not self.fixed:
            sums = counted_loop(builder, self.terms, sums, lambda term, carried: add(self._term(term), carried))
        _store(vectors, sums, self.out, places, mask)
        with builder.if_then(builder.icmp_signed("!=", self.detail, constant(0))):
            before = _load(vectors, self.previous, places, mask)
            details = [vectors.sub(a, b) for a, b in zip(before, sums, strict=True)]
            _store(vectors, details, self.detail, places, mask)


def _load(vectors: Vectors, base, places: list, mask) -> list:
    addresses = [vectors.at(base, place) for place in places]
    return [vectors.load(a) if mask is None else vectors.load_masked(a, mask) for a in addresses]


def _store(vectors: Vectors, values: list, base, places: list, mask) -> None:
    for value, place in zip(values, places, strict=True):
        address = vectors.at(base, place)
        if mask is None:
            vectors.store(value, address)
        else:
            vectors.store_masked(value, address, mask)


def _each_tile(vectors: Vectors, count, tile) -> None:
    """Call ``tile(first element, vectors, mask)`` for all of `count` elements: whole tiles, then masked vectors."""
    builder, strip, lanes = vectors.builder, _TILE * vectors.lanes, vectors.lanes
    tiles = builder.udiv(count, constant(strip))

    def whole(index, carried):
        tile(builder.mul(index, constant(strip)), _TILE, None)
        return []

    counted_loop(builder, tiles, [], whole)
    done = builder.mul(tiles, constant(strip))
    rest = builder.sub(count, done)

    def masked(index, carried):
        first = builder.mul(index, constant(lanes))
        tile(builder.add(done, first), 1, vectors.first_lanes(builder.sub(rest, first)))
        return []

    counted_loop(builder, builder.udiv(builder.add(rest, constant(lanes - 1)), constant(lanes)), [], masked)


@intrinsic(prefer_literal=True)
def smooth_vectors(
    typingctx, kind, lanes, unrolled, out, centre, table, terms, weights, count, previous, detail, ahead
):  # fmt: skip
    """``out = g * centre + sum over t of weights[1 + t] * (table[t] - centre)`` for `count` elements, g = weights[0].

    `table` lists the addresses of `terms` sources. With `detail` (an address, else 0), ``detail = previous - out``.

    Differences, so that a constant passes unchanged where g is 1: sums of products round, and the details of a flat
    region would be noise of some eps instead of zero. `unrolled` is the number of terms, or 0 for any number.
    `ahead` is an address where the next call will read `count` elements that are not in the cache, or a constant 0.
    """
    kind_name, lane_count, fixed = literals(kind, lanes, unrolled)

    def codegen(context, builder, signature, args):
        out, centre, table, terms, weights, count, previous, detail, following = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        following = None if isinstance(ahead, types.Literal) else following
        operands = (out, centre, table, terms, weights, previous, detail, following)
        _each_tile(vectors, count, _Step(vectors, fixed, operands).tile)
        return context.get_dummy_value()

    arguments = (kind, lanes, unrolled, out, centre, table, terms, weights, count, previous, detail, ahead)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def sum_vectors(typingctx, kind, lanes, out, source, step, terms, count):
    """``out = source + (source - step) + ...``: `terms` arrays of `count` elements, `step` bytes apart."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        out, source, step, terms, count = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def tile(at, width, mask):
            places = [builder.add(at, constant(v * lane_count)) for v in range(width)]

            def over_terms(term, carried):
                address, *sums = carried
                following = builder.sub(address, step)
                values = _load(vectors, following, places, mask)
                return [following, *(vectors.add(total, value) for total, value in zip(sums, values, strict=True))]

            rest = builder.sub(terms, constant(1))
            first = _load(vectors, source, places, mask)
            _, *sums = counted_loop(builder, rest, [source, *first], over_terms)
            _store(vectors, sums, out, places, mask)

        _each_tile(vectors, count, tile)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, out, source, step, terms, count)), codegen


@intrinsic(prefer_literal=True)
def transpose_block(typingctx, kind, lanes, target, target_step, source, source_step, rows, columns):
    """Write `rows` rows of `columns` elements, both at most `lanes`, as `columns` rows of `rows` elements.

    Steps are in bytes from row to row. Nothing else is read or written.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, rows, columns = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)
        reads = [builder.add(source, builder.mul(source_step, constant(row))) for row in range(lane_count)]
        writes = [builder.add(target, builder.mul(target_step, constant(row))) for row in range(lane_count)]
        all_there = builder.icmp_signed("==", builder.add(rows, columns), constant(2 * lane_count))
        with builder.if_else(all_there) as (whole, partial):
            with whole:
                for value, address in zip(
                    _transposed(vectors, [vectors.load(at) for at in reads]), writes, strict=True
                ):
                    vectors.store(value, address)
            with partial:
                values = []
                for row, address in enumerate(reads):
                    # An empty mask on an address that may not be mapped takes a microcode assist.
                    is_there = builder.icmp_signed(">", rows, constant(row))
                    mask = vectors.first_lanes(builder.select(is_there, columns, constant(0)))
                    values.append(vectors.load_masked(builder.select(is_there, address, source), mask))
                mask = vectors.first_lanes(rows)
                for row, (value, address) in enumerate(zip(_transposed(vectors, values), writes, strict=True)):
                    with builder.if_then(builder.icmp_signed(">", columns, constant(row))):
                        vectors.store_masked(value, address, mask)
        return context.get_dummy_value()

    arguments = (kind, lanes, target, target_step, source, source_step, rows, columns)
    return returns(types.void, arguments), codegen


def _transposed(vectors: Vectors, rows: list) -> list:
    """As many vectors as they have lanes, transposed: log2(lanes) times, both halves of the list are interleaved."""
    lanes = vectors.lanes
    orders = [[first + i // 2 + i % 2 * lanes for i in range(lanes)] for first in (0, lanes // 2)]
    for _ in range(lanes.bit_length() - 1):
        pairs = zip(rows[: lanes // 2], rows[lanes // 2 :], strict=True)
        rows = [vectors.shuffle(a, b, order) for a, b in pairs for order in orders]
    return rows
