"""The limits of this machine, measured: FMA peak, matrix products of NumPy's BLAS, copy bandwidth.

``python -m benchmarks.machine_peak`` prints them. The comparison divides by the first one.

The FMA peak comes from a loop of independent fused multiply-adds on registers, written in LLVM's language and
compiled for this CPU. It touches no memory, so nothing that computes with these instructions can be faster.
Where llvmlite is missing, the matrix product stands in: a lower bound of the peak, and named so.
"""

from __future__ import annotations

import argparse
import ctypes
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.timing import granted_cores, settle

_ACCUMULATORS = 12  # two units with a latency of four or five cycles need ten; 12 fit into 16 registers
_TRIES = 10


class Peak(NamedTuple):
    """A measured limit and what it was measured with."""

    gflops: float
    how: str  #: "fma" (registers only), "sgemm" or "dgemm" (a lower bound)


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


def _fma_source(dtype: str, lanes: int) -> str:
    """LLVM source of ``peak(n)``: n rounds of multiply-adds on vectors that never leave their registers."""
    scalar = {"float32": "float", "float64": "double"}[dtype]
    vector = f"<{lanes} x {scalar}>"
    name = f"llvm.fma.v{lanes}f{8 * np.dtype(dtype).itemsize}"
    numbers = range(_ACCUMULATORS)
    # The factor 0.5 keeps the values near 1: neither infinite nor denormal, whatever n is.
    half = ", ".join([f"{scalar} 0.5"] * lanes)
    halves = f"{vector} <{half}>"
    phis = "\n".join(f"  %a{i} = phi {vector} [ %start, %entry ], [ %b{i}, %loop ]" for i in numbers)
    fmas = "\n".join(f"  %b{i} = call {vector} @{name}({vector} %a{i}, {halves}, {halves})" for i in numbers)
    stores = "\n".join(f"  store volatile {vector} %b{i}, ptr %out, align 4" for i in numbers)
    return f"""
declare {vector} @{name}({vector}, {vector}, {vector})
define void @peak(i64 %n, ptr %out) {{
entry:
  %start = load {vector}, ptr %out, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{fmas}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{stores}
  ret void
}}
"""


def fma_peak(dtype: str, threads: int) -> Peak | None:
    """GFLOP/s of fused multiply-adds on registers; None without llvmlite."""
    try:
        from llvmlite import binding
    except ImportError:
        return None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features()
    vector_bytes = 64 if features.get("avx512f") else 32 if features.get("avx") else 16
    lanes = vector_bytes // np.dtype(dtype).itemsize
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=2
    )
    with binding.create_mcjit_compiler(binding.parse_assembly(_fma_source(dtype, lanes)), target) as engine:
        engine.finalize_object()
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(engine.get_function_address("peak"))
        places = np.ones((threads, 64 // np.dtype(dtype).itemsize), dtype)
        rounds = 8_000_000
        seconds = _in_threads(lambda number: kernel(rounds, places[number].ctypes.data), threads)
    return Peak(2e-9 * rounds * _ACCUMULATORS * lanes * threads / seconds, "fma")


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
    return fma_peak(dtype, threads) or gemm_peak(dtype)


def main() -> None:
    """Print every limit of this machine."""
    parser = argparse.ArgumentParser("python -m benchmarks.machine_peak", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=granted_cores(), help="default: every core granted")
    threads = parser.parse_args().threads
    for dtype in ("float32", "float64"):
        registers = fma_peak(dtype, threads)
        if registers is not None:
            print(f"{dtype} multiply-adds on registers, {threads} threads: {registers.gflops:.0f} GFLOP/s")
        product = gemm_peak(dtype)
        print(f"{dtype} NumPy's {product.how}, its own threads: {product.gflops:.0f} GFLOP/s")
    print(f"copy, read plus write, {threads} threads: {copy_bandwidth(threads):.1f} GB/s")


if __name__ == "__main__":
    main()
