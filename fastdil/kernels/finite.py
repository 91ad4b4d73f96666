"""A test for Inf and NaN that costs less than a microsecond on few numbers."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.kernels.intrinsics import load_element


@cache
def count_nonfinite(kind: str) -> Any:
    """The compiled ``count(address, elements)`` of Inf and NaN among neighbouring ``"f32"`` or ``"f64"`` numbers."""
    stamp, size = jit.source_stamp(), int(kind[1:]) // 8

    def count(address, elements):
        stamp  # noqa: B018 - a closure cell in the cache key
        found = 0
        for index in range(elements):
            value = load_element(kind, address + index * size)
            change = value - value  # zero, but NaN for Inf and NaN
            found += change != change
        return found

    return jit.serial(count, f"count_nonfinite_{kind}", 2, has_result=True)
