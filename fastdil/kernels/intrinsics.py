"""What kernels need and Numba's Python subset lacks: elements at addresses, calls by address, an atomic counter."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastdil.kernels.vectors import I64, Vectors, constant, counted_loop, literals, returns


@intrinsic
def load_i64(typingctx, address, index):
    """The 64-bit integer number `index` behind `address`."""

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, "i64", 1)
        return vectors.load_scalar(vectors.at(args[0], args[1]))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def store_i64(typingctx, address, index, value):
    """Store a 64-bit integer as number `index` behind `address`."""

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, "i64", 1)
        builder.store(args[2], vectors.pointer(vectors.at(args[0], args[1])), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def next_index(typingctx, address):
    """Fetch the 64-bit counter at `address` and add one, atomically."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.PointerType(I64))
        return builder.atomic_rmw("add", pointer, constant(1), "monotonic")

    return types.int64(types.int64), codegen


@intrinsic(prefer_literal=True)
def load_element(typingctx, kind, address):
    """The floating-point element at `address`, as float64 arithmetic sees it."""
    (kind_name,) = literals(kind)

    def codegen(context, builder, signature, args):
        value = Vectors(builder, kind_name, 1).load_scalar(args[1])
        return builder.fpext(value, ir.DoubleType()) if kind_name == "f32" else value

    return types.float64(kind, types.int64), codegen


@intrinsic(prefer_literal=True)
def store_element(typingctx, kind, address, value):
    """Round a float64 to the element kind and store it."""
    (kind_name,) = literals(kind)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, 1)
        value = builder.fptrunc(args[2], vectors.element) if kind_name == "f32" else args[2]
        builder.store(value, vectors.pointer(args[1]), align=vectors.size)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.float64), codegen


@intrinsic(prefer_literal=True)
def any_nonfinite(typingctx, kind, lanes, address, count):
    """1 if one of `count` neighbouring numbers is Inf or NaN, else 0; integers never are."""
    kind_name, lane_count = literals(kind, lanes)
    unrolled = 4  # an addition takes four cycles

    def codegen(context, builder, signature, args):
        if kind_name[0] != "f":
            return constant(0)
        address, count = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def add(total, value):
            return vectors.add(total, vectors.sub(value, value))  # zero, but NaN for Inf and NaN

        def over_blocks(block, totals):
            at = vectors.at(address, builder.mul(block, constant(unrolled * lane_count)))
            return [add(total, vectors.load(vectors.at(at, i * lane_count))) for i, total in enumerate(totals)]

        blocks = builder.sdiv(count, constant(unrolled * lane_count))
        totals = counted_loop(builder, blocks, [vectors.zero] * unrolled, over_blocks)
        done = builder.mul(blocks, constant(unrolled * lane_count))
        left = builder.sub(count, done)

        def over_rest(index, carried):
            at = builder.add(done, builder.mul(index, constant(lane_count)))
            mask = vectors.first_lanes(builder.sub(count, at))
            return [add(carried[0], vectors.load_masked(vectors.at(address, at), mask))]

        rest = builder.sdiv(builder.add(left, constant(lane_count - 1)), constant(lane_count))
        (total,) = counted_loop(builder, rest, totals[:1], over_rest)
        for other in totals[1:]:
            total = vectors.add(total, other)
        unordered = builder.fcmp_unordered("uno", total, total)
        bits = builder.bitcast(unordered, ir.IntType(lane_count))
        found = builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))
        return builder.zext(found, I64)

    return returns(types.int64, (kind, lanes, address, count)), codegen


def _call(context, builder, signature, args):
    address, *values = args
    function = ir.FunctionType(ir.VoidType(), (I64,) * len(values))
    builder.call(builder.inttoptr(address, ir.PointerType(function)), values)
    return context.get_dummy_value()


@intrinsic
def call_kernel(typingctx, address, params, x, w, bias, out, scratch, task):
    """Call the kernel at `address`."""
    return types.void(*(types.int64,) * 8), _call


@intrinsic
def call_on_row(typingctx, address, row, count):
    """Call the C function at `address` on a row of `count` elements."""
    return types.void(*(types.int64,) * 3), _call


@intrinsic
def call_with_table(typingctx, address, data, table):
    """Call the C function at `address` on data that it works on as a table says."""
    return types.void(*(types.int64,) * 3), _call


@intrinsic
def call_part(typingctx, address, params, scratch, w):
    """Call one part of a kernel, compiled on its own, at `address`."""
    return types.void(*(types.int64,) * 4), _call


# ---------------------------------------------------------------------------------------------------------
# moving elements
# ---------------------------------------------------------------------------------------------------------
