"""im2col: packed implicit matrix multiplication, for layers with many channels.

The outputs are cut into regions with a constant set of taps, so that taps which fall on zero padding are never
multiplied; each region is cut into blocks of pixels, and each block is one task of `fastdil.kernels.gemm`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.algorithms import regions
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import (
    block_tail,
    bound_parameters,
    crop_bytes,
    element_kind,
    kernel_call,
    pack_weights,
)
from fastdil.hardware import Machine, machine
from fastdil.kernels import gemm_tasks as tasks
from fastdil.kernels.gemm import gemm_kernel
from fastdil.kernels.geometry import GEOMETRY, fill, lanes_of
from fastdil.kernels.places import MOST_RUNS
from fastdil.kernels.tiles import tile_shape
from fastdil.problem import Problem

#: Blocks of pixels per thread worth having, so that unequal blocks balance.
_TASKS_PER_THREAD = 4
#: So many tasks per thread end evenly enough.
_TASKS_TO_EVEN = 8
#: Blocks of outputs that are worth a task in halves, which then takes so many times longer: samples are packed twice.
_BLOCKS_TO_HALVE, _REPACKED = 9, 1.1
#: Output rows of one task at most: their sums share L2 with the panel.
_MOST_ROWS = 1024


class Im2col:
    """Packed implicit GEMM (`fastdil.kernels.gemm`)."""

    name = "im2col"
    needs_tame_input = False

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        layout = Layout(problem, _cut(problem, finite=True), threads)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = Layout(problem, _cut(problem, finite=True), threads)
        return Estimate(
            costmodel.predict(self.name, layout.features(min(threads, layout.tasks))),
            layout.scratch_bytes * min(threads, layout.tasks),
            costmodel.chain_error(tasks.CHAIN_TERMS, problem.terms),
            costmodel.preparation(self.name, problem.weights),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        rows, _ = tile_shape(machine().vector_bytes)
        part = tasks.part_size(problem.group_in)
        return pack_weights(problem, w, rows, taps_first=True, part=part)

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        layout = Layout(problem, _cut(problem, finite), threads)
        params = layout.bound(x_strides)
        kernel = gemm_kernel(element_kind(problem), machine().vector_bytes, problem.unit)
        address, skip = kernel.address, crop_bytes(problem, x_strides)
        return kernel_call(address, params, skip, layout.tasks, layout.scratch_bytes, threads)


def _cut(problem: Problem, finite: bool) -> list[regions.Region]:
    weights, rows = costmodel.weights_of("im2col"), problem.group_out * problem.unit
    lanes = lanes_of(element_kind(problem), machine().vector_bytes)

    def cost(region: regions.Region) -> float:
        packed = packed_vectors(problem, region)
        products = weights["fma"] * packed.all * rows
        vectors, pieces = _stored(problem, region, lanes)
        stores = (weights["store"] * vectors + weights["piece"] * pieces) * problem.group_out
        places = weights["line"] * _short_lines(region, lanes // problem.unit)
        return (products + packing_time(weights, packed)) * problem.group_in + stores + places + weights["task"]

    return cut_outputs(problem, finite, cost, _tap_step(problem))


def cut_outputs(
    problem: Problem, finite: bool, cost: Callable[[regions.Region], float], tap_step: int = 1
) -> list[regions.Region]:
    """The cheapest regions, or all outputs in one where padding, or weights that are not `finite`, must be computed."""
    if not finite or problem.padding_mode != "zeros":
        return [regions.Region(tuple(regions.whole(problem, axis)[0] for axis in range(3)))]
    return regions.cut(problem, cost, tap_step)


def _tap_step(problem: Problem) -> int:
    """Taps that are left out together, so that sums keep their bits.

    In a causal convolution they must: `fastdil.streaming` cannot know how an input that goes on would be cut. There,
    whole chains are left out, or nothing where the kernel is longer than a block.
    """
    reach = problem.effective_kernel[2]
    if problem.rank != 1 or problem.padding[2] != (reach - 1, 0) or problem.stride[2] != 1:
        return 1
    if problem.taps > tasks.block_shape(problem.group_in, problem.taps)[0]:
        return problem.taps
    return tasks.CHAIN_TERMS // tasks.part_size(problem.group_in)


class PackedVectors(NamedTuple):
    """Vectors of one channel that are fetched for a region, all taps together."""

    copies: float
    runs: float  #: vectors loaded under a mask, beyond the first of each vector that is copied
    gathers: float  #: vectors that are gathered instead

    @property
    def all(self) -> float:
        """Copied or gathered."""
        return self.copies + self.gathers


def packed_vectors(problem: Problem, region: regions.Region) -> PackedVectors:
    """How the samples of a region are fetched."""
    lanes = lanes_of(element_kind(problem), machine().vector_bytes)
    first, last = region.bands[2].outputs
    reals = (last - first) * problem.unit
    vectors = -(-region.pixels * problem.unit // lanes) * region.taps
    spans = 0.0 if reals % lanes == 0 else lanes / reals  # a vector may span several rows
    is_paired = problem.stride[2] == 2 and problem.unit == 1
    if 1 + spans > MOST_RUNS or (problem.stride[2] > 1 and not is_paired):
        return PackedVectors(0.0, 0.0, vectors)
    return PackedVectors(vectors, vectors * (1 + 2 * spans if is_paired else spans), 0.0)


def _short_lines(region: regions.Region, lanes: int) -> int:
    """Places of lines that are looked up for all taps, beyond one line for each vector: regions may be narrow."""
    depth, height, width = (hi - lo for (lo, hi), _ in region.bands)
    depth_taps, height_taps, width_taps = (hi - lo for _, (lo, hi) in region.bands)
    return max(depth * height - -(-depth * height * width // lanes), 0) * (depth_taps * height_taps + width_taps)


def _stored(problem: Problem, region: regions.Region, lanes: int) -> tuple[float, int]:
    """Vectors of one output channel that are stored, and pieces of rows.

    In a region that is narrower than the map, each row is a piece, and ends in a part of a vector.
    """
    depth, height, width = (hi - lo for (lo, hi), _ in region.bands)
    if width == problem.out_size[2]:
        return region.pixels * problem.unit / lanes, 0
    return depth * height * -(-width * problem.unit // lanes), depth * height


def packing_time(weights: dict[str, float], packed: PackedVectors) -> float:
    """Nanoseconds that fetching is predicted to take, by the weights of a method."""
    return weights["copy"] * packed.copies + weights["run"] * packed.runs + weights["gather"] * packed.gathers


class Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem, plan: list[regions.Region], threads: int):
        self.problem, self.plan = problem, plan
        self.kind, self.vector_bytes = element_kind(problem), machine().vector_bytes
        self.unit = problem.unit
        self.rows, self.strip_pixels = self._tile()
        self.group_blocks = block_tail(problem, self.rows)
        self.chunk_blocks = min(self.group_blocks, max(_MOST_ROWS // self.rows, 1))
        self.block_pixels = self._block_pixels(threads)
        self.tasks = self._count(self.block_pixels)
        while self.tasks < threads and self.chunk_blocks > 4:
            self.chunk_blocks = -(-self.chunk_blocks // 2)
            self.tasks = self._count(self.block_pixels)
        self.halved = self._halved(threads)
        self.params = fill(problem, tasks.FIELDS + len(plan) * tasks.REGION_FIELDS)
        self.params[tasks.REGIONS] = len(plan)
        self.params[tasks.CHUNK_BLOCKS] = self.chunk_blocks
        self.params[tasks.GROUP_BLOCKS] = self.group_blocks
        self.params[tasks.BLOCK_PIXELS] = self.block_pixels
        self.params[tasks.KERNEL_TAPS] = problem.taps
        self.scratch_bytes = self._lay_out_scratch()
        self.tasks = self._write_regions()

    def bound(self, x_strides: tuple[int, ...]) -> np.ndarray:
        """The parameters for an input with these strides."""
        return bound_parameters(self.problem, self.params, x_strides)

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        amounts = self.amounts(threads)
        vectors = (amounts["copy"] + amounts["gather"]) / self.chunks * self.group_blocks * self.rows
        return {**amounts, "fma": costmodel.INTEGER_FACTOR.get(self.kind, 1.0) * vectors}

    def amounts(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread but for the products."""
        problem = self.problem
        lanes = lanes_of(self.kind, self.vector_bytes)
        planes = problem.batch * problem.groups / threads
        packed = [packed_vectors(problem, region) for region in self.plan]
        copies, runs, gathers = (sum(column) * planes * self.chunks for column in zip(*packed, strict=True))
        stored = [_stored(problem, region, lanes) for region in self.plan]
        vectors, pieces = (sum(column) for column in zip(*stored, strict=True))
        blocks = sum(-(-region.pixels // self.block_pixels) * region.taps for region in self.plan)
        lines = sum(_short_lines(region, lanes // self.unit) for region in self.plan)
        return {
            "call": 1,
            "task": self.tasks / threads,
            "store": vectors * problem.group_out * planes,
            "piece": pieces * problem.group_out * planes,
            "copy": copies * problem.group_in,
            "run": runs * problem.group_in,
            "gather": gathers * problem.group_in,
            "entry": copies + gathers,
            "line": lines * planes * self.chunks,
            "index": self._indices() / threads,
            "stream": self._tap_bytes() * blocks * planes,
        }

    @property
    def chunks(self) -> int:
        """Tasks that share the same pixels."""
        return -(-self.group_blocks // self.chunk_blocks)

    def _tile(self) -> tuple[int, int]:
        """Real output rows of a tile, and pixels."""
        rows, width = tile_shape(self.vector_bytes)
        return rows, width * lanes_of(self.kind, self.vector_bytes) // self.unit

    def _pixel_bytes(self) -> int:
        """What the panel and the sums of one pixel take."""
        size = int(self.kind[1:]) // 8
        return (tasks.BLOCK_TERMS + self.chunk_blocks * self.rows) * size * self.unit

    def _tap_bytes(self) -> int:
        """Packed weights of one tap and group."""
        return self.group_blocks * self.rows * self.problem.group_in * int(self.kind[1:]) // 8

    def _lay_out_scratch(self) -> int:
        return tasks.scratch_layout(self.params, self.kind, self.vector_bytes)

    def _indices(self) -> float:
        """Places of samples that are worked out one by one, not a vector at a time."""
        problem = self.problem
        if problem.padding_mode == "zeros" and problem.unit == 1:
            return 0
        depths, heights, widths = problem.kernel
        most_taps = tasks.BLOCK_TERMS // tasks.part_size(problem.group_in)
        line_blocks = -(-depths * heights // max(most_taps // min(widths, most_taps), 1))
        return self.tasks * self.block_pixels * problem.unit * widths * line_blocks

    def _count(self, block_pixels: int) -> int:
        blocks = sum(-(-region.pixels // block_pixels) for region in self.plan)
        return self.problem.batch * self.problem.groups * self.chunks * blocks

    def _block_pixels(self, threads: int) -> int:
        """Pixels per task: panel and sums share half of L2, and the tasks suffice for all threads."""
        strip = self.strip_pixels
        most = max(min(machine().l2 // 2 // self._pixel_bytes(), 32 * strip) // strip, 1) * strip
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

    def _halved(self, threads: int) -> int:
        """How many of the last regions to compute in tasks of half the outputs, so that few tasks end together.

        Nine regions of a 33 x 33 map with dilation 12 are 8 % more work for one of two threads than for the other.
        """
        is_even = threads == 1 or self.tasks >= _TASKS_TO_EVEN * threads
        if is_even or self.chunks > 1 or self.group_blocks < _BLOCKS_TO_HALVE:
            return 0

        def end(halved: int) -> float:
            busy = [0.0] * threads
            for index, region in enumerate(self.plan):
                parts = 2 if index >= len(self.plan) - halved else 1
                blocks = -(-region.pixels // self.block_pixels)
                work = packed_vectors(self.problem, region).all / blocks
                for _ in range(self.problem.batch * self.problem.groups * blocks * parts):
                    heapq.heapreplace(busy, busy[0] + work * (_REPACKED if parts > 1 else 1) / parts)
            return max(busy)

        return min(range(len(self.plan)), key=end)

    def _write_regions(self) -> int:
        """Write the regions into the parameters; returns the number of tasks."""
        first = 0
        for index, region in enumerate(self.plan):
            outputs, taps = zip(*region.bands, strict=True)
            blocks, chunk_blocks = -(-region.pixels // self.block_pixels), self.chunk_blocks
            if index >= len(self.plan) - self.halved:
                chunk_blocks = -(-chunk_blocks // 2)
            start = GEOMETRY + tasks.FIELDS + index * tasks.REGION_FIELDS
            self.params[start : start + tasks.REGION_FIELDS] = [
                first,
                *(lo for lo, _ in outputs),
                *(hi - lo for lo, hi in outputs),
                blocks,
                chunk_blocks,
                *(end for pair in taps for end in pair),
            ]
            first += blocks * -(-self.group_blocks // chunk_blocks) * self.problem.batch * self.problem.groups
        return first
