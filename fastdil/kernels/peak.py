"""The machine's peaks, measured: multiply-adds and products of tiles, registers only, no memory."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.hardware import machine, record_peak
from fastdil.kernels.driver import KERNEL_ARGUMENTS, execute
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.tile_unit import STEP_TERMS, TILE_ROWS, UNIT_BYTES, close_tiles, open_tiles, repeat_products
from fastdil.kernels.tiles import fma_chains

#: Enough independent chains to hide a latency of four or five cycles twice over.
_CHAINS = 12
_STEPS = 50_000
#: The best of several runs: anything else that runs on the machine only slows it down.
_RUNS = 9


@cache
def peak_gflops(kind: str) -> float:
    """GFLOP/s of fused multiply-adds of ``"f32"`` or ``"f64"`` on one core; some 5 ms, once per process."""
    gflops = measure_peak(kind)
    record_peak(f"float{kind[1:]}", gflops * machine().cores)
    return gflops


def measure_peak(kind: str) -> float:
    """What `peak_gflops` remembers, measured now.

    One core is measured, not all: a busy machine would otherwise time its own scheduler.
    """
    vector_bytes = machine().vector_bytes
    lanes, size, chains, steps = lanes_of(kind, vector_bytes), int(kind[1:]) // 8, _CHAINS, _STEPS
    stamp = jit.source_stamp()

    def peak(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        fma_chains(kind, lanes, chains, steps, out)

    kernel = jit.callback(peak, f"peak_{kind}_{8 * vector_bytes}bit", KERNEL_ARGUMENTS)
    return 2 * lanes * chains * steps / _shortest(kernel, np.full(lanes, 1e-3, f"f{size}")) / 1e9


def measure_tile_peak(unit: str = "native", steps: int = _STEPS) -> float:
    """GFLOP/s of products of bfloat16 tiles on one core; for machines that have them, or on the emulated unit."""
    stamp = jit.source_stamp()

    def tile_peak(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        open_tiles(unit, out)
        repeat_products(unit, out, steps)
        close_tiles(unit, out)

    kernel = jit.callback(tile_peak, f"tile_peak_{unit}_{steps}", KERNEL_ARGUMENTS)
    operations = 2 * 4 * TILE_ROWS * TILE_ROWS * STEP_TERMS
    return operations * steps / _shortest(kernel, np.zeros(UNIT_BYTES, np.uint8)) / 1e9


def _shortest(kernel: Any, data: np.ndarray) -> float:
    """Seconds of the shortest of several runs of a kernel that works on `data`."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        execute(kernel.address, np.zeros(1, np.int64), (0, 0, 0, data.ctypes.data), 1, 0, 1)
        times.append(time.perf_counter() - start)
    return min(times)
