"""fft: overlap-save on the dilation phases, in kernels of our own.

A convolution with dilation d is d independent dense convolutions, each on every d-th sample. So the taps are never
spread with zeros: transforms are d times shorter. Blocks of the width are transformed, mixed over channels and kernel
rows at each frequency, and transformed back; each block yields ``L - k + 1`` outputs per phase (overlap-save, Oppenheim
and Schafer, Discrete-Time Signal Processing, section 8.7.3).
"""

from __future__ import annotations

import math

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import all_finite, crop_bytes, real_strides
from fastdil.algorithms.overlap_save import Cut, Spectra, Tables, best_cut, parameters
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine
from fastdil.kernels import phases
from fastdil.kernels.driver import launcher
from fastdil.kernels.geometry import STRIDES
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
        bound = _error_bound(cut)
        if bound > costmodel.error_limit(problem.precision, problem.dtype):
            return f"its error bound of {bound:.1f} eps exceeds that of precision {problem.precision!r}"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        return _cut(problem).features(threads)

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        cut = _cut(problem)
        seconds = costmodel.predict(self.name, cut.features(threads))
        workers = min(threads, cut.all_tasks, max(limit_bytes() // cut.scratch_bytes, 1))
        preparation = costmodel.preparation(self.name, cut.spectrum_numbers)
        return Estimate(seconds, cut.scratch_bytes * workers, _error_bound(cut), preparation)

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        return Weights(Spectra(problem, w), all_finite(w))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        cut = _cut(problem)
        tables = Tables(cut)
        allowed = costmodel.error_limit(problem.precision, problem.dtype) / _error_bound(cut) - 1
        params, scratch_bytes = parameters(cut, tables, allowed)
        params[STRIDES] = real_strides(problem, x_strides)
        kernel = phases.phase_kernel(cut.kind, cut.vector_bytes, cut.tile_rows * cut.tile_outputs)
        launch = launcher(kernel.address, params, cut.all_tasks, scratch_bytes, threads)
        skip = crop_bytes(problem, x_strides)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            if not weights.finite:
                raise UntameInputError("method='fft': expected finite weights; a transform spreads Inf and NaN")
            spectra: Spectra = weights.data
            report = np.empty((problem.batch, cut.all_tasks // problem.batch, phases.REPORT_FIELDS))
            parts = (spectra.at(cut), spectra.absolute, spectra.squares, report)
            places = np.array([address_of(part) for part in parts], np.int64)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(places), at_bias, address_of(out))
            _refuse_untame(problem, cut, spectra, report.max(axis=1), allowed)

        call.tables = tables  # type: ignore[attr-defined]  # the kernel reads them by address
        return call


def _cut(problem: Problem) -> Cut:
    cut = best_cut(problem)
    if cut is None:
        raise AssertionError("a problem that fft does not support")
    return cut


def _error_bound(cut: Cut) -> float:
    """In eps, on input whose blocks are about as loud as what the taps see of them; each call checks that.

    Rounding errors of a transform grow with the root of its logarithm (Schatzman 1996). A transform of n points errs by up
    to ``1.2 sqrt(log2 n) (rms(block) |w| + A)`` eps, |w| the Euclidean norm and A the largest ``conv(|x|, |w|)``
    (measured over random, constant, sparse and tonal inputs), everywhere in the block. A loud sample that the taps
    hardly touch makes that more than the bound, which counts only A.
    """
    return 1.2 * math.sqrt(math.log2(cut.length))


def _refuse_untame(problem: Problem, cut: Cut, spectra: Spectra, report: np.ndarray, allowed: float) -> None:
    """Raise `UntameInputError` for samples on which a transform does not do what the definition says.

    `report` has for each sample of the batch what `fastdil.kernels.phases.judge` found.
    """
    limits = np.finfo(problem.dtype)
    largest = float(report[:, 2].max())
    if not np.isfinite(report).all() or not math.isfinite(largest):
        raise UntameInputError("method='fft': expected finite input, not too large to be squared")
    if 4 * cut.length * largest * max(spectra.total, 1) >= float(limits.max):
        raise UntameInputError(
            f"method='fft': expected input small enough not to overflow a transform, not {largest:g}"
        )
    if 0 < largest * spectra.largest < cut.length * float(limits.tiny) or 0 < largest < float(limits.tiny) ** 0.4:
        raise UntameInputError(f"method='fft': expected input large enough not to underflow, not {largest:g}")
    for loud, seen, _ in report:
        if not math.sqrt(loud) <= allowed * seen:
            raise UntameInputError(
                f"method='fft': expected input whose loud parts the taps see: blocks are {math.sqrt(loud):.2g} loud "
                f"where {allowed * seen:.2g} is allowed"
            )
