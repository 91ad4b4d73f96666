"""winograd: minimal filtering on the dilation phases, for layers with many channels and three taps along an axis."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import (
    activation_address,
    block_tail,
    crop_bytes,
    element_kind,
    pack_weights,
    real_strides,
)
from fastdil.algorithms.tile_loudness import Guard
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine, machine
from fastdil.kernels import winograd
from fastdil.kernels import winograd_tasks as tasks
from fastdil.kernels.driver import default_threads, execute, launcher
from fastdil.kernels.geometry import ACTIVATE, STRIDES, fill, lanes_of
from fastdil.kernels.tile_loudness import MOST_ROWS
from fastdil.kernels.tiles import tile_shape
from fastdil.kernels.winograd_tiles import OUTPUTS, SAMPLES
from fastdil.problem import Problem

#: Channels (times taps of the depth) that are transformed at a time.
_BLOCK_TERMS = 64
#: The same where blocks are added exactly, which takes time.
_EXACT_BLOCK_TERMS = 96
#: Output channels of one task at most.
_MOST_ROWS = 256

#: Taps along height and width.
_KERNELS = ((3, 3), (1, 3), (3, 1))

#: What a layout tells the kernel, under the same names in capitals.
_FIELDS = (
    "lines", "plane_lines", "task_lines", "line_blocks", "row_step", "column_step", "tiles", "chunk", "chunks",
    "run_chunks", "group_blocks", "task_blocks", "block_taps", "block_channels",
)  # fmt: skip


class _Spectra(NamedTuple):
    """Transformed weights, and what the loudness of an input is weighed with."""

    packed: np.ndarray  #: ``[group][frequency][block][tap of the depth][channel][row]``
    scales: np.ndarray  #: per group: the largest Euclidean norm of a kernel
    norms: np.ndarray  #: the largest of each input channel, in units of its group's scale
    rows: np.ndarray  #: ``[group][row][channel][tap]``: absolute weights of a few output channels


class Winograd:
    """F(2,3) along height and width (`fastdil.kernels.winograd`); taps of the depth count as channels."""

    name = "winograd"
    needs_tame_input = True

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        if problem.dtype.kind != "f":
            return f"it computes float32 and float64, not {problem.dtype.name}"
        if any(stride > 1 for stride in problem.stride):
            return "its tiles are pairs of neighbouring outputs of a phase, and a stride above 1 skips them"
        if problem.kernel[1:] not in _KERNELS:
            taps = " x ".join(map(str, problem.kernel[1:]))
            return f"it needs three taps along height and width, or along one of them; not {taps}"
        for axis in (1, 2):
            outputs, dilation = problem.out_size[axis], problem.dilation[axis]
            if problem.kernel[axis] > 1 and outputs < 2 * dilation:
                return f"it pairs outputs {dilation} apart, and most of an axis of {outputs} would have no partner"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        layout = _Layout(problem, threads)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = _Layout(problem, threads)
        workers = min(threads, layout.tasks)
        return Estimate(
            costmodel.predict(self.name, layout.features(workers)),
            layout.scratch_bytes * workers,
            8.0,  # what the guard lets pass
            costmodel.preparation(self.name, problem.weights),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        rows, _ = tile_shape(machine().vector_bytes)
        by_tap = pack_weights(problem, w, rows, taps_first=True)
        return by_tap._replace(data=_transform(problem, w, by_tap.data, rows) if by_tap.finite else None)

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        layout = _Layout(problem, threads)
        params = layout.params.copy()
        params[STRIDES] = real_strides(problem, x_strides)
        params[ACTIVATE] = activation_address(problem)
        kernel = winograd.winograd_kernel(layout.kind, layout.vector_bytes, *problem.kernel[1:])
        launch = launcher(kernel.address, params, layout.tasks, layout.scratch_bytes, threads)
        skip = crop_bytes(problem, x_strides)
        guard = Guard(problem, x_strides, threads)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            if not weights.finite:
                raise UntameInputError("method='winograd': expected finite weights; a transform spreads Inf and NaN")
            guard.check(x, weights.data.scales, weights.data.norms, weights.data.rows)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(weights.data.packed), at_bias, address_of(out))

        return call


def _transform(problem: Problem, w: np.ndarray, by_tap: np.ndarray, rows: int) -> _Spectra:
    """Finite weights transformed; `by_tap` are the same ones packed in blocks of `rows` outputs, taps first."""
    kind, groups, depths, group_in = element_kind(problem), problem.groups, problem.kernel[0], problem.group_in
    blocks, elements = block_tail(problem, rows), group_in * rows
    frequencies = math.prod(SAMPLES[taps] for taps in problem.kernel[1:])
    packed = np.empty(groups * frequencies * blocks * depths * elements, w.dtype)
    squares = np.empty((groups, blocks, depths, group_in, rows))
    params = np.array([groups, blocks, depths, elements], np.int64)
    kernel = winograd.weight_kernel(kind, machine().vector_bytes, *problem.kernel[1:])
    threads = default_threads() if packed.nbytes > machine().l2 else 1
    pointers = 0, address_of(by_tap), address_of(squares), address_of(packed)
    execute(kernel.address, params, pointers, groups * blocks, 0, threads)
    squares = squares.sum(axis=2)
    norms = np.sqrt(squares.max(axis=(1, 3)))
    scales = norms.max(axis=1, keepdims=True)
    totals = squares.sum(axis=2).reshape(groups, -1)[:, : problem.group_out]
    largest = np.argsort(totals, axis=1)[:, -MOST_ROWS:]
    shaped = w.reshape(groups, problem.group_out, group_in * problem.taps)
    seen = np.abs(np.take_along_axis(shaped, largest[:, :, None], axis=1))
    relative = norms / np.where(scales > 0, scales, 1)
    return _Spectra(packed, scales[:, 0], np.ascontiguousarray(relative, w.dtype), np.ascontiguousarray(seen))


class _Layout:
    """How one problem is cut into tasks, and the parameters that tell the kernel so."""

    def __init__(self, problem: Problem, threads: int):
        self.problem, self.kind, self.vector_bytes = problem, element_kind(problem), machine().vector_bytes
        self.rows, self.width = tile_shape(self.vector_bytes)
        self.lanes = lanes_of(self.kind, self.vector_bytes)
        depth, height, width = problem.out_size
        self.row_step, self.plane_lines = _pairs(problem.kernel[1], problem.dilation[1], height)
        self.column_step, self.tiles = _pairs(problem.kernel[2], problem.dilation[2], width)
        self.lines = depth * self.plane_lines
        self.group_blocks = block_tail(problem, self.rows)
        is_exact = problem.group_in * problem.kernel[0] > tasks.PLAIN_TERMS
        terms = _EXACT_BLOCK_TERMS if is_exact else _BLOCK_TERMS
        self.block_channels = _share(problem.group_in, terms)
        self.block_taps = min(problem.kernel[0], max(terms // problem.group_in, 1))
        self.frequencies = math.prod(SAMPLES[taps] for taps in problem.kernel[1:])
        self._cut(threads)
        self.params = fill(problem, tasks.FIELDS)
        for name in _FIELDS:
            self.params[getattr(tasks, name.upper())] = getattr(self, name)
        self.scratch_bytes = tasks.scratch_layout(self.params, self.kind, self.vector_bytes, *problem.kernel[1:])

    def _cut(self, threads: int) -> None:
        """Choose tiles and outputs per task: those of which all threads are predicted to have finished first.

        Tasks of many tiles, whose frequencies must fit L2, waste few lanes and fetch weights seldom; tasks of fewer
        outputs transform the same samples again. Zen 4, two threads: aspp_d6 in 9 tasks of 36 tiles 56 ms, in 6 of 108
        tiles and half of the outputs 41; drn_256_d2 in 17 of 66 tiles 18.1, in 10 of 231 and half of the outputs 15.7.
        """
        strip, shares = self.width * self.lanes, -(-self.group_blocks * self.rows // _MOST_ROWS)
        tile_bytes = self.frequencies * self.block_channels * self.block_taps * int(self.kind[1:]) // 8
        strips = max(machine().l2 // tile_bytes // strip, 1)
        cuts = [
            (strips >> halvings, shares << splits) for halvings in range(strips.bit_length()) for splits in range(3)
        ]

        def end(cut: tuple[int, int]) -> float:
            self._cut_tasks(cut[0] * strip, cut[1])
            rounds = -(-self.tasks // threads)
            return rounds / self.tasks * costmodel.predict(Winograd.name, self.features(1))

        best_strips, best_shares = min(cuts, key=end)
        self._cut_tasks(best_strips * strip, best_shares)

    def _cut_tasks(self, most: int, shares: int) -> None:
        """Tasks of at most `most` tiles, short lines or part of a long one, for one of `shares` of the outputs."""
        self.task_blocks = _share(self.group_blocks, -(-self.group_blocks // shares))
        self._cut_lines(most)

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

    def features(self, threads: int) -> dict[str, float]:
        """Amounts of work per thread."""
        problem, size, frequencies = self.problem, int(self.kind[1:]) // 8, self.frequencies
        terms = problem.group_in * problem.kernel[0]
        planes = problem.batch * problem.groups / threads
        shares = -(-self.group_blocks // self.task_blocks)
        lines = self.lines * self.chunks * planes * terms * shares
        vectors = self.line_blocks * self.chunks * -(-self.task_lines * self.chunk // self.lanes) * planes
        rows = self.group_blocks * self.rows
        outputs = problem.out_pixels / self.lanes * problem.group_out * planes
        is_apart = self.run_chunks or (self.column_step < self.lanes and self.lanes % self.column_step == 0)
        runs = 1 if is_apart else -(-self.chunk // self.column_step)
        return {
            "call": 1,
            "task": self.tasks / threads,
            "line": lines,
            "run": lines * runs,
            "forward": vectors * frequencies * terms * shares,
            "fma": vectors * frequencies * terms * rows,
            "backward": vectors * frequencies * rows,
            "store": outputs,
            "stream": self.tasks / threads * frequencies * terms * self.task_blocks * self.rows * size,
            "byte": problem.batch * problem.in_channels * math.prod(problem.size) * size / threads,
        }


def _pairs(taps: int, dilation: int, outputs: int) -> tuple[int, int]:
    """Outputs per run, and tiles, of an axis: pairs of outputs that are `dilation` apart."""
    if OUTPUTS[taps] == 1:
        return outputs, outputs
    whole = (outputs - 1) // (2 * dilation)
    return dilation, whole * dilation + min(dilation, outputs - whole * 2 * dilation)


def _share(count: int, most: int) -> int:
    """`count` in as few equal parts of at most `most` as possible: the size of one."""
    return -(-count // -(-count // most))
