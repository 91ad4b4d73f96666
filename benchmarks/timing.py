"""Fair times for candidates that share a process: interleaved, warm, beside nobody's spinning threads."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: At least this many samples, however slow a candidate is.
FEWEST = 5
#: A candidate that needs longer than this for all its samples gets the fewest.
_BUDGET = 4.0
#: Seconds of untimed calls before each sample. After a rest the system often wakes a pool's threads on one core, and
#: takes 10 to 20 ms to spread them, or 40 to 70 where the pool that ran before has just gone to sleep: whoever came
#: after ONNX Runtime took twice the time until then (Zen 5, two cores). A core may wake slowly too: after 0.15 s of
#: rest or of scalar code, the first 10 to 15 ms of AVX-512 code ran at half speed (Granite Rapids).
_WARM_UP = 0.1
#: A call longer than this warms itself up.
_WARM_ENOUGH = 0.1
#: glibc gives back every freed block above a threshold and faults its pages in again at the next call. The
#: threshold rises to the size of the largest block freed so far, up to 32 MiB.
_HEAP_BLOCK = 30 * 2**20


def granted_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bind_to_cores(count: int) -> None:
    """Keep the process on `count` cores, so that pools which size themselves cannot take more.

    Call it before the first peer is imported: pools look once.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def settle(limit: float = 0.25) -> bool:
    """Sleep until this process burns no CPU time any more; False if it still does after `limit` seconds.

    Idle threads of most pools (OpenMP's, BLAS's, TBB's) spin for 1 to 100 ms before they go to sleep. On that
    core the next candidate would run at half speed. The pause is measured, not guessed.
    """
    deadline = time.perf_counter() + limit
    while time.perf_counter() < deadline:
        start, burnt = time.perf_counter(), time.process_time()
        time.sleep(0.002)
        if time.process_time() - burnt < 0.1 * (time.perf_counter() - start):
            return True
    return False


def calm_heap() -> None:
    """Free one large block, as every process that runs for a while has done.

    Without it the first library that allocates its results with ``malloc`` pays a page fault per
    4 KiB of output and scratch on every call: a 2 ms layer took 4 ms, until somebody freed a large block.
    """
    block = bytearray(_HEAP_BLOCK)
    del block


@dataclass
class Samples:
    """Seconds per call, one entry per round."""

    number: int  #: calls per sample
    rounds: int  #: samples wanted
    warm: bool  #: whether untimed calls come first
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The figure that is reported."""
        return statistics.median(self.seconds)


def _planned(call: Callable[[], object], repeat: int, min_time: float) -> Samples:
    for _ in range(2):
        start = time.perf_counter()
        call()
        once = max(time.perf_counter() - start, 1e-7)
        if once >= _WARM_ENOUGH:
            break
    rounds = repeat if once * repeat <= _BUDGET else min(repeat, FEWEST)
    return Samples(max(1, math.ceil(min_time / (rounds * once))), rounds, once < _WARM_ENOUGH)


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeat: int = 9, min_time: float = 0.1, warm_up: float = _WARM_UP
) -> dict[str, Samples]:
    """Time every call, one sample each per round, in an order that moves on by one from round to round.

    Drift of the machine (clock, neighbours) so hits all candidates alike. Before each sample the process
    comes to rest and the candidate runs untimed for `warm_up` seconds: its threads awake, its caches warm.

    Parameters
    ----------
    calls : mapping of name to function
        They have been called before: nothing is left to compile.
    repeat : int
        Samples per candidate; very slow ones get `FEWEST`.
    min_time : float
        Seconds of timed calls per candidate, all samples together.
    warm_up : float
        Less than the default will do where no other library's threads go to sleep.
    """
    samples = {}
    calm_heap()
    for name, call in calls.items():
        settle()
        samples[name] = _planned(call, repeat, min_time)
    names = list(calls)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(repeat):
            first = turn % max(len(names), 1)
            for name in names[first:] + names[:first]:
                if turn < samples[name].rounds:
                    samples[name].seconds.append(_sample(calls[name], samples[name], warm_up))
    finally:
        if collecting:
            gc.enable()
    return samples


def _sample(call: Callable[[], object], samples: Samples, warm_up: float) -> float:
    settle()
    start = time.perf_counter()
    while samples.warm and time.perf_counter() - start < warm_up:
        call()
    start = time.perf_counter()
    for _ in range(samples.number):
        call()
    return (time.perf_counter() - start) / samples.number
