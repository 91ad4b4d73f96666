"""The comparison as a table: plain text for a terminal, Markdown for documents."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks import ours, reduced

if TYPE_CHECKING:
    from benchmarks.compare import Comparison, Row

_NONE = "-"


@dataclass
class Cell:
    """What became of one implementation on one workload: a time, or a note that says why there is none."""

    seconds: float | None = None
    error: float | None = None  #: in units of eps max A
    note: str | None = None
    samples: list[float] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """True if it ran and did not give the right result."""
        return self.note is not None and self.note.startswith(("wrong", "failed"))


def milliseconds(seconds: float) -> str:
    """Three significant digits, no exponent.

    >>> milliseconds(0.0123456), milliseconds(4.2e-6), milliseconds(1.5)
    ('12.3', '0.00420', '1500')
    """
    value = 1e3 * seconds
    if not math.isfinite(value) or value <= 0:
        return _NONE
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


class _Notes:
    """Footnotes, each written once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"


def _cell(name: str, cell: Cell, notes: _Notes) -> str:
    if cell.seconds is not None:
        return f"{milliseconds(cell.seconds)} ({cell.error:.2g})"
    note = cell.note or ""
    if cell.is_bad:
        return note.split(":")[0].upper() + notes.mark(f"{name} {note}")
    # What a peer cannot do needs no footnote; why one of our methods has no time does.
    return _NONE if name in reduced.BY_NAME else _NONE + notes.mark(note)


def _line(result: Comparison, row: Row, names: list[str], notes: _Notes) -> list[str]:
    cells = [_cell(name, row.cells[name], notes) for name in names]
    best = row.best_peer
    speed = [_NONE, _NONE]
    if math.isfinite(row.auto):
        speed = [f"{row.gflops:.3g}", f"{row.gflops / result.peak.gflops:.0%}"]
    ratios = [best or _NONE, _ratio(row.ratio)]
    if result.precision:
        ratios += [row.best_reduced or _NONE, _ratio(row.reduced_ratio)]
        share = result.tile_share(row)
        speed.append(f"{share:.0%}" if math.isfinite(share) else _NONE)
    return [row.workload.name, f"{row.workload.gflop:.3g}", cells[0], row.method, *cells[1:], *ratios, *speed]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else _NONE


def _shown(result: Comparison) -> list[str]:
    """Implementations with a column: those with a time or a failure (unlike a peer without float64)."""
    return [
        name
        for name in result.rows[0].cells
        if name == ours.AUTO
        or any(row.cells[name].seconds is not None or row.cells[name].is_bad for row in result.rows)
    ]


def _table(result: Comparison) -> tuple[list[list[str]], list[str]]:
    """Header and lines, and the lines below the table."""
    names = _shown(result)
    notes = _Notes()
    header = ["workload", "GFLOP", "fastdil auto", "method", *names[1:], "best peer", "ratio"]
    if result.precision:
        header += ["best bfloat16", "ratio"]
    header += ["GFLOP/s", "of peak", *(["of tiles"] if result.precision else [])]
    lines = [header] + [_line(result, row, names, notes) for row in result.rows]
    below = [f"[{number}] {text}" for number, text in enumerate(notes.texts, start=1)]
    below += [
        f"geometric mean of best peer / fastdil auto, {suite}: {mean:.2f} ({count} rows)"
        for suite, (mean, count) in result.geometric_means().items()
    ]
    return lines, below


def heading(result: Comparison) -> str:
    """One sentence: what was measured, where and how."""
    import fastdil

    versions = [f"{name} {result.versions[name]}" for name in _shown(result) if name in result.versions]
    at = f" at precision {result.precision}" if result.precision else ""
    tiles = f", of the tile unit {result.tile_peak.gflops:.0f}" if result.tile_peak else ""
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    return (
        f"fastdil {fastdil.__version__}, {result.dtype}{at}, {threads} on "
        f"{fastdil.machine().cpu}; {', '.join(versions) or 'no peers'}. "
        f"Milliseconds, medians of {result.repeat} interleaved samples; in brackets the largest error from "
        f"float64 in units of eps max conv(|x|, |w|). Ratio: best peer / fastdil auto. "
        f"Peak: {result.peak.gflops:.0f} GFLOP/s ({result.peak.how}){tiles}."
    )


def text(result: Comparison) -> str:
    """The table for a terminal."""
    lines, below = _table(result)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    left = {0, 3}
    rows = (
        "  ".join(
            entry.ljust(width) if column in left else entry.rjust(width)
            for column, (entry, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    return "\n".join([heading(result), "", *rows, "", *below])


def markdown(result: Comparison) -> str:
    """The whole table for a document."""
    lines, below = _table(result)
    return "\n".join([heading(result), "", *_markdown_rows(lines, {0, 3}), "", *(f"- {line}" for line in below), ""])


def summary(result: Comparison) -> str:
    """fastdil beside the best peer of each row, as Markdown."""
    lines = [["workload", "fastdil", "method", "best peer", "", "ratio", "of peak"]]
    for row in result.rows:
        best, line = row.best_peer, _line(result, row, [ours.AUTO], _Notes())
        peer = [best, milliseconds(row.cells[best].seconds or math.nan)] if best else [_NONE, _NONE]
        share = line[-2] if result.precision else line[-1]
        lines.append([row.workload.name, milliseconds(row.auto), row.method, *peer, _ratio(row.ratio), share])
    return "\n".join([*_markdown_rows(lines, {0, 2, 3}), ""])


def _markdown_rows(lines: list[list[str]], left: set[int]) -> list[str]:
    rule = ["---" if column in left else "---:" for column in range(len(lines[0]))]
    return ["| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]]
