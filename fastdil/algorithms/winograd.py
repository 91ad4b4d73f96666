"""winograd: minimal filtering on the dilation phases, for layers with many channels and two to five taps an axis."""

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
from fastdil.algorithms.winograd_layout import LEAST_TERMS, MOST_TERMS, Layout, arranged, part_channels
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine, machine
from fastdil.kernels import winograd
from fastdil.kernels import winograd_tasks as tasks
from fastdil.kernels.driver import default_threads, execute, launcher
from fastdil.kernels.geometry import ACTIVATE, STRIDES
from fastdil.kernels.tiles import tile_shape
from fastdil.kernels.winograd_guard import MOST_LOAD
from fastdil.kernels.winograd_tiles import SAMPLES
from fastdil.problem import Problem


class _Spectra(NamedTuple):
    """Transformed weights, and plain ones, with which the load of a tile is compared."""

    packed: np.ndarray  #: ``[group][frequency][part][block][tap][channel][row]``
    plain: np.ndarray  #: ``[group][block][tap][channel][row]``


class Winograd:
    """F(7 - r, r) along height and width (`fastdil.kernels.winograd`); taps of the depth count as channels."""

    name = "winograd"
    needs_tame_input = True

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        if problem.dtype.kind != "f":
            return f"it computes float32 and float64, not {problem.dtype.name}"
        if any(stride > 1 for stride in problem.stride):
            return "its tiles are neighbouring outputs of a phase, and a stride above 1 skips them"
        problem = arranged(problem)
        if not all(taps in SAMPLES for taps in problem.kernel[1:]) or problem.kernel[1:] == (1, 1):
            taps = " x ".join(map(str, problem.kernel[1:]))
            return f"it needs 2 to {max(SAMPLES)} taps along height and width, or along one of them; not {taps}"
        least = LEAST_TERMS[1 not in problem.kernel[1:]]
        if problem.terms < least:
            return f"it would err too much with fewer than {least} products per output, not {problem.terms}"
        if problem.kernel[0] > MOST_TERMS:
            return (
                f"it takes at most {MOST_TERMS} taps along the axis that it does not transform, not {problem.kernel[0]}"
            )
        for axis in (1, 2):
            outputs, dilation = problem.out_size[axis], problem.dilation[axis]
            if problem.kernel[axis] > 1 and outputs < 2 * dilation:
                return f"it joins outputs {dilation} apart, and most of an axis of {outputs} would have no partner"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        layout = Layout(problem, threads)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = Layout(problem, threads)
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
        problem = arranged(problem)
        return by_tap._replace(data=_transform(problem, by_tap.data, rows) if by_tap.finite else None)

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        if arranged(problem) is not problem:
            problem, x_strides = arranged(problem), (*x_strides[:2], x_strides[3], x_strides[2], x_strides[4])
        layout = Layout(problem, threads)
        params = layout.params.copy()
        params[STRIDES] = real_strides(problem, x_strides)
        params[ACTIVATE] = activation_address(problem)
        kernel = winograd.winograd_kernel(layout.kind, layout.vector_bytes, *problem.kernel[1:])
        launch = launcher(kernel.address, params, layout.tasks, layout.scratch_bytes, threads)
        skip = crop_bytes(problem, x_strides)
        shape, most = (problem.batch, problem.in_channels, *problem.size), MOST_LOAD[1 not in problem.kernel[1:]]
        floor, ceiling = _load_limits(problem.dtype)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            if not weights.finite:
                raise UntameInputError("method='winograd': expected finite weights; a transform spreads Inf and NaN")
            report = np.empty((problem.batch, layout.tasks // problem.batch, tasks.REPORT_FIELDS))
            places = np.array([address_of(part) for part in (*weights.data, report)], np.int64)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(places), at_bias, address_of(out))
            loads, seen = report[..., 0], report[..., 1]
            if floor < loads.min() and loads.max() <= ceiling and (loads <= most * seen).all():  # not if one is NaN
                return
            samples = np.lib.stride_tricks.as_strided(x, shape, x_strides, writeable=False)
            _refuse_untame(report, most, samples, weights.data.plain)

        return call


def _refuse_untame(report: np.ndarray, most: float, samples: np.ndarray, weights: np.ndarray) -> None:
    """Raise `UntameInputError` for samples on which minimal filtering errs too much.

    `report` has for each task of each sample of the batch its largest load, and ``conv(|x|, |w|)`` there; `most` is
    what the one may be in units of the other. The largest of a sample is the same however tasks are cut.
    """
    loads, seen = report[np.arange(len(report)), report[..., 0].argmax(axis=1)].T
    floor, ceiling = _load_limits(samples.dtype)
    if not (loads <= ceiling).all():
        raise UntameInputError(
            "method='winograd': expected finite input, small enough not to overflow: a transform spreads Inf and NaN"
        )
    is_small = loads <= floor  # an input of zeros is no input that is too small
    if is_small.any() and weights.any() and samples[is_small].any():
        raise UntameInputError("method='winograd': expected input and weights large enough not to underflow")
    worst = np.argmax(loads - most * seen)
    if loads[worst] > most * seen[worst]:
        raise UntameInputError(
            f"method='winograd': expected terms that cancel less: a tile adds up magnitudes of {loads[worst]:.3g}, "
            f"where conv(|x|, |w|) is {seen[worst]:.3g}"
        )


def _load_limits(dtype: np.dtype) -> tuple[float, float]:
    """Loads above which products keep their digits, and up to which nothing has overflowed."""
    limits = np.finfo(dtype)
    return 1e8 * float(limits.tiny), float(limits.max)


def _transform(problem: Problem, by_tap: np.ndarray, rows: int) -> _Spectra:
    """Finite weights transformed; `by_tap` are the same ones packed in blocks of `rows` outputs, taps first."""
    kind, groups, blocks = element_kind(problem), problem.groups, block_tail(problem, rows)
    frequencies = math.prod(SAMPLES[taps] for taps in problem.kernel[1:])
    packed = np.empty(groups * frequencies * blocks * problem.kernel[0] * problem.group_in * rows, by_tap.dtype)
    params = np.array([groups, blocks, problem.kernel[0], problem.group_in, part_channels(problem)], np.int64)
    kernel = winograd.weight_kernel(kind, machine().vector_bytes, *problem.kernel[1:])
    threads = default_threads() if packed.nbytes > machine().l2 else 1
    pointers = 0, address_of(by_tap), 0, address_of(packed)
    execute(kernel.address, params, pointers, groups * blocks, 0, threads)
    return _Spectra(packed, by_tap)
