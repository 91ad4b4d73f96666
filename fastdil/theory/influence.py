"""Influence inside a receptive field: expected from path counts, and measured by pushing an impulse back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from fastdil.arguments import as_int
from fastdil.errors import bad_type, bad_value
from fastdil.theory.combs import combs, shares
from fastdil.theory.footprint import has_phases
from fastdil.theory.layers import (
    AnyLayer,
    AxisLayer,
    Layer,
    is_per_axis,
    is_series,
    parse_layers,
    per_axis_result,
    stack_axes,
)
from fastdil.theory.paths import axis_counts, check_size

#: Share of the strongest influence above which a position counts: 1 - 95.45 % (Luo et al., section 3).
THRESHOLD = 0.0455


class Influence(NamedTuple):
    """Influence of every position of the receptive field on one output. Tuples, one entry per axis, as the layers are.

    Attributes
    ----------
    profile : ndarray or tuple of ndarray
        Share of the influence that each position along the axis has, first position first; the sum is 1. In several
        dimensions the influence is the product.
    std : float or tuple of float
        Standard deviation of the profile, in input pixels.
    size : int or tuple of int
        Positions whose influence is above the threshold times the largest.
    """

    profile: Any
    std: Any
    size: Any


def _std(axis: Sequence[AxisLayer]) -> float:
    if has_phases(axis):
        counts = axis_counts(axis)
        if not len(counts):
            return 0.0
        return _spread((counts / counts.sum()).astype(float))
    twelvefold = sum(dilation**2 * (kernel**2 - 1) for kernel, dilation in combs(axis))
    bits = max(twelvefold.bit_length() - 1000, 0) // 2  # strides of deep stacks exceed floating point when squared
    return math.ldexp(math.sqrt((twelvefold >> 2 * bits) / 12), bits)


def _spread(share: np.ndarray) -> float:
    positions = np.arange(len(share))
    return math.sqrt(float(share @ (positions - share @ positions) ** 2))


def erf_std(layers: Iterable[AnyLayer]) -> float | tuple[float, ...]:
    """Standard deviation of the influence profile, in input pixels: ``sqrt(sum D**2 (k**2 - 1) / 12)``.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one. Behind a transposed layer, that of output 0.

    Returns
    -------
    float or tuple of float
        A tuple if the layers were given per axis.

    Notes
    -----
    Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NIPS 2016,
    section 2: with uniform weights the profile is the distribution of a sum of independent steps, so variances add, and
    for equal layers the width grows with the root of the depth while the receptive field grows with the depth. D is the
    dilation in input pixels.

    Examples
    --------
    >>> from fastdil.theory import Layer, erf_std
    >>> [round(erf_std([Layer(3)] * depth), 3) for depth in (6, 24)]
    [2.0, 4.0]
    """
    stack = parse_layers(layers)
    return per_axis_result([_std(axis) for axis in stack_axes(stack)], is_per_axis(stack))


def effective_receptive_field(layers: Iterable[AnyLayer], *, threshold: float = THRESHOLD) -> Influence:
    """The influence profile that a stack is expected to have: what Luo et al. call the effective receptive field.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one. Behind a transposed layer, that of output 0.
    threshold : float
        Share of the largest influence, in [0, 1), above which a position counts for `size`; default 4.55 %, 1 minus the
        share of a bell curve within two standard deviations, as in the paper.

    Returns
    -------
    Influence
        Profile, standard deviation and size.

    Raises
    ------
    TypeError, ValueError
        If `layers` is no stack, its field is too large to list, or `threshold` does not fit.

    See Also
    --------
    measured_influence : of weights that exist.

    Notes
    -----
    The share of all paths that lead to a position. With all weights equal it is the gradient itself; with independent
    random weights of zero mean it is the variance of the gradient (Luo et al. 2016, sections 2.1 and 2.2).

    Examples
    --------
    Twenty dense layers have a field of 41, of which 19 positions matter:

    >>> from fastdil.theory import Layer, effective_receptive_field
    >>> found = effective_receptive_field([Layer(3)] * 20)
    >>> len(found.profile), found.size, round(found.std, 3)
    (41, 19, 3.651)
    """
    stack = parse_layers(layers)
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise bad_type("threshold", threshold, "a number in [0, 1)")
    if not 0 <= threshold < 1:
        raise bad_value("threshold", threshold, "a number in [0, 1)")
    axes = stack_axes(stack)
    check_size(stack, axes)
    profiles = [_profile(axis) for axis in axes]
    sizes = [int(np.count_nonzero(share > threshold * share.max(initial=0.0))) for share in profiles]
    as_tuple = is_per_axis(stack)
    return Influence(
        per_axis_result(profiles, as_tuple),
        per_axis_result([_std(axis) for axis in axes], as_tuple),
        per_axis_result(sizes, as_tuple),
    )


def _profile(axis: Sequence[AxisLayer]) -> np.ndarray:
    if not has_phases(axis):
        return shares(combs(axis))
    counts = axis_counts(axis)
    return (counts / counts.sum()).astype(float) if len(counts) else np.zeros(0)


def measured_influence(
    layers: Iterable[AnyLayer], weights: Iterable[Any], *, output_channel: int | None = None
) -> np.ndarray:
    """Influence in a stack with real weights: the gradient of one output, pushed back to the input as an impulse.

    Parameters
    ----------
    layers : iterable of Layer
        First layer first; their paddings do not matter.
    weights : iterable of array-like
        One per layer, ``(O, C // groups, *kernel)``, the groups as the layer says.
    output_channel : int, optional
        Whose gradient; None takes the sum over all channels.

    Returns
    -------
    ndarray
        Gradient with respect to the input, ``(C, *receptive field)``, first position first; float64, or complex128. Its
        absolute value, summed over channels, is the influence of each position; averaged squares over random weights
        come to `effective_receptive_field`.

    Raises
    ------
    TypeError, ValueError
        If a layer is no `Layer`, or weights do not fit; the text names which.

    Notes
    -----
    Luo et al. 2016, section 3. The stack is linear here: activations scale paths and change no position. Time grows
    with the field times the taps; dense tensors are used in every layer.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdil.theory import Layer, measured_influence
    >>> stack = [Layer(3), Layer(3, dilation=2)]
    >>> measured_influence(stack, [np.ones((1, 1, 3))] * 2)
    array([[1., 1., 2., 1., 2., 1., 1.]])
    """
    stack = parse_layers(layers)
    if not is_series(weights):
        raise bad_type("weights", weights, "one array per layer")
    arrays = [np.asarray(w) for w in weights]
    if len(arrays) != len(stack):
        raise bad_value("weights", [w.shape for w in arrays], f"one array per layer: {len(stack)}")
    rank = max(arrays[0].ndim - 2, 1)
    columns = list(zip(*stack_axes(stack, rank), strict=True))
    for number, (layer, w, axes) in enumerate(zip(stack, arrays, columns, strict=True)):
        _check_weights(number, layer, w, axes)
        if number and arrays[number - 1].shape[0] != w.shape[1] * _groups(layer):
            wanted = arrays[number - 1].shape[0]
            raise bad_value(f"weights[{number}].shape", w.shape, f"{wanted} input channels, as the layer before gives")
    last = arrays[-1].shape[0]
    impulse = np.ones(last) if output_channel is None else np.zeros(last)
    if output_channel is not None:
        channel = as_int("output_channel", output_channel, 0)
        if channel >= last:
            raise bad_value("output_channel", output_channel, f"None or a channel below {last}")
        impulse[channel] = 1
    gradient = impulse.reshape(last, *(1,) * rank)
    for layer, w, axes in zip(reversed(stack), reversed(arrays), reversed(columns), strict=True):
        gradient = _pushed_back(gradient, w, axes, _groups(layer))
    return gradient


def _groups(layer: AnyLayer) -> int:
    return layer.groups if isinstance(layer, Layer) else 1


def _check_weights(number: int, layer: AnyLayer, w: np.ndarray, axes: Sequence[AxisLayer]) -> None:
    if not isinstance(layer, Layer):
        raise bad_type(f"layers[{number}]", layer, "a Layer: only convolutions have weights")
    kernel = tuple(axis.kernel for axis in axes)
    if w.ndim != len(kernel) + 2 or w.shape[2:] != kernel or 0 in w.shape or w.shape[0] % layer.groups:
        expected = f"(O, C // groups, {', '.join(map(str, kernel))}), O a multiple of groups={layer.groups}"
        raise bad_value(f"weights[{number}].shape", w.shape, expected)
    if w.dtype.kind not in "biufc":
        raise bad_type(f"weights[{number}].dtype", w.dtype.name, "numbers")


def _pushed_back(gradient: np.ndarray, w: np.ndarray, axes: Sequence[AxisLayer], groups: int) -> np.ndarray:
    """The adjoint of one layer: output i adds to inputs ``i s + a d``."""
    size = [(n - 1) * axis.stride + axis.reach + 1 for n, axis in zip(gradient.shape[1:], axes, strict=True)]
    split = w.reshape(groups, -1, *w.shape[1:])
    above = gradient.reshape(groups, -1, *gradient.shape[1:])
    below = np.zeros((groups, w.shape[1], *size), np.result_type(gradient, w, np.float64))
    for tap in itertools.product(*(range(axis.kernel) for axis in axes)):
        at: Any = (..., *tap)
        one_tap = split[at]
        starts = [a * axis.dilation for a, axis in zip(tap, axes, strict=True)]
        where = tuple(
            slice(start, start + (n - 1) * axis.stride + 1, axis.stride)
            for start, n, axis in zip(starts, gradient.shape[1:], axes, strict=True)
        )
        below[(slice(None), slice(None), *where)] += np.einsum("goc,go...->gc...", one_tap, above)
    return below.reshape(-1, *size)
