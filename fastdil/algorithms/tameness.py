"""On which data `fft` keeps its error bound; it refuses all others.

Rounding errors of a transform grow with the root of its logarithm (Schatzman 1996) and spread over a whole block: a
loud sample that the taps hardly touch makes an error that is large beside the sums it does not enter. With A the
largest ``conv(|x|, |w|)`` and e the largest ``rms(block) |w|``, |w| the Euclidean norm, n points err by less than
``c / 6 + 0.8 sqrt(log2 n)`` eps A plus ``0.9 log2 n`` eps e, c channels summed in a chain. Measured, not proved: see
`docs/performance.md`.
"""

from __future__ import annotations

import math

import numpy as np

from fastdil import costmodel
from fastdil.algorithms.overlap_save import Cut
from fastdil.algorithms.spectra import Packed
from fastdil.errors import UntameInputError
from fastdil.padding import source_indices
from fastdil.problem import Problem

#: Outputs, and output channels with the largest weights, at which `sampled_magnitude` works out what the taps see.
_SAMPLED, _SAMPLED_CHANNELS = 24, 4
#: Products that this may take per channel, if two outputs need no more: sums of many differ little between outputs.
_SAMPLED_PRODUCTS = 1 << 15


def error_bound(cut: Cut) -> float:
    """In eps, where no sample is much louder than what the taps see; `refuse_untame` counts the rest."""
    return cut.chain_lines / 6 + 0.8 * math.sqrt(math.log2(cut.length))


def allowed_loudness(problem: Problem, cut: Cut) -> float:
    """How many times louder than what the taps see the samples may be."""
    return (costmodel.error_limit(problem.precision, problem.dtype) - error_bound(cut)) / (0.9 * math.log2(cut.length))


def refuse_untame(problem: Problem, cut: Cut, packed: Packed, w: np.ndarray, samples: np.ndarray, report: np.ndarray):
    """Raise `UntameInputError` for samples on which a transform does not do what the definition says.

    `report` has for each sample of the batch what the kernel found: how loud its blocks are, what one output of each
    sequence sees of them, and the largest magnitude. Where that is too little, as for an impulse, more are asked.
    """
    limits, largest = np.finfo(problem.dtype), float(report[:, 2].max())
    if not np.isfinite(report).all():
        raise UntameInputError("method='fft': expected finite input, not too large to be squared")
    if 4 * cut.length * largest * max(packed.total, 1) >= float(limits.max):
        raise UntameInputError(
            f"method='fft': expected input small enough not to overflow a transform, not {largest:g}"
        )
    if 0 < largest * packed.largest < cut.length * float(limits.tiny) or 0 < largest < float(limits.tiny) ** 0.4:
        raise UntameInputError(f"method='fft': expected input large enough not to underflow, not {largest:g}")
    allowed = allowed_loudness(problem, cut)
    for sample, (square, seen, _) in zip(samples, report, strict=True):
        loud = math.sqrt(square)
        if loud > allowed * seen:
            seen = sampled_magnitude(problem, w, sample) / (packed.largest or 1.0)
        if loud > allowed * seen:
            raise UntameInputError(
                f"method='fft': expected input whose loud parts the taps see: blocks are {loud:.2g} loud "
                f"where {allowed * seen:.2g} is allowed"
            )


def sampled_magnitude(problem: Problem, w: np.ndarray, sample: np.ndarray) -> float:
    """The largest ``conv(|x|, |w|)`` of one sample at a few outputs: spread evenly, and where its extremes are met."""
    if sample.size == 0:
        return 0.0
    magnitudes = np.abs(w)
    count = min(max(_SAMPLED_PRODUCTS // problem.terms, 2), _SAMPLED)
    places = [((np.arange(count) + 0.5) * m / count).astype(int) for m in problem.out_size]
    extremes = (part.argmax() for part in (sample.real, -sample.real, sample.imag))
    peaks = np.array([np.unravel_index(at, sample.shape)[1:] for at in extremes])
    reads = []
    for axis in range(3):
        window, d = problem.windows[axis], problem.dilation[axis]
        taps = np.arange(problem.kernel[axis])
        heaviest = int(magnitudes.sum(axis=tuple(i for i in range(5) if i != axis + 2)).argmax())
        chosen = taps[[heaviest, len(taps) // 2, 0, -1], None]
        met = (peaks[:, axis] - window.crop + window.lo - chosen * d).ravel()[:count]
        outputs = np.concatenate([places[axis], np.clip(met, 0, problem.out_size[axis] - 1)])
        positions = outputs[:, None] + taps * d - window.lo
        sources = source_indices(positions, max(window.size, 1), problem.padding_mode)
        reads.append(np.where(sources < 0, -1, sources + window.crop))
    inside = (reads[0] >= 0)[:, :, None, None] & (reads[1] >= 0)[:, None, :, None] & (reads[2] >= 0)[:, None, None, :]
    largest = 0.0
    for output in np.argsort(magnitudes.sum(axis=(1, 2, 3, 4), dtype=np.float64))[-_SAMPLED_CHANNELS:]:
        first = output // problem.group_out * problem.group_in
        channels = sample[first : first + problem.group_in]
        seen = np.abs(channels[:, reads[0][:, :, None, None], reads[1][:, None, :, None], reads[2][:, None, None, :]])
        sums = np.einsum("csabt,cabt,sabt->s", seen, magnitudes[output], inside, dtype=np.float64)
        largest = max(largest, float(sums.max()))
    return largest
