"""Coverage of the receptive field: holes, the lattice of the gcd, evenness, and HDC's test beside the exact one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from fastdil.arguments import as_int
from fastdil.theory.combs import combs, shares, support
from fastdil.theory.footprint import Footprint, has_phases, stack_footprint, stack_period
from fastdil.theory.graph_paths import graph_paths
from fastdil.theory.graphs import is_graph
from fastdil.theory.layers import (
    AnyLayer,
    AxisLayer,
    is_per_axis,
    parse_dilations,
    parse_layers,
    per_axis_result,
    stack_axes,
)
from fastdil.theory.paths import axis_counts, check_size, count_dtype


class Coverage(NamedTuple):
    """How a stack covers its receptive field.

    `size`, `seen`, `holes` and `gcd` are counted per axis, and are tuples if the layers were given per axis; the other
    figures are about the whole field, all axes together.

    Attributes
    ----------
    size : int or tuple of int
        Positions from the first to the last that an output reads.
    seen : int or tuple of int
        Those that it does read.
    fraction : Fraction
        Share of the whole field that is read, all axes together.
    holes : tuple of int or tuple of such tuples
        Positions that are not read, counted from the first tap.
    gcd : int or tuple of int
        `gridding_gcd`.
    cv : float
        Coefficient of variation of the path counts over the whole field, holes included: standard deviation / mean.
    entropy_ratio : float
        Entropy of the path counts, as shares of all paths, over the logarithm of the field's size: 1 if every position
        has equally many paths.
    """

    size: Any
    seen: Any
    fraction: Fraction
    holes: Any
    gcd: Any
    cv: float
    entropy_ratio: float


class _Axis(NamedTuple):
    """Coverage of one axis."""

    size: int
    seen: int
    holes: tuple[int, ...]
    gcd: int
    variance: float  #: of the counts over the squared mean
    entropy: float  #: in nats


# ---------------------------------------------------------------------------------------------------------
# one axis
# ---------------------------------------------------------------------------------------------------------


def _phases(axis: Sequence[AxisLayer]) -> list[Footprint]:
    """The footprint of every phase of a stack that upsamples."""
    return [stack_footprint(axis, output, count_dtype(axis)) for output in range(stack_period(axis))]


def _hole_free(axis: Sequence[AxisLayer]) -> bool:
    if has_phases(axis):
        return all(len(seen.positions) == seen.size for seen in _phases(axis))
    reached = 1
    for kernel, dilation in combs(axis):
        if dilation > reached:
            return False
        reached += (kernel - 1) * dilation
    return True


def _uniform(axis: Sequence[AxisLayer]) -> bool:
    if has_phases(axis):
        return all(np.unique(seen.dense()).size <= 1 for seen in _phases(axis))
    product = 1
    for kernel, dilation in combs(axis):
        if dilation != product:
            return False
        product *= kernel
    return True


def _gcd(axis: Sequence[AxisLayer]) -> int:
    if has_phases(axis):
        return math.gcd(*(int(step) for seen in _phases(axis) for step in np.diff(seen.positions))) or 1
    return math.gcd(*(dilation for _, dilation in combs(axis))) or 1


def _cover(axis: Sequence[AxisLayer], output: int) -> _Axis:
    if has_phases(axis) or count_dtype(axis) is np.int64:
        counts = axis_counts(axis, output)
        return _summary(counts, counts > 0, _gcd(axis))
    # Exact counts of deep stacks are long integers; their shares do in floating point, but may vanish at the rim.
    found = combs(axis)
    share = shares(found)
    return _summary(share, np.ones(len(share), bool) if _hole_free(axis) else support(found), _gcd(axis))


def _summary(counts: np.ndarray, read: np.ndarray, gcd: int) -> _Axis:
    size, seen = len(counts), int(np.count_nonzero(read))
    holes = tuple(np.flatnonzero(~read).tolist())
    return _Axis(size, seen, holes, gcd, *_evenness(counts))


def _evenness(counts: np.ndarray) -> tuple[float, float]:
    """(variance over the squared mean, entropy in nats) of counts or shares."""
    if counts.size == 0 or (counts == counts.flat[0]).all():
        return 0.0, math.log(max(counts.size, 1))
    share = (counts / counts.sum()).astype(float)
    present = share[share > 0]
    return float(np.mean(np.square(share * counts.size - 1))), float(-(present * np.log(present)).sum())


def graph_coverage(nodes: Any, output: int = 0, rank: int | None = None) -> Coverage:
    """`coverage` of a graph; numbers for all axes stand for `rank` of them."""
    paths = graph_paths(nodes, output, rank)
    read, axes = paths.support, range(paths.support.ndim)
    rows = [np.asarray(read.any(axis=tuple(k for k in axes if k != axis))) for axis in axes]
    seen = [np.flatnonzero(row) for row in rows]
    variance, entropy = _evenness(paths.amounts)
    return Coverage(
        size=per_axis_result([len(row) for row in rows], paths.is_per_axis),
        seen=per_axis_result([len(at) for at in seen], paths.is_per_axis),
        fraction=Fraction(int(np.count_nonzero(read)), read.size) if read.size else Fraction(1),
        holes=per_axis_result([tuple(np.flatnonzero(~row).tolist()) for row in rows], paths.is_per_axis),
        gcd=per_axis_result([math.gcd(*np.diff(at).tolist()) or 1 for at in seen], paths.is_per_axis),
        cv=math.sqrt(variance),
        entropy_ratio=entropy / math.log(read.size) if read.size > 1 else 1.0,
    )


# ---------------------------------------------------------------------------------------------------------
# public
# ---------------------------------------------------------------------------------------------------------


def coverage(layers: Any, output: int = 0) -> Coverage:
    """What a stack or a graph sees of its receptive field, and how evenly.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample; or nodes
        First layer first, at least one; or a graph as in `receptive_field_graph`.
    output : int
        Which output, on every axis; it matters only behind a transposed layer.

    Returns
    -------
    Coverage
        Exact but for `cv` and `entropy_ratio`.

    Raises
    ------
    TypeError, ValueError
        If `layers` is no stack, or its field has more than 2**28 positions on an axis.

    Notes
    -----
    That a stack with a common factor g of its dilations "sees 1/g of the data" is the limit of a wide field in 1-D.
    Exactly, at most ``(R - 1) / g + 1`` of R positions are seen per axis, and the product of that over the axes.

    A graph's branches add up, so what it sees in two dimensions need not be a product of axes. Per axis, the rows that
    are seen at all are counted then; `fraction`, `cv` and `entropy_ratio` are about the positions.

    Examples
    --------
    Dilations 2 and 4 miss every odd position: 7 of 13 are seen, in two dimensions 49 of 169.

    >>> from fastdil.theory import Layer, coverage
    >>> found = coverage([Layer(3, dilation=2), Layer(3, dilation=4)])
    >>> found.seen, found.size, found.holes, found.gcd
    (7, 13, (1, 3, 5, 7, 9, 11), 2)
    >>> coverage([Layer((3, 3), dilation=2), Layer((3, 3), dilation=4)]).fraction
    Fraction(49, 169)

    The branches of a pyramid, rates 6, 12 and 18 beside 1 x 1, see 25 of 37 x 37 pixels:

    >>> branches = {f"d{d}": (Layer((3, 3), d, padding="same"), "input") for d in (6, 12, 18)}
    >>> pyramid = {**branches, "all": ("concat", [*branches, "input"])}
    >>> coverage(pyramid).fraction == Fraction(25, 37**2)
    True
    """
    at = as_int("output", output, 0)
    if is_graph(layers):
        return graph_coverage(layers, at)
    stack = parse_layers(layers)
    axes = stack_axes(stack)
    check_size(stack, axes)
    found = [_cover(axis, at) for axis in axes]
    as_tuple = is_per_axis(stack)
    spread, room = 0.0, math.prod(axis.size for axis in found)
    for axis in found:  # the mean square of a product of independent counts is the product of their mean squares
        spread += axis.variance + spread * axis.variance
    return Coverage(
        size=per_axis_result([axis.size for axis in found], as_tuple),
        seen=per_axis_result([axis.seen for axis in found], as_tuple),
        fraction=Fraction(math.prod(axis.seen for axis in found), room) if room else Fraction(1),
        holes=per_axis_result([axis.holes for axis in found], as_tuple),
        gcd=per_axis_result([axis.gcd for axis in found], as_tuple),
        cv=math.sqrt(spread),
        entropy_ratio=sum(axis.entropy for axis in found) / math.log(room) if room > 1 else 1.0,
    )


def is_hole_free(layers: Iterable[AnyLayer]) -> bool:
    """True if every position of the receptive field is read, on every axis.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.

    Returns
    -------
    bool
        Behind a transposed layer: whether it holds for all outputs.

    Notes
    -----
    The exact rule: drop layers of one tap, sort by dilation in input pixels D (dilation times the strides before); no
    hole if and only if every D is at most ``1 + sum (k_j - 1) D_j`` over those before it. That dilations are coprime is
    neither sufficient, (2, 3) misses two positions, nor necessary, (1, 2, 4) has no hole
    although 2 and 4 share a factor.

    Examples
    --------
    >>> from fastdil.theory import Layer, is_hole_free
    >>> [is_hole_free([Layer(3, dilation=d) for d in stack]) for stack in ((1, 2, 4), (4, 1, 2), (2, 3), (2, 4))]
    [True, True, False, False]
    """
    return all(_hole_free(axis) for axis in stack_axes(parse_layers(layers)))


def is_uniform(layers: Iterable[AnyLayer]) -> bool:
    """True if every position of the receptive field is reached by the same number of paths, namely one.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.

    Returns
    -------
    bool
        Behind a transposed layer: whether the counts of each output are all equal; they may differ between outputs.

    Notes
    -----
    The first position has one path, so equal counts are all 1, and positions are numbers written with the taps as
    digits. So it holds if and only if the schedule, sorted by dilation in input pixels, is a mixed radix system:
    ``D_1 = 1, D_(l+1) = k_1 ... k_l``. Kernel 2 doubling (WaveNet) and kernel 3 tripling are, kernel 3 doubling is not.

    Examples
    --------
    >>> from fastdil.theory import Layer, is_uniform
    >>> schedules = ((3, (1, 3)), (2, (1, 2, 4)), (3, (1, 2, 4)))
    >>> [is_uniform([Layer(k, dilation=d) for d in dilations]) for k, dilations in schedules]
    [True, True, False]
    """
    return all(_uniform(axis) for axis in stack_axes(parse_layers(layers)))


def gridding_gcd(layers: Iterable[AnyLayer]) -> int | tuple[int, ...]:
    """Greatest common divisor of the dilations in input pixels: the stack sees only multiples of it.

    Counted from the first tap, because the centre of an even kernel lies between positions. Layers of one tap do not
    count.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.

    Returns
    -------
    int or tuple of int
        1 where an axis has no layer of more than one tap; a tuple if the layers were given per axis.

    Examples
    --------
    >>> from fastdil.theory import Layer, gridding_gcd
    >>> gridding_gcd([Layer(3, dilation=2), Layer(3, dilation=4), Layer(1, dilation=5)])
    2
    """
    stack = parse_layers(layers)
    return per_axis_result([_gcd(axis) for axis in stack_axes(stack)], is_per_axis(stack))


def hdc_check(dilations: Iterable[int], kernel_size: int) -> tuple[bool, int]:
    """The test of hybrid dilated convolution: whether the largest gap between taps is within the kernel.

    Parameters
    ----------
    dilations : iterable of int
        Of consecutive stride-1 layers, first layer first, each at least 1, at least one of them.
    kernel_size : int
        At least 1, the same in all layers.

    Returns
    -------
    ok : bool
        ``M <= kernel_size``.
    M : int
        The paper's M_2: ``M_n = r_n``, ``M_i = max(M_(i+1) - 2 r_i, 2 r_i - M_(i+1), r_i)``. Of one layer there is only
        M_1, its dilation.

    See Also
    --------
    is_hole_free : the exact test.

    Notes
    -----
    Wang et al., "Understanding convolution for semantic segmentation", WACV 2018. The test is not exact: it
    passes (2, 2, 2), which sees 7 of 13 positions.

    Examples
    --------
    >>> hdc_check([1, 2, 5], 3), hdc_check([1, 2, 9], 3), hdc_check([2, 2, 2], 3)
    ((True, 2), (False, 5), (True, 2))
    """
    rates = parse_dilations(dilations)
    size = as_int("kernel_size", kernel_size, 1)
    gap = rates[-1]
    for rate in reversed(rates[1:-1]):
        gap = max(gap - 2 * rate, 2 * rate - gap, rate)
    return gap <= size, gap
