"""One layer: what its kernel spans, how long its output is, which positions it reads."""

from __future__ import annotations

from typing import Any, cast

from fastdil.errors import bad_value
from fastdil.theory.layers import AxisLayer, Layer, Sizes, parse_sizes, per_axis_result, spread


def layer_beside(name: str, value: Sizes, layer: Layer) -> tuple[list[tuple[AxisLayer, int]], bool]:
    """The layer on each axis beside the entry of `value` for that axis, and whether results are tuples."""
    sizes = parse_sizes(name, value, least=0)
    rank = layer.rank or (len(sizes) if isinstance(sizes, tuple) else 1)
    if isinstance(sizes, tuple) and len(sizes) != rank:
        raise bad_value(name, value, f"{rank} entries, one per spatial axis")
    pairs = zip(layer.axes(rank), spread(sizes, rank), strict=True)
    return list(pairs), isinstance(sizes, tuple) or layer.is_per_axis


def effective_kernel_size(kernel_size: Sizes, dilation: Sizes = 1) -> Sizes:
    """Samples that a dilated kernel spans: ``(k - 1) d + 1``.

    Some texts call it the "effective receptive field"; that name belongs to Luo et al. 2016, who mean the profile of
    influence (`effective_receptive_field`).

    Parameters
    ----------
    kernel_size, dilation : int or tuple of int
        At least 1; one number for all axes or one per axis.

    Returns
    -------
    int or tuple of int
        A tuple if an argument is one.

    Examples
    --------
    >>> effective_kernel_size(3, 2), effective_kernel_size(3, 15), effective_kernel_size((3, 5), (1, 4))
    (5, 31, (3, 17))
    """
    layer = Layer(kernel_size, dilation)
    return cast(Sizes, per_axis_result([a.effective_kernel for a in layer.axes(layer.rank or 1)], layer.is_per_axis))


def output_size(n: Sizes, kernel_size: Sizes, stride: Sizes = 1, dilation: Sizes = 1, padding: Any = 0) -> Sizes:
    """Output samples of a convolution: ``(n + lo + hi - k_eff) // stride + 1``.

    Parameters
    ----------
    n : int or tuple of int
        Input samples, at least 0; one number for all axes or one per axis.
    kernel_size, stride, dilation : int or tuple of int
        At least 1. Mind the order, which is that of `fastdil.conv`.
    padding : int, tuple or str
        As in `fastdil.conv`.

    Returns
    -------
    int or tuple of int
        A tuple if an argument is one.

    Raises
    ------
    ValueError
        If the effective kernel is longer than the padded input.

    Examples
    --------
    >>> output_size(33, 3, dilation=6), output_size(33, 3, stride=2, padding="same"), output_size((8, 9), 3)
    (21, 17, (6, 7))
    """
    pairs, as_tuple = layer_beside("n", n, Layer(kernel_size, dilation, stride, padding))
    return cast(Sizes, per_axis_result([axis.output_size(size) for axis, size in pairs], as_tuple))


def tap_positions(
    i: Sizes, kernel_size: Sizes, dilation: Sizes = 1, stride: Sizes = 1, padding: Any = 0
) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
    """Input positions that output `i` reads: ``i * stride + a * dilation - pad_lo``, a = 0..k-1.

    Parameters
    ----------
    i : int or tuple of int
        Index of the output; one number for all axes or one per axis.
    kernel_size, dilation, stride : int or tuple of int
        At least 1.
    padding : int, tuple or str
        As in `fastdil.conv`, but ``"same"`` only where it does not depend on the input's size.

    Returns
    -------
    tuple of int
        In 1-D the positions, first tap first; negative ones lie in the padding. Where an argument is one number per
        axis: one such tuple per axis.

    Examples
    --------
    >>> tap_positions(0, 3, dilation=2)
    (0, 2, 4)
    >>> tap_positions(5, 3, dilation=2, stride=2, padding=1)
    (9, 11, 13)
    """
    pairs, as_tuple = layer_beside("i", i, Layer(kernel_size, dilation, stride, padding))
    results = []
    for axis, index in pairs:
        lo = axis.pad_lo()
        if lo is None:
            raise bad_value("padding", padding, f"numbers: with stride {axis.stride} it depends on the input's size")
        first = index * axis.stride - lo
        results.append(tuple(range(first, first + axis.reach + 1, axis.dilation)))
    return tuple(results) if as_tuple else results[0]
