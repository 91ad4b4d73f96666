"""The a trous transform beside other ways to it: rows of `benchmarks.pipelines`.

- ``fastdil``: `fastdil.atrous_transform`, symmetric edges.
- ``scipy``: `scipy.ndimage.convolve1d` along each axis with the taps stuffed with zeros, and the differences in NumPy:
  the same planes. One thread; float32 is summed in double precision, and the zeros are multiplied too.
- ``pywt``: `pywt.swt` or `pywt.swt2` with ``db2``: also undecimated, but another transform: four taps, circular edges,
  and in two dimensions three planes of details per level. One thread.
- ``copy``: a new array of the result's shape filled with copies of the input, in one thread: what handing out new
  memory costs at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from benchmarks.checked import Checked

TAPS = np.array([1, 4, 6, 4, 1]) / 16
CANDIDATES = ("fastdil", "scipy", "pywt", "copy")


@dataclass(frozen=True)
class Row:
    """One input and the number of levels."""

    name: str
    shape: tuple[int, ...]
    levels: int

    def data(self, dtype: str = "float32") -> np.ndarray:
        """The input: noise, the same in every run."""
        return np.random.default_rng(0).standard_normal(self.shape).astype(dtype)


ROWS = {row.name: row for row in (Row("atrous_2048x2048", (2048, 2048), 5), Row("atrous_2_20", (2**20,), 8))}


def oracle(x: np.ndarray, levels: int) -> np.ndarray:
    """The planes in double precision, from `numpy.pad` and sums of shifted slices."""
    now, planes = x.astype(np.float64), []
    for level in range(levels):
        after, step = now, 2**level
        for axis, size in enumerate(x.shape):
            pad = [(0, 0)] * x.ndim
            pad[axis] = (2 * step, 2 * step)
            padded = np.moveaxis(np.pad(after, pad, mode="symmetric"), axis, 0)
            total = sum(tap * padded[a * step : a * step + size] for a, tap in enumerate(TAPS))
            after = np.moveaxis(total, 0, axis)
        planes.append(now - after)
        now = after
    return np.array([*planes, now])


def by_scipy(x: np.ndarray, levels: int) -> np.ndarray:
    """The same planes with filters full of zeros."""
    from scipy import ndimage

    planes = np.empty((levels + 1, *x.shape), x.dtype)
    now = x
    for level in range(levels):
        stuffed = np.zeros(4 * 2**level + 1)
        stuffed[:: 2**level] = TAPS
        after = now
        for axis in range(x.ndim):
            after = ndimage.convolve1d(after, stuffed, axis, mode="reflect")  # SciPy's name for symmetric
        np.subtract(now, after, out=planes[level])
        now = after
    planes[levels] = now
    return planes


def by_pywt(x: np.ndarray, levels: int) -> np.ndarray:
    """An undecimated transform of the same depth; scaled to keep the energy, which is what `prepare` checks."""
    import pywt

    options = {"wavelet": "db2", "level": levels, "trim_approx": True, "norm": True}
    if x.ndim == 1:
        return np.array(pywt.swt(x, **options))
    first, *details = pywt.swt2(x, **options)
    return np.array([first, *(plane for level in details for plane in level)])


def copied(x: np.ndarray, levels: int) -> np.ndarray:
    """Copies of the input in place of the planes."""
    planes = np.empty((levels + 1, *x.shape), x.dtype)
    planes[:] = x
    return planes


def prepare(name: str, row: Row, x: np.ndarray, expected: np.ndarray, threads: int) -> Checked:
    """The candidate as a function without arguments, once its result has been checked; errors are in eps max |x|.

    Raises
    ------
    NotImplementedError
        If the library is not installed.
    AssertionError
        If the result is wrong.
    """
    if name == "pywt" and find_spec("pywt") is None:
        raise NotImplementedError("PyWavelets is not installed")
    import fastdil

    call = {
        "fastdil": lambda: fastdil.atrous_transform(x, row.levels, threads=threads),
        "scipy": lambda: by_scipy(x, row.levels),
        "pywt": lambda: by_pywt(x, row.levels),
        "copy": lambda: copied(x, row.levels),
    }[name]
    result = call()
    eps = float(np.finfo(x.dtype).eps)
    if name in ("fastdil", "scipy"):
        error = float(np.max(np.abs(result - expected))) / (eps * float(np.max(np.abs(x))))
        assert error <= 8 * row.levels * x.ndim, f"{name}: wrong result, error {error} eps max |x|"
        return Checked(call, f"{error:.2g}")
    if name == "pywt":
        energy, kept = (float(np.sum(np.square(values, dtype=np.float64))) for values in (x, result))
        assert abs(kept / energy - 1) < 1e-4, f"pywt: energy {kept} of {energy}"
    return Checked(call)


def calls(name: str, threads: int, dtype: str = "float32") -> dict[str, Checked]:
    """The candidates that are installed, checked."""
    row = ROWS[name]
    x = row.data(dtype)
    expected = oracle(x, row.levels)
    installed = [each for each in CANDIDATES if each != "pywt" or find_spec("pywt") is not None]
    return {each: prepare(each, row, x, expected, threads) for each in installed}
