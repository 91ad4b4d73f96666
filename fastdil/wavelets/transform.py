"""The a trous ("with holes") wavelet transform: forward and inverse.

Level j smooths with the same few taps, 2**j samples apart, and keeps what the smoothing took away. Nothing is
decimated: every plane has the size of the data, and their sum is the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdil.arguments import as_int, one_of
from fastdil.dispatch import parse_threads
from fastdil.errors import bad_value
from fastdil.padding import MODES
from fastdil.wavelets.arguments import as_floating, as_planes, parse_axes, parse_scaling
from fastdil.workspace import borrowed


def atrous_transform(
    x: Any,
    levels: int,
    *,
    scaling: Any = "b3",
    boundary: str = "symmetric",
    axes: int | tuple[int, ...] | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """The a trous wavelet transform of `x`; with the default scaling the starlet transform.

    With ``c_0 = x``, level j = 0, 1, ... smooths along each axis in turn,
    ``c_{j+1}[i] = sum over a of h[a] c_j[i + (a - K // 2) 2**j]``, and keeps the detail ``w_j = c_j - c_{j+1}``.

    Parameters
    ----------
    x : array_like
        Data of any number of dimensions, any strides and byte order.
    levels : int
        Number of detail planes, >= 0.
    scaling : str or array_like
        The taps h of the low-pass filter, used along every axis: ``"b3"``, the cubic spline [1, 4, 6, 4, 1] / 16;
        ``"linear"``, [1, 2, 1] / 4; ``"haar"``, [1, 1] / 2; or K finite real numbers, for instance those of your own
        filter. Tap ``K // 2`` is the centre, so an even filter leans to the past: ``"haar"`` averages
        ``c_j[i - 2**j]`` and ``c_j[i]``. They are rounded to the precision of `x`.
    boundary : {"symmetric", "reflect", "replicate", "circular", "zeros"}
        What stands beyond the edges, with `numpy.pad`'s meaning, also where ``2**j`` exceeds the size.
    axes : int or tuple of int, optional
        The axes to smooth; all of them unless given. The others are batch.
    threads : int, optional
        At most this many; None takes what the machine grants this process. The result does not depend on it.

    Returns
    -------
    ndarray
        ``(levels + 1, *x.shape)``: the details, finest first, then what is left, ``c_levels``. The dtype is
        ``numpy.result_type(x, numpy.float32)``: float32 for float16 and small integers, float64 for int32 and wider,
        and complex data stays complex.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit: the text names it, its value and what was expected.

    See Also
    --------
    inverse_atrous_transform : the sum of the planes.
    atrous_threshold : removes what is not significant.

    Notes
    -----
    Each axis is computed as ``g x + sum over a of h[a] (x[a] - x)`` in the order of the taps with fused multiply-adds,
    where x is the sample at the centre and g the sum of the taps. So where the taps sum to 1, flat data
    has details of exactly zero. A NaN reaches the outputs whose taps touch it, as does an infinity; where the infinity
    is at the centre, the result is NaN.

    Axes are taken in ascending order; the last two are smoothed in one pass over memory where rows fit the cache.

    References
    ----------
    M. Holschneider, R. Kronland-Martinet, J. Morlet and P. Tchamitchian, "A real-time algorithm for signal analysis
    with the help of the wavelet transform", in Wavelets, Springer 1989.
    J.-L. Starck and F. Murtagh, Astronomical Image and Data Analysis, 2nd edition, Springer 2006, section 2.3 and
    appendix A.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.zeros(8)
    >>> x[3] = 16
    >>> fastdil.atrous_transform(x, 1)
    array([[ 0., -1., -4., 10., -4., -1.,  0.,  0.],
           [ 0.,  1.,  4.,  6.,  4.,  1.,  0.,  0.]])
    """
    data = as_floating("x", x)
    if data.ndim == 0:
        raise bad_value("x.ndim", 0, "at least one dimension")
    levels = as_int("levels", levels, 0)
    taps = parse_scaling(scaling, data.real.dtype)
    mode = one_of("boundary", boundary, tuple(MODES))
    chosen = parse_axes(axes, data.ndim)
    workers = parse_threads(threads)
    coefficients = np.empty((levels + 1, *data.shape), data.dtype)
    if data.size == 0:
        return coefficients
    if levels == 0:
        coefficients[0] = data
        return coefficients
    _transform(_real(np.ascontiguousarray(data)), _real(coefficients), taps, mode, chosen, workers)
    return coefficients


def _transform(
    x: np.ndarray,
    coefficients: np.ndarray,
    taps: np.ndarray,
    mode: str,
    axes: tuple[int, ...],
    threads: int,
    distances: Sequence[Sequence[int]] | None = None,
) -> None:
    """Fill `coefficients`. Smoothed planes take turns in the last one and in a spare, so that the last stays there.

    `distances` of the taps, per level and axis, are powers of 2 unless given.
    """
    from fastdil.kernels.atrous import smoothing_passes

    levels, weights = len(coefficients) - 1, _weights(taps)
    planes = [plane.ctypes.data for plane in coefficients]
    before = x.ctypes.data
    with borrowed(x.nbytes if levels > 1 else 0) as spare, borrowed(x.nbytes if len(axes) > 1 else 0) as between:
        for level in range(levels):
            if distances is None:
                dilations = tuple(tap_distance(level, x.shape[axis], mode) for axis in axes)
            else:
                dilations = tuple(distances[level])
            passes = smoothing_passes(x.shape, x.dtype, axes, dilations, len(taps), mode, threads)
            smoothed = planes[-1] if (levels - level) % 2 else spare
            source = before
            for left, one in zip(range(len(passes) - 1, -1, -1), passes, strict=True):
                # Unfinished planes take turns in `between` and where the detail will be; the last pass reads `between`.
                target = smoothed if left == 0 else between if left % 2 else planes[level]
                detail = planes[level] if left == 0 else 0
                one.run((source, weights.ctypes.data, before, target), detail, threads)
                source = target
            before = smoothed


def one_level(
    x: np.ndarray, distances: Sequence[int], *, scaling: Any, boundary: str, axes: tuple[int, ...], threads: int
) -> np.ndarray:
    """Detail and smoothed plane, ``(2, *x.shape)``, of one level with the given tap distance along each of `axes`.

    `x` is floating and C-contiguous, and the axes ascend.
    """
    planes = np.empty((2, *x.shape), x.dtype)
    if x.size:
        _transform(_real(x), _real(planes), parse_scaling(scaling, x.real.dtype), boundary, axes, threads, [distances])
    return planes


def _weights(taps: np.ndarray) -> np.ndarray:
    """What the kernel reads: the sum of the taps, then the taps without the one at the centre."""
    return np.insert(np.delete(taps, len(taps) // 2), 0, math.fsum(taps.tolist())).astype(taps.dtype)


def tap_distance(level: int, size: int, mode: str) -> int:
    """``2**level``, or a smaller distance at which the same samples stand beyond the edges."""
    distance = 2**level
    if mode in ("zeros", "replicate"):
        return min(distance, size)  # from there on, every tap but the centre is outside
    period = {"circular": size, "symmetric": 2 * size, "reflect": max(2 * size - 2, 1)}[mode]
    return distance if distance < period else distance % period


def inverse_atrous_transform(coefficients: Any, *, threads: int | None = None) -> np.ndarray:
    """The data of which `coefficients` are the `atrous_transform`: the sum of the planes.

    Parameters
    ----------
    coefficients : array_like
        ``(levels + 1, *shape)``, details first, finest first, then the smoothest plane.
    threads : int, optional
        At most this many; None takes what the machine grants this process. The result does not depend on it.

    Returns
    -------
    ndarray
        Shape ``coefficients.shape[1:]``, dtype ``numpy.result_type(coefficients, numpy.float32)``. Planes are added
        from the smoothest to the finest, each sum rounded once, so unchanged coefficients give the data back but for
        at most one rounding per level in each direction.

    Raises
    ------
    TypeError, ValueError
        If `coefficients` are not numbers, or have no plane.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> coefficients = fastdil.atrous_transform([3.0, 1.0, 4.0, 1.0, 5.0], 2)
    >>> fastdil.inverse_atrous_transform(coefficients)
    array([3., 1., 4., 1., 5.])
    """
    planes = as_planes(coefficients)
    workers = parse_threads(threads)
    out = np.empty(planes.shape[1:], planes.dtype)
    if out.size:
        from fastdil.kernels.atrous import sum_planes

        flat = np.ascontiguousarray(planes).reshape(len(planes), -1)
        sum_planes(_real(flat).reshape(len(planes), -1), out, workers)
    return out


def _real(array: np.ndarray) -> np.ndarray:
    """A C-contiguous array as real numbers: complex samples are pairs along one more axis."""
    return array.view(array.real.dtype).reshape(*array.shape, 2) if array.dtype.kind == "c" else array
