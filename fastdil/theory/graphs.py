"""Receptive fields of graphs: branches, concatenation, addition, skips over upsampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, cast

from fastdil.arguments import one_of
from fastdil.errors import bad_type, bad_value
from fastdil.theory.footprint import Footprint, Rational, Track, merged, one_output, period, step_back
from fastdil.theory.layers import AnyLayer, AxisLayer, is_per_axis, is_series, parse_layers, stack_axes
from fastdil.theory.receptive import ReceptiveField, joined, phased_field

#: The name of the graph's input.
INPUT = "input"
JOINS = ("add", "concat")
#: Where paths must meet -> how many widths behind the first tap that point lies, in halves.
ANCHORS = {"start": 0, "centre": 1, "end": 2}


class Node(NamedTuple):
    """One node of a graph.

    Attributes
    ----------
    name : str
        Any name but ``"input"``.
    layer : layer, sequence of layers, "add", "concat" or None
        What the node does. A sequence is a stack. None works on each sample alone (an activation, a normalisation).
    inputs : str or sequence of str, optional
        The nodes it reads, ``"input"`` for the graph's input. None: the node before it in the list (the
        first node: the input).
    """

    name: str
    layer: Any = None
    inputs: str | Sequence[str] | None = None


class Step(NamedTuple):
    """A node as the analysis walks it: its inputs are joined, then its layers follow."""

    name: str
    layers: tuple[AnyLayer, ...]
    inputs: tuple[str, ...]


def receptive_field_graph(
    nodes: Mapping[str, tuple[Any, str | Sequence[str]]] | Iterable[Node | tuple],
    *,
    output: str | None = None,
    align: str = "auto",
) -> ReceptiveField:
    """Receptive field of a network with branches: the largest of all paths, if the paths are aligned.

    Where branches meet, by addition or concatenation, they must agree in their stride and in the point of the input
    that they are centred on; otherwise the features that meet belong to different places.

    Parameters
    ----------
    nodes : mapping or iterable of Node
        ``{name: (layer, inputs)}``, or `Node`s, or tuples ``(name, layer, inputs)``, in any order. See `Node`.
    output : str, optional
        The node asked for. None: the only node that no other reads.
    align : {"auto", "centre", "end", "start", "none"}
        The point of each field in which branches must agree. "end" is right for causal networks, whose fields end at
        the same sample. "auto": "end" where every layer of more than one tap is padded ``"causal"``, "start" where
        ``"anticausal"``, else "centre". "none" compares the strides only.

    Returns
    -------
    ReceptiveField
        Numbers, or tuples if a layer has one number per axis.

    Raises
    ------
    ValueError
        Where branches are misaligned: the text names the node. Where names are missing, used twice or go in a circle.
    TypeError
        If a node is none.

    Notes
    -----
    Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019, walk the graph
    backwards (``r <- s r + k_eff - s``, ``S <- s S``, ``P <- s P + p``); this walks forwards and checks each junction,
    which finds the same misalignments, because what follows a junction is common to its branches.

    Examples
    --------
    Three branches of a pyramid (ASPP) on one map:

    >>> from fastdil.theory import Layer, receptive_field_graph
    >>> branches = {f"d{d}": (Layer(3, dilation=d, padding="same"), "input") for d in (6, 12, 18)}
    >>> receptive_field_graph({**branches, "all": ("concat", list(branches))})
    ReceptiveField(size=37, stride=1, start=-18)

    An even kernel beside an odd one is off by half a pixel:

    >>> odd, even = Layer(3, padding="same"), Layer(2, padding="same")
    >>> receptive_field_graph({"a": (odd, "input"), "b": (even, "input"), "sum": ("add", ["a", "b"])})
    Traceback (most recent call last):
    ...
    ValueError: nodes['sum']=('a', 'b'): expected branches aligned at the centre, but 'a' has it at 0 and 'b' at 1/2
    """
    one_of("align", align, ("auto", *ANCHORS, "none"))
    return receptive_field_steps(graph_steps(nodes, output), align)


def receptive_field_steps(steps: Sequence[Step], align: str = "auto") -> ReceptiveField:
    """`receptive_field_graph` of a graph that has been read."""
    stack = tuple(layer for step in steps for layer in step.layers)
    axes = stack_axes(stack) if stack else [[]]
    anchor = _anchor(align, axes)
    fields = []
    for axis in axes:
        supply = iter(axis)
        layers = {step.name: [next(supply) for _ in step.layers] for step in steps}
        fields.append(_axis_field(steps, layers, anchor))
    return joined(fields, is_per_axis(stack))


# ---------------------------------------------------------------------------------------------------------
# reading a graph
# ---------------------------------------------------------------------------------------------------------


def is_graph(design: Any) -> bool:
    """True for nodes of a graph, as `receptive_field_graph` takes them, rather than a stack."""
    if isinstance(design, Mapping):
        return True
    return (
        isinstance(design, Sequence)
        and not isinstance(design, str)
        and any(type(row) in (tuple, Node) for row in design)
    )


def graph_steps(nodes: Any, output: str | None = None) -> list[Step]:
    """The nodes that `output` depends on as steps ``(name, layers, inputs)``, each behind those it reads."""
    return _used(_sorted(_parse(nodes)), output)


def _parse(nodes: Any) -> dict[str, Step]:
    expected = "a mapping {name: (layer, inputs)} or a sequence of Node(name, layer, inputs)"
    if not isinstance(nodes, Mapping) and not is_series(nodes):
        raise bad_type("nodes", nodes, expected)
    rows = [(name, *_fields(name, row)) for name, row in nodes.items()] if isinstance(nodes, Mapping) else list(nodes)
    steps: dict[str, Step] = {}
    before = INPUT
    for row in rows:
        if not isinstance(row, tuple) or not 2 <= len(row) <= 3:
            raise bad_type("nodes", row, expected)
        node = Node(*row)
        if not isinstance(node.name, str):
            raise bad_type("nodes", node.name, "a name that is a string")
        if node.name in steps or node.name == INPUT:
            raise bad_value("nodes", node.name, f"every name once, and {INPUT!r} for the graph's input alone")
        steps[node.name] = _step(node, before)
        before = node.name
    if not steps:
        raise bad_value("nodes", nodes, "at least one node")
    return steps


def _fields(name: object, row: object) -> tuple:
    if not isinstance(row, tuple | list) or isinstance(row, Node) or len(row) != 2:
        raise bad_type(f"nodes[{name!r}]", row, "a pair (layer, inputs)")
    return tuple(row)


def _step(node: Node, before: str) -> Step:
    label = f"nodes[{node.name!r}]"
    if node.layer is None or (isinstance(node.layer, str) and node.layer in JOINS):
        layers: tuple[AnyLayer, ...] = ()
    elif isinstance(node.layer, str):
        raise bad_value(label, node.layer, "a layer, a sequence of layers, 'add', 'concat' or None")
    else:
        layers = parse_layers([node.layer] if isinstance(node.layer, AnyLayer) else node.layer)
    inputs = before if node.inputs is None else node.inputs
    if not isinstance(inputs, str) and not is_series(inputs):
        raise bad_type(label, inputs, "the name of a node, or several")
    names = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    if not names or not all(isinstance(name, str) for name in names):
        raise bad_value(label, inputs, "the names of the nodes it reads, at least one")
    if len(names) > 1 and (node.layer is None or layers):
        raise bad_value(label, names, "one input; 'add' or 'concat' joins several")
    return Step(node.name, layers, names)


def _sorted(steps: dict[str, Step]) -> dict[str, Step]:
    """The steps, each behind those it reads."""
    for step in steps.values():
        for name in step.inputs:
            if name not in steps and name != INPUT:
                raise bad_value(f"nodes[{step.name!r}]", name, f"the name of another node or {INPUT!r}")
    try:
        order = TopologicalSorter({name: step.inputs for name, step in steps.items()}).static_order()
        return {name: steps[name] for name in order if name != INPUT}
    except CycleError as error:
        raise bad_value("nodes", tuple(error.args[1]), "a graph without circles") from None


def _used(steps: dict[str, Step], output: str | None) -> list[Step]:
    """The steps that the output depends on, in order, the output last."""
    if output is None:
        read = {name for step in steps.values() for name in step.inputs}
        ends = [name for name in steps if name not in read]
        if len(ends) != 1:
            raise bad_value("output", output, f"one of the {len(ends)} nodes that nothing reads: {', '.join(ends)}")
        output = ends[0]
    elif not isinstance(output, str) or output not in steps:
        raise bad_value("output", output, "the name of a node")
    needed = {output}
    for name in reversed(list(steps)):
        if name in needed:
            needed.update(steps[name].inputs)
    chosen = [step for name, step in steps.items() if name in needed and name != output]
    return [*chosen, steps[output]]


def _anchor(align: str, axes: Sequence[Sequence[AxisLayer]]) -> str:
    if align != "auto":
        return align
    paddings = {_side(layer) for axis in axes for layer in axis if layer.reach}
    return {frozenset({"causal"}): "end", frozenset({"anticausal"}): "start"}.get(frozenset(paddings), "centre")


def _side(layer: AxisLayer) -> str:
    """The named padding that the layer's padding amounts to, if it is a one-sided one."""
    one_sided: dict[Any, str] = {(layer.reach, 0): "causal", (0, layer.reach): "anticausal"}
    return one_sided.get(layer.padding, str(layer.padding))


# ---------------------------------------------------------------------------------------------------------
# walking it on one axis
# ---------------------------------------------------------------------------------------------------------


def _axis_field(steps: Sequence[Step], layers: dict[str, list[AxisLayer]], anchor: str) -> ReceptiveField:
    tracks = {INPUT: Track()}
    strides: list[Rational] = [1]
    for step in steps:
        track = _junction(step, [(name, tracks[name]) for name in step.inputs], anchor)
        for layer in layers[step.name]:
            track = track.through(layer)
            strides.append(track.stride)
        tracks[step.name] = track
    if not any(layer.transposed for row in layers.values() for layer in row):
        return ReceptiveField(cast(int, track.width) + 1, track.stride, track.first)
    # The stride at a node is the same along all paths, so the outputs repeat like those of one stack.
    phases = range(period([track.stride, *strides]))
    return phased_field([_footprint(steps, layers, output) for output in phases], track)


def _junction(step: Step, branches: Sequence[tuple[str, Track]], anchor: str) -> Track:
    """The hull of the branches that meet in a node, if they are aligned."""
    label = f"nodes[{step.name!r}]"
    (name, reference), *others = branches
    for other_name, other in others:
        if other.stride != reference.stride:
            raise bad_value(
                label,
                step.inputs,
                f"branches of one stride, but {name!r} has {reference.stride} and {other_name!r} has {other.stride}",
            )
        if reference.first is None or other.first is None:
            unknown = name if reference.first is None else other_name
            raise bad_value(
                label,
                step.inputs,
                f"paddings in numbers: with a stride and 'same', where {unknown!r} looks depends on the input's size",
            )
        if anchor != "none" and _point(reference, anchor) != _point(other, anchor):
            raise bad_value(
                label,
                step.inputs,
                f"branches aligned at the {anchor}, but {name!r} has it at {_point(reference, anchor)} and "
                f"{other_name!r} at {_point(other, anchor)}",
            )
    if not others:
        return reference
    firsts = [cast(Rational, track.first) for _, track in branches]
    lasts = [first + track.width for first, (_, track) in zip(firsts, branches, strict=True)]
    return Track(reference.stride, min(firsts), max(lasts) - min(firsts))


def _point(track: Track, anchor: str) -> Rational:
    return Fraction(2 * cast(Rational, track.first) + ANCHORS[anchor] * track.width, 2)


def _footprint(steps: Sequence[Step], layers: dict[str, list[AxisLayer]], output: int) -> Footprint:
    """What one output reads of the graph's input, all paths together."""
    waiting: dict[str, list[Footprint]] = {steps[-1].name: [one_output(output)]}
    for step in reversed(steps):
        seen = merged(waiting.pop(step.name))
        for layer in reversed(layers[step.name]):
            seen = step_back(layer, seen)
        for name in step.inputs:
            waiting.setdefault(name, []).append(seen)
    return merged(waiting[INPUT])
