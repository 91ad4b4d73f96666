"""What stacks of dilated convolutions see, count and cost: receptive fields, coverage, phases, schedules.

Exact where the answer is rational (Python ints and `fractions.Fraction`). Importing it loads neither Numba nor SciPy:
names are fetched on first use.

>>> from fastdil import theory
>>> theory.effective_kernel_size(3, 15)
31
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

#: Public name -> module of this package that holds it.
_HOME = {
    **dict.fromkeys(
        ("Layer", "Pool", "Transposed", "Upsample", "effective_kernel_size", "output_size", "tap_positions"), "layers"
    ),
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastdil.theory' has no attribute {name!r}")
    value = getattr(import_module(f"fastdil.theory.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from fastdil.theory.layers import (
        Layer,
        Pool,
        Transposed,
        Upsample,
        effective_kernel_size,
        output_size,
        tap_positions,
    )
