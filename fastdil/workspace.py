"""Scratch memory: reused buffers, bounded whatever the problem.

A fresh two-megabyte buffer costs half a millisecond in page faults, more than many convolutions. So buffers are
kept after use, up to the limit; a call that finds none allocates its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from fastdil.hardware import positive_from_environment

#: Alignment of every buffer: one cache line, and one AVX-512 vector.
ALIGNMENT = 64

_idle: list[np.ndarray] = []


@lru_cache(maxsize=1)
def limit_bytes() -> int:
    """Most scratch memory that one call may use: ``FASTDIL_WORKSPACE_MIB``, 64 MiB unless set."""
    return (positive_from_environment("FASTDIL_WORKSPACE_MIB") or 64) << 20


@contextmanager
def borrowed(size: int) -> Iterator[int]:
    """The address of an aligned buffer of at least `size` bytes, for the length of the ``with`` block.

    Examples
    --------
    >>> with borrowed(1000) as address:
    ...     address % ALIGNMENT
    0
    """
    # list.pop and list.append are atomic, so threads need no lock; a lost buffer is only allocated anew.
    try:
        buffer = _idle.pop()
    except IndexError:
        buffer = None
    if buffer is None or buffer.size < size + ALIGNMENT:
        buffer = np.empty(size + ALIGNMENT, np.uint8)
    try:
        yield -(-buffer.ctypes.data // ALIGNMENT) * ALIGNMENT
    finally:
        if sum(kept.size for kept in _idle[:]) + buffer.size <= limit_bytes():
            _idle.append(buffer)


def release() -> None:
    """Give all idle buffers back to the system."""
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=release)
