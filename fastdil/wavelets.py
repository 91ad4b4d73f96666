"""The a trous ("with holes") wavelet transform: forward, inverse, noise levels, thresholding.

Level j smooths with the same few taps, 2**j samples apart, and keeps what the smoothing took away. Nothing is
decimated: every plane has the size of the data, and their sum is the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdil.dispatch import parse_threads
from fastdil.errors import bad_type, bad_value
from fastdil.padding import MODES
from fastdil.plans import as_array
from fastdil.problem import as_int, one_of
from fastdil.workspace import borrowed

#: Named scaling functions: the cubic and the linear B-spline, and the mean of two samples.
_SCALINGS = {
    "b3": (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16),
    "linear": (1 / 4, 2 / 4, 1 / 4),
    "haar": (1 / 2, 1 / 2),
}
#: The median absolute deviation of normal noise of standard deviation 1, the 0.75 quantile.
_NORMAL_MAD = 0.6744897501960817


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
    data = _as_floating("x", x)
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
    planes = _as_planes(coefficients)
    workers = parse_threads(threads)
    out = np.empty(planes.shape[1:], planes.dtype)
    if out.size:
        from fastdil.kernels.atrous import sum_planes

        flat = np.ascontiguousarray(planes).reshape(len(planes), -1)
        sum_planes(_real(flat).reshape(len(planes), -1), out, workers)
    return out


# ---------------------------------------------------------------------------------------------------------
# denoising
# ---------------------------------------------------------------------------------------------------------


def atrous_noise(coefficients: Any, *, scaling: Any = "b3", axes: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Standard deviation of the noise in each detail plane, estimated from the finest one.

    White noise of standard deviation 1 in the data leaves the finest plane with a known standard deviation, and so
    the others; that of the data follows from the median absolute deviation of the finest plane, which signal hardly
    changes as long as it is sparse there.

    Parameters
    ----------
    coefficients : array_like
        What `atrous_transform` returned, real, with at least one detail plane. Values that are not finite are left out.
    scaling, axes
        As given to `atrous_transform`; axes count those of the data.

    Returns
    -------
    ndarray of float64
        ``(levels,)``, one standard deviation per detail plane.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the finest plane has no finite value.

    Notes
    -----
    The factors are exact for the taps, not tabulated or simulated. They hold for samples whose taps all lie inside the
    data; beyond the edges samples repeat and the noise differs a little.

    References
    ----------
    J.-L. Starck and F. Murtagh, "Automatic noise estimation from the multiresolution support", PASP 110 (1998).

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> noise = np.random.default_rng(0).normal(scale=2.0, size=(256, 256))
    >>> fastdil.atrous_noise(fastdil.atrous_transform(noise, 3)).round(2)
    array([1.78, 0.4 , 0.17])
    """
    planes = _as_planes(coefficients)
    if planes.dtype.kind == "c":
        raise bad_type("coefficients", f"array of dtype {planes.dtype}", "real coefficients")
    gains = _noise_gains(planes, scaling, axes)
    if not len(gains):
        raise bad_value("coefficients.shape", planes.shape, "at least one detail plane and the smoothest one")
    finest = planes[0][np.isfinite(planes[0])]
    if not finest.size:
        raise bad_value("coefficients.shape", planes.shape, "finite values in the finest plane")
    deviation = np.median(np.abs(finest - np.median(finest)))
    if gains[0] == 0:
        raise bad_value("scaling", scaling, "taps that leave details")
    return gains * (float(deviation) / _NORMAL_MAD / gains[0])


def atrous_threshold(
    coefficients: Any,
    k: float = 3.0,
    mode: str = "hard",
    *,
    sigma: Any = None,
    scaling: Any = "b3",
    axes: int | tuple[int, ...] | None = None,
) -> np.ndarray:
    """Set details below `k` standard deviations of the noise to zero.

    Parameters
    ----------
    coefficients : array_like
        What `atrous_transform` returned. The smoothest plane, the last, is kept.
    k : float
        Multiples of the noise, >= 0; 3 to 5 are usual.
    mode : {"hard", "soft"}
        ``"hard"`` keeps the others as they are, ``"soft"`` moves them towards zero by the threshold. Complex
        coefficients are judged by their magnitude.
    sigma : float or array_like, optional
        A number: the standard deviation of white noise in the data. An array ``(levels,)``: the one in each detail
        plane. None estimates it, see `atrous_noise`.
    scaling, axes
        As given to `atrous_transform`; they are needed unless `sigma` is given per plane.

    Returns
    -------
    ndarray
        New coefficients. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit: the text names it, its value and what was expected.

    References
    ----------
    J.-L. Starck and F. Murtagh, Astronomical Image and Data Analysis, 2nd edition, Springer 2006, section 2.4.
    D. L. Donoho, "De-noising by soft-thresholding", IEEE Transactions on Information Theory 41 (1995).

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> coefficients = np.array([[0.5, -4.0, 6.0], [1.0, 2.0, 3.0]])
    >>> fastdil.atrous_threshold(coefficients, k=5, sigma=[1.0])
    array([[0., 0., 6.],
           [1., 2., 3.]])
    >>> fastdil.atrous_threshold(coefficients, k=3, mode="soft", sigma=[1.0])
    array([[ 0., -1.,  3.],
           [ 1.,  2.,  3.]])
    """
    planes = _as_planes(coefficients)
    mode = one_of("mode", mode, ("hard", "soft"))
    limits = _not_negative("k", k) * _plane_sigmas(planes, sigma, scaling, axes)
    result = planes.copy()
    for plane, limit in zip(result[:-1], limits.tolist(), strict=True):
        size = np.abs(plane)
        if mode == "hard":
            plane[size < limit] = 0
        elif plane.dtype.kind == "c":
            size[size == 0] = 1  # nothing is left of it anyway
            plane *= np.maximum(1 - limit / size, 0)
        else:
            np.copysign(np.maximum(size - limit, 0), plane, out=plane)
    return result


def _plane_sigmas(planes: np.ndarray, sigma: Any, scaling: Any, axes: Any) -> np.ndarray:
    if len(planes) == 1 or planes.size == 0:
        return np.zeros(len(planes) - 1)
    if sigma is None:
        return atrous_noise(planes, scaling=scaling, axes=axes)
    values = as_array("sigma", sigma)
    if values.ndim == 0:
        return _not_negative("sigma", sigma) * _noise_gains(planes, scaling, axes)
    if values.shape != (len(planes) - 1,):
        raise bad_value("sigma.shape", values.shape, f"({len(planes) - 1},), one number per detail plane, or a number")
    return np.array([_not_negative("sigma", value) for value in values])


def _noise_gains(planes: np.ndarray, scaling: Any, axes: Any) -> np.ndarray:
    taps = parse_scaling(scaling)
    return noise_gains(taps, len(planes) - 1, len(parse_axes(axes, planes.ndim - 1)))


def noise_gains(taps: np.ndarray, levels: int, axes: int) -> np.ndarray:
    """Standard deviation that white noise of deviation 1 leaves in each detail plane of a transform along `axes` axes.

    Let f_j be the filter that j levels of smoothing amount to along one axis, and r_j its autocorrelation. The detail's
    filter is the difference of two products of such filters, so its energy is ``(f_j . f_j)^n - 2 (f_j . f_{j+1})^n +
    (f_{j+1} . f_{j+1})^n`` for n axes. All three are found from r_j at multiples of 2**j, which is as short as
    the taps: ``s_{j+1}[k] = sum over l of R[l] s_j[2 k + l]``, where R is the autocorrelation of the taps.

    >>> noise_gains(np.array([1, 4, 6, 4, 1]) / 16, 4, 2).round(3)
    array([0.891, 0.201, 0.086, 0.041])
    """
    count = len(taps)
    correlation = np.correlate(taps, taps, "full")  # lags 1 - count to count - 1
    steps = np.arange(2 * count - 1) - (count - 1)
    sampled = (steps == 0).astype(float)  # s_0: f_0 is one sample
    gains = []
    for _ in range(levels):
        padded = np.pad(sampled, 2 * count)  # zero beyond its support
        following = np.array([correlation @ padded[2 * k + steps + 3 * count - 1] for k in steps])
        now, after = sampled[count - 1], following[count - 1]
        cross = taps @ sampled[np.arange(count) - count // 2 + count - 1]
        gains.append(math.sqrt(max(now**axes - 2 * cross**axes + after**axes, 0.0)))
        sampled = following
    return np.array(gains)


# ---------------------------------------------------------------------------------------------------------
# arguments
# ---------------------------------------------------------------------------------------------------------


def _as_floating(name: str, value: Any) -> np.ndarray:
    """`value` as an array of float32, float64, complex64 or complex128."""
    array = as_array(name, value)
    dtype = np.result_type(array.dtype, np.float32).newbyteorder("=")
    if dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise bad_type(name, f"array of dtype {array.dtype}", "at most double precision")
    return array.astype(dtype, copy=False)


def _as_planes(coefficients: Any) -> np.ndarray:
    planes = _as_floating("coefficients", coefficients)
    if planes.ndim < 2 or len(planes) == 0:
        raise bad_value("coefficients.shape", planes.shape, "(levels + 1, *shape) with at least one plane")
    return planes


def _real(array: np.ndarray) -> np.ndarray:
    """A C-contiguous array as real numbers: complex samples are pairs along one more axis."""
    return array.view(array.real.dtype).reshape(*array.shape, 2) if array.dtype.kind == "c" else array


def parse_scaling(scaling: Any, dtype: Any = np.float64) -> np.ndarray:
    """The taps in `dtype`."""
    if isinstance(scaling, str):
        return np.array(_SCALINGS[one_of("scaling", scaling, tuple(_SCALINGS))], dtype)
    taps = as_array("scaling", scaling)
    expected = "'b3', 'linear', 'haar', or a sequence of at least one finite real number"
    if taps.dtype.kind == "c":
        raise bad_type("scaling", scaling, expected)
    with np.errstate(over="ignore"):
        used = taps.astype(dtype)
    if taps.ndim != 1 or not len(taps) or not np.all(np.isfinite(used)):
        raise bad_value("scaling", scaling, expected + f" in {used.dtype}")
    return used


def parse_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Ascending, counted from the front."""
    if axes is None:
        return tuple(range(ndim))
    given = axes if isinstance(axes, tuple | list) else (axes,)
    chosen = sorted({axis % ndim for axis in (as_int("axes", axis) for axis in given) if -ndim <= axis < ndim})
    if len(chosen) != len(given) or not chosen:
        raise bad_value("axes", axes, f"different integers from {-ndim} to {ndim - 1}")
    return tuple(chosen)


def _not_negative(name: str, value: Any) -> float:
    number = as_array(name, value)
    if number.ndim or number.dtype.kind == "c":
        raise bad_type(name, value, "a number >= 0")
    if not number >= 0:
        raise bad_value(name, value, "a number >= 0")
    return float(number)
