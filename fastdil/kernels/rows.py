"""What filter banks and MiniRocket share: windows of a series with zeros around it, and sums across lanes."""

from __future__ import annotations

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


def fold_to(values: list, lanes: int, make: Callable[[int], Vectors], combine: Callable):
    """Reduce each of a power of two of vectors across its lanes: one vector with a lane for each of them.

    Pairs of vectors are folded together: three operations for two of them, where each on its own takes some ten.
    `make` gives the vector layer for a number of lanes, `combine` adds two vectors of a layer.
    """
    wanted, vectors = len(values), make(lanes)
    even, odd = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [combine(vectors, vectors.shuffle(a, b, even), vectors.shuffle(a, b, odd)) for a, b in pairs]
    (value,) = values
    while lanes > wanted:
        even, odd = range(0, lanes, 2), range(1, lanes, 2)
        lanes //= 2
        value = combine(make(lanes), vectors.shuffle(value, value, even), vectors.shuffle(value, value, odd))
    return value


@intrinsic
def load_i32(typingctx, address, index):
    """The 32-bit counter number `index` behind `address`, widened."""

    def codegen(context, builder, signature, args):
        integers = Vectors(builder, "i32", 1)
        return builder.sext(integers.load_scalar(integers.at(args[0], args[1])), args[1].type)

    return types.int64(types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def copy_or_zero(typingctx, kind, lanes, target, source, count):
    """Copy `count` elements, or write as many zeros where `source` is 0; whole vectors are written."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        target, source, count = args[2:]
        present = builder.icmp_signed("!=", source, constant(0))
        # A masked load that has no lane on still wants a mapped address to be quick: take the target's.
        start = builder.select(present, source, target)
        limit = builder.select(present, count, constant(0))
        blocks = builder.udiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))

        def body(index, carried):
            at = builder.mul(index, constant(lane_count))
            mask = vectors.first_lanes(builder.sub(limit, at))
            vectors.store(vectors.load_masked(vectors.at(start, at), mask), vectors.at(target, at))
            return []

        counted_loop(builder, blocks, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, source, count)), codegen


@intrinsic(prefer_literal=True)
def combine_rows(typingctx, kind, lanes, sign, target, a, b, count):
    """``target = a + sign * b`` on rows of `count` elements, in whole vectors; `sign` is 1 or -1."""
    kind_name, lane_count, sign_value = literals(kind, lanes, sign)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        target, a, b, count = args[3:]
        blocks = builder.udiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))

        def body(index, carried):
            at = builder.mul(index, constant(lane_count))
            left, right = vectors.load(vectors.at(a, at)), vectors.load(vectors.at(b, at))
            total = vectors.add(left, right) if sign_value > 0 else vectors.sub(left, right)
            vectors.store(total, vectors.at(target, at))
            return []

        counted_loop(builder, blocks, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, sign, target, a, b, count)), codegen


@helper
def fill_window(kind, lanes, size, target, series, length, first, count):
    """Samples `first` to ``first + count - 1`` of a series of `length`, zeros outside of it.

    The parts are written from left to right, because each is written in whole vectors.
    """
    before = min(max(-first, 0), count)
    inside = max(min(length - first, count) - before, 0)
    copy_or_zero(kind, lanes, target, 0, before)
    copy_or_zero(kind, lanes, target + before * size, series + (first + before) * size, inside)
    after = before + inside
    copy_or_zero(kind, lanes, target + after * size, 0, count - after)
