"""The a trous transform beside other ways to it, on an image of 2048^2 and a signal of 2^20 samples.

``python -m benchmarks.atrous`` checks every result, then times all in turn and prints one table.

What the candidates do:

- ``fastdil``: `fastdil.atrous_transform`, symmetric edges.
- ``scipy``: `scipy.ndimage.convolve1d` along each axis with the taps stuffed with zeros, and the differences in NumPy:
  the same planes. One thread; float32 is summed in double precision, and the zeros are multiplied too.
- ``pywt``: `pywt.swt` or `pywt.swt2` with ``db2``: also undecimated, but another transform: four taps, circular edges,
  and in two dimensions three planes of details per level. One thread.
- ``copy``: a new array of the result's shape filled with copies of the input, in one thread: what handing out new
  memory costs at least.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy import ndimage

import fastdil
from benchmarks import timing

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

    def moved(self, itemsize: int) -> int:
        """Bytes that levels one after another must read and write: a plane in, two out."""
        return 3 * self.levels * itemsize * int(np.prod(self.shape))


ROWS = {row.name: row for row in (Row("image_2048", (2048, 2048), 5), Row("signal_2_20", (2**20,), 8))}


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


def prepare(name: str, row: Row, x: np.ndarray, expected: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """The candidate as a function without arguments, once its result has been checked.

    Raises
    ------
    NotImplementedError
        If the library is not installed.
    AssertionError
        If the result is wrong.
    """
    if name == "pywt" and find_spec("pywt") is None:
        raise NotImplementedError("PyWavelets is not installed")
    call = {
        "fastdil": lambda: fastdil.atrous_transform(x, row.levels, threads=threads),
        "scipy": lambda: by_scipy(x, row.levels),
        "pywt": lambda: by_pywt(x, row.levels),
        "copy": lambda: copied(x, row.levels),
    }[name]
    result = call()
    eps = float(np.finfo(x.dtype).eps)
    if name in ("fastdil", "scipy"):
        error = float(np.max(np.abs(result - expected)))
        assert error <= 8 * eps * row.levels * x.ndim * float(np.max(np.abs(x))), f"{name}: wrong result, error {error}"
    elif name == "pywt":
        energy, kept = (float(np.sum(np.square(values, dtype=np.float64))) for values in (x, result))
        assert abs(kept / energy - 1) < 1e-4, f"pywt: energy {kept} of {energy}"
    return call


def measure(row: Row, dtype: str, threads: int, repeat: int) -> dict[str, timing.Samples]:
    """Times of every candidate that is installed."""
    x = row.data(dtype)
    expected = oracle(x, row.levels)
    calls = {}
    for name in CANDIDATES:
        try:
            calls[name] = prepare(name, row, x, expected, threads)
        except NotImplementedError as reason:
            print(f"{row.name}: {reason}")
    del expected
    return timing.interleaved(calls, repeat)


def table(row: Row, dtype: str, samples: dict[str, timing.Samples]) -> str:
    """Median and best time, how much slower than fastdil, and gigabytes per second that must move at least."""
    lines = [f"{row.name}: {row.levels} levels of {' x '.join(map(str, row.shape))}, {dtype}"]
    lines.append(f"{'':10}{'median':>10}{'best':>10}{'of fastdil':>12}{'GB/s':>8}")
    itemsize = np.dtype(dtype).itemsize
    for name, taken in samples.items():
        ratio = taken.median / samples["fastdil"].median
        planes = 2 * (row.levels + 1) * itemsize * int(np.prod(row.shape))
        moved = {"pywt": None, "copy": planes}.get(name, row.moved(itemsize))
        speed = "-" if moved is None else f"{moved / taken.median / 1e9:.1f}"
        best = 1e3 * min(taken.seconds)
        lines.append(f"{name:10}{1e3 * taken.median:7.2f} ms{best:7.2f} ms{ratio:12.2f}{speed:>8}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Check, time and print."""
    cores = timing.granted_cores()
    parser = argparse.ArgumentParser("python -m benchmarks.atrous", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=cores, help="default: every core granted")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--row", choices=tuple(ROWS), action="append", help="default: all")
    parser.add_argument("--repeat", type=int, default=9, help="samples of each candidate")
    options = parser.parse_args(arguments)
    if not 1 <= options.threads <= cores:
        parser.error(f"--threads {options.threads}: expected 1 to {cores}")
    if options.repeat < timing.FEWEST:
        parser.error(f"--repeat {options.repeat}: expected at least {timing.FEWEST}")
    timing.bind_to_cores(options.threads)
    for name in options.row or ROWS:
        row = ROWS[name]
        print(table(row, options.dtype, measure(row, options.dtype, options.threads, options.repeat)), flush=True)


if __name__ == "__main__":
    main()
