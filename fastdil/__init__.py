"""fastdil: dilated (atrous) convolution on NumPy arrays, fast on the CPU, explained, and easy to design with.

>>> import numpy as np, fastdil
>>> fastdil.conv2d(np.ones((3, 64, 64)), np.ones((8, 3, 3, 3)), dilation=15, padding="same").shape
(8, 64, 64)

Importing it loads neither Numba nor SciPy: names are fetched on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastdil._version import __version__

#: Public name -> module that holds it.
_HOME = {
    "conv": "functional",
    "conv1d": "functional",
    "conv2d": "functional",
    "conv3d": "functional",
    "explain": "functional",
    "warmup": "functional",
    "convolve": "signals",
    "correlate": "signals",
    "conv_blocks": "blocks",
    "plan": "plans",
    "Plan": "plans",
    "Stream": "streaming",
    "StreamBlock": "streaming",
    "StreamStack": "streaming",
    "Explanation": "dispatch",
    "methods": "algorithms",
    "machine": "hardware",
    "Machine": "hardware",
    "Problem": "problem",
    "atrous_transform": "wavelets",
    "inverse_atrous_transform": "wavelets",
    "atrous_noise": "wavelets",
    "atrous_threshold": "wavelets",
    "MiniRocket": "rocket",
    "filter_bank": "banks",
}

#: Packages inside this one that are loaded when first used.
_PACKAGES = ("cuda", "theory")

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"fastdil.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'fastdil' has no attribute {name!r}")
    value = getattr(import_module(f"fastdil.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])


if TYPE_CHECKING:
    from fastdil import cuda, theory
    from fastdil.algorithms import methods
    from fastdil.banks import filter_bank
    from fastdil.blocks import conv_blocks
    from fastdil.dispatch import Explanation
    from fastdil.functional import conv, conv1d, conv2d, conv3d, explain, warmup
    from fastdil.hardware import Machine, machine
    from fastdil.plans import Plan, plan
    from fastdil.problem import Problem
    from fastdil.rocket import MiniRocket
    from fastdil.signals import convolve, correlate
    from fastdil.streaming import Stream, StreamBlock, StreamStack
    from fastdil.wavelets import atrous_noise, atrous_threshold, atrous_transform, inverse_atrous_transform
