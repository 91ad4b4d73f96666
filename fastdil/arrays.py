"""What a convolution demands of the arrays that it is given, before anything is computed or written.

Only shapes, strides, dtypes and addresses are looked at, so arrays whose memory lies on another device can be checked
in the same words: `fastdil.cuda` describes them as ndarrays that nobody reads.
"""

from __future__ import annotations

import numpy as np

from fastdil.dtypes import is_number
from fastdil.errors import bad_type, bad_value
from fastdil.problem import ConvSpec

#: Steps spent on proving that two arrays do not overlap; interleaved views of one array need few.
_OVERLAP_WORK = 10_000


def is_on_device(value: object) -> bool:
    """Whether a value says that its memory is on a GPU."""
    try:
        return hasattr(value, "__cuda_array_interface__")
    except Exception:  # it is, and refuses: a PyTorch tensor that requires a gradient
        return True


def as_array(name: str, value: object) -> np.ndarray:
    """`value` as an ndarray of a dtype that can be convolved."""
    try:
        array = np.asarray(value)
    except TypeError as error:
        raise bad_type(name, value, f"an array ({error})") from None
    except ValueError as error:
        raise bad_value(name, value, f"an array ({error})") from None
    if not is_number(array.dtype):
        raise bad_type(name, f"array of dtype {array.dtype}", "an array of numbers")
    return array


def check_bias(bias: object, outputs: int) -> np.ndarray | None:
    """A bias of one number per output channel, or None."""
    if bias is None:
        return None
    array = as_array("bias", bias)
    if array.shape != (outputs,):
        raise bad_value("bias.shape", array.shape, f"({outputs},), one number per output channel")
    return array


#: NumPy's flags C_CONTIGUOUS and WRITEABLE.
_PLAIN = 0x0001 | 0x0400


def check_out(out: object, shape: tuple[int, ...], dtype: np.dtype, inputs: tuple[np.ndarray | None, ...]) -> None:
    """Refuse an `out` that cannot hold the result or that shares memory with an input."""
    if not isinstance(out, np.ndarray):
        raise bad_type("out", type(out).__name__, "a NumPy array")
    if out.shape != shape:
        raise bad_value("out.shape", out.shape, f"{shape}, the shape of the result")
    if out.dtype is not dtype and out.dtype.newbyteorder("=") != dtype:
        raise bad_type("out.dtype", out.dtype.name, f"{dtype.name}, the dtype of the result")
    if out.flags.num & _PLAIN != _PLAIN:  # else there is nothing to ask, and asking takes a microsecond
        if not out.flags.writeable:
            raise bad_value("out", "read-only array", "a writeable array")
        if out.size and any(stride == 0 and length > 1 for stride, length in zip(out.strides, out.shape, strict=True)):
            raise bad_value("out.strides", out.strides, "an array whose elements do not share memory")
    for array in inputs:
        if array is not None and _overlap(out, array):
            raise bad_value("out", "array that overlaps an input", "memory shared with no input")


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def check_input(x: np.ndarray, spec: ConvSpec) -> None:
    """Refuse an input whose number of axes fits neither the batched nor the unbatched form."""
    if x.ndim not in (spec.rank + 1, spec.rank + 2):
        raise bad_value(
            "x.shape",
            x.shape,
            f"{spec.rank + 2} dimensions (N, C, *spatial), or {spec.rank + 1} without N, for a {spec.rank}-D kernel",
        )
