"""fft: overlap-save on the dilation phases, in kernels of our own.

A convolution with dilation d is d independent dense convolutions, each on every d-th sample. So the taps are never
spread with zeros: transforms are d times shorter. Blocks of the width are transformed, mixed over channels and kernel
rows at each frequency, and transformed back; each block yields ``L - k + 1`` outputs per phase (overlap-save, Oppenheim
and Schafer, Discrete-Time Signal Processing, section 8.7.3).
"""

from __future__ import annotations

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.channels_first import bind_to_rows
from fastdil.algorithms.compiled import all_finite, crop_bytes, real_strides
from fastdil.algorithms.overlap_save import Cut, Tables, best_cut, parameters
from fastdil.algorithms.spectra import Spectra, Transform
from fastdil.algorithms.tameness import error_bound, refuse_untame
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine
from fastdil.kernels.driver import launcher
from fastdil.kernels.geometry import STRIDES
from fastdil.kernels.phase_layout import REPORT_FIELDS
from fastdil.kernels.phases import phase_kernel
from fastdil.problem import Problem
from fastdil.workspace import limit_bytes


class Fft:
    """Overlap-save on the dilation phases (`fastdil.kernels.phases`)."""

    name = "fft"
    needs_tame_input = True

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        if problem.dtype.kind not in "fc":
            return f"transforms round, and {problem.dtype.name} must be exact"
        if any(stride > 1 for stride in problem.stride):
            return "a transform computes every output, and a stride above 1 would throw most of them away"
        cut = best_cut(problem)
        if cut is None:
            return f"one block of transforms needs more than the {limit_bytes() >> 20} MiB of workspace allowed"
        bound = error_bound(cut)
        if bound > costmodel.error_limit(problem.precision, problem.dtype):
            return f"its error bound of {bound:.1f} eps exceeds that of precision {problem.precision!r}"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        return _cut(problem).features(threads)

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        cut = _cut(problem)
        seconds = costmodel.predict(self.name, cut.features(threads))
        preparation = costmodel.preparation(self.name, problem.groups * cut.group_numbers)
        return Estimate(seconds, cut.scratch_bytes * _workers(cut, threads), error_bound(cut), preparation)

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        return Weights(Spectra(problem, w), all_finite(w))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        def bind(part: Problem, strides: tuple[int, ...], _reserved: int) -> Call:
            return self._bind_rows(part, strides, threads)

        cut = _cut(problem)
        return bind_to_rows(problem, x_strides, threads, bind, _workers(cut, threads) * cut.scratch_bytes)

    def _bind_rows(self, problem: Problem, x_strides: tuple[int, ...], threads: int) -> Call:
        cut = _cut(problem)
        tables, transform = Tables(cut), Transform(cut)
        params, scratch_bytes = parameters(cut, tables)
        params[STRIDES] = real_strides(problem, x_strides)
        kernel = phase_kernel(cut.kind, cut.vector_bytes)
        launch = launcher(kernel.address, params, cut.all_tasks, scratch_bytes, threads)
        skip, shape = crop_bytes(cut.problem, x_strides), (problem.batch, problem.in_channels, *problem.size)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            if not weights.finite:
                raise UntameInputError("method='fft': expected finite weights; a transform spreads Inf and NaN")
            packed = weights.data.at(transform)
            report = np.empty((problem.batch, cut.all_tasks // problem.batch, REPORT_FIELDS))
            parts = (packed.spectra, packed.absolute, packed.squares, report)
            places = np.array([address_of(part) for part in parts], np.int64)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(places), at_bias, address_of(out))
            samples = np.lib.stride_tricks.as_strided(x, shape, x_strides, writeable=False)
            refuse_untame(problem, cut, packed, weights.data.w, samples, report.max(axis=1))

        call.tables = tables  # type: ignore[attr-defined]  # the kernel reads them by address
        return call


def _workers(cut: Cut, threads: int) -> int:
    return min(threads, cut.all_tasks, max(limit_bytes() // cut.scratch_bytes, 1))


def _cut(problem: Problem) -> Cut:
    cut = best_cut(problem)
    if cut is None:
        raise AssertionError("a problem that fft does not support")
    return cut
