"""Finishing rows of outputs: bias and clipping on the way from a buffer to the result."""

from __future__ import annotations

from collections.abc import Sequence

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.copies import each_vector, move_vector
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


@intrinsic(prefer_literal=True)
def finish_row(typingctx, kind, lanes, target, source, count, bias, relu):
    """Copy `count` elements, add the element at address `bias` (0: none), clip at zero if `relu`."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        shift = optional_bias(vectors, args[5], args[3], 1)

        def finish(value):
            return add_and_clip(vectors, value, shift, args[6])

        each_vector(vectors, args[4], lambda at, mask: move_vector(vectors, finish, args[2], args[3], at, mask))
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, source, count, bias, relu)), codegen


@intrinsic(prefer_literal=True)
def finish_strips(typingctx, kind, lanes, width, target, source, source_step, count, bias, relu):
    """`finish_row` for `count` pieces of `width` whole vectors, `source_step` bytes apart; they become neighbours."""
    kind_name, lane_count, vector_count = literals(kind, lanes, width)

    def codegen(context, builder, signature, args):
        target, source, source_step, count, bias, relu = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        shift = optional_bias(vectors, bias, source, 1)

        def body(_, carried):
            to, at = carried
            for i in range(vector_count):
                value = vectors.load(vectors.at(at, i * lane_count))
                vectors.store(add_and_clip(vectors, value, shift, relu), vectors.at(to, i * lane_count))
            return [vectors.at(to, vector_count * lane_count), builder.add(at, source_step)]

        counted_loop(builder, count, [target, source], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, width, target, source, source_step, count, bias, relu)), codegen


@intrinsic(prefer_literal=True)
def finish_complex_row(typingctx, kind, lanes, target, by_real, by_imaginary, count, bias):
    """Combine two real rows of interleaved complex samples into one complex row of `count` real numbers.

    ``by_real`` holds sum(re(w) x), ``by_imaginary`` sum(im(w) x), both interleaved; their complex sum is
    ``re = a.re - b.im``, ``im = a.im + b.re``.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        shift = optional_bias(vectors, args[6], args[3], 2)
        swap = [i ^ 1 for i in range(lane_count)]
        one = 1.0 if kind_name[0] == "f" else 1
        signs = vectors.filled(-one, one)

        def move(at, mask):
            def combine(a):
                place = vectors.at(args[4], at)
                b = vectors.load(place) if mask is None else vectors.load_masked(place, mask)
                crossed = vectors.shuffle(b, b, swap)
                return vectors.add(vectors.fma(crossed, signs, a), shift)

            move_vector(vectors, combine, args[2], args[3], at, mask)

        each_vector(vectors, args[5], move)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, by_real, by_imaginary, count, bias)), codegen


def optional_bias(vectors: Vectors, address, mapped, period: int):
    """The `period` elements at `address` repeated over a vector, or zeros where the address is 0.

    Without a bias the masked load goes to a `mapped` address: even with no lane on, one to address 0 takes a microcode
    assist; a sixth of the time of a depthwise 3 x 3 layer went there.
    """
    builder = vectors.builder
    present = builder.icmp_signed("!=", address, constant(0))
    bits = builder.select(present, constant((1 << period) - 1), constant(0))
    few = vectors.load_masked(builder.select(present, address, mapped), vectors.mask_from_bits(bits))
    return vectors.shuffle(few, few, [i % period for i in range(vectors.lanes)])


def add_and_clip(vectors: Vectors, value, shift, relu):
    """``value + shift``, clipped at zero if `relu`."""
    builder = vectors.builder
    total = vectors.add(value, shift)
    return builder.select(builder.icmp_signed("!=", relu, constant(0)), vectors.relu(total), total)


def store_row(vectors: Vectors, sums: Sequence, at, outputs, is_short, shift, relu) -> None:
    """Finish the sums of one row and store them at `at`: whole vectors, or of a short row its `outputs`."""
    builder = vectors.builder
    values = [add_and_clip(vectors, value, shift, relu) for value in sums]
    places = [vectors.at(at, v * vectors.lanes) for v in range(len(values))]
    with builder.if_else(is_short) as (partly, wholly):
        with partly:
            for v, (value, place) in enumerate(zip(values, places, strict=True)):
                mask = vectors.first_lanes(builder.sub(outputs, constant(v * vectors.lanes)))
                vectors.store_masked(value, place, mask)
        with wholly:
            for value, place in zip(values, places, strict=True):
                vectors.store(value, place)
