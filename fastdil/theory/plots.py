"""Pictures of stacks, with Matplotlib (extra ``plot``), which is imported when something is drawn.

Figures are made without pyplot: nothing global changes, and no window opens. Colours are of Okabe and Ito, which
colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastdil.errors import bad_type, bad_value
from fastdil.theory.gridding import coverage
from fastdil.theory.influence import effective_receptive_field
from fastdil.theory.layers import AnyLayer, AxisLayer, is_series, parse_layers, stack_axes
from fastdil.theory.paths import path_counts
from fastdil.theory.receptive import receptive_field, receptive_fields
from fastdil.theory.tables import shape_text

BLUE, ORANGE = "#0072B2", "#E69F00"
CURVES = (BLUE, ORANGE, "#009E73", "#000000", "#CC79A7", "#56B4E9", "#D55E00")
#: Positions that a picture shows at most, those that it shows as bars of their own, and layers of a pyramid.
_MOST, _BARS, _LAYERS = 4096, 64, 40


def _axes(ax: Any, width: float = 7.0, height: float = 2.6) -> Any:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def _first_axis(layers: Iterable[AnyLayer]) -> tuple[tuple[AnyLayer, ...], list[AxisLayer], np.ndarray]:
    """The stack, its first axis, and the path counts there, as floating point."""
    stack = parse_layers(layers)
    axis = stack_axes(stack)[0]
    size = receptive_field(stack).size
    _limit(size[0] if isinstance(size, tuple) else size)
    counts = path_counts(stack)
    while counts.ndim > 1:  # the counts of several axes are a product, and the first position has one path
        counts = counts[..., 0]
    return stack, axis, counts.astype(float)


def _bars(ax: Any, heights: np.ndarray, **style: Any) -> None:
    """A bar at each position that has a height; of many positions one outline, for gaps would pass for holes."""
    if len(heights) <= _BARS:
        at = np.flatnonzero(heights)
        ax.bar(at, heights[at], width=0.9, **style)
    else:
        ax.stairs(heights, np.arange(len(heights) + 1) - 0.5, fill=True, **style)


def _limit(size: int) -> None:
    if size > _MOST:
        raise bad_value("layers", size, f"a receptive field of at most {_MOST} positions on an axis to draw")


def _extent(size: int | tuple[int, ...]) -> str:
    return shape_text(size if isinstance(size, tuple) else (size,))


def _names(layers: Sequence[AxisLayer]) -> str:
    """``kernel/dilation`` of the layers, as many as fit beside a title."""
    names = [f"{layer.kernel}/{layer.dilation}" for layer in layers]
    shown = len(names)
    while shown > 1 and sum(len(name) + 2 for name in names[:shown]) > 24:
        shown -= 1
    return ", ".join(names[:shown]) + (f", ... ({len(names)} layers)" if shown < len(names) else "")


def _whole_ticks(axis: Any) -> None:
    """Ticks at whole numbers only: positions, counts and layers have no others."""
    axis.get_major_locator().set_params(integer=True)


def plot_coverage(layers: Iterable[AnyLayer], ax: Any = None) -> Any:
    """The coverage comb: which positions of the receptive field are seen, and which are holes, on the first axis.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Its ``figure`` has ``savefig``.

    Raises
    ------
    ImportError
        Without Matplotlib.
    ValueError
        If the field has more than 4096 positions.

    Examples
    --------
    >>> from fastdil.theory import Layer, plot_coverage
    >>> ax = plot_coverage([Layer(3, dilation=2), Layer(3, dilation=4)])  # doctest: +SKIP
    >>> ax.figure.savefig("comb.png")  # doctest: +SKIP
    """
    _, axis, counts = _first_axis(layers)
    ax = _axes(ax, height=1.7)
    seen = counts > 0
    _bars(ax, seen.astype(float), color=BLUE, label=f"seen: {seen.sum()}")
    holes = np.flatnonzero(~seen)
    style = {"facecolor": "none", "edgecolor": ORANGE, "hatch": "//", "label": f"holes: {len(holes)}"}
    if len(seen) <= _BARS:
        ax.bar(holes, 1, width=0.9, **style)
    else:  # narrower than the lines of a hatch: left white, with a line in the legend
        ax.bar(0, 0, **style)
    _whole_ticks(ax.xaxis)
    ax.set(yticks=[], xlabel="position from the first tap [samples]")
    ax.set_title(f"Coverage, kernel/dilation {_names(axis)}")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return ax


def plot_paths(layers: Iterable[AnyLayer], ax: Any = None) -> Any:
    """Path counts over the receptive field, with the width of the influence, on the first axis.

    Parameters and result are those of `plot_coverage`. The band is one standard deviation (`erf_std`) to each side.

    Examples
    --------
    >>> from fastdil.theory import Layer, plot_paths
    >>> ax = plot_paths([Layer(3, dilation=d) for d in (1, 2, 4)])  # doctest: +SKIP
    """
    stack, axis, counts = _first_axis(layers)
    ax = _axes(ax)
    std = effective_receptive_field(stack).std
    spread = std[0] if isinstance(std, tuple) else std
    positions = np.arange(len(counts))
    middle = float(positions @ counts / counts.sum())
    ax.axvspan(middle - spread, middle + spread, color=ORANGE, alpha=0.25, label=f"std {spread:.3g} samples")
    _bars(ax, counts, color=BLUE, label="paths")
    ax.set(xlabel="position from the first tap [samples]", ylabel="paths to one output")
    ax.set_title(f"Path counts, kernel/dilation {_names(axis)}")
    _whole_ticks(ax.xaxis)
    _whole_ticks(ax.yaxis)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return ax


def plot_gridding(layers: Iterable[AnyLayer], ax: Any = None) -> Any:
    """The gridding map: path counts over a field of two dimensions; holes are white.

    Parameters and result are those of `plot_coverage`; numbers in `layers` stand for both axes. At most 1024 x 1024.

    Examples
    --------
    >>> from fastdil.theory import Layer, plot_gridding
    >>> ax = plot_gridding([Layer(3, dilation=2)] * 3)  # doctest: +SKIP
    """
    stack = parse_layers(layers)
    axes = stack_axes(stack)
    if len(axes) == 1:
        axes = axes * 2
    if len(axes) != 2:
        raise bad_value("layers", stack, "one or two spatial axes")
    sizes = receptive_field(stack).size
    for size in sizes if isinstance(sizes, tuple) else (sizes,):
        if size > 1024:
            raise bad_value("layers", sizes, "a receptive field of at most 1024 positions on an axis to draw")
    counts = path_counts(stack).astype(float)
    counts = np.multiply.outer(counts, counts) if counts.ndim == 1 else counts
    ax = _axes(ax, 4.6, 3.8)
    image = ax.imshow(np.ma.masked_equal(counts, 0), cmap="viridis", interpolation="nearest", vmin=0)
    bar = ax.figure.colorbar(image, ax=ax, label="paths to one output")
    bar.locator.set_params(integer=True)
    bar.update_ticks()
    _whole_ticks(ax.xaxis)
    _whole_ticks(ax.yaxis)
    ax.set(xlabel="column [pixels]", ylabel="row [pixels]")
    ax.set_title(f"Gridding map: {np.count_nonzero(counts) / counts.size:.1%} seen")
    return ax


def plot_growth(designs: Any, ax: Any = None) -> Any:
    """Receptive field against depth, for one stack or several.

    Parameters
    ----------
    designs : iterable of layers, or dict of them by name
        Stacks; the field is that of the first axis.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With a logarithmic vertical axis.

    Examples
    --------
    >>> from fastdil.theory import Layer, plot_growth
    >>> doubling = [Layer(3, dilation=2**i) for i in range(8)]
    >>> ax = plot_growth({"doubling": doubling, "dense": [Layer(3)] * 8})  # doctest: +SKIP
    """
    table = designs if isinstance(designs, dict) else {"": designs}
    if not table:
        raise bad_value("designs", designs, "at least one stack")
    curves = {}
    for name, layers in table.items():
        sizes = [field.size for field in receptive_fields(layers)]
        curves[name] = [size[0] if isinstance(size, tuple) else size for size in sizes]
    ax = _axes(ax, 6.0, 3.2)
    for number, (name, sizes) in enumerate(curves.items()):
        colour, marker = CURVES[number % len(CURVES)], "osD^vxP*"[number % 8]
        ax.plot(range(1, len(sizes) + 1), sizes, color=colour, marker=marker, label=name or None)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    _whole_ticks(ax.xaxis)
    ax.set(xlabel="depth [layers]", ylabel="receptive field [samples]")
    ax.set_title("Growth of the receptive field")
    if any(curves):
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return ax


def plot_schedule(layers: Iterable[AnyLayer], ax: Any = None) -> Any:
    """The pyramid of a stack: the taps of each layer that lead to one output, on the first axis.

    Parameters and result are those of `plot_coverage`, for stacks of at most 40 layers without upsampling, and fields
    of at most 512 positions.

    Examples
    --------
    >>> from fastdil.theory import Layer, plot_schedule
    >>> ax = plot_schedule([Layer(2, dilation=d, padding="causal") for d in (1, 2, 4, 8)])  # doctest: +SKIP
    """
    stack, axis, counts = _first_axis(layers)
    if any(layer.transposed for layer in axis):
        raise bad_value("layers", stack, "no upsampling")
    if len(counts) > 512:
        raise bad_value("layers", len(counts), "a receptive field of at most 512 positions to draw")
    if len(axis) > _LAYERS:
        raise bad_value("layers", len(axis), f"at most {_LAYERS} layers to draw")
    from matplotlib.collections import LineCollection

    ax = _axes(ax, 7.0, 0.9 + min(0.6 * (len(axis) + 1), 11.0))
    jumps = np.cumprod([1, *(layer.stride for layer in axis)])
    # Half the reach of what lies below places a unit over the middle of its field.
    middles = np.cumsum([0.0, *(layer.reach * jump / 2 for layer, jump in zip(axis, jumps, strict=False))])
    units = {0}
    lines = []
    for level in range(len(axis), 0, -1):
        layer, jump = axis[level - 1], jumps[level - 1]
        below = set()
        for unit in units:
            top = (unit * jumps[level] + middles[level], level)
            reads = [unit * layer.stride + tap * layer.dilation for tap in range(layer.kernel)]
            below.update(reads)
            lines += [((read * jump + middles[level - 1], level - 1), top) for read in reads]
        ax.scatter([u * jumps[level] + middles[level] for u in units], [level] * len(units), s=14, color=BLUE, zorder=2)
        units = below
    ax.add_collection(LineCollection(lines, colors=BLUE, linewidths=0.6, zorder=1))
    ax.scatter(sorted(units), [0] * len(units), s=14, color=ORANGE, zorder=2)
    labels = ["input", *(f"k={layer.kernel}, d={layer.dilation}, s={layer.stride}" for layer in axis)]
    ax.set_yticks(range(len(labels)), labels)
    _whole_ticks(ax.xaxis)
    ax.set_xlabel("position from the first tap [samples]")
    ax.set_title(f"What one output (top) reads: {len(units)} of {len(counts)} positions")
    return ax


def plot_compare(a: Iterable[AnyLayer], b: Iterable[AnyLayer], names: tuple[str, str] = ("a", "b")) -> Any:
    """Two stacks side by side: coverage combs above, path counts below, on one scale, on the first axis.

    Parameters
    ----------
    a, b : iterable of layers
        The stacks.
    names : tuple of str
        What they are called.

    Returns
    -------
    matplotlib.figure.Figure
        A new figure.

    Examples
    --------
    >>> from fastdil.theory import Layer, plot_compare
    >>> figure = plot_compare([Layer(3)] * 3, [Layer(3, dilation=d) for d in (1, 2, 4)])  # doctest: +SKIP
    """
    if not is_series(names) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise bad_type("names", names, "two strings")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": [1, 3]})
    for column, (stack, name) in enumerate(zip((parse_layers(a), parse_layers(b)), names, strict=True)):
        plot_coverage(stack, panels[0, column])
        panels[0, column].get_legend().remove()
        plot_paths(stack, panels[1, column]).get_legend().remove()
        found = coverage(stack)
        panels[0, column].set_title(f"{name}: sees {_extent(found.seen)} of {_extent(found.size)}")
        panels[0, column].set_xlabel("")
        panels[1, column].set_title(f"variation {found.cv:.3f}; band: one standard deviation")
    return figure
