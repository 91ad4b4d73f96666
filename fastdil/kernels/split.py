"""Splitting float32 numbers into bfloat16 parts, as the tile unit reads them, and what is seen of them meanwhile."""

from __future__ import annotations

from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastdil.kernels.tile_unit import BLOCK, HIGH_HALF, ROW_BYTES, TILE_ROWS
from fastdil.kernels.vectors import I32, Vectors, constant, counted_loop, literals, returns


@intrinsic(prefer_literal=True)
def split_lines(typingctx, parts, source, count, target, pitch, half_step, part_step, extent):
    """One step: `count` lines of 32 floats, split into bfloat16 parts, neighbouring lines paired.

    A step has 32 lines; those from `count` on count as zeros. A pair is a row of 16 words of two numbers for each half
    of the lines; `pitch` is the distance of rows in bytes, the other steps those of halves and parts. Each part is the
    number, less the parts before it, rounded to nearest even. Two vectors at `extent` keep what `write_extent` reports.
    """
    (part_count,) = literals(parts)

    def codegen(context, builder, signature, args):
        source, count, target, pitch, half_step, part_step, extent = args[1:]
        floats, words = Vectors(builder, "f32", TILE_ROWS), Vectors(builder, "i32", TILE_ROWS)
        line = floats.at(constant(0), BLOCK)

        def shifted(value: ir.Value, bits: int) -> ir.Value:
            return builder.lshr(value, ir.Constant(words.type, [bits] * TILE_ROWS))

        def rounded(value: ir.Value) -> ir.Value:
            """The bits of a float32, rounded to those of a bfloat16 and sixteen zeros."""
            bits = builder.bitcast(value, words.type)
            odd = builder.and_(shifted(bits, 16), ir.Constant(words.type, [1] * TILE_ROWS))
            bits = builder.add(bits, builder.add(odd, ir.Constant(words.type, [0x7FFF] * TILE_ROWS)))
            return builder.and_(bits, ir.Constant(words.type, [HIGH_HALF] * TILE_ROWS))

        def place_of(row: ir.Value, part: int, half: int) -> ir.Value:
            place = builder.add(row, half_step) if half else row
            return builder.add(place, builder.mul(part_step, constant(part)))

        def measure(value: ir.Value, extremes: list[ir.Value]) -> list[ir.Value]:
            # The sign is shifted out, and less one, zero is the largest of all.
            bits = builder.bitcast(value, words.type)
            doubled = builder.add(bits, bits)
            less = builder.sub(doubled, ir.Constant(words.type, [1] * TILE_ROWS))
            return [
                builder.select(builder.icmp_unsigned(">", doubled, extremes[0]), doubled, extremes[0]),
                builder.select(builder.icmp_unsigned("<", less, extremes[1]), less, extremes[1]),
            ]

        def split(pair: ir.Value, is_whole: bool, extremes: list[ir.Value]) -> list[ir.Value]:
            at = builder.add(source, builder.mul(pair, builder.add(line, line)))
            row = builder.add(target, builder.mul(pair, pitch))
            for half in range(2):
                place = builder.add(at, constant(half * ROW_BYTES))
                even = floats.load(place)
                odd = floats.load(builder.add(place, line)) if is_whole else floats.zero
                extremes = measure(even, extremes)
                extremes = measure(odd, extremes) if is_whole else extremes
                for part in range(part_count):
                    ends = [rounded(even), rounded(odd)]
                    words.store(builder.or_(shifted(ends[0], 16), ends[1]), place_of(row, part, half))
                    even, odd = (
                        floats.sub(value, builder.bitcast(end, floats.type))
                        for value, end in zip((even, odd), ends, strict=True)
                    )
            return extremes

        def clear(index, _):
            row = builder.add(target, builder.mul(builder.add(pairs, index), pitch))
            for part, half in product(range(part_count), range(2)):
                words.store(words.zero, place_of(row, part, half))
            return []

        extremes = [words.load(words.at(extent, i * TILE_ROWS)) for i in range(2)]
        whole, rest = builder.lshr(count, constant(1)), builder.and_(count, constant(1))
        extremes = counted_loop(builder, whole, extremes, lambda pair, found: split(pair, True, found))
        extremes = counted_loop(builder, rest, extremes, lambda _, found: split(whole, False, found))
        pairs = builder.add(whole, rest)
        counted_loop(builder, builder.sub(constant(TILE_ROWS), pairs), [], clear)
        for i, value in enumerate(extremes):
            words.store(value, words.at(extent, i * TILE_ROWS))
        return context.get_dummy_value()

    return returns(types.void, (parts, source, count, target, pitch, half_step, part_step, extent)), codegen


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
