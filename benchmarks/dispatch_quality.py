"""How good are the automatic choices? ``python -m benchmarks.dispatch_quality [--problems N] [--seed S]``.

Times every eligible method on random problems that the calibration has not seen, and compares the method that ``auto``
takes with the best one. Problems and timing are those of `benchmarks.calibrate`; seeds of the calibration are refused.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

from benchmarks.calibrate import Draw, Timing, draws, measure
from fastdil.dispatch import choose, explain_problem, granted_threads
from fastdil.hardware import machine

#: `calibrate`'s default seed.
_SEEN = 1
#: A choice within this ratio of the best counts as good.
GOOD = 1.15
#: Most scratch memory of a call, in bytes, unless the user asks for more.
WORKSPACE = 64 << 20


class Verdict(NamedTuple):
    """One problem: what was chosen and what would have been best."""

    draw: Draw
    threads: int
    chosen: str
    best: str
    ratio: float  #: time of the choice over that of the best
    seconds: float  #: of the best
    workspace_bytes: int  #: reported for the choice


def judge(draw: Draw, threads: int, timings: list[Timing]) -> Verdict:
    """Compare the automatic choice with the timings of every method."""
    problem = draw.problem
    seconds = {timing.method: timing.seconds for timing in timings}
    tried = choose(problem, "auto", granted_threads(problem, threads))
    chosen = next(algorithm.name for algorithm in tried if algorithm.name in seconds)  # the first to take these numbers
    best = min(seconds, key=seconds.__getitem__)
    rows = {row.name: row for row in explain_problem(problem, "auto", threads).candidates}
    workspace = rows[chosen].workspace_bytes or 0
    return Verdict(draw, threads, chosen, best, seconds[chosen] / seconds[best], seconds[best], workspace)


def describe(verdict: Verdict) -> str:
    """One line that is enough to repeat the problem."""
    draw = verdict.draw
    spec = ", ".join(f"{name}={value!r}" for name, value in draw.spec.items() if (name, value) != ("groups", 1))
    return (
        f"{verdict.ratio:5.2f} {verdict.chosen} instead of {verdict.best} ({1e3 * verdict.seconds:.3g} ms): "
        f"x {draw.x_shape}, w {draw.w_shape}, {draw.dtype}, {spec}, threads={verdict.threads}"
    )


def report(verdicts: list[Verdict], worst: int = 10) -> str:
    """Share of good choices, the worst ones, and the largest workspace."""
    ranked = sorted(verdicts, key=lambda verdict: -verdict.ratio)
    good = sum(verdict.ratio <= GOOD for verdict in verdicts) / len(verdicts)
    largest = max(verdict.workspace_bytes for verdict in verdicts)
    lines = [
        f"choices within {100 * (GOOD - 1):.0f} % of the best: {100 * good:.1f} % of {len(verdicts)} problems",
        f"worst: {ranked[0].ratio:.2f} times the best",
        f"largest workspace of a choice: {largest / 2**20:.1f} MiB, {WORKSPACE >> 20} MiB allowed",
        "the worst choices, time over that of the best:",
    ]
    return "\n".join(lines + [describe(verdict) for verdict in ranked[:worst] if verdict.ratio > 1])


def main(arguments: list[str] | None = None) -> int:
    """Measure, compare, print; 1 if a choice reports more workspace than allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dispatch_quality", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=200, help="random problems to time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of the random problems (default %(default)s)")
    parser.add_argument("--threads", type=int, help="default: one thread and all granted cores in turn")
    parser.add_argument(
        "--budget", type=float, default=0.1, help="seconds per method and problem (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.seed == _SEEN:
        parser.error(f"--seed {_SEEN}: expected a seed that the calibration has not used")
    verdicts = []
    for number, draw in enumerate(draws(options.problems, options.seed)):
        threads = options.threads or 1 + number % 2 * (machine().cores - 1)
        verdicts.append(judge(draw, threads, measure(draw, threads, options.budget)))
        print(f"\r{number + 1} of {options.problems}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(report(verdicts))
    return int(any(verdict.workspace_bytes > WORKSPACE for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
