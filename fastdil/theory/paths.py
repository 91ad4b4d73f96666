"""Path counts: how many ways lead from each input of a receptive field to one output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from fastdil.errors import bad_value
from fastdil.theory.combs import combs, counts
from fastdil.theory.footprint import Track, has_phases, stack_footprint
from fastdil.theory.graph_paths import TOO_MANY, graph_counts, output_indices
from fastdil.theory.graphs import is_graph
from fastdil.theory.layers import AnyLayer, AxisLayer, Sizes, is_per_axis, parse_layers, stack_axes

#: Positions listed at most: 2 GiB of counts.
_LARGEST_FIELD = 2**28


def path_number(axis: Sequence[AxisLayer]) -> int:
    """All paths to one output of a stack without upsampling: the product of the kernel sizes. A bound with it."""
    return math.prod(layer.kernel for layer in axis)


def check_size(layers: Sequence[AnyLayer], axes: Sequence[Sequence[AxisLayer]], together: bool = False) -> None:
    """Refuse a stack whose field is too large to list, on one axis or all of them `together`."""
    sizes = [math.ceil(reduce(Track.through, axis, Track()).width) + 1 for axis in axes]
    size = math.prod(sizes) if together else max(sizes)
    if size > _LARGEST_FIELD:
        raise bad_value("layers", layers, f"a receptive field of at most {_LARGEST_FIELD} positions, not {size}")


def count_dtype(axis: Sequence[AxisLayer]) -> type:
    """int64 where the product of the kernel sizes fits, else object: Python integers."""
    return np.int64 if path_number(axis) < TOO_MANY else object


def axis_counts(axis: Sequence[AxisLayer], output: int = 0) -> np.ndarray:
    """Path counts on one axis, exact."""
    dtype = count_dtype(axis)
    if has_phases(axis):
        return stack_footprint(axis, output, dtype).dense()
    return counts(combs(axis), dtype)


def path_counts(layers: Any, output: Sizes = 0) -> np.ndarray:
    """Number of paths from each input of the receptive field to one output.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample; or nodes
        First layer first, at least one; or a graph as in `receptive_field_graph`.
    output : int or tuple of int
        Which output; it matters only behind a transposed layer, where the counts depend on the output's phase.

    Returns
    -------
    ndarray
        As long as the receptive field, first position first; one axis per spatial axis if a layer has one number per
        axis (for a stack the outer product of the axes). int64 if there are fewer than 2**63 paths, else an object
        array of Python integers: always exact. Empty if the output reads nothing.

    Raises
    ------
    TypeError, ValueError
        If `layers` is no stack, its field has more than 2**28 positions, or `output` does not fit.

    See Also
    --------
    coverage : what follows from the counts.

    Notes
    -----
    The counts are what a stack with all weights 1 answers to an impulse, and the gradient of one output with respect
    to every input. With all-positive weights they are the coefficients of a product of box polynomials. Time grows
    with the size of the field and the logarithm of the kernel size, per layer; thousands of equal layers take one
    recurrence instead.

    Examples
    --------
    >>> from fastdil.theory import Layer, Upsample, path_counts
    >>> path_counts([Layer(3, dilation=d) for d in (1, 2, 4)])
    array([1, 1, 2, 1, 3, 2, 3, 1, 3, 2, 3, 1, 2, 1, 1])
    >>> path_counts([Layer((2, 1)), Layer((2, 3))])
    array([[1, 1, 1],
           [2, 2, 2],
           [1, 1, 1]])
    >>> path_counts({"c": (Layer(3, padding=1), "input"), "sum": ("add", ["c", "input"])})
    array([1, 2, 1])
    >>> [path_counts([Upsample(2), Layer(3, padding=1)], output).tolist() for output in (0, 1)]
    [[1, 2], [2, 1]]
    """
    if is_graph(layers):
        return graph_counts(layers, output)
    stack = parse_layers(layers)
    axes = stack_axes(stack)
    check_size(stack, axes, together=True)
    indices = output_indices(output, len(axes), is_per_axis(stack))
    along = [axis_counts(axis, at) for axis, at in zip(axes, indices, strict=True)]
    if math.prod(path_number(axis) for axis in axes) >= TOO_MANY:
        along = [counts.astype(object) for counts in along]
    return reduce(np.multiply.outer, along)
