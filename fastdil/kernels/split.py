"""Splitting float32 numbers into bfloat16 parts, as the tile unit reads them, and what is seen of them meanwhile.

Each part is the number, less the parts before it, rounded to nearest even. The two vectors at `extent` keep what
`write_extent` reports.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastdil.kernels.tile_unit import BLOCK, HIGH_HALF, ROW_BYTES, TILE_BYTES, TILE_ROWS
from fastdil.kernels.vectors import I32, Vectors, constant, counted_loop, literals, returns

#: Bytes of a line of 32 floats.
_LINE = BLOCK * 4


class _Splitter:
    """Emits the splitting of vectors of 16 floats, and keeps what is seen of them in two vectors at `extent`."""

    def __init__(self, builder: ir.IRBuilder, extent: ir.Value):
        self.floats, self.words = Vectors(builder, "f32", TILE_ROWS), Vectors(builder, "i32", TILE_ROWS)
        self._builder, self._extent = builder, extent

    def begin(self) -> list[ir.Value]:
        """The extremes seen so far."""
        return [self.words.load(self.words.at(self._extent, i * TILE_ROWS)) for i in range(2)]

    def end(self, extremes: list[ir.Value]) -> None:
        """Keep the extremes."""
        for i, value in enumerate(extremes):
            self.words.store(value, self.words.at(self._extent, i * TILE_ROWS))

    def measure(self, value: ir.Value, extremes: list[ir.Value]) -> list[ir.Value]:
        # The sign is shifted out, and less one, zero is the largest of all.
        builder, bits = self._builder, self._builder.bitcast(value, self.words.type)
        doubled = builder.add(bits, bits)
        less = builder.sub(doubled, self._all(1))
        return [
            builder.select(builder.icmp_unsigned(">", doubled, extremes[0]), doubled, extremes[0]),
            builder.select(builder.icmp_unsigned("<", less, extremes[1]), less, extremes[1]),
        ]

    def pair(self, even: ir.Value, odd: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Words of the next part of both, rounded to nearest even, and what is left of either."""
        builder = self._builder
        ends = [self._rounded(even), self._rounded(odd)]
        words = builder.or_(builder.lshr(ends[0], self._all(16)), ends[1])
        rest = (
            self.floats.sub(value, builder.bitcast(end, self.floats.type))
            for value, end in zip((even, odd), ends, strict=True)
        )
        return words, *rest

    def _all(self, value: int) -> ir.Constant:
        return ir.Constant(self.words.type, [value] * TILE_ROWS)

    def _rounded(self, value: ir.Value) -> ir.Value:
        """The bits of a float32, rounded to those of a bfloat16 and sixteen zeros."""
        builder, bits = self._builder, self._builder.bitcast(value, self.words.type)
        odd = builder.and_(builder.lshr(bits, self._all(16)), self._all(1))
        bits = builder.add(bits, builder.add(odd, self._all(0x7FFF)))
        return builder.and_(bits, self._all(HIGH_HALF))


@intrinsic(prefer_literal=True)
def split_weights(typingctx, parts, source, target, extent):
    """The tiles of one step: 32 lines, one per term, of 32 outputs, neighbouring lines paired.

    A pair is a row of 16 words of two bfloat16 numbers; a tile has 16 rows, and a part two tiles, of 16 outputs each.
    """
    (part_count,) = literals(parts)

    def codegen(context, builder, signature, args):
        source, target, extent = args[1:]
        splitter = _Splitter(builder, extent)
        floats, words = splitter.floats, splitter.words

        def split(pair: ir.Value, extremes: list[ir.Value]) -> list[ir.Value]:
            at = builder.add(source, builder.mul(pair, constant(2 * _LINE)))
            row = builder.add(target, builder.mul(pair, constant(ROW_BYTES)))
            for half in range(2):
                place = builder.add(at, constant(half * ROW_BYTES))
                even, odd = floats.load(place), floats.load(builder.add(place, constant(_LINE)))
                for value in (even, odd):
                    extremes = splitter.measure(value, extremes)
                for part in range(part_count):
                    word, even, odd = splitter.pair(even, odd)
                    words.store(word, builder.add(row, constant((part * 2 + half) * TILE_BYTES)))
            return extremes

        splitter.end(counted_loop(builder, constant(TILE_ROWS), splitter.begin(), split))
        return context.get_dummy_value()

    return returns(types.void, (parts, source, target, extent)), codegen


@intrinsic
def split_samples(typingctx, parts, source, target, part_bytes, extent):
    """The tiles of one step, of 16 pixels: rows of the 32 terms of a pixel, from lines of 32 pixels, one per term.

    Each further part stands `part_bytes` behind the one before. The lines are overwritten where there are several.
    """

    def codegen(context, builder, signature, args):
        parts, source, target, part_bytes, extent = args
        splitter = _Splitter(builder, extent)
        floats, words = splitter.floats, splitter.words

        def split(to: ir.Value, is_first: bool, goes_on: bool) -> None:
            extremes, rows = splitter.begin() if is_first else [], []
            for pair in range(TILE_ROWS):
                at = [builder.add(source, constant((2 * pair + i) * _LINE)) for i in range(2)]
                even, odd = map(floats.load, at)
                if is_first:
                    extremes = splitter.measure(odd, splitter.measure(even, extremes))
                word, *rest = splitter.pair(even, odd)
                rows.append(word)
                if goes_on:
                    for value, place in zip(rest, at, strict=True):
                        floats.store(value, place)
            for number, row in enumerate(words.transposed(rows)):
                words.store(row, words.at(to, number * TILE_ROWS))
            if is_first:
                splitter.end(extremes)

        def next_part(_, carried):
            split(carried[0], False, True)
            return [builder.add(carried[0], part_bytes)]

        one = constant(1)
        with builder.if_else(builder.icmp_signed("==", parts, one)) as (single, several):
            with single:
                split(target, True, False)
            with several:
                split(target, True, True)
                counted_loop(builder, builder.sub(parts, one), [builder.add(target, part_bytes)], next_part)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 5), codegen


@intrinsic
def transpose_tile(typingctx, source, target):
    """16 rows of 16 floats, 128 bytes apart, to where their columns become rows; the places may be the same."""

    def codegen(context, builder, signature, args):
        floats = Vectors(builder, "f32", TILE_ROWS)
        rows = [floats.load(builder.add(args[0], constant(row * _LINE))) for row in range(TILE_ROWS)]
        for number, row in enumerate(floats.transposed(rows)):
            floats.store(row, builder.add(args[1], constant(number * _LINE)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def clear_extent(typingctx, extent):
    """Nothing seen yet: two vectors behind `extent`."""

    def codegen(context, builder, signature, args):
        words = Vectors(builder, "i32", TILE_ROWS)
        words.store(words.zero, args[0])
        words.store(ir.Constant(words.type, [0xFFFFFFFF] * TILE_ROWS), words.at(args[0], TILE_ROWS))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def write_extent(typingctx, extent, target):
    """Two 32-bit words: the bits of the largest magnitude seen, twice; of the smallest but zero, twice less one."""

    def codegen(context, builder, signature, args):
        words = Vectors(builder, "i32", TILE_ROWS)
        for i, name in enumerate(("umax", "umin")):
            function = ir.FunctionType(I32, [words.type])
            intrinsic_name = f"llvm.vector.reduce.{name}.v{TILE_ROWS}i32"
            reduce = cgutils.get_or_insert_function(builder.module, function, intrinsic_name)
            value = builder.call(reduce, [words.load(words.at(args[0], i * TILE_ROWS))])
            builder.store(value, words.pointer(builder.add(args[1], constant(i * 4))), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
