"""Samples laid out for transforms, a sequence in each lane, and outputs brought back: the two ends of `fft`'s kernel.

Neighbouring phases are neighbours in memory and are copied side by side. With dilation 1 there is one phase, and rows
of neighbours are transposed.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.copies import fill_zeros
from fastdil.kernels.finish import finish_row
from fastdil.kernels.geometry import (
    ACTIVATE,
    DD,
    DH,
    DW,
    KH,
    KW,
    LD,
    LH,
    LW,
    MODE,
    ND,
    NH,
    NW,
    OH,
    OW,
    RELU,
    UNIT,
    XD,
    XH,
    XW,
    source_index,
)
from fastdil.kernels.intrinsics import call_on_row, load_element, load_i64, store_element, store_i64
from fastdil.kernels.phase_layout import (
    BLOCK,
    LENGTH,
    POINTERS,
    R_COUNT,
    R_DEPTH,
    R_FIRST,
    R_HEIGHT,
    R_LANE,
    ROW_STEP,
    RUN_FIELDS,
    STAGING,
    is_dense,
    limited,
)
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


@intrinsic(prefer_literal=True)
def copy_pairs(typingctx, kind, lanes, target, target_step, source, source_step, count, shift):
    """`count` times: copy `lanes` neighbours, and `lanes` neighbours `shift` bytes further on, which may overlap them.

    So any number of elements between one and two vectors is copied without masks. Steps are in bytes.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, count, shift = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            to, at = carried
            values = [vectors.load(at), vectors.load(builder.add(at, shift))]
            vectors.store(values[0], to)
            vectors.store(values[1], builder.add(to, shift))
            return [builder.add(to, target_step), builder.add(at, source_step)]

        counted_loop(builder, count, [target, source], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, target_step, source, source_step, count, shift)), codegen


@helper
def copy_columns(kind, size, target, target_step, source, source_step, count, width):
    """Copy `count` rows of `width` neighbours; a row has at most 32."""
    if width == 1:
        copy_pairs(kind, 1, target, target_step, source, source_step, count, 0)
    elif width == 2:
        copy_pairs(kind, 1, target, target_step, source, source_step, count, size)
    elif width <= 4:
        copy_pairs(kind, 2, target, target_step, source, source_step, count, (width - 2) * size)
    elif width <= 8:
        copy_pairs(kind, 4, target, target_step, source, source_step, count, (width - 4) * size)
    elif width <= 16:
        copy_pairs(kind, 8, target, target_step, source, source_step, count, (width - 8) * size)
    else:
        copy_pairs(kind, 16, target, target_step, source, source_step, count, (width - 16) * size)


def _transposed(vectors: Vectors, rows: list) -> list:
    """Rows as columns: ever smaller square blocks across the diagonal change places."""
    lanes, half = vectors.lanes, vectors.lanes // 2
    while half:
        keep = [i if not i & half else lanes + i - half for i in range(lanes)]
        move = [i + half if not i & half else lanes + i for i in range(lanes)]
        result = list(rows)
        for i in range(lanes):
            if not i & half:
                result[i] = vectors.shuffle(rows[i], rows[i + half], keep)
                result[i + half] = vectors.shuffle(rows[i], rows[i + half], move)
        rows, half = result, half // 2
    return rows


@intrinsic(prefer_literal=True)
def interleave(typingctx, kind, lanes, target, target_step, pointers, blocks):
    """Transpose `lanes` rows, whose addresses are listed, into rows of `lanes` columns `target_step` bytes apart."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, pointers, blocks = args[2:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        starts = [integers.load_scalar(integers.at(pointers, i)) for i in range(lane_count)]

        def body(index, carried):
            to, done = carried
            rows = [vectors.load(builder.add(start, done)) for start in starts]
            for column in _transposed(vectors, rows):
                vectors.store(column, to)
                to = builder.add(to, target_step)
            return [to, vectors.at(done, lane_count)]

        counted_loop(builder, blocks, [target, constant(0)], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, target_step, pointers, blocks)), codegen


@intrinsic(prefer_literal=True)
def separate(typingctx, kind, lanes, target, target_step, source, source_step, blocks):
    """The reverse of `interleave`: columns become rows `target_step` bytes apart."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, blocks = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            to, at = carried
            rows = [vectors.load(builder.add(at, builder.mul(source_step, constant(i)))) for i in range(lane_count)]
            for i, row in enumerate(_transposed(vectors, rows)):
                vectors.store(row, builder.add(to, builder.mul(target_step, constant(i))))
            return [vectors.at(to, lane_count), builder.add(at, builder.mul(source_step, constant(lane_count)))]

        counted_loop(builder, blocks, [target, source], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, target_step, source, source_step, blocks)), codegen


# ---------------------------------------------------------------------------------------------------------
# samples in
# ---------------------------------------------------------------------------------------------------------


@helper
def fill_edges(kind, size, params, target, step, source, start, begin, end, width):
    """Rows of `width` samples each before `begin` and from `end` on, wherever the padding mode finds them."""
    length, dilation, position_step = load_i64(params, LENGTH), load_i64(params, DW), load_i64(params, XW)
    mode, samples = load_i64(params, MODE), load_i64(params, NW)
    needed = (load_i64(params, OW) - 1) + (load_i64(params, KW) - 1) * dilation - load_i64(params, LW)
    for turn in range(length - (end - begin)):
        row = turn if turn < begin else turn + end - begin
        for index in range(width):
            position = start + row * dilation + index
            place = source_index(position, samples, mode) if position <= needed else -1
            value = load_element(kind, source + place * position_step * size) if place >= 0 else 0.0
            store_element(kind, target + row * step + index * size, value)


@helper
def fill_run(kind, size, params, target, step, source, first, width):
    """All samples of a run of `width` sequences whose first output is `first`, `step` bytes from row to row."""
    length, dilation, samples = load_i64(params, LENGTH), load_i64(params, DW), load_i64(params, NW)
    start = first - load_i64(params, LW)
    last = min(samples - 1, (load_i64(params, OW) - 1) + (load_i64(params, KW) - 1) * dilation - load_i64(params, LW))
    begin = limited((dilation - 1 - start) // dilation, 0, length)
    end = limited((last - width + 1 - start) // dilation + 1, begin, length)
    fill_edges(kind, size, params, target, step, source, start, begin, end, width)
    position_bytes = load_i64(params, XW) * size
    at = source + (start + begin * dilation) * position_bytes
    copy_columns(kind, size, target + begin * step, step, at, dilation * position_bytes, end - begin, width)


@helper
def find_row(params, run, depth_tap, line, size, source):
    """Address of the row of samples that a run reads, or 0 for zeros."""
    mode = load_i64(params, MODE)
    depth = load_i64(run, R_DEPTH) + depth_tap * load_i64(params, DD) - load_i64(params, LD)
    height = load_i64(run, R_HEIGHT) + line * load_i64(params, DH) - load_i64(params, LH)
    if height > load_i64(params, OH) - 1 + (load_i64(params, KH) - 1) * load_i64(params, DH) - load_i64(params, LH):
        return 0  # no output reads it
    depth, height = source_index(depth, load_i64(params, ND), mode), source_index(height, load_i64(params, NH), mode)
    if depth < 0 or height < 0:
        return 0
    return source + (depth * load_i64(params, XD) + height * load_i64(params, XH)) * size


@helper
def fill_line(kind, lanes, size, params, scratch, data, runs, count, source, depth_tap, line):
    """The samples of one channel of one row for all sequences of a task, one lane each."""
    rows, present = scratch + load_i64(params, POINTERS), 0
    for index in range(count):
        run = runs + index * RUN_FIELDS * 8
        row = find_row(params, run, depth_tap, line, size, source)
        store_i64(rows, index, row)
        present += load_i64(run, R_COUNT) if row != 0 else 0
    if present < 2 * lanes:
        fill_zeros(kind, lanes, data, 2 * load_i64(params, LENGTH))
    for index in range(count):
        run, row = runs + index * RUN_FIELDS * 8, load_i64(rows, index)
        target, width = data + load_i64(run, R_LANE) * size, load_i64(run, R_COUNT)
        if row != 0:
            fill_run(kind, size, params, target, 2 * lanes * size, row, load_i64(run, R_FIRST), width)


@helper
def interleave_line(kind, lanes, size, params, scratch, data, runs, count, source, depth_tap, line):
    """The same for dilation 1, where each sequence is a row of neighbours: rows are transposed."""
    length, staging, pointers = load_i64(params, LENGTH), load_i64(params, STAGING), load_i64(params, POINTERS)
    zeros = scratch + staging
    for lane in range(2 * lanes):
        place = zeros
        if lane < count:
            run = runs + lane * RUN_FIELDS * 8
            row = find_row(params, run, depth_tap, line, size, source)
            start = load_i64(run, R_FIRST) - load_i64(params, LW)
            if row != 0:
                place = row + start * size
                if start < 0 or start + length > load_i64(params, NW):
                    place = zeros + (lane + 1) * length * size
                    fill_row(kind, lanes, size, params, place, row, start)
        store_i64(scratch + pointers, lane, place)
    step = 2 * lanes * size
    for half in range(2):
        at, table = data + half * lanes * size, scratch + pointers + half * lanes * 8
        interleave(kind, lanes, at, step, table, length // lanes)


@helper
def fill_row(kind, lanes, size, params, target, row, start):
    """`LENGTH` neighbouring samples from position `start` on, which may lie outside."""
    length = load_i64(params, LENGTH)
    begin = limited(-start, 0, length)
    end = limited(load_i64(params, NW) - start, begin, length)
    fill_edges(kind, size, params, target, size, row, start, begin, end, 1)
    finish_row(kind, lanes, target + begin * size, row + (start + begin) * size, end - begin, 0, 0)


# ---------------------------------------------------------------------------------------------------------
# outputs out
# ---------------------------------------------------------------------------------------------------------


@helper
def store_run(kind, size, params, source, step, target, first, width):
    """The outputs of a run; `target` is the row's first output."""
    dilation, unit, outputs = load_i64(params, DW), load_i64(params, UNIT), load_i64(params, OW)
    block = load_i64(params, BLOCK)
    whole = limited((outputs - width - first) // dilation + 1, 0, block)
    at, target_step = target + first * unit * size, dilation * unit * size
    copy_columns(kind, size, at, target_step, source, step, whole, width)
    for row in range(whole, block):
        for index in range(width):
            if first + row * dilation + index < outputs:
                value = load_element(kind, source + row * step + index * size)
                store_element(kind, at + row * target_step + index * size, value)


@helper
def store_line(kind, lanes, size, params, scratch, data, runs, count, target, row, bias):
    """Bias, activation and store of one output channel of one output row; `target` is the channel's first output."""
    block, relu, activate = load_i64(params, BLOCK), load_i64(params, RELU), load_i64(params, ACTIVATE)
    unit, step = load_i64(params, UNIT), 2 * lanes * size
    if bias != 0 or relu != 0:
        finish_row(kind, lanes, data, data, block * 2 * lanes, bias, relu)
    if activate != 0:
        call_on_row(activate, data, block * 2 * lanes)
    length, dense = load_i64(params, LENGTH), is_dense(params)
    rows = scratch + load_i64(params, STAGING) + length * size
    if dense:
        for half in range(2):
            at = rows + half * lanes * length * size
            separate(kind, lanes, at, length * size, data + half * lanes * size, step, (block + lanes - 1) // lanes)
    for index in range(count):
        run = runs + index * RUN_FIELDS * 8
        height = load_i64(run, R_HEIGHT) + row * load_i64(params, ROW_STEP)
        if height < load_i64(params, OH):
            line = load_i64(run, R_DEPTH) * load_i64(params, OH) + height
            place = target + line * load_i64(params, OW) * unit * size
            first = load_i64(run, R_FIRST)
            if dense:
                wanted = limited(load_i64(params, OW) - first, 0, block)
                finish_row(kind, lanes, place + first * size, rows + index * length * size, wanted, 0, 0)
            else:
                at = data + load_i64(run, R_LANE) * size
                store_run(kind, size, params, at, step, place, first, load_i64(run, R_COUNT))
