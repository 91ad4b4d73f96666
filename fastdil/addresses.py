"""Where an array's samples lie, without the microsecond that NumPy's own ways of asking take."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_size_t

import numpy as np

_read = c_size_t.from_address
#: The data pointer is the first field of NumPy's array struct, part of its binary interface since version 1.0.
_POINTER = object.__basicsize__


def _quick(array: np.ndarray) -> int:
    return _read(id(array) + _POINTER).value


def _plain(array: np.ndarray) -> int:
    return array.ctypes.data


def _fastest() -> Callable[[np.ndarray], int]:
    """The quick way if it tells the truth here: an address is what `id` is in CPython only."""
    whole = np.arange(24.0).reshape(2, 3, 4)
    samples = (whole, whole[1:, ::-1, 2], np.zeros(0), np.array(1))
    return _quick if all(_quick(sample) == _plain(sample) for sample in samples) else _plain


#: ``address_of(array)``: address of the first element. The array must outlive its use.
address_of = _fastest()
