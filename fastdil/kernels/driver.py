"""Runs a kernel's tasks: the one parallel function, and when not to use it.

A kernel is a C callback ``kernel(params, x, w, bias, out, scratch, task)``. Tasks are taken from an atomic counter, so
unequal tasks balance; which thread runs a task never changes its result.

The pool is avoided where it would end the process: OpenMP kills a forked child that touches the pool, and Numba's
``workqueue`` aborts on concurrent callers. There the calling thread runs all tasks itself.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import lru_cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.hardware import machine
from fastdil.kernels.intrinsics import call_kernel, next_index
from fastdil.workspace import ALIGNMENT, borrowed, limit_bytes

#: Arguments of every kernel.
KERNEL_ARGUMENTS = 7

_pool = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _pool, _forked
    _pool = threading.Lock()
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    _forked = _forked or bool(getattr(parallel, "_is_initialized", True) if parallel else False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _make_serial() -> Any:
    stamp = jit.source_stamp()

    def serial(address, params, x, w, bias, out, scratch, tasks):
        stamp  # noqa: B018 - a closure cell in the cache key
        for task in range(tasks):
            call_kernel(address, params, x, w, bias, out, scratch, task)

    return jit.callback(serial, "serial_driver", 8)


def _make_parallel() -> Any:
    from numba import prange

    stamp = jit.source_stamp()

    def drive(address, params, x, w, bias, out, scratch, scratch_step, tasks, counter, threads):
        stamp  # noqa: B018 - a closure cell in the cache key
        for worker in prange(threads):
            task = next_index(counter)
            while task < tasks:
                call_kernel(address, params, x, w, bias, out, scratch + worker * scratch_step, task)
                task = next_index(counter)

    return jit.parallel(drive, "parallel_driver", 11)


@lru_cache(maxsize=1)
def serial_driver() -> Any:
    """The compiled serial loop, as a ctypes function: it drops the GIL and needs no dispatcher."""
    compiled = _make_serial()
    function = ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 8)(compiled.address)
    function.compiled = compiled  # keeps the machine code alive
    return function


@lru_cache(maxsize=1)
def parallel_driver() -> Any:
    """The compiled parallel loop."""
    return _make_parallel()


def default_threads() -> int:
    """Threads that a call uses unless told otherwise."""
    return machine().cores


def execute(
    address: int,
    params: np.ndarray,
    pointers: tuple[int, int, int, int],
    tasks: int,
    scratch_bytes: int,
    threads: int,
) -> None:
    """Run tasks 0..tasks-1 of the kernel at `address` on at most `threads` threads.

    `pointers` are the addresses of x, w, bias (or 0) and out. Each worker gets `scratch_bytes` of scratch memory.
    """
    step = -(-scratch_bytes // ALIGNMENT) * ALIGNMENT
    workers = min(threads, tasks, max(limit_bytes() // max(step, 1), 1))
    if workers > 1 and not _forked:
        with borrowed(step * workers + ALIGNMENT) as scratch:
            if _run_parallel(address, params, pointers, scratch, step, tasks, workers):
                return
    with borrowed(step) as scratch:
        serial_driver()(address, params.ctypes.data, *pointers, scratch, tasks)


def _run_parallel(address, params, pointers, scratch, step, tasks, workers) -> bool:
    """Run on the pool; False if the pool is busy and cannot be shared."""
    drive = parallel_driver()
    lock = None if _is_shareable() else _pool
    if lock is not None and not lock.acquire(blocking=False):
        return False
    counter = np.zeros(1, np.int64)
    try:
        drive(address, params.ctypes.data, *pointers, scratch, step, tasks, counter.ctypes.data, workers)
    finally:
        if lock is not None:
            lock.release()
    return True


def _is_shareable() -> bool:
    """True where several threads may enter the pool at once: all layers but ``workqueue``."""
    from numba.np.ufunc import parallel

    return getattr(parallel, "_threading_layer", None) in ("omp", "tbb")
