"""Arguments that the transform and the denoising share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdil.arguments import as_int, one_of
from fastdil.errors import bad_type, bad_value
from fastdil.plans import as_array

#: Named scaling functions: the cubic and the linear B-spline, and the mean of two samples.
_SCALINGS = {
    "b3": (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16),
    "linear": (1 / 4, 2 / 4, 1 / 4),
    "haar": (1 / 2, 1 / 2),
}


def as_floating(name: str, value: Any) -> np.ndarray:
    """`value` as an array of float32, float64, complex64 or complex128."""
    array = as_array(name, value)
    dtype = np.result_type(array.dtype, np.float32).newbyteorder("=")
    if dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise bad_type(name, f"array of dtype {array.dtype}", "at most double precision")
    return array.astype(dtype, copy=False)


def as_planes(coefficients: Any) -> np.ndarray:
    """Coefficients of at least one plane, in one of the same dtypes."""
    planes = as_floating("coefficients", coefficients)
    if planes.ndim < 2 or len(planes) == 0:
        raise bad_value("coefficients.shape", planes.shape, "(levels + 1, *shape) with at least one plane")
    return planes


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
    given = tuple(axes) if np.iterable(axes) else (axes,)
    chosen = sorted({axis % ndim for axis in (as_int("axes", axis) for axis in given) if -ndim <= axis < ndim})
    if len(chosen) != len(given) or not chosen:
        raise bad_value("axes", axes, f"different integers from {-ndim} to {ndim - 1}")
    return tuple(chosen)
