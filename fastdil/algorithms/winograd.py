"""winograd: minimal filtering on the dilation phases, for layers with many channels and two to five taps an axis."""

from __future__ import annotations

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import activation_address, crop_bytes, pack_weights, real_strides
from fastdil.algorithms.winograd_layout import LEAST_TERMS, MOST_TERMS, Layout, arranged
from fastdil.cache import BoundedCache
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine, machine
from fastdil.kernels import winograd
from fastdil.kernels import winograd_tasks as tasks
from fastdil.kernels.driver import default_threads, execute, launcher
from fastdil.kernels.geometry import ACTIVATE, STRIDES
from fastdil.kernels.tiles import tile_shape
from fastdil.kernels.winograd_guard import MOST_LOAD
from fastdil.kernels.winograd_tiles import TAPS
from fastdil.problem import Problem

#: Transforms of one set of weights that are kept: sizes of the input differ in them.
_MOST_SPECTRA = 2


class _Spectra:
    """Finite weights, packed, and transformed as the inputs seen so far need them."""

    def __init__(self, plain: np.ndarray):
        self.plain = plain  #: ``[group][block][tap][channel][row]``; a tile's load is compared with these
        self._kept: BoundedCache = BoundedCache(_MOST_SPECTRA)

    def at(self, layout: Layout) -> np.ndarray:
        """``[group][frequency][part][block][tap][channel][row]``, for the forms and the axes of a layout."""
        key = (layout.forms, layout.problem.kernel)
        transformed = self._kept.get(key)
        if transformed is None:
            transformed = _transform(layout, self.plain)
            self._kept.put(key, transformed)
        return transformed


class Winograd:
    """F(7 - r, r), or F(3, 3), along height and width (`fastdil.kernels.winograd`); taps of the depth are summed."""

    name = "winograd"
    needs_tame_input = True

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        if problem.dtype.kind != "f":
            return f"it computes float32 and float64, not {problem.dtype.name}"
        if any(stride > 1 for stride in problem.stride):
            return "its tiles are neighbouring outputs of a phase, and a stride above 1 skips them"
        problem = arranged(problem)
        if not all(taps in TAPS.values() for taps in problem.kernel[1:]) or problem.kernel[1:] == (1, 1):
            taps = " x ".join(map(str, problem.kernel[1:]))
            return f"it needs 2 to {max(TAPS.values())} taps along height and width, or along one of them; not {taps}"
        least = LEAST_TERMS[1 not in problem.kernel[1:]]
        if problem.terms < least:
            return f"it would err too much with fewer than {least} products per output, not {problem.terms}"
        if problem.kernel[0] > MOST_TERMS:
            return f"it sums at most {MOST_TERMS} taps along the axis it does not transform, not {problem.kernel[0]}"
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
        packed = pack_weights(problem, w, rows, taps_first=True)
        return packed._replace(data=_Spectra(packed.data))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        if arranged(problem) is not problem:
            problem, x_strides = arranged(problem), (*x_strides[:2], x_strides[3], x_strides[2], x_strides[4])
        layout = Layout(problem, threads)
        params = layout.params.copy()
        params[STRIDES] = real_strides(problem, x_strides)
        params[ACTIVATE] = activation_address(problem)
        kernel = winograd.winograd_kernel(layout.kind, layout.vector_bytes, *layout.forms)
        launch = launcher(kernel.address, params, layout.tasks, layout.scratch_bytes, threads)
        skip = crop_bytes(problem, x_strides)
        shape, most = (problem.batch, problem.in_channels, *problem.size), MOST_LOAD[1 not in problem.kernel[1:]]
        floor, ceiling = _load_limits(problem.dtype)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            if not weights.finite:
                raise UntameInputError("method='winograd': expected finite weights; a transform spreads Inf and NaN")
            report = np.empty((problem.batch, layout.tasks // problem.batch, tasks.REPORT_FIELDS))
            spectra: _Spectra = weights.data
            parts = (spectra.at(layout), spectra.plain, report)
            places = np.array([address_of(part) for part in parts], np.int64)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(places), at_bias, address_of(out))
            loads, seen = report[..., 0], report[..., 1]
            if floor < loads.min() and loads.max() <= ceiling and (loads <= most * seen).all():  # not if one is NaN
                return
            samples = np.lib.stride_tricks.as_strided(x, shape, x_strides, writeable=False)
            _refuse_untame(report, most, samples, spectra.plain)

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


def _transform(layout: Layout, plain: np.ndarray) -> np.ndarray:
    """Packed weights transformed for a layout."""
    problem, groups, blocks = layout.problem, layout.problem.groups, layout.group_blocks
    packed = np.empty(groups * layout.frequencies * blocks * layout.terms * layout.rows, plain.dtype)
    params = np.array([groups, blocks, problem.kernel[0], problem.group_in, layout.part], np.int64)
    kernel = winograd.weight_kernel(layout.kind, layout.vector_bytes, *layout.forms)
    threads = default_threads() if packed.nbytes > machine().l2 else 1
    execute(kernel.address, params, (0, address_of(plain), 0, address_of(packed)), groups * blocks, 0, threads)
    return packed
