"""Signals: N-dimensional correlation and convolution with dilated taps, in SciPy's convention, without channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdil import plans
from fastdil.arguments import one_of
from fastdil.cache import BoundedCache
from fastdil.dispatch import parse_method, parse_threads
from fastdil.dtypes import result_dtypes
from fastdil.padding import MODES, source_indices
from fastdil.problem import ConvSpec
from fastdil.signal_layout import (
    SIGNAL_MODES,
    Axis,
    Layout,
    axes_to_extend,
    contiguous_strides,
    describe,
    lay_out,
    parse_axes,
)

#: Filters of recent calls, so that a repeated call pays neither for validation nor for choosing.
_filters = BoundedCache(256)
#: Types of arguments whose equal values mean the same.
_PLAIN = frozenset((int, str, type(None)))
#: Tap axes that one problem can have; those beyond are summed one tap at a time.
_MOST_TAP_AXES = 3


def correlate(
    x: Any,
    taps: Any,
    dilation: int | tuple[int, ...] = 1,
    mode: str = "full",
    *,
    axes: int | tuple[int, ...] | None = None,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Correlate signals with dilated taps, along any axes; `scipy.signal.correlate` where the dilation is 1.

    In one dimension, with ``reach = (len(taps) - 1) * dilation``, the full result is
    ``y[i] = sum over a of conj(taps[a]) * x[i + a * dilation - reach]``, as if the taps had ``dilation - 1`` zeros
    between them. Those zeros are never made.

    Parameters
    ----------
    x : array_like
        The signals. Any shape, strides and byte order.
    taps : array_like
        The filter: at most as many dimensions as `x`, at least one tap along each.
    dilation : int or tuple of int
        Distance of neighbouring taps in samples, at least 1: one for all axes or one for each axis of `taps`.
    mode : {"full", "same", "valid", "causal"}
        Which outputs, per axis of n samples: "full", all ``n + reach`` that meet a sample; "same", the n in their
        middle, from number ``reach // 2`` on (SciPy's centring); "valid", the ``n - reach`` that need no sample beyond
        the edges; "causal", the first n, whose taps reach the present and past samples only.
    axes : int or tuple of int, optional
        Axes of `x` that the axes of `taps` run along; the last ones unless given. The others are a batch.
    boundary : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        What stands beyond the edges, as in `numpy.pad`; "valid" never looks there.
    method : str
        ``"auto"``, or a name from `fastdil.methods`.
    precision : {None, "highest", "high", "medium"}
        Error allowed: ``8 eps``, ``2**-14`` or ``2**-6`` times the largest sum of ``|taps| |x|``. None is "highest".
    threads : int, optional
        At most this many; None takes what the machine grants this process.
    out : ndarray, optional
        Where to write: shape and dtype of the result, any strides, no memory shared with an input.

    Returns
    -------
    ndarray
        A new C-contiguous array with the axes of `x`, or `out`. Mixed dtypes follow `numpy.result_type`; integers are
        exact and wrap; bool counts as uint8; float16 and `ml_dtypes.bfloat16` are computed in float32 and rounded once.
        An axis without samples stays without.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit (in mode "valid" also taps that span more samples than there are, where SciPy would
        exchange its inputs): the text names it, its value and what was expected. Nothing is written then.

    See Also
    --------
    fastdil.convolve : the same with the taps flipped.
    fastdil.conv : with channels, in the convention of neural networks.

    Notes
    -----
    `x` is read where it lies, whatever its strides and `axes`. It is copied only if its dtype is not that of the
    result; if its batch axes are spaced so unevenly that one problem cannot hold them; and, with few signals on a batch
    axis behind those of the taps, if these are spaced unevenly or `boundary` is "reflect", "replicate" or "symmetric".
    Taps longer than 1 along more than three axes are summed over the others, one tap at a time, on a copy.

    For a forced method, results do not depend on how the batch is split, bit for bit, if its axes come before those of
    the taps and are evenly spaced in memory.

    References
    ----------
    M. Holschneider et al., "A Real-Time Algorithm for Signal Analysis with the Help of the Wavelet Transform", in
    Wavelets, Springer 1989, pp. 286-297: the algorithme a trous, "with holes".

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> fastdil.correlate([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, -1.0], dilation=2, mode="valid")
    array([-2., -2., -2.])
    >>> stereo = np.ones((44100, 2), np.float32)
    >>> fastdil.correlate(stereo, np.ones(16, np.float32), dilation=8, mode="causal", axes=0).shape
    (44100, 2)
    """
    return _apply(False, x, taps, dilation, mode, axes, boundary, method, precision, threads, out)


def convolve(
    x: Any,
    taps: Any,
    dilation: int | tuple[int, ...] = 1,
    mode: str = "full",
    *,
    axes: int | tuple[int, ...] | None = None,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Convolve signals with dilated taps, along any axes; `scipy.signal.convolve` where the dilation is 1.

    In one dimension the full result is ``y[i] = sum over a of taps[a] * x[i - a * dilation]``: `correlate` with the
    taps flipped and not conjugated. ``mode="causal"`` is the FIR filter ``scipy.signal.lfilter(taps, 1, x)``.

    Parameters, result and errors are those of `correlate`.

    Examples
    --------
    >>> import fastdil
    >>> fastdil.convolve([1, 0, 0, 0, 0, 0], [1, 2, 3], dilation=2, mode="causal")
    array([1, 0, 2, 0, 3, 0])
    >>> fastdil.convolve([1, 2, 3, 4], [1, 1, 1], mode="same", boundary="replicate")
    array([ 4,  6,  9, 11])
    """
    return _apply(True, x, taps, dilation, mode, axes, boundary, method, precision, threads, out)


def _apply(flips, x, taps, dilation, mode, axes, boundary, method, precision, threads, out):
    x = given = x if type(x) is np.ndarray else plans.as_array("x", x)
    taps = taps if type(taps) is np.ndarray else plans.as_array("taps", taps)
    if not x.flags.aligned:
        x = np.array(x, order="C")
    settings = (dilation, mode, axes, boundary, method, precision, threads)
    if not _PLAIN.issuperset(map(type, settings)):
        settings = tuple(map(_key, settings))
    key = (flips, x.shape, x.strides, x.dtype, taps.shape, taps.dtype, settings)
    bound = _filters.get(key)
    if bound is None:
        bound = _bind(flips, x, taps, dilation, mode, axes, boundary, method, precision, threads)
        _filters.put(key, bound)
    if out is not None:
        plans.check_out(out, bound.shape, bound.result_dtype, (given, taps))
    return bound(x, taps, out)


def _key(value):
    """A hashable stand-in in which 1, 1.0 and True differ."""
    return value if type(value) in _PLAIN else (repr(value),)


def _bind(flips, x, taps, dilation, mode, axes, boundary, method, precision, threads):
    """Validate the arguments; what is left to do for every input that lies in memory as `x` does."""
    x, taps = plans.as_array("x", x), plans.as_array("taps", taps)
    mode, boundary = one_of("mode", mode, SIGNAL_MODES), one_of("boundary", boundary, tuple(MODES))
    settings = (boundary, parse_method(method), precision, parse_threads(threads))
    ConvSpec.parse((1, 1, 1), precision=precision)
    compute, result = result_dtypes(x.dtype, taps.dtype)
    chosen = parse_axes(axes, taps.ndim, x.shape)
    described = describe(x.shape, taps.shape, chosen, dilation, mode)
    order = tuple(int(axis) for axis in np.argsort(chosen, kind="stable"))
    weights = _Weights(flips, taps, order, compute)
    long = sorted((axis for axis in chosen if described[axis].taps > 1), key=lambda axis: described[axis].taps)
    if len(long) <= _MOST_TAP_AXES:
        return _Filter(described, x.strides, x.dtype, dilation, weights, settings, compute, result)
    summed = sorted(long[:-_MOST_TAP_AXES])
    return _Sum(described, summed, sorted(chosen), dilation, weights, settings, compute, result)


class _Weights:
    """Taps as a problem wants them: axes in the order of the input's, flipped or conjugated, contiguous."""

    def __init__(self, flips: bool, taps: np.ndarray, order: tuple[int, ...], dtype: np.dtype):
        self.dtype, self.conjugates = dtype, not flips and taps.dtype.kind == "c"
        self.order = None if order == tuple(range(taps.ndim)) else order
        self.reversal = (slice(None, None, -1),) * taps.ndim if flips else None

    def __call__(self, taps: np.ndarray) -> np.ndarray:
        if self.order is not None:
            taps = taps.transpose(self.order)
        if self.reversal is not None:
            taps = taps[self.reversal]
        elif self.conjugates:
            taps = taps.conj()
        taps = np.ascontiguousarray(taps, self.dtype)
        return taps if taps.flags.aligned else taps.copy()


class _Filter:
    """Taps along at most three axes, for inputs of one shape and memory layout."""

    def __init__(self, axes: Sequence[Axis], strides, dtype, dilation, weights, settings, compute, result):
        boundary, method, precision, threads = settings
        self.weights, self.dtype, self.result_dtype = weights, compute, result
        self.shape = tuple(axis.outputs for axis in axes)
        self.runner: plans.Runner | None = None
        self.extended: list[tuple[int, np.ndarray]] = []
        self.is_copied = False
        if 0 in self.shape:
            return
        real = compute.itemsize // (2 if compute.kind == "c" else 1)
        is_readable = dtype == compute and dtype.isnative and not any(stride % real for stride in strides)
        layouts = lay_out(axes, strides, boundary, method, dilation) if is_readable else []
        if not layouts:
            self.is_copied = True
            axes = self._extend(axes, boundary)
            contiguous = contiguous_strides([axis.size for axis in axes], compute.itemsize)
            layouts = lay_out(axes, contiguous, boundary, method, dilation)
        self.runner = _runner(layouts, boundary, precision, compute, result, method, threads)
        self.w_shape = (1, 1, *self.runner.problem.kernel)

    def _extend(self, axes: Sequence[Axis], boundary: str) -> list[Axis]:
        extended = list(axes)
        for index in axes_to_extend(axes, boundary):
            axis = axes[index]
            sources = source_indices(np.arange(-axis.lo, axis.size + axis.hi), axis.size, boundary)
            self.extended.append((index, sources))
            extended[index] = Axis(sources.size, axis.taps, axis.dilation)
        return extended

    def __call__(self, x: np.ndarray, taps: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if self.runner is None:
            return np.empty(self.shape, self.result_dtype) if out is None else out
        if self.is_copied:
            for axis, sources in self.extended:
                x = x.take(sources, axis)
            x = np.ascontiguousarray(x, self.dtype)
        w = self.weights(taps).reshape(self.w_shape)
        runner = self.runner
        return plans.apply(runner, x, lambda algorithm: runner.prepared(algorithm, w), None, self.shape, out)


def _runner(
    layouts: list[Layout], boundary: str, precision: str | None, compute: np.dtype, result: np.dtype, method, threads
) -> plans.Runner:
    """A runner for the quickest of the layouts by prediction, or the refusal of a forced method."""
    runners, refusal = [], None
    for layout in layouts:
        spec = ConvSpec.parse(
            (1, 1, *(axis.taps for axis in layout.spatial)),
            dilation=tuple(axis.dilation for axis in layout.spatial),
            padding=tuple((axis.lo, axis.hi) for axis in layout.spatial),
            padding_mode=boundary,
            precision=precision,
        )
        try:
            problem = spec.problem(layout.x_shape, compute)
            runners.append(plans.Runner(problem, result, layout.strides, method, threads, prepared=False))
        except ValueError as error:
            refusal = error
    if not runners:
        assert refusal is not None
        raise refusal
    return min(runners, key=lambda runner: runner.algorithms[0].estimate(runner.problem, runner.threads).seconds)


class _Sum:
    """Taps along more than three axes: the sum over the taps of the shortest of them, rounding errors kept (TwoSum).

    Rare enough that the input is extended in a copy along these axes.
    """

    def __init__(self, axes: Sequence[Axis], summed, tap_axes, dilation, weights, settings, compute, result):
        self.shape, self.result_dtype, self.dtype = tuple(axis.outputs for axis in axes), result, compute
        self.axes, self.summed, self.weights = axes, summed, weights
        self.places = [tap_axes.index(axis) for axis in summed]
        self.boundary = settings[0]
        inner = [Axis(axis.outputs) if index in summed else axis for index, axis in enumerate(axes)]
        self.extended_shape = [
            axis.size + axis.lo + axis.hi if index in summed else axis.size for index, axis in enumerate(axes)
        ]
        strides = contiguous_strides(self.extended_shape, compute.itemsize)
        self.filter = _Filter(inner, strides, compute, dilation, _as_given, settings, compute, compute)

    def __call__(self, x: np.ndarray, taps: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if math.prod(self.shape) == 0:
            return np.empty(self.shape, self.result_dtype) if out is None else out
        x, taps = self._extended(x), self.weights(taps)
        total = np.zeros(self.shape, self.dtype)
        errors = np.zeros_like(total)
        for tap in np.ndindex(*(self.axes[axis].taps for axis in self.summed)):
            window, chosen = [slice(None)] * x.ndim, [slice(None)] * taps.ndim
            for axis, place, at in zip(self.summed, self.places, tap, strict=True):
                start = at * self.axes[axis].dilation
                window[axis] = slice(start, start + self.shape[axis])
                chosen[place] = slice(at, at + 1)
            _add(total, errors, self.filter(x[tuple(window)], taps[tuple(chosen)], None))
        with np.errstate(all="ignore"):
            # The error of an infinite sum is NaN; that of integers, which wrap, is zero.
            reals, corrections = (a.view(a.real.dtype) for a in (total, errors))
            np.add(reals, corrections, out=reals, where=corrections == corrections)
            if out is None:
                return total.astype(self.result_dtype, copy=False)
            out[...] = total
        return out

    def _extended(self, x: np.ndarray) -> np.ndarray:
        for axis in self.summed:
            described = self.axes[axis]
            sources = source_indices(
                np.arange(-described.lo, described.size + described.hi), described.size, self.boundary
            )
            x = x.take(np.maximum(sources, 0), axis)
            x[(slice(None),) * axis + (sources < 0,)] = 0
        return np.ascontiguousarray(x, self.dtype)


def _as_given(taps: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(taps)


def _add(total: np.ndarray, errors: np.ndarray, part: np.ndarray) -> None:
    """Add `part` to `total` and what that rounds away to `errors` (Knuth's TwoSum; real and imaginary parts alike)."""
    with np.errstate(all="ignore"):
        last = total.copy()
        total += part
        added = total - last
        errors += (last - (total - added)) + (part - added)
