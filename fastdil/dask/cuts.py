"""Where dask arrays are cut, and which samples the parts read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdil import partition
from fastdil.errors import bad_type, bad_value
from fastdil.partition import AxisPart
from fastdil.problem import Problem

if TYPE_CHECKING:
    from dask.array import Array


def as_dask(name: str, value: Any) -> Array:
    """`value`, if it is a dask array with chunks of known sizes."""
    try:
        import dask.array as da
    except ImportError as error:
        raise ImportError("fastdil.dask needs dask: pip install 'fastdil[dask]'") from error
    if not isinstance(value, da.Array):
        raise bad_type(name, type(value).__name__, "a dask array; dask.array.from_array makes one")
    if any(np.isnan(size) for size in value.shape):
        raise bad_value(f"{name}.chunks", value.chunks, "chunks of known sizes; compute_chunk_sizes() finds them")
    return value


@dataclass(frozen=True)
class Cuts:
    """The parts that each overlapping axis is cut into; these are the last axes of the array."""

    parts: tuple[tuple[AxisPart, ...], ...]

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the chunks of the result."""
        return tuple(tuple(part.size for part in parts) for parts in self.parts)

    @classmethod
    def of(cls, problem: Problem, chunks: Sequence[Sequence[int]]) -> Cuts:
        """The spatial axes of a convolution."""
        parts = []
        for axis, sizes in zip(range(3 - problem.rank, 3), chunks[-problem.rank :], strict=True):
            bounds = _bounds(sizes)
            cuts = partition.output_bounds(problem, axis, bounds)
            pairs = itertools.pairwise(cuts)
            parts.append(tuple(partition.axis_part(problem, axis, pair, bounds) for pair in pairs))
        return cls(tuple(parts))

    @classmethod
    def around(cls, x: Array, taps: int, distances: dict[int, int], mode: str) -> Cuts:
        """All axes of an array, with the neighbours of a level of the a trous transform along those of `distances`."""
        parts = []
        for axis, sizes in enumerate(x.chunks):
            # Distance 0: every tap stands on the same sample, because beyond the edges that one repeats.
            step = distances.get(axis, 0)
            count, centre = (taps, taps // 2 * step) if step else (1, 0)
            problem = Problem.create(
                (1, 1, x.shape[axis]),
                (2, 1, count),  # two outputs: nothing is shared, so boxes hold nothing but what is wanted
                dilation=max(step, 1),
                padding=((centre, (count - 1) * step - centre),),
                padding_mode=mode,
            )
            bounds = _bounds(sizes)
            pairs = itertools.pairwise(bounds)
            found = (partition.axis_part(problem, 2, pair, bounds) for pair in pairs)
            # All that is read is smoothed; what is wanted stands in the middle.
            parts.append(tuple(part._replace(skip=part.skip + centre) for part in found))
        return cls(tuple(parts))


def _bounds(sizes: Iterable[int]) -> tuple[int, ...]:
    return (0, *itertools.accumulate(sizes))
