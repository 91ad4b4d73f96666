"""The vector layer: a builder of LLVM vector code for any element kind and lane count.

Vectors are written out, not left to auto-vectorisation, so that a register tile is what its kernel says it is. The
intrinsics made with it, here and in the other files of this package, are callable from compiled functions. Addresses
are plain 64-bit integers; element kinds are the names of `KINDS`. Every intrinsic takes its kind and its tile sizes as
compile-time literals, so a kernel closes over a few ints and strings and one source serves AVX-512, AVX2 and narrower
machines. Only this file, `intrinsics`, `places`, `copies`, `tile_unit` and `split` import llvmlite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)

#: Element kind -> LLVM element type and size in bytes. Signedness does not matter to wrapping arithmetic.
KINDS = {
    "f32": (ir.FloatType(), 4),
    "f64": (ir.DoubleType(), 8),
    "i8": (ir.IntType(8), 1),
    "i16": (ir.IntType(16), 2),
    "i32": (ir.IntType(32), 4),
    "i64": (ir.IntType(64), 8),
}


class Vectors:
    """Vector values of one element kind and lane count inside one LLVM function."""

    def __init__(self, builder: ir.IRBuilder, kind: str, lanes: int):
        self.builder = builder
        self.kind, self.lanes = kind, lanes
        self.element, self.size = KINDS[kind]
        self.type = ir.VectorType(self.element, lanes)
        self.mask_type = ir.VectorType(I1, lanes)
        self.zero = ir.Constant(self.type, None)

    def _declare(self, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def pointer(self, address: ir.Value) -> ir.Value:
        return self.builder.inttoptr(address, ir.PointerType())

    def at(self, address: ir.Value, elements: ir.Value | int) -> ir.Value:
        """The address `elements` elements further on."""
        if isinstance(elements, int):
            return self.builder.add(address, constant(elements * self.size)) if elements else address
        return self.builder.add(address, self.builder.mul(elements, constant(self.size)))

    def load(self, address: ir.Value) -> ir.Value:
        return self.builder.load(self.pointer(address), typ=self.type, align=self.size)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.builder.store(value, self.pointer(address), align=self.size)

    def load_masked(self, address: ir.Value, mask: ir.Value, others: ir.Value | None = None) -> ir.Value:
        """Lanes whose mask bit is clear come from `others`, zeros unless given, and their memory is not touched."""
        name = f"llvm.masked.load.v{self.lanes}{self.kind}.p0"
        load = self._declare(name, self.type, (ir.PointerType(), I32, self.mask_type, self.type))
        others = self.zero if others is None else others
        return self.builder.call(load, (self.pointer(address), ir.Constant(I32, self.size), mask, others))

    def store_masked(self, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        name = f"llvm.masked.store.v{self.lanes}{self.kind}.p0"
        store = self._declare(name, ir.VoidType(), (self.type, ir.PointerType(), I32, self.mask_type))
        self.builder.call(store, (value, self.pointer(address), ir.Constant(I32, self.size), mask))

    def gather(self, base: ir.Value, offsets: ir.Value, mask: ir.Value) -> ir.Value:
        """Lane i is the element at `base` plus ``offsets[i]`` elements, or zero where the mask is clear."""
        builder = self.builder
        pointers = builder.gep(self.pointer(base), [offsets], source_etype=self.element)
        # llvmlite types this gep as a scalar pointer; rebuild it as the vector of pointers that LLVM sees.
        pointers.type = ir.VectorType(ir.PointerType(), self.lanes)
        name = f"llvm.masked.gather.v{self.lanes}{self.kind}.v{self.lanes}p0"
        gather = self._declare(name, self.type, (pointers.type, I32, self.mask_type, self.type))
        return builder.call(gather, (pointers, ir.Constant(I32, self.size), mask, self.zero))

    def prefetch(self, address: ir.Value, for_writing: bool = False) -> None:
        """Ask for a line that will be read or written soon; any address will do."""
        prefetch = self._declare("llvm.prefetch.p0", ir.VoidType(), (ir.PointerType(), I32, I32, I32))
        how, keep, data = ir.Constant(I32, int(for_writing)), ir.Constant(I32, 3), ir.Constant(I32, 1)
        self.builder.call(prefetch, (self.pointer(address), how, keep, data))

    def load_scalar(self, address: ir.Value) -> ir.Value:
        return self.builder.load(self.pointer(address), typ=self.element, align=self.size)

    def splat(self, scalar: ir.Value) -> ir.Value:
        return splat(self.builder, scalar, self.lanes)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b) if self.kind[0] == "f" else self.builder.add(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b) if self.kind[0] == "f" else self.builder.sub(a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b) if self.kind[0] == "f" else self.builder.mul(a, b)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a * b + c``: fused for floats, wrapping for integers."""
        if self.kind[0] != "f":
            return self.builder.add(self.builder.mul(a, b), c)
        fma = self._declare(f"llvm.fma.v{self.lanes}{self.kind}", self.type, (self.type,) * 3)
        return self.builder.call(fma, (a, b, c))

    def add_unless_nan(self, value: ir.Value, change: ir.Value) -> ir.Value:
        """``value + change``, or `value` where the change is NaN."""
        total = self.add(value, change)
        if self.kind[0] != "f":
            return total
        return self.builder.select(self.builder.fcmp_ordered("ord", change, change), total, value)

    def relu(self, value: ir.Value) -> ir.Value:
        """``max(value, 0)`` that keeps NaN."""
        if self.kind[0] == "f":
            negative = self.builder.fcmp_ordered("<", value, self.zero)
        else:
            negative = self.builder.icmp_signed("<", value, self.zero)
        return self.builder.select(negative, self.zero, value)

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger of two floats, NaN where either is NaN."""
        maximum = self._declare(f"llvm.maximum.v{self.lanes}{self.kind}", self.type, (self.type,) * 2)
        return self.builder.call(maximum, (a, b))

    def absolute(self, a: ir.Value) -> ir.Value:
        """The magnitudes of floats."""
        fabs = self._declare(f"llvm.fabs.v{self.lanes}{self.kind}", self.type, (self.type,))
        return self.builder.call(fabs, (a,))

    def shuffle(self, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        """A vector of the lanes of `a` and `b`, counted through, in the given order."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), list(order)))

    def pick(self, lines: Sequence[ir.Value], order: Sequence[int]) -> ir.Value:
        """A vector of lanes of several vectors, counted through, in the given order."""
        picked = lines[0]
        for number, line in enumerate(lines):
            here = [lane // self.lanes == number for lane in order]
            if any(here):
                chosen = [self.lanes + lane % self.lanes if here[i] else i for i, lane in enumerate(order)]
                picked = self.shuffle(picked, line, chosen)
        return picked

    def transposed(self, rows: list[ir.Value]) -> list[ir.Value]:
        """As many vectors as they have lanes, transposed: log2 rounds of exchanges between pairs of rows."""
        step, lanes = 1, range(self.lanes)
        while step < self.lanes:
            low = [lane if not lane & step else self.lanes + lane - step for lane in lanes]
            high = [lane + step if not lane & step else self.lanes + lane for lane in lanes]
            rows = [self.shuffle(rows[i & ~step], rows[i | step], high if i & step else low) for i in lanes]
            step *= 2
        return rows

    def filled(self, *values: float) -> ir.Value:
        """A constant vector of these values, repeated until it is full."""
        return ir.Constant(self.type, [*values] * (self.lanes // len(values)))

    def mask_from_bits(self, bits: ir.Value) -> ir.Value:
        """Lane i is on if bit i of the 64-bit integer is set."""
        builder = self.builder
        if self.lanes * self.size == 64:
            return builder.bitcast(builder.trunc(bits, ir.IntType(self.lanes)), self.mask_type)
        # Without mask registers, LLVM takes such a bitcast apart bit by bit: 45 instructions for eight lanes.
        word = ir.IntType(max(8 * self.size, self.lanes))
        chosen = ir.Constant(ir.VectorType(word, self.lanes), [1 << lane for lane in range(self.lanes)])
        own = builder.and_(splat(builder, builder.trunc(bits, word), self.lanes), chosen)
        return builder.icmp_unsigned("==", own, chosen)

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """A mask of the first `count` lanes; `count` may be negative or larger than the vector."""
        return self.mask_from_bits(low_bits(self.builder, clamp(self.builder, count, self.lanes)))


def constant(value: int) -> ir.Constant:
    """A 64-bit integer constant."""
    return ir.Constant(I64, value)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    vector = ir.VectorType(scalar.type, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, lanes), None)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)


def clamp(builder: ir.IRBuilder, value: ir.Value, most: int) -> ir.Value:
    """`value` limited to 0..most."""
    zero, top = constant(0), constant(most)
    value = builder.select(builder.icmp_signed("<", value, zero), zero, value)
    return builder.select(builder.icmp_signed(">", value, top), top, value)


def low_bits(builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """An integer whose lowest `count` bits are set; count is 0..63."""
    one = constant(1)
    return builder.sub(builder.shl(one, count), one)


def spread_bits(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """Bit i of the lower half of a 64-bit integer moved to bit 2 i; the others are zero."""
    for shift, kept in ((16, 0xFFFF), (8, 0xFF), (4, 0xF), (2, 0x3), (1, 0x1)):
        pattern = sum(kept << place for place in range(0, 64, 2 * shift))
        bits = builder.and_(builder.or_(bits, builder.shl(bits, constant(shift))), constant(pattern))
    return bits


def counted_loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    carried: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """``for i in range(count): carried = body(i, carried)`` with the carried values in phi nodes."""
    before = builder.block
    head, after = builder.append_basic_block("loop"), builder.append_basic_block("loop.end")
    zero, one = constant(0), constant(1)
    builder.cbranch(builder.icmp_signed(">", count, zero), head, after)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(zero, before)
    inside = [builder.phi(value.type) for value in carried]
    for phi, value in zip(inside, carried, strict=True):
        phi.add_incoming(value, before)
    results = body(index, list(inside))
    following = builder.add(index, one)
    end = builder.block
    index.add_incoming(following, end)
    for phi, value in zip(inside, results, strict=True):
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following, count), head, after)
    builder.position_at_end(after)
    outside = [builder.phi(value.type) for value in carried]
    for phi, first, last in zip(outside, carried, results, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, end)
    return list(outside)


def literals(*arguments: types.Type) -> list:
    """The Python values of compile-time arguments; a plain integer or string type is refused."""
    for argument in arguments:
        if not isinstance(argument, types.Literal):
            raise RequireLiteralValue(f"{argument} must be a compile-time constant")
    return [argument.literal_value for argument in arguments]


def returns(result: types.Type, arguments: Sequence[types.Type]):
    """The Numba signature of an intrinsic: literals keep their types, everything else is a 64-bit integer."""
    return result(*(a if isinstance(a, types.Literal) else types.int64 for a in arguments))


# ---------------------------------------------------------------------------------------------------------
# scalars, calls, atomics
# ---------------------------------------------------------------------------------------------------------
