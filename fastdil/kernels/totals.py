"""Adding finished chains of products to tiles in memory, plainly or with the rounding errors kept."""

from __future__ import annotations

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


def close_chain(vectors: Vectors, tile, sums: list, resume) -> None:
    """Store the accumulators, or add them to what the tile holds."""
    with vectors.builder.if_else(vectors.builder.icmp_signed("!=", resume, constant(0))) as (add, replace):
        with add:
            for i, value in enumerate(sums):
                at = vectors.at(tile, i * vectors.lanes)
                vectors.store(vectors.add(vectors.load(at), value), at)
        with replace:
            for i, value in enumerate(sums):
                vectors.store(value, vectors.at(tile, i * vectors.lanes))


def add_to_tile(vectors: Vectors, tile, sums: list, resume) -> list:
    """The accumulators added to what the tile holds if `resume`; the tile stays as it is."""
    before = vectors.builder.block
    with vectors.builder.if_then(vectors.builder.icmp_signed("!=", resume, constant(0))):
        totals = [vectors.add(vectors.load(vectors.at(tile, i * vectors.lanes)), v) for i, v in enumerate(sums)]
        after = vectors.builder.block
    phis = [vectors.builder.phi(vectors.type) for _ in sums]
    for phi, value, total in zip(phis, sums, totals, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(total, after)
    return phis


def close_chain_exactly(vectors: Vectors, tile, errors, sums: list, resume) -> None:
    """Add the accumulators to the tile, and what that rounds away to `errors` (TwoSum: Knuth; Moller 1965)."""
    is_first = vectors.builder.icmp_signed("==", resume, constant(0))
    for i, value in enumerate(sums):
        two_sum(vectors, value, vectors.at(tile, i * vectors.lanes), vectors.at(errors, i * vectors.lanes), is_first)


def two_sum(vectors: Vectors, value, total, errors, is_first=None) -> None:
    """Add to the vector at `total`, and what that rounds away to the one at `errors`; both start anew if `is_first`."""
    before, error = vectors.load(total), vectors.load(errors)
    if is_first is not None:
        before, error = (vectors.builder.select(is_first, vectors.zero, old) for old in (before, error))
    after = vectors.add(before, value)
    added = vectors.sub(after, before)
    lost = vectors.add(vectors.sub(before, vectors.sub(after, added)), vectors.sub(value, added))
    vectors.store(after, total)
    vectors.store(vectors.add(error, lost), errors)


def _combine(operation: Callable, kind, lanes, total, other, count):
    """An intrinsic's signature and code: ``total = operation(total, other)`` on `count` vectors."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        total, other, count = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            at = vectors.at(total, shift)
            vectors.store(operation(vectors, vectors.load(at), vectors.load(vectors.at(other, shift))), at)
            return []

        counted_loop(builder, count, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, total, other, count)), codegen


@intrinsic(prefer_literal=True)
def add_vectors(typingctx, kind, lanes, total, part, count):
    """``total += part``, `count` vectors."""
    return _combine(Vectors.add, kind, lanes, total, part, count)


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
            two_sum(vectors, value, vectors.at(total, shift), vectors.at(errors, shift), is_first)
            return []

        counted_loop(builder, count, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, part, total, errors, count, resume)), codegen


@intrinsic(prefer_literal=True)
def settle_tile(typingctx, kind, lanes, total, errors, count):
    """Add the errors that were kept to the sums; where a sum is infinite its error is NaN, and ignored."""
    return _combine(Vectors.add_unless_nan, kind, lanes, total, errors, count)
