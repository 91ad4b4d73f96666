"""How `fft` cuts a problem into transforms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.algorithms.compiled import activation_address, element_kind
from fastdil.arguments import Pair
from fastdil.hardware import machine
from fastdil.kernels import phase_layout as layout
from fastdil.kernels.geometry import ACTIVATE, GEOMETRY, fill, lanes_of
from fastdil.kernels.mixing import CHAIN_CHANNELS, mixing_kernel
from fastdil.kernels.transforms import Schedule, frequencies, radices, transform_kernel
from fastdil.problem import Problem
from fastdil.workspace import lay_out, limit_bytes

#: Output rows of one task at most.
_MOST_ROWS = 64
#: Work of one pass over one point, by radix, relative to radix 4.
_PASS_WORK = {2: 0.7, 3: 0.9, 4: 1.0, 5: 1.4}


def _real_dtype(problem: Problem) -> np.dtype:
    return np.dtype(f"f{int(element_kind(problem)[1:]) // 8}")


def _tile(problem: Problem, vector_bytes: int, rows: int) -> tuple[int, int]:
    """Output rows and output channels of a register tile: several rows where there is a single channel."""
    most = 4 if vector_bytes == 64 else 2
    outputs = problem.group_out * problem.unit
    if outputs > 1:
        return 1, next(n for n in (2, 4) if n >= min(outputs, most))
    return next(n for n in (4, 2, 1) if n <= most and rows % n == 0), 1


def _reaching_taps(problem: Problem, axis: int) -> Pair:
    """First tap of an axis that meets a sample, and the one after the last; the rest only ever meets padding zeros."""
    window, taps, dilation = problem.windows[axis], problem.kernel[axis], problem.dilation[axis]
    if problem.padding_mode != "zeros":
        return 0, taps
    first = max(-((problem.out_size[axis] - 1 - window.lo) // dilation), 0)
    end = min(-(-(window.size + window.lo) // dilation), taps)
    return (first, end) if first < end else (0, 1)


class Trimmed(NamedTuple):
    """A convolution without the taps that only ever meet padding zeros, which `taps` leaves out of each axis.

    They would be transformed for nothing, and their weights blur the sums.
    """

    problem: Problem
    taps: tuple[Pair, Pair, Pair]


def _trim(problem: Problem) -> Trimmed:
    taps = (_reaching_taps(problem, 0), _reaching_taps(problem, 1), _reaching_taps(problem, 2))

    def padding(axis: int) -> Pair:
        (lo, hi), d, (first, end) = problem.padding[axis], problem.dilation[axis], taps[axis]
        return lo - first * d, hi - (problem.kernel[axis] - end) * d

    depths, heights, widths = (end - first for first, end in taps)
    kept = replace(problem, kernel=(depths, heights, widths), padding=(padding(0), padding(1), padding(2)))
    return Trimmed(kept, taps)


class Cut:
    """One way to cut a problem: vectors of `vector_bytes`, `length` points per transform, `rows` output rows per task.

    `problem` is the one that kernels see.
    """

    def __init__(self, trimmed: Trimmed, vector_bytes: int, length: int, rows: int):
        self.problem, self.taps = problem, _ = trimmed
        self.length, self.rows = length, rows
        self.kind, self.vector_bytes = element_kind(problem), vector_bytes
        self.lanes = lanes_of(self.kind, self.vector_bytes)
        outputs, taps, dilation = problem.out_size, problem.kernel, problem.dilation
        self.row_step = dilation[1] if taps[1] > 1 else 1
        self.row_phases = min(self.row_step, outputs[1])
        self.row_groups = -(-outputs[1] // (self.row_step * rows))
        self.phases = min(dilation[2], outputs[2])
        per_phase = -(-outputs[2] // dilation[2])
        self.block = min(length - taps[2] + 1, per_phase)
        self.blocks = -(-per_phase // self.block)
        self.sequences = outputs[0] * self.row_phases * self.row_groups * self.blocks * self.phases
        self.tasks = -(-self.sequences // (2 * self.lanes))  # of one sample and group
        self.tile_rows, self.tile_outputs = _tile(problem, vector_bytes, rows)
        self.channels = problem.group_in * problem.unit
        self.outputs = -(-problem.group_out * problem.unit // self.tile_outputs) * self.tile_outputs
        self.depth_lines = taps[1] + rows - 1
        self.lines = taps[0] * self.depth_lines * self.channels

    @property
    def all_tasks(self) -> int:
        """Tasks of all samples and groups."""
        return self.problem.batch * self.problem.groups * self.tasks

    @property
    def line_bytes(self) -> int:
        """One line's points; a power of two would put those of one frequency into the same places of the cache."""
        point = 2 * self.lanes * int(self.kind[1:]) // 8
        return (self.length + 1) * point

    @property
    def tile_lines(self) -> int:
        """Lines that a tile of outputs sums."""
        return self.problem.kernel[0] * (self.problem.kernel[1] + self.tile_rows - 1) * self.channels

    @property
    def pairs(self) -> int:
        """Frequencies that real taps do not repeat."""
        return self.length // 2 + 1

    @property
    def group_numbers(self) -> int:
        """Real numbers in the packed spectra of the weights of one group."""
        return self.pairs * self.outputs * self.tile_rows * self.tile_lines * 2

    @property
    def chain_lines(self) -> int:
        """Lines whose products are summed in one chain."""
        lines = self.tile_lines // self.problem.kernel[0]
        return -(-lines // -(-lines // CHAIN_CHANNELS))

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, workers = self.problem, min(threads, self.all_tasks)
        tasks = -(-self.all_tasks // workers) if self.all_tasks < 8 * workers else self.all_tasks / workers
        results = self.rows * problem.group_out * problem.unit
        work = sum(_PASS_WORK[radix] for radix in radices(self.length))
        vectors = 2 * tasks * self.length * (self.lines + results)
        weights = self.group_numbers * int(self.kind[1:]) // 8
        resident = machine().l2 // 2
        data = max(self.lines, self.rows * self.outputs) * self.line_bytes
        return {
            "call": 1,
            "task": tasks,
            "butterfly": vectors * work,
            "mix": 8.0 * tasks * self.pairs * self.rows * self.outputs * self.tile_lines,
            "move": vectors,
            "element": vectors if problem.unit == 2 else 0.0,
            "spill": vectors if data > resident else 0.0,
            "stream": tasks * weights if weights > resident else 0.0,
        }

    def scratch_layout(self, params: np.ndarray) -> int:
        """Write the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
        size, lanes = int(self.kind[1:]) // 8, self.lanes
        vector, tile = lanes * size, self.tile_rows * self.tile_outputs
        parts = (
            (layout.DATA, max(self.lines, self.rows * self.outputs) * self.line_bytes),
            (layout.PANEL, self.lines * 4 * vector),
            (layout.SUMS, max(tile * 8, 1) * vector),
            (layout.RUNS, 2 * lanes * layout.RUN_FIELDS * 8),
            (layout.STAGING, (2 * lanes + 1) * self.length * size),
            (layout.POINTERS, 2 * lanes * 8),
            (layout.ENERGY, self.lines * vector),
            (layout.SEEN, 2 * vector),
            (layout.LARGEST, vector),
        )
        return lay_out(params, parts)

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory of one worker."""
        return self.scratch_layout(np.zeros(GEOMETRY + layout.FIELDS, np.int64))


class Tables:
    """What kernels read besides parameters: steps of transforms, pairs of frequencies. A bound call keeps it alive."""

    def __init__(self, cut: Cut):
        dtype = _real_dtype(cut.problem)
        point = 2 * cut.lanes * dtype.itemsize
        self.schedule = Schedule(cut.length, dtype, point, machine().l1)
        places, frequency = np.argsort(frequencies(cut.length)), np.arange(cut.pairs)
        pairs = np.stack([places[frequency], places[-frequency % cut.length]], axis=1)
        self.pairs = np.ascontiguousarray(pairs * point)


def parameters(cut: Cut, tables: Tables) -> tuple[np.ndarray, int]:
    """The kernel's parameters but for the strides of the input, and the bytes of scratch memory per worker."""
    params = fill(cut.problem, layout.FIELDS)
    params[ACTIVATE] = activation_address(cut.problem)
    tile = cut.tile_rows * cut.tile_outputs
    for field, value in (
        (layout.LENGTH, cut.length),
        (layout.BLOCK, cut.block),
        (layout.BLOCKS, cut.blocks),
        (layout.PHASES, cut.phases),
        (layout.ROWS, cut.rows),
        (layout.ROW_STEP, cut.row_step),
        (layout.ROW_PHASES, cut.row_phases),
        (layout.ROW_GROUPS, cut.row_groups),
        (layout.LINES, cut.depth_lines),
        (layout.SEQUENCES, cut.sequences),
        (layout.TASKS, cut.tasks),
        (layout.TILE_ROWS, cut.tile_rows),
        (layout.OUTPUTS, cut.outputs),
        (layout.DATA_STEP, cut.line_bytes),
        (layout.STEPS, tables.schedule.table.ctypes.data),
        (layout.PAIRS, tables.pairs.ctypes.data),
        (layout.PAIR_COUNT, cut.pairs),
        (layout.SPECTRUM, cut.group_numbers),
        (layout.FORWARD, transform_kernel(cut.kind, cut.vector_bytes, inverse=False).address),
        (layout.INVERSE, transform_kernel(cut.kind, cut.vector_bytes, inverse=True).address),
        (layout.MIX, mixing_kernel(cut.kind, cut.vector_bytes, tile).address),
    ):
        params[field] = value
    return params, cut.scratch_layout(params)


def best_cut(problem: Problem) -> Cut | None:
    """The cut that is predicted to be fastest, or None if no block fits into the workspace.

    It depends neither on the batch nor on the threads of a call, so that sums keep their bits.
    """
    found = _best(replace(problem, batch=1))
    return found and Cut(_trim(problem), *found)


@lru_cache(maxsize=256)
def _best(problem: Problem) -> tuple[int, int, int] | None:
    """Vector bytes, length and rows: of the longest vectors of which a block fits into the workspace."""
    cores = machine().cores

    def cost(cut: Cut) -> float:
        rounds = -(-cut.all_tasks // cores) * cores
        return costmodel.predict("fft", cut.features(1)) * rounds / cut.all_tasks

    for vector_bytes in (64, 32, 16):
        if vector_bytes <= machine().vector_bytes:
            cuts = (cut for cut in _cuts(problem, vector_bytes) if cut.scratch_bytes <= limit_bytes())
            best = min(cuts, key=cost, default=None)
            if best is not None:
                return vector_bytes, best.length, best.rows
    return None


def _cuts(problem: Problem, vector_bytes: int) -> Iterator[Cut]:
    lanes = lanes_of(element_kind(problem), vector_bytes)
    trimmed = _trim(problem)
    first, end = trimmed.taps[2]
    least = max(2 * lanes, end - first)
    longest = -(-problem.out_size[2] // problem.dilation[2]) + end - first - 1
    for length in sorted(factor << exponent for exponent in range(24) for factor in (1, 3, 5)):
        if length >= least and length % lanes == 0 and length % 4 == 0:
            for rows in _row_counts(problem):
                yield Cut(trimmed, vector_bytes, length, rows)
            if length >= longest:
                return


def _row_counts(problem: Problem) -> list[int]:
    """Output rows of a task: powers of two, up to all rows of a phase."""
    if problem.kernel[1] == 1:
        return [1]
    most = min(-(-problem.out_size[1] // problem.dilation[1]), _MOST_ROWS)
    return [1 << n for n in range(most.bit_length() + 1) if 1 << n < 2 * most]
