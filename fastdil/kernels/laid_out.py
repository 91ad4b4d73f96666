"""Samples laid out: copied, with what the padding mode continues them with, so that no tile is at an end of a row.

Either what one tile reads, or a whole plane, where planes are small. A plane is all samples of one group of channels.
With a stride of two along the width, even and odd samples of a row, padding counted, are laid out apart, so that the
samples of neighbouring outputs are neighbours. Kernels that lay planes out have these fields after the geometry.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.copies import copy_run, fill_zeros
from fastdil.kernels.finish import finish_row
from fastdil.kernels.geometry import DW, GEOMETRY, GROUP_IN, GROUPS, KW, LW, MODE, ND, NH, NW, OW, SW, XH, source_index
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns
from fastdil.workspace import ALIGNMENT, lay_out

(
    LAID_OUT,  # byte offset of the laid-out plane, whose strides then take the place of the input's; else 0
    INPUT_N, INPUT_C, INPUT_D, INPUT_H,  # the input's strides, if planes are laid out
    CLASS_STEP,  # elements from the even samples of a laid-out row to the odd ones, with a stride of two
    FIRST, SECOND,  # where the first two samples of a row are laid out
) = range(GEOMETRY, GEOMETRY + 8)  # fmt: skip
#: The geometry and these fields; a kernel's own follow.
LAID_OUT_FIELDS = GEOMETRY + 8


@intrinsic(prefer_literal=True)
def copy_rows(typingctx, kind, lanes, target, target_step, source, source_step, count, rows):
    """Copy `rows` rows of `count` elements; steps are in bytes. Zeros may follow, up to the end of a vector."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, count, rows = args[2:]
        vectors, lane = Vectors(builder, kind_name, lane_count), constant(lane_count)
        whole, rest = builder.udiv(count, lane), builder.urem(count, lane)
        # The last vector overlaps the one before it; rows shorter than a vector have a single one, under a mask.
        is_short = builder.icmp_signed("<", count, lane)
        last = builder.select(is_short, constant(0), builder.sub(count, lane))
        mask = vectors.first_lanes(count)
        has_last = builder.icmp_signed("!=", rest, constant(0))

        def over_rows(_, carried):
            to, at = carried

            def over_vectors(index, inner):
                shift = builder.mul(index, lane)
                vectors.store(vectors.load(vectors.at(at, shift)), vectors.at(to, shift))
                return []

            counted_loop(builder, whole, [], over_vectors)
            with builder.if_then(has_last):
                vectors.store(vectors.load_masked(vectors.at(at, last), mask), vectors.at(to, last))
            return [builder.add(to, target_step), builder.add(at, source_step)]

        counted_loop(builder, rows, [target, source], over_rows)
        return context.get_dummy_value()

    arguments = (kind, lanes, target, target_step, source, source_step, count, rows)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def split_rows(typingctx, kind, lanes, even_target, odd_target, target_step, source, source_step, count, rows):
    """`copy_rows` of every second element, from the first and from the second on, to two places."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        even_target, odd_target, target_step, source, source_step, count, rows = args[2:]
        vectors, pair, lane = Vectors(builder, kind_name, lane_count), constant(2 * lane_count), constant(lane_count)
        whole, rest = builder.udiv(count, pair), builder.urem(count, pair)
        masks = vectors.first_lanes(rest), vectors.first_lanes(builder.sub(rest, lane))
        has_rest = builder.icmp_signed("!=", rest, constant(0))

        def store_pair(first, second, to_even, to_odd, index):
            shift = builder.mul(index, lane)
            for parity, to in enumerate((to_even, to_odd)):
                values = vectors.shuffle(first, second, range(parity, 2 * lane_count, 2))
                vectors.store(values, vectors.at(to, shift))

        def over_rows(_, carried):
            to_even, to_odd, at = carried

            def over_pairs(index, inner):
                place = vectors.at(at, builder.mul(index, pair))
                store_pair(vectors.load(place), vectors.load(vectors.at(place, lane_count)), to_even, to_odd, index)
                return []

            counted_loop(builder, whole, [], over_pairs)
            with builder.if_then(has_rest):
                place = vectors.at(at, builder.mul(whole, pair))
                places = place, vectors.at(place, lane_count)
                first, second = (vectors.load_masked(*parts) for parts in zip(places, masks, strict=True))
                store_pair(first, second, to_even, to_odd, whole)
            return [builder.add(to_even, target_step), builder.add(to_odd, target_step), builder.add(at, source_step)]

        counted_loop(builder, rows, [even_target, odd_target, source], over_rows)
        return context.get_dummy_value()

    arguments = (kind, lanes, even_target, odd_target, target_step, source, source_step, count, rows)
    return returns(types.void, arguments), codegen


@helper
def place_of(params, position):
    """Where the sample at a position of a padded row is laid out."""
    stride = load_i64(params, SW)
    return position % stride * load_i64(params, CLASS_STEP) + position // stride


@helper
def lay_out_plane(kind, lanes, size, params, scratch, x, plane, is_first):
    """Copy the samples of a plane and continue their rows.

    The zeros around the first plane of a task serve those after it.
    """
    channels, groups = load_i64(params, GROUP_IN), load_i64(params, GROUPS)
    depths, heights, pitch = load_i64(params, ND), load_i64(params, NH), load_i64(params, XH) * size
    target = scratch + load_i64(params, LAID_OUT)
    sample, group = plane // groups, plane % groups
    if is_first:
        bytes_of_plane = channels * depths * heights * pitch
        fill_zeros(kind, lanes, target, (bytes_of_plane + (lanes - 1) * size) // (lanes * size))
    count, row_bytes = load_i64(params, NW), load_i64(params, INPUT_H) * size
    for channel in range(channels):
        source = x + (
            sample * load_i64(params, INPUT_N) + (group * channels + channel) * load_i64(params, INPUT_C)
        ) * size  # fmt: skip
        for _ in range(depths):
            first = target + load_i64(params, FIRST) * size
            if load_i64(params, SW) == 1:
                copy_rows(kind, lanes, first, pitch, source, row_bytes, count, heights)
            else:
                second = target + load_i64(params, SECOND) * size
                split_rows(kind, lanes, first, second, pitch, source, row_bytes, count, heights)
            if load_i64(params, MODE) != 0:
                continue_rows(kind, size, params, target, source)
            target += heights * pitch
            source += load_i64(params, INPUT_D) * size


@helper
def continue_rows(kind, size, params, target, source):
    """Write what the padding mode continues the rows of a sheet with; the samples are there already."""
    before, count, mode = load_i64(params, LW), load_i64(params, NW), load_i64(params, MODE)
    reach = (load_i64(params, KW) - 1) * load_i64(params, DW)
    length = max((load_i64(params, OW) - 1) * load_i64(params, SW) + reach + 1, before + count)
    for turn in range(length - count):
        # Where a sample comes from is the same for all rows, and takes longer to work out than to copy it.
        index = turn if turn < before else turn + count
        to, at = target + place_of(params, index) * size, source + source_index(index - before, count, mode) * size
        for _ in range(load_i64(params, NH)):
            copy_run(kind, 1, to, at, 1)
            to += load_i64(params, XH) * size
            at += load_i64(params, INPUT_H) * size


@helper
def lay_out_run(kind, lanes, size, params, target, row, position, count):
    """`count` neighbouring samples of a row from `position` on, which may lie outside, as the padding mode has them.

    `row` is where its sample 0 is. Zeros may follow, up to the end of a vector.
    """
    samples, mode = load_i64(params, NW), load_i64(params, MODE)
    begin = min(max(-position, 0), count)
    end = max(min(samples - position, count), begin)
    fill_zeros(kind, lanes, target, (count + lanes - 1) // lanes)
    finish_row(kind, lanes, target + begin * size, row + (position + begin) * size, end - begin, 0, 0)
    if mode != 0:
        for turn in range(count - (end - begin)):
            index = turn if turn < begin else turn + end - begin
            source = source_index(position + index, samples, mode)
            if source >= 0:
                copy_run(kind, 1, target + index * size, row + source * size, 1)


@helper
def lay_out_line(kind, lanes, size, params, segment, row, position, runs, run, step):
    """What a tile reads of a row from `position` on: `runs` times `run` samples, `step` apart, one behind the other."""
    for _ in range(runs):
        lay_out_run(kind, lanes, size, params, segment, row, position, run)
        segment += run * size
        position += step


def segment_runs(strip: int, taps: int, dilation: int, lanes: int) -> tuple[int, int, int]:
    """How what a tile of `strip` outputs reads of a row is laid out: runs, samples of one, and samples between taps.

    All that the taps span, or where that is more, a run for each tap.
    """
    span = -(-(strip + (taps - 1) * dilation) // lanes) * lanes
    return (1, span, dilation) if span <= taps * strip else (taps, strip, strip)


def laid_out_strides(params: np.ndarray, strip: int, lanes: int) -> tuple[int, int, int, int]:
    """Strides of laid-out planes: of channel, depth, height and width. `strip` is the length of a tile.

    Writes ``params[CLASS_STEP]``, ``params[FIRST]`` and ``params[SECOND]``.
    """
    stride = int(params[SW])
    length = -(-int(params[OW]) // strip) * strip + int((params[KW] - 1) * params[DW]) // stride
    if stride > 1:  # what is left of the last pair of vectors is stored in whole vectors, too
        length = max(length, int(params[LW] + params[NW]) // stride + lanes) + 1
    params[CLASS_STEP] = -(-length // lanes) * lanes
    before = np.arange(2) + int(params[LW])
    params[[FIRST, SECOND]] = before % stride * params[CLASS_STEP] + before // stride
    pitch = int(params[CLASS_STEP]) * stride
    return int(params[ND] * params[NH]) * pitch, int(params[NH]) * pitch, pitch, 1


def lay_out_parts(params: np.ndarray, parts: tuple, size: int) -> int:
    """Lay out the parts of the scratch memory, and a plane if planes are laid out; returns the size.

    ``params[LAID_OUT]`` is how many elements a laid-out plane takes, and becomes where it is: so that samples, not the
    padding before them, start at lines of the cache.
    """
    if not params[LAID_OUT]:
        return lay_out(params, parts)
    # Room to move it, and for the vector of zeros at its end.
    total = lay_out(params, (*parts, (LAID_OUT, int(params[LAID_OUT]) * size + 2 * ALIGNMENT)))
    params[LAID_OUT] += -int(params[FIRST]) * size % ALIGNMENT
    return total
