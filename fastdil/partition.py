"""A convolution cut into boxes of outputs that are computed apart, with the bits that they have in one piece.

A box needs the samples that its taps touch, and the edges of the whole only where its taps reach beyond them. There,
padding zeros stay padding, so that the same taps are left out as in one piece; other padding modes are samples that
stand elsewhere, and are fetched. Nothing here computes: `fastdil.blocks` and `fastdil.dask` read the samples and run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastdil import plans
from fastdil.arguments import Pair
from fastdil.dispatch import choose, parse_method
from fastdil.padding import source_indices
from fastdil.problem import ConvSpec, Problem

#: `direct` lets up to this many outputs that are a dilation apart share their samples, counted from the first of all,
#: and may sum in another order where there are fewer. A box holds whole sets.
_SHARED_ROWS = 4
#: The axis (height) whose outputs do so.
_SHARED_AXIS = 1


class Segment(NamedTuple):
    """Neighbouring samples of one axis, all of one block of the source."""

    block: int
    start: int  #: within the block
    stop: int
    order: np.ndarray | None  #: which of them to take; None for all as they stand


class AxisPart(NamedTuple):
    """One spatial axis of a box."""

    segments: tuple[Segment, ...]  #: samples to read, in this order; at least one segment, which may be empty
    padding: Pair  #: zeros before and after them
    skip: int  #: outputs computed before the first one that is wanted
    first: int  #: outputs wanted
    last: int

    @property
    def size(self) -> int:
        """Outputs wanted."""
        return self.last - self.first


def axis_part(problem: Problem, axis: int, outputs: Pair, bounds: Sequence[int]) -> AxisPart:
    """What outputs ``[first, last)`` of a spatial axis read, where the source is cut at `bounds`, from 0 to its size.

    >>> p = Problem.create((1, 1, 100), (2, 1, 3), dilation=8, padding=8)
    >>> axis_part(p, 2, (0, 20), (0, 50, 100))
    AxisPart(segments=(Segment(block=0, start=0, stop=28, order=None),), padding=(8, 0), skip=0, first=0, last=20)
    """
    begin, end = _widened(problem, axis, outputs)
    window, stride = problem.windows[axis], problem.stride[axis]
    first = begin * stride - window.lo
    last = (end - 1) * stride - window.lo + problem.effective_kernel[axis]
    inside = (min(max(first, 0), window.size), min(max(last, 0), window.size))
    if problem.padding_mode == "zeros":
        before, after, padding = [], [], (min(-first, last - first) if first < 0 else 0, 0)
        padding = (padding[0], last - first - padding[0] - (inside[1] - inside[0]))
    else:
        before = _beyond(problem, axis, first, min(last, 0), bounds)
        after = _beyond(problem, axis, max(first, window.size), last, bounds)
        padding = (0, 0)
    middle = _contiguous(inside[0] + window.crop, inside[1] + window.crop, bounds)
    segments = (*before, *middle, *after) or (Segment(0, 0, 0, None),)
    return AxisPart(segments, padding, outputs[0] - begin, *outputs)


def samples_read(problem: Problem, axis: int, outputs: int) -> int:
    """Samples that so many neighbouring outputs of an axis read, padding included."""
    first, last = _widened(problem, axis, (0, outputs))
    if problem.group_out == 1 and axis == _SHARED_AXIS:
        last += 2 * least_outputs(problem, axis)
    return (min(last, problem.out_size[axis]) - first - 1) * problem.stride[axis] + problem.effective_kernel[axis]


def least_outputs(problem: Problem, axis: int) -> int:
    """Outputs of an axis that are computed even where fewer are wanted."""
    if problem.group_out > 1 or problem.kernel[axis] == 1:
        return 1
    return _SHARED_ROWS * max(problem.dilation[axis] // problem.stride[axis], 1)


def _widened(problem: Problem, axis: int, outputs: Pair) -> Pair:
    """The outputs to compute, so that those that are wanted have the bits that they have in one piece."""
    first, last = outputs
    least = least_outputs(problem, axis)
    last = min(max(last, first + least), problem.out_size[axis])
    first = max(min(first, last - least), 0)
    if axis == _SHARED_AXIS:
        return first - first % least, min(last + -last % least, problem.out_size[axis])
    return first, last


def _contiguous(start: int, stop: int, bounds: Sequence[int]) -> list[Segment]:
    if start >= stop:
        return []
    block = int(np.searchsorted(bounds, start, side="right")) - 1
    segments = []
    while start < stop:
        end = min(stop, bounds[block + 1])
        if end > start:
            segments.append(Segment(block, start - bounds[block], end - bounds[block], None))
        start, block = max(start, end), block + 1
    return segments


def _beyond(problem: Problem, axis: int, first: int, last: int, bounds: Sequence[int]) -> list[Segment]:
    """The samples that the padding mode puts at positions ``[first, last)`` beyond an edge, one run per block."""
    if first >= last:
        return []
    window = problem.windows[axis]
    sources = window.crop + source_indices(np.arange(first, last), window.size, problem.padding_mode)
    blocks = np.searchsorted(bounds, sources, side="right") - 1
    segments = []
    for run in np.split(np.arange(len(sources)), np.flatnonzero(np.diff(blocks)) + 1):
        block, at = int(blocks[run[0]]), sources[run] - bounds[blocks[run[0]]]
        start, stop = int(at.min()), int(at.max()) + 1
        order = at - start
        is_plain = len(order) == stop - start and bool(np.all(np.diff(order) == 1))
        segments.append(Segment(block, start, stop, None if is_plain else order))
    return segments


def output_bounds(problem: Problem, axis: int, bounds: Sequence[int]) -> list[int]:
    """Where to cut the outputs of an axis so that each part reads mostly one block of the source: at the middle tap."""
    outputs, stride = problem.out_size[axis], problem.stride[axis]
    shift = problem.padding[axis][0] - (problem.effective_kernel[axis] - 1) // 2
    inner = {min(max(-(-(bound + shift) // stride), 0), outputs) for bound in bounds[1:-1]}
    return sorted({0, outputs, *inner})


def method_names(problem: Problem, method: str, threads: int) -> tuple[str, ...]:
    """Methods to try in turn on every box, chosen for the whole problem."""
    parse_method(method)
    if problem.is_empty:
        return ("auto",)
    return tuple(algorithm.name for algorithm in choose(problem, method, threads))


def box_spec(spec: ConvSpec, parts: Sequence[AxisPart]) -> dict[str, Any]:
    """Arguments of `fastdil.plan` for a box, but for weights and method; `parts` of the axes that the user sees."""
    lead = 3 - spec.rank
    return {
        "stride": spec.stride[lead:],
        "dilation": spec.dilation[lead:],
        "padding": tuple(part.padding for part in parts),
        "groups": spec.groups,
        "padding_mode": spec.padding_mode,
        "activation": spec.activation,
        "precision": spec.precision,
    }


def trimmed(parts: Sequence[AxisPart]) -> tuple[slice, ...]:
    """Which outputs of a computed box are wanted, along the spatial axes."""
    return tuple(slice(part.skip, part.skip + part.size) for part in parts)


def run(samples: np.ndarray, w: np.ndarray, bias: np.ndarray | None, names: Sequence[str], threads: int, spec: dict):
    """The convolution of a box's samples by the first of the methods that takes them."""
    for name in names[:-1]:
        try:
            return plans.plan(w, bias, method=name, threads=threads, **spec)(samples)
        except ValueError:  # refused for a box of this shape, or for what the samples are
            continue
    return plans.plan(w, bias, method=names[-1], threads=threads, **spec)(samples)
