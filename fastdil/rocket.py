"""MiniRocket: features of time series from 84 fixed kernels at many dilations."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from fastdil.arguments import as_int
from fastdil.dispatch import parse_threads
from fastdil.errors import bad_type, bad_value
from fastdil.hardware import machine
from fastdil.kernels import minirocket
from fastdil.kernels.driver import execute
from fastdil.kernels.minirocket import KERNELS, TAPS
from fastdil.plans import as_array

_PLACES = np.array(list(combinations(range(TAPS), 3)))
_GOLDEN = (np.sqrt(5) + 1) / 2
#: Responses that `fit` keeps at a time.
_FIT_BLOCK = 1 << 20


class MiniRocket:
    """Proportions of positive values of 84 kernels at many dilations (Dempster, Schmidt and Webb 2021).

    Each kernel has nine taps, six of -1 and three of 2. Dilations are spread on a logarithmic scale up to the length of
    the series; biases are quantiles of the responses of training series drawn at random. Every second combination of
    kernel and dilation pads the series with zeros, the others use only positions where all taps lie inside. Follow it
    by a linear classifier.

    The class has the interface of a scikit-learn transformer, but does not need scikit-learn.

    Parameters
    ----------
    num_features : int, default 10000
        Rounded down to a multiple of 84 (9996 for the default), at least 84.
    max_dilations_per_kernel : int, default 32
        Most dilations that a kernel is used at.
    random_state : int, numpy.random.RandomState or None, default None
        Chooses the training series that biases are taken from. The same number gives the same features; None draws from
        NumPy's global generator.
    threads : int, optional
        Threads of `transform`, all that the machine grants unless given. Features do not depend on it.

    Attributes
    ----------
    dilations_ : ndarray of int64, shape (D,)
    features_per_dilation_ : ndarray of int64, shape (D,)
        Features that each kernel has at each dilation.
    biases_ : ndarray of float32, shape (num_features_,)
        Ordered by dilation, kernel and feature, as the columns of the result.
    channels_ : list of ndarray
        Channels that each combination of dilation and kernel adds up, in the same order.
    num_features_, n_channels_, length_ : int
        Columns of the result; channels and samples of the series.

    Notes
    -----
    All arithmetic is in float32 and in the order of the reference implementation. A position whose response is NaN
    does not count as positive, but counts as a position. NaN in the training series makes biases NaN, and features of
    NaN biases are 0.

    References
    ----------
    .. [1] A. Dempster, D. F. Schmidt, G. I. Webb, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time
       Series Classification", KDD 2021, https://doi.org/10.1145/3447548.3467231

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.sin(np.outer(np.arange(1, 9), np.arange(100)) / 10)    # eight series of 100 samples
    >>> features = fastdil.MiniRocket(random_state=0).fit_transform(x)
    >>> features.shape, features.dtype
    ((8, 9996), dtype('float32'))
    """

    def __init__(
        self,
        num_features: int = 10_000,
        max_dilations_per_kernel: int = 32,
        random_state: Any = None,
        threads: int | None = None,
    ):
        self.num_features = num_features
        self.max_dilations_per_kernel = max_dilations_per_kernel
        self.random_state = random_state
        self.threads = threads

    def fit(self, X: Any, y: Any = None) -> MiniRocket:
        """Choose dilations and biases.

        Parameters
        ----------
        X : array_like, shape (N, L) or (N, C, L)
            Training series, N >= 1, C >= 1, L >= 9.
        y : ignored

        Returns
        -------
        MiniRocket
            The transformer itself.
        """
        series = _as_series(X)
        count, channels, length = series.shape
        if count == 0:
            raise bad_value("X.shape", np.shape(X), "at least one series to fit")
        wanted = max(as_int("num_features", self.num_features, 1), KERNELS)
        most = as_int("max_dilations_per_kernel", self.max_dilations_per_kernel, 1)
        parse_threads(self.threads)
        seed = _seed(self.random_state)
        dilations, per_dilation = _fit_dilations(length, wanted // KERNELS, most)
        chosen = _choose_channels(np.random.RandomState(seed), channels, len(dilations) * KERNELS)
        # Seeded a second time, as in the reference implementation.
        biases = _fit_biases(np.random.RandomState(seed), series, dilations, per_dilation, chosen)
        self.dilations_, self.features_per_dilation_ = dilations, per_dilation
        self.channels_, self.biases_ = chosen, biases
        self.num_features_, self.n_channels_, self.length_ = len(biases), channels, length
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features of series of the length and number of channels that were fitted.

        Parameters
        ----------
        X : array_like, shape (N, L) or (N, C, L)

        Returns
        -------
        ndarray of float32, shape (N, num_features_)
        """
        if not hasattr(self, "biases_"):
            raise bad_value("MiniRocket", "not fitted", "fit() before transform()")
        series = _as_series(X)
        if series.shape[1:] != (self.n_channels_, self.length_):
            raise bad_value(
                "X.shape", np.shape(X), f"series of {self.n_channels_} channels and {self.length_} samples, as fitted"
            )
        threads = parse_threads(self.threads)
        out = np.empty((len(series), self.num_features_), np.float32)
        if not len(series):
            return out
        lists = [np.ascontiguousarray(chosen, np.int64) for chosen in self.channels_]
        subsets = np.array([(chosen.ctypes.data, len(chosen)) for chosen in lists], np.int64)
        params, scratch = minirocket.fill_params(
            series.shape, self.dilations_, self.features_per_dilation_, subsets.ctypes.data
        )
        kernel = minirocket.minirocket_kernel(machine().vector_bytes)
        biases = np.ascontiguousarray(self.biases_, np.float32)
        pointers = (series.ctypes.data, biases.ctypes.data, 0, out.ctypes.data)
        execute(kernel.address, params, pointers, len(series) * len(self.dilations_), scratch, threads)
        return out

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """``fit(X).transform(X)``."""
        return self.fit(X, y).transform(X)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> MiniRocket:
        """Change arguments of the constructor; returns the transformer itself."""
        for name in params:
            if name not in _PARAMETERS:
                raise bad_value("parameter", name, "one of " + ", ".join(_PARAMETERS))
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"MiniRocket({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "biases_")


_PARAMETERS = ("num_features", "max_dilations_per_kernel", "random_state", "threads")


def _as_series(X: Any) -> np.ndarray:
    """Series as a contiguous float32 array of shape (N, C, L)."""
    array = as_array("X", X)
    if array.dtype.kind == "c":
        raise bad_type("X.dtype", array.dtype.name, "real numbers")
    if array.ndim not in (2, 3):
        raise bad_value("X.shape", array.shape, "(N, L) or (N, C, L)")
    if array.ndim == 2:
        array = array[:, None, :]
    if array.shape[1] < 1:
        raise bad_value("X.shape", np.shape(X), "at least one channel")
    if array.shape[2] < TAPS:
        raise bad_value("X.shape", np.shape(X), f"series of at least {TAPS} samples")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def _seed(random_state: Any) -> int:
    top = np.iinfo(np.int32).max
    if random_state is None:
        return int(np.random.randint(top))  # noqa: NPY002 - the global generator is what None stands for
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(top))
    seed = as_int("random_state", random_state, 0)
    if seed >= 1 << 32:
        raise bad_value("random_state", random_state, "an integer below 2**32")
    return seed


def _fit_dilations(length: int, per_kernel: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Dilations from 1 to (length - 1) / 8, and how many features each kernel has at each (paper, section 3.1.4)."""
    count = min(per_kernel, most)
    exponents = np.logspace(0, np.log2((length - 1) / (TAPS - 1)), count, base=2)
    dilations, times = np.unique(exponents.astype(np.int64), return_counts=True)
    times = (times * (per_kernel / count)).astype(np.int64)
    # What rounding left over goes to the smallest dilations.
    missing = per_kernel - int(times.sum())
    times += missing // len(times)
    times[: missing % len(times)] += 1
    return dilations, times


def _choose_channels(random: np.random.RandomState, channels: int, combinations: int) -> list[np.ndarray]:
    """For each combination of dilation and kernel some channels, at most nine, small numbers of them more often."""
    sizes = (2 ** random.uniform(0, np.log2(min(channels, TAPS) + 1), combinations)).astype(np.int64)
    return [random.choice(channels, size, replace=False) for size in sizes]


def _fit_biases(
    random: np.random.RandomState,
    series: np.ndarray,
    dilations: np.ndarray,
    per_dilation: np.ndarray,
    chosen: list[np.ndarray],
) -> np.ndarray:
    """Quantiles of the responses of one random series for each combination, at multiples of the golden ratio."""
    total = KERNELS * int(per_dilation.sum())
    quantiles = ((np.arange(1, total + 1) * _GOLDEN) % 1).astype(np.float32).astype(np.float64)
    examples = random.randint(len(series), size=(len(dilations), KERNELS))
    biases = np.empty(total, np.float32)
    block = max(_FIT_BLOCK // series.shape[2], 1)
    first = 0
    for number, (dilation, features) in enumerate(zip(dilations.tolist(), per_dilation.tolist(), strict=True)):
        for kernel in range(0, KERNELS, block):
            kernels = range(kernel, min(kernel + block, KERNELS))
            last = first + len(kernels) * features
            responses = _responses(
                series, examples[number, kernels.start : kernels.stop], dilation, kernels,
                chosen[number * KERNELS + kernels.start : number * KERNELS + kernels.stop],
            )  # fmt: skip
            wanted = quantiles[first:last].reshape(len(kernels), features)
            biases[first:last] = _row_quantiles(responses, wanted).ravel()
            first = last
    return biases


def _responses(
    series: np.ndarray, examples: np.ndarray, dilation: int, kernels: range, chosen: list[np.ndarray]
) -> np.ndarray:
    """Zero-padded responses of some kernels, each to its own series and channels: shape (kernels, L)."""
    rows = [(row, channel) for row, list_ in enumerate(chosen) for channel in list_]
    row_of, channel_of = np.array(rows).T
    length, reach = series.shape[2], TAPS // 2 * dilation
    padded = np.zeros((len(rows), length + 2 * reach), np.float32)
    x = padded[:, reach : reach + length]
    x[...] = series[examples[row_of], channel_of]
    places = _PLACES[kernels.start : kernels.stop][row_of] * dilation
    with np.errstate(invalid="ignore", over="ignore"):
        total = -x
        for tap in range(TAPS):
            if tap != TAPS // 2:
                total -= padded[:, tap * dilation : tap * dilation + length]
        tripled = 3 * padded
        for column in range(3):
            for row, place in enumerate(places[:, column]):
                total[row] += tripled[row, place : place + length]
        result = np.zeros((len(kernels), length), np.float32)
        np.add.at(result, row_of, total) if len(rows) > len(kernels) else np.copyto(result, total)
    return result


def _row_quantiles(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Quantiles of each row, interpolated linearly in float64; NaN for rows that hold NaN."""
    ordered = np.sort(values, axis=1)
    # The reference implementation's formula, whose rounding differs from that of np.quantile.
    rank = 1 + (values.shape[1] - 1) * (quantiles * 100 / 100)
    low = rank.astype(np.int64)
    share = rank - low
    low -= 1
    high = np.minimum(low + 1, values.shape[1] - 1)
    with np.errstate(invalid="ignore", over="ignore"):
        lower = np.take_along_axis(ordered, low, axis=1).astype(np.float64)
        upper = np.take_along_axis(ordered, high, axis=1).astype(np.float64)
        result = lower * (1 - share) + upper * share
        result[np.isnan(ordered[:, -1])] = np.nan
        return result.astype(np.float32)
