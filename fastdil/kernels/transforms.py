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
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastdil import jit
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: A step of a transform as kernels read it: radix, groups of butterflies, points between the inputs of a butterfly,
#: address of the twiddle factors, byte offset of the first point.
STEP_FIELDS = 5
#: Transforms are made of these factors, of one of the odd ones at most.
_ODD_RADICES = (3, 5)

#: Vectors of real and of imaginary parts.
Complex = tuple[Any, Any]


# ---------------------------------------------------------------------------------------------------------
# sizes, twiddles, order
# ---------------------------------------------------------------------------------------------------------


def radices(length: int) -> list[int]:
    """The passes of a forward transform of 4, 12 or 20 times a power of two points, in the order they run.

    Radix 8 in place of 2 and 4 needs more registers than AVX2 has, and gained nothing.

    >>> radices(128), radices(96)
    ([2, 4, 4, 4], [3, 2, 4, 4])
    """
    odd = [r for r in _ODD_RADICES if length % r == 0]
    twos = (length // math.prod(odd)).bit_length() - 1
    return [*odd, *(2,) * (twos % 2), *(4,) * (twos // 2)]


def frequencies(length: int) -> np.ndarray:
    """The frequency that a forward transform leaves at each position.

    >>> frequencies(8).tolist()
    [0, 2, 4, 6, 1, 3, 5, 7]
    """
    order = np.zeros(1, np.int64)
    for radix in reversed(radices(length)):
        order = np.concatenate([radix * order + i for i in range(radix)])
    return order


class Schedule:
    """The steps of a transform of `length` points that take `point_bytes` each, and its twiddle factors.

    `table` is what a transform's kernel reads: the number of steps, then `STEP_FIELDS` integers for each. Passes
    over too many points for the first-level cache run one by one, the rest block by block.
    """

    def __init__(self, length: int, dtype: np.dtype, point_bytes: int, l1: int):
        passes, spans, factors, span = radices(length), [], [], length
        for radix in passes:
            span //= radix
            powers = np.arange(span)[:, None] * np.arange(1, radix)
            spans.append(span)
            factors.append(np.exp(-2j * np.pi / (radix * span) * powers).ravel().view(np.float64))
        self._twiddles = np.concatenate(factors).astype(dtype)  # the table has its address
        places = self._twiddles.ctypes.data + self._twiddles.itemsize * np.cumsum([0, *map(len, factors)])
        steps: list[int] = []

        def add(first: int, at: int) -> None:
            """Pass `first` and later ones over the block of points from `at` on."""
            points = passes[first] * spans[first]
            fits = points * point_bytes <= l1 // 4 * 3
            for index in range(first, len(spans) if fits else first + 1):
                radix, span, twiddles = passes[index], spans[index], int(places[index])
                steps.extend((radix, points // (radix * span), span, twiddles, at * point_bytes))
            if not fits and first + 1 < len(spans):
                for block in range(at, at + points, spans[first]):
                    add(first + 1, block)

        add(0, 0)
        self.table = np.array([len(steps) // STEP_FIELDS, *steps], np.int64)


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


_BUTTERFLIES = {2: _dft2, 3: _dft3, 4: _dft4, 5: _dft5}


@intrinsic(prefer_literal=True)
def butterflies(typingctx, kind, lanes, radix, inverse, twisted, data, groups, span, twiddles):
    """One pass over `groups` neighbouring groups of ``radix * span`` points; unless `twisted`, `span` is 1."""
    kind_name, lane_count, radix_value, is_inverse, is_twisted = literals(kind, lanes, radix, inverse, twisted)

    def codegen(context, builder, signature, args):
        data, groups, span, twiddles = args[5:]
        vectors = Vectors(builder, kind_name, lane_count)
        c = _Complexes(vectors, bool(is_inverse))
        point = constant(2 * lane_count * vectors.size)
        step = builder.mul(span, point) if is_twisted else point
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

        def over_span(index, carried):
            at, w = carried
            parts = [vectors.splat(vectors.load_scalar(vectors.at(w, i))) for i in range(2 * (radix_value - 1))]
            butterfly(at, list(zip(parts[::2], parts[1::2], strict=True)))
            return [builder.add(at, point), vectors.at(w, 2 * (radix_value - 1))]

        def over_groups(index, carried):
            (at,) = carried
            if is_twisted:
                counted_loop(builder, span, [at, twiddles], over_span)
            else:
                butterfly(at, [])
            return [builder.add(at, group_step)]

        counted_loop(builder, groups, [data], over_groups)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, radix, inverse, twisted, data, groups, span, twiddles)), codegen


# ---------------------------------------------------------------------------------------------------------
# the kernels
# ---------------------------------------------------------------------------------------------------------


def _make_transform(kind: str, lanes: int, inverse: int, name: str) -> Any:
    stamp = jit.source_stamp()

    def transform(data, table):
        stamp  # noqa: B018 - a closure cell in the cache key
        count = load_i64(table, 0)
        for turn in range(count):
            index = count - 1 - turn if inverse else turn
            step = table + (1 + index * STEP_FIELDS) * 8
            radix, groups, span = load_i64(step, 0), load_i64(step, 1), load_i64(step, 2)
            twiddles, at = load_i64(step, 3), data + load_i64(step, 4)
            if radix == 4:
                if span == 1:  # always the last pass, and no other
                    butterflies(kind, lanes, 4, inverse, 0, at, groups, span, twiddles)
                else:
                    butterflies(kind, lanes, 4, inverse, 1, at, groups, span, twiddles)
            elif radix == 2:
                butterflies(kind, lanes, 2, inverse, 1, at, groups, span, twiddles)
            elif radix == 3:
                butterflies(kind, lanes, 3, inverse, 1, at, groups, span, twiddles)
            else:
                butterflies(kind, lanes, 5, inverse, 1, at, groups, span, twiddles)

    return jit.callback(transform, name, 2)


@cache
def transform_kernel(kind: str, vector_bytes: int, inverse: bool) -> Any:
    """The compiled transform ``(data, table)``, forward or inverse, for one element kind and vector width."""
    name = f"{'inverse' if inverse else 'forward'}_transform_{kind}_{8 * vector_bytes}bit"
    return _make_transform(kind, lanes_of(kind, vector_bytes), int(inverse), name)
