"""A dask array whose chunks are functions of overlapping boxes of another one.

`dask.array.map_overlap` wants chunks at least as long as the overlap. Here a box takes its samples from as many chunks
as hold them, each cut to what is needed where it is, so that only that travels between workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdil.partition import AxisPart

if TYPE_CHECKING:
    from dask.array import Array


@dataclass(frozen=True)
class _Box:
    """What a task needs to know about its box; dask must not look inside."""

    parts: tuple[AxisPart, ...]
    orders: tuple[tuple[np.ndarray | None, ...], ...]  #: per axis that is put together, and piece
    first_axis: int  #: of these


def _compute(operation: Callable, pieces: Any, box: _Box) -> np.ndarray:
    """Put the pieces of a box together, and run; `pieces` is a list of lists, as deep as there are axes to join."""
    return operation(np.ascontiguousarray(_joined(pieces, box.orders, box.first_axis)), box.parts)


def _joined(pieces: Any, orders: Sequence[Sequence[np.ndarray | None]], axis: int) -> np.ndarray:
    if not isinstance(pieces, list):
        return pieces
    inner, rest = orders[0], orders[1:]
    arrays = [_joined(piece, rest, axis + 1) for piece in pieces]
    taken = [a if order is None else a.take(order, axis) for a, order in zip(arrays, inner, strict=True)]
    return taken[0] if len(taken) == 1 else np.concatenate(taken, axis)


def overlapped(
    name: str,
    x: Array,
    operation: Callable,
    cuts: Sequence[Sequence[AxisPart]],
    chunks: tuple[tuple[int, ...], ...],
    dtype: np.dtype,
    lead: int,
) -> Array:
    """The array whose chunks are `operation` of the boxes of `x` that `cuts` describe, one list of parts per axis.

    The first `lead` axes are not cut anew; axes between these and those of the cuts (channels) are read whole.
    """
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    key = f"{name}-{tokenize(x.name, operation, chunks)}"
    middle = x.ndim - lead - len(cuts)
    extra = len(chunks) - x.ndim  # a new first axis
    whole: list[list] = [[(block, None, None) for block in range(len(x.chunks[lead + at]))] for at in range(middle)]
    graph: dict = {f"{key}-operation": operation}
    for outer in itertools.product(*(range(len(x.chunks[axis])) for axis in range(lead))):
        for place in itertools.product(*(range(len(parts)) for parts in cuts)):
            parts = tuple(axis[at] for axis, at in zip(cuts, place, strict=True))
            reads: list[list] = [*whole, *([(s.block, s, s.order) for s in part.segments] for part in parts)]
            orders = tuple(tuple(order for _, _, order in axis) for axis in reads)
            at = (*(0,) * extra, *outer, *(0,) * middle, *place)
            pieces = _pieces(graph, key, x, outer, reads)
            graph[(key, *at)] = (_compute, f"{key}-operation", pieces, _Box(parts, orders, lead))
    layers = HighLevelGraph.from_collections(key, graph, dependencies=[x])  # type: ignore[list-item]
    return da.Array(layers, key, chunks=chunks, meta=np.empty((0,) * len(chunks), dtype))


def _pieces(graph: dict, key: str, x: Array, outer: tuple[int, ...], reads: Sequence, chosen: tuple = ()) -> Any:
    """Keys of the pieces of a box as lists of lists; pieces of chunks are cut where these are, so little travels."""
    if len(chosen) < len(reads):
        return [_pieces(graph, key, x, outer, reads, (*chosen, entry)) for entry in reads[len(chosen)]]
    block = (x.name, *outer, *(at for at, _, _ in chosen))
    slices, is_whole = [slice(None)] * len(outer), True
    for sizes, (at, segment, _) in zip(x.chunks[len(outer) :], chosen, strict=True):
        start, stop = (0, sizes[at]) if segment is None else (segment.start, segment.stop)
        is_whole = is_whole and (start, stop) == (0, sizes[at])
        slices.append(slice(start, stop))
    if is_whole:
        return block
    ends = (end for piece in slices[len(outer) :] for end in (piece.start, piece.stop))
    part = (f"{key}-part", *block[1:], *ends)
    graph[part] = (_cut, block, tuple(slices))
    return part


def _cut(block: np.ndarray, slices: tuple[slice, ...]) -> np.ndarray:
    """A piece of a chunk. A small one is copied: a view would keep the whole chunk in memory."""
    piece = block[slices]
    return piece.copy() if 2 * piece.size < block.size else piece
