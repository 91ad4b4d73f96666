"""Receptive fields of stacks: how much of the input one output depends on, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from fastdil.theory.footprint import Footprint, Track, has_phases, stack_footprint, stack_period
from fastdil.theory.layers import AnyLayer, AxisLayer, is_per_axis, parse_layers, per_axis_result, stack_axes


class ReceptiveField(NamedTuple):
    """What one output sees of the input. Tuples, one entry per axis, if the layers were given per axis.

    Attributes
    ----------
    size : int or tuple of int
        Input pixels from the first to the last that an output depends on, holes included. Behind a transposed
        convolution, outputs differ; it is the largest.
    stride : int, Fraction or tuple
        Input pixels between neighbouring outputs.
    start : int, None or tuple
        Left edge of output 0's field, in input pixels; negative in the padding. None where padding ``"same"`` with a
        stride leaves it to the size of the input, and where output 0 sees nothing.
    """

    size: Any
    stride: Any
    start: Any


def receptive_field(layers: Iterable[AnyLayer]) -> ReceptiveField:
    """Receptive field of a stack: ``1 + sum (k_l - 1) d_l J_(l-1)``, its stride and its start.

    Kernels of any size, even ones too; stride, pooling, named and one-sided padding, and upsampling are exact. Branches
    are the business of `receptive_field_graph`.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.

    Returns
    -------
    ReceptiveField
        Numbers, or tuples if a layer has one number per axis.

    Raises
    ------
    TypeError, ValueError
        If `layers` is empty, holds something else, or its layers disagree in their number of axes.

    See Also
    --------
    receptive_fields : after each layer.
    path_counts : how often each position is used.
    effective_receptive_field : the profile of influence, which is much narrower.

    Notes
    -----
    J_l is the product of the strides up to layer l. Source: Araujo, Norris and Sim, "Computing receptive fields of
    convolutional neural networks", Distill 2019. A transposed convolution reaches output o from input i if and only if
    ``o + p - i s = a d`` with 0 <= a < k, which is followed position by position for every phase of the output.

    Examples
    --------
    >>> from fastdil.theory import Layer, Pool, receptive_field
    >>> receptive_field([Layer(3, dilation=d, padding="same") for d in (1, 2, 4, 8)])
    ReceptiveField(size=31, stride=1, start=-15)
    >>> receptive_field([Layer(3), Pool(2), Layer(3)]).size, receptive_field([Layer(3), Layer(3, dilation=2)]).size
    (8, 7)
    >>> receptive_field([Layer((3, 5), dilation=(2, 1)), Layer(2)])
    ReceptiveField(size=(6, 6), stride=(1, 1), start=(0, 0))
    """
    stack = parse_layers(layers)
    fields = []
    for axis in stack_axes(stack):
        track = Track()
        for layer in axis:
            track = track.through(layer)
        fields.append(axis_field(track, axis if has_phases(axis) else None))
    return joined(fields, is_per_axis(stack))


def receptive_fields(layers: Iterable[AnyLayer]) -> list[ReceptiveField]:
    """Receptive field after each layer of a stack.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.

    Returns
    -------
    list of ReceptiveField
        One per layer, the first layer's first.

    Examples
    --------
    Doubling dilations see exponentially far:

    >>> from fastdil.theory import Layer, receptive_fields
    >>> [field.size for field in receptive_fields([Layer(3, dilation=d) for d in (1, 2, 4, 8)])]
    [3, 7, 15, 31]
    """
    stack = parse_layers(layers)
    columns = []
    for axis in stack_axes(stack):
        track, phased, column = Track(), False, []
        for count, layer in enumerate(axis, start=1):
            track, phased = track.through(layer), phased or layer.transposed
            column.append(axis_field(track, axis[:count] if phased else None))
        columns.append(column)
    as_tuple = is_per_axis(stack)
    return [joined(row, as_tuple) for row in zip(*columns, strict=True)]


def axis_field(track: Track, phased: Sequence[AxisLayer] | None) -> ReceptiveField:
    """The field on one axis: the track says it all, unless the stack `phased` upsamples."""
    if phased is None:
        return ReceptiveField(cast(int, track.width) + 1, track.stride, track.first)
    return phased_field([stack_footprint(phased, output) for output in range(stack_period(phased))], track)


def phased_field(prints: Sequence[Footprint], track: Track) -> ReceptiveField:
    """The field from the footprints of all phases, output 0 first."""
    first = prints[0].positions
    start = int(first[0]) if len(first) else None
    return ReceptiveField(max(seen.size for seen in prints), track.stride, start)


def joined(fields: Sequence[ReceptiveField], as_tuple: bool) -> ReceptiveField:
    """Fields of all axes as one: tuples, or the numbers of the only axis."""
    return ReceptiveField(*(per_axis_result(values, as_tuple) for values in zip(*fields, strict=True)))
