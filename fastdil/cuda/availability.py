"""Is there a GPU that can be used, and if not, what is missing?"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

_NO_PACKAGE = "the package numba-cuda is missing ({}); pip install numba-cuda"


class CudaUnavailableError(RuntimeError):
    """There is no GPU that fastdil can use; the text says what is missing."""


def is_available() -> bool:
    """Whether `fastdil.cuda.conv` and its kin can run here.

    Loads Numba. False never means an error: `CudaUnavailableError`, raised by a call, says what is missing.

    Examples
    --------
    >>> import fastdil.cuda
    >>> isinstance(fastdil.cuda.is_available(), bool)
    True
    """
    return what_is_missing() is None


def require() -> None:
    """Raise `CudaUnavailableError` unless a GPU can be used."""
    missing = what_is_missing()
    if missing is not None:
        raise CudaUnavailableError(f"fastdil.cuda cannot run here: {missing}")


def require_package() -> None:
    """Raise `CudaUnavailableError` unless `numba.cuda` can be imported; a GPU is not needed."""
    try:
        import numba.cuda  # noqa: F401
    except ImportError as error:
        raise CudaUnavailableError(_NO_PACKAGE.format(error)) from None


@cache
def is_simulated() -> bool:
    """Whether Numba's CUDA simulator stands in for a GPU (``NUMBA_ENABLE_CUDASIM=1``)."""
    from numba.core import config

    return bool(config.ENABLE_CUDASIM)


@cache
def what_is_missing() -> str | None:
    """None, or a sentence on the driver, toolkit, package or GPU that is missing; worked out once per process."""
    try:
        from numba import cuda

        if is_simulated() or (cuda.is_available() and len(cuda.gpus)):
            return None
    except ImportError as error:
        return _NO_PACKAGE.format(error)
    except Exception as error:  # drivers fail in many ways, and the caller has asked whether, not why
        return f"the NVIDIA driver failed ({type(error).__name__}: {error})"
    return _missing_part()


def _missing_part() -> str:
    """Which part keeps `numba.cuda` from running: tried one after the other, as it would need them."""
    libraries = (ctypes.util.find_library("cuda"), "libcuda.so.1", "nvcuda.dll")
    if not any(name and _loads(name) for name in libraries):
        return "no NVIDIA driver (libcuda) was found, so there is no GPU to run on"
    from numba import cuda

    try:
        if not len(cuda.gpus):
            return "the NVIDIA driver sees no GPU"
    except Exception as error:  # as above
        return f"the NVIDIA driver failed ({type(error).__name__}: {error})"
    return (
        "the CUDA toolkit's compiler (NVVM and libdevice) was not found; install the toolkit and set CUDA_HOME, or "
        "pip install 'numba-cuda[cu13]'"
    )


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
