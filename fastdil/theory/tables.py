"""Tables of text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows of text as columns; with `width`, the last column goes on in further lines where it would be too long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max((width or 0) - sum(widths[:-1]) - 2 * (len(widths) - 1), 20) if width else widths[-1]
    lines = []
    for *cells, last in rows:
        parts = textwrap.wrap(last, room) if len(last) > room else [last]
        for number, part in enumerate(parts):
            shown = [*(cells if not number else [""] * len(cells)), part]
            lines.append("  ".join(cell.ljust(size) for cell, size in zip(shown, widths, strict=True)).rstrip())
    return "\n".join(lines)


def shape_text(shape: Sequence[int]) -> str:
    """``2 x 3 x 4``."""
    return " x ".join(map(str, shape))
