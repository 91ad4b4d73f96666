"""Which dtypes arrays may have, and in which one a convolution computes and returns."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

import numpy as np

from fastdil.errors import bad_type


def as_dtype(value: object) -> np.dtype:
    """`value` as a NumPy dtype."""
    if isinstance(value, str) and value == "bfloat16":
        with suppress(ImportError):
            import_module("ml_dtypes")  # NumPy knows the name from then on
    try:
        return np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        raise bad_type("dtype", value, "a NumPy dtype") from None


def is_number(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype hold numbers: NumPy's own, or the bfloat16 of `ml_dtypes`."""
    return dtype.kind in "biufc" or dtype.name == "bfloat16"


def result_dtypes(*dtypes: np.dtype) -> tuple[np.dtype, np.dtype]:
    """``(compute, result)`` dtypes of a convolution of arrays with these dtypes.

    Mixed dtypes follow `numpy.result_type`; bool counts as uint8; float16 and bfloat16 compute in float32.

    >>> result_dtypes(np.dtype("int16"), np.dtype("float32"))
    (dtype('float32'), dtype('float32'))
    >>> result_dtypes(np.dtype("float16"))
    (dtype('float32'), dtype('float16'))
    """
    for dtype in dtypes:
        if not is_number(dtype) or (dtype.kind in "fc" and dtype.itemsize > 8 * (1 + (dtype.kind == "c"))):
            raise bad_type(
                "dtype",
                dtype.name,
                "bool, an integer type, float16, bfloat16, float32, float64, complex64 or complex128",
            )
    try:
        result = np.result_type(*dtypes).newbyteorder("=")
    except TypeError:  # bfloat16 beside float16 or wide integers, before ml_dtypes 0.7
        raise bad_type("dtype", " and ".join(dtype.name for dtype in dtypes), "dtypes that NumPy can combine") from None
    if result.kind == "b":
        result = np.dtype(np.uint8)
    compute = np.dtype(np.float32) if result.name in ("float16", "bfloat16") else result
    return compute, result
