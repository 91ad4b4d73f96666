"""What CUDA kernels need and Numba's Python subset lacks; the only file of this package that imports llvmlite.

Tuples of numbers are registers here. Numba may put a local array into memory, but a tuple is a value: the loops over
its elements are unrolled while the code is built, and nothing is left of it but registers. `fastdil.cuda.simulated` has
the same names in plain Python for Numba's simulator; kernels take them from `fastdil.cuda.compiled`.

Elements are read and written by `load` and `store`, which know no negative index, and so need no test for one.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cuda.extending import intrinsic
from numba.np.numpy_support import from_dtype

_I64, _I32 = ir.IntType(64), ir.IntType(32)


def _pointer(context, builder, array_type, array, index):
    """Address of ``array[index]`` in a one-dimensional contiguous array."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _address(context, builder, array_type, array, index):
    """The same as a 64-bit integer."""
    return builder.ptrtoint(_pointer(context, builder, array_type, array, index), _I64)


def _tuple(context, builder, tuple_type, values):
    """A uniform tuple of LLVM values."""
    built = ir.Constant(context.get_value_type(tuple_type), ir.Undefined)
    for position, value in enumerate(values):
        built = builder.insert_value(built, value, position)
    return built


def _elements(builder, value, count):
    return [builder.extract_value(value, position) for position in range(count)]


def _fma(builder, a, b, c):
    """``a * b + c`` rounded once; integers wrap."""
    if isinstance(a.type, ir.IntType):
        return builder.add(builder.mul(a, b), c)
    name = "llvm.fma.f64" if isinstance(a.type, ir.DoubleType) else "llvm.fma.f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


# ---------------------------------------------------------------------------------------------------------
# memory
# ---------------------------------------------------------------------------------------------------------


@intrinsic
def load(typingctx, array, index):
    """``array[index]``."""
    if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
        return None

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        return context.unpack_value(builder, signature.return_type, at)

    return array.dtype(array, types.int64), codegen


@intrinsic
def store(typingctx, array, index, value):
    """``array[index] = value``, converted to the array's dtype."""
    if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
        return None

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        context.pack_value(builder, array.dtype, args[2], at)
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), codegen


@intrinsic
def store_many(typingctx, array, index, values):
    """All of a tuple into consecutive elements."""

    def codegen(context, builder, signature, args):
        first = _pointer(context, builder, signature.args[0], args[0], args[1])
        for position, value in enumerate(_elements(builder, args[2], len(values))):
            builder.store(value, builder.gep(first, [_I64(position)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, values), codegen


@intrinsic
def accumulate(typingctx, array, index, values):
    """Add a tuple to consecutive elements."""

    def codegen(context, builder, signature, args):
        first = _pointer(context, builder, signature.args[0], args[0], args[1])
        for position, value in enumerate(_elements(builder, args[2], len(values))):
            at = builder.gep(first, [_I64(position)])
            builder.store(builder.fadd(builder.load(at), value), at)
        return context.get_dummy_value()

    return types.void(array, types.int64, values), codegen


@intrinsic
def load_chunks(typingctx, array, index, step, count):
    """`count` (a literal) chunks of 16 aligned bytes, `step` elements apart, as one tuple."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    lanes = 16 // (array.dtype.bitwidth // 8)
    result = types.UniTuple(array.dtype, count.literal_value * lanes)

    def codegen(context, builder, signature, args):
        at, values = _pointer(context, builder, signature.args[0], args[0], args[1]), []
        for _ in range(count.literal_value):
            values += _chunks(builder, at, [0])
            at = builder.gep(at, [args[2]])
        return _tuple(context, builder, result, values)

    return result(array, types.int64, types.int64, count), codegen


@intrinsic
def store_chunks(typingctx, array, index, step, values):
    """A tuple as chunks of 16 aligned bytes, `step` elements apart."""
    lanes = 16 // (array.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        elements = _elements(builder, args[3], len(values))
        vector = ir.VectorType(elements[0].type, lanes)
        for start in range(0, len(values), lanes):
            chunk = ir.Constant(vector, ir.Undefined)
            for lane in range(lanes):
                chunk = builder.insert_element(chunk, elements[start + lane], _I32(lane))
            builder.store(chunk, builder.bitcast(at, vector.as_pointer())).align = 16
            at = builder.gep(at, [args[2]])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, values), codegen


@intrinsic
def store_slots(typingctx, array, line, first, mask, values):
    """A tuple as chunks of 16 aligned bytes: number i into slot ``(first + i) ^ mask`` of the line at `line`."""

    def codegen(context, builder, signature, args):
        elements = _elements(builder, args[4], len(values))
        vector = ir.VectorType(elements[0].type, 4)
        for start in range(0, len(values), 4):
            slot = builder.xor(builder.add(args[2], _I64(start // 4)), args[3])
            index = builder.add(args[1], builder.mul(slot, _I64(4)))
            at = _pointer(context, builder, signature.args[0], args[0], index)
            chunk = ir.Constant(vector, ir.Undefined)
            for lane in range(4):
                chunk = builder.insert_element(chunk, elements[start + lane], _I32(lane))
            builder.store(chunk, builder.bitcast(at, vector.as_pointer())).align = 16
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, values), codegen


@intrinsic
def gather(typingctx, array, index, step, count, limit):
    """`count` (a literal) elements, `step` apart; zeros from number `limit` on, which are not read."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    result = types.UniTuple(array.dtype, count.literal_value)

    def codegen(context, builder, signature, args):
        values, zero = [], ir.Constant(context.get_value_type(array.dtype), 0)
        at = args[1]
        for position in range(count.literal_value):
            inside = builder.icmp_signed("<", _I64(position), args[4])
            safe = builder.select(inside, at, _I64(0))  # a load that always succeeds needs no branch
            value = builder.load(_pointer(context, builder, signature.args[0], args[0], safe))
            values.append(builder.select(inside, value, zero))
            at = builder.add(at, args[2])
        return _tuple(context, builder, result, values)

    return result(array, types.int64, types.int64, count, types.int64), codegen


@intrinsic
def scatter(typingctx, array, index, step, values):
    """All of a tuple into elements that are `step` apart."""

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        for value in _elements(builder, args[3], len(values)):
            builder.store(value, at)
            at = builder.gep(at, [args[2]])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, values), codegen


def shared_array(name: str, count: int, dtype: str):
    """An operation without arguments: the block's array of that name in shared memory, on a 16-byte boundary.

    With `count` 0 it is the dynamic one, whose size the launch decides. Numba's own arrays are aligned to one element.
    """
    element = from_dtype(np.dtype(dtype))
    result = types.Array(element, 1, "C")

    @intrinsic
    def shared(typingctx):
        def codegen(context, builder, signature, args):
            data = context.get_data_type(element)
            kind, symbol = ir.ArrayType(data, count), f"fastdil_{name}_{dtype}"
            memory = builder.module.globals.get(symbol)
            if memory is None:
                memory = ir.GlobalVariable(builder.module, kind, symbol, addrspace=3)
                memory.align = 16
                if count:
                    memory.linkage, memory.initializer = "internal", ir.Constant(kind, ir.Undefined)
                else:
                    memory.linkage = "external"
            start = builder.bitcast(builder.addrspacecast(memory, kind.as_pointer()), data.as_pointer())
            array, size = context.make_array(result)(context, builder), context.get_abi_sizeof(data)
            context.populate_array(
                array, data=start, shape=[_I64(count)], strides=[_I64(size)], itemsize=_I64(size), meminfo=None
            )
            return array._getvalue()

        return result(), codegen

    return shared


def _chunks(builder, start, positions):
    """The elements of 16-byte chunks, which begin at constant `positions` after the pointer `start`."""
    element = start.type.pointee
    lanes = 2 if isinstance(element, ir.DoubleType) else 4
    values = []
    for position in positions:
        at = builder.bitcast(builder.gep(start, [_I64(position)]), ir.VectorType(element, lanes).as_pointer())
        loaded = builder.load(at)
        loaded.align = 16
        values += [builder.extract_element(loaded, _I32(lane)) for lane in range(lanes)]
    return values


# ---------------------------------------------------------------------------------------------------------
# registers
# ---------------------------------------------------------------------------------------------------------


@intrinsic
def fill(typingctx, value, count):
    """A tuple of `count` (a literal) equal numbers."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    value = types.unliteral(value)
    result = types.UniTuple(value, count.literal_value)

    def codegen(context, builder, signature, args):
        return _tuple(context, builder, result, [args[0]] * count.literal_value)

    return result(value, count), codegen


@intrinsic
def add(typingctx, a, b):
    """Two tuples, added element by element."""

    def codegen(context, builder, signature, args):
        plus = builder.add if isinstance(a.dtype, types.Integer) else builder.fadd
        pairs = zip(_elements(builder, args[0], len(a)), _elements(builder, args[1], len(a)), strict=True)
        return _tuple(context, builder, a, [plus(x, y) for x, y in pairs])

    return a(a, b), codegen


@intrinsic
def add_exactly(typingctx, total, error, part):
    """``(total + part, error + what that addition rounded away)``, element by element (TwoSum)."""
    result = types.UniTuple(total, 2)

    def codegen(context, builder, signature, args):
        plus, minus = builder.fadd, builder.fsub
        sums, errors = [], []
        for s, e, p in zip(*(_elements(builder, value, len(total)) for value in args), strict=True):
            summed = plus(s, p)
            added = minus(summed, s)
            lost = plus(minus(s, minus(summed, added)), minus(p, added))
            sums.append(summed)
            errors.append(plus(e, lost))
        pair = [_tuple(context, builder, total, values) for values in (sums, errors)]
        return _tuple(context, builder, result, pair)

    return result(total, error, part), codegen


# ---------------------------------------------------------------------------------------------------------
# tiles of a matrix product
# ---------------------------------------------------------------------------------------------------------


def tile_product(rows: int, columns: int, row_jump: int, column_jump: int, pitch_a: int, pitch_b: int, depth: int):
    """An operation ``(sums, a, at_a, b, at_b) -> sums``: a thread's share of the product of two tiles in shared memory.

    Both tiles are stored as `depth` lines of `pitch` elements. The thread's rows and columns come in chunks of 16
    bytes, `row_jump` and `column_jump` apart, so that the chunks of neighbouring threads lie side by side, without
    bank conflicts.
    """

    @intrinsic
    def multiply(typingctx, sums, a, at_a, b, at_b):
        lanes = 16 // (a.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            left = _pointer(context, builder, a, *args[1:3])
            right = _pointer(context, builder, b, *args[3:5])
            results = _elements(builder, args[0], rows * columns)
            for line in range(depth):
                x = _chunks(builder, left, [line * pitch_a + i * row_jump for i in range(rows // lanes)])
                y = _chunks(builder, right, [line * pitch_b + j * column_jump for j in range(columns // lanes)])
                factors = [(row, column) for row in x for column in y]
                results = [_fma(builder, *pair, total) for pair, total in zip(factors, results, strict=True)]
            return _tuple(context, builder, sums, results)

        return sums(sums, a, types.int64, b, types.int64), codegen

    return multiply


def correlation(outputs: int, rows: int, taps: int, stride: int, weight_pitch: int):
    """An operation ``(sums, samples, at, step, weights, at_w) -> sums``: `taps` of a kernel for outputs of one thread.

    ``sums[o, r] += sum over a of weights[at_w + o * weight_pitch + a] * samples[at + (r * stride + a) * step]``, the
    samples read once for all `rows` and `outputs`. `at_w` and `weight_pitch` are multiples of 16 bytes.
    """

    @intrinsic
    def multiply(typingctx, sums, samples, at, step, weights, at_w):
        lanes = 16 // (weights.dtype.bitwidth // 8)

        def codegen(context, builder, signature, args):
            place = _pointer(context, builder, samples, *args[1:3])
            x = []
            for _ in range((rows - 1) * stride + taps):
                x.append(builder.load(place))
                place = builder.gep(place, [args[3]])
            first = _pointer(context, builder, weights, *args[4:6])
            results = _elements(builder, args[0], outputs * rows)
            for o in range(outputs):
                w = _chunks(builder, first, range(o * weight_pitch, o * weight_pitch + taps, lanes))
                for a in range(taps):
                    for r in range(rows):
                        at = o * rows + r
                        results[at] = _fma(builder, w[a], x[r * stride + a], results[at])
            return _tuple(context, builder, sums, results)

        return sums(sums, samples, types.int64, types.int64, weights, types.int64), codegen

    return multiply


# ---------------------------------------------------------------------------------------------------------
# tensor cores, compute capability 8.0
# ---------------------------------------------------------------------------------------------------------

#: Above this, float32 numbers round to infinity in bfloat16; they are truncated instead.
_LARGEST_BF16 = 3.3895e38


def _rounded_pair(builder, low, high):
    """Two float32 numbers as bfloat16 in the halves of an int32, to nearest; finite ones stay finite."""
    f32, kept = ir.FloatType(), []
    for value in (low, high):
        bits = builder.bitcast(value, _I32)
        truncated, magnitude = (builder.bitcast(builder.and_(bits, _I32(m)), f32) for m in (-65536, 0x7FFFFFFF))
        is_large = builder.fcmp_ordered(">", magnitude, ir.Constant(f32, _LARGEST_BF16))  # not so for NaN
        kept.append(builder.select(is_large, truncated, value))
    convert = ir.InlineAsm(ir.FunctionType(_I32, [f32, f32]), "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f")
    return builder.call(convert, kept[::-1])


def _without_infinity(builder, value):
    """A float32 number; 1 with the sign of an infinite one."""
    bits = builder.bitcast(value, _I32)
    is_infinite = builder.icmp_unsigned("==", builder.and_(bits, _I32(0x7FFFFFFF)), _I32(0x7F800000))
    # An exponent of 127 instead of 255.
    return builder.bitcast(builder.select(is_infinite, builder.and_(bits, _I32(-0x40800000)), bits), ir.FloatType())


def _rests(builder, pair, low, high):
    """What the rounding to bfloat16 left over, exactly."""
    rounded = builder.shl(pair, _I32(16)), builder.and_(pair, _I32(-65536))
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
            floats, registers = _elements(builder, args[0], len(values)), []
            for first in range(0, len(values), group):
                couples = [floats[at : at + 2] for at in range(first, first + group, 2)]
                tame = [[_without_infinity(builder, value) for value in couple] for couple in couples]
                pairs = [_rounded_pair(builder, *couple) for couple in (tame if is_split else couples)]
                registers += pairs
                if is_split:
                    rests = [_rests(builder, pair, *couple) for pair, couple in zip(pairs, couples, strict=True)]
                    registers += [_rounded_pair(builder, *rest) for rest in rests]
            return _tuple(context, builder, result, registers)

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
                inside = builder.icmp_signed("<", _I64(offset), args[3])
                at = builder.add(args[1], builder.mul(args[2], _I64(offset)))
                safe = builder.select(inside, at, _I64(0))  # a load that always succeeds needs no branch
                value = builder.load(_pointer(context, builder, signature.args[0], args[0], safe))
                values.append(builder.select(inside, value, zero))
            return _tuple(context, builder, result, values)

        return result(array, types.int64, types.int64, types.int64), codegen

    return gather_these


def _mma(builder, a, b, total):
    """16 x 8 sums plus a product of 16 terms (``mma.sync.m16n8k16``), a warp together; see the PTX manual."""
    f32 = ir.FloatType()
    product = ir.InlineAsm(
        ir.FunctionType(ir.LiteralStructType([f32] * 4), [_I32] * 6 + [f32] * 4),
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};",
        "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
        side_effect=True,
    )
    return _elements(builder, builder.call(product, [*a, *b, *total]), 4)


def warp_product(tiles_a: int, tiles_b: int, pitch_a: int, pitch_b: int, passes: tuple[tuple[int, int], ...]):
    """An operation ``(sums, a, at_a, b, at_b) -> sums``: a warp's share of the product of two tiles in shared memory.

    Both tiles hold registers of the tensor cores, two parts side by side: ``a`` four of each part for 16 rows, the
    parts `pitch_a` elements apart; ``b`` two of each part for 8 columns, in one chunk, tiles `pitch_b` apart.
    `passes` lists which parts are multiplied. `sums` has four floats for each pair of tiles, row by row.
    """

    @intrinsic
    def multiply(typingctx, sums, a, at_a, b, at_b):
        def codegen(context, builder, signature, args):
            left = _pointer(context, builder, a, *args[1:3])
            right = _pointer(context, builder, b, *args[3:5])
            y = _chunks(builder, right, [j * pitch_b for j in range(tiles_b)])
            results = _elements(builder, args[0], len(sums))
            for i in range(tiles_a):  # the rows of one tile at a time, to keep few registers alive
                x = _chunks(builder, left, [2 * i * pitch_a, (2 * i + 1) * pitch_a])
                for part_a, part_b in passes:
                    for j in range(tiles_b):
                        at, of_y = 4 * (i * tiles_b + j), 4 * j + 2 * part_b
                        operands = x[4 * part_a : 4 * part_a + 4], y[of_y : of_y + 2]
                        results[at : at + 4] = _mma(builder, *operands, results[at : at + 4])
            return _tuple(context, builder, sums, results)

        return sums(sums, a, types.int64, b, types.int64), codegen

    return multiply


def _asm(builder, text, constraints, *args):
    function = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(ir.InlineAsm(function, text, constraints, side_effect=True), args)


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
