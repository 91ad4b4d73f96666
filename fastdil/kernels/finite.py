"""A test for Inf and NaN: less than a microsecond on few numbers, the speed of memory on many."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.intrinsics import any_nonfinite


@cache
def nonfinite_test(kind: str, vector_bytes: int) -> Any:
    """The compiled ``test(address, count)``: 1 if any of `count` neighbouring numbers is Inf or NaN, else 0."""
    stamp, lanes = jit.source_stamp(), lanes_of(kind, vector_bytes)

    def test(address, count):
        stamp  # noqa: B018 - a closure cell in the cache key
        return any_nonfinite(kind, lanes, address, count)

    return jit.serial(test, f"any_nonfinite_{kind}_{8 * vector_bytes}bit", 2, has_result=True)
