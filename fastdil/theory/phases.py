"""Stride together with dilation: which phase of the input each output reads, and how much is never read.

Output i reads ``i s + a d - p``, so all its taps share the residue of ``i s - p`` modulo d: its phase. Neighbouring
outputs read different phases, in a pattern that repeats with period d / gcd(s, d) and shows as a checkerboard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from fastdil.arguments import as_int
from fastdil.theory.layers import Layer, Sizes, per_axis_result

T = TypeVar("T")


def phase_sequence(n: int, stride: int, dilation: int, padding: int = 0) -> np.ndarray:
    """Phase of the input that each of the first `n` outputs reads: ``(i * stride - padding) mod dilation``.

    Parameters
    ----------
    n : int
        Number of outputs, at least 0.
    stride, dilation : int
        At least 1.
    padding : int
        Before the first sample.

    Returns
    -------
    ndarray of int64
        Shape ``(n,)``, values 0 to ``dilation - 1``.

    Examples
    --------
    >>> phase_sequence(6, stride=2, dilation=4, padding=1)
    array([3, 1, 3, 1, 3, 1])
    >>> phase_sequence(6, stride=1, dilation=3)
    array([0, 1, 2, 0, 1, 2])
    """
    n, step = as_int("n", n, 0), as_int("stride", stride, 1)
    modulus, lo = as_int("dilation", dilation, 1), as_int("padding", padding)
    repeats = modulus // math.gcd(step, modulus)
    if n * modulus < 2**62:
        return (np.arange(n) % repeats * (step % modulus) - lo % modulus) % modulus
    return np.array([(i * step - lo) % modulus for i in range(n)], np.int64)


def checkerboard_period(stride: Sizes, dilation: Sizes) -> Sizes:
    """Outputs after which the phases repeat: ``d / gcd(s, d)``.

    Parameters
    ----------
    stride, dilation : int or tuple of int
        At least 1; one number for all axes or one per axis.

    Returns
    -------
    int or tuple of int
        1 means no pattern: dilation divides stride, and all outputs read the same phase.

    Examples
    --------
    >>> checkerboard_period(1, 2), checkerboard_period(2, 4), checkerboard_period(2, 3), checkerboard_period(4, 2)
    (2, 2, 3, 1)
    """
    return _per_axis(stride, dilation, lambda s, d: d // math.gcd(s, d))


def checkerboard_frequency(stride: Sizes, dilation: Sizes) -> Fraction | tuple[Fraction, ...]:
    """Fundamental frequency of the phase sequence: ``gcd(s, d) / d`` cycles per output sample.

    Parameters
    ----------
    stride, dilation : int or tuple of int
        At least 1; one number for all axes or one per axis.

    Returns
    -------
    Fraction or tuple of Fraction
        1/2 is the Nyquist checkerboard, every other output; 1 means no pattern at all (a period of one output).

    Notes
    -----
    The artefact is often called a checkerboard for every stride with dilation. It is one, at the Nyquist frequency,
    only where ``d = 2 gcd(s, d)``; otherwise its period is longer, and where d divides s there is none.

    Examples
    --------
    >>> checkerboard_frequency(2, 4), checkerboard_frequency(2, 3), checkerboard_frequency(2, 2)
    (Fraction(1, 2), Fraction(1, 3), Fraction(1, 1))
    """
    return _per_axis(stride, dilation, lambda s, d: Fraction(math.gcd(s, d), d))


def input_read_fraction(kernel_size: Sizes, stride: Sizes, dilation: Sizes) -> Fraction | tuple[Fraction, ...]:
    """Share of the input samples that a strided dilated layer reads at all: ``min(k, s / gcd(s, d)) / s``.

    Parameters
    ----------
    kernel_size, stride, dilation : int or tuple of int
        At least 1; one number for all axes or one per axis.

    Returns
    -------
    Fraction or tuple of Fraction
        Per axis, away from the borders.

    Notes
    -----
    The taps of an output differ, modulo the stride, by multiples of g = gcd(s, d), of which there are s / g.

    Examples
    --------
    >>> input_read_fraction(3, 2, 2), input_read_fraction(3, 2, 1), input_read_fraction(3, 4, 6)
    (Fraction(1, 2), Fraction(1, 1), Fraction(1, 2))
    """
    layer = Layer(kernel_size, dilation, stride)
    axes = layer.axes(layer.rank or 1)
    shares = [Fraction(min(a.kernel, a.stride // math.gcd(a.stride, a.dilation)), a.stride) for a in axes]
    return per_axis_result(shares, layer.is_per_axis)


def _per_axis(stride: Sizes, dilation: Sizes, rule: Callable[[int, int], T]) -> Any:
    layer = Layer(1, dilation, stride)
    return per_axis_result([rule(a.stride, a.dilation) for a in layer.axes(layer.rank or 1)], layer.is_per_axis)
