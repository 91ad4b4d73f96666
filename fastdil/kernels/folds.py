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
from fastdil.kernels.copies import gather_vectors
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
from fastdil.kernels.pack import fill_columns, fill_constant
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
    SEGMENT,  # samples of one line that a tile reads
    TABLE, SEGMENT_TABLE, SEGMENTS, COLUMNS, SUMS, NO_ROWS, RUN, CLOSES,  # byte offsets into the scratch memory
) = range(GEOMETRY, GEOMETRY + 15)  # fmt: skip
FIELDS = 15


@helper
def fill_folded_segments(kind, lanes, size, params, scratch, source, first_output, lines, fold):
    """Lay out the lines of the tile at `first_output` as the padding mode continues them."""
    segments, columns = scratch + load_i64(params, SEGMENTS), scratch + load_i64(params, COLUMNS)
    no_rows, length = scratch + load_i64(params, NO_ROWS), load_i64(params, SEGMENT)
    fill_constant(no_rows, lanes, 0)
    for line in range(lines):
        fill_columns(params, columns, first_output + line * fold, length, 0)
        for first in range(0, length, lanes):
            target = segments + (line * length + first) * size
            gather_vectors(kind, lanes, target, 0, source, 0, 1, no_rows, columns + first * 8)


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
    reach = (lines - 1) * fold + load_i64(params, SEGMENT)
    if position < 0 or position + reach > load_i64(params, NW):
        fill_folded_segments(kind, lanes, size, params, scratch, source, first_output, lines, fold)
        table, start = scratch + load_i64(params, SEGMENT_TABLE), scratch + load_i64(params, SEGMENTS)
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
        fill_steps(scratch + load_i64(params, SEGMENT_TABLE), heights + rows - 1, load_i64(params, SEGMENT))
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
    segment = -(-(strip + (fold_taps - 1) * int(params[DW])) // lanes) * lanes
    chains = -(-heights // (CHAIN_TERMS // fold_taps))
    params[IS_LONG], params[SEGMENT] = int(chains > PLAIN_CHAINS and kind[0] == "f"), segment
    parts = (
        (TABLE, lines * 8),
        (SEGMENT_TABLE, lines * 8),
        (SEGMENTS, lines * segment * size),
        (COLUMNS, segment * 8),
        (SUMS, 2 * rows * strip * size),
        (NO_ROWS, lanes * 8),
        (RUN, 4 * 8),
        (CLOSES, heights * 8),
    )
    return lay_out(params, parts)
