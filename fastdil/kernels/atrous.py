"""One smoothing step of the a trous transform: the compiled part of `fastdil.wavelets`.

The array is rows of samples, C-contiguous. A pass smooths across the rows, along them, or both at once: then a row that
has been smoothed across stays in the cache while it is smoothed along, and the intermediate image is never written. The
last pass of a level stores the detail plane, what was there before less what came out, while both are in registers.

Rows that are `dilation` apart share their sources, so they are visited in that order: row 0, d, 2 d, ..., then row 1,
d + 1, ... Each row is then read from memory once, whatever the dilation.

Away from the ends of a row all sources are neighbours in memory and nothing is copied. At its ends, what `numpy.pad`
would put beyond is written to a small buffer, in runs that go up or down through the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.hardware import machine
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS, execute
from fastdil.kernels.geometry import ELEMENT_KIND, lanes_of, source_index
from fastdil.kernels.intrinsics import copy_vectors, load_i64, store_i64
from fastdil.kernels.sums import smooth_vectors, sum_vectors
from fastdil.padding import MODES
from fastdil.workspace import ALIGNMENT

#: Rows at least this long are combined whole; shorter ones, as the three colours of a pixel, are units of a longer row.
WHOLE_ROW = 64
#: Numbers of taps beside the centre, those of the named filters, that have a kernel of their own: an image in the cache
#: takes a quarter less time than with the kernel for any number.
_UNROLLED = (1, 2, 4)
#: Elements in one task, about: enough to hide its start, few enough to balance.
_TASK = 1 << 16
#: Bytes of a row that are smoothed across at a time, so that the rows in use fit the first-level cache.
_BLOCK_BYTES = 4096
#: Elements of the buffer for the ends of rows; at least one position per tap.
_BORDER = 1 << 13

(
    ROWS, WIDTH,  # rows that belong together; elements of a row
    POSITIONS, UNIT,  # positions along a row, and elements of each: WIDTH = POSITIONS * UNIT
    ACROSS, ALONG,  # dilations; -1: not smoothed in this direction
    MODE, TAPS, CENTRE,
    BLOCK, BLOCKS,  # elements of a row per task, and blocks per row
    CHUNK, CHUNKS,  # rows per task, and chunks per set of rows
    DETAIL,  # address of the detail plane, or 0
    PIECE,  # positions at the ends of a row that are prepared at a time
    LINE, ZEROS, BORDER,  # byte offsets of the parts of the scratch memory; its beginning lists the sources of the taps
    FIELDS,
) = range(19)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# beyond the ends of a row
# ---------------------------------------------------------------------------------------------------------


@helper
def run_from(position, size, mode):
    """``(first source, step, length)`` of the run of sources that starts at `position`; source -1: zeros."""
    if 0 <= position < size:
        return position, 1, size - position
    if mode == 0 or mode == 2 or size == 1:
        source = -1 if mode == 0 else (0 if position < 0 else size - 1)
        # Behind the last sample the run never ends; any length that the caller cuts will do.
        return source, 0, -position if position < 0 else 1 << 60
    source = source_index(position, size, mode)
    if mode == 3:
        return source, 1, size - source
    if mode == 4:
        return (source, 1, size - source) if position % (2 * size) < size else (source, -1, source + 1)
    if position % (2 * (size - 1)) < size - 1:
        return source, 1, size - 1 - source
    return source, -1, source


@helper
def copy_units(kind, lanes, size, target, source, step, count, unit):
    """Copy `count` positions of `unit` elements, `step` positions apart at the source; may write past the end.

    `source` 0 gives zeros.
    """
    if source == 0 or step == 1:
        bits = 0 if source == 0 else -1
        vectors, rest = count * unit // lanes, count * unit % lanes
        stride = 0 if source == 0 else lanes * size
        read = target if source == 0 else source
        copy_vectors(kind, lanes, target, lanes * size, read, stride, vectors, bits)
        done = vectors * lanes * size
        copy_vectors(kind, lanes, target + done, 0, read + (0 if source == 0 else done), 0, 1, bits & ((1 << rest) - 1))
        return
    for part in range(unit):
        shift = part * size
        copy_vectors(kind, 1, target + shift, unit * size, source + shift, step * unit * size, count, 1)


@helper
def fill_positions(kind, lanes, size, target, line, first, count, positions, unit, mode):
    """Write the samples that stand at `count` positions from `first` on, inside the row or beyond its ends."""
    while count > 0:
        source, step, length = run_from(first, positions, mode)
        length = min(length, count)
        copy_units(kind, lanes, size, target, 0 if source < 0 else line + source * unit * size, step, length, unit)
        target += length * unit * size
        first += length
        count -= length


@helper
def smooth_ends(kind, lanes, unrolled, size, params, scratch, line, weights, first, last, previous, out, detail):
    """Smooth the positions `first` to `last` of a row, whose sources lie partly beyond its ends."""
    positions, unit, mode = load_i64(params, POSITIONS), load_i64(params, UNIT), load_i64(params, MODE)
    taps, centre, dilation = load_i64(params, TAPS), load_i64(params, CENTRE), load_i64(params, ALONG)
    bytes_each, border = unit * size, scratch + load_i64(params, BORDER)
    while first < last:
        count = min(load_i64(params, PIECE), last - first)
        start = first - centre * dilation
        # Sources of all taps in one stretch, if that is no longer than one stretch for each tap.
        if dilation <= count:
            stretch = count + (taps - 1) * dilation
            fill_positions(kind, lanes, size, border, line, start, stretch, positions, unit, mode)
        for tap in range(taps):
            at, source = start + tap * dilation, border + tap * dilation * bytes_each
            if dilation > count:
                if at >= 0 and at + count <= positions:
                    source = line + at * bytes_each
                else:
                    source = border + tap * count * bytes_each
                    fill_positions(kind, lanes, size, source, line, at, count, positions, unit, mode)
            if tap != centre:
                store_i64(scratch, tap if tap < centre else tap - 1, source)
        here = first * bytes_each
        smooth_vectors(
            kind, lanes, unrolled, out + here, line + here, scratch, taps - 1, weights, count * unit, previous + here,
            detail + here if detail != 0 else 0,
        )  # fmt: skip
        first += count


# ---------------------------------------------------------------------------------------------------------
# rows
# ---------------------------------------------------------------------------------------------------------


@helper
def smooth_along(kind, lanes, unrolled, size, params, scratch, line, weights, begin, end, previous, out, detail):
    """Smooth the positions `begin` to `end` of the row at `line`; the addresses are those of whole rows."""
    positions, unit, dilation = load_i64(params, POSITIONS), load_i64(params, UNIT), load_i64(params, ALONG)
    taps, centre = load_i64(params, TAPS), load_i64(params, CENTRE)
    left = min(max(centre * dilation, begin), end)
    right = min(max(positions - (taps - 1 - centre) * dilation, left), end)
    smooth_ends(kind, lanes, unrolled, size, params, scratch, line, weights, begin, left, previous, out, detail)
    if right > left:
        here, step = left * unit * size, dilation * unit * size
        for tap in range(taps):
            if tap != centre:
                store_i64(scratch, tap if tap < centre else tap - 1, line + here + (tap - centre) * step)
        smooth_vectors(
            kind, lanes, unrolled, out + here, line + here, scratch, taps - 1, weights, (right - left) * unit,
            previous + here, detail + here if detail != 0 else 0,
        )  # fmt: skip
    smooth_ends(kind, lanes, unrolled, size, params, scratch, line, weights, right, end, previous, out, detail)


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
                list_rows(size, params, scratch, x + (first * width + begin) * size, row)
                part = begin * size
                if along >= 0:
                    target = scratch + load_i64(params, LINE)
                    smooth_vectors(kind, lanes, unrolled, target, line, scratch, terms, w, count, 0, 0)
                    line = target
                else:
                    smooth_vectors(
                        kind, lanes, unrolled, out + here + part, line + part, scratch, terms, w, count,
                        previous + here + part, detail + here + part if detail != 0 else 0,
                    )  # fmt: skip
            if along >= 0:
                smooth_along(
                    kind, lanes, unrolled, size, params, scratch, line, w, begin // unit, (begin + count) // unit,
                    previous + here, out + here, detail + here if detail != 0 else 0,
                )  # fmt: skip

    return jit.callback(smooth, f"atrous_{kind}_{unrolled or 'n'}terms_{8 * vector_bytes}bit", KERNEL_ARGUMENTS)


@dataclass(frozen=True)
class Pass:
    """One pass over memory, cut into tasks."""

    kind: str
    params: np.ndarray
    tasks: int
    scratch_bytes: int

    def run(self, addresses: tuple[int, int, int, int], detail: int, threads: int) -> None:
        """Smooth; `addresses` are those of the input, the weights, the level's first input and the output."""
        params = self.params.copy()  # not shared: another thread may run the same pass
        params[DETAIL] = detail
        terms = int(params[TAPS]) - 1
        kernel = smoother(self.kind, terms if terms in _UNROLLED else 0)
        execute(kernel.address, params, addresses, self.tasks, self.scratch_bytes, threads)


def _pass(
    dtype: np.dtype, taps: int, mode: str, threads: int, sets: int, rows: int, positions: int, unit: int,
    across: int, along: int,
) -> Pass:  # fmt: skip
    """A pass over `sets` times `rows` rows of `positions` times `unit` elements."""
    size, width = dtype.itemsize, positions * unit
    if across < 0:  # rows do not meet, so they make one set
        sets, rows = 1, sets * rows
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
    piece = max(1, min(_BORDER // (taps * unit), positions))
    table = -(-8 * taps // ALIGNMENT) * ALIGNMENT
    line = -(-block * size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    params = np.zeros(FIELDS, np.int64)
    params[[ROWS, WIDTH, POSITIONS, UNIT, ACROSS, ALONG]] = rows, width, positions, unit, across, along
    params[[MODE, TAPS, CENTRE]] = MODES[mode], taps, taps // 2
    params[[BLOCK, BLOCKS, CHUNK, CHUNKS, PIECE]] = block, blocks, chunk, chunks, piece
    params[[LINE, ZEROS, BORDER]] = table, table + line, table + 2 * line
    scratch = table + 2 * line + taps * piece * unit * size + ALIGNMENT
    return Pass(ELEMENT_KIND[dtype.name], params, sets * chunks * blocks, scratch)


def smoothing_passes(
    shape: tuple[int, ...], dtype: np.dtype, axes: tuple[int, ...], dilations: tuple[int, ...], taps: int, mode: str,
    threads: int,
) -> list[Pass]:  # fmt: skip
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
    return passes


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
