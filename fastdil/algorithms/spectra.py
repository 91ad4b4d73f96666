"""The weights of `fft`: spectra in the order in which its kernel mixes channels, and what its guard weighs with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastdil.addresses import address_of
from fastdil.algorithms.overlap_save import Cut
from fastdil.cache import BoundedCache
from fastdil.hardware import machine
from fastdil.kernels import spectra as kernels
from fastdil.kernels.driver import default_threads, launcher
from fastdil.kernels.transforms import Schedule, frequencies, transform_kernel
from fastdil.problem import Problem
from fastdil.workspace import lay_out

#: Spectra of one set of weights that are kept, one per transform size.
_MOST_SPECTRA = 4
#: Points of all tasks up to which one thread does them. Two saved 0.05 of 0.27 ms at 20,000 points (Zen 4), and where
#: other programs use the cores they wait for each other.
_SERIAL_POINTS = 1 << 15


class Packed(NamedTuple):
    """Weights as the kernel reads them, for one cut."""

    spectra: np.ndarray  #: by group, pair of frequencies, tile, depth, row, channel, output
    absolute: np.ndarray  #: magnitudes relative to `largest`, of each group's output with the largest sum
    squares: np.ndarray  #: sums of squares over the width, relative to `largest` squared
    largest: float  #: the largest magnitude
    total: float  #: the largest sum of magnitudes of an output


class Transform:
    """How weights are transformed for one cut. Tables are built when first used: a plan may never need them."""

    def __init__(self, cut: Cut):
        self.cut = cut

    def __call__(self, w: np.ndarray) -> np.ndarray:
        """Conjugate spectra of contiguous weights (group, output, channel, depth, row, tap), as `Packed` has them."""
        numbers = self.cut.problem.groups * self.cut.group_numbers
        # Not every row of a tile reads every line that the tile reads: such weights stay zero.
        packed = np.zeros(numbers, w.dtype) if self.cut.tile_rows > 1 else np.empty(numbers, w.dtype)
        self.launch(0, address_of(w), 0, address_of(packed))
        return packed

    @cached_property
    def launch(self) -> Callable[[int, int, int, int], None]:
        """Runs the kernel on addresses: ``launch(0, weights, 0, spectra)``."""
        cut, problem, (depths, heights, taps) = self.cut, self.cut.problem, self.cut.problem.kernel
        tiles, width = cut.outputs // cut.tile_outputs, cut.tile_outputs
        lines = problem.groups * tiles * depths * heights * cut.channels
        vector_bytes = _vector_bytes(lines, width)
        batch, point = kernels.batch_lines(vector_bytes, width), 2 * vector_bytes
        schedule = Schedule(cut.length, np.dtype(np.float64), point, machine().l1)
        places = np.argsort(frequencies(cut.length))[: cut.pairs] * point
        params = np.zeros(kernels.FIELDS, np.int64)
        for field, value in (
            (kernels.LENGTH, cut.length),
            (kernels.FREQUENCIES, cut.pairs),
            (kernels.STEPS, address_of(schedule.table)),
            (kernels.PLACES, address_of(places)),
            (kernels.FORWARD, transform_kernel("f64", vector_bytes, inverse=False).address),
            (kernels.LINES, lines),
            (kernels.TILES, tiles),
            (kernels.DEPTHS, depths),
            (kernels.HEIGHTS, heights),
            (kernels.CHANNELS, cut.channels),
            (kernels.TAPS, taps),
            (kernels.OUTPUTS, problem.group_out * problem.unit),
            (kernels.TILE_ROWS, cut.tile_rows),
            (kernels.NUMBERS, cut.group_numbers // (2 * cut.pairs)),
        ):
            params[field] = value
        scratch_bytes = lay_out(params, ((None, cut.length * point), (kernels.TARGETS, batch * 8)))
        tasks = -(-lines // batch)
        threads = default_threads() if tasks * cut.length > _SERIAL_POINTS else 1
        kernel = kernels.spectra_kernel(cut.kind, vector_bytes, width)
        launch = launcher(kernel.address, params, tasks, scratch_bytes, threads)
        # The kernel reads them by address; two threads may both come here, each with tables of its own.
        launch.tables = schedule, places  # type: ignore[attr-defined]
        return launch


def _vector_bytes(lines: int, width: int) -> int:
    """The shortest vectors that take all lines at once, or else the longest: lanes without a line cost time too."""
    longest = machine().vector_bytes
    return next((size for size in (16, 32) if size < longest and lines <= kernels.batch_lines(size, width)), longest)


class Spectra:
    """Weights, and what the kernel needs of them for the cuts asked for so far.

    They are read when a cut is first asked for, so `w` must stay as it is.
    """

    def __init__(self, problem: Problem, w: np.ndarray):
        self.w = w.reshape(problem.out_channels, problem.group_in, *problem.kernel)
        shape = (problem.groups, problem.group_out * problem.unit, problem.group_in * problem.unit, *problem.kernel)
        self._real = _real_weights(problem, w).reshape(shape)
        self._kept: BoundedCache = BoundedCache(_MOST_SPECTRA)

    def at(self, transform: Transform) -> Packed:
        """The weights for the cut of a transform."""
        cut = transform.cut
        key = (cut.taps, cut.length, cut.tile_rows, cut.tile_outputs)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._packed(transform)
            self._kept.put(key, kept)
        return kept

    def _packed(self, transform: Transform) -> Packed:
        depths, heights, widths = (slice(first, end) for first, end in transform.cut.taps)
        w = np.ascontiguousarray(self._real[..., depths, heights, widths])
        magnitudes = np.abs(w)
        largest = float(magnitudes.max(initial=0))
        magnitudes /= largest or 1.0
        totals = magnitudes.reshape(*w.shape[:2], -1).sum(axis=2)
        loudest = magnitudes[np.arange(len(w)), totals.argmax(axis=1)]
        absolute = np.ascontiguousarray(loudest.transpose(0, 2, 3, 1, 4))
        # In double precision, or the squares of weights that loud samples meet could vanish.
        squares = np.einsum("gocdhw,gocdhw->godhc", magnitudes, magnitudes, dtype=np.float64)
        squares = np.ascontiguousarray(squares, w.dtype)
        return Packed(transform(w), absolute, squares, largest, float(totals.max(initial=0)) * largest)


def _real_weights(problem: Problem, w: np.ndarray) -> np.ndarray:
    """Complex channels as pairs of real ones: outputs (re, im) are ``[[re, -im], [im, re]]`` times inputs (re, im)."""
    if problem.unit == 1:
        return w
    shaped = w.reshape(problem.out_channels, problem.group_in, problem.taps)
    pairs = np.stack([np.stack([shaped.real, -shaped.imag], 2), np.stack([shaped.imag, shaped.real], 2)], 1)
    return np.ascontiguousarray(pairs)
