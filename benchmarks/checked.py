"""A candidate of a row of `benchmarks.pipelines`, once its result has been compared with the row's oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Checked(NamedTuple):
    """What to time, and how far its result was from the oracle."""

    call: Callable[[], Any]
    error: str | None = None  #: as the table shows it; None where there is nothing to compare
