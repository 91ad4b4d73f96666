"""Activations, fused into the kernels' stores and computed in the dtype that they are given.

The same formulas as `fastdil.kernels.activation`: no exponential overflows, and both tails keep their digits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from fastdil.cuda.compiled import device_function


@cache
def activation(name: str | None, dtype: str) -> Any:
    """The device function of an activation. Its constants have the dtype, so that nothing is promoted to float64."""
    number = np.dtype(dtype).type
    if name is None:
        return device_function(lambda value: value)
    zero = number(0)
    if name == "relu":
        return device_function(lambda value: value if value >= zero or value != value else zero)
    one, half, slope, root = number(1), number(0.5), number(0.01), number(0.7071067811865476)
    far, farther = number(-40), number(-800)

    def leaky_relu(value):
        return value if value >= zero or value != value else slope * value

    def sigmoid(value):
        raised = math.exp(-abs(value))
        return (one if value >= zero else raised) / (one + raised)

    def silu(value):
        raised = math.exp(-abs(value))
        if value <= farther:  # the limit at minus infinity is zero, not -inf * 0
            return zero
        return (value if value >= zero or value != value else value * raised) / (one + raised)

    def gelu(value):
        return zero if value <= far else half * value * math.erfc(-value * root)

    def tanh(value):
        return math.tanh(value)

    known = {"leaky_relu": leaky_relu, "tanh": tanh, "sigmoid": sigmoid, "silu": silu, "gelu": gelu}
    return device_function(known[name])
