"""Filter banks: many filters on the same series in one call, at many dilations, with fused pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdil.arguments import as_int, one_of
from fastdil.dispatch import parse_threads
from fastdil.dtypes import result_dtypes
from fastdil.errors import bad_type, bad_value
from fastdil.hardware import machine
from fastdil.kernels import bank
from fastdil.kernels.bank import MAX, MEAN, PPV, ROWS, STORE
from fastdil.kernels.driver import execute
from fastdil.kernels.geometry import ELEMENT_KIND
from fastdil.plans import as_array, check_out

_POOLS = {"max": MAX, "mean": MEAN, "ppv": PPV}
_PADDINGS = ("same", "valid")
#: Multiply-accumulates worth a task of their own.
_TASK_MACS = 1 << 20
#: Scratch memory for the pools of one task's filters.
_STATE_BYTES = 1 << 18


def filter_bank(
    x: Any,
    taps: Any,
    dilations: int | Sequence[int] = 1,
    *,
    bias: Any = None,
    padding: Any = "same",
    pool: str | Sequence[str] | None = None,
    thresholds: Any = None,
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Correlate series with a bank of filters, at several dilations, and pool each response without storing it.

    ``response[..., d, f, i] = bias[f] + sum_k taps[f, k] * x[..., i + k * dilations[d] - lo]`` with
    ``lo = (K - 1) * dilations[d] // 2`` for ``"same"`` and 0 for ``"valid"``. This is the inner step of ROCKET [1]_
    and, with thresholds, of MiniRocket [2]_.

    Parameters
    ----------
    x : array_like, shape (..., L)
        Series of at least one sample.
    taps : array_like, shape (F, K)
        Filters, not flipped; K >= 1.
    dilations : int or sequence of D ints, default 1
        Each >= 1. One integer leaves out the axis of dilations.
    bias : array_like, shape (F,), optional
        Added to each response.
    padding : {"same", "valid"} or array_like of these, shape (F,) or (D, F)
        ``"same"`` pads with zeros to a response of L samples, the odd one at the end; ``"valid"`` takes only positions
        where all taps lie inside. Without pooling it is one word for all, and ``"valid"`` needs one dilation.
    pool : {"max", "mean", "ppv"} or a sequence of them, optional
        Features of each response; ``"ppv"`` is the proportion of positions whose response exceeds a threshold. None
        returns the responses.
    thresholds : array_like, shape (F, T) or (D, F, T), optional
        For ``"ppv"``: T >= 1 thresholds for each filter, compared in the dtype of the computation. 0 unless given.
    threads : int, optional
        Threads to use, all that the machine grants unless given. The result does not depend on it.
    out : ndarray, optional
        Receives the result; shares no memory with the inputs.

    Returns
    -------
    ndarray
        Responses, shape ``(..., [D,] F, L)`` (``L - (K - 1) * dilation`` if valid), or features, ``(..., [D,] F, P)``:
        one column for each pool in their order, T for ``"ppv"``. For one word as `pool` and without thresholds the
        last axis is left out.

    Raises
    ------
    TypeError
        For complex input, or an `out` of another dtype.
    ValueError
        For wrong shapes, dilations or names, or a valid filter longer than the series.

    Notes
    -----
    float32 and float16 are computed in float32, everything else in float64, as `numpy.result_type` of `x`, `taps` and
    `bias` decides; float16 is rounded at the end. A response is one chain of fused multiply-adds, K of them,
    that starts from the bias. Means are summed in float64.

    A NaN or Inf reaches exactly the responses whose taps touch it, a padding zero under an infinite tap is NaN. The
    maximum and the mean of a response that holds NaN are NaN; NaN exceeds no threshold, but counts as a position.

    References
    ----------
    .. [1] A. Dempster, F. Petitjean, G. I. Webb, "ROCKET: exceptionally fast and accurate time series classification
       using random convolutional kernels", Data Mining and Knowledge Discovery 34, 2020, section 3.
    .. [2] A. Dempster, D. F. Schmidt, G. I. Webb, "MiniRocket", KDD 2021, section 3.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    >>> fastdil.filter_bank(x, [[-1, 0, 1], [1, 1, 1]])
    array([[ 1.,  2.,  3.,  6., -4.],
           [ 1.,  3.,  7., 14., 12.]])
    >>> fastdil.filter_bank(x, [[-1, 0, 1], [1, 1, 1]], dilations=(1, 2), pool=("max", "ppv")).tolist()
    [[[6.0, 0.8], [14.0, 1.0]], [[8.0, 0.6], [10.0, 1.0]]]
    """
    return _Bank(x, taps, dilations, bias, padding, pool, thresholds).run(parse_threads(threads), out)


class _Bank:
    """The validated arguments of one call."""

    def __init__(self, x, taps, dilations, bias, padding, pool, thresholds):
        self.x, self.taps = _real("x", x), _real("taps", taps)
        if self.x.ndim < 1 or self.x.shape[-1] < 1:
            raise bad_value("x.shape", self.x.shape, "(..., L), L >= 1")
        if self.taps.ndim != 2 or self.taps.shape[1] < 1:
            raise bad_value("taps.shape", self.taps.shape, "(F, K), K >= 1")
        self.filters, self.length_of_filter = self.taps.shape
        self.length = self.x.shape[-1]
        self.has_axis = not isinstance(dilations, int | np.integer)
        self.dilations = _parse_dilations(dilations)
        self.bias = None if bias is None else _real("bias", bias)
        if self.bias is not None and self.bias.shape != (self.filters,):
            raise bad_value("bias.shape", self.bias.shape, f"({self.filters},), one number per filter")
        self.padded = self._parse_padding(padding, pool)
        self.pools = _parse_pools(pool)
        self.is_single = isinstance(pool, str) and thresholds is None
        self.thresholds = self._parse_thresholds(thresholds)
        dtypes = [a.dtype for a in (self.x, self.taps, self.bias) if a is not None]
        self.dtype, self.result_dtype = result_dtypes(*dtypes)
        if self.dtype.kind in "iu":
            self.dtype = self.result_dtype = np.dtype(np.float64)

    def _parse_padding(self, padding: Any, pool: Any) -> np.ndarray:
        """For each dilation and filter whether it is padded."""
        if isinstance(padding, str):
            padding = np.full(self.filters, one_of("padding", padding, _PADDINGS))
        elif pool is None:
            raise bad_value("padding", padding, "one word for all filters where responses are not pooled")
        words = np.asarray(padding)
        if words.dtype.kind != "U" or not np.isin(words, _PADDINGS).all():
            raise bad_value("padding", padding, "'same', 'valid', or an array of these")
        if words.shape not in ((self.filters,), (len(self.dilations), self.filters)):
            raise bad_value(
                "padding.shape", words.shape, f"({self.filters},) or ({len(self.dilations)}, {self.filters})"
            )
        padded = np.atleast_2d(words) == "same"
        if pool is None and not padded.all() and len(self.dilations) != 1:
            raise bad_value("dilations", self.dilations, "one dilation for valid responses: others differ in length")
        for number, dilation in enumerate(self.dilations):
            span = (self.length_of_filter - 1) * dilation + 1
            if span > self.length and not padded[number % len(padded)].all():
                raise bad_value(
                    "dilations", dilation, f"valid filters no longer than the series, {self.length} samples; "
                    f"{self.length_of_filter} taps span {span}"
                )  # fmt: skip
        return padded

    def _parse_thresholds(self, thresholds: Any) -> np.ndarray:
        if thresholds is None:
            return np.zeros((1, self.filters, int("ppv" in self.pools)))
        if "ppv" not in self.pools:
            raise bad_value("thresholds", thresholds, "None, unless pool has 'ppv'")
        array = _real("thresholds", thresholds)
        heads = ((self.filters,), (len(self.dilations), self.filters))
        if array.ndim not in (2, 3) or array.shape[:-1] not in heads or array.shape[-1] < 1:
            expected = f"({self.filters}, T) or ({len(self.dilations)}, {self.filters}, T), T >= 1"
            raise bad_value("thresholds.shape", array.shape, expected)
        return array.reshape(-1, *array.shape[-2:])

    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        head = (*self.x.shape[:-1], *((len(self.dilations),) if self.has_axis else ()), self.filters)
        if not self.pools:
            return (*head, self.response_length())
        return head if self.is_single else (*head, self.columns())

    def response_length(self) -> int:
        """Samples of a response that is not pooled."""
        lost = 0 if self.padded.all() else (self.length_of_filter - 1) * self.dilations[0]
        return self.length - lost

    def columns(self) -> int:
        """Features of one response."""
        return sum(self.thresholds.shape[-1] if name == "ppv" else 1 for name in self.pools)

    def run(self, threads: int, out: np.ndarray | None) -> np.ndarray:
        """Compute into `out` or a new array."""
        shape = self.out_shape()
        if out is not None:
            check_out(out, shape, self.result_dtype, (self.x, self.taps, self.bias, self.thresholds))
        result = np.empty(shape, self.dtype) if out is None or not self._writes_into(out) else out
        if result.size:
            self._compute(result, threads)
        if out is None:
            return result.astype(self.result_dtype, copy=False)
        if result is not out:
            out[...] = result
        return out

    def _writes_into(self, out: np.ndarray) -> bool:
        """True if the kernel can write to `out` itself."""
        return out.dtype == self.dtype and out.dtype.isnative and out.flags.c_contiguous and out.flags.aligned

    def _compute(self, result: np.ndarray, threads: int) -> None:
        x = np.ascontiguousarray(self.x, self.dtype).reshape(-1, self.length)
        rows, pads = self._blocks()
        weights, biases, limits = self._packed(rows)
        offsets, spans = self._offsets()
        kernel_taps, columns, count = self.length_of_filter, self.thresholds.shape[-1], rows.shape[1]
        span = int(spans[:, 1].max())
        segment = min(self.length, max(bank.SEGMENT_POSITIONS, span))  # the part that two windows share stays small
        state = bank.state_bytes(columns)
        macs = ROWS * kernel_taps * self.length
        group = min(max(_TASK_MACS // macs, 1), max(_STATE_BYTES // (ROWS * state), 1), count)
        groups = -(-count // group)
        params = np.zeros(bank.FIELDS, np.int64)
        at, place = {"max": -1, "mean": -1, "ppv": -1}, 0
        for name in self.pools:
            at[name] = place
            place += columns if name == "ppv" else 1
        window = 64 + -(-group * ROWS * state // 64) * 64
        params[:] = (
            self.length, len(self.dilations), self.filters, kernel_taps, count, group, groups, segment, columns,
            self.columns(), at["max"], at["mean"], at["ppv"], 0 if self.pools else self.response_length(),
            weights[0].size if len(rows) > 1 else 0, biases.ctypes.data, limits.ctypes.data,
            limits[0].size if len(limits) > 1 else 0, offsets.ctypes.data, spans.ctypes.data,
            count if len(rows) > 1 else 0, rows.ctypes.data, pads.ctypes.data, window, state,
        )  # fmt: skip
        scratch = window + (segment + span) * self.dtype.itemsize + bank.SLACK
        wanted = sum(_POOLS[name] for name in self.pools) or STORE
        kernel = bank.bank_kernel(ELEMENT_KIND[self.dtype.name], machine().vector_bytes, wanted)
        pointers = (x.ctypes.data, weights.ctypes.data, 0, result.ctypes.data)
        execute(kernel.address, params, pointers, len(x) * len(self.dilations) * groups, scratch, threads)

    def _blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """Filters in blocks that share a kind of padding: their numbers (-1: none), and whether they are padded."""
        lines = []
        for padded in self.padded:
            line = []
            for wanted in (True, False):
                numbers = np.flatnonzero(padded == wanted)
                line += [(numbers[i : i + ROWS], wanted) for i in range(0, len(numbers), ROWS)]
            lines.append(line)
        most = max(map(len, lines))
        rows, pads = np.full((len(lines), most, ROWS), -1, np.int64), np.ones((len(lines), most), np.int64)
        for number, line in enumerate(lines):
            for block, (numbers, wanted) in enumerate(line):
                rows[number, block, : len(numbers)] = numbers
                pads[number, block] = wanted
        return rows, pads

    def _packed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights as ``[line][block][tap][row]``, biases and thresholds in the same order, zeros where no filter is."""
        missing = rows < 0
        weights = np.asarray(self.taps, self.dtype)[rows]
        weights[missing] = 0
        biases = np.zeros(rows.shape, self.dtype)
        if self.bias is not None:
            biases[...] = np.where(missing, 0, np.asarray(self.bias, self.dtype)[rows])
        lines = max(len(rows), len(self.thresholds))
        limits = np.zeros((lines, *rows.shape[1:], self.thresholds.shape[-1]), self.dtype)
        for number in range(lines):
            limits[number] = self.thresholds[number % len(self.thresholds)][rows[number % len(rows)]]
        return np.ascontiguousarray(weights.swapaxes(2, 3)), biases, limits

    def _offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """For each dilation: where the samples of each tap stand in a window; then its least offset, its span, and
        the first and last position of filters that are not padded."""
        taps, spans = np.zeros((len(self.dilations), self.length_of_filter), np.int64), []
        for number, dilation in enumerate(self.dilations):
            reach = (self.length_of_filter - 1) * dilation
            low = reach // 2
            # A tap that stands a whole series away reads zeros, however far beyond it is.
            limited = [min(max(k * dilation - low, -self.length), self.length) for k in range(self.length_of_filter)]
            taps[number] = np.array(limited) - limited[0]
            spans.append(
                (limited[0], limited[-1] - limited[0], min(low, self.length), max(self.length - reach + low, 0))
            )
        return taps, np.array(spans, np.int64)


def _real(name: str, value: Any) -> np.ndarray:
    array = as_array(name, value)
    if array.dtype.kind == "c":
        raise bad_type(f"{name}.dtype", array.dtype.name, "real numbers")
    return array


def _parse_dilations(dilations: Any) -> list[int]:
    if isinstance(dilations, str) or not isinstance(dilations, Sequence | np.ndarray):
        return [as_int("dilations", dilations, 1)]
    if not len(dilations):
        raise bad_value("dilations", dilations, "at least one dilation")
    return [as_int("dilations", dilation, 1) for dilation in dilations]


def _parse_pools(pool: Any) -> tuple[str, ...]:
    if pool is None:
        return ()
    names = (pool,) if isinstance(pool, str) else tuple(pool)
    for name in names:
        one_of("pool", name, tuple(_POOLS))
    if not names or len(set(names)) != len(names):
        raise bad_value("pool", pool, "None, or each of 'max', 'mean' and 'ppv' at most once")
    return names
