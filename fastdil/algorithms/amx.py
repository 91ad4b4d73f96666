"""amx: matrix products on the CPU's tile unit, of numbers split into one, two or three parts of bfloat16."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.amx_layout import layout_of, reduction_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import block_tail, crop_bytes
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine, amx_refusal, machine
from fastdil.kernels import amx, amx_tasks, amx_weights, tile_unit
from fastdil.kernels.driver import default_threads, execute, launcher
from fastdil.problem import Problem
from fastdil.workspace import ALIGNMENT

#: Packed weights from which two threads are quicker than one.
_FEW_BYTES = 1 << 18
#: Fewer channels per group fill less than half of a step.
_FEWEST_CHANNELS = 16

#: Magnitudes of numbers, and of products, whose parts and partial sums stay far from overflow and from the denormal
#: numbers, which the unit takes for zeros. A third part may be 2**24 times smaller than its number.
_LARGEST, _LARGEST_SUM = 2.0**100, 2.0**126
_SMALLEST, _SMALLEST_PRODUCT = 2.0**-100, 2.0**-96


class _Packed(NamedTuple):
    """Weights as the kernel reads them, and their extent."""

    numbers: np.ndarray
    smallest: float  #: magnitude, of those that are not zero; infinite if all are
    largest: float


class Amx:
    """Products of bfloat16 parts on the tile unit (`fastdil.kernels.amx`)."""

    name = "amx"
    needs_tame_input = True

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        if problem.dtype != np.float32:
            return f"it computes float32, not {problem.dtype.name}"
        if problem.group_in < _FEWEST_CHANNELS:
            return f"it needs {_FEWEST_CHANNELS} input channels per group, to fill its tiles; not {problem.group_in}"
        if not machine.amx:
            return "it needs a CPU with AMX tiles for bfloat16, and FASTDIL_ISA and Numba's settings to permit them"
        return amx_refusal() if machine.amx == "native" else None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        layout = layout_of(problem, threads)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = layout_of(problem, threads)
        workers = min(threads, layout.tasks)
        return Estimate(
            costmodel.predict(self.name, layout.features(workers)),
            layout.scratch_bytes * workers,
            layout.reduction.error_bound,
            costmodel.preparation(self.name, problem.weights * layout.parts),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        packed = _pack(problem, w)
        return Weights(packed, math.isfinite(packed.largest))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        if not finite:
            return _refuse_weights
        layout = layout_of(problem, threads)
        params, skip = layout.bound(x_strides), crop_bytes(problem, x_strides)
        kernel = amx.amx_kernel(machine().amx)
        launch = launcher(kernel.address, params, layout.tasks, layout.scratch_bytes, threads)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            packed: _Packed = weights.data
            _refuse_untame("weights", packed.smallest, packed.largest)
            report = np.empty((layout.tasks, amx.REPORT_BYTES // 4), np.uint32)
            pointers = np.array([address_of(packed.numbers), address_of(report)], np.int64)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(pointers), at_bias, address_of(out))
            smallest, largest = _extent(report)
            _refuse_untame("input", smallest, largest)
            if smallest * packed.smallest < _SMALLEST_PRODUCT:
                raise UntameInputError("method='amx': expected input and weights large enough not to underflow")
            if not largest * packed.largest * problem.terms < _LARGEST_SUM:
                raise UntameInputError("method='amx': expected input and weights small enough not to overflow")

        return call


def _refuse_weights(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
    raise UntameInputError("method='amx': expected finite weights; a number that is split spreads Inf and NaN")


def _refuse_untame(what: str, smallest: float, largest: float) -> None:
    """Raise `UntameInputError` for numbers whose parts are not what they should be."""
    if not largest < _LARGEST:
        raise UntameInputError(f"method='amx': expected finite {what} below 2**100, not {largest:g}")
    if smallest < _SMALLEST:
        raise UntameInputError(f"method='amx': expected {what} that is 0 or above 2**-100, not {smallest:g}")


def _extent(report: np.ndarray) -> tuple[float, float]:
    """The smallest magnitude but zero, infinite if there is none, and the largest, from what tasks reported."""
    doubled, less = int(report[:, 0].max()), int(report[:, 1].min())
    bits = np.array([(less + 1) // 2, doubled // 2], np.uint32).view(np.float32)
    return float(bits[0]) if doubled else np.inf, float(bits[1])


def _pack(problem: Problem, w: np.ndarray) -> _Packed:
    reduction, blocks = reduction_of(problem), block_tail(problem, tile_unit.BLOCK)
    parts, channel_steps = reduction.parts, reduction.channel_steps
    all_steps = -(-problem.group_in // tile_unit.STEP_TERMS)
    needed = problem.groups * all_steps * blocks * problem.taps * parts * amx_tasks.STEP_BYTES
    room = np.empty(needed + ALIGNMENT, np.uint8)
    start = -address_of(room) % ALIGNMENT
    numbers = room[start : start + needed]
    report = np.empty((problem.groups * blocks, amx.REPORT_BYTES // 4), np.uint32)
    params = np.array([problem.group_out, problem.group_in, problem.taps, blocks, channel_steps, parts], np.int64)
    threads = default_threads() if needed > _FEW_BYTES else 1
    pointers = address_of(report), address_of(w), 0, address_of(numbers)
    execute(amx_weights.weight_packer().address, params, pointers, len(report), amx_weights.PACKER_SCRATCH, threads)
    return _Packed(numbers, *_extent(report))
