"""The dispatcher: which methods can compute a problem, which is predicted to be fastest, and why.

`auto` never changes what a call means: a method whose error bound exceeds the precision asked for refuses, and one that
would spread NaN or overflow steps back at run time (`fastdil.plans`).
"""

from __future__ import annotations

from functools import lru_cache

from fastdil.algorithms import ALGORITHMS, Algorithm, methods
from fastdil.arguments import as_int, one_of
from fastdil.costmodel import CALL_SECONDS, MOST_REMEMBERED, SERIAL_MACS
from fastdil.errors import bad_value
from fastdil.explanation import Estimate, Explanation, explain_choice
from fastdil.hardware import machine
from fastdil.kernels.geometry import ELEMENT_KIND
from fastdil.kernels.peak import peak_gflops
from fastdil.problem import Problem

#: Said of a chosen method that may step back at run time.
_WARY = "; input with Inf, NaN or extreme values goes to the next"


def granted_threads(problem: Problem, threads: int) -> int:
    """Threads worth using: small problems run on the caller's thread."""
    return 1 if problem.macs < SERIAL_MACS else threads


def parse_threads(threads: object) -> int:
    """An explicit thread count, or what the machine grants."""
    return machine().cores if threads is None else as_int("threads", threads, 1)


def parse_method(method: object) -> str:
    """``"auto"`` or the name of a method."""
    return one_of("method", method, ("auto", *methods()))


def choose(problem: Problem, method: str, threads: int, prepared: bool = True) -> tuple[Algorithm, ...]:
    """Algorithms to try in turn: the forced one, or by predicted time up to the first that takes any input.

    Unless the weights are `prepared` once for many calls, the time of a call includes that.

    Raises
    ------
    ValueError
        If the forced method refuses the problem; the text is its reason.
    """
    if method != "auto":
        refusal = ALGORITHMS[method].supports(problem, machine())
        if refusal is not None:
            raise bad_value("method", method, f"one that supports this problem: {refusal}")
        return (ALGORITHMS[method],)
    estimates = _estimates(problem, granted_threads(problem, threads), prepared)
    ranked = sorted(estimates.items(), key=lambda item: item[1].seconds)
    order = [ALGORITHMS[name] for name, _ in ranked]
    for last, algorithm in enumerate(order):
        if not algorithm.needs_tame_input:
            return tuple(order[: last + 1])
    raise AssertionError("reference accepts every problem")


@lru_cache(maxsize=256)
def _estimates(problem: Problem, threads: int, prepared: bool) -> dict[str, Estimate]:
    here, estimates = machine(), {}
    prepared = prepared or problem.weights * problem.dtype.itemsize <= MOST_REMEMBERED
    for name, algorithm in ALGORITHMS.items():
        if algorithm.supports(problem, here) is None:
            estimate = algorithm.estimate(problem, threads)
            if not prepared:
                estimate = estimate._replace(seconds=estimate.seconds + estimate.preparation_seconds)
            estimates[name] = estimate
    return estimates


def explain_problem(
    problem: Problem, method: str = "auto", threads: int | None = None, prepared: bool = True
) -> Explanation:
    """Every method's verdict on a problem; a forced method must support it. `prepared` as in `choose`."""
    here, granted = machine(), granted_threads(problem, parse_threads(threads))
    if problem.is_empty:
        refusals = dict.fromkeys(ALGORITHMS)
        estimates = dict.fromkeys(ALGORITHMS, Estimate(CALL_SECONDS, 0, 0.0))
        chosen = method if method != "auto" else next(iter(ALGORITHMS))
    else:
        refusals = {name: algorithm.supports(problem, here) for name, algorithm in ALGORITHMS.items()}
        estimates = _estimates(problem, granted, prepared)
        chosen = choose(problem, method, granted, prepared)[0].name
    kind = ELEMENT_KIND[problem.dtype.name]
    peak = peak_gflops(kind) * min(granted, here.cores) if kind[0] == "f" else None
    wary = {name: _WARY for name, algorithm in ALGORITHMS.items() if algorithm.needs_tame_input}
    return explain_choice(
        problem,
        chosen,
        refusals,
        estimates,
        is_forced=method != "auto",
        peaks={**dict.fromkeys(ALGORITHMS, peak), "amx": None},  # multiply-adds are not what bounds tiles
        caveats=wary if len(estimates) > 1 else {},
    )
