"""Pictures of stacks, with Matplotlib (extra ``plot``), which is imported when something is drawn.

Figures are made without pyplot: nothing global changes, and no window opens. Colours are of Okabe and Ito, which
colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastdil.errors import bad_value
from fastdil.theory.gridding import coverage
from fastdil.theory.influence import effective_receptive_field
from fastdil.theory.layers import AnyLayer, AxisLayer, parse_layers, stack_axes
from fastdil.theory.paths import path_counts
from fastdil.theory.receptive import receptive_field, receptive_fields

BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#E69F00", "#009E73", "#000000"
#: Positions that a picture shows one by one.
_MOST = 4096


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


def _limit(size: int) -> None:
    if size > _MOST:
        raise bad_value("layers", size, f"a receptive field of at most {_MOST} positions on an axis to draw")


def _names(layers: Sequence[AxisLayer]) -> str:
    text = ", ".join(f"{layer.kernel}/{layer.dilation}" for layer in layers[:10])
    return text + (", ..." if len(layers) > 10 else "")


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
    positions = np.arange(len(counts))
    ax.bar(positions[seen], 1, width=0.9, color=BLUE, label=f"seen: {seen.sum()}")
    ax.bar(
        positions[~seen], 1, width=0.9, facecolor="none", edgecolor=ORANGE, hatch="//", label=f"holes: {(~seen).sum()}"
    )
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
    ax.bar(positions, counts, width=0.9, color=BLUE, label="paths")
    ax.set(xlabel="position from the first tap [samples]", ylabel="paths to one output")
    ax.set_title(f"Path counts, kernel/dilation {_names(axis)}")
    ax.yaxis.get_major_locator().set_params(integer=True)
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
    image = ax.imshow(np.ma.masked_equal(counts, 0), cmap="viridis", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, label="paths to one output")
    bar.locator.set_params(integer=True)
    bar.update_ticks()
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
    ax = _axes(ax, 5.0, 3.2)
    for number, (name, sizes) in enumerate(curves.items()):
        colour, marker = (BLUE, ORANGE, GREEN, BLACK)[number % 4], "osD^vx"[number % 6]
        ax.plot(range(1, len(sizes) + 1), sizes, color=colour, marker=marker, label=name or None)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="depth [layers]", ylabel="receptive field [samples]")
    ax.set_title("Growth of the receptive field")
    if any(curves):
        ax.legend(frameon=False)
    return ax


def plot_schedule(layers: Iterable[AnyLayer], ax: Any = None) -> Any:
    """The pyramid of a stack: the taps of each layer that lead to one output, on the first axis.

    Parameters and result are those of `plot_coverage`, for stacks without upsampling and fields of at most 512
    positions.

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
    ax = _axes(ax, 7.0, 0.9 + 0.6 * (len(axis) + 1))
    jumps = np.cumprod([1, *(layer.stride for layer in axis)])
    # Half the reach of what lies below places a unit over the middle of its field.
    middles = np.cumsum([0.0, *(layer.reach * jump / 2 for layer, jump in zip(axis, jumps, strict=False))])
    units = {0}
    for level in range(len(axis), 0, -1):
        layer, jump = axis[level - 1], jumps[level - 1]
        below = set()
        for unit in units:
            reads = [unit * layer.stride + tap * layer.dilation for tap in range(layer.kernel)]
            below.update(reads)
            for read in reads:
                ends = read * jump + middles[level - 1], unit * jumps[level] + middles[level]
                ax.plot(ends, (level - 1, level), color=BLUE, linewidth=0.6, zorder=1)
        ax.scatter([u * jumps[level] + middles[level] for u in units], [level] * len(units), s=14, color=BLUE, zorder=2)
        units = below
    ax.scatter(sorted(units), [0] * len(units), s=14, color=ORANGE, zorder=2)
    labels = ["input", *(f"k={layer.kernel}, d={layer.dilation}, s={layer.stride}" for layer in axis)]
    ax.set_yticks(range(len(labels)), labels)
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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, gridspec_kw={"height_ratios": [1, 3]})
    for column, (stack, name) in enumerate(zip((parse_layers(a), parse_layers(b)), names, strict=True)):
        plot_coverage(stack, panels[0, column])
        panels[0, column].get_legend().remove()
        plot_paths(stack, panels[1, column]).get_legend().remove()
        found = coverage(stack)
        panels[0, column].set_title(f"{name}: sees {found.seen} of {found.size}")
        panels[0, column].set_xlabel("")
        panels[1, column].set_title(f"variation {found.cv:.3f}; band: one standard deviation")
    return figure
