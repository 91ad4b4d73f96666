"""How `direct` cuts planes into tasks, for groups with one output channel; and which of its layouts suits a problem."""

from __future__ import annotations

import math
from typing import Any

from fastdil.algorithms.compiled import element_kind
from fastdil.algorithms.direct_layouts import (
    GATHERED,
    TASK_MACS,
    ChannelLayout,
    FoldLayout,
    Layout,
    fold_of,
    narrowed,
    step_cycles,
)
from fastdil.hardware import machine
from fastdil.kernels import columns, planes
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.laid_out import INPUT_H, INPUT_N, LAID_OUT, laid_out_strides
from fastdil.kernels.stencil import CHAIN_TERMS
from fastdil.problem import Problem

#: Depthwise planes are worked on together while their samples fit into a part of L2.
_PLANES_BYTES = 1 << 18
#: Where lines are laid out as the padding mode continues them, they must not push the samples out of L2.
_LINES_BYTES = 1 << 20
#: Vectors of a tile of a single row: eight sums keep the multiply-add units busy.
_ROW_WIDTHS = (8, 4, 2)
#: Nanoseconds for each byte that such rows read and store, over those of other tiles: 70 problems on a Zen 3.
_ROW_BYTES = 1 / 4


def _plane_tile(problem: Problem) -> tuple[int, int] | None:
    """Output rows and vectors of a register tile that shares lines of samples, or None where rows cannot share.

    Rows that are `dilation` apart read the same lines. The more rows, the fewer loads for each; but no more than the
    kernel has rows, or no line would serve all of them. Where an output is a single line of taps, a row is enough: all
    its tiles are one call, without a list of places for each (3 taps on 2^20 samples, Zen 3, one thread: 0.96 to 0.27
    ns an output, 16 taps 1.4 to 0.8).
    """
    step, stride, heights = problem.dilation[1], problem.stride[1], problem.kernel[1]
    if problem.group_out * problem.unit > 1 or problem.stride[2] > 1 or step % stride:
        return None
    vector_bytes = machine().vector_bytes
    lanes = lanes_of(element_kind(problem), vector_bytes)
    if heights == 1:
        is_chain = problem.terms == problem.kernel[2] <= CHAIN_TERMS
        return (1, narrowed(_ROW_WIDTHS, problem.out_size[2], lanes)) if is_chain else None
    rows_of_phase = -(-problem.out_size[1] * stride // step)
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
    return rows, narrowed(widths, problem.out_size[2], lanes)


#: Bytes of a vector -> rows of a kernel at most -> vectors of a tile that goes down a plane: the sums of so many rows,
#: and the samples of a line, stay in registers.
_COLUMN_WIDTHS: dict[int, dict[int, tuple[int, ...]]] = {
    64: {5: (4, 3, 2, 1), columns.MOST_ROWS: (2, 1)},
    32: {3: (3, 2, 1), 5: (2, 1)},
}


def _column_tile(problem: Problem) -> tuple[int, int] | None:
    """Kernel rows and vectors of a register tile that goes down a plane, or None if the kernel is too large for it."""
    heights, taps, vector_bytes = problem.kernel[1], problem.kernel[2], machine().vector_bytes
    widths = next((fit for most, fit in _COLUMN_WIDTHS[max(vector_bytes, 32)].items() if heights <= most), None)
    is_alone = problem.group_out * problem.unit == 1 and problem.terms == heights * taps
    if widths is None or taps > columns.MOST_TAPS or not is_alone or problem.stride[2] > 2:
        return None
    return heights, narrowed(widths, problem.out_size[2], lanes_of(element_kind(problem), vector_bytes))


class _PlanesLayout(Layout):
    """What both kernels for planes share: planes may be laid out, so that no tile is at an end of a row."""

    def _lay_out(self) -> None:
        """Tell the kernel to lay planes out, if that is worth it."""
        problem = self.problem
        self.strides = laid_out_strides(self.params, self.strip, lanes_of(self.kind, self.vector_bytes))
        elements = problem.group_in * self.strides[0]
        self.is_small = elements * problem.dtype.itemsize <= _PLANES_BYTES and _plane_macs(problem) <= 2 * TASK_MACS
        self.is_laid_out = self.is_small and self._has_ends(*super()._tiles())
        self.params[LAID_OUT] = elements if self.is_laid_out else 0

    def _has_ends(self, inside: int, at_ends: int) -> bool:
        """Whether so many tiles are at the ends of a row that a copy of the plane without them is worth it."""
        raise NotImplementedError

    def _tiles(self) -> tuple[int, int]:
        inside, at_ends = super()._tiles()
        return (inside + at_ends, 0) if self.is_laid_out else (inside, at_ends)

    def place(self, strides: tuple[int, ...]) -> None:
        if self.is_laid_out:
            self.params[INPUT_N : INPUT_H + 1] = strides[:4]
            strides = (0, *self.strides)
        super().place(strides)

    def _planes_of_task(self) -> int:
        return max(TASK_MACS // max(_plane_macs(self.problem), 1), 1)

    def _indices(self, gathered: float, masked: float) -> float:
        return 0  # remembered from row to row

    def features(self, threads: int) -> dict[str, float]:
        amounts = super().features(threads)
        depths, heights, width = self.problem.size
        lines = self.planes * self.problem.group_in * depths * heights if self.is_laid_out else 0
        vectors = -(-width // lanes_of(self.kind, self.vector_bytes))
        straight = {"straight": amounts["cycle"], "begin": amounts["tile"], "lay_out": lines * vectors / threads}
        return amounts | straight | {"cycle": 0, "tile": 0, "store": 0}


class PlaneLayout(_PlanesLayout):
    """Tiles of several output rows that share their lines of samples: `fastdil.kernels.planes`."""

    def __init__(self, problem: Problem, tile: tuple[int, int]):
        super().__init__(problem, tile, planes)

    def _cut(self) -> int:
        problem, params, rows = self.problem, self.params, self.tile[0]
        depth, height, _ = problem.out_size
        row_step = problem.dilation[1] // problem.stride[1]
        plane_bytes = problem.group_in * math.prod(problem.size) * problem.dtype.itemsize
        plane_block = min(max(_PLANES_BYTES // max(plane_bytes, 1), 1), self.planes)
        self._lay_out()
        self.unit_rows = rows
        if self.is_laid_out:  # one after the other: most fit into L1
            plane_block = 1
            self.unit_rows = -(-height // (row_step * rows)) * rows
        row_groups = -(-height // (row_step * self.unit_rows))
        params[[planes.CHUNKS, planes.CHUNK_PIXELS]] = self.chunks, self.chunk
        params[planes.UNIT_ROWS] = self.unit_rows
        params[planes.ROW_STEP], params[planes.ROW_GROUPS] = row_step, row_groups
        params[planes.PLANES], params[planes.PLANE_BLOCK] = self.planes, plane_block
        return -(-self.planes // plane_block) * plane_block * depth * row_step * row_groups * self.chunks

    def _has_ends(self, inside: int, at_ends: int) -> bool:
        return 3 * at_ends >= inside and self.problem.kernel[2] > 1

    def _task_units(self) -> int:
        return self.units // self.planes * self._planes_of_task() if self.is_laid_out else super()._task_units()

    def _unit_rows(self) -> int:
        return self.unit_rows

    def _tile_lines(self) -> float:
        return super()._tile_lines() * self.unit_rows / self.tile[0]

    def kernel(self) -> Any:
        is_single = self.problem.terms <= planes.SINGLE_TERMS
        return planes.plane_kernel(self.kind, self.vector_bytes, *self.tile, is_single)

    def features(self, threads: int) -> dict[str, float]:
        amounts, problem = super().features(threads), self.problem
        if self.tile[0] == 1:
            amounts["byte"] *= _ROW_BYTES
        if amounts["gather"] == 0:
            return amounts
        # Segments of lines that the padding continues are gathered once, for all taps and all rows of a tile.
        lines = problem.group_in * problem.kernel[0] * (problem.kernel[1] + self.tile[0] - 1)
        samples = lines * int(self.params[planes.RUNS] * self.params[planes.RUN_SAMPLES])
        return amounts | {"gather": self._tile_lines() * self._tiles()[1] * samples / GATHERED / threads}

    def _line_cycles(self) -> float:
        rows, width = self.tile
        heights = self.problem.kernel[1]
        alone = 2 * sum(step_cycles(present, width) for present in range(1, rows))
        return ((heights - rows + 1) * step_cycles(rows, width) + alone) / heights


class ColumnLayout(_PlanesLayout):
    """Tiles that go down a small plane: `fastdil.kernels.columns`. A unit is a plane."""

    def __init__(self, problem: Problem, tile: tuple[int, int]):
        super().__init__(problem, tile, columns)

    def _cut(self) -> int:
        step, stride = self.problem.dilation[1], self.problem.stride[1]
        shared = math.gcd(step, stride)
        # Where each output row is a phase of its own, the distance of rows that share lines no longer matters.
        self.phases, self.row_stride = min(step // shared, self.problem.out_size[1]), stride // shared
        self.params[[columns.PHASES, columns.ROW_STRIDE]] = self.phases, self.row_stride
        self._lay_out()
        return self.planes

    def _has_ends(self, inside: int, at_ends: int) -> bool:
        return 3 * at_ends >= inside or self.problem.stride[2] > 1

    @property
    def is_suited(self) -> bool:
        """Whether planes are small and no tile is at an end of a row."""
        return self.is_small and self._tiles()[1] == 0 and self.scratch_bytes <= _LINES_BYTES

    def _task_units(self) -> int:
        return self._planes_of_task()

    def _tile_lines(self) -> float:
        """Columns of tiles, one for each phase."""
        return self.planes * self.problem.out_size[0] * self.phases

    def kernel(self) -> Any:
        heights, width = self.tile
        kernel = heights, self.problem.kernel[2], self.row_stride
        return columns.column_kernel(self.kind, self.vector_bytes, width, kernel)

    def features(self, threads: int) -> dict[str, float]:
        return super().features(threads) | {"pair": 0, "gather": 0}  # laying out takes care of a stride

    def _line_cycles(self) -> float:
        """For a row of the kernel that reaches the input: all output rows of a phase, and one that is thrown away."""
        heights, width = self.tile
        rows = self.problem.out_size[1] / self.phases
        return (rows + 1) * step_cycles(-(-heights // self.row_stride), width) * self.row_stride / heights


def _plane_macs(problem: Problem) -> int:
    return problem.out_pixels * problem.terms


def layout_of(problem: Problem, is_plain: bool) -> Layout:
    """The layout that suits a problem.

    `is_plain`: all weights are finite, and samples that follow each other along the width do so in memory.
    """
    if not is_plain:
        return ChannelLayout(problem)
    if (tile := _column_tile(problem)) is not None:
        column = ColumnLayout(problem, tile)
        if column.is_suited:
            return column
    layout: Layout | None = None
    if (fold := fold_of(problem)) is not None:
        layout = FoldLayout(problem, *fold)
    elif (tile := _plane_tile(problem)) is not None:
        layout = PlaneLayout(problem, tile)
    if layout is not None and layout.scratch_bytes <= _LINES_BYTES:
        return layout
    return ChannelLayout(problem)
