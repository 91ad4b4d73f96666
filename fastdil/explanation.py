"""Why a method was chosen, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fastdil.problem import Problem


class Estimate(NamedTuple):
    """What running a problem is predicted to take."""

    seconds: float
    workspace_bytes: int  #: scratch memory of all threads together
    error_bound: float  #: in units of eps times the largest conv(|x|, |w|)
    preparation_seconds: float = 0.0  #: what preparing the weights takes, once per plan but in each functional call


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
        f"{'bfloat16' if problem.is_bfloat16 else problem.dtype.name} {rank}-D, batch {problem.batch}, {channels}"
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


def explain_choice(
    problem: Problem,
    chosen: str,
    refusals: Mapping[str, str | None],
    estimates: Mapping[str, Estimate],
    *,
    is_forced: bool = False,
    peaks: Mapping[str, float | None],
    caveats: Mapping[str, str],
) -> Explanation:
    """An explanation from what the methods say, in the order of `refusals`.

    `peaks` has the GFLOP/s that the machine could reach with each method's instructions, `caveats` what to add to the
    reason of a method that was chosen freely.
    """
    rows = []
    for name, refusal in refusals.items():
        if refusal is not None:
            rows.append(Candidate(name, "refused", refusal, None, None, None, None))
            continue
        estimate, verdict = estimates[name], "chosen" if name == chosen else "slower"
        if problem.is_empty:
            reason = "the result holds no products: it is empty or only the bias"
            rows.append(Candidate(name, verdict, reason, estimate.seconds, 0, 0.0, None))
            continue
        reason = _reason(name, chosen, is_forced, estimates) + (caveats.get(name, "") if name == chosen else "")
        gflops, peak = problem.flops / estimate.seconds / 1e9, peaks.get(name)
        share = gflops * problem.useful_macs / problem.macs / peak if peak else None
        rows.append(Candidate(name, verdict, reason, estimate.seconds, estimate.workspace_bytes, gflops, share))
    return Explanation(problem, chosen, tuple(rows))


def _reason(name: str, chosen: str, is_forced: bool, estimates: Mapping[str, Estimate]) -> str:
    seconds = estimates[name].seconds
    if name != chosen:
        ratio = seconds / estimates[chosen].seconds
        return f"{ratio:.3g} times the predicted time of {chosen}" if ratio >= 1 else f"{chosen} was asked for"
    if is_forced:
        return "asked for"
    if len(estimates) == 1:
        return "the only method that supports this problem"
    second = min(other.seconds for key, other in estimates.items() if key != name)
    return f"lowest predicted time; the next needs {second / seconds:.3g} times as long"
