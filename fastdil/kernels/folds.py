"""Long stencils on signals: the compiled part of `direct` for one-dimensional kernels of many taps.

A signal has no rows that could share their samples, so it is folded: outputs that are m dilations apart become the rows
of a register tile. Tap ``a * m + b`` of row r then reads line ``r + a`` at tap b, as in a kernel of several rows
(`fastdil.kernels.planes`), and each vector of samples serves all rows of the tile instead of one: unaligned loads bound
such kernels otherwise.

At the ends of the signal, the lines of a tile are first laid out as the padding mode continues them. Chains are those
of `fastdil.kernels.stencil` on one channel, so that both give the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    DW,
    GEOMETRY,
    GROUPS,
    KW,
    LW,
    NW,
    OW,
    XC,
    XN,
    lanes_of,
)
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.laid_out import lay_out_line, segment_runs
from fastdil.kernels.plane_tiles import plane_tile
from fastdil.kernels.planes import fill_closes
from fastdil.kernels.stencil import CHAIN_TERMS, PLAIN_CHAINS
from fastdil.kernels.store import store_tile
from fastdil.kernels.totals import settle_tile
from fastdil.workspace import lay_out

#: This kernel's own parameters, after the geometry.
(
    UNITS,  # in all
    TASK_UNITS,  # per task
    CHUNKS,  # units per signal
    CHUNK_PIXELS,  # outputs per unit, a multiple of the tile's rows times the fold
    FOLD_TAPS,  # taps of one line: m
    IS_LONG,  # 1 if there are so many chains that their sums must be exact
    RUNS, RUN_SAMPLES, SEGMENT_STEP,  # what a tile reads of a line, if it is laid out: see `segment_runs`
    TABLE, SEGMENT_TABLE, SEGMENTS, SUMS, RUN, CLOSES,  # byte offsets into the scratch memory
) = range(GEOMETRY, GEOMETRY + 15)  # fmt: skip
FIELDS = 15


@helper
def fill_folded_segments(kind, lanes, size, params, scratch, source, position, lines, fold):
    """Lay out the lines of the tile whose first line begins at `position` as the padding mode continues them."""
    runs, run, step = load_i64(params, RUNS), load_i64(params, RUN_SAMPLES), load_i64(params, DW)
    target = scratch + load_i64(params, SEGMENTS)
    for line in range(lines):
        lay_out_line(kind, lanes, size, params, target, source, position + line * fold, runs, run, step)
        target += runs * run * size


@helper
def fill_steps(table, count, step):
    """The integers 0, `step`, ...: where lines stand that are `step` samples apart."""
    for index in range(count):
        store_i64(table, index, index * step)


@helper
def folded_tile(kind, lanes, rows, width, size, params, scratch, source, weights, first_output):
    """All products of the tile whose first row starts at `first_output`."""
    all_taps, step, fold_taps = load_i64(params, KW), load_i64(params, DW), load_i64(params, FOLD_TAPS)
    fold, heights = fold_taps * step, (all_taps + fold_taps - 1) // fold_taps
    lines, tile = heights + rows - 1, scratch + load_i64(params, SUMS)
    position = first_output - load_i64(params, LW)
    table, start = scratch + load_i64(params, TABLE), source + position * size
    reach = (lines - 1) * fold + (fold_taps - 1) * step + width * lanes
    if position < 0 or position + reach > load_i64(params, NW):
        fill_folded_segments(kind, lanes, size, params, scratch, source, position, lines, fold)
        table, start = scratch + load_i64(params, SEGMENT_TABLE), scratch + load_i64(params, SEGMENTS)
        step = load_i64(params, SEGMENT_STEP)
    plane_tile(
        kind, lanes, rows, width, table, heights, fold_taps, all_taps - (heights - 1) * fold_taps,
        scratch + load_i64(params, CLOSES), start, step, weights, tile,
        tile + rows * width * lanes * size if load_i64(params, IS_LONG) else 0,
    )  # fmt: skip


@helper
def store_folded(kind, lanes, rows, width, size, params, scratch, bias, out, group, first_output, most, fold):
    """Store the rows of a tile, `fold` outputs apart, each of `most` outputs unless the signal ends before."""
    run, strip, end = scratch + load_i64(params, RUN), width * lanes, load_i64(params, OW)
    for row in range(rows):
        part = scratch + load_i64(params, SUMS) + row * strip * size
        place = first_output + row * fold
        if place >= end:
            return
        if load_i64(params, IS_LONG):
            settle_tile(kind, lanes, part, part + rows * strip * size, width)
        store_i64(run, 0, 1)
        store_i64(run, 1, 0)
        store_i64(run, 2, min(most, end - place))
        store_i64(run, 3, place)
        store_tile(kind, lanes, size, 1, params, part, strip * size, 1, group, bias, out, run)


def _make_fold_kernel(kind: str, size: int, lanes: int, rows: int, width: int, name: str) -> Any:
    stamp = jit.source_stamp()
    strip = width * lanes

    def folds(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        chunks, chunk_pixels, outputs = load_i64(params, CHUNKS), load_i64(params, CHUNK_PIXELS), load_i64(params, OW)
        groups, taps, fold_taps = load_i64(params, GROUPS), load_i64(params, KW), load_i64(params, FOLD_TAPS)
        fold, heights = fold_taps * load_i64(params, DW), (taps + fold_taps - 1) // fold_taps
        fill_closes(scratch + load_i64(params, CLOSES), heights, CHAIN_TERMS // fold_taps)
        fill_steps(scratch + load_i64(params, TABLE), heights + rows - 1, fold)
        segment = load_i64(params, RUNS) * load_i64(params, RUN_SAMPLES)
        fill_steps(scratch + load_i64(params, SEGMENT_TABLE), heights + rows - 1, segment)
        first_unit = task * load_i64(params, TASK_UNITS)
        for index in range(first_unit, min(first_unit + load_i64(params, TASK_UNITS), load_i64(params, UNITS))):
            plane = index // chunks
            group, sample = plane % groups, plane // groups
            source = x + (sample * load_i64(params, XN) + group * load_i64(params, XC)) * size
            weights, target = w + group * taps * size, out + plane * outputs * size
            begin = index % chunks * chunk_pixels
            for base in range(begin, min(begin + chunk_pixels, outputs), rows * fold):
                for column in range(0, min(fold, outputs - base), strip):
                    folded_tile(kind, lanes, rows, width, size, params, scratch, source, weights, base + column)
                    store_folded(
                        kind, lanes, rows, width, size, params, scratch, bias, target, group, base + column,
                        min(strip, fold - column), fold,
                    )  # fmt: skip

    return jit.callback(folds, name, KERNEL_ARGUMENTS)


@cache
def fold_kernel(kind: str, vector_bytes: int, rows: int, width: int) -> Any:
    """The compiled kernel for one element kind, vector width and tile."""
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    name = f"folds_{kind}_{rows}x{width * lanes}_{8 * vector_bytes}bit"
    return _make_fold_kernel(kind, size, lanes, rows, width, name)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, rows: int, width: int) -> int:
    """Write chains and the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    strip, taps, fold_taps = width * lanes, int(params[KW]), int(params[FOLD_TAPS])
    heights = -(-taps // fold_taps)
    lines = heights + rows - 1
    runs, run, step = segment_runs(strip, fold_taps, int(params[DW]), lanes)
    chains = -(-heights // (CHAIN_TERMS // fold_taps))
    params[IS_LONG] = int(chains > PLAIN_CHAINS and kind[0] == "f")
    params[RUNS], params[RUN_SAMPLES], params[SEGMENT_STEP] = runs, run, step
    parts = (
        (TABLE, lines * 8),
        (SEGMENT_TABLE, lines * 8),
        (SEGMENTS, lines * runs * run * size),
        (SUMS, 2 * rows * strip * size),
        (RUN, 4 * 8),
        (CLOSES, heights * 8),
    )
    return lay_out(params, parts)
