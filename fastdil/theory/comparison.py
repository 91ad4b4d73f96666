"""Two designs side by side: field, resolution, coverage, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from fastdil.theory.costs import Cost, cost
from fastdil.theory.graphs import is_graph, receptive_field_graph
from fastdil.theory.gridding import Coverage, coverage, graph_coverage
from fastdil.theory.layers import AnyLayer, Layer, Transposed, parse_layers, stack_axes
from fastdil.theory.receptive import ReceptiveField, receptive_field
from fastdil.theory.tables import aligned, shape_text


class Side(NamedTuple):
    """One design of a comparison: what it sees, how it covers that on all spatial axes, what it costs."""

    receptive_field: ReceptiveField
    coverage: Coverage
    cost: Cost


class Comparison(NamedTuple):
    """Two designs on the same input; ``str()`` prints them side by side.

    Attributes
    ----------
    a, b : Side
        What is known of each.
    """

    a: Side
    b: Side

    @property
    def rows(self) -> list[tuple[str, Any, Any]]:
        """(quantity, value of `a`, value of `b`)."""
        sides = (self.a, self.b)

        def both(name: str, value: Callable[[Side], Any]) -> tuple[str, Any, Any]:
            return name, value(sides[0]), value(sides[1])

        table = [
            both("receptive field", lambda side: side.receptive_field.size),
            both("output stride", lambda side: side.receptive_field.stride),
            both("output shape", lambda side: side.cost.output_shape),
            both("parameters", lambda side: side.cost.parameters),
            both("MACs", lambda side: side.cost.macs),
            both("useful MACs", lambda side: side.cost.useful_macs),
            both("activation bytes", lambda side: side.cost.activation_bytes),
            both("peak bytes", lambda side: side.cost.peak_bytes),
            both("state bytes", lambda side: side.cost.state_bytes),
            both("coverage", lambda side: side.coverage.fraction),
            both("path count cv", lambda side: side.coverage.cv),
        ]
        if any(side.cost.seconds is not None for side in sides):
            table.append(both("seconds", lambda side: side.cost.seconds))
        return table

    def __str__(self) -> str:
        rows = [("", "a", "b", "b / a")]
        for name, a, b in self.rows:
            numeric = all(isinstance(value, int | float | Fraction) for value in (a, b)) and a
            rows.append((name, _text(a), _text(b), f"{float(b / a):.3g}" if numeric else ""))
        return aligned(rows)


def _side(design: Any, shape: Sequence[int], options: dict[str, Any]) -> Side:
    if is_graph(design):
        found = cost(design, shape, **options)
        return Side(receptive_field_graph(design), graph_coverage(design, rank=len(found.output_shape) - 1), found)
    stack = parse_layers(design)
    found = cost(stack, shape, **options)
    return Side(receptive_field(stack), coverage(spread_stack(stack, len(found.output_shape) - 1)), found)


def spread_stack(stack: Sequence[AnyLayer], rank: int) -> list[AnyLayer]:
    """The stack with one number per axis, so that figures about the whole field count all axes."""
    rows = zip(*stack_axes(stack, rank), strict=True)
    spread: list[AnyLayer] = []
    for axes in rows:
        kernel, dilation, stride = (
            tuple(getattr(axis, name) for axis in axes) for name in ("kernel", "dilation", "stride")
        )
        # Coverage does not depend on padding, but for the phase of upsampled outputs.
        pads = tuple(axis.padding for axis in axes)
        if axes[0].transposed:
            spread.append(Transposed(kernel, dilation, stride, pads))
        else:
            numbers = tuple((0, 0) if isinstance(pad, str) else pad for pad in pads)
            spread.append(Layer(kernel, dilation, stride, numbers))
    return spread


def compare(a: Any, b: Any, input_shape: Sequence[int], **options: Any) -> Comparison:
    """Two designs side by side: field, resolution, coverage, cost. Pooling against dilation, a pyramid against a stack.

    Parameters
    ----------
    a, b : iterable of layers, or nodes
        As in `cost`.
    input_shape : tuple of int
        ``(C, *spatial)``.
    **options
        As in `cost`: `bias`, `dtype`, `measure`.

    Returns
    -------
    Comparison
        ``str()`` prints a table. The coverage counts all spatial axes together.

    Raises
    ------
    TypeError, ValueError
        As in `cost`.

    Examples
    --------
    Pooling against dilation. "Four times the MACs" is true of the second layer, not of the whole net:

    >>> from fastdil.theory import Layer, Pool, compare
    >>> pooled = [Layer(3, padding="same", out_channels=64), Pool(2), Layer(3, padding="same")]
    >>> dilated = [Layer(3, padding="same", out_channels=64), Layer(3, dilation=2, padding="same")]
    >>> print(compare(pooled, dilated, (64, 32, 32)))
                      a             b             b / a
    receptive field   8             7             0.875
    output stride     2             1             0.5
    output shape      64 x 16 x 16  64 x 32 x 32
    parameters        73,728        73,728        1
    MACs              47,185,920    75,497,472    1.6
    useful MACs       44,859,392    70,860,800    1.58
    activation bytes  655,360       786,432       1.2
    peak bytes        524,288       524,288       1
    state bytes       32,768        49,152        1.5
    coverage          100.0%        100.0%        1
    path count cv     0.5386        0.512         0.951
    """
    return Comparison(_side(a, input_shape, options), _side(b, input_shape, options))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return shape_text(value)
    if isinstance(value, Fraction):
        return f"{float(value):.1%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
