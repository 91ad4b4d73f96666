"""What the algorithms that run compiled kernels share: strides, addresses, packed weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Weights
from fastdil.hardware import machine
from fastdil.kernels.driver import default_threads, launcher
from fastdil.kernels.finite import nonfinite_test
from fastdil.kernels.geometry import ACTIVATE, ELEMENT_KIND, STRIDES
from fastdil.problem import Problem

#: Element kind of the real numbers in floating-point weights, by NumPy's type character.
_FLOAT_KIND = {"f": "f32", "d": "f64", "F": "f32", "D": "f64"}


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


def bound_parameters(problem: Problem, params: np.ndarray, x_strides: tuple[int, ...]) -> np.ndarray:
    """A kernel's parameters for an input with these byte strides: a copy."""
    params = params.copy()
    params[STRIDES] = real_strides(problem, x_strides)
    params[ACTIVATE] = activation_address(problem)
    return params


def activate(problem: Problem, out: np.ndarray) -> None:
    """Apply the activation to a C-contiguous result in place."""
    if problem.activation == "relu":
        np.maximum(out, 0, out=out)
    elif problem.activation is not None:
        from fastdil.kernels.activation import activation_callback

        activation_callback(problem.activation, element_kind(problem)).ctypes(out.ctypes.data, out.size)


def kernel_call(address: int, params: np.ndarray, skip: int, tasks: int, scratch_bytes: int, threads: int) -> Call:
    """The bound call of a kernel that reads its input from `skip` bytes behind the first sample."""
    launch = launcher(address, params, tasks, scratch_bytes, threads)

    def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
        at_bias = 0 if bias is None else address_of(bias)
        launch(address_of(x) + skip, weights.address, at_bias, address_of(out))

    return call


def all_finite(w: np.ndarray) -> bool:
    """True if no weight of a C-contiguous array is Inf or NaN."""
    if w.dtype.kind in "iu":
        return True
    reals = 2 * w.size if w.dtype.kind == "c" else w.size
    return not nonfinite_test(_FLOAT_KIND[w.dtype.char], machine().vector_bytes)(address_of(w), reals)


def pack_weights(problem: Problem, w: np.ndarray, rows: int, *, taps_first: bool, part: int | None = None) -> Weights:
    """Weights as ``[group][part][block][tap][channel][row]``, or with the channel before the tap.

    A part is `part` channels, the last one perhaps fewer, or all of them; a block is `rows` real output rows, the last
    one filled with zeros. A complex output is two rows, by real and by imaginary part.
    """
    packing = _packing(problem, rows, taps_first, part or max(problem.group_in, 1))
    packed, is_nonfinite = np.empty(packing.reals, packing.dtype), np.zeros(1, np.int64)
    address = address_of(packed)
    packing.launch(0, address_of(w), address_of(is_nonfinite), address)
    return Weights(packed, not is_nonfinite[0], address)


class _Packing(NamedTuple):
    """How the weights of one problem are packed."""

    reals: int
    dtype: np.dtype
    launch: Callable[[int, int, int, int], None]


@lru_cache(maxsize=256)  # functional calls pack their weights each time
def _packing(problem: Problem, rows: int, taps_first: bool, part: int) -> _Packing:
    from fastdil.kernels.pack import weight_packer, weight_scratch

    kind, vector_bytes, unit = element_kind(problem), machine().vector_bytes, problem.unit
    group_rows, channels, taps = problem.group_out * unit, problem.group_in, problem.taps
    blocks = -(-group_rows // rows)
    reals, dtype = problem.groups * blocks * rows * channels * taps, np.dtype(f"{kind[0]}{int(kind[1:]) // 8}")
    params = np.array([group_rows, channels, taps, part, taps_first, blocks], np.int64)
    threads = default_threads() if reals * dtype.itemsize > machine().l2 else 1
    packer, scratch = weight_packer(kind, vector_bytes, rows, unit), weight_scratch(kind, vector_bytes, rows)
    return _Packing(reals, dtype, launcher(packer.address, params, problem.groups * blocks, scratch, threads))


def block_tail(problem: Problem, rows: int) -> int:
    """Blocks of `rows` real output rows that one group needs."""
    return -(-problem.group_out * problem.unit // rows)
