"""Scratch memory: reused buffers, bounded whatever the problem.

A fresh two-megabyte buffer costs half a millisecond in page faults, more than many convolutions. So buffers are
kept after use, up to the limit; a call that finds none allocates its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from fastdil.addresses import address_of
from fastdil.hardware import positive_from_environment

#: Alignment of every buffer: one cache line, and one AVX-512 vector.
ALIGNMENT = 64


class Buffer:
    """Scratch memory: `size` bytes from the aligned `address` on, for as long as the object lives.

    Examples
    --------
    >>> Buffer(1000).address % ALIGNMENT
    0
    """

    __slots__ = ("_memory", "address", "size")

    def __init__(self, size: int):
        self._memory = np.empty(size + ALIGNMENT, np.uint8)
        self.address = -(-address_of(self._memory) // ALIGNMENT) * ALIGNMENT
        self.size = size

    def view(self, size: int) -> np.ndarray:
        """The first `size` bytes as an array."""
        start = self.address - address_of(self._memory)
        return self._memory[start : start + size]


_idle: list[Buffer] = []


def lay_out(params: np.ndarray, parts: Iterable[tuple[int | None, int]]) -> int:
    """Write the byte offset of each part of a buffer into a field of `params`, if it has one; returns the size.

    `parts` are fields and sizes in bytes; every part is aligned.
    """
    offset = 0
    for field, needed in parts:
        if field is not None:
            params[field] = offset
        offset += -(-needed // ALIGNMENT) * ALIGNMENT
    return offset


@lru_cache(maxsize=1)
def limit_bytes() -> int:
    """Most scratch memory that one call may use: ``FASTDIL_WORKSPACE_MIB``, 64 MiB unless set."""
    return (positive_from_environment("FASTDIL_WORKSPACE_MIB") or 64) << 20


def take(size: int) -> Buffer:
    """A buffer of at least `size` bytes; hand it to `give_back` when done, whatever happens."""
    # list.pop and list.append are atomic, so threads need no lock; a lost buffer is only allocated anew.
    try:
        buffer = _idle.pop()
        if buffer.size >= size:
            return buffer
    except IndexError:
        pass
    return Buffer(size)


def give_back(buffer: Buffer) -> None:
    """Keep a buffer for the next `take`, unless more than the limit would then be kept."""
    if buffer.size + (sum(kept.size for kept in _idle[:]) if _idle else 0) <= limit_bytes():
        _idle.append(buffer)


@contextmanager
def borrowed(size: int) -> Iterator[int]:
    """The address of an aligned buffer of at least `size` bytes, for the length of the ``with`` block.

    Examples
    --------
    >>> with borrowed(1000) as address:
    ...     address % ALIGNMENT
    0
    """
    buffer = take(size)
    try:
        yield buffer.address
    finally:
        give_back(buffer)


@contextmanager
def borrowed_array(shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """An aligned array of whatever was there before, for the length of the ``with`` block.

    Examples
    --------
    >>> with borrowed_array((2, 3), np.dtype(np.float32)) as rows:
    ...     rows.shape
    (2, 3)
    """
    size = math.prod(shape) * dtype.itemsize
    buffer = take(size)
    try:
        yield buffer.view(size).view(dtype).reshape(shape)
    finally:
        give_back(buffer)


def release() -> None:
    """Give all idle buffers back to the system."""
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=release)
