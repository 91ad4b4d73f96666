"""im2col: packed implicit matrix multiplication, for layers with many channels.

The outputs are cut into regions with a constant set of taps, so that taps which fall on zero padding are never
multiplied; each region is cut into blocks of pixels, and each block is one task of `fastdil.kernels.gemm`.
"""

from __future__ import annotations

import numpy as np

from fastdil import costmodel
from fastdil.algorithms import regions
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import (
    activation_address,
    all_finite,
    block_tail,
    crop_bytes,
    element_kind,
    pack_weights,
    real_strides,
)
from fastdil.hardware import Machine, machine
from fastdil.kernels import gemm
from fastdil.kernels.driver import execute
from fastdil.kernels.geometry import ACTIVATE, GEOMETRY, STRIDES, fill, lanes_of
from fastdil.problem import Problem

#: Blocks of pixels per thread worth having, so that unequal blocks balance.
_TASKS_PER_THREAD = 4
#: Output rows of one task at most: their sums share L2 with the panel.
_MOST_ROWS = 1024


class Im2col:
    """Packed implicit GEMM (`fastdil.kernels.gemm`)."""

    name = "im2col"
    needs_tame_input = False

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        return None

    def estimate(self, problem: Problem, machine: Machine, threads: int) -> Estimate:
        plan = _cut(problem, finite=True)
        layout = _Layout(problem, plan, threads)
        return Estimate(
            costmodel.im2col_seconds(problem, machine, threads, sum(r.pixels * r.taps for r in plan), layout.tasks),
            layout.scratch_bytes * min(threads, layout.tasks),
            costmodel.chain_error(gemm.BLOCK_TERMS, problem.terms),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        rows, _ = gemm.tile_shape(machine().vector_bytes)
        return Weights(pack_weights(problem, w, rows, taps_first=True), all_finite(w))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        layout = _Layout(problem, _cut(problem, finite), threads)
        params = layout.params.copy()
        params[STRIDES] = real_strides(problem, x_strides)
        params[ACTIVATE] = activation_address(problem)
        unit = 2 if problem.dtype.kind == "c" else 1
        kernel = gemm.gemm_kernel(element_kind(problem), machine().vector_bytes, unit)
        address, skip = kernel.address, crop_bytes(problem, x_strides)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            pointers = (x.ctypes.data + skip, weights.data.ctypes.data, bias.ctypes.data if bias is not None else 0)
            execute(address, params, (*pointers, out.ctypes.data), layout.tasks, layout.scratch_bytes, threads)

        return call


def _cut(problem: Problem, finite: bool) -> list[regions.Region]:
    if not finite or problem.padding_mode != "zeros":
        return [regions.Region(tuple(regions.whole(problem, axis)[0] for axis in range(3)))]
    lanes = lanes_of(element_kind(problem), machine().vector_bytes)

    def cost(region: regions.Region) -> float:
        """Vector operations: multiplications, and copies or (14 times dearer) gathers while packing."""
        first, last = region.bands[2].outputs
        width = last - first
        gathered = 0.0 if width % lanes == 0 else min(1.0, lanes / width)
        packing = 2 + 12 * gathered
        vectors = -(-region.pixels // lanes)
        return vectors * region.taps * (problem.group_out / 2 + packing) + 500

    return regions.cut(problem, cost)


class _Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem, plan: list[regions.Region], threads: int):
        self.problem, self.plan = problem, plan
        self.kind, self.vector_bytes = element_kind(problem), machine().vector_bytes
        self.unit = 2 if problem.dtype.kind == "c" else 1
        rows, width = gemm.tile_shape(self.vector_bytes)
        self.strip_pixels = width * lanes_of(self.kind, self.vector_bytes) // self.unit
        self.group_blocks = block_tail(problem, rows)
        self.chunk_blocks = min(self.group_blocks, max(_MOST_ROWS // rows, 1))
        self.block_pixels = self._block_pixels(rows, threads)
        self.tasks = self._count(self.block_pixels)
        while self.tasks < threads and self.chunk_blocks > 4:
            self.chunk_blocks = -(-self.chunk_blocks // 2)
            self.tasks = self._count(self.block_pixels)
        self.params = fill(problem, gemm.FIELDS + len(plan) * gemm.REGION_FIELDS)
        self.params[gemm.REGIONS] = len(plan)
        self.params[gemm.CHUNK_BLOCKS] = self.chunk_blocks
        self.params[gemm.GROUP_BLOCKS] = self.group_blocks
        self.params[gemm.BLOCK_PIXELS] = self.block_pixels
        self.params[gemm.KERNEL_TAPS] = problem.taps
        self.scratch_bytes = gemm.scratch_layout(self.params, self.kind, self.vector_bytes)
        self._write_regions()

    def _count(self, block_pixels: int) -> int:
        blocks = sum(-(-region.pixels // block_pixels) for region in self.plan)
        chunks = -(-self.group_blocks // self.chunk_blocks)
        return self.problem.batch * self.problem.groups * chunks * blocks

    def _block_pixels(self, rows: int, threads: int) -> int:
        """Pixels per task: panel and sums share half of L2, and the tasks suffice for all threads."""
        size, strip = int(self.kind[1:]) // 8, self.strip_pixels
        pixel_bytes = (gemm.BLOCK_TERMS + self.chunk_blocks * rows) * size * self.unit
        most = max(min(machine().l2 // 2 // pixel_bytes, 32 * strip) // strip, 1) * strip
        largest = max(region.pixels for region in self.plan)
        most = min(most, -(-largest // strip) * strip)
        if threads == 1:
            return most
        if self._count(most) < _TASKS_PER_THREAD * threads and len(self.plan) * self.problem.batch == 1:
            # One map: as many equal blocks as make full rounds of all threads.
            rounds = -(-self._count(most) // threads)
            return max(-(-largest // (rounds * threads * strip)), 1) * strip
        while self._count(most) < _TASKS_PER_THREAD * threads and most > 4 * strip:
            most = -(-most // (2 * strip)) * strip
        return most

    def _write_regions(self) -> None:
        chunks = -(-self.group_blocks // self.chunk_blocks)
        first = 0
        for index, region in enumerate(self.plan):
            outputs, taps = zip(*region.bands, strict=True)
            blocks = -(-region.pixels // self.block_pixels)
            start = GEOMETRY + gemm.FIELDS + index * gemm.REGION_FIELDS
            self.params[start : start + gemm.REGION_FIELDS] = [
                first,
                *(lo for lo, _ in outputs),
                *(hi - lo for lo, hi in outputs),
                blocks,
                *(end for pair in taps for end in pair),
            ]
            first += blocks * chunks * self.problem.batch * self.problem.groups
