"""Noise and thresholds: what of an a trous transform is signal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastdil.arguments import one_of
from fastdil.errors import bad_type, bad_value
from fastdil.plans import as_array
from fastdil.wavelets.arguments import as_planes, parse_axes, parse_scaling

#: The median absolute deviation of normal noise of standard deviation 1, the 0.75 quantile.
_NORMAL_MAD = 0.6744897501960817


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
    planes = as_planes(coefficients)
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
    planes = as_planes(coefficients)
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


def _not_negative(name: str, value: Any) -> float:
    number = as_array(name, value)
    if number.ndim or number.dtype.kind == "c":
        raise bad_type(name, value, "a number >= 0")
    if not number >= 0:
        raise bad_value(name, value, "a number >= 0")
    return float(number)
