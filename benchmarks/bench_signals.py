"""asv: `fastdil.correlate` along one axis of arrays that lie in memory in several ways, beside SciPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks import ours, peers, timing


class Signals(NamedTuple):
    """Float32 signals of this shape, filtered along `axis`, mode "same"."""

    shape: tuple[int, ...]
    taps: int
    dilation: int
    axis: int


CASES = {
    "small": Signals((1024,), 16, 1, 0),
    "mono": Signals((2**20,), 64, 8, 0),
    "rows": Signals((256, 4096), 16, 4, 1),
    "columns": Signals((4096, 256), 16, 4, 0),
    "interleaved": Signals((2**19, 2), 64, 8, 0),
    "long_taps": Signals((256, 4096), 1024, 1, 1),
}


class Correlate:
    """SciPy gets taps with the zeros already between them; both get the array as it lies."""

    params = (list(CASES), [ours.AUTO, "direct", "fft", "oaconvolve"])
    param_names = ("signals", "implementation")
    timeout = 120

    def setup(self, signals: str, implementation: str) -> None:
        """Prepare, compile and check."""
        case, rng = CASES[signals], np.random.default_rng(0)
        x = rng.standard_normal(case.shape, np.float32)
        taps = rng.standard_normal(case.taps, np.float32)
        self.call = prepare(implementation, case, x, taps)
        error = sampled_error(case, x, taps, self.call())
        assert error <= ours.limit(implementation), f"wrong result: {error:.3g} eps max A"
        timing.calm_heap()

    def time_correlate(self, signals: str, implementation: str) -> None:
        """One call."""
        self.call()


def prepare(implementation: str, case: Signals, x: np.ndarray, taps: np.ndarray) -> peers.Run:
    """The timed body of an implementation."""
    if implementation == "oaconvolve":
        import scipy.signal

        shape = [1] * x.ndim
        shape[case.axis] = -1
        kernel = peers.stuffed(taps, case.dilation)[::-1].reshape(shape).copy()
        return lambda: scipy.signal.oaconvolve(x, kernel, "same", axes=case.axis)
    import fastdil

    return lambda: fastdil.correlate(x, taps, case.dilation, "same", axes=case.axis, method=implementation)


def sampled_error(case: Signals, x: np.ndarray, taps: np.ndarray, y: np.ndarray) -> float:
    """Largest error of both ends and some places between, in units of ``eps max A``; infinite for a wrong shape."""
    if y.shape != x.shape:
        return float("inf")
    n, before = case.shape[case.axis], (case.taps - 1) * case.dilation - (case.taps - 1) * case.dilation // 2
    signals, results = (np.moveaxis(a, case.axis, -1).reshape(-1, n) for a in (x, y))
    largest = scale = 0.0
    for output in (0, 1, n // 3, n // 2, n - 2, n - 1):
        read = output - before + np.arange(case.taps) * case.dilation
        inside = (read >= 0) & (read < n)
        products = signals[:, read[inside]].astype(np.float64) * taps[inside]
        largest = max(largest, float(np.abs(products.sum(1) - results[:, output]).max()))
        scale = max(scale, float(np.abs(products).sum(1).max()))
    return largest / (float(np.finfo(y.dtype).eps) * scale) if np.isfinite(largest) else float("inf")
