"""What an output sees on one axis: forwards as an affine track, backwards as the exact set of input positions.

A convolution maps an output to inputs with whole jumps, so its track tells everything. Behind a transposed
convolution the set of inputs depends on the output's phase; there the positions themselves are followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fastdil.errors import bad_value
from fastdil.theory.layers import AxisLayer

Rational = int | Fraction


def simplest(value: Rational) -> Rational:
    """A Python int where the value is whole."""
    return value.numerator if value.denominator == 1 else value


class Track(NamedTuple):
    """Output o of a layer sees input positions from ``first + o * stride`` to that plus `width`.

    Behind a transposed convolution these are the bounds of the affine map, which need not be whole numbers.
    `first` is None where padding "same" makes it depend on the size of the input.
    """

    stride: Rational = 1
    first: Rational | None = 0
    width: Rational = 0

    def through(self, layer: AxisLayer) -> Track:
        """The track behind one more layer (Araujo et al. 2019); a transposed one maps the other way."""
        lo = layer.pad_lo()
        if layer.transposed:
            stride = unit = simplest(Fraction(self.stride) / layer.stride)
            shift = None if lo is None else lo - layer.reach
        else:
            stride, unit = self.stride * layer.stride, self.stride
            shift = None if lo is None else -lo
        first = None if self.first is None or shift is None else simplest(self.first + shift * unit)
        return Track(stride, first, simplest(self.width + layer.reach * unit))


class Footprint(NamedTuple):
    """Input positions that one output reads, in ascending order, and the number of paths to each."""

    positions: np.ndarray
    counts: np.ndarray

    @property
    def size(self) -> int:
        """Positions from the first to the last, holes included; 0 if the output reads nothing."""
        return int(self.positions[-1] - self.positions[0]) + 1 if len(self.positions) else 0

    def dense(self) -> np.ndarray:
        """Paths to every position from the first to the last."""
        counts = np.zeros(self.size, self.counts.dtype)
        if self.size:
            counts[self.positions - self.positions[0]] = self.counts
        return counts


def one_output(index: int, dtype: type = np.int64) -> Footprint:
    """The footprint of output `index` on the layer's own output."""
    return Footprint(np.array([index]), np.array([1], dtype))


def merged(parts: Sequence[Footprint]) -> Footprint:
    """Footprints of several branches together: paths to the same position add up."""
    positions, inverse = np.unique(np.concatenate([part.positions for part in parts]), return_inverse=True)
    counts = np.concatenate([part.counts for part in parts])
    total = np.zeros(len(positions), counts.dtype)
    np.add.at(total, inverse, counts)
    return Footprint(positions, total)


def step_back(layer: AxisLayer, seen: Footprint) -> Footprint:
    """From positions on a layer's output to those on its input: ``o s - p + a d``, transposed ``(o + p - a d) / s``."""
    lo = layer.pad_lo()
    if lo is None:
        raise bad_value("padding", layer.padding, "numbers: below a transposed layer, its phase must be known")
    taps = np.arange(layer.kernel) * layer.dilation
    counts = np.repeat(seen.counts, layer.kernel)
    if layer.transposed:
        positions = (seen.positions[:, None] + lo - taps).ravel()
        meets = positions % layer.stride == 0
        positions, counts = positions[meets] // layer.stride, counts[meets]
    else:
        positions = (seen.positions[:, None] * layer.stride - lo + taps).ravel()
    return merged([Footprint(positions, counts)])


def stack_footprint(layers: Sequence[AxisLayer], output: int, dtype: type = np.int64) -> Footprint:
    """What output number `output` of a stack reads, by exact positions."""
    seen = one_output(output, dtype)
    for layer in reversed(layers):
        seen = step_back(layer, seen)
    return seen


def period(strides: Sequence[Rational]) -> int:
    """Outputs after which the pattern of a stack repeats, from the strides of all its stages, the last one first."""
    return math.lcm(*(Fraction(strides[0], stride).denominator for stride in strides))


def stack_period(layers: Sequence[AxisLayer]) -> int:
    """Phases of a stack's outputs: 1 unless a transposed layer makes them differ."""
    strides: list[Rational] = [1]
    for layer in layers:
        strides.append(Track(strides[-1]).through(layer).stride)
    return period(strides[::-1])


def has_phases(layers: Sequence[AxisLayer]) -> bool:
    """True if a layer upsamples, so that outputs differ by phase."""
    return any(layer.transposed for layer in layers)
