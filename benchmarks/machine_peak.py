"""The limits of this machine, measured: FMA peak, matrix products of NumPy's BLAS, copy bandwidth.

``python -m benchmarks.machine_peak`` prints them. The comparison divides by the first one.

The FMA peak is that of `fastdil.kernels.peak`: a loop of independent fused multiply-adds on registers, timed on one
core. It touches no memory, so nothing that computes with these instructions can be faster.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.timing import granted_cores, settle

_TRIES = 10


class Peak(NamedTuple):
    """A measured limit and what it was measured with."""

    gflops: float
    how: str  #: "fma" or "tiles" (registers only), "sgemm" or "dgemm" (NumPy's BLAS, a lower bound)


def _in_threads(work: Callable[[int], None], threads: int) -> float:
    """Shortest wall time in which `threads` threads each do their part."""
    best = float("inf")
    for _ in range(_TRIES):
        pool = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        start = time.perf_counter()
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return best


def fma_peak(dtype: str, threads: int) -> Peak:
    """GFLOP/s of fused multiply-adds on registers: one core's, times `threads`."""
    from fastdil.kernels.peak import measure_peak

    return Peak(threads * measure_peak({"float32": "f32", "float64": "f64"}[dtype]), "fma")


def tile_peak(threads: int) -> Peak | None:
    """GFLOP/s of products of bfloat16 tiles: one core's, times `threads`; None without AMX."""
    from fastdil.hardware import amx_refusal, machine
    from fastdil.kernels.peak import measure_tile_peak

    if machine().amx != "native" or amx_refusal() is not None:
        return None
    return Peak(threads * measure_tile_peak(), "tiles")


def gemm_peak(dtype: str, size: int = 1536) -> Peak:
    """GFLOP/s of NumPy's matrix product on the threads that its BLAS takes: a lower bound of the FMA peak."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size)).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    seconds = _in_threads(lambda _: np.matmul(a, b, out=out), 1)
    return Peak(2e-9 * size**3 / seconds, "sgemm" if dtype == "float32" else "dgemm")


def copy_bandwidth(threads: int, mebibytes: int = 128) -> float:
    """GB/s read plus written when `threads` threads copy an array that fits no cache."""
    source = np.ones((threads, mebibytes * 2**20 // (8 * threads)))
    target = np.zeros_like(source)
    seconds = _in_threads(lambda number: np.copyto(target[number], source[number]), threads)
    return 2e-9 * source.nbytes / seconds


def peak(dtype: str, threads: int) -> Peak:
    """The limit that the comparison divides by."""
    settle()
    return fma_peak(dtype, threads)


def main() -> None:
    """Print every limit of this machine."""
    parser = argparse.ArgumentParser("python -m benchmarks.machine_peak", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=granted_cores(), help="default: every core granted")
    threads = parser.parse_args().threads
    for dtype in ("float32", "float64"):
        print(f"{dtype} multiply-adds, {threads} times one core: {fma_peak(dtype, threads).gflops:.0f} GFLOP/s")
        product = gemm_peak(dtype)
        print(f"{dtype} NumPy's {product.how}, its own threads: {product.gflops:.0f} GFLOP/s")
    tiles = tile_peak(threads)
    if tiles is not None:
        print(f"products of bfloat16 tiles, {threads} times one core: {tiles.gflops:.0f} GFLOP/s")
    print(f"copy, read plus write, {threads} threads: {copy_bandwidth(threads):.1f} GB/s")


if __name__ == "__main__":
    main()
