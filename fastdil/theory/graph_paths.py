"""Paths through graphs: from one output back to the input, all branches together, on all axes at once.

Where branches meet, counts add up, and a sum of products over the axes is no product any more. So the counts of a
graph are kept for whole fields, in as many dimensions as there are spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from fastdil.errors import bad_value
from fastdil.theory.combs import box
from fastdil.theory.graphs import INPUT, graph_steps, receptive_field_steps
from fastdil.theory.layers import AxisLayer, Sizes, is_per_axis, parse_sizes, stack_axes

#: Counts are at most the number of paths; from here on they are Python integers.
TOO_MANY = 2**63

#: Positions of a graph's field that are listed at most.
_LARGEST_FIELD = 2**24


class Patch(NamedTuple):
    """Amounts at a block of positions, the first of which is `start`."""

    start: tuple[int, ...]
    values: np.ndarray


class GraphPaths(NamedTuple):
    """What leads to one output of a graph: paths, or their shares where they are too many; and where there are any."""

    amounts: np.ndarray
    support: np.ndarray
    is_per_axis: bool


def output_indices(output: Sizes, rank: int, as_tuple: bool) -> tuple[int, ...]:
    """The output asked for, on each axis."""
    index = parse_sizes("output", output, least=0)
    if isinstance(index, tuple) and not (as_tuple and len(index) == rank):
        raise bad_value("output", output, "one integer, or one per spatial axis of the layers")
    return index if isinstance(index, tuple) else (index,) * rank


def graph_counts(nodes: Any, output: Sizes = 0) -> np.ndarray:
    """`path_counts` of a graph, exact."""
    walk = _Walk(nodes, None)
    dtype = np.int64 if walk.number < TOO_MANY else object
    return _trimmed(walk.back(output, dtype))


def graph_paths(nodes: Any, output: Sizes = 0, rank: int | None = None) -> GraphPaths:
    """Paths to one output of a graph, in floating point where 64 bits do not hold them; `rank` as in `stack_axes`."""
    walk = _Walk(nodes, rank)
    if walk.number < TOO_MANY:
        counts = _trimmed(walk.back(output, np.int64))
        return GraphPaths(counts, counts > 0, walk.is_per_axis)
    support = walk.back(output, bool)
    return GraphPaths(_trimmed(walk.back(output, float), support), _trimmed(support), walk.is_per_axis)


class _Walk:
    """A graph that is ready to be walked from its output to its input."""

    def __init__(self, nodes: Any, rank: int | None) -> None:
        self.steps = graph_steps(nodes)
        stack = tuple(layer for step in self.steps for layer in step.layers)
        columns = zip(*stack_axes(stack, rank), strict=True) if stack else iter(())
        self.layers = {step.name: [next(columns) for _ in step.layers] for step in self.steps}
        self.rank = len(next(row for rows in self.layers.values() for row in rows)) if stack else rank or 1
        self.is_per_axis = rank is not None or is_per_axis(stack)
        field = receptive_field_steps(self.steps).size  # refuses branches that do not meet
        sizes = field if isinstance(field, tuple) else (field,) * self.rank
        if math.prod(sizes) > _LARGEST_FIELD:
            raise bad_value("nodes", sizes, f"a receptive field of at most {_LARGEST_FIELD} positions")
        # Paths to a node, all phases alike; exact for graphs without upsampling, else a bound.
        self.numbers = {INPUT: 1}
        for step in self.steps:
            taps = math.prod(axis.kernel for row in self.layers[step.name] for axis in row)
            self.numbers[step.name] = taps * sum(self.numbers[name] for name in step.inputs)

    @property
    def number(self) -> int:
        """Paths to one output."""
        return self.numbers[self.steps[-1].name]

    def back(self, output: Sizes, dtype: type) -> Patch:
        """Paths from every input to one output; with `dtype` float, their shares of all, with bool, whether any is."""
        indices = output_indices(output, self.rank, self.is_per_axis)
        waiting = {self.steps[-1].name: [Patch(indices, np.ones((1,) * self.rank, dtype))]}
        for step in reversed(self.steps):
            patch = _merged(waiting.pop(step.name))
            for row in reversed(self.layers[step.name]):
                patch = _step_back(row, patch, dtype is float)
            total = sum(self.numbers[name] for name in step.inputs)
            for name in step.inputs:
                values = patch.values * (self.numbers[name] / total) if dtype is float else patch.values
                waiting.setdefault(name, []).append(Patch(patch.start, values))
        return _merged(waiting[INPUT])


def _merged(parts: Sequence[Patch]) -> Patch:
    """Patches of several branches together: amounts at the same position add up."""
    parts = [part for part in parts if part.values.size] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    start = tuple(map(min, zip(*(part.start for part in parts), strict=True)))
    ends = [[at + n for at, n in zip(part.start, part.values.shape, strict=True)] for part in parts]
    size = [max(end) - first for end, first in zip(zip(*ends, strict=True), start, strict=True)]
    total = np.zeros(size, parts[0].values.dtype)
    for part in parts:
        where = (at - first for at, first in zip(part.start, start, strict=True))
        total[tuple(slice(a, a + n) for a, n in zip(where, part.values.shape, strict=True))] += part.values
    return Patch(start, total)


def _step_back(row: Sequence[AxisLayer], patch: Patch, as_share: bool) -> Patch:
    """From amounts on a layer's output to those on its input, axis by axis."""
    start, values = list(patch.start), patch.values
    for number, layer in enumerate(row):
        lo = cast(int, layer.pad_lo() or 0)  # unknown ("same" with a stride) only where it moves all branches alike
        along = np.moveaxis(values, number, 0)
        if not layer.transposed:
            spaced = np.zeros(((len(along) - 1) * layer.stride + 1 if len(along) else 0, *along.shape[1:]), along.dtype)
            spaced[:: layer.stride] = along
            along, start[number] = spaced, start[number] * layer.stride - lo
        if len(along):
            along = box(along, (layer.kernel, layer.dilation))
        if as_share:
            along = along / layer.kernel
        if layer.transposed:  # output o meets input (o + lo - a d) / s
            first = start[number] + lo - layer.reach
            skipped = -first % layer.stride
            along, start[number] = along[skipped :: layer.stride], (first + skipped) // layer.stride
        values = np.moveaxis(along, 0, number)
    return Patch(tuple(start), values)


def _trimmed(patch: Patch, like: Patch | None = None) -> np.ndarray:
    """The amounts from the first position with any to the last, on each axis (of those in `like`)."""
    there = (like or patch).values.astype(bool)
    for number in range(there.ndim):
        others = tuple(axis for axis in range(there.ndim) if axis != number)
        seen = np.flatnonzero(there.any(axis=others))
        keep = slice(seen[0], seen[-1] + 1) if len(seen) else slice(0)
        index = (*(slice(None),) * number, keep)
        there, patch = there[index], Patch(patch.start, patch.values[index])
    return patch.values
