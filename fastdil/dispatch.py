"""The dispatcher: which methods can compute a problem, which is predicted to be fastest, and why.

`auto` never changes what a call means: a method whose error bound exceeds the precision asked for refuses, and one that
would spread NaN or overflow steps back at run time (`fastdil.plans`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fastdil.algorithms import ALGORITHMS, Algorithm, methods
from fastdil.algorithms.base import Estimate
from fastdil.costmodel import CALL_SECONDS, SERIAL_MACS
from fastdil.errors import bad_value
from fastdil.hardware import Machine, machine
from fastdil.kernels.geometry import ELEMENT_KIND
from fastdil.kernels.peak import peak_gflops
from fastdil.problem import Problem, as_int, one_of


@dataclass(frozen=True)
class Candidate:
    """One row of an explanation."""

    name: str
    verdict: str  #: "chosen", "slower" or "refused"
    reason: str
    seconds: float | None  #: predicted; None if refused
    workspace_bytes: int | None
    gflops: float | None  #: nominal operations per predicted second / 1e9
    peak_share: float | None  #: useful operations (no padding zeros) as a share of the machine's peak; None if unknown


@dataclass(frozen=True)
class Explanation:
    """Why a method was chosen; ``str()`` prints a table.

    Attributes
    ----------
    problem : Problem
    chosen : str
        Name of the method.
    candidates : tuple of Candidate
        One per method, in registry order.
    """

    problem: Problem
    chosen: str
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        head = ("method", "verdict", "predicted", "workspace", "GFLOP/s", "peak", "reason")
        rows = [head, *map(_row, self.candidates)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([_headline(self.problem), *lines])


def _headline(problem: Problem) -> str:
    rank, channels = problem.rank, f"{problem.in_channels} -> {problem.out_channels} channels"
    size, kernel = (" x ".join(map(str, triple[3 - rank :])) for triple in (problem.size, problem.kernel))
    dilation, spans = ("x".join(map(str, t[3 - rank :])) for t in (problem.dilation, problem.effective_kernel))
    return (
        f"{problem.dtype.name} {rank}-D, batch {problem.batch}, {channels}"
        f"{f' in {problem.groups} groups' if problem.groups > 1 else ''}, input {size}, kernel {kernel}, "
        f"dilation {dilation} (spans {spans}), {problem.flops / 1e9:.3g} GFLOP"
    )


def _row(candidate: Candidate) -> tuple[str, ...]:
    if candidate.seconds is None:
        return candidate.name, candidate.verdict, "-", "-", "-", "-", candidate.reason
    share = "-" if candidate.peak_share is None else f"{100 * candidate.peak_share:.0f} %"
    return (
        candidate.name,
        candidate.verdict,
        _time(candidate.seconds),
        f"{(candidate.workspace_bytes or 0) / 2**20:.1f} MiB",
        f"{candidate.gflops:.3g}",
        share,
        candidate.reason,
    )


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


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
    chosen = choose(problem, method, granted, prepared)[0].name if not problem.is_empty else _empty_choice(method)
    estimates = {} if problem.is_empty else _estimates(problem, granted, prepared)
    rows = []
    for name, algorithm in ALGORITHMS.items():
        refusal = algorithm.supports(problem, here) if not problem.is_empty else None
        if refusal is not None:
            rows.append(Candidate(name, "refused", refusal, None, None, None, None))
        elif problem.is_empty:
            reason = "the result holds no products: it is empty or only the bias"
            rows.append(Candidate(name, "chosen" if name == chosen else "slower", reason, CALL_SECONDS, 0, 0.0, None))
        else:
            rows.append(_candidate(problem, here, granted, name, chosen, method, estimates))
    return Explanation(problem, chosen, tuple(rows))


def _empty_choice(method: str) -> str:
    return method if method != "auto" else next(iter(ALGORITHMS))


def _candidate(
    problem: Problem, here: Machine, threads: int, name: str, chosen: str, method: str, estimates: dict
) -> Candidate:
    estimate, best = estimates[name], estimates[chosen]
    gflops = problem.flops / estimate.seconds / 1e9
    kind = ELEMENT_KIND[problem.dtype.name]
    peak = peak_gflops(kind) * min(threads, here.cores) if kind[0] == "f" else None
    if name != chosen:
        ratio = estimate.seconds / best.seconds
        reason = f"{ratio:.3g} times the predicted time of {chosen}" if ratio >= 1 else f"{chosen} was asked for"
    elif method != "auto":
        reason = "asked for"
    elif len(estimates) == 1:
        reason = "the only method that supports this problem"
    else:
        second = min(other.seconds for key, other in estimates.items() if key != name)
        reason = f"lowest predicted time; the next needs {second / estimate.seconds:.3g} times as long"
        if ALGORITHMS[name].needs_tame_input:
            reason += "; input with Inf, NaN or extreme values goes to the next"
    return Candidate(
        name,
        "chosen" if name == chosen else "slower",
        reason,
        estimate.seconds,
        estimate.workspace_bytes,
        gflops,
        gflops * problem.useful_macs / problem.macs / peak if peak else None,
    )
