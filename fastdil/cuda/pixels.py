"""How the matrix products number their columns, the output pixels, and which taps a tile of them can skip.

Where the padding is zeros, whole taps lie on it for bands of outputs. So pixels are numbered one band of columns after
the other: a tile then knows its range of columns, and skips the taps whose samples all lie outside, along every axis.
A skipped product with zero would have changed nothing, unless the weight is Inf or NaN: such taps are never skipped.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from fastdil.cuda import geometry as G
from fastdil.cuda.compiled import device_function
from fastdil.problem import Problem

#: Bands of columns at most; beyond, one band of all columns.
MOST_BANDS = 8
#: Integers of `describe`.
COUNT = 3 * MOST_BANDS
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


@device_function
def outside(first, last, tap, stride, dilation, before, size):
    """Whether a tap lies on padding for all outputs from `first` to `last` of an axis."""
    reach = tap * dilation - before
    return last * stride + reach < 0 or first * stride + reach >= size


@device_function
def place_of(i, j, k, tap_d, tap_h, tap_w, g):
    """Where a tap of the output (i, j, k) reads, relative to the first sample of the channel, or `OUTSIDE`."""
    depth = G.source_index(i * g[G.STRIDE_D] + tap_d * g[G.DILATION_D] - g[G.BEFORE_D], g[G.SIZE_D], g[G.MODE])
    height = G.source_index(j * g[G.STRIDE_H] + tap_h * g[G.DILATION_H] - g[G.BEFORE_H], g[G.SIZE_H], g[G.MODE])
    width = G.source_index(k * g[G.STRIDE_W] + tap_w * g[G.DILATION_W] - g[G.BEFORE_W], g[G.SIZE_W], g[G.MODE])
    if depth < 0 or height < 0 or width < 0:
        return G.OUTSIDE
    return depth * g[G.X_D] + height * g[G.X_H] + width * g[G.X_W]
