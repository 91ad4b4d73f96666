"""How `fft` cuts a problem into transforms, and weights in the order in which its kernel mixes channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from fastdil import costmodel
from fastdil.algorithms.compiled import activation_address, element_kind
from fastdil.cache import BoundedCache
from fastdil.hardware import machine
from fastdil.kernels import phases
from fastdil.kernels.geometry import ACTIVATE, fill, lanes_of
from fastdil.kernels.transforms import PASS_FIELDS, frequencies, passes, radices, split_pass
from fastdil.problem import Problem
from fastdil.workspace import ALIGNMENT, limit_bytes

#: Spectra of one set of weights that are kept, one per transform size.
_MOST_SPECTRA = 4
#: Output channels with the largest weights whose sums tell what the taps see.
_SEEN_OUTPUTS = 4
#: Output rows of one task at most.
_MOST_ROWS = 64
#: Work of one pass over one point, by radix, relative to radix 4.
_PASS_WORK = {2: 0.7, 3: 0.9, 4: 1.0, 5: 1.4, 8: 2.2}


def _real_dtype(problem: Problem) -> np.dtype:
    return np.dtype(f"f{int(element_kind(problem)[1:]) // 8}")


def _tile(problem: Problem, rows: int) -> tuple[int, int]:
    """Output rows and output channels of a register tile: several rows where there is a single channel."""
    most = 4 if machine().vector_bytes == 64 else 2
    outputs = problem.group_out * problem.unit
    if outputs > 1:
        return 1, next(n for n in (2, 4) if n >= min(outputs, most))
    return next(n for n in (4, 2, 1) if n <= most and rows % n == 0), 1


class Cut:
    """One way to cut a problem: `length` points per transform, `rows` output rows per task."""

    def __init__(self, problem: Problem, length: int, rows: int):
        self.problem, self.length, self.rows = problem, length, rows
        self.kind, self.vector_bytes = element_kind(problem), machine().vector_bytes
        self.lanes = lanes_of(self.kind, self.vector_bytes)
        outputs, taps, dilation = problem.out_size, problem.kernel, problem.dilation
        self.row_step = dilation[1] if taps[1] > 1 else 1
        self.row_phases = min(self.row_step, outputs[1])
        self.row_groups = -(-(-(-outputs[1] // self.row_step)) // rows)
        self.phases = min(dilation[2], outputs[2])
        per_phase = -(-outputs[2] // dilation[2])
        self.block = min(length - taps[2] + 1, per_phase)
        self.blocks = -(-per_phase // self.block)
        self.sequences = outputs[0] * self.row_phases * self.row_groups * self.blocks * self.phases
        self.tasks = -(-self.sequences // (2 * self.lanes))  # of one sample and group
        self.tile_rows, self.tile_outputs = _tile(problem, rows)
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
    def spectrum_numbers(self) -> int:
        """Numbers in the packed spectra of the weights."""
        return self.problem.groups * self.pairs * self.outputs * self.tile_rows * self.tile_lines * 2

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, workers = self.problem, min(threads, self.all_tasks)
        tasks = -(-self.all_tasks // workers) if self.all_tasks < 8 * workers else self.all_tasks / workers
        results = self.rows * problem.group_out * problem.unit
        work = sum(_PASS_WORK[radix] for radix in radices(self.length))
        vectors = 2 * tasks * self.length * (self.lines + results)
        weights = self.spectrum_numbers // problem.groups * int(self.kind[1:]) // 8
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
        outputs = min(_SEEN_OUTPUTS, self.problem.group_out * self.problem.unit)
        offset = 0
        for field, needed in (
            (phases.DATA, max(self.lines, self.rows * self.outputs) * self.line_bytes),
            (phases.PANEL, self.lines * 4 * vector),
            (phases.SUMS, max(tile * 8, 1) * vector),
            (phases.RUNS, 2 * lanes * phases.RUN_FIELDS * 8),
            (phases.STAGING, (2 * lanes + 1) * self.length * size),
            (phases.POINTERS, 2 * lanes * 8),
            (phases.ENERGY, self.lines * vector),
            (phases.SEEN, 2 * phases.PLACES * outputs * vector),
            (phases.LARGEST, vector),
        ):
            params[field] = offset
            offset += -(-needed // ALIGNMENT) * ALIGNMENT
        return offset

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory of one worker."""
        return self.scratch_layout(np.zeros(phases.GEOMETRY + phases.FIELDS, np.int64))


class Tables:
    """What the kernel reads besides parameters: passes, twiddles, pairs of frequencies. Kept alive by a bound call."""

    def __init__(self, cut: Cut):
        self.passes, self.twiddles = passes(cut.length, _real_dtype(cut.problem))
        places = np.argsort(frequencies(cut.length))
        frequency = np.arange(cut.pairs)
        point = 2 * cut.lanes * self.twiddles.itemsize
        pairs = np.stack([places[frequency], places[-frequency % cut.length]], axis=1)
        self.pairs = np.ascontiguousarray(pairs * point)


def parameters(cut: Cut, tables: Tables, allowed: float) -> tuple[np.ndarray, int]:
    """The kernel's parameters but for the strides of the input, and the bytes of scratch memory per worker."""
    problem = cut.problem
    params = fill(problem, phases.FIELDS)
    params[ACTIVATE] = activation_address(problem)
    for field, value in (
        (phases.LENGTH, cut.length),
        (phases.BLOCK, cut.block),
        (phases.BLOCKS, cut.blocks),
        (phases.PHASES, cut.phases),
        (phases.ROWS, cut.rows),
        (phases.ROW_STEP, cut.row_step),
        (phases.ROW_PHASES, cut.row_phases),
        (phases.ROW_GROUPS, cut.row_groups),
        (phases.LINES, cut.depth_lines),
        (phases.SEQUENCES, cut.sequences),
        (phases.TASKS, cut.tasks),
        (phases.TILE_ROWS, cut.tile_rows),
        (phases.OUTPUTS, cut.outputs),
        (phases.DATA_STEP, cut.line_bytes),
        (phases.PASSES, tables.passes.ctypes.data),
        (phases.PASS_COUNT, len(tables.passes) // PASS_FIELDS),
        (phases.SPLIT, split_pass(cut.length, 2 * cut.lanes * tables.twiddles.itemsize, machine().l1)),
        (phases.TWIDDLES, tables.twiddles.ctypes.data),
        (phases.PAIRS, tables.pairs.ctypes.data),
        (phases.PAIR_COUNT, cut.pairs),
        (phases.SEEN_OUTPUTS, min(_SEEN_OUTPUTS, problem.group_out * problem.unit)),
        (phases.ALLOWED, np.float64(allowed).view(np.int64)),
    ):
        params[field] = value
    return params, cut.scratch_layout(params)


def best_cut(problem: Problem) -> Cut | None:
    """The cut that is predicted to be fastest, or None if no block fits into the workspace.

    It depends neither on the batch nor on the threads of a call, so that sums keep their bits.
    """
    found = _best(replace(problem, batch=1))
    return found and Cut(problem, *found)


@lru_cache(maxsize=256)
def _best(problem: Problem) -> tuple[int, int] | None:
    cores = machine().cores

    def cost(cut: Cut) -> float:
        rounds = -(-cut.all_tasks // cores) * cores
        return costmodel.predict("fft", cut.features(1)) * rounds / cut.all_tasks

    cuts = (cut for cut in _cuts(problem) if cut.scratch_bytes <= limit_bytes())
    best = min(cuts, key=cost, default=None)
    return best and (best.length, best.rows)


def _cuts(problem: Problem) -> Iterator[Cut]:
    lanes = lanes_of(element_kind(problem), machine().vector_bytes)
    least = max(2 * lanes, problem.kernel[2])
    longest = -(-problem.out_size[2] // problem.dilation[2]) + problem.kernel[2] - 1
    for length in sorted(factor << exponent for exponent in range(24) for factor in (1, 3, 5)):
        if length >= least and length % lanes == 0 and length % 4 == 0:
            for rows in _row_counts(problem):
                yield Cut(problem, length, rows)
            if length >= longest:
                return


def _row_counts(problem: Problem) -> list[int]:
    """Output rows of a task: powers of two, up to all rows of a phase."""
    if problem.kernel[1] == 1:
        return [1]
    most = min(-(-problem.out_size[1] // problem.dilation[1]), _MOST_ROWS)
    return [1 << n for n in range(most.bit_length() + 1) if 1 << n < 2 * most]


class Spectra:
    """Weights, and their transforms at the sizes asked for so far."""

    def __init__(self, problem: Problem, w: np.ndarray):
        shape = (problem.groups, problem.group_out * problem.unit, problem.group_in * problem.unit, *problem.kernel)
        self.w = _real_weights(problem, w).reshape(shape)
        magnitudes = np.abs(self.w)
        self.largest = float(magnitudes.max(initial=0))
        totals = magnitudes.sum(axis=(2, 3, 4, 5), dtype=np.float64)
        #: The largest sum of absolute weights of an output.
        self.total = float(totals.max(initial=0))
        loudest = np.argsort(totals, axis=1)[:, : -_SEEN_OUTPUTS - 1 : -1]
        #: Absolute weights of the loudest outputs of each group, and sums of squares over the width: rows before channels.
        self.absolute = _rows_first(np.take_along_axis(magnitudes, loudest[:, :, None, None, None, None], 1))
        self.squares = _rows_first(self.w.astype(np.float64) ** 2).sum(axis=-1).astype(self.w.dtype)
        self._kept: BoundedCache = BoundedCache(_MOST_SPECTRA)

    def at(self, cut: Cut) -> np.ndarray:
        """Transforms as the kernel reads them: by group, frequency, tile, depth, row, channel, output."""
        key = (cut.length, cut.tile_rows, cut.tile_outputs)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._packed(cut)
            self._kept.put(key, kept)
        return kept

    def _packed(self, cut: Cut) -> np.ndarray:
        groups, outputs, channels, depths, heights, _ = self.w.shape
        spectra = np.fft.rfft(self.w.astype(np.float64), cut.length).conj() / cut.length
        tiles = cut.outputs // cut.tile_outputs
        shape = (groups, tiles, cut.tile_outputs, channels, depths, heights + cut.tile_rows - 1, cut.tile_rows, cut.pairs)
        packed = np.zeros(shape, np.result_type(self.w.dtype, np.complex64))
        flat = packed.reshape(groups, cut.outputs, *shape[3:])
        for row in range(cut.tile_rows):
            flat[:, :outputs, :, :, row : row + heights, row] = spectra
        return np.ascontiguousarray(packed.transpose(0, 7, 1, 4, 5, 3, 6, 2)).view(self.w.dtype)


def _real_weights(problem: Problem, w: np.ndarray) -> np.ndarray:
    """Complex channels as pairs of real ones: outputs ``(re, im)`` of inputs ``(re, im)`` by ``[[re, -im], [im, re]]``."""
    if problem.unit == 1:
        return w
    shaped = w.reshape(problem.out_channels, problem.group_in, problem.taps)
    pairs = np.stack([np.stack([shaped.real, -shaped.imag], 2), np.stack([shaped.imag, shaped.real], 2)], 1)
    return np.ascontiguousarray(pairs)


def _rows_first(w: np.ndarray) -> np.ndarray:
    """From (group, output, channel, depth, row, tap) to (group, output, depth, row, channel, tap)."""
    return np.ascontiguousarray(w.transpose(0, 1, 3, 4, 2, 5))
