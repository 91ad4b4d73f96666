"""Operations of tensor cores and their operands, for compute capability 8.0 and later; as `fastdil.cuda.intrinsics`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

from fastdil.cuda.intrinsics import I32, I64, chunks_at, elements_of, pointer_to, tuple_of

#: Above this, float32 numbers round to infinity in bfloat16; they are truncated instead.
_LARGEST_BF16 = 3.3895e38


def _rounded_pair(builder, low, high):
    """Two float32 numbers as bfloat16 in the halves of an int32, to nearest; finite ones stay finite."""
    f32, kept = ir.FloatType(), []
    for value in (low, high):
        bits = builder.bitcast(value, I32)
        truncated, magnitude = (builder.bitcast(builder.and_(bits, I32(m)), f32) for m in (-65536, 0x7FFFFFFF))
        is_large = builder.fcmp_ordered(">", magnitude, ir.Constant(f32, _LARGEST_BF16))  # not so for NaN
        kept.append(builder.select(is_large, truncated, value))
    convert = ir.InlineAsm(ir.FunctionType(I32, [f32, f32]), "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f")
    return builder.call(convert, kept[::-1])


def _without_infinity(builder, value):
    """A float32 number; 1 with the sign of an infinite one."""
    bits = builder.bitcast(value, I32)
    is_infinite = builder.icmp_unsigned("==", builder.and_(bits, I32(0x7FFFFFFF)), I32(0x7F800000))
    # An exponent of 127 instead of 255.
    return builder.bitcast(builder.select(is_infinite, builder.and_(bits, I32(-0x40800000)), bits), ir.FloatType())


def _rests(builder, pair, low, high):
    """What the rounding to bfloat16 left over, exactly."""
    rounded = builder.shl(pair, I32(16)), builder.and_(pair, I32(-65536))
    return [builder.fsub(v, builder.bitcast(r, ir.FloatType())) for v, r in zip((low, high), rounded, strict=True)]


def to_bfloat16(is_split: bool, group: int):
    """An operation that turns a tuple of float32 into int32 registers of two bfloat16 numbers each.

    With `is_split`, what the rounding left over follows the registers of each `group` of numbers, rounded in turn:
    together 16 bits of each number. Of an infinite one the first part is 1 and the rest infinite: products of first
    with first, first with rest and rest with first parts then add up to what Inf should give, signs included.
    """

    @intrinsic
    def convert(typingctx, values):
        result = types.UniTuple(types.int32, len(values) // 2 * (2 if is_split else 1))

        def codegen(context, builder, signature, args):
            floats, registers = elements_of(builder, args[0], len(values)), []
            for first in range(0, len(values), group):
                couples = [floats[at : at + 2] for at in range(first, first + group, 2)]
                tame = [[_without_infinity(builder, value) for value in couple] for couple in couples]
                pairs = [_rounded_pair(builder, *couple) for couple in (tame if is_split else couples)]
                registers += pairs
                if is_split:
                    rests = [_rests(builder, pair, *couple) for pair, couple in zip(pairs, couples, strict=True)]
                    registers += [_rounded_pair(builder, *rest) for rest in rests]
            return tuple_of(context, builder, result, registers)

        return result(values), codegen

    return convert


def gather_at(offsets: tuple[int, ...]):
    """An operation ``(array, index, step, limit) -> tuple``: elements ``array[index + offset * step]``.

    Those whose offset is not below `limit` are zeros, and are not read.
    """

    @intrinsic
    def gather_these(typingctx, array, index, step, limit):
        result = types.UniTuple(array.dtype, len(offsets))

        def codegen(context, builder, signature, args):
            values, zero = [], ir.Constant(context.get_value_type(array.dtype), 0)
            for offset in offsets:
                inside = builder.icmp_signed("<", I64(offset), args[3])
                at = builder.add(args[1], builder.mul(args[2], I64(offset)))
                safe = builder.select(inside, at, I64(0))  # a load that always succeeds needs no branch
                value = builder.load(pointer_to(context, builder, signature.args[0], args[0], safe))
                values.append(builder.select(inside, value, zero))
            return tuple_of(context, builder, result, values)

        return result(array, types.int64, types.int64, types.int64), codegen

    return gather_these


@intrinsic
def store_slots(typingctx, array, line, first, mask, values):
    """A tuple as chunks of 16 aligned bytes: number i into slot ``(first + i) ^ mask`` of the line at `line`."""

    def codegen(context, builder, signature, args):
        elements = elements_of(builder, args[4], len(values))
        vector = ir.VectorType(elements[0].type, 4)
        for start in range(0, len(values), 4):
            slot = builder.xor(builder.add(args[2], I64(start // 4)), args[3])
            index = builder.add(args[1], builder.mul(slot, I64(4)))
            at = pointer_to(context, builder, signature.args[0], args[0], index)
            chunk = ir.Constant(vector, ir.Undefined)
            for lane in range(4):
                chunk = builder.insert_element(chunk, elements[start + lane], I32(lane))
            builder.store(chunk, builder.bitcast(at, vector.as_pointer())).align = 16
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, values), codegen


def _mma(builder, a, b, total):
    """16 x 8 sums plus a product of 16 terms (``mma.sync.m16n8k16``), a warp together; see the PTX manual."""
    f32 = ir.FloatType()
    product = ir.InlineAsm(
        ir.FunctionType(ir.LiteralStructType([f32] * 4), [I32] * 6 + [f32] * 4),
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};",
        "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
        side_effect=True,
    )
    return elements_of(builder, builder.call(product, [*a, *b, *total]), 4)


def warp_product(tiles_a: int, tiles_b: int, pitch_a: int, pitch_b: int, passes: tuple[tuple[int, int], ...]):
    """An operation ``(sums, a, at_a, b, at_b) -> sums``: a warp's share of the product of two tiles in shared memory.

    Both tiles hold registers of the tensor cores, two parts side by side: ``a`` four of each part for 16 rows, the
    parts `pitch_a` elements apart; ``b`` two of each part for 8 columns, in one chunk, tiles `pitch_b` apart.
    `passes` lists which parts are multiplied. `sums` has four floats for each pair of tiles, row by row.
    """

    @intrinsic
    def multiply(typingctx, sums, a, at_a, b, at_b):
        def codegen(context, builder, signature, args):
            left = pointer_to(context, builder, a, *args[1:3])
            right = pointer_to(context, builder, b, *args[3:5])
            y = chunks_at(builder, right, [j * pitch_b for j in range(tiles_b)])
            results = elements_of(builder, args[0], len(sums))
            for i in range(tiles_a):  # the rows of one tile at a time, to keep few registers alive
                x = chunks_at(builder, left, [2 * i * pitch_a, (2 * i + 1) * pitch_a])
                for part_a, part_b in passes:
                    for j in range(tiles_b):
                        at, of_y = 4 * (i * tiles_b + j), 4 * j + 2 * part_b
                        operands = x[4 * part_a : 4 * part_a + 4], y[of_y : of_y + 2]
                        results[at : at + 4] = _mma(builder, *operands, results[at : at + 4])
            return tuple_of(context, builder, sums, results)

        return sums(sums, a, types.int64, b, types.int64), codegen

    return multiply


def _asm(builder, text, constraints, *args):
    function = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(ir.InlineAsm(function, text, constraints, side_effect=True), args)


def _address(context, builder, array_type, array, index):
    """The same as a 64-bit integer."""
    return builder.ptrtoint(pointer_to(context, builder, array_type, array, index), I64)


@intrinsic
def copy_16_bytes(typingctx, shared, at, source, index):
    """Start copying 16 aligned bytes from global to shared memory, past the registers (``cp.async``)."""

    def codegen(context, builder, signature, args):
        to = _address(context, builder, signature.args[0], args[0], args[1])
        origin = _address(context, builder, signature.args[2], args[2], args[3])
        text = (
            "{ .reg .u64 wide; .reg .u32 near; cvta.to.shared.u64 wide, $0; cvt.u32.u64 near, wide; "
            "cp.async.cg.shared.global [near], [$1], 16; }"
        )
        _asm(builder, text, "l,l,~{memory}", to, origin)
        return context.get_dummy_value()

    return types.void(shared, types.int64, source, types.int64), codegen


@intrinsic
def wait_for_copies(typingctx):
    """Wait until all copies that this thread has started are complete."""

    def codegen(context, builder, signature, args):
        _asm(builder, "cp.async.wait_all;", "~{memory}")
        return context.get_dummy_value()

    return types.void(), codegen
