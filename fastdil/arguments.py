"""What is demanded of arguments that are no arrays: integers, words, one entry per axis, paddings."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import numpy as np

from fastdil.errors import bad_type, bad_value

#: Named paddings. The causal ones have a direction, so they exist on one axis only.
NAMED_PADDINGS = ("valid", "same", "same_lower")
CAUSAL_PADDINGS = ("causal", "anticausal")

#: Positions and byte counts stay below this, so compiled 64-bit arithmetic cannot overflow.
LARGEST = 2**60

Pair = tuple[int, int]


def as_int(name: str, value: object, least: int | None = None) -> int:
    """`value` as a Python int (NumPy integers included, bool refused), at least `least`."""
    expected = "an integer" if least is None else f"an integer >= {least}"
    if isinstance(value, bool | np.bool_):
        raise bad_type(name, value, expected)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise bad_type(name, value, expected) from None
    if (least is not None and number < least) or abs(number) >= LARGEST:
        raise bad_value(name, value, f"{expected} and below 2**60")
    return number


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """`value` if it is one of the `allowed` words."""
    listed = ", ".join(repr(word) for word in allowed)
    if not isinstance(value, str):
        raise bad_type(name, value, f"one of {listed}")
    if value not in allowed:
        raise bad_value(name, value, f"one of {listed}")
    return value


def _entries(name: str, value: object, rank: int) -> list[object]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise bad_type(name, value, f"an integer or {rank} of them, one per axis")
    entries = list(value)
    if len(entries) != rank:
        raise bad_value(name, value, f"{rank} entries, one per spatial axis, not {len(entries)}")
    return entries


def per_axis(name: str, value: object, rank: int) -> tuple[int, ...]:
    """An int, or one int per axis, each >= 1 (stride and dilation)."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(as_int(name, entry, 1) for entry in _entries(name, value, rank))
    return (as_int(name, value, 1),) * rank


def parse_padding(padding: object, rank: int) -> str | tuple[Pair, ...]:
    """A named padding, or one (lo, hi) pair per axis."""
    if isinstance(padding, str):
        words = NAMED_PADDINGS + (CAUSAL_PADDINGS if rank == 1 else ())
        if rank > 1 and padding in CAUSAL_PADDINGS:
            raise bad_value("padding", padding, "a 1-D convolution: causal paddings have no meaning on images")
        return one_of("padding", padding, words)
    if not isinstance(padding, Iterable):
        width = as_int("padding", padding)
        return ((width, width),) * rank
    pairs: list[Pair] = []
    for entry in _entries("padding", padding, rank):
        if isinstance(entry, Iterable) and not isinstance(entry, str):
            ends = list(entry)
            if len(ends) != 2:
                raise bad_value("padding", padding, "(lo, hi) pairs, one per spatial axis")
            pairs.append((as_int("padding", ends[0]), as_int("padding", ends[1])))
        else:
            width = as_int("padding", entry)
            pairs.append((width, width))
    return tuple(pairs)
