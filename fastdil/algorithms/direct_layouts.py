"""How `direct` cuts a problem into tasks: what all its layouts share, and those for channels and for signals."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from fastdil.algorithms.compiled import block_tail, element_kind
from fastdil.hardware import machine
from fastdil.kernels import folds, stencil
from fastdil.kernels.geometry import STRIDES, fill, lanes_of
from fastdil.kernels.stencil import CHAIN_TERMS
from fastdil.problem import Problem

#: Outputs of one unit at most, so that a long signal is shared by all threads.
_CHUNK_PIXELS = 4096
#: Multiply-accumulates worth a task of their own: several microseconds.
TASK_MACS = 1 << 19
#: Samples that make one "gather" of the features: they are fetched one by one, whatever the lanes of a vector.
GATHERED = 8
#: Signals are folded from so many taps on, unless more than this share of the work would be lanes without outputs.
_FEWEST_FOLDED, _MOST_WASTE = 24, 1.6
#: Bytes of a vector -> output channels of a tile -> its vectors, the first for long rows: each is a kernel to compile.
_WIDTHS: dict[int, dict[int, tuple[int, ...]]] = {
    64: {1: (8, 6, 4, 2), 2: (6, 3), 4: (4, 2), 8: (3, 1)},
    32: {1: (8, 6, 3), 2: (4, 3), 4: (2,)},
}


@lru_cache(maxsize=256)  # functional calls ask each time they pack
def channel_tile(problem: Problem) -> tuple[int, int]:
    """Output channels and vectors of a register tile.

    Few sums leave the multiply-add units waiting, many run out of registers.
    """
    unit, vector_bytes = problem.unit, machine().vector_bytes
    widths = _WIDTHS[max(vector_bytes, 32)]
    rows = next((rows for rows in widths if rows >= problem.group_out * unit), max(widths))
    return rows, narrowed(widths[rows], problem.out_size[2] * unit, lanes_of(element_kind(problem), vector_bytes))


def narrowed(widths: tuple[int, ...], reals: int, lanes: int) -> int:
    """The best of these numbers of vectors for rows of `reals` samples: few of them wasted, in few tiles.

    Depthwise 3 x 3, AVX-512, one thread, tiles of one, two and four vectors: rows of 14 samples 0.120, 0.139 and 0.176
    ms, of 28 samples 0.114, 0.098 and 0.128, of 112 samples (seven vectors) 0.85, 0.81 and 0.71. Eight channels, tiles
    of one and three vectors: 8 to 8 on rows of 14 outputs 8.0 and 17.3 us, 16 to 16 on rows of 28 49 and 69 us.
    """
    needed = -(-reals // lanes)
    return min(widths, key=lambda width: -(-needed // width) * (width + 0.5))


class Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem, tile: tuple[int, int], module: Any):
        self.problem, self.tile = problem, tile
        self.kind, self.vector_bytes = element_kind(problem), machine().vector_bytes
        self.strip = tile[1] * lanes_of(self.kind, self.vector_bytes) // problem.unit
        width = problem.out_size[2]
        self.chunk = min(max(_CHUNK_PIXELS // self.strip, 1) * self.strip, max(width, 1))
        self.chunks = max(-(-width // self.chunk), 1)
        self.planes = problem.batch * problem.groups
        self.params = fill(problem, module.FIELDS)
        self.units = self._cut()
        self.task_units = self._task_units()
        self.tasks = -(-self.units // self.task_units)
        self.params[module.UNITS], self.params[module.TASK_UNITS] = self.units, self.task_units
        self.scratch_bytes = module.scratch_layout(self.params, self.kind, self.vector_bytes, *tile)

    def _cut(self) -> int:
        """Write the kernel's own parameters; returns the number of units."""
        raise NotImplementedError

    def _task_units(self) -> int:
        """Units of a task."""
        unit_macs = self.chunk * self.problem.group_out * self.problem.terms * self._unit_rows()
        return max(min(TASK_MACS // max(unit_macs, 1), self.units), 1)

    def _unit_rows(self) -> int:
        """Output rows of a unit."""
        raise NotImplementedError

    def place(self, strides: tuple[int, ...]) -> None:
        """Tell the kernel the strides of the input."""
        self.params[STRIDES] = strides

    def kernel(self) -> Any:
        """The compiled kernel."""
        raise NotImplementedError

    def _blocks(self) -> int:
        """Register tiles on top of each other."""
        return 1

    def _line_cycles(self) -> float:
        """Cycles that a tile needs for one tap of one line, averaged over the lines of a kernel."""
        raise NotImplementedError

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, width, blocks = self.problem, self.tile[1], self._blocks()
        inside, at_ends = self._tiles()
        lines = self._tile_lines() * problem.group_in * reached(problem, 0) * reached(problem, 1)
        steps = lines * problem.kernel[2] * blocks / threads  # of one tile column
        stride, padded_by_index = problem.stride[2], problem.padding_mode != "zeros"
        paired = inside + at_ends if stride == 2 and problem.unit == 1 and not padded_by_index else 0
        gathered = 0 if paired else inside + at_ends if stride > 1 else at_ends if padded_by_index else 0
        masked = 0 if stride > 1 or padded_by_index else at_ends
        met = [min(problem.size[i], problem.out_size[i] * problem.kernel[i]) for i in range(2)]  # strides skip some
        samples = problem.batch * problem.in_channels * math.prod(met) * problem.size[2]
        elements = samples + math.prod(problem.out_shape)
        return {
            "call": 1,
            "unit": self.units / threads,
            "tile": self._tile_lines() * (inside + at_ends) * blocks / threads,
            "store": self.planes * math.prod(problem.out_size[:2]) * (inside + at_ends) * problem.group_out / threads,
            "cycle": steps * self._line_cycles() * (inside + at_ends),
            "dense": 0,
            "straight": 0,
            "begin": 0,
            "lay_out": 0,
            "masked": steps * width * masked,
            "gather": steps / blocks * self.strip * problem.unit / GATHERED * gathered,
            "pair": steps / blocks * width * paired,
            "index": self._indices(gathered, masked) / threads,
            "byte": problem.dtype.itemsize * elements / threads,
            "far": 0,
        }

    def _indices(self, gathered: float, masked: float) -> float:
        """Places of samples, and masks, that are worked out one by one, with so many such tiles per output row."""
        return self._tile_lines() * masked * self.problem.kernel[2] * self.tile[1]

    def _tile_lines(self) -> float:
        """Lines of tiles that follow each other along the width."""
        return self.units / self.chunks

    def _tiles(self) -> tuple[int, int]:
        """Tiles of one output row that lie inside the input with all their taps, and the others."""
        problem, strip = self.problem, self.strip
        window, outputs = problem.windows[2], problem.out_size[2]
        tiles = -(-outputs // strip)
        first = -(-window.lo // strip)
        last = (window.size + window.lo - problem.effective_kernel[2] + 1 - strip) // strip
        inside = min(max(last - first + 1, 0), tiles)
        return inside, tiles - inside


def step_cycles(rows: int, width: int) -> float:
    """What bounds a step: two multiply-adds a cycle; two loads, where unaligned samples take two; a latency of four.

    Vectors that run in halves take twice as long, but for the latency.
    """
    parts = 2 if machine().has_halves and machine().vector_bytes == 64 else 1
    return max(parts * rows * width / 2, (2 * parts * width + rows) / 2, 4)


#: Outputs of a group, and a result in sizes of L2, from which rows of the result are asked for before they are stored,
#: and most outputs that are stored in turn: the processor itself looks ahead for 48 planes, for 64 no more. Granite
#: Rapids, one thread: 1 -> 64 channels of 3 x 20000 samples 2.2 ms without either, 1.1 with the first, 0.9 with both;
#: 2 -> 128 of 300 x 203 in float64 21.6, 16.8, 15.5; 1 -> 60 of 5 x 8 x 41 x 41 in float64 12 to 18, 4.5; 16 to 48
#: outputs 1.0 to 1.2 times as fast. Results that stay in the cache would be 3 to 9 % slower.
_MANY_OUTPUTS, _FAR_RESULT, _MOST_OUTPUTS = 16, 2, 48
#: Lines that a tile reads, and an input in sizes of L2, from which each line asks for what the next tile will read of
#: it: the processor itself looks ahead for few lines. Zen 4, one thread: 1 x 1 taps, 133 -> 6 channels of 3 x 114 x 422
#: 13.0 to 8.3 ms, 300 -> 2 of 200 x 200 3.9 to 2.8; 3 x 3 taps, 16 -> 16 of 512 x 512 15.1 to 12.5. Samples that stay
#: in the second or third cache cost a tenth more so; fewer lines gain nothing.
_MANY_LINES, _FAR_INPUT = 32, 6


class ChannelLayout(Layout):
    """Tiles of several output channels: `fastdil.kernels.stencil`."""

    def __init__(self, problem: Problem):
        super().__init__(problem, channel_tile(problem), stencil)

    def _cut(self) -> int:
        self.params[stencil.GROUP_BLOCKS] = self._blocks()
        self.params[stencil.IS_FAR] = self._is_far()
        self.params[stencil.TASK_BLOCKS] = self._task_blocks()
        self.params[[stencil.CHUNKS, stencil.CHUNK_PIXELS]] = self.chunks, self.chunk
        return self.planes * self.problem.out_size[0] * self.problem.out_size[1] * self.chunks

    def _is_far(self) -> bool:
        """Whether outputs go to many planes, which do not stay in the cache."""
        result_bytes = math.prod(self.problem.out_shape) * self.problem.dtype.itemsize
        return self.problem.group_out >= _MANY_OUTPUTS and result_bytes > _FAR_RESULT * machine().l2

    @property
    def is_ahead(self) -> bool:
        """Whether a tile reads many lines of an input that does not stay in the cache."""
        problem = self.problem
        lines = problem.group_in * problem.kernel[0] * problem.kernel[1]
        samples_bytes = problem.batch * problem.in_channels * math.prod(problem.size) * problem.dtype.itemsize
        return lines >= _MANY_LINES and samples_bytes > _FAR_INPUT * machine().l2

    def _task_blocks(self) -> int:
        """Blocks of outputs that a task computes at a time: all, or equal parts of many. Gathered samples serve all."""
        blocks, outputs = self._blocks(), self.problem.group_out
        parts = -(-outputs // _MOST_OUTPUTS) if self._is_far() and self.problem.stride[2] == 1 else 1
        return max(-(-blocks // parts), 1)

    def _unit_rows(self) -> int:
        return 1

    def kernel(self) -> Any:
        return stencil.stencil_kernel(self.kind, self.vector_bytes, self.problem.unit, *self.tile, int(self.is_ahead))

    def _blocks(self) -> int:
        return block_tail(self.problem, self.tile[0])

    def _line_cycles(self) -> float:
        return step_cycles(*self.tile)

    def features(self, threads: int) -> dict[str, float]:
        amounts = super().features(threads)
        if self.tile[0] < 4:
            return amounts | {"far": self._far_lines() / threads}
        return amounts | {"dense": amounts["cycle"], "cycle": 0}  # products bound it, not loads

    def _far_lines(self) -> float:
        """Lines of the cache that tiles fetch for a few outputs only, if those of one tile do not fit into L1."""
        problem = self.problem
        taps, size = problem.kernel[2], problem.dtype.itemsize
        span = -(-(self.strip + (taps - 1) * problem.dilation[2]) * size // 64)
        along = min(span, taps * (-(-self.strip * size // 64) + 1))  # one line: all that taps span, or what each reads
        lines = problem.group_in * problem.kernel[0] * problem.kernel[1] * along
        return self._tile_lines() * sum(self._tiles()) * lines if lines * 64 > machine().l1 else 0

    def _indices(self, gathered: float, masked: float) -> float:
        problem = self.problem
        if problem.padding_mode == "zeros" and problem.unit == 1:  # places, whole vectors at a time
            return super()._indices(gathered, masked)
        lines = problem.group_in * problem.kernel[0] * problem.kernel[1]
        panels = -(-lines // int(self.params[stencil.PANEL_LINES]))
        return self._tile_lines() * gathered * problem.kernel[2] * self.strip * problem.unit * panels


class FoldLayout(Layout):
    """Tiles of outputs a whole number of dilations apart, along a signal: `fastdil.kernels.folds`."""

    def __init__(self, problem: Problem, tile: tuple[int, int], fold_taps: int):
        self.fold_taps = fold_taps
        super().__init__(problem, tile, folds)

    def _cut(self) -> int:
        rows, outputs = self.tile[0], self.problem.out_size[2]
        turn = rows * self.fold_taps * self.problem.dilation[2]
        self.chunk = max(_CHUNK_PIXELS // turn, 1) * turn
        self.chunks = -(-outputs // self.chunk)
        self.params[folds.FOLD_TAPS] = self.fold_taps
        self.params[[folds.CHUNKS, folds.CHUNK_PIXELS]] = self.chunks, self.chunk
        return self.planes * self.chunks

    def _unit_rows(self) -> int:
        return 1

    def kernel(self) -> Any:
        return folds.fold_kernel(self.kind, self.vector_bytes, *self.tile)

    def _line_cycles(self) -> float:
        rows, width = self.tile
        return (1 + (rows - 1) * self.fold_taps / self.problem.kernel[2]) * step_cycles(rows, width) / rows


def fold_of(problem: Problem) -> tuple[tuple[int, int], int] | None:
    """Register tile and taps of a line for a signal that is worth folding, or None.

    Among the numbers of taps that divide a chain, the one that wastes the fewest lanes and the fewest lines. Chains are
    then the same as without folding, so that sums do not depend on the length of the signal.
    """
    taps, step, outputs = problem.kernel[2], problem.dilation[2], problem.out_size[2]
    is_signal = problem.kernel[:2] == problem.out_size[:2] == (1, 1)
    is_alone = problem.group_in == problem.group_out * problem.unit == 1
    if not is_signal or not is_alone or problem.stride[2] > 1 or taps < _FEWEST_FOLDED:
        return None
    vector_bytes = machine().vector_bytes
    rows, width = (4, 4) if vector_bytes == 64 else (2, 4)
    strip = width * lanes_of(element_kind(problem), vector_bytes)

    def waste(fold_taps: int) -> float:
        fold, lines = fold_taps * step, -(-taps // fold_taps)
        lanes = -(-fold // strip) * strip / fold
        tails = -(-outputs // (rows * fold)) * rows * fold / outputs
        return lanes * tails * (1 + (rows - 1) / lines / rows)

    candidates = [m for m in range(1, CHAIN_TERMS + 1) if CHAIN_TERMS % m == 0 and -(-taps // m) >= rows]
    best = min(candidates, key=waste)
    return ((rows, width), best) if waste(best) <= _MOST_WASTE else None


def reached(problem: Problem, axis: int) -> float:
    """Taps of an axis that reach the input, averaged over its outputs; all of them unless padding is zeros."""
    taps = problem.kernel[axis]
    if problem.padding_mode != "zeros" or taps > 64:
        return taps
    inside = (hi - lo for lo, hi in (problem.valid_outputs(axis, tap) for tap in range(taps)))
    return sum(inside) / max(problem.out_size[axis], 1)
