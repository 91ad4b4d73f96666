"""winograd: minimal filtering on the dilation phases, for layers with many channels and two to five taps an axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.channels_first import bind_to_rows
from fastdil.algorithms.compiled import bound_parameters, crop_bytes
from fastdil.algorithms.winograd_layout import LEAST_TERMS, MOST_TERMS, Layout, arranged, has_partners
from fastdil.cache import BoundedCache
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine, machine
from fastdil.kernels import winograd_tasks as tasks
from fastdil.kernels.driver import default_threads, execute, launcher
from fastdil.kernels.winograd import winograd_kernel
from fastdil.kernels.winograd_guard import MOST_COHERENCE, MOST_ERROR, MOST_LOAD, SURE_LOAD
from fastdil.kernels.winograd_transforms import TAPS
from fastdil.kernels.winograd_weights import weight_kernel
from fastdil.problem import Problem

#: Transforms of one set of weights that are kept: sizes of the input differ in them.
_MOST_SPECTRA = 2
#: Channels whose middle weights tell which output is the loudest: to look at all would take as long as to pack them.
_SEEN_CHANNELS = 32


class _Weights:
    """Weights as given, those of the guard's probes, and both transformed as the inputs seen so far need them."""

    def __init__(self, problem: Problem, w: np.ndarray):
        self.plain, self.plain_probes = w, _probes(problem, w)
        self._spectra: BoundedCache = BoundedCache(_MOST_SPECTRA)

    def places(self, layout: Layout, transform: int, report: np.ndarray, loudest: np.ndarray) -> np.ndarray:
        """What the kernel's `w` points to; `transform` is the address of the kernel that makes spectra."""
        places = np.zeros(6, np.int64)
        places[tasks.W_TRANSFORM] = transform
        places[tasks.W_PLAIN], places[tasks.W_PLAIN_PROBES] = address_of(self.plain), address_of(self.plain_probes)
        places[tasks.W_REPORT], places[tasks.W_LOUDEST] = address_of(report), address_of(loudest)
        if not layout.lazy_blocks:
            key = (layout.forms, layout.problem.kernel)
            spectra = self._spectra.get(key)
            if spectra is None:
                spectra = _transform(layout, places)
                self._spectra.put(key, spectra)
            places[tasks.W_SPECTRA] = address_of(spectra)
        return places


def _probes(problem: Problem, w: np.ndarray) -> np.ndarray:
    """For each group, weights of the loudest and of other outputs, with signs of their channels drawn at random."""
    w = w.reshape(problem.groups, problem.group_out, problem.group_in, -1)
    loudness = np.abs(w[:, :, :: -(-problem.group_in // _SEEN_CHANNELS), w.shape[-1] // 2]).max(axis=2)
    chosen = loudness.argsort(axis=1)[:, -1 - np.arange(tasks.PROBES) * problem.group_out // tasks.PROBES]
    return w[np.arange(problem.groups)[:, None], chosen] * _signs(problem.group_in, w.dtype)


@lru_cache(maxsize=64)  # functional calls draw them each time
def _signs(channels: int, dtype: np.dtype) -> np.ndarray:
    """Random signs for the channels of each probe, always the same."""
    return np.random.default_rng(0).choice(np.array([-1, 1], dtype), (1, tasks.PROBES, channels, 1))


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
            if problem.kernel[axis] > 1 and not has_partners(problem, axis):
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
            costmodel.preparation(self.name, 0 if layout.lazy_blocks else problem.weights),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        return Weights(_Weights(problem, w))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        def bind(part: Problem, strides: tuple[int, ...], reserved: int) -> Call:
            return self._bind_rows(part, strides, threads, reserved)

        return bind_to_rows(problem, x_strides, threads, bind)

    def _bind_rows(self, problem: Problem, x_strides: tuple[int, ...], threads: int, reserved: int) -> Call:
        """`bind`, with `reserved` bytes of the workspace taken."""
        if arranged(problem) is not problem:
            problem, x_strides = arranged(problem), (*x_strides[:2], x_strides[3], x_strides[2], x_strides[4])
        layout = Layout(problem, threads, reserved)
        params = bound_parameters(problem, layout.params, x_strides)
        kernel = winograd_kernel(layout.kind, layout.vector_bytes, *layout.forms)
        transform = weight_kernel(layout.kind, layout.vector_bytes, *layout.forms)
        launch = launcher(kernel.address, params, layout.tasks, layout.scratch_bytes, threads)
        skip = crop_bytes(problem, x_strides)
        report_shape = problem.batch, layout.tasks // problem.batch, tasks.REPORT_ROWS, tasks.REPORT_FIELDS
        shape, is_plane = (problem.batch, problem.in_channels, *problem.size), 1 not in problem.kernel[1:]

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            report, loudest = np.zeros(report_shape), np.zeros((problem.batch, tasks.REPORT_ROWS))
            places = weights.data.places(layout, transform.address, report, loudest)
            at_bias = 0 if bias is None else address_of(bias)
            launch(address_of(x) + skip, address_of(places), at_bias, address_of(out))
            outputs, signed = _loudest(report)
            is_tame = _is_tame(outputs, signed, is_plane, problem.dtype)
            if not is_tame.all():
                samples = np.lib.stride_tricks.as_strided(x, shape, x_strides, writeable=False)
                _refuse_untame(outputs, signed, is_tame, samples, weights.data.plain)

        return call


def _loudest(report: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each sample's tasks the outputs and the probes with the largest loads: ``(load, conv(|x|, |w|), error)``.

    They are the same however tasks are cut. NaN counts as largest.
    """
    outputs, probes = report[..., 0, :], report[..., 1, :]
    samples = np.arange(len(report))
    return outputs[samples, outputs[..., 0].argmax(axis=1)].T, probes[samples, probes[..., 0].argmax(axis=1)].T


def _is_tame(outputs: np.ndarray, probes: np.ndarray, is_plane: bool, dtype: np.dtype) -> np.ndarray:
    """For each sample of the batch, whether its errors are within the bound, nothing overflowed or was lost.

    `outputs` and `probes` are what `_loudest` returns.
    """
    (loads, seen, errors), (probe_loads, probe_seen, _) = outputs, probes
    floor, ceiling, eps = _limits(dtype)
    most = MOST_LOAD[is_plane]
    # If all channels add up, so may their errors: those of a few outputs do not tell those of all.
    is_mixed = loads <= MOST_COHERENCE * probe_loads
    is_likely = is_mixed & (loads <= most * seen) & (errors <= MOST_ERROR[is_plane] * eps * seen)
    is_small = (loads <= SURE_LOAD * seen) | is_likely
    return is_small & (probe_loads <= most * probe_seen) & (floor < loads) & (loads <= ceiling)


def _refuse_untame(
    outputs: np.ndarray, probes: np.ndarray, is_tame: np.ndarray, samples: np.ndarray, weights: np.ndarray
) -> None:
    """Raise `UntameInputError` unless samples that are not tame are zeros, of which nothing can be lost."""
    floor, ceiling, _ = _limits(samples.dtype)
    is_quiet = outputs[0] <= floor
    if not (outputs[0] <= ceiling).all():
        raise UntameInputError(
            "method='winograd': expected finite input and weights, small enough not to overflow: a transform spreads "
            "Inf and NaN"
        )
    if is_quiet.any() and weights.any() and samples[is_quiet].any():
        raise UntameInputError("method='winograd': expected input and weights large enough not to underflow")
    is_wild = ~is_tame & ~is_quiet
    if is_wild.any():
        sample = is_wild.argmax()
        (load, seen, _), (probe_load, probe_seen, _) = outputs[:, sample], probes[:, sample]
        if probe_load * seen > load * probe_seen:
            load, seen = probe_load, probe_seen
        raise UntameInputError(
            f"method='winograd': expected terms that cancel less: a tile adds up magnitudes of {load:.3g}, "
            f"where conv(|x|, |w|) is {seen:.3g}"
        )


@lru_cache(maxsize=4)  # each call asks
def _limits(dtype: np.dtype) -> tuple[float, float, float]:
    """Loads above which products keep their digits, and up to which nothing has overflowed; eps."""
    limits = np.finfo(dtype)
    return 1e8 * float(limits.tiny), float(limits.max), float(limits.eps)


def _transform(layout: Layout, places: np.ndarray) -> np.ndarray:
    """The spectra of all weights and probes: ``[group][part][block][frequency][tap of the depth][channel][row]``."""
    problem = layout.problem
    parts = -(-problem.group_in // layout.part)
    spectra = np.empty(problem.groups * parts * (layout.group_blocks + 1) * layout.spectrum_bytes, np.uint8)
    scratch_bytes = tasks.packing_bytes(layout.params, layout.kind, layout.vector_bytes)
    threads = default_threads() if spectra.nbytes > machine().l2 else 1
    pointers = 0, address_of(places), 0, address_of(spectra)
    address, count = int(places[tasks.W_TRANSFORM]), len(spectra) // layout.spectrum_bytes
    execute(address, layout.params, pointers, count, scratch_bytes, threads)
    return spectra
