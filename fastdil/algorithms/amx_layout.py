"""How the method `amx` cuts a problem: regions with a constant set of taps, boxes of outputs, chunks of channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.algorithms import regions
from fastdil.algorithms.compiled import block_tail, bound_parameters
from fastdil.algorithms.im2col import cut_outputs
from fastdil.hardware import machine
from fastdil.kernels import amx_tasks, gemm_tasks, tile_unit
from fastdil.kernels.geometry import GEOMETRY, fill
from fastdil.problem import Problem

#: Precision -> parts that every number is split into.
_PARTS = {"medium": 1, "high": 2, "highest": 3}
#: Parts -> error of the products that are computed, in the largest ``|x| |w|``: a part rounds by 2**-8 of the number,
#: the next one by 2**-16, and products below the last part's digits are left out.
_LEFT_OUT = {1: 2.0**-7 + 2.0**-16, 2: 3 * 2.0**-16, 3: 2.0**-23}
#: Parts -> how often one step rounds at the size of the sum: every product, where blocks are chained. A block of its
#: own adds the small products of three parts first.
_CHAINED_ROUNDINGS, _ROUNDINGS = {1: 1, 2: 3, 3: 6}, {1: 1, 2: 3, 3: 1}
#: Error in eps that the choice of a reduction leaves to what is not counted here.
_SPARE_ERROR = 0.5
#: Parts -> steps of a block. More go less often through the sums in memory, fewer leave more of L1; with two parts, 18
#: were 3 to 6 % slower than 9, with three 8 to 15 % faster, with one up to 10 %.
_BLOCK_STEPS = {1: 18, 2: 9, 3: 18}
#: Reductions of so few steps, for so few outputs, are a single block, whose sums never go to memory.
_SMALL_STEPS, _FEW_OUTPUTS = 48, 128
#: Blocks of outputs of one task at most: of one block of the reduction, the weights of so many take a seventh of L2.
_MOST_BLOCKS = 8
#: Shares of L2 that the window of a task and its sums may take; and where the reduction is one block, which keeps only
#: the sums that are stored together.
_WINDOW_SHARE, _SUMS_SHARE = 0.3, 0.4
_SINGLE_WINDOW_SHARE, _KEPT_SHARE = 0.5, 0.05
#: Outputs of a line from which it does not matter that boxes do not take whole lines, whose results are neighbours.
_WIDE = 256
#: The ways to choose from: whether tiles of samples are loaded from the window, or from copies, and whether a window
#: holds all channels.
WAYS = ((True, True), (True, False), (False, True), (False, False))
#: Vectors that could be stored in the time which a line costs that two threads write to, 45 ns (1 x 44 -> 246 channels,
#: 17 x 6 x 25, Granite Rapids: 0.45 ms where tasks halved the height, 0.26 where they halve the depth).
_RUN_VECTORS = 10
#: Tasks per thread that boxes which follow each other are joined to, at most.
_SLABS = (1, 4)
#: Share of the largest window below which none are tried, unless whole regions are so small: it would only take time.
_LEAST_WINDOW = 0.1
#: Threads that wait for each other for less than this do not ask for smaller tasks.
_EVEN_ENOUGH = 1.04
#: Tasks per thread from which it does not matter that they end unevenly.
_EVEN = 8


class Reduction(NamedTuple):
    """How the sum over channels and taps is cut. It depends on the weights alone, which are packed in this order."""

    parts: int  #: of every number
    block_steps: int  #: most steps of one block
    channel_steps: int  #: of these, steps of channels
    blocks: int
    is_chained: bool  #: blocks go on from the sums of the ones before
    merge_blocks: int  #: blocks that are added plainly before their sum is merged, rounding errors kept; 0: all are
    error_bound: float  #: in eps


def reduction_of(problem: Problem) -> Reduction:
    """The reduction of a problem: few blocks, whose sums still are as exact as its precision asks for."""
    parts = 1 if problem.is_bfloat16 else _PARTS[problem.precision]
    left_out = 0.0 if problem.is_bfloat16 else _LEFT_OUT[parts] / float(np.finfo(np.float32).eps)
    limit = costmodel.error_limit(problem.precision, problem.dtype)
    all_steps = -(-problem.group_in // tile_unit.STEP_TERMS)
    steps, is_small = all_steps * problem.taps, problem.group_out <= _FEW_OUTPUTS and parts < 3
    block_steps = steps if is_small and steps <= _SMALL_STEPS else _BLOCK_STEPS[parts]
    channel_steps = amx_tasks.channel_steps(problem.group_in, problem.taps, block_steps)
    depth, height, width = problem.kernel
    width_taps = min(width, block_steps // channel_steps)
    lines = max(block_steps // channel_steps // width_taps, 1)
    blocks = -(-all_steps // channel_steps) * -(-width // width_taps) * -(-depth * height // lines)

    def bound(roundings: float, terms: int = tile_unit.STEP_TERMS // 2) -> float:
        return left_out + costmodel.chain_error(tile_unit.STEP_TERMS // 2, terms) + roundings / 7.8

    in_block, in_chain = block_steps * _ROUNDINGS[parts], steps * _CHAINED_ROUNDINGS[parts]
    for roundings, is_chained in ((in_chain, True), (in_block + blocks, False)):
        if bound(roundings) <= limit - _SPARE_ERROR:
            return Reduction(parts, block_steps, channel_steps, blocks, is_chained, 0, bound(roundings))
    merge_blocks = max(int(7.8 * (limit - bound(in_block, problem.terms))), 1)
    merged = bound(in_block + merge_blocks, problem.terms)
    return Reduction(parts, block_steps, channel_steps, blocks, False, merge_blocks, merged)


class Box(NamedTuple):
    """Outputs per axis whose samples are split together, and how many such boxes in a row are one task."""

    depth: int
    height: int
    width: int
    in_row: int = 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.depth, self.height, self.width


class Work(NamedTuple):
    """Amounts of work of one box, for one chunk of the outputs."""

    split: float  #: vectors of 16 samples that are fetched and split, times one more than parts
    panel: float  #: rows of words that are copied to where the tile unit reads them
    product: float  #: products of two tiles, of samples that were copied
    direct: float  #: products of two tiles, of samples in the window
    sum: float  #: tiles of sums that are added to memory, or read from there
    store: float  #: vectors of outputs
    entry: float  #: vectors that are looked up
    stream: float  #: bytes of weights

    def plus(self, other: Work, times: float) -> Work:
        """The work of this and of so many others."""
        return Work(*(mine + times * each for mine, each in zip(self, other, strict=True)))


class Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem, threads: int):
        self.problem, self.reduction = problem, reduction_of(problem)
        self.parts = self.reduction.parts
        self.blocks = block_tail(problem, tile_unit.BLOCK)
        self.all_steps = -(-problem.group_in // tile_unit.STEP_TERMS)
        self.window_limit = machine().l2 * (_SINGLE_WINDOW_SHARE if self.reduction.blocks == 1 else _WINDOW_SHARE)
        #: The axis along which boxes follow each other: the first one that the samples have more than one of.
        self.axis = next((i for i in range(2) if problem.out_size[i] > 1 or problem.kernel[i] > 1), 2)
        #: Tiles that the sums of a block of outputs and pixels take.
        self.totals = 3 if self.reduction.merge_blocks else 1
        self.weights = costmodel.weights_of("amx")
        self.plan = min((self._regions(is_direct) for is_direct in (True, False)), key=lambda cut: cut[0])[1]
        cuts = [self._cut(threads, *way) for way in WAYS]
        _, self.is_direct, self.is_whole, self.chunk_blocks, self.boxes = min(cuts, key=lambda cut: cut[0])
        self.params = fill(problem, amx_tasks.FIELDS + len(self.plan) * amx_tasks.REGION_FIELDS)
        self.tasks = self._write_regions()
        self.scratch_bytes = self._lay_out_scratch()

    def bound(self, x_strides: tuple[int, ...]) -> np.ndarray:
        """The parameters for an input with these strides."""
        return bound_parameters(self.problem, self.params, x_strides)

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        share = self.problem.batch * self.problem.groups * self._chunks / threads
        total = Work(*(0.0,) * len(Work._fields))
        for region, box in zip(self.plan, self.boxes, strict=True):
            total = total.plus(self._work(region, box, self.chunk_blocks), share * self._count(region, box))
        is_gathered = self.problem.stride[2] > 2
        amounts = {**total._asdict(), "call": 1, "task": self.tasks / threads}
        amounts["gather"] = amounts["split"] / (1 + self.parts) if is_gathered else 0.0
        return amounts

    @property
    def _chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    @staticmethod
    def _whole(region: regions.Region) -> Box:
        return Box(*(hi - lo for (lo, hi), _ in region.bands))

    def _slab(self, region: regions.Region, box: Box) -> list[int]:
        """Outputs per axis of the boxes of one task."""
        sizes = list(box.sizes)
        sizes[self.axis] = min(sizes[self.axis] * box.in_row, self._whole(region)[self.axis])
        return sizes

    def _count(self, region: regions.Region, box: Box) -> int:
        """Tasks of a region, for one chunk of the outputs, sample and group."""
        return math.prod(
            -(-whole // size) for whole, size in zip(self._whole(region).sizes, self._slab(region, box), strict=True)
        )

    def _places(self, region: regions.Region, box: Box) -> list[int]:
        """Places of the window of a box, per axis."""
        return [
            (hi - lo - 1) * amx_tasks.window_step(outputs, stride, dilation) + outputs
            for (_, (lo, hi)), outputs, stride, dilation in zip(
                region.bands, box.sizes, self.problem.stride, self.problem.dilation, strict=True
            )
        ]

    def _window_bytes(self, region: regions.Region, box: Box, steps: int) -> int:
        return steps * self.parts * amx_tasks.window_bytes(math.prod(self._places(region, box)))

    def _strips(self, region: regions.Region, box: Box) -> int:
        if not self.is_direct:
            return -(-math.prod(box.sizes) // tile_unit.BLOCK)
        return -(-amx_tasks.tiles_of(*box.sizes, *self._places(region, box)[1:])[0] // 2)

    def _work(self, region: regions.Region, box: Box, chunk_blocks: int) -> Work:
        """Work of one task."""
        places, axis = self._places(region, box), self.axis
        boxes = self._slab(region, box)[axis] / box[axis]
        moved = (boxes - 1) * (places[axis] - box[axis]) * math.prod(places[axis + 1 :])
        places[axis] += round((boxes - 1) * box[axis])
        vectors = -(-math.prod(places) // tile_unit.BLOCK) * 2
        used = float(vectors)
        for window, count in zip(self.problem.windows[:2], places[:2], strict=True):
            used *= min(1.0, window.size / count)  # lines of padding zeros are not fetched
        strips = self._strips(region, box) * boxes
        steps, products = self.all_steps * region.taps, sum(map(len, tile_unit.PHASES[self.parts]))
        tiles = strips * steps * chunk_blocks * 4 * products
        copied = 0 if self.is_direct else strips * steps * self.parts * tile_unit.BLOCK
        sums = self.reduction.blocks * (1 if self.reduction.blocks == 1 or self.reduction.is_chained else 2)
        windows = 1 if self.is_whole else -(-self.all_steps // self.reduction.channel_steps)
        outputs = min(chunk_blocks * tile_unit.BLOCK, self.problem.group_out)
        return Work(
            used * self.problem.group_in * (1 + self.parts),
            copied + moved * self.all_steps * self.parts,
            0 if self.is_direct else tiles,
            tiles if self.is_direct else 0,
            strips * chunk_blocks * 4 * sums,
            (strips * 2 + self._runs(region, box) * _RUN_VECTORS) * outputs,
            vectors * windows + strips * 2,
            boxes * steps * chunk_blocks * self.parts * amx_tasks.STEP_BYTES,
        )

    def _runs(self, region: regions.Region, box: Box) -> int:
        """Pieces of a channel that a task stores: the lines of memory at their ends it shares with other tasks."""
        depth, height, width = self._slab(region, box)
        if width < self.problem.out_size[2]:
            return depth * height
        return depth if height < self.problem.out_size[1] else 1

    def _seconds(self, work: Work) -> float:
        return sum(self.weights[name] * amount for name, amount in work._asdict().items()) + self.weights["task"]

    def _regions(self, is_direct: bool) -> tuple[float, list[regions.Region]]:
        """The cheapest regions, and what they cost.

        Which taps share a block of the reduction depends on them, so they must not depend on threads and batch.
        """
        self.is_direct, self.is_whole = is_direct, False

        def cost(region: regions.Region) -> float:
            return self._seconds(self._work(region, self._whole(region), self.blocks))

        plan = cut_outputs(self.problem, True, cost)
        return sum(map(cost, plan)), plan

    def _cut(self, threads: int, is_direct: bool, is_whole: bool) -> tuple[float, bool, bool, int, list[Box]]:
        """Blocks of outputs of a task, and the boxes of each region, that are predicted to take least time.

        `is_whole`: windows hold all channels. Then they can be moved from box to box.
        """
        self.is_direct, self.is_whole, choices = is_direct, is_whole, []
        chunk = min(self.blocks, _MOST_BLOCKS)
        while True:
            chunks = -(-self.blocks // chunk) * self.problem.batch * self.problem.groups
            boxes = [box for region in self.plan if (box := self._best_box(region, chunk, chunks, threads))]
            if len(boxes) < len(self.plan):  # no window can hold all channels
                return math.inf, is_direct, is_whole, chunk, boxes
            times = [self._seconds(self._work(r, b, chunk)) for r, b in zip(self.plan, boxes, strict=True)]
            counts = [chunks * self._count(r, b) for r, b in zip(self.plan, boxes, strict=True)]
            seconds, even = _makespan(times, counts, threads), _makespan(times, counts, 1) / threads
            choices.append((seconds, chunk, boxes))
            if chunk <= 2 or seconds <= _EVEN_ENOUGH * even:
                break
            chunk = -(-chunk // 2)
        seconds, chunk, boxes = min(choices, key=lambda choice: choice[0])
        return seconds, is_direct, is_whole, chunk, boxes

    def _best_box(self, region: regions.Region, chunk: int, chunks: int, threads: int) -> Box | None:
        """The box that is predicted to take least time; there are `chunks` tasks for each."""
        threads = threads if len(self.plan) == 1 else 1

        def seconds(box: Box) -> float:
            return _makespan(
                [self._seconds(self._work(region, box, chunk))], [chunks * self._count(region, box)], threads
            )

        return min(self._boxes(region, chunk, threads / chunks), key=seconds, default=None)

    def _boxes(self, region: regions.Region, chunk: int, least: float) -> Iterator[Box]:
        """Boxes whose window and sums fit the cache, and rows of them, of which there should be at least so many."""
        whole, axis, limit = self._whole(region), self.axis, self.window_limit
        steps = self.all_steps if self.is_whole else self.reduction.channel_steps
        sum_bytes = 0 if self.reduction.blocks == 1 else self.totals * chunk * amx_tasks.SUM_BYTES
        fewest = limit * _LEAST_WINDOW if self._window_bytes(region, whole, steps) > limit else 0
        smallest = Box(1, 1, min(whole.width, tile_unit.BLOCK))
        if not self.is_whole or self._window_bytes(region, smallest, steps) <= limit:
            yield smallest
        for box in itertools.starmap(Box, itertools.product(*map(_sizes, whole.sizes, (1, 1, tile_unit.BLOCK)))):
            is_wide = box.width >= min(whole.width, _WIDE) or box.depth * box.height == 1
            if (
                not is_wide
                or not fewest <= self._window_bytes(region, box, steps) <= limit
                or self._strips(region, box) * sum_bytes > _SUMS_SHARE * machine().l2
            ):
                continue
            yield box
            if self.is_whole and self.problem.stride[axis] == 1 and box[axis] >= self.problem.dilation[axis]:
                most = -(-whole[axis] // box[axis])
                others = self._count(region, box) // most
                for tasks in {max(math.ceil(share * least / others), 1) for share in _SLABS}:
                    if tasks < most:
                        yield box._replace(in_row=-(-most // tasks))

    def _lay_out_scratch(self) -> int:
        places = max(math.prod(self._places(region, box)) for region, box in zip(self.plan, self.boxes, strict=True))
        steps = self.reduction.channel_steps
        pieces = -(-self.all_steps // steps)
        if not self.is_whole:
            fitting = self.window_limit // (steps * self.parts * amx_tasks.window_bytes(places))
            pieces = min(max(int(fitting), 1), pieces)
        self.params[amx_tasks.PARTS] = self.parts
        self.params[amx_tasks.BLOCK_STEPS] = self.reduction.block_steps
        self.params[amx_tasks.IS_CHAINED] = self.reduction.is_chained
        self.params[amx_tasks.WINDOW_STEPS] = pieces * steps
        strips = kept = max(map(self._strips, self.plan, self.boxes))
        if self.reduction.blocks == 1:
            kept = min(max(int(_KEPT_SHARE * machine().l2) // (self.chunk_blocks * amx_tasks.SUM_BYTES), 1), strips)
        self.params[amx_tasks.KEPT_STRIPS] = kept
        self.params[amx_tasks.IS_DIRECT] = self.is_direct
        self.params[amx_tasks.SLAB_AXIS] = self.axis
        self.params[amx_tasks.MERGE_EVERY] = self.reduction.merge_blocks
        self.params[amx_tasks.TOTALS] = self.totals
        return amx_tasks.scratch_layout(self.params, strips, places)

    def _write_regions(self) -> int:
        """Write how the outputs are cut into the parameters; returns the number of tasks."""
        params = self.params
        params[gemm_tasks.REGIONS] = len(self.plan)
        params[gemm_tasks.CHUNK_BLOCKS] = self.chunk_blocks
        params[gemm_tasks.GROUP_BLOCKS] = self.blocks
        params[gemm_tasks.KERNEL_TAPS] = self.problem.taps
        first = 0
        for index, (region, box) in enumerate(zip(self.plan, self.boxes, strict=True)):
            outputs, taps = zip(*region.bands, strict=True)
            tasks = self._count(region, box)
            start = GEOMETRY + amx_tasks.FIELDS + index * amx_tasks.REGION_FIELDS
            params[start : start + amx_tasks.REGION_FIELDS] = [
                first,
                *(lo for lo, _ in outputs),
                *(hi - lo for lo, hi in outputs),
                tasks,
                self.chunk_blocks,
                *(end for pair in taps for end in pair),
                *self._slab(region, box),
                box[self.axis],
            ]
            first += tasks * self._chunks * self.problem.batch * self.problem.groups
        return first


def _sizes(whole: int, step: int) -> list[int]:
    """Sizes of equal pieces of an axis, multiples of `step` but for the axis itself."""
    sizes: list[int] = []
    pieces = 1
    while not sizes or sizes[-1] > step:
        size = -(-whole // pieces)
        sizes.append(whole if pieces == 1 else -(-size // step) * step)
        pieces = pieces + 1 if pieces < 6 else -(-pieces * 4 // 3)
    return sorted(set(sizes))


def _makespan(times: list[float], counts: list[int], threads: int) -> float:
    """Time from the first task's begin to the last one's end, of tasks of several kinds."""
    if threads == 1:
        return sum(time * count for time, count in zip(times, counts, strict=True))
    if len(times) == 1:
        return times[0] * -(-counts[0] // threads)
    total = sum(time * count for time, count in zip(times, counts, strict=True))
    return total / threads + (0.5 * min(times) if sum(counts) < _EVEN * threads else 0)


@lru_cache(maxsize=64)
def layout_of(problem: Problem, threads: int) -> Layout:
    """The layout of a problem; to predict its time and to bind it is the same work."""
    return Layout(problem, threads)
