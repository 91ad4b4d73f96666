"""Runs a kernel's tasks: the one parallel function, and when not to use it.

A kernel is a C callback ``kernel(params, x, w, bias, out, scratch, task)``. Tasks are taken from an atomic counter, so
unequal tasks balance; which thread runs a task never changes its result.

The pool is avoided where it would end the process: OpenMP kills a forked child that touches the pool, and Numba's
``workqueue`` aborts on concurrent callers. There the calling thread runs all tasks itself.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.addresses import address_of
from fastdil.hardware import machine
from fastdil.kernels.intrinsics import call_kernel, next_index
from fastdil.workspace import ALIGNMENT, borrowed, give_back, limit_bytes, take

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

    return jit.serial(serial, "serial_driver", 8)


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
    """The compiled serial loop. Numba converts eight integers in 0.4 microseconds, ctypes in one."""
    return _make_serial()


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
    launcher(address, params, tasks, scratch_bytes, threads)(*pointers)


def launcher(
    address: int, params: np.ndarray, tasks: int, scratch_bytes: int, threads: int
) -> Callable[[int, int, int, int], None]:
    """What `execute` does, as a function of the addresses alone, for kernels that run often."""
    step = -(-scratch_bytes // ALIGNMENT) * ALIGNMENT
    workers = min(threads, tasks, max(limit_bytes() // max(step, 1), 1))
    place = address_of(params)

    def launch_here(x: int, w: int, bias: int, out: int) -> None:
        buffer = take(step)
        try:
            serial_driver()(address, place, x, w, bias, out, buffer.address, tasks)
        finally:
            give_back(buffer)

    def launch_on_pool(x: int, w: int, bias: int, out: int) -> None:
        if not _forked:
            with borrowed(step * workers + ALIGNMENT) as scratch:
                if _run_parallel(address, place, (x, w, bias, out), scratch, step, tasks, workers):
                    return
        launch_here(x, w, bias, out)

    launch = launch_on_pool if workers > 1 else launch_here
    launch.params = params  # type: ignore[attr-defined]  # `place` is its address
    return launch


def _run_parallel(address, place, pointers, scratch, step, tasks, workers) -> bool:
    """Run on the pool; False if the pool is busy and cannot be shared."""
    drive = parallel_driver()
    lock = None if _is_shareable() else _pool
    if lock is not None and not lock.acquire(blocking=False):
        return False
    counter = np.zeros(1, np.int64)
    try:
        drive(address, place, *pointers, scratch, step, tasks, address_of(counter), workers)
    finally:
        if lock is not None:
            lock.release()
    return True


def _is_shareable() -> bool:
    """True where several threads may enter the pool at once: all layers but ``workqueue``."""
    from numba.np.ufunc import parallel

    return getattr(parallel, "_threading_layer", None) in ("omp", "tbb")
