"""How a filter along some axes of an array becomes a problem with one batch axis and three spatial ones.

Samples are not moved. Batch axes before the first tap axis are the batch; where memory does not let them merge into
one, the rest become spatial axes with a single tap. Batch axes behind a tap axis are folded into it: filtering each of
C interleaved signals is filtering the one signal of all samples, with C times the dilation. Only where a boundary mode
looks back into its own signal (reflect, replicate, symmetric) is that wrong, so there this axis is extended in a copy.

Which axis becomes which depends on the positions of the axes alone, never on sizes or strides of batch axes: so the
bits of a result do not depend on how a batch is split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastdil.errors import bad_type, bad_value
from fastdil.problem import as_int, effective_kernel_size, per_axis

SIGNAL_MODES = ("full", "same", "valid", "causal")
#: Boundary modes that fold along with the samples: position p continues at p modulo the size, or is zero.
_FOLDING = ("zeros", "circular")
#: Spatial axes of a problem.
_SPATIAL = 3
#: Positions stay below this, as in `fastdil.problem`.
_LARGEST = 2**60


class Axis(NamedTuple):
    """One axis of the input; a batch axis has one tap and no padding."""

    size: int
    taps: int = 1
    dilation: int = 1
    lo: int = 0  #: samples continued before the first
    hi: int = 0  #: and after the last

    @property
    def outputs(self) -> int:
        """Samples of the result along this axis; none where there are none to filter."""
        if self.size == 0:
            return 0
        return self.size + self.lo + self.hi - effective_kernel_size(self.taps, self.dilation) + 1


class Layout(NamedTuple):
    """The five-dimensional input ``(N, 1, D, H, W)`` of a problem, and what to do with its spatial axes."""

    batch: int
    spatial: tuple[Axis, ...]
    strides: tuple[int, ...]  #: of N, channel, D, H, W, in bytes

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape as `fastdil.problem` wants it."""
        return (self.batch, 1, *(axis.size for axis in self.spatial))


def parse_axes(axes: object, taps_ndim: int, x_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axis of the input that each axis of the taps runs along, counted from the front."""
    ndim = len(x_shape)
    if taps_ndim > ndim:
        raise bad_value("taps", f"array of {taps_ndim} dimensions", f"at most the {ndim} of x, shape {x_shape}")
    if axes is None:
        return tuple(range(ndim - taps_ndim, ndim))
    expected = f"{taps_ndim} different axes of x, one for each of the taps, between {-ndim} and {ndim - 1}"
    if isinstance(axes, str):
        raise bad_type("axes", axes, expected)
    entries = [as_int("axes", axis) for axis in (axes if np.iterable(axes) else (axes,))]  # type: ignore[attr-defined]
    if any(not -ndim <= axis < ndim for axis in entries):
        raise bad_value("axes", axes, expected)
    chosen = tuple(axis % ndim for axis in entries)
    if len(chosen) != taps_ndim or len(set(chosen)) != taps_ndim:
        raise bad_value("axes", axes, expected)
    return chosen


def describe(
    x_shape: tuple[int, ...], taps_shape: tuple[int, ...], chosen: Sequence[int], dilation: object, mode: str
) -> list[Axis]:
    """One `Axis` for each axis of the input."""
    if 0 in taps_shape:
        raise bad_value("taps.shape", taps_shape, "at least one tap on each axis")
    described = [Axis(size) for size in x_shape]
    for at, taps, step in zip(chosen, taps_shape, per_axis("dilation", dilation, len(taps_shape)), strict=True):
        size, reach = x_shape[at], (taps - 1) * step
        if mode == "valid" and reach >= size:
            raise bad_value(
                "taps.shape",
                taps_shape,
                f"at most the {size} samples on axis {at} of x for mode 'valid', but {taps} taps with dilation {step} "
                f"span {reach + 1}",
            )
        if taps > 1:  # a single tap needs no neighbours: as good as a batch axis
            described[at] = Axis(size, taps, step, *_continuation(mode, reach))
    return described


def _continuation(mode: str, reach: int) -> tuple[int, int]:
    """Samples needed before and after the signal. SciPy's "same" starts at number ``reach // 2`` of "full"."""
    half = reach // 2
    return {"full": (reach, reach), "same": (reach - half, half), "valid": (0, 0), "causal": (reach, 0)}[mode]


def axes_to_extend(axes: Sequence[Axis], boundary: str) -> list[int]:
    """Axes that must be extended in a copy, because batch axes are folded into them and the boundary does not fold."""
    if boundary in _FOLDING:
        return []
    found, follows = [], 1
    for index in reversed(range(len(axes))):
        axis = axes[index]
        if axis.taps == 1:
            follows *= axis.size
            continue
        if follows > 1 and (axis.lo or axis.hi):
            found.append(index)
        follows = 1
    return found


def lay_out(axes: Sequence[Axis], strides: Sequence[int], dilation: object) -> list[Layout]:
    """Ways to see the input as that of a problem, best first; none if memory must be rearranged before.

    The second one has all of the batch in spatial axes: transforms take many rows of those at a time, but one member of
    a batch after the other.
    """
    before: list[tuple[Axis, int]] = []
    filtered: list[tuple[Axis, int]] = []
    for axis, stride in zip(axes, strides, strict=True):
        last = filtered or before
        if axis.taps > 1:
            filtered.append((axis, stride))
        elif axis.size > 1 and last and (last[-1][0].size == 1 or last[-1][1] == stride * axis.size):
            last[-1] = _folded(last[-1][0], axis.size), stride
        elif axis.size > 1 and not filtered:
            before.append((axis, stride))
        elif axis.size > 1:
            return []
    for axis, _ in filtered:
        if axis.size + axis.lo + axis.hi + axis.taps * axis.dilation >= _LARGEST:
            raise bad_value("dilation", dilation, "taps that reach, over all signals, fewer than 2**60 samples")
    if not filtered:
        filtered = [before.pop()] if before else [(Axis(1), 0)]
    room = _SPATIAL - len(filtered)
    if len(before) > 1 + room:
        return []
    ways = [_layout(before[0][0].size, before[0][1], [*before[1:], *filtered])] if before else []
    if len(before) <= room:
        ways.append(_layout(1, 0, [*before, *filtered]))
    return ways


def _folded(axis: Axis, count: int) -> Axis:
    """The axis with `count` interleaved signals instead of one."""
    dilation = axis.dilation * count if axis.taps > 1 else 1
    return Axis(axis.size * count, axis.taps, dilation, axis.lo * count, axis.hi * count)


def _layout(batch: int, stride: int, spatial: list[tuple[Axis, int]]) -> Layout:
    padded = [(Axis(1), 0)] * (_SPATIAL - len(spatial)) + spatial
    return Layout(batch, tuple(axis for axis, _ in padded), (stride, 0, *(step for _, step in padded)))


def contiguous_strides(shape: Sequence[int], itemsize: int) -> list[int]:
    """Strides of a C-contiguous array, in bytes."""
    return [itemsize * math.prod(shape[index + 1 :]) for index in range(len(shape))]
