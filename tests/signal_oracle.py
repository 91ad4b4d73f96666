"""What the tests of signals share: data, taps with zeros between them, and the truth by the plain oracle of `naive`."""

from __future__ import annotations

import naive
import numpy as np

MODES = ("full", "same", "valid", "causal")
BOUNDARIES = ("zeros", "reflect", "replicate", "circular", "symmetric")


def small(shape, dtype="float64", seed=0) -> np.ndarray:
    """Small integers, so that every order of summation gives the same bits (float16 aside: sums below 2048)."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    x = rng.integers(0 if dtype.kind in "bu" else -3, 2 if dtype.kind == "b" else 4, shape)
    if dtype.kind == "c":
        return (x + 1j * rng.integers(-3, 4, shape)).astype(dtype)
    return x.astype(dtype)


def full_range(shape, dtype, seed=0) -> np.ndarray:
    """Integers of all sizes: products wrap."""
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)


def stuffed(taps: np.ndarray, dilation) -> np.ndarray:
    """Taps with the zeros that fastdil never makes."""
    steps = naive.per_axis(dilation, taps.ndim)
    dense = np.zeros([(k - 1) * d + 1 for k, d in zip(taps.shape, steps, strict=True)], taps.dtype)
    dense[tuple(slice(None, None, d) for d in steps)] = taps
    return dense


def paddings(taps_shape, dilation, mode):
    """Samples wanted before and after each axis, from the text of the contract."""
    pairs = []
    for k, d in zip(taps_shape, naive.per_axis(dilation, len(taps_shape)), strict=True):
        reach = (k - 1) * d
        first = reach // 2  # SciPy's "same": number reach // 2 of the full result comes first
        pairs.append(
            {"full": (reach, reach), "same": (reach - first, first), "valid": (0, 0), "causal": (reach, 0)}[mode]
        )
    return pairs


def truth(name, x, taps, dilation=1, mode="full", axes=None, boundary="zeros", conv=naive.conv):
    """The result by `naive.conv` (in more digits than the library's), the batch moved to the front and back."""
    axes = tuple(range(x.ndim - taps.ndim, x.ndim)) if axes is None else tuple(a % x.ndim for a in np.atleast_1d(axes))
    last = tuple(range(x.ndim - len(axes), x.ndim))
    moved = np.moveaxis(x, axes, last)
    batch = moved.shape[: x.ndim - len(axes)]
    w = np.flip(taps) if name == "convolve" else taps.conj()
    pairs = paddings(taps.shape, dilation, mode)
    flat = moved.reshape(int(np.prod(batch)), 1, *moved.shape[len(batch) :])
    y = conv(flat, w[None, None], padding=tuple(pairs), dilation=dilation, padding_mode=boundary)
    if np.ndim(y) == 0:  # a magnitude
        return y
    return np.moveaxis(y.reshape(*batch, *y.shape[2:]), last, axes)


def limit(name, x, taps, *args, **kwargs) -> float:
    """The contract's largest error: ``8 eps max A``."""
    dtype = naive.result_dtype(x, taps)
    return 8 * float(np.finfo(dtype).eps) * truth(name, x, taps, *args, conv=naive.magnitude, **kwargs)


def assert_exact(call, expected, *args, **words) -> None:
    """Sums of small integers: `direct` gives them exactly, and `auto` too, unless it takes a transform for floats.

    That errs by far less than one, and a wrong sample by one at least.
    """
    np.testing.assert_array_equal(call(*args, method="direct", **words), expected)
    y = call(*args, **words)
    if y.dtype.kind in "fc":
        np.testing.assert_allclose(y, expected, rtol=0, atol=0.02 if y.real.dtype == np.float32 else 1e-9)
    else:
        np.testing.assert_array_equal(y, expected)
