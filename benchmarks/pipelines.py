"""Rows of the comparison that are no single convolution: streams, a trous transforms, MiniRocket.

They belong to the suite ``signal``: ``python -m benchmarks.compare --suite signal`` measures and prints them below the
convolutions. Every candidate is checked against an oracle, then all are timed in turn, as the convolutions are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks import atrous, report, rocket, streams, timing
from benchmarks.checked import Checked

#: Row -> the function that returns its checked candidates, ``(name, threads, dtype) -> {candidate: call}``.
ROWS: dict[str, Callable[..., dict[str, Checked]]] = {
    name: module.calls for module in (streams, atrous, rocket) for name in module.ROWS
}
#: What a candidate is compared with but does not do the same work: shown, but no peer.
LIMITS = ("copy",)
#: Columns of words.
_LEFT = (0, 2, 5)


@dataclass
class Result:
    """Times of the candidates of one row, or why there are none."""

    name: str
    samples: dict[str, timing.Samples] = field(default_factory=dict)
    errors: dict[str, str | None] = field(default_factory=dict)
    note: str | None = None

    @property
    def seconds(self) -> float:
        """Ours."""
        return self.samples["fastdil"].median if "fastdil" in self.samples else math.nan

    @property
    def best_peer(self) -> str | None:
        """The fastest of the others that do the same work."""
        others = {n: s.median for n, s in self.samples.items() if n != "fastdil" and n not in LIMITS}
        return min(others, key=others.__getitem__) if others else None

    @property
    def ratio(self) -> float:
        """Time of the best peer divided by ours: above 1, fastdil is ahead."""
        best = self.best_peer
        return math.nan if best is None else self.samples[best].median / self.seconds


def measure(names: Sequence[str], dtype: str, threads: int, repeat: int, min_time: float = 0.1) -> list[Result]:
    """Check, then time; progress goes to standard error."""
    results = []
    for number, name in enumerate(names, start=1):
        print(f"{number}/{len(names)} {name}", file=sys.stderr, flush=True)
        result = Result(name)
        try:
            checked = ROWS[name](name, threads, dtype)
            result.errors = {candidate: each.error for candidate, each in checked.items()}
            calls = {candidate: each.call for candidate, each in checked.items()}
            result.samples = timing.interleaved(calls, repeat, min_time)
        except Exception as error:  # belongs into the table, not over it
            result.note = f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"
        if result.samples or result.note:
            results.append(result)
    return results


def text(results: Sequence[Result]) -> str:
    """Milliseconds (errors) as a table that is Markdown, and straight in a terminal too."""
    lines = [["pipeline", "fastdil", "best peer", "", "ratio", "others"]]
    for result in results:
        shown = {name: _cell(samples.median, result.errors.get(name)) for name, samples in result.samples.items()}
        best = result.best_peer or "-"
        others = ", ".join(f"{name} {time}" for name, time in shown.items() if name not in ("fastdil", best))
        ratio = f"{result.ratio:.2f}" if math.isfinite(result.ratio) else "-"
        lines.append([result.name, shown.get("fastdil", "-"), best, shown.get(best, "-"), ratio, result.note or others])
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * n if column in _LEFT else "-" * (n - 1) + ":" for column, n in enumerate(widths)])
    padded = (
        [entry.ljust(width) if column in _LEFT else entry.rjust(width) for column, (entry, width) in enumerate(pairs)]
        for pairs in (zip(line, widths, strict=True) for line in lines)
    )
    return "\n".join([*(f"| {' | '.join(line)} |" for line in padded), ""])


def _cell(seconds: float, error: str | None) -> str:
    return report.milliseconds(seconds) + (f" ({error})" if error is not None else "")


def as_json(results: Sequence[Result]) -> list[dict[str, object]]:
    """Every sample."""
    return [
        {"name": r.name, "note": r.note, "best_peer": r.best_peer, "ratio": r.ratio if math.isfinite(r.ratio) else None}
        | {"cells": {name: samples.seconds for name, samples in r.samples.items()}, "errors": r.errors}
        for r in results
    ]
