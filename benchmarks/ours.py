"""fastdil's own ways through a workload, under the same roof as the peers.

An *implementation* is named by one word: ``auto`` (a functional call), ``plan`` (a call of a prepared plan),
a method of `fastdil.methods` (a functional call with that method forced) or a peer of `benchmarks.peers`.

fastdil is imported inside the functions: an asv process that forks after the import would time a child whose
threads are not its own, and start-up benchmarks want a process that has not seen it.
"""

from __future__ import annotations

import functools

import numpy as np

from benchmarks import peers, reduced, timing
from benchmarks.peers import Run
from benchmarks.workloads import BY_NAME, Workload, make_arrays, sampled_error

AUTO, PLAN = "auto", "plan"

#: Predicted seconds of a call beyond which a method is left out: nobody waits for plain loops on big layers.
TOO_SLOW = 0.5
#: Largest error that passes, in units of ``eps max A``. Ours is the contract's bound at the highest precision.
OUR_LIMIT = 8.0
#: Peers promise no bound; a wrong padding or a flipped kernel is off by 1e5 and more.
PEER_LIMIT = 100.0
#: The same in bfloat16, where samples, weights and results err by 2**-9 of themselves.
REDUCED_LIMIT = 2.0**16


def methods() -> tuple[str, ...]:
    """Names of fastdil's methods, in registry order."""
    import fastdil

    return tuple(fastdil.methods())


def candidates(workload: Workload, dtype: str, threads: int, precision: str | None = None) -> dict[str, object]:
    """`fastdil.explain`'s row for each method."""
    import fastdil

    explanation = fastdil.explain(
        workload.x_shape, workload.w_shape, dtype=dtype, threads=threads, precision=precision, **workload.spec
    )
    return {candidate.name: candidate for candidate in explanation.candidates}


def chosen(workload: Workload, dtype: str, threads: int, precision: str | None = None) -> str:
    """The method that ``auto`` takes."""
    rows = candidates(workload, dtype, threads, precision).values()
    return next(row.name for row in rows if row.verdict == "chosen")


def refusal(name: str, workload: Workload, dtype: str, threads: int, precision: str | None = None) -> str | None:
    """None, or the reason why this implementation is not run here."""
    if name in reduced.BY_NAME:
        peer = reduced.BY_NAME[name]
        return peer.supports(workload, dtype) if peer.available() else f"{name} is not installed"
    if name in (AUTO, PLAN):
        return None
    row = candidates(workload, dtype, threads, precision)[name]
    if row.verdict == "refused":
        return f"refused: {row.reason}"
    if row.verdict != "chosen" and row.seconds > TOO_SLOW:
        return f"predicted to take more than {TOO_SLOW} s a call"
    return None


def limit(name: str, precision: str | None = None) -> float:
    """Largest error, in units of ``eps max A``, that counts as a right result."""
    if name in reduced.BY_NAME:
        return PEER_LIMIT if name in peers.BY_NAME else REDUCED_LIMIT
    if precision in (None, "highest"):
        return OUR_LIMIT
    from fastdil.costmodel import error_limit

    return error_limit(precision, np.dtype(np.float32))


def prepare(
    name: str, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int, precision: str | None = None
) -> Run:
    """The timed body of an implementation."""
    if name in reduced.BY_NAME:
        return reduced.BY_NAME[name].prepare(workload, x, w, threads)
    import fastdil

    settings = {**workload.spec, "threads": threads, "precision": precision}
    if name == PLAN:
        return functools.partial(fastdil.plan(w, **settings), x)
    return functools.partial(fastdil.conv, x, w, **settings, method=name)


@functools.lru_cache(maxsize=1)
def checked_call(workload_name: str, name: str, dtype: str) -> Run:
    """The timed body on all granted cores, compiled and its result checked, for the asv suite.

    asv skips what raises `NotImplementedError`, and asks again before every sample: hence the cache.
    """
    workload, threads = BY_NAME[workload_name], timing.granted_cores()
    reason = refusal(name, workload, dtype, threads)
    if reason is not None:
        raise NotImplementedError(reason)
    x, w = make_arrays(workload, dtype)
    call = prepare(name, workload, x, w, threads)
    error = sampled_error(workload, x, w, call())
    assert error <= limit(name), f"wrong result: {error:.3g} eps max A"
    return call
