"""How the matrix products number their columns, the output pixels, and which taps a tile of them can skip.

Where the padding is zeros, whole taps lie on it for bands of outputs. So pixels are numbered one band of columns after
the other: a tile then knows its range of columns, and skips the taps whose samples all lie outside, along every axis.
A skipped product with zero would have changed nothing, unless the weight is Inf or NaN: such taps are never skipped.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from fastdil.cuda import geometry as G
from fastdil.cuda.compiled import device_function, ops
from fastdil.problem import Problem

#: Bands of columns at most; beyond, one band of all columns.
MOST_BANDS = 8
# Where the integers of `describe` stand in a kernel's tuple: first tile, first column and width of each band, tiles of
# output channels, and blocks of channels that are staged at once.
FIRST_TILE, FIRST_COLUMN, WIDTH = G.COUNT, G.COUNT + MOST_BANDS, G.COUNT + 2 * MOST_BANDS
ROW_TILES, BLOCKS = G.COUNT + 3 * MOST_BANDS, G.COUNT + 3 * MOST_BANDS + 1
COUNT = G.COUNT + 3 * MOST_BANDS + 2
#: Taps for which a block remembers whether it skips them; later ones are never skipped.
MOST_SKIPPED = 512
#: No tile has this number.
_NEVER = 2**60


class Band(NamedTuple):
    """Columns in which every tap is inside, or outside, for all."""

    first: int
    width: int


def bands(problem: Problem) -> list[Band]:
    """The columns of the output, in bands of constant tap sets."""
    out, kernel = problem.out_size[2], problem.kernel[2]
    whole = [Band(0, out)]
    if problem.padding_mode != "zeros" or kernel > MOST_BANDS:
        return whole
    edges = {0, out}
    for tap in range(kernel):
        edges |= set(problem.valid_outputs(2, tap))
    inner = sorted(edges)
    cut = [Band(a, b - a) for a, b in itertools.pairwise(inner)]
    return cut if len(cut) <= MOST_BANDS else whole


def tiles_of(problem: Problem, chosen: list[Band], size: int) -> list[int]:
    """Tiles of `size` pixels in each band."""
    lines = problem.batch * problem.out_size[0] * problem.out_size[1]
    return [-(-lines * band.width // size) for band in chosen]


def useful_taps(problem: Problem, chosen: list[Band], size: int) -> float:
    """Pairs of tile and tap that are computed, estimated: lines are skipped in whole tiles, columns in whole bands."""
    if problem.padding_mode != "zeros":
        return float(sum(tiles_of(problem, chosen, size)) * problem.taps)
    total = 0.0
    for band, tiles in zip(chosen, tiles_of(problem, chosen, size), strict=True):
        share = 1.0
        for axis in (0, 1):
            out, lines = problem.out_size[axis], 1 if axis == 0 else -(-size // band.width)
            seen = 0
            for tap in range(problem.kernel[axis]):
                low, high = problem.valid_outputs(axis, tap)
                seen += min(high - low + lines - 1, out) if high > low else 0
            share *= seen / (problem.kernel[axis] * out)
        columns = sum(
            low < band.first + band.width and high > band.first
            for low, high in (problem.valid_outputs(2, tap) for tap in range(problem.kernel[2]))
        )
        total += tiles * problem.taps * share * columns / problem.kernel[2]
    return total


def best_bands(problem: Problem, size: int) -> list[Band]:
    """Bands if they save more than the tiles that they leave half empty."""
    return min([[Band(0, problem.out_size[2])], bands(problem)], key=lambda some: useful_taps(problem, some, size))


def describe(problem: Problem, chosen: list[Band], size: int) -> tuple[int, ...]:
    """First tile, first column and width of each band, as integers of a kernel."""
    starts, total = [], 0
    for tiles in tiles_of(problem, chosen, size):
        starts.append(total)
        total += tiles
    missing = MOST_BANDS - len(chosen)
    return (
        *starts,
        *(_NEVER,) * missing,
        *(band.first for band in chosen),
        *(0,) * missing,
        *(band.width for band in chosen),
        *(1,) * missing,
    )


# ---------------------------------------------------------------------------------------------------------
# in kernels
# ---------------------------------------------------------------------------------------------------------


@device_function
def outside(first, last, tap, stride, dilation, before, size):
    """Whether a tap lies on padding for all outputs from `first` to `last` of an axis."""
    reach = tap * dilation - before
    return last * stride + reach < 0 or first * stride + reach >= size


@device_function
def prepare(tile, columns, pack, thread, threads, marks, places, positions, skips, g):
    """What a block must know of its tile of `columns` pixels, in shared memory; call it, then synchronise.

    `places` says where results go, or `OUTSIDE`, `positions` has the pixels' depths, then heights, then widths, `skips`
    which taps lie on padding for all of them. Returns whether this thread's pixel is one, and its sample of the batch.
    """
    band = 0
    for index in range(1, MOST_BANDS):
        if tile >= g[FIRST_TILE + index]:
            band = index
    left, width = g[FIRST_COLUMN + band], g[WIDTH + band]
    first = (tile - g[FIRST_TILE + band]) * columns
    count = g[G.BATCH] * g[G.OUT_D] * g[G.OUT_H] * width
    pixel = first + thread % columns
    k, line = left + pixel % width, pixel // width
    j, i, n = line % g[G.OUT_H], line // g[G.OUT_H] % g[G.OUT_D], line // g[G.OUT_H] // g[G.OUT_D]
    if thread < columns:
        place = n * g[G.Y_N] + i * g[G.Y_D] + j * g[G.Y_H] + k * g[G.Y_W]
        ops.store(places, thread, place if pixel < count else G.OUTSIDE)
        ops.store(positions, thread, i)
        ops.store(positions, columns + thread, j)
        ops.store(positions, 2 * columns + thread, k)

    # The range of outputs of the tile along each axis, to see which taps it can skip.
    last = G.smaller(first + columns, count) - 1
    line0, line1 = first // width, last // width
    k0, k1, j0, j1, i0, i1 = left, left + width - 1, 0, g[G.OUT_H] - 1, 0, g[G.OUT_D] - 1
    if line0 == line1:
        k0, k1 = left + first % width, left + last % width
    if line0 // g[G.OUT_H] == line1 // g[G.OUT_H]:
        j0, j1 = line0 % g[G.OUT_H], line1 % g[G.OUT_H]
    if line0 // g[G.OUT_H] // g[G.OUT_D] == line1 // g[G.OUT_H] // g[G.OUT_D]:
        i0, i1 = line0 // g[G.OUT_H] % g[G.OUT_D], line1 // g[G.OUT_H] % g[G.OUT_D]
    for tap in range(thread, G.smaller(g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W], MOST_SKIPPED), threads):
        t, u, v = tap % g[G.TAPS_W], tap // g[G.TAPS_W] % g[G.TAPS_H], tap // g[G.TAPS_W] // g[G.TAPS_H]
        is_outside = (
            outside(k0, k1, t, g[G.STRIDE_W], g[G.DILATION_W], g[G.BEFORE_W], g[G.SIZE_W])
            or outside(j0, j1, u, g[G.STRIDE_H], g[G.DILATION_H], g[G.BEFORE_H], g[G.SIZE_H])
            or outside(i0, i1, v, g[G.STRIDE_D], g[G.DILATION_D], g[G.BEFORE_D], g[G.SIZE_D])
        )
        ops.store(skips, tap, 1 if is_outside and g[G.MODE] == 0 and ops.load(marks, pack + tap) == 0 else 0)
    return pixel < count, n


@device_function
def next_tap(tap, taps, skips):
    """The first tap from `tap` on that is not skipped; `taps` if there is none."""
    while tap < G.smaller(taps, MOST_SKIPPED) and ops.load(skips, tap):
        tap += 1
    return tap


@device_function
def place_of(tap, column, columns, positions, g):
    """Where a tap of a pixel of the tile reads, relative to the first sample of its channel, or `OUTSIDE`."""
    t, u, v = tap % g[G.TAPS_W], tap // g[G.TAPS_W] % g[G.TAPS_H], tap // g[G.TAPS_W] // g[G.TAPS_H]
    i, j = ops.load(positions, column), ops.load(positions, columns + column)
    k = ops.load(positions, 2 * columns + column)
    depth = G.source_index(i * g[G.STRIDE_D] + v * g[G.DILATION_D] - g[G.BEFORE_D], g[G.SIZE_D], g[G.MODE])
    height = G.source_index(j * g[G.STRIDE_H] + u * g[G.DILATION_H] - g[G.BEFORE_H], g[G.SIZE_H], g[G.MODE])
    width = G.source_index(k * g[G.STRIDE_W] + t * g[G.DILATION_W] - g[G.BEFORE_W], g[G.SIZE_W], g[G.MODE])
    if depth < 0 or height < 0 or width < 0:
        return G.OUTSIDE
    return depth * g[G.X_D] + height * g[G.X_H] + width * g[G.X_W]
