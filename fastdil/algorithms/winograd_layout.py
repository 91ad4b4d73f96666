"""How `winograd` cuts a problem into tasks: what one transforms and keeps, and how many end together."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from fastdil import costmodel
from fastdil.algorithms.compiled import block_tail, element_kind
from fastdil.hardware import machine
from fastdil.kernels import winograd_tasks as tasks
from fastdil.kernels.geometry import fill, lanes_of
from fastdil.kernels.tiles import tile_shape
from fastdil.kernels.winograd_tiles import OUTPUTS, SAMPLES
from fastdil.problem import Problem
from fastdil.workspace import limit_bytes

#: Channels (times taps of the depth) that are multiplied at a time: their samples stay in L1.
_BLOCK_TERMS = 128
#: Products per output at least, where one axis is transformed and where both are: with fewer, errors of random data
#: come near the bound.
LEAST_TERMS = {False: 96, True: 576}
#: Strips of tiles of one task at most.
_MOST_STRIPS = 8
#: Output channels of one task at most, and parts into which those of one group are divided beyond what that asks for.
_MOST_ROWS = 1024
_MOST_SHARES = 8

#: What a layout tells the kernel, under the same names in capitals.
_FIELDS = (
    "lines", "plane_lines", "task_lines", "line_blocks", "row_step", "column_step", "tiles", "chunk", "chunks",
    "run_chunks", "group_blocks", "task_blocks", "stage_terms", "block_terms",
)  # fmt: skip


def arranged(problem: Problem) -> Problem:
    """The same problem as it is computed: with few products per output, or two taps, an image is a stack of lines.

    Its height is taken for the depth then, and only the width is transformed: half of the multiplications instead of a
    quarter, but a third of the rounding errors.
    """
    depths, heights, widths = problem.kernel
    is_image = depths == 1 and problem.size[0] == 1 and problem.out_size[0] == 1
    suits_planes = problem.terms >= LEAST_TERMS[True] and all(
        2 < problem.kernel[axis] <= max(SAMPLES) and problem.out_size[axis] >= 2 * problem.dilation[axis]
        for axis in (1, 2)
    )
    if not is_image or suits_planes or 1 in (heights, widths):
        return problem

    def swapped(axes: tuple) -> tuple:
        return axes[1], axes[0], axes[2]

    return replace(
        problem,
        size=swapped(problem.size),
        kernel=swapped(problem.kernel),
        stride=swapped(problem.stride),
        dilation=swapped(problem.dilation),
        padding=swapped(problem.padding),
    )


class Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem, threads: int):
        problem = arranged(problem)
        self.problem, self.kind, self.vector_bytes = problem, element_kind(problem), machine().vector_bytes
        self.rows, self.width = tile_shape(self.vector_bytes)
        self.lanes = lanes_of(self.kind, self.vector_bytes)
        depth, height, width = problem.out_size
        self.row_step, self.plane_lines = _groups(problem.kernel[1], problem.dilation[1], height)
        self.column_step, self.tiles = _groups(problem.kernel[2], problem.dilation[2], width)
        self.lines = depth * self.plane_lines
        self.group_blocks = block_tail(problem, self.rows)
        self.terms = problem.group_in * problem.kernel[0]
        self.is_exact = self.terms > tasks.PLAIN_TERMS
        self.block_terms = block_terms(problem)
        self.frequencies = math.prod(SAMPLES[taps] for taps in problem.kernel[1:])
        self._cut(threads)
        self.params = fill(problem, tasks.FIELDS)
        for name in _FIELDS:
            self.params[getattr(tasks, name.upper())] = getattr(self, name)
        self.scratch_bytes = tasks.scratch_layout(self.params, self.kind, self.vector_bytes, *problem.kernel[1:])

    def _cut(self, threads: int) -> None:
        """Choose tiles and outputs per task: those of which all threads are predicted to have finished first.

        Tasks of many tiles waste few lanes and fetch weights seldom; tasks of fewer outputs transform the same samples
        again, but there are more of them to share. What a task keeps is limited by the workspace.
        """
        strip, least = self.width * self.lanes, -(-self.group_blocks * self.rows // _MOST_ROWS)
        shares = range(least, min(self.group_blocks, least + _MOST_SHARES - 1) + 1)
        cuts = itertools.product(range(1, _MOST_STRIPS + 1), shares)

        def end(cut: tuple[int, int]) -> float:
            self._cut_tasks(cut[0] * strip, cut[1])
            workers = min(threads, max(limit_bytes() // self._kept_bytes(), 1))
            return -(-self.tasks // workers) / self.tasks * costmodel.predict("winograd", self.features(1))

        best_strips, best_shares = min(cuts, key=end)
        self._cut_tasks(best_strips * strip, best_shares)

    def _cut_tasks(self, most: int, shares: int) -> None:
        """Tasks of at most `most` tiles, short lines or part of a long one, for one of `shares` of the outputs."""
        self.task_blocks = _share(self.group_blocks, -(-self.group_blocks // shares))
        self._cut_lines(most)
        self._cut_terms()

    def _cut_lines(self, most: int) -> None:
        self.run_chunks, self.chunk = 0, min(self.tiles, most)
        if self.tiles > most and self.column_step <= most:
            self.chunk = _share(-(-self.tiles // self.column_step), most // self.column_step) * self.column_step
        elif self.tiles > most:
            self.run_chunks = -(-self.column_step // most)
            self.chunk = -(-self.column_step // (self.run_chunks * self.lanes)) * self.lanes
        self.chunks = -(-self.tiles // self.chunk)
        if self.run_chunks:
            whole = (self.tiles - 1) // self.column_step
            self.chunks = whole * self.run_chunks + -(-(self.tiles - whole * self.column_step) // self.chunk)
        self.task_lines = _share(self.lines, max(most // self.chunk, 1))
        self.line_blocks = -(-self.lines // self.task_lines)
        shares = -(-self.group_blocks // self.task_blocks)
        self.tasks = self.problem.batch * self.problem.groups * shares * self.chunks * self.line_blocks

    def _tile_bytes(self) -> int:
        """Bytes of all frequencies of a task's tiles in one channel."""
        return self.frequencies * self.task_lines * self.chunk * int(self.kind[1:]) // 8

    def _cut_terms(self) -> None:
        """Channels, and taps of the depth, that are transformed at a time: with 1 to 8 MiB the times are the same."""
        self.stage_terms = max(2 * machine().l2 // self._tile_bytes() // self.block_terms, 1) * self.block_terms

    def _kept_bytes(self) -> int:
        """About what a task keeps in its scratch memory: samples and sums, and what rounding lost of these."""
        sums = (2 if self.is_exact else 1) * self.task_blocks * self.rows
        return self._tile_bytes() * (min(self.stage_terms, self.terms) + sums)

    def _vectors(self) -> float:
        """Vectors of tiles of one sample that are multiplied; a single one takes as long as two where rows are few."""
        lines, left = divmod(self.lines, self.task_lines)
        total = 0
        for count, height in ((lines, self.task_lines), (1, left)):
            strips, rest = divmod(-(-height * self.chunk // self.lanes), self.width)
            total += count * (strips * self.width + (2 if rest == 1 and self.rows < 8 else rest))
        return total * self.chunks

    def _fetched(self) -> float:
        """Copies for one line, where padding repeats samples: vectors, and samples outside the input one by one."""
        problem, window = self.problem, self.problem.windows[2]
        if problem.padding_mode == "zeros":
            return 0
        vectors = -(-problem.out_size[2] // (self.chunks * self.lanes))
        return SAMPLES[problem.kernel[1]] * (vectors + (window.lo + window.hi) / self.chunks)

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, size, frequencies = self.problem, int(self.kind[1:]) // 8, self.frequencies
        terms, planes = self.terms, problem.batch * problem.groups / threads
        shares = -(-self.group_blocks // self.task_blocks)
        lines, rows = self.lines * self.chunks * planes, self.group_blocks * self.rows
        is_apart = not self.run_chunks and self.column_step <= self.lanes and self.lanes % self.column_step == 0
        is_whole = is_apart or self.run_chunks or problem.kernel[2] == 1
        runs, run = (1, self.chunk) if is_whole else (-(-self.chunk // self.column_step), self.column_step)
        forward = lines * runs * -(-run // self.lanes) * terms * shares * frequencies
        vectors = self.line_blocks * self.chunks * -(-self.task_lines * self.chunk // self.lanes) * planes
        return {
            "call": 1,
            "task": self.tasks / threads,
            "line": lines * terms * shares,
            "run": lines * terms * shares * runs,
            "fetch": lines * terms * shares * self._fetched(),
            "forward": forward,
            "shuffle": forward if is_apart and self.column_step < self.lanes else 0,
            "fma": self._vectors() * planes * frequencies * terms * rows,
            "backward": vectors * frequencies * rows,
            "row": lines * OUTPUTS[problem.kernel[1]] * problem.group_out,
            "store": problem.out_pixels / self.lanes * problem.group_out * planes,
            "stream": self.tasks / threads * frequencies * terms * self.task_blocks * self.rows * size,
            "spill": self.tasks / threads * max(self._kept_bytes() - 4 * machine().l2, 0),
        }


def block_terms(problem: Problem) -> int:
    """Channels (times taps of the depth) that are multiplied at a time."""
    return _share(max(problem.group_in, 1) * problem.kernel[0], _BLOCK_TERMS)


def _groups(taps: int, dilation: int, outputs: int) -> tuple[int, int]:
    """Outputs per run, and tiles, of an axis: groups of outputs that are `dilation` apart."""
    if OUTPUTS[taps] == 1:
        return outputs, outputs
    period = OUTPUTS[taps] * dilation
    whole = (outputs - 1) // period
    return dilation, whole * dilation + min(dilation, outputs - whole * period)


def _share(count: int, most: int) -> int:
    """`count` in as few equal parts of at most `most` as possible: the size of one."""
    return -(-count // -(-count // most))
