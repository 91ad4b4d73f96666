"""A guard against data on which a transform errs more than the definition allows: `fastdil.kernels.tile_loudness`."""

from __future__ import annotations

import math

import numpy as np

from fastdil.addresses import address_of
from fastdil.algorithms.compiled import crop_bytes, element_kind, real_strides
from fastdil.errors import UntameInputError
from fastdil.hardware import machine
from fastdil.kernels import tile_loudness as kernels
from fastdil.kernels.driver import launcher
from fastdil.kernels.geometry import STRIDES, fill, lanes_of
from fastdil.problem import Problem

#: Largest loudness of a pixel, in units of the largest ``conv(|x|, |w|)`` that is known.
_LOUDEST = 2.0
#: Tasks of one plane at least, so that several threads share it.
_STRIPES = 4


class Guard:
    """Refuses data that a tile hears louder than its taps see it.

    A tile errs relative to all that it reads; the contract's bound counts ``conv(|x|, |w|)``, which a loud sample
    raises only where the taps weigh it. So in every sample of the batch the loudness of its loudest pixel is compared
    with the sums at the outputs that read this pixel.
    """

    def __init__(self, problem: Problem, x_strides: tuple[int, ...], threads: int):
        self.problem, self.x_strides, self.threads = problem, x_strides, threads
        self.unseen = not all(_seen(problem, axis).all() for axis in range(3))
        self.skip = crop_bytes(problem, x_strides)
        kind, vector_bytes = element_kind(problem), machine().vector_bytes
        params = fill(problem, kernels.FIELDS)
        params[STRIDES] = strides = real_strides(problem, x_strides)
        sizes = tuple(window.size for window in problem.windows)
        is_whole = strides[4] == 1 and strides[3] == sizes[2] and strides[2] == sizes[1] * sizes[2]
        lines, line = (1, math.prod(sizes)) if is_whole else (math.prod(sizes[:2]), sizes[2])
        stripe = max(min(-(-line // _STRIPES) if lines == 1 else line, kernels.MOST_PIXELS), 1)
        stripes = lines * -(-line // stripe)
        rows = min(problem.group_out, kernels.MOST_ROWS)
        params[kernels.LINE :] = line, stripe, stripes, rows
        self.planes = problem.batch * problem.groups
        self.tasks = self.planes * stripes
        scratch = 2 * (stripe + lanes_of(kind, vector_bytes)) * problem.dtype.itemsize
        loud, magnitude = kernels.loudness_kernel(kind, vector_bytes), kernels.magnitude_kernel(kind)
        self._find = launcher(loud.address, params, self.tasks, scratch, threads)
        self._see = launcher(magnitude.address, params, self.planes, 0, threads)

    def check(self, x: np.ndarray, scales: np.ndarray, norms: np.ndarray, rows: np.ndarray) -> None:
        """Raise `UntameInputError` unless the input is finite, far from over- and underflow, and seen by the taps.

        `scales` are the largest Euclidean norms of a kernel per group, `norms` those of all input channels in units of
        it, and `rows` the absolute weights of the outputs at which to look.
        """
        refusal = self._refusal(x, scales, norms, rows)
        if refusal is not None and self.unseen:
            # The loudest pixel may be one that no tap meets.
            samples = self._samples(x)
            seen = [_seen(self.problem, axis) for axis in range(3)]
            inside = seen[0][:, None, None] & seen[1][:, None] & seen[2]
            cleared = np.zeros_like(samples, order="C")
            cropped = tuple(slice(w.crop, w.crop + w.size) for w in self.problem.windows)
            cleared[:, :, *cropped] = np.where(inside, samples[:, :, *cropped], 0)
            guard = Guard(self.problem, cleared.strides, self.threads)
            refusal = guard._refusal(cleared, scales, norms, rows)
        if refusal is not None:
            raise UntameInputError(f"method='winograd': expected {refusal}")

    def _samples(self, x: np.ndarray) -> np.ndarray:
        shape = (self.problem.batch, self.problem.in_channels, *self.problem.size)
        return np.lib.stride_tricks.as_strided(x, shape, self.x_strides, writeable=False)

    def _refusal(self, x: np.ndarray, scales: np.ndarray, norms: np.ndarray, rows: np.ndarray) -> str | None:
        """None, or what was expected of the input."""
        if self.tasks == 0:
            return None
        found, seen = np.empty((self.tasks, 2)), np.empty((self.planes, 2))
        seen.reshape(-1, self.problem.groups, 2)[..., 0] = scales / _LOUDEST
        self._find(address_of(x) + self.skip, address_of(norms), 0, address_of(found))
        self._see(address_of(x) + self.skip, address_of(rows), address_of(found), address_of(seen))
        loudest = seen[:, 0].reshape(-1, self.problem.groups)
        loudness = (loudest * scales).max(axis=1)
        magnitudes = seen[:, 1].reshape(-1, self.problem.groups).max(axis=1)
        limits = np.finfo(self.problem.dtype)
        if not loudness.max() < float(limits.max) / (64 * self.problem.group_in * self.problem.kernel[0]):
            return "finite input, small enough not to overflow: a transform spreads Inf and NaN"
        # Products keep their digits only above this; an input of zeros is no input that is too small.
        is_small = (loudest.max(axis=1) < 1e8 * float(limits.tiny)) | (loudness < 1e8 * float(limits.tiny))
        if is_small.any() and scales.any() and self._samples(x)[is_small].any():
            return "input and weights large enough not to underflow"
        worst = np.argmax(loudness - _LOUDEST * magnitudes)
        if loudness[worst] > _LOUDEST * magnitudes[worst]:
            return (
                f"input whose loud samples the taps weigh: a tile would err relative to {loudness[worst]:.3g}, where "
                f"conv(|x|, |w|) is {magnitudes[worst]:.3g}"
            )
        return None


def _seen(problem: Problem, axis: int) -> np.ndarray:
    """Which samples of a cropped axis some tap of some output falls on; all, where padding repeats samples."""
    window = problem.windows[axis]
    seen = np.zeros(window.size, bool)
    if problem.padding_mode != "zeros":
        return ~seen
    for tap in range(problem.kernel[axis]):
        first = tap * problem.dilation[axis] - window.lo
        seen[max(first, 0) : max(first + problem.out_size[axis], 0)] = True
    return seen
