"""Smoothing along a row: its middle, and its ends with what stands beyond them. A part of `fastdil.kernels.atrous`.

Away from the ends of a row all sources are neighbours in memory and nothing is copied. At its ends, what `numpy.pad`
would put beyond is written to a small buffer, in runs that go up or down through the row.
"""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.copies import copy_vectors
from fastdil.kernels.geometry import source_index
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.sums import smooth_vectors

#: Rows at least this long are combined whole; shorter ones, as the three colours of a pixel, are units of a longer row.
WHOLE_ROW = 64

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
    BEFORE, AFTER, DETAILS,  # short rows only: likewise
    FIELDS,
) = range(22)  # fmt: skip


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
    if unit >= lanes and unit % lanes == 0:
        for index in range(count):
            shift = index * unit * size
            copy_vectors(
                kind, lanes, target + shift, lanes * size, source + step * shift, lanes * size, unit // lanes, -1
            )
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
            detail + here if detail != 0 else 0, 0,
        )  # fmt: skip
        first += count


@helper
def smooth_along(kind, lanes, unrolled, size, params, scratch, line, weights, begin, end, previous, out, detail):
    """Smooth the positions `begin` to `end` of the row at `line`; the addresses are those of whole rows."""
    positions, unit, dilation = load_i64(params, POSITIONS), load_i64(params, UNIT), load_i64(params, ALONG)
    taps, centre = load_i64(params, TAPS), load_i64(params, CENTRE)
    left = min(max(centre * dilation, begin), end)
    right = min(max(positions - (taps - 1 - centre) * dilation, left), end)
    if (right - left) * unit < WHOLE_ROW:  # prepared as one: each of three parts would cost more than it does
        left = right = end
    smooth_ends(kind, lanes, unrolled, size, params, scratch, line, weights, begin, left, previous, out, detail)
    if right > left:
        here, step = left * unit * size, dilation * unit * size
        for tap in range(taps):
            if tap != centre:
                store_i64(scratch, tap if tap < centre else tap - 1, line + here + (tap - centre) * step)
        smooth_vectors(
            kind, lanes, unrolled, out + here, line + here, scratch, taps - 1, weights, (right - left) * unit,
            previous + here, detail + here if detail != 0 else 0, 0,
        )  # fmt: skip
    smooth_ends(kind, lanes, unrolled, size, params, scratch, line, weights, right, end, previous, out, detail)
