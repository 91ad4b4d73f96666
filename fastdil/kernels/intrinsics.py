"""The vector layer: LLVM vector code for any element kind and lane count, callable from compiled functions.

This is the only module that imports llvmlite. Addresses are plain 64-bit integers; element kinds are the names
of `KINDS`. Every intrinsic takes its kind and its tile sizes as compile-time literals, so a kernel closes over a few
ints and strings and one source serves AVX-512, AVX2 and narrower machines.

Vectors are written out, not left to auto-vectorisation, so that a register tile is what its kernel says it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

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


#: Marks a sample that is a padding zero in tables of offsets. Real offsets may be negative (reversed views), but stay
#: far above: whatever is added to this mark, the sum is below half of it, and two marks do not overflow.
OUTSIDE = -(2**61)

#: Integers that `classify_lanes` writes for a vector: offset and mask of each of two runs.
ENTRY_FIELDS = 4


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

    def prefetch(self, address: ir.Value) -> None:
        """Ask for a line that will be read soon; any address will do."""
        prefetch = self._declare("llvm.prefetch.p0", ir.VoidType(), (ir.PointerType(), I32, I32, I32))
        read, keep, data = ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)
        self.builder.call(prefetch, (self.pointer(address), read, keep, data))

    def load_scalar(self, address: ir.Value) -> ir.Value:
        return self.builder.load(self.pointer(address), typ=self.element, align=self.size)

    def splat(self, scalar: ir.Value) -> ir.Value:
        return splat(self.builder, scalar, self.lanes)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b) if self.kind[0] == "f" else self.builder.add(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b) if self.kind[0] == "f" else self.builder.sub(a, b)

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

    def filled(self, value: float) -> ir.Value:
        """A constant vector."""
        return ir.Constant(self.type, [value] * self.lanes)

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
    """1 if one of `count` neighbouring floats is Inf or NaN, else 0."""
    kind_name, lane_count = literals(kind, lanes)
    unrolled = 4  # an addition takes four cycles

    def codegen(context, builder, signature, args):
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


@intrinsic(prefer_literal=True)
def fill_zeros(typingctx, kind, lanes, target, count):
    """`count` vectors of zeros."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            vectors.store(vectors.zero, carried[0])
            return [vectors.at(carried[0], lane_count)]

        counted_loop(builder, args[3], [args[2]], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, count)), codegen


@intrinsic(prefer_literal=True)
def copy_vectors(typingctx, kind, lanes, target, target_step, source, source_step, count, bits):
    """`count` times: load one vector under the mask `bits` and store it whole. Steps are in bytes."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        mask = vectors.mask_from_bits(args[7])

        def body(index, carried):
            to, at = carried
            vectors.store(vectors.load_masked(at, mask), to)
            return [builder.add(to, args[3]), builder.add(at, args[5])]

        counted_loop(builder, args[6], [args[2], args[4]], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, target, target_step, source, source_step, count, bits)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def copy_run(typingctx, kind, lanes, target, source, count):
    """Copy at least `count` elements: whole vectors are read and written."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, source, count = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            vectors.store(vectors.load(vectors.at(source, shift)), vectors.at(target, shift))
            return []

        steps = builder.sdiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))
        counted_loop(builder, steps, [], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, source, count)), codegen


@intrinsic(prefer_literal=True)
def copy_runs(typingctx, kind, lanes, width, target, target_step, source, source_step, count, entries):
    """`count` times: load `width` vectors, each of one or two runs of neighbours, and store them side by side.

    `entries` holds what `classify_lanes` wrote for each vector; steps are in bytes. Two loads under complementary masks
    take the place of a gather, which costs ten times as much on some processors.
    """
    kind_name, lane_count, vector_count = literals(kind, lanes, width)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, count, entries = args[3:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)

        def entry(vector, field):
            return integers.load_scalar(integers.at(entries, vector * ENTRY_FIELDS + field))

        starts = [[vectors.at(constant(0), entry(v, field)) for field in (0, 2)] for v in range(vector_count)]
        masks = [[vectors.mask_from_bits(entry(v, field)) for field in (1, 3)] for v in range(vector_count)]

        def copy(runs):
            def body(index, carried):
                to, at = carried
                for v in range(vector_count):
                    value = vectors.zero
                    for run in range(runs):
                        value = vectors.load_masked(builder.add(at, starts[v][run]), masks[v][run], value)
                    vectors.store(value, vectors.at(to, v * lane_count))
                return [builder.add(to, target_step), builder.add(at, source_step)]

            counted_loop(builder, count, [target, source], body)

        second = constant(0)
        for v in range(vector_count):
            second = builder.or_(second, entry(v, 3))
        with builder.if_else(builder.icmp_signed("==", second, constant(0))) as (single, double):
            with single:
                copy(1)
            with double:
                copy(2)
        return context.get_dummy_value()

    arguments = (kind, lanes, width, target, target_step, source, source_step, count, entries)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def interleave_rows(typingctx, kind, lanes, rows, target, source, row_step, present, count):
    """Transpose: write the first `count` elements of each of `rows` rows, column by column.

    `rows` is a power of two; rows from `present` on count as zeros. Room for ``lanes * rows`` elements is overwritten.
    """
    kind_name, lane_count, row_count = literals(kind, lanes, rows)

    def codegen(context, builder, signature, args):
        target, source, row_step, present, count = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)

        def load(row):
            is_present = builder.icmp_signed(">", present, constant(row))
            # An empty mask on an address that may not be mapped takes a microcode assist.
            at = builder.select(is_present, builder.add(source, builder.mul(row_step, constant(row))), source)
            return vectors.load_masked(at, vectors.first_lanes(builder.select(is_present, count, constant(0))))

        def interleave(values):
            if len(values) == 1:
                return values[0]
            even, odd = interleave(values[::2]), interleave(values[1::2])
            length = even.type.count
            order = [i // 2 + i % 2 * length for i in range(2 * length)]
            return builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(I32, 2 * length), order))

        columns = interleave([load(row) for row in range(row_count)])
        vectors.store(columns, target)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, rows, target, source, row_step, present, count)), codegen


@intrinsic(prefer_literal=True)
def gather_vectors(typingctx, kind, lanes, target, target_step, source, source_step, count, rows, columns):
    """`count` times: gather one vector at element offsets ``rows[i] + columns[i]``; `OUTSIDE` gives zero.

    `rows` and `columns` are addresses of 64-bit integers, one per lane; steps are in bytes.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors, offsets, mask = Vectors(builder, kind_name, lane_count), *_lane_offsets(builder, lane_count, args[7:])

        def body(index, carried):
            to, at = carried
            vectors.store(vectors.gather(at, offsets, mask), to)
            return [builder.add(to, args[3]), builder.add(at, args[5])]

        counted_loop(builder, args[6], [args[2], args[4]], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, target, target_step, source, source_step, count, rows, columns)
    return returns(types.void, arguments), codegen


def _lane_offsets(builder: ir.IRBuilder, lanes: int, tables: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
    """``(rows + columns, is it a sample)`` for one vector of lanes."""
    integers = Vectors(builder, "i64", lanes)
    offsets = builder.add(integers.load(tables[0]), integers.load(tables[1]))
    limit = ir.Constant(integers.type, [OUTSIDE // 2] * lanes)
    return offsets, builder.icmp_signed(">", offsets, limit)


@intrinsic(prefer_literal=True)
def classify_lanes(typingctx, lanes, rows, columns, entry):
    """How to fetch one vector whose lane i stands at ``rows[i] + columns[i]`` (`OUTSIDE`: a zero).

    Writes `ENTRY_FIELDS` integers behind `entry`: for each of two runs of lanes that are neighbours in memory, the
    offset of lane 0, as if the run began there, and the mask of its lanes. Where there are more runs, the first mask
    is -1.
    """
    (lane_count,) = literals(lanes)

    def codegen(context, builder, signature, args):
        offsets, wanted = _lane_offsets(builder, lane_count, args[1:3])
        bits_type = ir.IntType(lane_count)
        anchors = builder.sub(offsets, ir.Constant(offsets.type, list(range(lane_count))))
        integers = Vectors(builder, "i64", 1)
        left = builder.bitcast(wanted, bits_type)
        runs = []
        for _ in range(ENTRY_FIELDS // 2):
            first = builder.and_(builder.cttz(left, ir.Constant(I1, 0)), ir.Constant(bits_type, lane_count - 1))
            anchor = builder.extract_element(anchors, builder.zext(first, I64))
            same = builder.icmp_signed("==", anchors, splat(builder, anchor, lane_count))
            run = builder.and_(builder.bitcast(same, bits_type), left)
            left = builder.xor(left, run)
            # An empty run is loaded under an empty mask: from a mapped address, or it takes a microcode assist.
            is_empty = builder.icmp_unsigned("==", run, ir.Constant(bits_type, 0))
            runs.append((builder.select(is_empty, constant(0), anchor), builder.zext(run, I64)))
        is_done = builder.icmp_unsigned("==", left, ir.Constant(bits_type, 0))
        runs[0] = (runs[0][0], builder.select(is_done, runs[0][1], constant(-1)))
        for index, value in enumerate(part for run in runs for part in run):
            builder.store(value, integers.pointer(integers.at(args[3], index)), align=8)
        return context.get_dummy_value()

    return returns(types.void, (lanes, rows, columns, entry)), codegen


@intrinsic
def fill_ramp(typingctx, target, count, first, step, size, scale):
    """`count` integers: ``position * scale`` for the positions ``first + i * step``; `OUTSIDE` beyond ``[0, size)``."""

    def codegen(context, builder, signature, args):
        target, count, first, step, size, scale = args

        def fill(lanes, begin, vectors_count):
            """Integers from number `begin` on, `lanes` at a time."""
            integers = Vectors(builder, "i64", lanes)
            ramp = builder.mul(ir.Constant(integers.type, list(range(lanes))), integers.splat(step))
            start = builder.add(integers.splat(builder.add(first, builder.mul(begin, step))), ramp)
            move = integers.splat(builder.mul(step, constant(lanes)))
            sizes, scales = integers.splat(size), integers.splat(scale)
            outside = ir.Constant(integers.type, [OUTSIDE] * lanes)

            def body(index, carried):
                (position,) = carried
                # As unsigned numbers, negative positions are beyond any size.
                inside = builder.icmp_unsigned("<", position, sizes)
                value = builder.select(inside, builder.mul(position, scales), outside)
                at = builder.add(begin, builder.mul(index, constant(lanes)))
                integers.store(value, integers.at(target, at))
                return [builder.add(position, move)]

            counted_loop(builder, vectors_count, [start], body)

        lanes = constant(8)
        whole = builder.sdiv(count, lanes)
        done = builder.mul(whole, lanes)
        fill(8, constant(0), whole)
        fill(1, done, builder.sub(count, done))  # one by one: masked stores are slow where there are no mask registers
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6), codegen


@intrinsic(prefer_literal=True)
def finish_row(typingctx, kind, lanes, target, source, count, bias, relu):
    """Copy `count` elements, add the element at address `bias` (0: none), clip at zero if `relu`."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        shift = _optional_bias(vectors, args[5], args[3], 1)

        def finish(value):
            return _add_and_clip(vectors, value, shift, args[6])

        _each_vector(vectors, args[4], lambda at, mask: _move(vectors, finish, args[2], args[3], at, mask))
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, source, count, bias, relu)), codegen


@intrinsic(prefer_literal=True)
def finish_complex_row(typingctx, kind, lanes, target, by_real, by_imaginary, count, bias):
    """Combine two real rows of interleaved complex samples into one complex row of `count` real numbers.

    ``by_real`` holds sum(re(w) x), ``by_imaginary`` sum(im(w) x), both interleaved; their complex sum is
    ``re = a.re - b.im``, ``im = a.im + b.re``.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)
        shift = _optional_bias(vectors, args[6], args[3], 2)
        swap = ir.Constant(ir.VectorType(I32, lane_count), [i ^ 1 for i in range(lane_count)])
        one = 1.0 if kind_name[0] == "f" else 1
        signs = ir.Constant(vectors.type, [-one, one] * (lane_count // 2))

        def move(at, mask):
            def combine(a):
                place = vectors.at(args[4], at)
                b = vectors.load(place) if mask is None else vectors.load_masked(place, mask)
                crossed = builder.shuffle_vector(b, b, swap)
                return vectors.add(vectors.fma(crossed, signs, a), shift)

            _move(vectors, combine, args[2], args[3], at, mask)

        _each_vector(vectors, args[5], move)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, by_real, by_imaginary, count, bias)), codegen


def _optional_bias(vectors: Vectors, address: ir.Value, mapped: ir.Value, period: int) -> ir.Value:
    """The `period` elements at `address` repeated over a vector, or zeros where the address is 0.

    Without a bias the masked load goes to a `mapped` address: even with no lane on, one to address 0 takes a microcode
    assist; a sixth of the time of a depthwise 3 x 3 layer went there.
    """
    builder = vectors.builder
    present = builder.icmp_signed("!=", address, constant(0))
    bits = builder.select(present, constant((1 << period) - 1), constant(0))
    few = vectors.load_masked(builder.select(present, address, mapped), vectors.mask_from_bits(bits))
    order = ir.Constant(ir.VectorType(I32, vectors.lanes), [i % period for i in range(vectors.lanes)])
    return builder.shuffle_vector(few, few, order)


def _add_and_clip(vectors: Vectors, value: ir.Value, shift: ir.Value, relu: ir.Value) -> ir.Value:
    builder = vectors.builder
    total = vectors.add(value, shift)
    return builder.select(builder.icmp_signed("!=", relu, constant(0)), vectors.relu(total), total)


def _move(
    vectors: Vectors, change: Callable, target: ir.Value, source: ir.Value, at: ir.Value, mask: ir.Value | None
) -> None:
    to, place = vectors.at(target, at), vectors.at(source, at)
    if mask is None:
        vectors.store(change(vectors.load(place)), to)
    else:
        vectors.store_masked(change(vectors.load_masked(place, mask)), to, mask)


def _each_vector(vectors: Vectors, count: ir.Value, move: Callable[[ir.Value, ir.Value | None], None]) -> None:
    """Call `move(first element, mask)` for each vector of a row of `count` elements; whole vectors have no mask.

    A masked store of 32 bytes is microcode on some processors, so only the last vector has one.
    """
    builder, lanes = vectors.builder, constant(vectors.lanes)
    whole = builder.udiv(count, lanes)

    def body(index, carried):
        move(builder.mul(index, lanes), None)
        return []

    counted_loop(builder, whole, [], body)
    done = builder.mul(whole, lanes)
    left = builder.sub(count, done)
    with builder.if_then(builder.icmp_signed(">", left, constant(0))):
        move(done, vectors.first_lanes(left))
