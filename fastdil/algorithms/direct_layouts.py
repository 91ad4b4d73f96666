"""How `direct` cuts a problem into tasks: the layouts of its three kernels, and which of them suits."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from fastdil.algorithms.compiled import block_tail, element_kind
from fastdil.hardware import machine
from fastdil.kernels import folds, planes, stencil
from fastdil.kernels.geometry import STRIDES, fill, lanes_of
from fastdil.kernels.stencil import CHAIN_TERMS
from fastdil.problem import Problem

#: Outputs of one unit at most, so that a long signal is shared by all threads.
_CHUNK_PIXELS = 4096
#: Multiply-accumulates worth a task of their own: several microseconds.
_TASK_MACS = 1 << 19
#: Depthwise planes are worked on together while their samples fit into a part of L2.
_PLANES_BYTES = 1 << 18
#: Where lines are laid out as the padding mode continues them, they must not push the samples out of L2.
_LINES_BYTES = 1 << 20
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
    return rows, _narrowed(widths[rows], problem.out_size[2] * unit, lanes_of(element_kind(problem), vector_bytes))


def _plane_tile(problem: Problem) -> tuple[int, int] | None:
    """Output rows and vectors of a register tile that shares lines of samples, or None where rows cannot share.

    Rows that are `dilation` apart read the same lines. The more rows, the fewer loads for each; but no more than the
    kernel has rows, or no line would serve all of them.
    """
    step, stride, heights = problem.dilation[1], problem.stride[1], problem.kernel[1]
    if problem.group_out * problem.unit > 1 or problem.stride[2] > 1 or step % stride or heights < 2:
        return None
    rows_of_phase = -(-problem.out_size[1] * stride // step)
    vector_bytes = machine().vector_bytes
    if vector_bytes == 64:
        rows = min(4 if heights >= 5 else 3, heights, rows_of_phase)
        widths: tuple[int, ...] = (4, 2, 1)
    else:
        # 16 registers instead of 32. Two rows of four vectors or four of three on AVX2, one thread: 31 x 31 30.1 and
        # 27.6 ms, depthwise 7 x 7 of 56 x 56 1.2 and 0.63 ms (four of two), 5 x 5 6.4 and 6.9 ms.
        rows = min(4 if heights >= 7 else 2, heights, rows_of_phase)
        widths = (3, 2) if rows > 2 else (4, 3)
    if rows < 2:
        return None
    lanes = lanes_of(element_kind(problem), vector_bytes)
    return rows, _narrowed(widths, problem.out_size[2], lanes)


def _narrowed(widths: tuple[int, ...], reals: int, lanes: int) -> int:
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
        self.params[module.CHUNKS], self.params[module.CHUNK_PIXELS] = self.chunks, self.chunk
        self.scratch_bytes = module.scratch_layout(self.params, self.kind, self.vector_bytes, *tile)

    def _cut(self) -> int:
        """Write the kernel's own parameters; returns the number of units."""
        raise NotImplementedError

    def _task_units(self) -> int:
        """Units of a task."""
        unit_macs = self.chunk * self.problem.group_out * self.problem.terms * self._unit_rows()
        return max(min(_TASK_MACS // max(unit_macs, 1), self.units), 1)

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
        lines = self._tile_lines() * problem.group_in * _reached(problem, 0) * _reached(problem, 1)
        steps = lines * problem.kernel[2] * blocks / threads  # of one tile column
        stride, padded_by_index = problem.stride[2], problem.padding_mode != "zeros"
        paired = inside + at_ends if stride == 2 and problem.unit == 1 and not padded_by_index else 0
        gathered = 0 if paired else inside + at_ends if stride > 1 else at_ends if padded_by_index else 0
        masked = 0 if stride > 1 or padded_by_index else at_ends
        elements = problem.batch * problem.in_channels * math.prod(problem.size) + math.prod(problem.out_shape)
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
            "gather": steps / blocks * width * gathered,
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


def _step_cycles(rows: int, width: int) -> float:
    """What bounds a step: two multiply-adds a cycle; two loads, where unaligned samples take two; a latency of four."""
    return max(rows * width / 2, (2 * width + rows) / 2, 4)


class ChannelLayout(Layout):
    """Tiles of several output channels: `fastdil.kernels.stencil`."""

    def __init__(self, problem: Problem):
        super().__init__(problem, channel_tile(problem), stencil)

    def _cut(self) -> int:
        self.params[stencil.GROUP_BLOCKS] = self._blocks()
        return self.planes * self.problem.out_size[0] * self.problem.out_size[1] * self.chunks

    def _unit_rows(self) -> int:
        return 1

    def kernel(self) -> Any:
        return stencil.stencil_kernel(self.kind, self.vector_bytes, self.problem.unit, *self.tile)

    def _blocks(self) -> int:
        return block_tail(self.problem, self.tile[0])

    def _line_cycles(self) -> float:
        return _step_cycles(*self.tile)

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


class PlaneLayout(Layout):
    """Tiles of several output rows that share their lines of samples: `fastdil.kernels.planes`."""

    def __init__(self, problem: Problem, tile: tuple[int, int]):
        super().__init__(problem, tile, planes)

    def _cut(self) -> int:
        problem, params, rows = self.problem, self.params, self.tile[0]
        depth, height, _ = problem.out_size
        row_step = problem.dilation[1] // problem.stride[1]
        plane_bytes = problem.group_in * math.prod(problem.size) * problem.dtype.itemsize
        plane_block = min(max(_PLANES_BYTES // max(plane_bytes, 1), 1), self.planes)
        self.strides = planes.laid_out_strides(params, self.strip)
        plane_elements = problem.group_in * self.strides[0]
        self.is_laid_out = self._is_worth_copying(plane_elements)
        self.unit_rows = rows
        if self.is_laid_out:  # one after the other: most fit into L1
            plane_block = 1
            params[planes.LAID_OUT] = plane_elements
            self.unit_rows = -(-height // (row_step * rows)) * rows
        row_groups = -(-height // (row_step * self.unit_rows))
        params[planes.UNIT_ROWS] = self.unit_rows
        params[planes.ROW_STEP], params[planes.ROW_GROUPS] = row_step, row_groups
        params[planes.PLANES], params[planes.PLANE_BLOCK] = self.planes, plane_block
        return -(-self.planes // plane_block) * plane_block * depth * row_step * row_groups * self.chunks

    def _is_worth_copying(self, plane_elements: int) -> bool:
        """Whether planes are laid out, so that no tile is at an end of a row: small ones, where many tiles would be."""
        problem, (inside, at_ends) = self.problem, super()._tiles()
        is_small = plane_elements * problem.dtype.itemsize <= _PLANES_BYTES and _plane_macs(problem) <= 2 * _TASK_MACS
        return is_small and 3 * at_ends >= inside and problem.kernel[2] > 1

    def _tiles(self) -> tuple[int, int]:
        inside, at_ends = super()._tiles()
        return (inside + at_ends, 0) if self.is_laid_out else (inside, at_ends)

    def _task_units(self) -> int:
        if not self.is_laid_out:
            return super()._task_units()
        planes_of_task = max(_TASK_MACS // max(_plane_macs(self.problem), 1), 1)
        return self.units // self.planes * planes_of_task

    def _indices(self, gathered: float, masked: float) -> float:
        return 0  # remembered from row to row

    def place(self, strides: tuple[int, ...]) -> None:
        if self.is_laid_out:
            self.params[planes.INPUT_N : planes.INPUT_H + 1] = strides[:4]
            strides = (0, *self.strides)
        super().place(strides)

    def _unit_rows(self) -> int:
        return self.unit_rows

    def _tile_lines(self) -> float:
        return super()._tile_lines() * self.unit_rows / self.tile[0]

    def features(self, threads: int) -> dict[str, float]:
        amounts = super().features(threads)
        depths, heights, width = self.problem.size
        lines = self.planes * self.problem.group_in * depths * heights if self.is_laid_out else 0
        vectors = -(-width // lanes_of(self.kind, self.vector_bytes))
        straight = {"straight": amounts["cycle"], "begin": amounts["tile"], "lay_out": lines * vectors / threads}
        return amounts | straight | {"cycle": 0, "tile": 0, "store": 0}

    def kernel(self) -> Any:
        is_single = self.problem.terms <= planes.SINGLE_TERMS
        return planes.plane_kernel(self.kind, self.vector_bytes, *self.tile, is_single)

    def _line_cycles(self) -> float:
        rows, width = self.tile
        heights = self.problem.kernel[1]
        alone = 2 * sum(_step_cycles(present, width) for present in range(1, rows))
        return ((heights - rows + 1) * _step_cycles(rows, width) + alone) / heights


def _plane_macs(problem: Problem) -> int:
    return problem.out_pixels * problem.terms


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
        return self.planes * self.chunks

    def _unit_rows(self) -> int:
        return 1

    def kernel(self) -> Any:
        return folds.fold_kernel(self.kind, self.vector_bytes, *self.tile)

    def _line_cycles(self) -> float:
        rows, width = self.tile
        return (1 + (rows - 1) * self.fold_taps / self.problem.kernel[2]) * _step_cycles(rows, width) / rows


def _fold(problem: Problem) -> tuple[tuple[int, int], int] | None:
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


def layout_of(problem: Problem, is_plain: bool) -> Layout:
    """The layout that suits a problem.

    `is_plain`: all weights are finite, and samples that follow each other along the width do so in memory.
    """
    if is_plain:
        layout: Layout | None = None
        if (tile := _plane_tile(problem)) is not None:
            layout = PlaneLayout(problem, tile)
        elif (fold := _fold(problem)) is not None:
            layout = FoldLayout(problem, *fold)
        if layout is not None and layout.scratch_bytes <= _LINES_BYTES:
            return layout
    return ChannelLayout(problem)


def _reached(problem: Problem, axis: int) -> float:
    """Taps of an axis that reach the input, averaged over its outputs; all of them unless padding is zeros."""
    taps = problem.kernel[axis]
    if problem.padding_mode != "zeros" or taps > 64:
        return taps
    inside = (hi - lo for lo, hi in (problem.valid_outputs(axis, tap) for tap in range(taps)))
    return sum(inside) / max(problem.out_size[axis], 1)
