"""The same convolutions on an NVIDIA GPU, through `numba.cuda`; optional.

>>> import fastdil.cuda
>>> fastdil.cuda.methods()
('reference', 'direct', 'gemm', 'tensor')

Importing it loads nothing and never fails. `is_available` tells whether a call can succeed; without a GPU, a call
raises `CudaUnavailableError`, which says what is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

#: Public name -> module that holds it.
_HOME = {
    "conv": "functional",
    "conv1d": "functional",
    "conv2d": "functional",
    "conv3d": "functional",
    "explain": "functional",
    "methods": "functional",
    "is_available": "availability",
    "CudaUnavailableError": "availability",
    "Device": "device",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastdil.cuda' has no attribute {name!r}")
    value = getattr(import_module(f"fastdil.cuda.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from fastdil.cuda.availability import CudaUnavailableError, is_available
    from fastdil.cuda.device import Device
    from fastdil.cuda.functional import conv, conv1d, conv2d, conv3d, explain, methods
