"""Fourier transforms over vectors: every lane is a transform of its own, so nothing is ever shuffled.

The data are `length` points of two vectors, the real and the imaginary parts of one transform per lane, in place.
Forward transforms decimate in frequency and leave their result in digit-reversed order; inverse ones run the same
passes backwards (decimation in time) and bring it back to natural order, so that nothing is reordered either (Gentleman
and Sande 1966; Cooley and Tukey 1965). `frequencies` says which frequency stands where.

A real sequence takes half a transform: two of them, filtered with the same real taps, are the real and imaginary parts
of one complex sequence, and stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.intrinsics import Vectors, constant, counted_loop, literals, load_i64, returns

#: A transform's passes as kernels read them: radix, points between the inputs of a butterfly, first twiddle.
PASS_FIELDS = 3
#: Transforms are made of these factors, the odd ones first.
_ODD_RADICES = (3, 5)

#: Vectors of real and of imaginary parts.
Complex = tuple[Any, Any]


# ---------------------------------------------------------------------------------------------------------
# sizes, twiddles, order
# ---------------------------------------------------------------------------------------------------------


def radices(length: int) -> list[int]:
    """The passes of a forward transform of ``2**a``, ``3 * 2**a`` or ``5 * 2**a`` points, in the order they run.

    >>> radices(128), radices(96)
    ([8, 4, 4], [3, 8, 4])
    """
    odd = [r for r in _ODD_RADICES if length % r == 0]
    twos = (length // math.prod(odd)).bit_length() - 1
    eights = {0: 0, 1: 1, 2: 0}.get(twos, twos % 2)
    if twos == 1:
        return [*odd, 2]
    return [*odd, *(8,) * eights, *(4,) * ((twos - 3 * eights) // 2)]


def frequencies(length: int) -> np.ndarray:
    """The frequency that a forward transform leaves at each position.

    >>> frequencies(8).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    order = np.zeros(1, np.int64)
    for radix in reversed(radices(length)):
        order = np.concatenate([radix * order + i for i in range(radix)])
    return order


def passes(length: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """`PASS_FIELDS` integers for each pass, and all twiddle factors ``exp(-2 pi i ...)``, real and imaginary by turns."""
    fields, twiddles, at, span = [], [], 0, length
    for radix in radices(length):
        span //= radix
        fields += [radix, span, at]
        powers = np.arange(span)[:, None] * np.arange(1, radix)
        factors = np.exp(-2j * np.pi / (radix * span) * powers).ravel()
        twiddles.append(factors.view(np.float64))
        at += 2 * factors.size
    return np.array(fields, np.int64), np.concatenate(twiddles).astype(dtype)


def split_pass(length: int, point_bytes: int, l1: int) -> int:
    """Passes that run over all points; the rest run block by block, where blocks fit into the first-level cache."""
    first = 0
    for index, radix in enumerate(radices(length)):
        if length * point_bytes <= l1 // 2 + l1 // 4:
            break
        length //= radix
        first = index + 1
    return first


# ---------------------------------------------------------------------------------------------------------
# butterflies
# ---------------------------------------------------------------------------------------------------------


class _Complexes:
    """Arithmetic on pairs of vectors."""

    def __init__(self, vectors: Vectors, inverse: bool):
        self.vectors, self.builder, self.inverse = vectors, vectors.builder, inverse

    def add(self, a: Complex, b: Complex) -> Complex:
        return self.vectors.add(a[0], b[0]), self.vectors.add(a[1], b[1])

    def sub(self, a: Complex, b: Complex) -> Complex:
        return self.vectors.sub(a[0], b[0]), self.vectors.sub(a[1], b[1])

    def add_turned(self, a: Complex, b: Complex) -> Complex:
        """``a - i b``, or ``a + i b`` in an inverse transform."""
        if self.inverse:
            return self.vectors.sub(a[0], b[1]), self.vectors.add(a[1], b[0])
        return self.vectors.add(a[0], b[1]), self.vectors.sub(a[1], b[0])

    def sub_turned(self, a: Complex, b: Complex) -> Complex:
        """``a + i b``, or ``a - i b`` in an inverse transform."""
        if self.inverse:
            return self.vectors.add(a[0], b[1]), self.vectors.sub(a[1], b[0])
        return self.vectors.sub(a[0], b[1]), self.vectors.add(a[1], b[0])

    def add_scaled(self, a: Complex, b: Complex, factor: float) -> Complex:
        """``a + factor * b``."""
        scale = self.vectors.filled(factor)
        return self.vectors.fma(b[0], scale, a[0]), self.vectors.fma(b[1], scale, a[1])

    def scaled(self, a: Complex, factor: float) -> Complex:
        scale = self.vectors.filled(factor)
        return self.builder.fmul(a[0], scale), self.builder.fmul(a[1], scale)

    def times(self, a: Complex, w: Complex) -> Complex:
        """``a * w``, or ``a * conj(w)`` in an inverse transform."""
        real, imaginary = self.builder.fmul(a[0], w[0]), self.builder.fmul(a[1], w[0])
        minus = self.builder.fneg(w[1])
        crossed = (w[1], minus) if self.inverse else (minus, w[1])
        return self.vectors.fma(a[1], crossed[0], real), self.vectors.fma(a[0], crossed[1], imaginary)


def _dft2(c: _Complexes, a: Sequence[Complex]) -> list[Complex]:
    return [c.add(a[0], a[1]), c.sub(a[0], a[1])]


def _dft3(c: _Complexes, a: Sequence[Complex]) -> list[Complex]:
    both, apart = c.add(a[1], a[2]), c.scaled(c.sub(a[1], a[2]), math.sqrt(3) / 2)
    middle = c.add_scaled(a[0], both, -0.5)
    return [c.add(a[0], both), c.add_turned(middle, apart), c.sub_turned(middle, apart)]


def _dft4(c: _Complexes, a: Sequence[Complex]) -> list[Complex]:
    even, odd = _dft2(c, [a[0], a[2]]), _dft2(c, [a[1], a[3]])
    return [
        c.add(even[0], odd[0]),
        c.add_turned(even[1], odd[1]),
        c.sub(even[0], odd[0]),
        c.sub_turned(even[1], odd[1]),
    ]


def _dft5(c: _Complexes, a: Sequence[Complex]) -> list[Complex]:
    cosines, sines = ([f(2 * math.pi * i / 5) for i in (1, 2)] for f in (math.cos, math.sin))
    outer, inner = c.add(a[1], a[4]), c.add(a[2], a[3])
    outer_apart, inner_apart = c.sub(a[1], a[4]), c.sub(a[2], a[3])
    result = [c.add(c.add(a[0], outer), inner)] * 5
    for i, (near, far, sign) in enumerate(((0, 1, 1), (1, 0, -1)), start=1):
        middle = c.add_scaled(c.add_scaled(a[0], outer, cosines[near]), inner, cosines[far])
        turned = c.add_scaled(c.scaled(outer_apart, sines[near]), inner_apart, sign * sines[far])
        result[i], result[5 - i] = c.add_turned(middle, turned), c.sub_turned(middle, turned)
    return result


def _dft8(c: _Complexes, a: Sequence[Complex]) -> list[Complex]:
    even, odd = _dft4(c, a[::2]), _dft4(c, a[1::2])
    half = math.sqrt(0.5)
    diagonal = c.scaled(c.add_turned(odd[1], odd[1]), half)  # (1 - i) / sqrt 2 times it
    back = c.scaled(c.sub_turned(odd[3], odd[3]), half)  # minus (-1 - i) / sqrt 2 times it
    return [
        c.add(even[0], odd[0]),
        c.add(even[1], diagonal),
        c.add_turned(even[2], odd[2]),
        c.sub(even[3], back),
        c.sub(even[0], odd[0]),
        c.sub(even[1], diagonal),
        c.sub_turned(even[2], odd[2]),
        c.add(even[3], back),
    ]


_BUTTERFLIES = {2: _dft2, 3: _dft3, 4: _dft4, 5: _dft5, 8: _dft8}


@intrinsic(prefer_literal=True)
def butterflies(typingctx, kind, lanes, radix, inverse, data, groups, span, twiddles):
    """One pass over `groups` neighbouring groups of ``radix * span`` points; with `twiddles` 0 they are all 1."""
    kind_name, lane_count, radix_value, is_inverse = literals(kind, lanes, radix, inverse)

    def codegen(context, builder, signature, args):
        data, groups, span, twiddles = args[4:]
        vectors = Vectors(builder, kind_name, lane_count)
        c = _Complexes(vectors, bool(is_inverse))
        point = constant(2 * lane_count * vectors.size)
        step = builder.mul(span, point)
        group_step = builder.mul(step, constant(radix_value))

        def butterfly(at, factors):
            places = [at]
            for _ in range(radix_value - 1):
                places.append(builder.add(places[-1], step))
            values = [(vectors.load(p), vectors.load(vectors.at(p, lane_count))) for p in places]
            if is_inverse and factors:
                values[1:] = [c.times(v, w) for v, w in zip(values[1:], factors, strict=True)]
            values = _BUTTERFLIES[radix_value](c, values)
            if not is_inverse and factors:
                values[1:] = [c.times(v, w) for v, w in zip(values[1:], factors, strict=True)]
            for place, (real, imaginary) in zip(places, values, strict=True):
                vectors.store(real, place)
                vectors.store(imaginary, vectors.at(place, lane_count))

        def plain_group(index, carried):
            (at,) = carried
            butterfly(at, [])
            return [builder.add(at, group_step)]

        def twisted_group(index, carried):
            def over_span(j, inner):
                at, w = inner
                parts = [vectors.splat(vectors.load_scalar(vectors.at(w, i))) for i in range(2 * (radix_value - 1))]
                butterfly(at, list(zip(parts[::2], parts[1::2], strict=True)))
                return [builder.add(at, point), vectors.at(w, 2 * (radix_value - 1))]

            counted_loop(builder, span, [carried[0], twiddles], over_span)
            return [builder.add(carried[0], group_step)]

        with builder.if_else(builder.icmp_signed("==", twiddles, constant(0))) as (plain, twisted):
            with plain:
                counted_loop(builder, groups, [data], plain_group)
            with twisted:
                counted_loop(builder, groups, [data], twisted_group)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, radix, inverse, data, groups, span, twiddles)), codegen


@helper
def run_pass(kind, lanes, size, inverse, data, points, fields, twiddles):
    """One pass over `points` neighbouring points; `fields` is the pass's record."""
    radix, span = load_i64(fields, 0), load_i64(fields, 1)
    factors = twiddles + load_i64(fields, 2) * size if span > 1 else 0
    groups = points // (radix * span)
    if radix == 4:
        butterflies(kind, lanes, 4, inverse, data, groups, span, factors)
    elif radix == 8:
        butterflies(kind, lanes, 8, inverse, data, groups, span, factors)
    elif radix == 3:
        butterflies(kind, lanes, 3, inverse, data, groups, span, factors)
    elif radix == 5:
        butterflies(kind, lanes, 5, inverse, data, groups, span, factors)
    else:
        butterflies(kind, lanes, 2, inverse, data, groups, span, factors)


@helper
def transform(kind, lanes, size, inverse, data, length, fields, count, split, twiddles):
    """All `count` passes of a transform; those from `split` on block by block, so that blocks stay in the cache."""
    step = PASS_FIELDS * 8
    block = length
    if split > 0:
        block = load_i64(fields, (split - 1) * PASS_FIELDS + 1)
    if inverse == 0:
        for index in range(split):
            run_pass(kind, lanes, size, inverse, data, length, fields + index * step, twiddles)
    if split < count:
        for first in range(0, length, block):
            at = data + first * 2 * lanes * size
            for turn in range(split, count):
                index = turn if inverse == 0 else count - 1 - (turn - split)
                run_pass(kind, lanes, size, inverse, at, block, fields + index * step, twiddles)
    if inverse != 0:
        for turn in range(split):
            run_pass(kind, lanes, size, inverse, data, length, fields + (split - 1 - turn) * step, twiddles)
