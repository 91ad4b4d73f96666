"""One smoothing step of the a trous transform: the compiled part of `fastdil.wavelets`.

The array is rows of samples, C-contiguous. A pass smooths across the rows, along them, or both at once: then a row that
has been smoothed across stays in the cache while it is smoothed along, and the intermediate image is never written. The
last pass of a level stores the detail plane, what was there before less what came out, while both are in registers.

Rows that are `dilation` apart share their sources, so they are visited in that order: row 0, d, 2 d, ..., then row 1,
d + 1, ... Each row is then read from memory once, whatever the dilation.

Many rows of a few samples are transposed, some vectors of rows at a time: what is prepared for the ends of one row then
serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.hardware import machine
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS, execute
from fastdil.kernels.ends import (
    ACROSS,
    AFTER,
    ALONG,
    BEFORE,
    BLOCK,
    BLOCKS,
    BORDER,
    CENTRE,
    CHUNK,
    CHUNKS,
    DETAIL,
    DETAILS,
    FIELDS,
    LINE,
    MODE,
    PIECE,
    POSITIONS,
    ROWS,
    TAPS,
    UNIT,
    WHOLE_ROW,
    WIDTH,
    ZEROS,
    copy_units,
    smooth_along,
)
from fastdil.kernels.geometry import ELEMENT_KIND, lanes_of, source_index
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.sums import smooth_vectors, sum_vectors, transpose_block
from fastdil.padding import MODES
from fastdil.workspace import ALIGNMENT

#: Numbers of taps beside the centre, those of the named filters, that have a kernel of their own: an image in the cache
#: takes a quarter less time than with the kernel for any number.
_UNROLLED = (1, 2, 4)
#: Elements in one task, about: enough to hide its start, few enough to balance.
_TASK = 1 << 16
#: Bytes of a row that are smoothed across at a time, so that the rows in use fit the first-level cache.
_BLOCK_BYTES = 4096
#: Elements of the buffer for the ends of rows; at least one position per tap.
_BORDER = 1 << 13
#: Rows of at most so many elements are transposed; vectors of rows that are smoothed together then.
_SHORT, _TOGETHER = 128, 4


# ---------------------------------------------------------------------------------------------------------
# rows
# ---------------------------------------------------------------------------------------------------------


@helper
def list_rows(size, params, scratch, rows, row):
    """List the rows that are the sources of `row`; `rows` is the address of the first."""
    count, width, mode = load_i64(params, ROWS), load_i64(params, WIDTH), load_i64(params, MODE)
    centre, dilation = load_i64(params, CENTRE), load_i64(params, ACROSS)
    for tap in range(load_i64(params, TAPS)):
        if tap != centre:
            source = source_index(row + (tap - centre) * dilation, count, mode)
            address = scratch + load_i64(params, ZEROS) if source < 0 else rows + source * width * size
            store_i64(scratch, tap if tap < centre else tap - 1, address)


@helper
def row_in_turn(turn, rows, dilation):
    """The row that is visited at this turn: first all rows 0, d, 2 d, ..., then 1, d + 1, ..."""
    if dilation <= 1 or dilation >= rows:
        return turn
    each, longer = rows // dilation, rows % dilation  # the first `longer` phases have one row more
    if turn < longer * (each + 1):
        return turn // (each + 1) + turn % (each + 1) * dilation
    turn -= longer * (each + 1)
    return longer + turn // each + turn % each * dilation


@helper
def newest_row(params, turn):
    """The last of the sources of the row at this turn: the one that no row before it has read."""
    rows, across = load_i64(params, ROWS), load_i64(params, ACROSS)
    row = row_in_turn(min(turn, rows - 1), rows, across)
    return min(row + (load_i64(params, TAPS) - 1 - load_i64(params, CENTRE)) * across, rows - 1)


@cache
def smoother(kind: str, unrolled: int) -> Any:
    """The kernel for one element kind, ``"f32"`` or ``"f64"``, and one number of terms (0: any)."""
    size, vector_bytes = int(kind[1:]) // 8, machine().vector_bytes
    lanes = lanes_of(kind, vector_bytes)
    stamp = jit.source_stamp()

    def smooth(params, x, w, previous, out, scratch, task):
        """Task = a block of columns of a chunk of rows; `w` is the gain, then the taps without the centre."""
        stamp  # noqa: B018 - a closure cell in the cache key
        rows, width = load_i64(params, ROWS), load_i64(params, WIDTH)
        across, along = load_i64(params, ACROSS), load_i64(params, ALONG)
        block, block_size, unit = task % load_i64(params, BLOCKS), load_i64(params, BLOCK), load_i64(params, UNIT)
        chunk, chunk_size = task // load_i64(params, BLOCKS), load_i64(params, CHUNK)
        first = chunk // load_i64(params, CHUNKS) * rows
        chunk = chunk % load_i64(params, CHUNKS)
        begin = block * block_size
        count, terms = min(block_size, width - begin), load_i64(params, TAPS) - 1
        detail = load_i64(params, DETAIL)
        if across >= 0 and load_i64(params, MODE) == 0:
            copy_units(kind, lanes, size, scratch + load_i64(params, ZEROS), 0, 0, count, 1)
        for turn in range(chunk * chunk_size, min((chunk + 1) * chunk_size, rows)):
            row = row_in_turn(turn, rows, across)
            here = (first + row) * width * size
            line = x + here
            if across >= 0:
                group = x + (first * width + begin) * size
                list_rows(size, params, scratch, group, row)
                ahead = group + newest_row(params, turn + 1) * width * size
                part = begin * size
                if along >= 0:
                    target = scratch + load_i64(params, LINE)
                    smooth_vectors(kind, lanes, unrolled, target, line, scratch, terms, w, count, 0, 0, ahead)
                    line = target
                else:
                    smooth_vectors(
                        kind, lanes, unrolled, out + here + part, line + part, scratch, terms, w, count,
                        previous + here + part, detail + here + part if detail != 0 else 0, ahead,
                    )  # fmt: skip
            if along >= 0:
                smooth_along(
                    kind, lanes, unrolled, size, params, scratch, line, w, begin // unit, (begin + count) // unit,
                    previous + here, out + here, detail + here if detail != 0 else 0,
                )  # fmt: skip

    return jit.callback(smooth, f"atrous_{kind}_{unrolled or 'n'}terms_{8 * vector_bytes}bit", KERNEL_ARGUMENTS)


# ---------------------------------------------------------------------------------------------------------
# short rows
# ---------------------------------------------------------------------------------------------------------


@helper
def transpose_rows(kind, lanes, size, target, target_step, source, source_step, rows, columns):
    """Write `rows` rows of `columns` elements as columns; steps are in bytes from row to row."""
    for row in range(0, rows, lanes):
        first = min(row, max(rows - lanes, 0))  # the last block overlaps the one before: whole vectors are quicker
        for column in range(0, columns, lanes):
            left = min(column, max(columns - lanes, 0))
            transpose_block(
                kind, lanes, target + left * target_step + first * size, target_step,
                source + first * source_step + left * size, source_step, min(rows, lanes), min(columns, lanes),
            )  # fmt: skip


@cache
def short_smoother(kind: str, unrolled: int) -> Any:
    """The kernel for rows of a few elements; arguments as for `smoother`."""
    size, vector_bytes = int(kind[1:]) // 8, machine().vector_bytes
    lanes = lanes_of(kind, vector_bytes)
    together = _TOGETHER * lanes
    stamp = jit.source_stamp()

    def smooth_short(params, x, w, previous, out, scratch, task):
        """Task = a chunk of rows. Transposed, `together` of them are one row whose positions have as many elements."""
        stamp  # noqa: B018 - a closure cell in the cache key
        width, positions, chunk = load_i64(params, WIDTH), load_i64(params, POSITIONS), load_i64(params, CHUNK)
        line, after = scratch + load_i64(params, LINE), scratch + load_i64(params, AFTER)
        before, details = scratch + load_i64(params, BEFORE), scratch + load_i64(params, DETAILS)
        detail, step, line_step = load_i64(params, DETAIL), width * size, together * size
        end = min((task + 1) * chunk, load_i64(params, ROWS))
        for first in range(task * chunk, end, together):
            count, here = min(together, end - first), first * width * size
            transpose_rows(kind, lanes, size, line, line_step, x + here, step, count, width)
            known = line
            if detail != 0 and previous != x:
                transpose_rows(kind, lanes, size, before, line_step, previous + here, step, count, width)
                known = before
            smooth_along(
                kind, lanes, unrolled, size, params, scratch, line, w, 0, positions, known, after,
                details if detail != 0 else 0,
            )  # fmt: skip
            transpose_rows(kind, lanes, size, out + here, step, after, line_step, width, count)
            if detail != 0:
                transpose_rows(kind, lanes, size, detail + here, step, details, line_step, width, count)

    return jit.callback(
        smooth_short, f"atrous_short_{kind}_{unrolled or 'n'}terms_{8 * vector_bytes}bit", KERNEL_ARGUMENTS
    )


# ---------------------------------------------------------------------------------------------------------
# passes
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """One pass over memory, cut into tasks."""

    kernel: Callable[[str, int], Any]
    kind: str
    params: np.ndarray
    tasks: int
    scratch_bytes: int

    def run(self, addresses: tuple[int, int, int, int], detail: int, threads: int) -> None:
        """Smooth; `addresses` are those of the input, the weights, the level's first input and the output."""
        params = self.params.copy()  # not shared: another thread may run the same pass
        params[DETAIL] = detail
        terms = int(params[TAPS]) - 1
        kernel = self.kernel(self.kind, terms if terms in _UNROLLED else 0)
        execute(kernel.address, params, addresses, self.tasks, self.scratch_bytes, threads)


def _pass(
    dtype: np.dtype, taps: int, mode: str, threads: int, sets: int, rows: int, positions: int, unit: int,
    across: int, along: int,
) -> Pass:  # fmt: skip
    """A pass over `sets` times `rows` rows of `positions` times `unit` elements."""
    size, width = dtype.itemsize, positions * unit
    if across < 0:  # rows do not meet, so they make one set
        sets, rows = 1, sets * rows
        if width <= _SHORT and rows > 1:
            return _short_pass(dtype, taps, mode, threads, rows, positions, unit, along)
        block = max(_TASK // (4 * unit), 1) * unit
    else:
        block = width if along >= 0 else _BLOCK_BYTES // size
    block = min(block, width)
    chunk = rows
    if sets * rows * width > _TASK // 2:
        # A task across rows reads `taps - 1` rows that its neighbour reads too: it must be several times as long.
        least = 16 * (taps - 1) if across >= 0 else 1
        chunk = max(1, min(max(least, _TASK // block), -(-rows // (4 * threads))))
    blocks, chunks = -(-width // block), -(-rows // chunk)
    params, scratch = _params(size, taps, mode, rows, width, positions, unit, across, along, (LINE, ZEROS), block)
    params[[BLOCK, BLOCKS, CHUNK, CHUNKS]] = block, blocks, chunk, chunks
    return Pass(smoother, ELEMENT_KIND[dtype.name], params, sets * chunks * blocks, scratch)


def _short_pass(
    dtype: np.dtype, taps: int, mode: str, threads: int, rows: int, positions: int, unit: int, along: int
) -> Pass:
    """A pass along rows of a few elements."""
    kind, size, width = ELEMENT_KIND[dtype.name], dtype.itemsize, positions * unit
    together = _TOGETHER * lanes_of(kind, machine().vector_bytes)
    params, scratch = _params(
        size, taps, mode, rows, width, positions, unit * together, -1, along, (LINE, BEFORE, AFTER, DETAILS),
        width * together,
    )  # fmt: skip
    chunk = max(1, min(_TASK // width, -(-rows // (4 * threads))))
    params[CHUNK] = chunk = -(-chunk // together) * together
    return Pass(short_smoother, kind, params, -(-rows // chunk), scratch)


def _params(
    size: int, taps: int, mode: str, rows: int, width: int, positions: int, unit: int, across: int, along: int,
    lines: tuple[int, ...], line: int,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """Parameters, and bytes of scratch memory: the table of sources, `lines` of `line` elements, the ends of a row."""
    piece = max(1, min(_BORDER // (taps * unit), positions))
    at = -(-8 * taps // ALIGNMENT) * ALIGNMENT
    params = np.zeros(FIELDS, np.int64)
    params[[ROWS, WIDTH, POSITIONS, UNIT, ACROSS, ALONG]] = rows, width, positions, unit, across, along
    params[[MODE, TAPS, CENTRE, PIECE]] = MODES[mode], taps, taps // 2, piece
    for field in lines:
        params[field] = at
        at += -(-line * size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    params[BORDER] = at
    return params, at + taps * piece * unit * size + ALIGNMENT


@lru_cache(maxsize=256)
def smoothing_passes(
    shape: tuple[int, ...], dtype: np.dtype, axes: tuple[int, ...], dilations: tuple[int, ...], taps: int, mode: str,
    threads: int,
) -> tuple[Pass, ...]:  # fmt: skip
    """The passes that smooth a C-contiguous real array along `axes` (ascending), in that order.

    The last two axes are taken in one pass where they are neighbours, rows are long enough to be combined whole, and
    the rows in use fit half the second-level cache.
    """
    passes = []
    todo = list(zip(axes, dilations, strict=True))
    while todo:
        axis, dilation = todo.pop(0)
        inner = prod(shape[axis + 1 :])
        common = (dtype, taps, mode, threads, prod(shape[:axis]))
        if inner < WHOLE_ROW:
            passes.append(_pass(*common, 1, shape[axis], inner, -1, dilation))
        elif (
            todo
            and todo[0][0] == axis + 1
            and prod(shape[axis + 2 :]) < WHOLE_ROW
            and (taps + 2) * inner * dtype.itemsize <= machine().l2 // 2
        ):
            along = todo.pop(0)[1]
            passes.append(_pass(*common, shape[axis], shape[axis + 1], prod(shape[axis + 2 :]), dilation, along))
        else:
            passes.append(_pass(*common, shape[axis], 1, inner, dilation, -1))
    return tuple(passes)


# ---------------------------------------------------------------------------------------------------------
# the inverse
# ---------------------------------------------------------------------------------------------------------


@cache
def _summer(kind: str) -> Any:
    size, vector_bytes = int(kind[1:]) // 8, machine().vector_bytes
    lanes, task_elements = lanes_of(kind, vector_bytes), _TASK // 4
    stamp = jit.source_stamp()

    def sum_planes(params, x, w, bias, out, scratch, task):
        """Task = a stretch of the result."""
        stamp  # noqa: B018 - a closure cell in the cache key
        planes, elements = load_i64(params, 0), load_i64(params, 1)
        first = task * task_elements
        count = min(task_elements, elements - first)
        last = x + ((planes - 1) * elements + first) * size
        sum_vectors(kind, lanes, out + first * size, last, elements * size, planes, count)

    return jit.callback(sum_planes, f"atrous_sum_{kind}_{8 * vector_bytes}bit", KERNEL_ARGUMENTS)


def sum_planes(planes: np.ndarray, out: np.ndarray, threads: int) -> None:
    """Add the planes of a C-contiguous real array ``(planes, elements)`` into `out`, the last one first."""
    kernel = _summer(ELEMENT_KIND[planes.dtype.name])
    params = np.array(planes.shape, np.int64)
    tasks = -(-planes.shape[1] // (_TASK // 4))
    execute(kernel.address, params, (planes.ctypes.data, 0, 0, out.ctypes.data), tasks, 0, threads)
