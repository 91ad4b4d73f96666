"""Where the lanes of vectors lie: tables of offsets, and the runs of neighbours that a vector is fetched as."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastdil.kernels.vectors import I1, I64, Vectors, constant, counted_loop, literals, returns, splat, spread_bits

#: Marks a sample that is a padding zero in tables of offsets. Real offsets may be negative (reversed views), but stay
#: far above: whatever is added to this mark, the sum is below half of it, and two marks do not overflow.
OUTSIDE = -(2**61)

#: Runs of neighbours of which a vector is put together; one with more is gathered.
MOST_RUNS = 4
#: Integers that `classify_lanes` writes for a vector: offset and mask of each run.
ENTRY_FIELDS = 2 * MOST_RUNS


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


def lane_offsets(builder: ir.IRBuilder, lanes: int, tables: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
    """``(rows + columns, is it a sample)`` for one vector of lanes."""
    integers = Vectors(builder, "i64", lanes)
    offsets = builder.add(integers.load(tables[0]), integers.load(tables[1]))
    limit = ir.Constant(integers.type, [OUTSIDE // 2] * lanes)
    return offsets, builder.icmp_signed(">", offsets, limit)


@intrinsic(prefer_literal=True)
def classify_lanes(typingctx, lanes, rows, columns, step, entry):
    """How to fetch one vector whose lane i stands at ``rows[i] + columns[i]`` (`OUTSIDE`: a zero).

    Writes `ENTRY_FIELDS` integers behind `entry`: for each run of lanes that are `step` elements apart in memory, 1 or
    2, the offset of lane 0, as if the run began there, and the mask of its lanes, where `step` is 2 of its elements
    among twice as many. Where there are too many runs, the first mask is -1.
    """
    (lane_count,) = literals(lanes)

    def codegen(context, builder, signature, args):
        offsets, wanted = lane_offsets(builder, lane_count, args[1:3])
        bits_type = ir.IntType(lane_count)
        ramp = ir.Constant(offsets.type, list(range(lane_count)))
        anchors = builder.sub(offsets, builder.mul(ramp, splat(builder, args[3], lane_count)))
        is_pairs = builder.icmp_signed("==", args[3], constant(2))
        integers, none = Vectors(builder, "i64", 1), ir.Constant(bits_type, 0)

        def write(field, value):
            builder.store(value, integers.pointer(integers.at(args[4], field)), align=8)

        def take_run(number, left):
            """Write the first run of the lanes that are left; returns the others."""
            first = builder.and_(builder.cttz(left, ir.Constant(I1, 0)), ir.Constant(bits_type, lane_count - 1))
            anchor = builder.extract_element(anchors, builder.zext(first, I64))
            same = builder.icmp_signed("==", anchors, splat(builder, anchor, lane_count))
            run = builder.and_(builder.bitcast(same, bits_type), left)
            # An empty run is loaded under an empty mask: from a mapped address, or it takes a microcode assist.
            is_empty = builder.icmp_unsigned("==", run, none)
            write(2 * number, builder.select(is_empty, constant(0), anchor))
            mask = builder.zext(run, I64)
            write(2 * number + 1, builder.select(is_pairs, spread_bits(builder, mask), mask))
            return builder.xor(left, run)

        left = take_run(1, take_run(0, builder.bitcast(wanted, bits_type)))
        for field in range(4, ENTRY_FIELDS):
            write(field, constant(0))
        with builder.if_then(builder.icmp_unsigned("!=", left, none)):  # seldom, and each run takes time
            for number in range(2, MOST_RUNS):
                left = take_run(number, left)
            with builder.if_then(builder.icmp_unsigned("!=", left, none)):
                write(1, constant(-1))
        return context.get_dummy_value()

    return returns(types.void, (lanes, rows, columns, step, entry)), codegen
