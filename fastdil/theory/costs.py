"""What a design costs: weights, multiply-accumulates, memory, streaming state, measured time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastdil.arguments import as_int
from fastdil.dtypes import as_dtype
from fastdil.errors import bad_type, bad_value
from fastdil.theory.graphs import INPUT, JOINS, graph_steps, is_graph
from fastdil.theory.layers import (
    AnyLayer,
    Layer,
    Pool,
    Transposed,
    Upsample,
    as_flag,
    is_series,
    parse_layers,
    stack_axes,
)
from fastdil.theory.tables import aligned, shape_text
from fastdil.theory.taps import taps_inside

Shape = tuple[int, ...]

#: Timed runs of a layer; the shortest counts.
_REPEATS = 5


class LayerCost(NamedTuple):
    """Cost of one layer, for one example.

    Attributes
    ----------
    name : str
        The node's name, with a number for all but the last of its layers; in a stack the number alone.
    layer : Layer, Pool, Transposed or Upsample
        The layer.
    input_shape, output_shape : tuple of int
        ``(C, *spatial)``.
    parameters : int
        Weights, and biases if asked for.
    macs, useful_macs : int
        Multiply-accumulates: all, and those whose sample is not padding (transposed: whose result is not cropped).
    activation_bytes : int
        Size of the output.
    state_bytes : int
        What a stream along the first spatial axis keeps between chunks: the last ``(k - 1) d`` samples of the input,
        transposed ``(k - 1) d // s``.
    seconds : float or None
        Measured time, if asked for and the engine has such a layer.
    """

    name: str
    layer: AnyLayer
    input_shape: Shape
    output_shape: Shape
    parameters: int
    macs: int
    useful_macs: int
    activation_bytes: int
    state_bytes: int
    seconds: float | None


class Cost(NamedTuple):
    """Cost of a design, for one example: sums over its layers, and the layers.

    Attributes
    ----------
    parameters, macs, useful_macs : int
        As in `LayerCost`, of all layers together.
    output_shape : tuple of int
        ``(C, *spatial)``.
    per_layer : tuple of LayerCost
        First layer first.
    activation_bytes : int
        The input and every output of a layer, kept at once, as for training.
    peak_bytes : int
        The most activations alive at once, each from its layer to the end of the last node that reads it.
    state_bytes : int
        Streaming state of all layers.
    seconds : float or None
        Sum of the measured times, None if none was measured.
    """

    parameters: int
    macs: int
    useful_macs: int
    output_shape: Shape
    per_layer: tuple[LayerCost, ...]
    activation_bytes: int
    peak_bytes: int
    state_bytes: int
    seconds: float | None

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "output", "weights", "MACs", "useful", "activations", "state", "time")]
        rows += [_row(row) for row in self.per_layer]
        total = ("all", shape_text(self.output_shape), f"{self.parameters:,}", f"{self.macs:,}", _share(self))
        rows.append((*total, f"{self.activation_bytes:,} B", f"{self.state_bytes:,} B", _time(self.seconds)))
        return aligned(rows)


# ---------------------------------------------------------------------------------------------------------
# one layer
# ---------------------------------------------------------------------------------------------------------


def _channels(name: str, layer: AnyLayer, channels: int) -> tuple[int, int]:
    """(channels out, groups), after a check against the channels that come in."""
    if isinstance(layer, Pool | Upsample):
        return channels, channels
    if layer.in_channels not in (None, channels):
        raise bad_value(f"{name}.in_channels", layer.in_channels, f"{channels}, which come in")
    out = channels if layer.out_channels is None else layer.out_channels
    if channels % layer.groups or out % layer.groups:
        raise bad_value(f"{name}.groups", layer.groups, f"a divisor of the channels {channels} -> {out}")
    return out, layer.groups


def _layer_cost(name: str, layer: AnyLayer, shape: Shape, options: _Options) -> LayerCost:
    label = f"layers[{name}]"
    out, groups = _channels(label, layer, shape[0])
    (axes,) = zip(*stack_axes([layer], len(shape) - 1), strict=True)
    try:
        size = tuple(axis.output_size(n) for axis, n in zip(axes, shape[1:], strict=True))
        taps = [taps_inside(axis, n) for axis, n in zip(axes, shape[1:], strict=True)]
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None
    parameters = macs = useful = 0
    if isinstance(layer, Layer | Transposed):
        pairs = shape[0] // groups * out
        parameters = pairs * math.prod(axis.kernel for axis in axes) + (out if options.bias else 0)
        macs, useful = (pairs * math.prod(amounts) for amounts in zip(*((t, u) for u, t in taps), strict=True))
    history = axes[0].reach // axes[0].stride if axes[0].transposed else axes[0].reach
    return LayerCost(
        name,
        layer,
        shape,
        (out, *size),
        parameters,
        macs,
        useful,
        options.itemsize * out * math.prod(size),
        options.itemsize * shape[0] * history * math.prod(shape[2:]),
        _measured(layer, shape, out, options) if options.measure else None,
    )


class _Options(NamedTuple):
    bias: bool
    dtype: np.dtype
    measure: bool

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize


def _measured(layer: AnyLayer, shape: Shape, out: int, options: _Options) -> float | None:
    """Shortest time of one call on this machine, in seconds; None for what the engine does not have."""
    if not isinstance(layer, Layer):
        return None
    from time import perf_counter

    from fastdil.functional import conv  # the engine: only where something is measured

    kernel = [axis.kernel for axis in layer.axes(len(shape) - 1)]
    x = np.ones(shape, options.dtype)
    w = np.ones((out, shape[0] // layer.groups, *kernel), options.dtype)
    bias = np.ones(out, options.dtype) if options.bias else None
    times = []
    for _ in range(_REPEATS + 1):  # the first call compiles or loads
        start = perf_counter()
        conv(x, w, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        times.append(perf_counter() - start)
    return min(times[1:])


# ---------------------------------------------------------------------------------------------------------
# designs
# ---------------------------------------------------------------------------------------------------------


def _parse_shape(input_shape: Sequence[int]) -> Shape:
    if not is_series(input_shape):
        raise bad_type("input_shape", input_shape, "(C, *spatial)")
    shape = tuple(as_int("input_shape", n, 0) for n in input_shape)
    if len(shape) < 2 or shape[0] < 1:
        raise bad_value("input_shape", input_shape, "(C, *spatial): at least one channel and one spatial axis")
    return shape


def cost(
    layers: Any, input_shape: Sequence[int], *, bias: bool = False, dtype: Any = "float32", measure: bool = False
) -> Cost:
    """Weights, multiply-accumulates, memory and streaming state of a stack or a graph, for one example.

    Parameters
    ----------
    layers : iterable of layers, or nodes
        A stack, first layer first, or nodes as in `receptive_field_graph`. A layer without `in_channels` takes what
        comes; without `out_channels` it gives as many as it takes.
    input_shape : tuple of int
        ``(C, *spatial)``. Numbers for all axes in `layers` apply to every spatial axis.
    bias : bool
        Whether convolutions have a bias per output channel.
    dtype : dtype
        Of the activations, for the bytes.
    measure : bool
        Whether to run each convolution on this machine and report the shortest of five calls.

    Returns
    -------
    Cost
        ``str()`` prints it as a table.

    Raises
    ------
    TypeError, ValueError
        If the design is empty, or shapes, channels or groups do not fit; the text names the layer.

    Notes
    -----
    `macs` counts products with padding zeros too, as is usual; `useful_macs` does not. Pooling and upsampling have no
    products. Nothing but `parameters` is shared between examples: multiply the rest by the batch.

    Examples
    --------
    The same field of view, dense and dilated:

    >>> from fastdil.theory import Layer, cost
    >>> for layer in (Layer(31, padding=15, out_channels=64), Layer(3, dilation=15, padding=15, out_channels=64)):
    ...     found = cost([layer], (32, 128, 128))
    ...     print(found.parameters, found.macs)
    1968128 32245809152
    18432 301989888
    """
    shape = _parse_shape(input_shape)
    options = _Options(as_flag("bias", bias), as_dtype(dtype), as_flag("measure", measure))
    steps = _single_steps(layers)
    walked = _Walk(shape, options.itemsize)
    last_use = {source: number for number, step in enumerate(steps) for source in (*step.inputs, step.name)}
    for number, (name, layer, inputs, kind) in enumerate(steps):
        current = walked.join(name, inputs, kind)
        if layer is None:
            walked.shapes[name] = current
        else:
            current = walked.layer(name, _layer_cost(name, layer, current, options))
        walked.drop({source for source in walked.shapes if last_use.get(source, -1) <= number} - {name})
    rows = walked.rows
    times = [row.seconds for row in rows if row.seconds is not None]
    return Cost(
        sum(row.parameters for row in rows),
        sum(row.macs for row in rows),
        sum(row.useful_macs for row in rows),
        current,
        tuple(rows),
        walked.total,
        walked.peak,
        sum(row.state_bytes for row in rows),
        sum(times) if times else None,
    )


class _Walk:
    """Shapes of what has been computed, what of it is still alive, and the memory that took."""

    def __init__(self, shape: Shape, itemsize: int) -> None:
        self.itemsize = itemsize
        self.shapes = {INPUT: shape}
        self.rows: list[LayerCost] = []
        self.total = self.peak = itemsize * math.prod(shape)

    def _add(self, name: str, shape: Shape) -> None:
        """`shape` is made while all that lives is there, and takes the place of what had its name."""
        size = self.itemsize * math.prod(shape)
        alive = sum(self.itemsize * math.prod(other) for other in self.shapes.values())
        self.total, self.peak = self.total + size, max(self.peak, alive + size)
        self.shapes[name] = shape

    def join(self, name: str, inputs: Sequence[str], kind: str) -> Shape:
        """What a step reads: one array, or several together."""
        shapes = [self.shapes[source] for source in inputs]
        current = _joined_shape(name, shapes, kind)
        if len(inputs) > 1:
            self._add(name, current)
        return current

    def layer(self, name: str, row: LayerCost) -> Shape:
        """One more layer of the node `name`."""
        self.rows.append(row)
        self._add(name, row.output_shape)
        return row.output_shape

    def drop(self, unneeded: set[str]) -> None:
        """Forget what no later node reads."""
        for name in unneeded:
            del self.shapes[name]


class _Single(NamedTuple):
    """One layer, or None for a node that only joins or passes on; what it reads, and how several inputs are joined."""

    name: str
    layer: AnyLayer | None
    inputs: tuple[str, ...]
    kind: str = JOINS[0]


def _single_steps(design: Any) -> list[_Single]:
    """A stack or a graph as steps of at most one layer each, in order."""
    singles: list[_Single] = []
    if not is_graph(design):
        for place, layer in enumerate(parse_layers(design)):
            singles.append(_Single(str(place), layer, (singles[-1].name if singles else INPUT,)))
        return singles
    nodes = design.items() if isinstance(design, Mapping) else [(row[0], row[1:]) for row in design]
    kinds = {name: row[0] for name, row in nodes if isinstance(row[0], str)}
    for step in graph_steps(design):
        if not step.layers:
            singles.append(_Single(step.name, None, step.inputs, kinds.get(step.name, JOINS[0])))
        inputs = step.inputs
        for place, layer in enumerate(step.layers, start=1):
            name = step.name if place == len(step.layers) else f"{step.name}[{place - 1}]"
            singles.append(_Single(name, layer, inputs))
            inputs = (name,)
    return singles


def _joined_shape(name: str, shapes: Sequence[Shape], kind: str) -> Shape:
    """Shape of the branches together."""
    compared = shapes if kind == "add" else [shape[1:] for shape in shapes]
    if len(set(compared)) > 1:
        raise bad_value(f"nodes[{name!r}]", tuple(shapes), f"branches of shapes that fit for {kind!r}")
    return shapes[0] if kind == "add" else (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _row(row: LayerCost) -> tuple[str, ...]:
    amounts = (f"{row.parameters:,}", f"{row.macs:,}", _share(row))
    memory = (f"{row.activation_bytes:,} B", f"{row.state_bytes:,} B", _time(row.seconds))
    return (row.name, shape_text(row.output_shape), *amounts, *memory)


def _share(row: LayerCost | Cost) -> str:
    return f"{row.useful_macs / row.macs:.1%}" if row.macs else "-"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"
