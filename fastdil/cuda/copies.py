"""Copies between layouts and dtypes on the device: input that is converted, float16 results, `out` of another dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda
from numba.np.numpy_support import from_dtype

from fastdil.cuda.compiled import Kernel, flat, integers, ops

_THREADS = 256
#: Axes of a copy; missing ones come first and have size 1.
_AXES = 5


@cache
def kernel(source: str, target: str) -> Kernel:
    """Copies element by element, converting as NumPy's ``astype`` does."""

    def copy(a, b, g):
        index = cuda.grid(1)
        if index >= g[0] * g[1] * g[2] * g[3] * g[4]:
            return
        m, rest = index % g[4], index // g[4]
        k, rest = rest % g[3], rest // g[3]
        j, rest = rest % g[2], rest // g[2]
        i, h = rest % g[1], rest // g[1]
        value = ops.load(a, g[15] + h * g[5] + i * g[6] + j * g[7] + k * g[8] + m * g[9])
        ops.store(b, g[16] + h * g[10] + i * g[11] + j * g[12] + k * g[13] + m * g[14], value)

    types = [flat(from_dtype(np.dtype(dtype))) for dtype in (source, target)]
    return Kernel(copy, f"copy_{source}_to_{target}", *types, integers(3 * _AXES + 2))


def copy(source: Any, target: Any, shape: tuple[int, ...], stream: Any) -> None:
    """Queue a copy; `source` and `target` are ``(flat array, strides, first)`` as from `fastdil.cuda.arrays.flat`."""
    count = int(np.prod(shape, dtype=np.int64))
    lead = (0,) * (_AXES - len(shape))
    g = (*(1,) * len(lead), *shape, *lead, *source[1], *lead, *target[1], source[2], target[2])
    kernel(source[0].dtype.name, target[0].dtype.name).launch(
        -(-count // _THREADS), _THREADS, stream, source[0], target[0], g
    )
