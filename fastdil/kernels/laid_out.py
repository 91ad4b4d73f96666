"""Small planes laid out: copied, with what the padding mode continues them with, so that no tile is at an end of a row.

A plane is all samples of one group of channels. Kernels that lay planes out have these fields after the geometry.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.copies import copy_run, fill_zeros
from fastdil.kernels.geometry import DW, GEOMETRY, GROUP_IN, GROUPS, KW, LW, MODE, ND, NH, NW, OW, XH, source_index
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns
from fastdil.workspace import ALIGNMENT

(
    LAID_OUT,  # byte offset of the laid-out plane, whose strides then take the place of the input's; else 0
    INPUT_N, INPUT_C, INPUT_D, INPUT_H,  # the input's strides, if planes are laid out
) = range(GEOMETRY, GEOMETRY + 5)  # fmt: skip
#: The geometry and these fields; a kernel's own follow.
LAID_OUT_FIELDS = GEOMETRY + 5


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
    before, count, row_bytes = load_i64(params, LW), load_i64(params, NW), load_i64(params, INPUT_H) * size
    for channel in range(channels):
        source = x + (
            sample * load_i64(params, INPUT_N) + (group * channels + channel) * load_i64(params, INPUT_C)
        ) * size  # fmt: skip
        for _ in range(depths):
            copy_rows(kind, lanes, target + before * size, pitch, source, row_bytes, count, heights)
            if load_i64(params, MODE) != 0:
                continue_rows(kind, size, params, target, source)
            target += heights * pitch
            source += load_i64(params, INPUT_D) * size


@helper
def continue_rows(kind, size, params, target, source):
    """Write what the padding mode continues each row of a sheet with; the samples are there already."""
    before, count, mode = load_i64(params, LW), load_i64(params, NW), load_i64(params, MODE)
    length = load_i64(params, OW) + (load_i64(params, KW) - 1) * load_i64(params, DW)
    for _ in range(load_i64(params, NH)):
        for turn in range(length - count):
            index = turn if turn < before else turn + count
            copy_run(kind, 1, target + index * size, source + source_index(index - before, count, mode) * size, 1)
        target += load_i64(params, XH) * size
        source += load_i64(params, INPUT_H) * size


def laid_out_strides(params: np.ndarray, strip: int, lanes: int) -> tuple[int, int, int, int]:
    """Strides of laid-out planes: of channel, depth, height and width. `strip` is the length of a tile."""
    length = -(-int(params[OW]) // strip) * strip + int((params[KW] - 1) * params[DW])
    pitch = -(-length // lanes) * lanes
    return int(params[ND] * params[NH]) * pitch, int(params[NH]) * pitch, pitch, 1


def laid_out_bytes(elements: int, size: int) -> int:
    """What a laid-out plane takes: room to place it, and for the vector of zeros at its end."""
    return elements * size + 2 * ALIGNMENT


def align_samples(params: np.ndarray, size: int) -> None:
    """Move ``params[LAID_OUT]`` on so that samples, not the padding before them, start at lines of the cache."""
    params[LAID_OUT] += -int(params[LW]) * size % ALIGNMENT
