"""fft: overlap-save on the dilation phases, with scipy.fft.

A convolution with dilation d is d independent dense convolutions, each on every d-th sample. So the taps are never
spread with zeros: transforms are d times shorter. Blocks are transformed, mixed over channels by one matrix product per
frequency, and transformed back; each block yields ``L - k + 1`` outputs per phase (overlap-save, Oppenheim and Schafer,
Discrete-Time Signal Processing, section 8.7.3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastdil import costmodel
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import activate, all_finite
from fastdil.cache import BoundedCache
from fastdil.errors import UntameInputError
from fastdil.hardware import Machine
from fastdil.padding import source_indices
from fastdil.problem import Problem, Window
from fastdil.workspace import limit_bytes

#: Spectra of one set of weights that are kept, one per transform size.
_MOST_SPECTRA = 4
#: Real elements of one block's samples, all channels and phases of one pass together; larger ones leave the cache.
_BLOCK_ELEMENTS = 1 << 18
#: Longest transform along one axis, unless the taps ask for more.
_LONGEST = 1 << 13
#: Outputs, and output channels with the largest weights, at which `_Guard` works out what the taps see.
_SAMPLED, _SAMPLED_CHANNELS = 24, 4
#: Products that this may take per channel, if two outputs need no more: sums of many differ little between outputs.
_SAMPLED_PRODUCTS = 1 << 15
#: Channels that one matrix product sums; more are added pairwise.
_CHAIN_CHANNELS = 32


class _Axis(NamedTuple):
    """One axis: `phases` interleaved sequences, `spread` samples apart, transformed `length` samples at a time.

    An axis with a single tap is not transformed: its outputs count as phases of length 1. Where all phases together
    need too much memory they are taken one by one: `phases` is 1, and `offsets` counts them.
    """

    taps: int
    spread: int
    phases: int
    outputs: int  #: per phase
    length: int
    offsets: int = 1

    @property
    def block(self) -> int:
        """Outputs per phase of one block."""
        return self.length - self.taps + 1

    @property
    def blocks(self) -> int:
        """Blocks that cover the axis."""
        return -(-self.outputs // self.block)


class _Spectra:
    """Weights and their transforms at the sizes asked for so far."""

    def __init__(self, w: np.ndarray):
        self.w = w
        self.largest = float(np.abs(w).max(initial=0))
        #: Per output: the sum of absolute weights. Per output and input: the sum of their squares.
        self.totals = np.abs(w).sum(axis=(1, 2, 3, 4), dtype=np.float64)
        self.squares = (np.abs(w).astype(np.float64) ** 2).sum(axis=(2, 3, 4))
        self._kept: BoundedCache = BoundedCache(_MOST_SPECTRA)

    def at(self, lengths: tuple[int, ...], groups: int) -> np.ndarray:
        """Transforms for correlation, as matrices: ``(groups, frequencies, outputs, inputs)``."""
        import scipy.fft

        kept = self._kept.get(lengths)
        if kept is not None:
            return kept
        axes = tuple(range(2, 5))
        if self.w.dtype.kind == "c":
            spectrum = scipy.fft.fftn(self.w.conj(), lengths, axes)
        else:
            spectrum = scipy.fft.rfftn(self.w, lengths, axes)
        spectrum = spectrum.conj().reshape(groups, -1, self.w.shape[1], spectrum[0, 0].size)
        matrices = np.ascontiguousarray(spectrum.transpose(0, 3, 1, 2))
        self._kept.put(lengths, matrices)
        return matrices


class Fft:
    """Overlap-save on the dilation phases."""

    name = "fft"
    needs_tame_input = True

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        if problem.dtype.kind not in "fc":
            return f"transforms round, and {problem.dtype.name} must be exact"
        if any(stride > 1 for stride in problem.stride):
            return "a transform computes every output, and a stride above 1 would throw most of them away"
        if _workspace_bytes(problem, _axes(problem)) > limit_bytes():
            return f"one block of transforms needs more than the {limit_bytes() >> 20} MiB of workspace allowed"
        bound = _error_bound(_axes(problem))
        if bound > costmodel.error_limit(problem.precision, problem.dtype):
            return f"its error bound of {bound:.1f} eps exceeds that of precision {problem.precision!r}"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        axes = _axes(problem)
        blocks = problem.batch * math.prod(axis.blocks * axis.offsets for axis in axes)
        passes = blocks * len(_group_slices(problem, axes))
        real_size = problem.dtype.itemsize / 4
        channels = problem.in_channels + problem.out_channels
        points = blocks * _points(axes) * real_size
        return {
            "call": 1,
            "block": passes,
            "butterfly": channels * points * math.log2(_transform(axes) + 1) / threads,
            "mix": problem.in_channels * problem.group_out * points,
            "point": channels * points,
        }

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        axes = _axes(problem)
        seconds = costmodel.predict(self.name, self.features(problem, threads))
        # One transform per output and input channel of a group.
        spectra = problem.out_channels * problem.group_in * _transform(axes)
        preparation = costmodel.preparation(self.name, spectra)
        return Estimate(seconds, _workspace_bytes(problem, axes), _error_bound(axes), preparation)

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        shaped = np.array(w.reshape(*w.shape[:2], *problem.kernel))
        return Weights(_Spectra(shaped), all_finite(shaped))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        axes = _axes(problem)
        shape = (problem.batch, problem.in_channels, *problem.size)
        out_shape = (problem.batch, problem.out_channels, *problem.out_size)

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            samples = np.lib.stride_tricks.as_strided(x, shape, x_strides, writeable=False)
            _refuse_extremes(samples, weights, _transform(axes))
            spectrum = weights.data.at(tuple(axis.length for axis in axes), problem.groups)
            result = out.reshape(out_shape)
            places = list(itertools.product(*(itertools.product(range(a.blocks), range(a.offsets)) for a in axes)))
            for sample, target in zip(samples, result, strict=True):
                guard = _Guard(problem, axes, weights.data, sample)
                for groups, place in itertools.product(_group_slices(problem, axes), places):
                    block = _gather(problem, axes, sample, groups, place)
                    guard.check(block, groups)
                    sums = _correlate(problem, axes, block, spectrum[groups], threads)
                    _scatter(problem, axes, sums, target, bias, groups, place)

        return call


def _axes(problem: Problem) -> tuple[_Axis, ...]:
    """How each axis is split into phases and blocks."""
    import scipy.fft

    transformed = [taps > 1 for taps in problem.kernel]
    phases = [max(min(d, m), 1) for d, m in zip(problem.dilation, problem.out_size, strict=True)]
    elements = _BLOCK_ELEMENTS / math.prod(itertools.compress(phases, transformed))
    side = elements ** (1 / max(sum(transformed), 1))
    left = max(int(elements), 1)  # for the axes that are not transformed
    axes = []
    for axis in range(3):
        taps, outputs = problem.kernel[axis], problem.out_size[axis]
        if not transformed[axis]:
            together = max(min(outputs, left if not any(transformed) else 1 << 6), 1)
            axes.append(_Axis(1, together, together, -(-outputs // together), 1))
            continue
        per_phase = -(-outputs // phases[axis])
        wanted = min(per_phase + taps - 1, max(min(int(side), _LONGEST), 4 * taps))
        length = scipy.fft.next_fast_len(wanted, real=problem.dtype.kind == "f")
        axes.append(_Axis(taps, problem.dilation[axis], phases[axis], per_phase, length))
    for axis in range(3):
        if transformed[axis] and _workspace_bytes(problem, axes) > limit_bytes():
            axes[axis] = axes[axis]._replace(phases=1, offsets=phases[axis])
    return tuple(axes)


def _points(axes: Sequence[_Axis]) -> int:
    """Samples of one channel in one block, all phases together."""
    return math.prod(axis.length * axis.phases for axis in axes)


def _transform(axes: Sequence[_Axis]) -> int:
    """Points of one transform."""
    return math.prod(axis.length for axis in axes)


def _error_bound(axes: Sequence[_Axis]) -> float:
    """In eps, on input whose blocks are about as loud as what the taps see of them; `_Guard` checks that."""
    return 1.2 * _growth(axes)


def _growth(axes: Sequence[_Axis]) -> float:
    """How the rounding error of a transform grows with its points (Schatzman 1996)."""
    return math.sqrt(math.log2(max(_transform(axes), 2)))


def _groups_at_once(problem: Problem, axes: Sequence[_Axis]) -> int:
    channels = problem.group_in + problem.group_out
    return max(min(problem.groups, 4 * _BLOCK_ELEMENTS // max(channels * _points(axes), 1)), 1)


def _group_slices(problem: Problem, axes: tuple[_Axis, ...]) -> list[slice]:
    step = _groups_at_once(problem, axes)
    return [slice(first, min(first + step, problem.groups)) for first in range(0, problem.groups, step)]


def _workspace_bytes(problem: Problem, axes: Sequence[_Axis]) -> int:
    """Samples, their spectra, the same in the order of the matrix product, sums and results."""
    channels = _groups_at_once(problem, axes) * (problem.group_in + problem.group_out)
    return 4 * channels * _points(axes) * problem.dtype.itemsize


def _start(axis: _Axis, place: tuple[int, int]) -> int:
    """First output of a (block, phase) on one axis."""
    block, offset = place
    return block * axis.block * axis.spread + offset


class _Guard:
    """Refuses data on which a transform would not do what the definition says.

    A transform of n points errs by up to ``1.2 sqrt(log2 n) (rms(block) |w| + A)`` eps, |w| the Euclidean norm
    (measured over 3000 random, constant, sparse and tonal inputs), everywhere in the block. A loud sample that the taps
    hardly touch makes that more than the bound, which counts only ``A = conv(|x|, |w|)``: so A is worked out at some
    outputs.
    """

    def __init__(self, problem: Problem, axes: tuple[_Axis, ...], spectra: _Spectra, sample: np.ndarray):
        self.axes, self.squares = axes, spectra.squares.reshape(problem.groups, problem.group_out, problem.group_in)
        self.eps = float(np.finfo(problem.dtype).eps)
        allowed = costmodel.error_limit(problem.precision, problem.dtype) / (1.2 * _growth(axes))
        self.loudest = (allowed - 1) * _sampled_magnitude(problem, spectra, sample)

    def check(self, block: np.ndarray, groups: slice) -> None:
        """Raise `UntameInputError` if this block is too loud for what its outputs see of it."""
        parts = (block.real, block.imag) if block.dtype.kind == "c" else (block,)
        letters = "gcapbqdr"
        energy = sum(np.einsum(f"{letters},{letters}->gcpqr", part, part, dtype=np.float64) for part in parts)
        energy = energy.reshape(*energy.shape[:2], -1).max(axis=2) / _transform(self.axes)
        error = math.sqrt(float(np.einsum("goc,gc->go", self.squares[groups], energy).max()))
        if not error <= self.loudest:
            raise UntameInputError(
                f"method='fft': expected input whose loud parts the taps see: a transform would err by {error:.2g} eps "
                f"where {self.loudest:.2g} eps are allowed"
            )


def _sampled_magnitude(problem: Problem, spectra: _Spectra, sample: np.ndarray) -> float:
    """The largest ``conv(|x|, |w|)`` of one sample at a few outputs: spread evenly, and where its extremes are met."""
    if sample.size == 0:
        return 0.0
    count = min(max(_SAMPLED_PRODUCTS // problem.terms, 2), _SAMPLED)
    places = [((np.arange(count) + 0.5) * m / count).astype(int) for m in problem.out_size]
    extremes = (part.argmax() for part in (sample.real, -sample.real, sample.imag))
    peaks = np.array([np.unravel_index(at, sample.shape)[1:] for at in extremes])
    reads = []
    for axis in range(3):
        window, d = problem.windows[axis], problem.dilation[axis]
        taps = np.arange(problem.kernel[axis])
        met = (peaks[:, axis] - window.crop + window.lo - taps[[len(taps) // 2, 0, -1], None] * d).ravel()[:count]
        outputs = np.concatenate([places[axis], np.clip(met, 0, problem.out_size[axis] - 1)])
        positions = outputs[:, None] + taps * d - window.lo
        sources = source_indices(positions, max(window.size, 1), problem.padding_mode)
        reads.append(np.where(sources < 0, -1, sources + window.crop))
    inside = (reads[0] >= 0)[:, :, None, None] & (reads[1] >= 0)[:, None, :, None] & (reads[2] >= 0)[:, None, None, :]
    largest = 0.0
    for output in np.argsort(spectra.totals)[-_SAMPLED_CHANNELS:]:
        first = output // problem.group_out * problem.group_in
        channels = sample[first : first + problem.group_in]
        seen = np.abs(channels[:, reads[0][:, :, None, None], reads[1][:, None, :, None], reads[2][:, None, None, :]])
        sums = np.einsum("csabt,cabt,sabt->s", seen, np.abs(spectra.w[output]), inside, dtype=np.float64)
        largest = max(largest, float(sums.max()))
    return largest


def _refuse_extremes(samples: np.ndarray, weights: Weights, points: int) -> None:
    """Raise `UntameInputError` for input that is not finite, or that a transform would over- or underflow."""
    parts = (samples.real, samples.imag) if samples.dtype.kind == "c" else (samples,)
    largest = max(float(max(-part.min(initial=0), part.max(initial=0))) for part in parts)
    limits, spectra = np.finfo(samples.dtype), weights.data
    if not weights.finite or not math.isfinite(largest):
        raise UntameInputError("method='fft': expected finite input and weights; a transform spreads Inf and NaN")
    if 4 * points * largest * max(spectra.totals.max(initial=0), 1) >= float(limits.max):
        raise UntameInputError(
            f"method='fft': expected input small enough not to overflow a transform, not {largest:g}"
        )
    if 0 < largest * spectra.largest < points * float(limits.tiny) or not largest < 1e150:  # squares stay finite
        raise UntameInputError(f"method='fft': expected input large enough not to underflow, not {largest:g}")


def _gather(
    problem: Problem, axes: tuple[_Axis, ...], sample: np.ndarray, groups: slice, place: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Samples of one block as ``(groups, inputs, length, phases, length, phases, length, phases)``."""
    block = sample[groups.start * problem.group_in : groups.stop * problem.group_in]
    for index, axis in enumerate(axes):
        chosen, inside = _places(axis, problem.windows[index], problem.padding_mode, _start(axis, place[index]))
        before, length = (slice(None),) * (index + 1), axis.length * axis.phases
        part = block[(*before, chosen)]
        if part.shape[index + 1] == length:
            block = part
        else:
            block = np.zeros((*part.shape[: index + 1], length, *part.shape[index + 2 :]), part.dtype)
            block[(*before, inside)] = part
    shape = itertools.chain.from_iterable((axis.length, axis.phases) for axis in axes)
    return block.reshape(groups.stop - groups.start, problem.group_in, *shape)


def _places(axis: _Axis, window: Window, mode: str, start: int) -> tuple[slice | np.ndarray, slice | np.ndarray]:
    """Which samples of an axis the block at output `start` reads, and where they stand in it; the rest is zeros."""
    first, count = start - window.lo, axis.length * axis.phases
    if axis.phases in (1, axis.spread):  # one phase, or all of them: equal steps through memory
        step = 1 if axis.phases == axis.spread else axis.spread
        skip = min(max(-(first // step), 0), count)
        stop = max(min(-((first - window.size) // step), count), skip)
        if mode == "zeros" or stop - skip == count:
            at = window.crop + first + skip * step
            return slice(at, at + (stop - skip) * step, step), slice(skip, stop)
    positions = (np.arange(axis.length)[:, None] * axis.spread + np.arange(axis.phases)).ravel() + first
    end = window.size + window.hi
    sources = source_indices(np.minimum(positions, end), window.size, mode)
    inside = np.flatnonzero((sources >= 0) & (positions < end))  # beyond the end, no output reads
    return sources[inside] + window.crop, inside


def _correlate(
    problem: Problem, axes: tuple[_Axis, ...], block: np.ndarray, spectrum: np.ndarray, threads: int
) -> np.ndarray:
    """Transform, mix the channels at each frequency, transform back."""
    import scipy.fft

    real = problem.dtype.kind == "f"
    # The last axis always, because it is the one whose spectrum is halved; of the others those that are longer than 1.
    chosen = [index for index, axis in enumerate(axes) if axis.length > 1 or index == 2]
    over, lengths = [2 + 2 * index for index in chosen], [axes[index].length for index in chosen]
    forward, backward = (scipy.fft.rfftn, scipy.fft.irfftn) if real else (scipy.fft.fftn, scipy.fft.ifftn)
    waves = forward(block, axes=over, workers=threads)
    groups, inputs = waves.shape[:2]
    frequencies = waves.shape[2::2]
    if inputs == problem.group_out == 1:
        waves *= spectrum.reshape(groups, 1, *itertools.chain.from_iterable((f, 1) for f in frequencies))
        return backward(waves, lengths, over, workers=threads, overwrite_x=True)
    matrices = waves.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(groups, math.prod(frequencies), inputs, -1)
    mixed = _mix(spectrum, matrices).reshape(groups, *frequencies, problem.group_out, *waves.shape[3::2])
    mixed = np.ascontiguousarray(mixed.transpose(0, 4, 1, 5, 2, 6, 3, 7))
    return backward(mixed, lengths, over, workers=threads, overwrite_x=True)


def _mix(spectrum: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """``spectrum @ matrices``, channels summed pairwise: BLAS sums hundreds in one chain, which errs too much."""
    inputs = spectrum.shape[-1]
    if inputs <= _CHAIN_CHANNELS:
        return spectrum @ matrices
    half = inputs // 2
    total = _mix(spectrum[..., :half], matrices[..., :half, :])
    total += _mix(spectrum[..., half:], matrices[..., half:, :])
    return total


def _scatter(
    problem: Problem,
    axes: tuple[_Axis, ...],
    sums: np.ndarray,
    result: np.ndarray,
    bias: np.ndarray | None,
    groups: slice,
    place: Sequence[tuple[int, int]],
) -> None:
    """Keep the outputs of a block that are free of wrap-around; add the bias, activate, store."""
    kept = sums[:, :, : axes[0].block, :, : axes[1].block, :, : axes[2].block]
    kept = kept.reshape(-1, *(axis.block * axis.phases for axis in axes))
    channels = slice(groups.start * problem.group_out, groups.stop * problem.group_out)
    if bias is not None:
        kept = kept + bias[channels, None, None, None]
    # All phases together are neighbours; a phase of its own has every other output, `spread` apart.
    along = [
        slice(_start(axis, at), None, axis.spread if axis.offsets > 1 else 1)
        for axis, at in zip(axes, place, strict=True)
    ]
    target = result[channels, *along][:, : kept.shape[1], : kept.shape[2], : kept.shape[3]]
    kept = kept[:, : target.shape[1], : target.shape[2], : target.shape[3]]
    if problem.activation is not None:
        kept = np.array(kept, order="C")
        activate(problem, kept)
    target[...] = kept
