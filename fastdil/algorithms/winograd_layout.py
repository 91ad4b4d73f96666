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
from fastdil.kernels.winograd_tiles import tile_shape
from fastdil.kernels.winograd_transforms import OUTPUTS, PAIR, SAMPLES, TAPS
from fastdil.problem import Problem
from fastdil.workspace import limit_bytes

#: Channels, times taps of the depth, that are transformed and multiplied at a time: their samples at one frequency stay
#: in L1.
MOST_TERMS = 128
#: Channels from which on products are summed tap by tap of the depth, so that its taps can share transformed samples;
#: chains of fewer would end too often.
_LEAST_BY_TAP = 8
#: Parts into which lines are cut at least, where that lets more of them share samples.
_LINE_PARTS = (1, 2, 4)
#: Products per output at least, where one axis is transformed and where both are: with fewer, errors of random data
#: come near the bound.
LEAST_TERMS = {False: 96, True: 576}
#: Share of a task's scratch memory, or a little less, that `Layout._kept_bytes` counts.
_COUNTED = 0.9
#: Bytes of the tiles of one task at most, at one frequency of one channel.
_MOST_TILE_BYTES = 24 * 64
#: Output channels of one task at most, and parts into which those of one group are divided beyond what that asks for.
_MOST_ROWS = 1024
_MOST_SHARES = 8

#: Bytes of spectra (transformed weights) that are made once. More would come from memory: tasks make their own.
_MOST_KEPT = 16 << 20
#: Bytes that stay in L2, and tiles of a task for which it is faster to make its spectra there than to fetch more.
_MOST_AT_HAND, _TILES_TO_MAKE = 1 << 19, 96
#: Bytes of spectra that a task makes at a time.
_MOST_AT_ONCE = 1 << 20

#: What a layout tells the kernel, under the same names in capitals.
_FIELDS = (
    "lines", "plane_lines", "pair_lines", "task_lines", "line_blocks", "row_step", "column_step", "tiles", "chunk",
    "chunks", "run_chunks", "group_blocks", "task_blocks", "is_shared", "long_runs", "long_blocks", "short_blocks",
    "part", "is_by_tap", "lazy_blocks", "rows_before", "columns_before",
)  # fmt: skip


def arranged(problem: Problem) -> Problem:
    """The same problem as it is computed: with few products per output, or two taps, an image is a stack of lines.

    Its height is taken for the depth then, and only the width is transformed: half of the multiplications instead of a
    quarter, but a third of the rounding errors.
    """
    depths, heights, widths = problem.kernel
    is_image = depths == 1 and problem.size[0] == 1 and problem.out_size[0] == 1
    suits_planes = problem.terms >= LEAST_TERMS[True] and all(
        2 < problem.kernel[axis] <= max(TAPS.values()) and has_partners(problem, axis) for axis in (1, 2)
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
    """How one problem is cut into tasks, and the parameters that tell the kernel so.

    `reserved` bytes of the workspace are left to others.
    """

    def __init__(self, problem: Problem, threads: int, reserved: int = 0):
        problem, self._limit = arranged(problem), int(_COUNTED * limit_bytes()) - reserved
        self.problem, self.kind, self.vector_bytes = problem, element_kind(problem), machine().vector_bytes
        self.rows, self.width = tile_shape(self.vector_bytes)
        self.lanes = lanes_of(self.kind, self.vector_bytes)
        depth, height, width = problem.out_size
        self.forms = _axis_forms(problem)
        self.rows_before, self.columns_before = (
            problem.windows[axis].lo - (problem.dilation[axis] if form == PAIR else 0)
            for axis, form in zip((1, 2), self.forms, strict=True)
        )
        self.row_step, self.plane_lines = _groups(self.forms[0], problem.dilation[1], height)
        self.column_step, self.tiles = _groups(self.forms[1], problem.dilation[2], width)
        self.lines = depth * self.plane_lines
        self.pair_lines = problem.size[1] - problem.dilation[1] if self.forms[0] == PAIR else self.plane_lines
        self.group_blocks = block_tail(problem, self.rows)
        self.terms = problem.group_in * problem.kernel[0]
        self.is_exact = self.terms > tasks.PLAIN_TERMS
        self.part = _part_channels(problem)
        self.is_by_tap = problem.kernel[0] > 1 and self.part >= _LEAST_BY_TAP
        self.frequencies = math.prod(SAMPLES[form] for form in self.forms)
        self._block_spectrum = self.frequencies * self.part * problem.kernel[0] * self.rows * int(self.kind[1:]) // 8
        self._cut(threads)
        self.params = fill(problem, tasks.FIELDS)
        for name in _FIELDS:
            self.params[getattr(tasks, name.upper())] = getattr(self, name)
        self.scratch_bytes = tasks.scratch_layout(self.params, self.kind, self.vector_bytes, *self.forms)
        self.spectrum_bytes = int(self.params[tasks.SPECTRUM])

    def _cut(self, threads: int) -> None:
        """Choose tiles and outputs per task: those of which all threads are predicted to have finished first.

        Tasks of many tiles waste few lanes and fetch weights seldom; tasks of fewer outputs transform the same samples
        again, but there are more of them to share. What a task keeps is limited by the workspace.
        """
        strip, least = self.width * self.lanes, -(-self.group_blocks * self.rows // _MOST_ROWS)
        most = _MOST_TILE_BYTES * self.lanes // self.vector_bytes
        shares = range(least, min(self.group_blocks, least + _MOST_SHARES - 1) + 1)
        line_parts = [parts for parts in _LINE_PARTS if parts == 1 or (self.is_by_tap and self.tiles >= parts * strip)]
        cuts = itertools.product(range(strip, most + 1, strip), shares, line_parts)
        ends: dict[tuple[int, ...], float] = {}  # many cuts are the same

        def end(cut: tuple[int, int, int]) -> float:
            self._cut_tasks(*cut)
            same = self.chunk, self.chunks, self.task_lines, self.task_blocks
            if same not in ends:
                workers = min(threads, max(self._limit // self._kept_bytes(), 1))
                rounds = -(-self.tasks // workers)
                ends[same] = rounds / self.tasks * costmodel.predict("winograd", self.features(1))
            return ends[same]

        self._cut_tasks(*min(cuts, key=end))

    def _cut_tasks(self, most: int, shares: int, line_parts: int) -> None:
        """Tasks of at most `most` tiles for one of `shares` of the outputs: short lines, or parts of long ones."""
        self.task_blocks = _share(self.group_blocks, -(-self.group_blocks // shares))
        self._cut_lines(min(most, -(-self.tiles // line_parts)))
        self._join_lines(max(most // self.chunk, 1))
        self.lazy_blocks = 0
        if self._is_lazy():
            self.lazy_blocks = _share(self.task_blocks, max(_MOST_AT_ONCE // self._block_spectrum, 1))
        parts = -(-self.group_blocks // self.task_blocks)
        self.tasks = self.problem.batch * self.problem.groups * parts * self.chunks * self.line_blocks

    def _is_lazy(self) -> bool:
        """Whether tasks transform their weights."""
        spectra = self.problem.groups * self.group_blocks * self._block_spectrum * self.problem.group_in // self.part
        return spectra > (_MOST_AT_HAND if self.task_lines * self.chunk >= _TILES_TO_MAKE else _MOST_KEPT)

    def _cut_lines(self, most: int) -> None:
        """Chunks of at most `most` tiles: whole runs, or parts of one."""
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

    def _join_lines(self, most: int) -> None:
        """At most `most` lines for each task: if they are many, those that are a dilation of the depth apart."""
        depth, step = self.problem.out_size[0], self.problem.dilation[0]
        run = -(-depth // step)
        self.is_shared = self.is_by_tap and run > 1 and run * self.chunk >= self.lanes
        self.task_lines = _share(run if self.is_shared else self.lines, most)
        self.long_runs = depth - (run - 1) * step
        self.long_blocks, self.short_blocks = -(-run // self.task_lines), -(-(run - 1) // self.task_lines)
        self.line_blocks = -(-self.lines // self.task_lines)
        if self.is_shared:
            blocks = self.long_runs * self.long_blocks + (step - self.long_runs) * self.short_blocks
            self.line_blocks = self.plane_lines * blocks

    def _heights(self) -> list[tuple[int, int]]:
        """How many tasks there are for the lines of one chunk, and of how many lines."""
        if not self.is_shared:
            whole, left = divmod(self.lines, self.task_lines)
            return [(whole, self.task_lines), (1, left)] if left else [(whole, self.task_lines)]
        heights, run = [], -(-self.problem.out_size[0] // self.problem.dilation[0])
        for runs, lines in ((self.long_runs, run), (self.problem.dilation[0] - self.long_runs, run - 1)):
            whole, left = divmod(lines, self.task_lines)
            heights += [(runs * whole * self.plane_lines, self.task_lines), (runs * self.plane_lines, left)]
        return [(count, lines) for count, lines in heights if lines]

    def _transformed_lines(self) -> int:
        """Lines of one channel and chunk that are transformed for all taps of the depth."""
        depths = self.problem.kernel[0]
        if not self.is_shared:
            return self.lines * depths
        return sum(count * (lines + depths - 1) for count, lines in self._heights())

    def _tile_bytes(self) -> int:
        """Bytes of all frequencies of a task's tiles in one channel."""
        return self.frequencies * self.task_lines * self.chunk * int(self.kind[1:]) // 8

    def _kept_bytes(self) -> int:
        """About what a task keeps in its scratch memory: samples and sums, and what rounding lost of these."""
        sums = (2 if self.is_exact else 1) * (self.task_blocks + 1) * self.rows
        spectra = (self.lazy_blocks + 1) * self._block_spectrum if self.lazy_blocks else 0
        return self._tile_bytes() * (self.part * self.problem.kernel[0] + sums) + spectra

    def _vectors(self) -> float:
        """Vectors of tiles of one sample that are multiplied; a single one takes as long as two where rows are few."""
        total = 0
        for count, lines in self._heights():
            strips, rest = divmod(-(-lines * self.chunk // self.lanes), self.width)
            total += count * (strips * self.width + (2 if rest == 1 and self.rows < 8 else rest))
        return total * self.chunks

    def _full(self) -> float:
        """Share of products that are computed: two of three frequencies do not see phases of a single sample."""
        full = self.pair_lines / self.plane_lines
        if not self.is_shared and self.task_lines == self.plane_lines:
            strip = self.lanes * self.width
            full = -(-self.pair_lines * self.chunk // strip) / -(-self.plane_lines * self.chunk // strip)
        elif not self.is_shared and self.task_lines > self.plane_lines:
            full = 1  # lines of several planes are not told apart
        return 1 - 2 / 3 * (1 - full)

    def _fetched(self) -> float:
        """Copies for one line, where padding repeats samples: vectors, and samples outside the input one by one."""
        problem, window = self.problem, self.problem.windows[2]
        if problem.padding_mode == "zeros":
            return 0
        vectors = -(-problem.out_size[2] // (self.chunks * self.lanes))
        return SAMPLES[self.forms[0]] * (vectors + (window.lo + window.hi) / self.chunks)

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, size, frequencies = self.problem, int(self.kind[1:]) // 8, self.frequencies
        terms, planes = self.terms, problem.batch * problem.groups / threads
        shares = -(-self.group_blocks // self.task_blocks)
        lines, rows = self.lines * self.chunks * planes, self.group_blocks * self.rows
        transformed = self._transformed_lines() * self.chunks * planes * problem.group_in * shares
        is_apart = not self.run_chunks and self.column_step <= self.lanes and self.lanes % self.column_step == 0
        is_whole = is_apart or self.run_chunks or problem.kernel[2] == 1
        runs, run = (1, self.chunk) if is_whole else (-(-self.chunk // self.column_step), self.column_step)
        forward = transformed * runs * -(-run // self.lanes) * frequencies
        vectors = self.line_blocks * self.chunks * -(-self.task_lines * self.chunk // self.lanes) * planes
        return {
            "call": 1,
            "task": self.tasks / threads,
            "line": transformed,
            "run": transformed * runs,
            "fetch": transformed * self._fetched(),
            "forward": forward,
            "shuffle": forward if is_apart and self.column_step < self.lanes else 0,
            "fma": self._vectors() * self._full() * planes * frequencies * terms * (rows + tasks.PROBES),
            "backward": vectors * frequencies * rows,
            "row": lines * OUTPUTS[self.forms[0]] * problem.group_out,
            "store": problem.out_pixels / self.lanes * problem.group_out * planes,
            "transform": self.tasks / threads * terms * self.task_blocks if self.lazy_blocks else 0,
            "stream": self.tasks / threads * frequencies * terms * self.task_blocks * self.rows * size,
            "spill": self.tasks / threads * max(self._kept_bytes() - 4 * machine().l2, 0),
        }


def _part_channels(problem: Problem) -> int:
    """Channels that are transformed and multiplied at a time, with all taps of the depth."""
    return _share(problem.group_in, max(MOST_TERMS // problem.kernel[0], 1))


def has_partners(problem: Problem, axis: int) -> bool:
    """Whether most outputs of an axis have others in their phase with which they can share a tile."""
    return problem.out_size[axis] >= 2 * problem.dilation[axis] or _is_pairs(problem, axis)


def _is_pairs(problem: Problem, axis: int) -> bool:
    """Whether the phases of an axis are one or two samples between zeros, of three taps."""
    dilation, size = problem.dilation[axis], problem.size[axis]
    is_same = problem.kernel[axis] == TAPS[PAIR] and problem.padding[axis] == (dilation, dilation)
    return is_same and problem.padding_mode == "zeros" and dilation < size <= 2 * dilation


def _axis_forms(problem: Problem) -> tuple[int, int]:
    """Forms of the height and the width: of those for as many taps, the ones with the fewest multiplications."""

    def best(axis: int) -> int:
        taps, dilation, outputs = problem.kernel[axis], problem.dilation[axis], problem.out_size[axis]
        forms = [form for form in TAPS if TAPS[form] == taps and (form != PAIR or _is_pairs(problem, axis))]
        return min(forms, key=lambda form: SAMPLES[form] * _groups(form, dilation, outputs)[1])

    return best(1), best(2)


def _groups(form: int, dilation: int, outputs: int) -> tuple[int, int]:
    """Outputs per run, and tiles, of an axis: groups of outputs that are `dilation` apart."""
    if OUTPUTS[form] == 1:
        return outputs, outputs
    period = OUTPUTS[form] * dilation
    whole = (outputs - 1) // period
    return dilation, whole * dilation + min(dilation, outputs - whole * period)


def _share(count: int, most: int) -> int:
    """`count` in as few equal parts of at most `most` as possible: the size of one."""
    return -(-count // -(-count // most))
