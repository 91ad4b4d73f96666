"""Activations, applied to rows of the result right after they are stored, while they are in cache.

``relu`` is part of the store itself; the others are callbacks ``activate(row, count)``. All are computed in float64
and rounded once, so a float32 result is correct to half a unit in the last place but for rare ties.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from fastdil import jit
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.intrinsics import load_element, store_element

#: Slope of ``leaky_relu`` below zero: PyTorch's default.
LEAKY_SLOPE = 0.01


@jit.helper
def _leaky_relu(value):
    return value if value >= 0 or value != value else LEAKY_SLOPE * value


@jit.helper
def _tanh(value):
    return math.tanh(value)


@jit.helper
def _sigmoid(value):
    # Of the two equal forms, the one whose exponential cannot overflow.
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    raised = math.exp(value)
    return raised / (1.0 + raised)


@jit.helper
def _silu(value):
    # The limit at minus infinity is zero, not -inf * 0.
    return value * _sigmoid(value) if value > -800.0 or value != value else 0.0


@jit.helper
def _gelu(value):
    # erfc keeps the relative accuracy of the left tail, where 1 + erf cancels.
    return 0.5 * value * math.erfc(-value * 0.7071067811865476) if value > -40.0 or value != value else 0.0


#: Number by which compiled code knows an activation; ``relu`` never gets here.
_CODES = {"leaky_relu": 0, "tanh": 1, "sigmoid": 2, "silu": 3, "gelu": 4}


@jit.helper
def _apply(code, value):
    """One activation; `code` is a literal, so only its branch is left in the machine code."""
    if code == 0:
        return _leaky_relu(value)
    if code == 1:
        return _tanh(value)
    if code == 2:
        return _sigmoid(value)
    if code == 3:
        return _silu(value)
    return _gelu(value)


@cache
def activation_callback(name: str, kind: str) -> Any:
    """The compiled ``activate(row, count)`` of one activation and element kind."""
    stamp, code, size = jit.source_stamp(), _CODES[name], int(kind[1:]) // 8

    def activate(row, count):
        stamp  # noqa: B018 - a closure cell in the cache key
        for index in range(count):
            at = row + index * size
            store_element(kind, at, _apply(code, load_element(kind, at)))

    return jit.callback(activate, f"activate_{name}_{kind}", 2)


@cache
def gate_kernel(kind: str) -> Any:
    """The kernel that gates: the product of ``tanh`` of the first half of some elements and ``sigmoid`` of the second.

    What others take for weights is the number of elements in a half. Factors are rounded before they are multiplied.
    """
    stamp, size = jit.source_stamp(), int(kind[1:]) // 8

    def gate(params, x, half, unused, out, scratch, task):
        """Task = one signal. The second half of x is overwritten."""
        stamp  # noqa: B018 - a closure cell in the cache key
        x += 2 * task * half * size
        out += task * half * size
        for index in range(half):
            filtered, opened, product = x + index * size, x + (half + index) * size, out + index * size
            store_element(kind, product, _apply(1, load_element(kind, filtered)))
            store_element(kind, opened, _apply(2, load_element(kind, opened)))
            store_element(kind, product, load_element(kind, product) * load_element(kind, opened))

    return jit.callback(gate, f"gate_{kind}", KERNEL_ARGUMENTS)
