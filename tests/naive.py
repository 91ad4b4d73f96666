"""The oracle: convolution in plain NumPy, written for clarity, importing nothing from the package.

It loops over the taps and adds one shifted, strided window of the padded input per tap. Floating-point data
is computed in a wider type than the library's, so that the difference shows the library's error: float64 for
float32, and the platform's long double (64 bits of mantissa on x86) for float64. Integers wrap modulo 2**64
and are then cut to their own type, which is exact modular arithmetic.
"""

from __future__ import annotations

import math

import numpy as np

PAD_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


# ---------------------------------------------------------------------------------------------------------
# dtypes
# ---------------------------------------------------------------------------------------------------------


def result_dtype(*arrays) -> np.dtype:
    """What the contract promises for these inputs: `numpy.result_type`, with bool as uint8."""
    dtype = np.result_type(*(a.dtype for a in arrays if a is not None)).newbyteorder("=")
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """A type with more digits than `dtype` to compute the truth in; 64-bit for integers."""
    return np.dtype(
        {
            "e": np.float64,
            "f": np.float64,
            "d": np.longdouble,
            "F": np.complex128,
            "D": np.clongdouble,
            "g": np.longdouble,
            "G": np.clongdouble,
        }.get(dtype.char, np.uint64 if dtype.kind == "u" else np.int64)
    )


# ---------------------------------------------------------------------------------------------------------
# shapes and padding
# ---------------------------------------------------------------------------------------------------------


def per_axis(value, rank: int) -> tuple[int, ...]:
    """One int for each of `rank` axes."""
    return (value,) * rank if np.ndim(value) == 0 else tuple(value)


def padding_pairs(padding, size, kernel, stride, dilation) -> list[tuple[int, int]]:
    """Any form of padding as one (lo, hi) pair per axis."""
    if not isinstance(padding, str):
        return [(p, p) if np.ndim(p) == 0 else tuple(p) for p in per_axis(padding, len(size))]
    pairs = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        outputs = -(-n // s)
        missing = max((outputs - 1) * s + (k - 1) * d + 1 - n, 0)
        pairs.append(
            {
                "valid": (0, 0),
                "same": (missing // 2, missing - missing // 2),
                "same_lower": (missing - missing // 2, missing // 2),
                "causal": ((k - 1) * d, 0),
                "anticausal": (0, (k - 1) * d),
            }[padding]
        )
    return pairs


def pad(x: np.ndarray, pairs, mode: str = "zeros") -> np.ndarray:
    """`x` with its last ``len(pairs)`` axes cropped where padding is negative, then padded by `numpy.pad`."""
    first = x.ndim - len(pairs)
    for axis, (lo, hi) in enumerate(pairs, start=first):
        n = x.shape[axis]
        start, stop = max(-lo, 0), n - max(-hi, 0)
        if start >= stop:  # nothing is left of the input: the axis is padding from end to end
            shape = (*x.shape[:axis], max(n + lo + hi, 0), *x.shape[axis + 1 :])
            x = np.zeros(shape, x.dtype)
            continue
        x = x[(slice(None),) * axis + (slice(start, stop),)]
        widths = [(0, 0)] * x.ndim
        widths[axis] = (max(lo, 0), max(hi, 0))
        x = np.pad(x, widths, mode=PAD_MODES[mode])
    return x


def out_size(size, kernel, stride, dilation, pairs) -> list[int]:
    """Output samples per axis, counted by trying every output in turn."""
    counts = []
    for n, k, s, d, (lo, hi) in zip(size, kernel, stride, dilation, pairs, strict=True):
        count = 0
        while count * s + (k - 1) * d < n + lo + hi:
            count += 1
        counts.append(count)
    return counts


# ---------------------------------------------------------------------------------------------------------
# the convolution
# ---------------------------------------------------------------------------------------------------------


def conv(
    x,
    w,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    padding_mode="zeros",
    activation=None,
):
    """The convolution of the contract; rank from `w`; `x` batched or not.

    Floating-point results come in `wide_dtype`, unrounded; integer results in their own type.
    """
    result = result_dtype(x, w, bias)
    wide = wide_dtype(result)
    rank = w.ndim - 2
    batched = x if x.ndim == rank + 2 else x[None]
    kernel = w.shape[2:]
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    pairs = padding_pairs(padding, batched.shape[2:], kernel, stride, dilation)
    with np.errstate(all="ignore"):
        y = _sum_of_taps(
            pad(batched.astype(wide), pairs, padding_mode),
            w.astype(wide),
            stride,
            dilation,
            groups,
            out_size(batched.shape[2:], kernel, stride, dilation, pairs),
        )
        if bias is not None:
            y = y + bias.astype(wide).reshape(-1, *(1,) * rank)
        if result.kind in "iu":
            y = y.astype(result)
        if activation is not None:
            y = activate(y, activation)
    return y if x.ndim == rank + 2 else y[0]


def _sum_of_taps(x, w, stride, dilation, groups, size) -> np.ndarray:
    n, channels = x.shape[:2]
    outputs = w.shape[0]
    x = x.reshape(n, groups, channels // groups, *x.shape[2:])
    w = w.reshape(groups, outputs // groups, *w.shape[1:])
    y = np.zeros((n, groups, outputs // groups, math.prod(size)), x.dtype)
    # BLAS may skip a zero factor, and 0 * inf is NaN: non-finite data takes the plain product.
    finite = x.dtype.kind in "iu" or (np.isfinite(x).all() and np.isfinite(w).all())
    for tap in np.ndindex(*w.shape[3:]):
        window = x[
            (
                ...,
                *tuple(
                    slice(a * d, a * d + max((m - 1) * s + 1, 0), s)
                    for a, d, s, m in zip(tap, dilation, stride, size, strict=True)
                ),
            )
        ]
        window = window.reshape(*window.shape[:3], math.prod(size))
        weights = w[(slice(None),) * 3 + tap]
        if finite:
            y += weights @ window
        else:
            y += np.einsum("goc,ngcp->ngop", weights, window)
    return y.reshape(n, outputs, *size)


def magnitude(x, w, bias=None, *args, activation=None, **kwargs) -> float:
    """``max A`` with ``A = conv(|x|, |w|)``: the scale that the contract's error bounds refer to.

    The bias is one more term of the sum. `activation` is ignored.
    """
    x, w, bias = (None if a is None else np.abs(a.astype(wide_dtype(a.dtype))) for a in (x, w, bias))
    return float(np.max(conv(x, w, bias, *args, **kwargs), initial=0))


def bound(dtype, x, w, bias=None, *args, **kwargs) -> float:
    """The contract's largest error at precision "highest": ``8 eps max A``."""
    return 8 * float(np.finfo(dtype).eps) * magnitude(x, w, bias, *args, **kwargs)


# ---------------------------------------------------------------------------------------------------------
# activations
# ---------------------------------------------------------------------------------------------------------


def _gelu(value: float) -> float:
    """``x Phi(x)``; the complementary error function keeps the digits of the negative tail."""
    return 0.5 * value * math.erfc(-value / math.sqrt(2))


def activate(y: np.ndarray, name: str) -> np.ndarray:
    """The activation `name`, from its definition; every formula is stable in both tails."""
    with np.errstate(all="ignore"):
        if name == "relu":
            return np.maximum(y, 0)
        if name == "leaky_relu":
            return np.where(y < 0, np.multiply(y, 0.01), y)
        if name == "tanh":
            return np.tanh(y)
        if name == "gelu":
            return np.vectorize(_gelu, otypes=[np.float64])(y.astype(np.float64)).astype(y.dtype)
        small = np.exp(-np.abs(y))
        sigmoid = np.where(y < 0, small, 1) / (1 + small)
        return {"sigmoid": sigmoid, "silu": y * sigmoid}[name]


#: Steepest slope of each activation: how much it may magnify an error of the sum before it.
SLOPES = {"relu": 1.0, "leaky_relu": 1.0, "tanh": 1.0, "sigmoid": 0.25, "silu": 1.0999, "gelu": 1.129}
