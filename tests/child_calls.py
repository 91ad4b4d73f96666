"""Scenes that need a process of their own; called as ``child_calls.py SCENE``.

Every scene checks its results and prints ``ok``; the parent asserts that, and that nothing else was printed.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
import warnings

import naive
import numpy as np

import fastdil

METHODS = tuple(name for name in fastdil.methods() if name not in ("winograd", "amx"))  # not for every problem or CPU


@functools.cache
def problem(i: int = 0):
    """Arrays large enough to be worth the pool, and the truth; small integers, so exact.

    Kept, because the oracle multiplies with NumPy's OpenBLAS, which itself can hang where another thread forks.
    """
    rng = np.random.default_rng(i)
    x = rng.integers(-4, 5, (2, 16, 60, 61 + i)).astype(np.float32)
    w = rng.integers(-4, 5, (24, 16, 3, 3)).astype(np.float32)
    return x, w, naive.conv(x, w, padding=2, dilation=2).astype(np.float32)


def check(i: int = 0, method: str = "auto", threads: int | None = 2) -> None:
    """One convolution with two threads against the truth."""
    x, w, truth = problem(i)
    y = fastdil.conv2d(x, w, padding=2, dilation=2, method=method, threads=threads)
    np.testing.assert_allclose(y, truth, atol=0 if method in METHODS and method != "fft" else 1e-2, rtol=0)


def one_method() -> None:
    """One method; a second argument of the script is where the package must lie."""
    for package in sys.argv[2:]:
        assert os.path.samefile(os.path.dirname(fastdil.__file__), package)
    check(0, "direct")


def every_method() -> None:
    """Every method once."""
    for method in (*METHODS, "auto"):
        check(0, method)


def layer() -> str:
    """The threading layer that Numba settled on."""
    import numba

    return numba.threading_layer()


def concurrent() -> None:
    """Eight threads call at once, from the first call on, each with its own problem and every method."""
    for i in range(8):
        problem(i)
    barrier, failures = threading.Barrier(8), []

    def work(i: int) -> None:
        try:
            barrier.wait()
            for round_number in range(6):
                check(i, (*METHODS, "auto")[(i + round_number) % (len(METHODS) + 1)])
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    wanted = os.environ.get("NUMBA_THREADING_LAYER")
    assert wanted is None or layer() == wanted, layer()


def wait_for(pid: int, seconds: float = 60) -> int:
    """The exit status of a forked child; 99 if it hangs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return 99


def in_fork(work) -> int:
    """Run `work` in a forked child; its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print("in the child:", repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return wait_for(pid)


def fork() -> None:
    """The parent has used the pool; children, and a child's child, call too; then the parent again."""
    every_method()
    assert in_fork(every_method) == 0

    def nested() -> None:
        check()
        assert in_fork(every_method) == 0

    assert in_fork(nested) == 0
    every_method()


def fork_while_busy() -> None:
    """Fork while other threads are inside calls: locks that they hold must not hang the child."""
    stop = threading.Event()

    def work(i: int) -> None:
        while not stop.is_set():
            check(i)

    for i in range(3):
        check(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert in_fork(check) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def cold_fork() -> None:
    """A fork before anything was compiled."""
    assert in_fork(every_method) == 0
    every_method()


def plain() -> None:
    """Every method once, and a few dtypes."""
    every_method()
    for dtype in ("float64", "complex64", "int32"):
        x, w = np.ones((1, 2, 40), dtype), np.ones((3, 2, 3), dtype)
        for method in ("reference", "direct", "im2col"):
            assert (fastdil.conv1d(x, w, dilation=3, method=method) == 6).all()


def limited() -> None:
    """Affinity to one core: the process is granted one, and asking for more still works."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    assert fastdil.machine().cores == 1
    check(threads=None)
    check(threads=4)


def one_thread() -> None:
    """Started with ``FASTDIL_NUM_THREADS=1`` and ``FASTDIL_ISA=generic``."""
    machine = fastdil.machine()
    assert (machine.cores, machine.isa) == (1, "generic"), machine
    check(threads=None)


def layer_or_absent() -> None:
    """Say which layer a first call gets, or why the wanted one is not to be had."""
    import numba

    try:
        numba.njit(lambda n: n)(1)
        from numba.np.ufunc import parallel

        parallel._launch_threads()
    except ValueError as error:
        print("absent:", str(error).splitlines()[0])
    else:
        print("layer:", layer())


if __name__ == "__main__":
    scene = globals()[sys.argv[1]]
    scene()
    print("ok")
