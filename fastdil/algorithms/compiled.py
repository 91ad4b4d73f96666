"""What the algorithms that run compiled kernels share: strides, addresses, packed weights."""

from __future__ import annotations

import numpy as np

from fastdil.hardware import machine
from fastdil.kernels.driver import default_threads, execute
from fastdil.kernels.geometry import ELEMENT_KIND
from fastdil.problem import Problem


def element_kind(problem: Problem) -> str:
    """The element kind of the vector layer that computes a problem's dtype."""
    return ELEMENT_KIND[problem.dtype.name]


def real_strides(problem: Problem, x_strides: tuple[int, ...]) -> tuple[int, ...]:
    """Byte strides as strides in real elements: a complex sample is two of them."""
    size = int(element_kind(problem)[1:]) // 8
    return tuple(stride // size for stride in x_strides)


def crop_bytes(problem: Problem, x_strides: tuple[int, ...]) -> int:
    """Distance from the first sample of the input to the first one that is not cropped away."""
    return sum(window.crop * stride for window, stride in zip(problem.windows, x_strides[2:], strict=True))


def activation_address(problem: Problem) -> int:
    """Address of the compiled activation, or 0 where the store itself does it."""
    if problem.activation in (None, "relu"):
        return 0
    from fastdil.kernels.activation import activation_callback

    return activation_callback(problem.activation, element_kind(problem)).address


def activate(problem: Problem, out: np.ndarray) -> None:
    """Apply the activation to a C-contiguous result in place."""
    if problem.activation == "relu":
        np.maximum(out, 0, out=out)
    elif problem.activation is not None:
        from fastdil.kernels.activation import activation_callback

        activation_callback(problem.activation, element_kind(problem)).ctypes(out.ctypes.data, out.size)


def all_finite(w: np.ndarray) -> bool:
    """True if no weight is Inf or NaN."""
    if w.dtype.kind in "iu":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is four times faster than a test of each; if finite weights overflow it, nothing but time is lost.
        return bool(np.isfinite(w.sum()))


def pack_weights(problem: Problem, w: np.ndarray, rows: int, *, taps_first: bool) -> np.ndarray:
    """Weights as ``[group][block][tap][channel][row]`` (or channel before tap), blocks of `rows` real output rows.

    A complex output is two rows, by real and by imaginary part; a last short block is filled with zeros.
    """
    from fastdil.kernels.pack import weight_packer, weight_scratch

    kind, vector_bytes, unit = element_kind(problem), machine().vector_bytes, problem.unit
    group_rows, channels, taps = problem.group_out * unit, problem.group_in, problem.taps
    blocks = -(-group_rows // rows)
    steps = (rows, channels * rows) if taps_first else (taps * rows, rows)
    packed = np.empty(problem.groups * blocks * rows * channels * taps, f"{kind[0]}{int(kind[1:]) // 8}")
    params = np.array([group_rows, channels, taps, *steps, blocks], np.int64)
    threads = default_threads() if packed.nbytes > machine().l2 else 1
    pointers = (0, w.ctypes.data, 0, packed.ctypes.data)
    packer, scratch = weight_packer(kind, vector_bytes, rows, unit), weight_scratch(kind, vector_bytes, rows)
    execute(packer.address, params, pointers, problem.groups * blocks, scratch, threads)
    return packed


def block_tail(problem: Problem, rows: int) -> int:
    """Blocks of `rows` real output rows that one group needs."""
    return -(-problem.group_out * problem.unit // rows)
