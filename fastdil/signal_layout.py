"""How a filter along some axes of an array becomes a problem with one batch axis and three spatial ones.

Samples are not moved. The first batch axes are the batch; where memory does not let batch axes merge into one, the
others become spatial axes with a single tap. A batch axis behind a tap axis can be *folded* into it: filtering each of
C interleaved signals is filtering the one signal of all samples, with C times the dilation. So vectors are full however
few signals there are, and no transposed copy is made.

A forced method must give the same bits however the leading batch axis is split. So its layout does not follow predicted
times, which depend on sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastdil.arguments import LARGEST, as_int, per_axis
from fastdil.errors import bad_type, bad_value
from fastdil.problem import effective_kernel_size

SIGNAL_MODES = ("full", "same", "valid", "causal")
#: Boundary modes under which axes fold; the others continue a signal with its own samples in another order.
_FOLDING = ("zeros", "circular")
#: Spatial axes of a problem.
_SPATIAL = 3
#: Fewer signals behind the last tap axis than this leave vectors empty unless they are folded.
_WIDE = 32


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


#: Axes that lie behind each other, each with its stride in bytes.
Runs = list[tuple[Axis, int]]


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
    """Axes that fold only after they have been extended in a copy."""
    found, behind = [], 1
    for index in reversed(range(len(axes))):
        axis = axes[index]
        if axis.taps == 1:
            behind *= axis.size
            continue
        if behind > 1 and _is_continued(axis) and boundary not in _FOLDING:
            found.append(index)
        behind = 1
    return found


def lay_out(
    axes: Sequence[Axis], strides: Sequence[int], boundary: str, method: str, dilation: object = None
) -> list[Layout]:
    """Ways to see an input as that of a problem, as it lies in memory; none if it must be copied first.

    Several only where the method is free: a transform takes many rows of a spatial axis at a time, but one member of a
    batch after the other, and is cut according to the sizes of spatial axes.
    """
    runs = _runs(axes, strides)
    folded = _fold(runs, boundary)
    ways = [] if folded is None else _ways(folded)
    if (folded is None or len(folded) < len(runs)) and _is_wide(runs):
        ways += _ways(runs)
    ways = ways if method == "auto" else ways[:1]
    for way in ways:
        for axis in way.spatial:
            if axis.size + axis.lo + axis.hi + axis.taps * axis.dilation >= LARGEST:
                raise bad_value("dilation", dilation, "taps that reach, over all signals, fewer than 2**60 samples")
    return ways


def _is_continued(axis: Axis) -> bool:
    return axis.lo > 0 or axis.hi > 0


def _is_wide(runs: Runs) -> bool:
    return runs[-1][0].taps > 1 or runs[-1][0].size >= _WIDE


def _runs(axes: Sequence[Axis], strides: Sequence[int]) -> Runs:
    """The axes, batch axes that are neighbours merged where memory allows; at least one."""
    runs: Runs = []
    for axis, stride in zip(axes, strides, strict=True):
        if axis.taps > 1:
            runs.append((axis, stride))
        elif axis.size > 1 and runs and runs[-1][0].taps == 1 and runs[-1][1] == stride * axis.size:
            runs[-1] = Axis(runs[-1][0].size * axis.size), stride
        elif axis.size > 1:
            runs.append((axis, stride))
    return runs or [(Axis(1), 0)]


def _fold(runs: Runs, boundary: str) -> Runs | None:
    """Batch axes behind a tap axis folded into it, or None if memory or the boundary do not allow that."""
    folded: Runs = []
    for axis, stride in runs:
        if axis.taps > 1 or all(before.taps == 1 for before, _ in folded):
            folded.append((axis, stride))
            continue
        target, step = folded[-1]
        if (target.size > 1 and step != stride * axis.size) or (_is_continued(target) and boundary not in _FOLDING):
            return None
        count = axis.size
        folded[-1] = (
            Axis(target.size * count, target.taps, target.dilation * count, target.lo * count, target.hi * count),
            stride,
        )
    return folded


def _ways(runs: Runs) -> list[Layout]:
    """With the first axis as the batch, and with no batch: as far as the axes are enough for that."""
    ways = []
    if runs[0][0].taps == 1 and 2 <= len(runs) <= 1 + _SPATIAL:
        ways.append(_layout(runs[0], runs[1:]))
    if len(runs) <= _SPATIAL:
        ways.append(_layout((Axis(1), 0), runs))
    return ways


def _layout(batch: tuple[Axis, int], spatial: Runs) -> Layout:
    padded = [(Axis(1), 0)] * (_SPATIAL - len(spatial)) + spatial
    strides = (batch[1], 0, *(stride for _, stride in padded))
    return Layout(batch[0].size, tuple(axis for axis, _ in padded), strides)


def contiguous_strides(shape: Sequence[int], itemsize: int) -> list[int]:
    """Strides of a C-contiguous array, in bytes."""
    return [itemsize * math.prod(shape[index + 1 :]) for index in range(len(shape))]
