"""What CUDA kernels need and Numba's Python subset lacks; only this file and `tensor_cores` import llvmlite here.

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

I64, I32 = ir.IntType(64), ir.IntType(32)


def pointer_to(context, builder, array_type, array, index):
    """Address of ``array[index]`` in a one-dimensional contiguous array."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def tuple_of(context, builder, tuple_type, values):
    """A uniform tuple of LLVM values."""
    built = ir.Constant(context.get_value_type(tuple_type), ir.Undefined)
    for position, value in enumerate(values):
        built = builder.insert_value(built, value, position)
    return built


def elements_of(builder, value, count):
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
        at = pointer_to(context, builder, signature.args[0], args[0], args[1])
        return context.unpack_value(builder, signature.return_type, at)

    return array.dtype(array, types.int64), codegen


@intrinsic
def store(typingctx, array, index, value):
    """``array[index] = value``, converted to the array's dtype."""
    if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
        return None

    def codegen(context, builder, signature, args):
        at = pointer_to(context, builder, signature.args[0], args[0], args[1])
        context.pack_value(builder, array.dtype, args[2], at)
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), codegen


@intrinsic
def store_many(typingctx, array, index, values):
    """All of a tuple into consecutive elements."""

    def codegen(context, builder, signature, args):
        first = pointer_to(context, builder, signature.args[0], args[0], args[1])
        for position, value in enumerate(elements_of(builder, args[2], len(values))):
            builder.store(value, builder.gep(first, [I64(position)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, values), codegen


@intrinsic
def accumulate(typingctx, array, index, values):
    """Add a tuple to consecutive elements."""

    def codegen(context, builder, signature, args):
        first = pointer_to(context, builder, signature.args[0], args[0], args[1])
        for position, value in enumerate(elements_of(builder, args[2], len(values))):
            at = builder.gep(first, [I64(position)])
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
        at, values = pointer_to(context, builder, signature.args[0], args[0], args[1]), []
        for _ in range(count.literal_value):
            values += chunks_at(builder, at, [0])
            at = builder.gep(at, [args[2]])
        return tuple_of(context, builder, result, values)

    return result(array, types.int64, types.int64, count), codegen


@intrinsic
def store_chunks(typingctx, array, index, step, values):
    """A tuple as chunks of 16 aligned bytes, `step` elements apart."""
    lanes = 16 // (array.dtype.bitwidth // 8)

    def codegen(context, builder, signature, args):
        at = pointer_to(context, builder, signature.args[0], args[0], args[1])
        elements = elements_of(builder, args[3], len(values))
        vector = ir.VectorType(elements[0].type, lanes)
        for start in range(0, len(values), lanes):
            chunk = ir.Constant(vector, ir.Undefined)
            for lane in range(lanes):
                chunk = builder.insert_element(chunk, elements[start + lane], I32(lane))
            builder.store(chunk, builder.bitcast(at, vector.as_pointer())).align = 16
            at = builder.gep(at, [args[2]])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, values), codegen


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
            inside = builder.icmp_signed("<", I64(position), args[4])
            safe = builder.select(inside, at, I64(0))  # a load that always succeeds needs no branch
            value = builder.load(pointer_to(context, builder, signature.args[0], args[0], safe))
            values.append(builder.select(inside, value, zero))
            at = builder.add(at, args[2])
        return tuple_of(context, builder, result, values)

    return result(array, types.int64, types.int64, count, types.int64), codegen


@intrinsic
def scatter(typingctx, array, index, step, values):
    """All of a tuple into elements that are `step` apart."""

    def codegen(context, builder, signature, args):
        at = pointer_to(context, builder, signature.args[0], args[0], args[1])
        for value in elements_of(builder, args[3], len(values)):
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
                array, data=start, shape=[I64(count)], strides=[I64(size)], itemsize=I64(size), meminfo=None
            )
            return array._getvalue()

        return result(), codegen

    return shared


def chunks_at(builder, start, positions):
    """The elements of 16-byte chunks, which begin at constant `positions` after the pointer `start`."""
    element = start.type.pointee
    lanes = 2 if isinstance(element, ir.DoubleType) else 4
    values = []
    for position in positions:
        at = builder.bitcast(builder.gep(start, [I64(position)]), ir.VectorType(element, lanes).as_pointer())
        loaded = builder.load(at)
        loaded.align = 16
        values += [builder.extract_element(loaded, I32(lane)) for lane in range(lanes)]
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
        return tuple_of(context, builder, result, [args[0]] * count.literal_value)

    return result(value, count), codegen


@intrinsic
def add(typingctx, a, b):
    """Two tuples, added element by element."""

    def codegen(context, builder, signature, args):
        plus = builder.add if isinstance(a.dtype, types.Integer) else builder.fadd
        pairs = zip(elements_of(builder, args[0], len(a)), elements_of(builder, args[1], len(a)), strict=True)
        return tuple_of(context, builder, a, [plus(x, y) for x, y in pairs])

    return a(a, b), codegen


@intrinsic
def add_exactly(typingctx, total, error, part):
    """``(total + part, error + what that addition rounded away)``, element by element (TwoSum)."""
    result = types.UniTuple(total, 2)

    def codegen(context, builder, signature, args):
        plus, minus = builder.fadd, builder.fsub
        sums, errors = [], []
        for s, e, p in zip(*(elements_of(builder, value, len(total)) for value in args), strict=True):
            summed = plus(s, p)
            added = minus(summed, s)
            lost = plus(minus(s, minus(summed, added)), minus(p, added))
            sums.append(summed)
            errors.append(plus(e, lost))
        pair = [tuple_of(context, builder, total, values) for values in (sums, errors)]
        return tuple_of(context, builder, result, pair)

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
            left = pointer_to(context, builder, a, *args[1:3])
            right = pointer_to(context, builder, b, *args[3:5])
            results = elements_of(builder, args[0], rows * columns)
            for line in range(depth):
                x = chunks_at(builder, left, [line * pitch_a + i * row_jump for i in range(rows // lanes)])
                y = chunks_at(builder, right, [line * pitch_b + j * column_jump for j in range(columns // lanes)])
                factors = [(row, column) for row in x for column in y]
                results = [_fma(builder, *pair, total) for pair, total in zip(factors, results, strict=True)]
            return tuple_of(context, builder, sums, results)

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
            place = pointer_to(context, builder, samples, *args[1:3])
            x = []
            for _ in range((rows - 1) * stride + taps):
                x.append(builder.load(place))
                place = builder.gep(place, [args[3]])
            first = pointer_to(context, builder, weights, *args[4:6])
            results = elements_of(builder, args[0], outputs * rows)
            for o in range(outputs):
                w = chunks_at(builder, first, range(o * weight_pitch, o * weight_pitch + taps, lanes))
                for a in range(taps):
                    for r in range(rows):
                        at = o * rows + r
                        results[at] = _fma(builder, w[a], x[r * stride + a], results[at])
            return tuple_of(context, builder, sums, results)

        return sums(sums, samples, types.int64, types.int64, weights, types.int64), codegen

    return multiply
