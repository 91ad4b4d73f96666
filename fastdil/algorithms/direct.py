"""direct: stencils on the rows of the input, for one or few channels, depthwise layers and filter banks."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import (
    activation_address,
    all_finite,
    block_tail,
    crop_bytes,
    element_kind,
    kernel_call,
    pack_weights,
    real_strides,
)
from fastdil.hardware import Machine, machine
from fastdil.kernels import stencil
from fastdil.kernels.geometry import ACTIVATE, STRIDES, fill, lanes_of
from fastdil.problem import Problem

#: Outputs of one unit at most, so that a long signal is shared by all threads.
_CHUNK_PIXELS = 4096
#: Multiply-accumulates worth a task of their own: several microseconds.
_TASK_MACS = 1 << 19
#: Depthwise planes are worked on together while their samples fit into a part of L2.
_PLANES_BYTES = 1 << 18
#: The list of lines (16 bytes each) and the sums of one tile must not push the samples out of L2.
_MOST_LINES = 1 << 16


class Direct:
    """Stencil kernels (`fastdil.kernels.stencil`)."""

    name = "direct"
    needs_tame_input = False

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        lines = problem.group_in * problem.kernel[0] * problem.kernel[1]
        if lines > _MOST_LINES:
            return f"one output reads {lines} rows of samples, more than {_MOST_LINES}; im2col takes them in blocks"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        layout = _Layout(problem)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = _Layout(problem)
        return Estimate(
            costmodel.predict(self.name, layout.features(min(threads, layout.tasks))),
            layout.scratch_bytes * min(threads, layout.tasks),
            costmodel.chain_error(stencil.CHAIN_TERMS, problem.terms),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        if problem.group_out == 1 and problem.dtype.kind != "c":
            return Weights(w, all_finite(w))  # a single row is in this order already
        return Weights(pack_weights(problem, w, _tile(problem).rows, taps_first=False), all_finite(w))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        layout = _Layout(problem)
        params = layout.params
        params[STRIDES] = real_strides(problem, x_strides)
        params[ACTIVATE] = activation_address(problem)
        params[stencil.SKIP_PADDING] = int(finite)
        unit = problem.unit
        kind, vector_bytes = element_kind(problem), machine().vector_bytes
        kernel = stencil.stencil_kernel(kind, vector_bytes, unit, layout.rows, layout.width, layout.shares_rows)
        address, skip = kernel.address, crop_bytes(problem, x_strides)
        return kernel_call(address, params, skip, layout.tasks, layout.scratch_bytes, threads)


class _Tile(NamedTuple):
    """The register tile for a problem."""

    rows: int
    width: int
    shares_rows: bool  #: rows are output rows, not output channels


@lru_cache(maxsize=256)  # functional calls ask each time they pack
def _tile(problem: Problem) -> _Tile:
    """Few sums leave the multiply-add units waiting, many run out of registers.

    Two or four output rows share their lines of samples wherever a kernel of three or more rows has a single output;
    unaligned loads are what bounds these kernels. Figures in `docs/performance.md`.
    """
    unit = problem.unit
    vector_bytes = machine().vector_bytes
    lanes = lanes_of(element_kind(problem), vector_bytes)
    wide = vector_bytes == 64  # 32 registers, else 16
    height_step, stride = problem.dilation[1], problem.stride[1]
    if (
        problem.group_out * unit == 1
        and problem.kernel[1] >= 3
        and height_step % stride == 0
        and problem.out_size[1] > height_step // stride
    ):
        if wide and problem.kernel[1] >= 5 and problem.out_size[1] >= 4 * height_step // stride:
            return _Tile(4, _narrowed(4, problem.out_size[2], lanes), True)
        return _Tile(2, _narrowed(6 if wide else 4, problem.out_size[2], lanes), True)
    widths = {1: 8, 2: 6, 4: 4, 8: 3} if wide else {1: 8, 2: 4, 4: 2}
    rows = next((rows for rows in widths if rows >= problem.group_out * unit), max(widths))
    width = widths[rows]
    return _Tile(rows, _narrowed(width, problem.out_size[2] * unit, lanes) if rows <= 2 else width, False)


def _narrowed(width: int, reals: int, lanes: int) -> int:
    """At most `width` vectors, fewer where a row of `reals` samples is so short that whole vectors would be wasted."""
    needed = -(-reals // lanes)
    return min((w for w in (8, 6, 4, 3, 2) if w <= width), key=lambda w: (-(-needed // w) * w, -w))


class _Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem):
        self.problem = problem
        kind, vector_bytes = element_kind(problem), machine().vector_bytes
        self.rows, self.width, self.shares_rows = _tile(problem)
        unit = problem.unit
        self.strip = self.width * lanes_of(kind, vector_bytes) // unit
        depth, height, width = problem.out_size
        chunk = min(max(_CHUNK_PIXELS // self.strip, 1) * self.strip, max(width, 1))
        self.chunks = max(-(-width // chunk), 1)
        row_step, row_groups, lines = 1, 1, height
        if self.shares_rows:
            row_step = problem.dilation[1] // problem.stride[1]
            row_groups = -(-height // (row_step * self.rows))
            lines = row_step * row_groups
        planes = problem.batch * problem.groups
        plane_block = 1
        if self.shares_rows:
            plane_bytes = problem.group_in * math.prod(problem.size) * problem.dtype.itemsize
            plane_block = min(max(_PLANES_BYTES // plane_bytes, 1), planes)
        self.units = -(-planes // plane_block) * plane_block * depth * lines * self.chunks
        unit_macs = chunk * problem.group_out * problem.terms * (self.rows if self.shares_rows else 1)
        self.task_units = max(min(_TASK_MACS // max(unit_macs, 1), self.units), 1)
        self.tasks = -(-self.units // self.task_units)
        self.params = fill(problem, stencil.FIELDS)
        self.params[stencil.UNITS] = self.units
        self.params[stencil.TASK_UNITS] = self.task_units
        self.params[stencil.CHUNKS] = self.chunks
        self.params[stencil.CHUNK_PIXELS] = chunk
        self.params[stencil.ROW_STEP], self.params[stencil.ROW_GROUPS] = row_step, row_groups
        self.params[stencil.PLANES], self.params[stencil.PLANE_BLOCK] = planes, plane_block
        self.params[stencil.GROUP_BLOCKS] = 1 if self.shares_rows else block_tail(problem, self.rows)
        self.scratch_bytes = stencil.scratch_layout(self.params, kind, vector_bytes, self.rows, self.width)

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, rows, width = self.problem, self.rows, self.width
        blocks = 1 if self.shares_rows else block_tail(problem, rows)
        inside, at_ends = self._tiles()
        lines = self.units / self.chunks * problem.group_in * _reached(problem, 0) * _reached(problem, 1)
        steps = lines * problem.kernel[2] * blocks / threads  # of one tile column
        # What bounds a step: two multiply-adds a cycle; two loads, where unaligned samples take two; a latency of four.
        cycles = max(rows * width / 2, (2 * width + rows) / 2, 4)
        if self.shares_rows:  # the first and the last lines are read by some of the rows only, one row at a time
            alone = rows * (rows - 1) * (2 * width + 1) / 2
            cycles = ((problem.kernel[1] - rows + 1) * cycles + alone) / problem.kernel[1]
        is_gathered = problem.stride[2] > 1
        padded_by_index = problem.padding_mode != "zeros"
        gathered = inside + at_ends if is_gathered else at_ends if padded_by_index else 0
        masked = 0 if is_gathered or padded_by_index else at_ends
        elements = problem.batch * problem.in_channels * math.prod(problem.size) + math.prod(problem.out_shape)
        return {
            "call": 1,
            "unit": self.units / threads,
            "tile": self.units / self.chunks * (inside + at_ends) * blocks / threads,
            "cycle": steps * cycles * (inside + at_ends),
            "masked": steps * width * masked,
            "gather": steps / blocks * width * gathered,
            "byte": problem.dtype.itemsize * elements / threads,
        }

    def _tiles(self) -> tuple[int, int]:
        """Tiles of one output row that lie inside the input with all their taps, and the others."""
        problem, strip = self.problem, self.strip
        window, outputs = problem.windows[2], problem.out_size[2]
        tiles = -(-outputs // strip)
        first = -(-window.lo // strip)
        last = (window.size + window.lo - problem.effective_kernel[2] + 1 - strip) // strip
        inside = min(max(last - first + 1, 0), tiles)
        return inside, tiles - inside


def _reached(problem: Problem, axis: int) -> float:
    """Taps of an axis that reach the input, averaged over its outputs; all of them unless padding is zeros."""
    taps = problem.kernel[axis]
    if problem.padding_mode != "zeros" or taps > 64:
        return taps
    inside = (hi - lo for lo, hi in (problem.valid_outputs(axis, tap) for tap in range(taps)))
    return sum(inside) / max(problem.out_size[axis], 1)
