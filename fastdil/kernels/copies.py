"""Moving rows of elements: copies, gathers and transposes on the way in, bias and activation on the way out."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastdil.kernels.places import ENTRY_FIELDS, MOST_RUNS, lane_offsets
from fastdil.kernels.vectors import I32, Vectors, constant, counted_loop, literals, returns, spread_bits


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
    """`count` times: load `width` vectors, each of a few runs of neighbours, and store them side by side.

    `entries` holds what `classify_lanes` wrote for each vector; steps are in bytes. Loads under complementary masks
    take the place of a gather, which costs ten times as much as two of them on some processors.
    """
    kind_name, lane_count, vector_count = literals(kind, lanes, width)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, count, entries = args[3:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)

        def entry(vector, field):
            return integers.load_scalar(integers.at(entries, vector * ENTRY_FIELDS + field))

        starts = [[vectors.at(constant(0), entry(v, 2 * run)) for run in range(MOST_RUNS)] for v in range(vector_count)]
        bits = [[entry(v, 2 * run + 1) for run in range(MOST_RUNS)] for v in range(vector_count)]

        def copy(runs):
            masks = [[vectors.mask_from_bits(mask) for mask in of_vector[:runs]] for of_vector in bits]

            def body(index, carried):
                to, at = carried
                for v in range(vector_count):
                    value = vectors.zero
                    for run in range(runs):
                        value = vectors.load_masked(builder.add(at, starts[v][run]), masks[v][run], value)
                    vectors.store(value, vectors.at(to, v * lane_count))
                return [builder.add(to, target_step), builder.add(at, source_step)]

            counted_loop(builder, count, [target, source], body)

        def suffice(runs):
            """Whether no vector has more runs."""
            others = reduce(builder.or_, (of_vector[runs] for of_vector in bits))
            return builder.icmp_signed("==", others, constant(0))

        with builder.if_else(suffice(2)) as (few, all_runs):
            with few, builder.if_else(suffice(1)) as (single, double):
                with single:
                    copy(1)
                with double:
                    copy(2)
            with all_runs:
                copy(MOST_RUNS)
        return context.get_dummy_value()

    arguments = (kind, lanes, width, target, target_step, source, source_step, count, entries)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def copy_pairs(typingctx, kind, lanes, runs, target, target_step, source, source_step, count, entry):
    """`count` times: load one vector of every second element, made of up to `runs` runs, and store it.

    `entry` holds a start and a mask for each run, as `classify_lanes` writes them for a step of two; at most 32 lanes.
    Elements in between are not read.
    """
    kind_name, lane_count, run_count = literals(kind, lanes, runs)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, count, entry = args[3:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        parts = []  # the offset and the mask of each vector to load, and which half of the pairs it is
        for run in range(run_count):
            start, bits = (integers.load_scalar(integers.at(entry, 2 * run + field)) for field in range(2))
            for half in range(2):
                mask = vectors.mask_from_bits(builder.lshr(bits, constant(half * lane_count)))
                parts.append((vectors.at(vectors.at(constant(0), start), half * lane_count), mask, half))

        def body(index, carried):
            to, at = carried
            halves = [vectors.zero, vectors.zero]
            for offset, mask, half in parts:
                halves[half] = vectors.load_masked(builder.add(at, offset), mask, halves[half])
            vectors.store(vectors.shuffle(*halves, range(0, 2 * lane_count, 2)), to)
            return [builder.add(to, target_step), builder.add(at, source_step)]

        counted_loop(builder, count, [target, source], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, runs, target, target_step, source, source_step, count, entry)
    return returns(types.void, arguments), codegen


@intrinsic
def every_second_bit(typingctx, bits):
    """Bit i of the lower half of a 64-bit integer moved to bit 2 i; the others are zero."""

    def codegen(context, builder, signature, args):
        return spread_bits(builder, args[0])

    return types.int64(types.int64), codegen


@intrinsic(prefer_literal=True)
def copy_strips(
    typingctx, kind, lanes, width, target, target_step, strip_step, source, source_step, count, entries, strips
):
    """`count` times: copy `strips` strips of `width` vectors, each vector whole and from one run of neighbours.

    `entries` holds what `classify_lanes` wrote for all of them; steps are in bytes. A row of samples is read from its
    begin to its end before the next one: rows often lie a power of two apart, where they push each other out of the
    cache before a line that two strips share is read again.
    """
    kind_name, lane_count, vector_count = literals(kind, lanes, width)

    def codegen(context, builder, signature, args):
        target, target_step, strip_step, source, source_step, count, entries, strips = args[3:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)

        def over_rows(index, carried):
            to, at = carried

            def over_strips(strip, inner):
                place, entry = inner
                for v in range(vector_count):
                    start = integers.load_scalar(integers.at(entry, v * ENTRY_FIELDS))
                    vectors.store(vectors.load(vectors.at(at, start)), vectors.at(place, v * lane_count))
                return [builder.add(place, strip_step), integers.at(entry, vector_count * ENTRY_FIELDS)]

            counted_loop(builder, strips, [to, entries], over_strips)
            return [builder.add(to, target_step), builder.add(at, source_step)]

        counted_loop(builder, count, [target, source], over_rows)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, width, target, target_step, strip_step, source, source_step, count, entries, strips,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def interleave_rows(typingctx, kind, lanes, rows, target, source, row_step, present, count):
    """Transpose: write the first `count` elements of each of `rows` rows, column by column.

    `rows` is a power of two; rows from `present` on count as zeros. Room for ``lanes * rows`` elements is overwritten.
    The same columns of as many following rows are fetched meanwhile.
    """
    kind_name, lane_count, row_count = literals(kind, lanes, rows)

    def codegen(context, builder, signature, args):
        target, source, row_step, present, count = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)

        def load(row):
            is_present = builder.icmp_signed(">", present, constant(row))
            # An empty mask on an address that may not be mapped takes a microcode assist.
            at = builder.select(is_present, builder.add(source, builder.mul(row_step, constant(row))), source)
            vectors.prefetch(builder.add(at, builder.mul(row_step, constant(row_count))))
            return vectors.load_masked(at, vectors.first_lanes(builder.select(is_present, count, constant(0))))

        def interleave(values):
            if len(values) == 1:
                return values[0]
            even, odd = interleave(values[::2]), interleave(values[1::2])
            length = even.type.count
            order = [i // 2 + i % 2 * length for i in range(2 * length)]
            return builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(I32, 2 * length), order))

        rows = [load(row) for row in range(row_count)]
        if row_count == lane_count:
            for number, column in enumerate(vectors.transposed(rows)):
                vectors.store(column, vectors.at(target, number * lane_count))
        else:
            vectors.store(interleave(rows), target)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, rows, target, source, row_step, present, count)), codegen


@intrinsic(prefer_literal=True)
def gather_vectors(typingctx, kind, lanes, target, target_step, source, source_step, count, rows, columns):
    """`count` times: gather one vector at element offsets ``rows[i] + columns[i]``; `OUTSIDE` gives zero.

    `rows` and `columns` are addresses of 64-bit integers, one per lane; steps are in bytes.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors, offsets, mask = Vectors(builder, kind_name, lane_count), *lane_offsets(builder, lane_count, args[7:])

        def body(index, carried):
            to, at = carried
            vectors.store(vectors.gather(at, offsets, mask), to)
            return [builder.add(to, args[3]), builder.add(at, args[5])]

        counted_loop(builder, args[6], [args[2], args[4]], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, target, target_step, source, source_step, count, rows, columns)
    return returns(types.void, arguments), codegen


def move_vector(
    vectors: Vectors, change: Callable, target: ir.Value, source: ir.Value, at: ir.Value, mask: ir.Value | None
) -> None:
    to, place = vectors.at(target, at), vectors.at(source, at)
    if mask is None:
        vectors.store(change(vectors.load(place)), to)
    else:
        vectors.store_masked(change(vectors.load_masked(place, mask)), to, mask)


def each_vector(vectors: Vectors, count: ir.Value, move: Callable[[ir.Value, ir.Value | None], None]) -> None:
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
