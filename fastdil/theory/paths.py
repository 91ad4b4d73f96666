"""Path counts: how many ways lead from each input of a receptive field to one output.

A stack's counts are the coefficients of ``prod (1 + z^D + ... + z^((k-1)D))``, D the dilation in input pixels. Each
factor is a sum over a box of k taps, taken with about log2 k shifted additions; nothing is subtracted, so the same
code serves exact integers, truth values and floating point.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np

from fastdil.errors import bad_value
from fastdil.theory.footprint import Track, has_phases, stack_footprint
from fastdil.theory.layers import AnyLayer, AxisLayer, Sizes, is_per_axis, parse_layers, parse_sizes, stack_axes

#: Counts are at most the product of the kernels; from here on they are Python integers.
_TOO_MANY = 2**63

#: Positions listed at most: 2 GiB of counts.
_LARGEST_FIELD = 2**28

#: Layers of a kind from which a spectrum is quicker than one pass per layer.
_DEEP = 64

#: A kernel size and its dilation in input pixels.
Comb = tuple[int, int]


def combs(axis: Sequence[AxisLayer]) -> list[Comb]:
    """The layers of more than one tap as (kernel, dilation in input pixels), smallest dilation first."""
    jump, found = 1, []
    for layer in axis:
        if layer.kernel > 1:
            found.append((layer.kernel, layer.dilation * jump))
        jump *= layer.stride
    return sorted(found, key=lambda comb: (comb[1], comb[0]))


def box(values: np.ndarray, comb: Comb) -> np.ndarray:
    """Sum of k copies of `values`, each shifted by one more dilation; truth values are or-ed."""
    kernel, dilation = comb
    total, copies = values, 1
    for bit in bin(kernel)[3:]:
        total, copies = _shifted_sum(total, total, copies * dilation), 2 * copies
        if bit == "1":
            total, copies = _shifted_sum(total, values, copies * dilation), copies + 1
    return total


def _shifted_sum(values: np.ndarray, others: np.ndarray, shift: int) -> np.ndarray:
    """``values + others`` with `others` moved `shift` to the right, as long as needed."""
    total = np.zeros(max(len(values), shift + len(others)), values.dtype)
    total[: len(values)] = values
    total[shift : shift + len(others)] += others
    return total


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
    return np.int64 if path_number(axis) < _TOO_MANY else object


def axis_counts(axis: Sequence[AxisLayer], output: int = 0) -> np.ndarray:
    """Path counts on one axis, exact."""
    dtype = count_dtype(axis)
    if has_phases(axis):
        return stack_footprint(axis, output, dtype).dense()
    found = combs(axis)
    if dtype is object and _recurrence_pays(found):
        return _counts_by_recurrence(found)
    return reduce(box, found, np.ones(1, dtype))


def axis_profile(axis: Sequence[AxisLayer]) -> np.ndarray:
    """Share of the paths that each position has, in floating point; not for stacks that upsample."""
    found = combs(axis)
    if len(found) > _DEEP * len(set(found)):
        return _profile_by_spectrum(found)
    share = np.ones(1)
    for comb in found:
        share = box(share, comb) / comb[0]
    return share


def _profile_by_spectrum(found: Sequence[Comb]) -> np.ndarray:
    """Shares of deep stacks of few kinds of layers: powers of their spectra, right to about 1e-12 of the peak."""
    size = 1 + sum((kernel - 1) * dilation for kernel, dilation in found)
    length = 1 << (size - 1).bit_length()
    spectrum = np.ones(length // 2 + 1, complex)
    for (kernel, dilation), number in Counter(found).items():
        taps = np.zeros(length)
        taps[: kernel * dilation : dilation] = 1 / kernel
        spectrum *= np.fft.rfft(taps) ** number
    return np.maximum(np.fft.irfft(spectrum, length)[:size], 0.0)


def axis_support(axis: Sequence[AxisLayer]) -> np.ndarray:
    """Which positions have a path at all; not for stacks that upsample."""
    return reduce(box, combs(axis), np.ones(1, bool))


def _recurrence_pays(found: Sequence[Comb]) -> bool:
    """Whether one pass of `_counts_by_recurrence` takes fewer long additions than one `box` per layer."""
    size, by_box = 1, 0
    for kernel, dilation in found:
        size += (kernel - 1) * dilation
        by_box += size * (kernel.bit_length() - 1)
    return size * sum((kernel - 1) * dilation for kernel, dilation in set(found)) < by_box


def _counts_by_recurrence(found: Sequence[Comb]) -> np.ndarray:
    """Counts of deep stacks of few kinds of layers, one after the other.

    With ``f = prod A_g^(n_g)``: ``f' prod A_g = f B``, ``B = sum n_g A_g' prod over h != g of A_h``. Comparing
    coefficients, with A the product of all A_g: ``m f_m = sum over j >= 1 of (B_(j-1) - (m - j) A_j) f_(m-j)``.
    The counts are symmetric, so half of them suffice.
    """
    depth = Counter(found)
    all_once = reduce(box, depth, np.ones(1, object))
    slope = np.zeros(len(all_once) - 1, object)
    for (kernel, dilation), number in depth.items():
        others = reduce(box, (comb for comb in depth if comb != (kernel, dilation)), np.ones(1, object))
        for tap in range(1, kernel):
            at = tap * dilation - 1
            slope[at : at + len(others)] += number * tap * dilation * others
    terms = [(j, int(all_once[j]), int(slope[j - 1])) for j in range(1, len(all_once))]
    terms = [term for term in terms if term[1] or term[2]]
    size = 1 + sum((kernel - 1) * dilation for kernel, dilation in found)
    counts = [1]
    for m in range(1, (size + 1) // 2):
        counts.append(sum((b - (m - j) * a) * counts[m - j] for j, a, b in terms if j <= m) // m)
    return np.array(counts + counts[: size // 2][::-1], object)


def path_counts(layers: Iterable[AnyLayer], output: Sizes = 0) -> np.ndarray:
    """Number of paths from each input of the receptive field to one output.

    Parameters
    ----------
    layers : iterable of Layer, Pool, Transposed or Upsample
        First layer first, at least one.
    output : int or tuple of int
        Which output; it matters only behind a transposed layer, where the counts depend on the output's phase.

    Returns
    -------
    ndarray
        As long as the receptive field, first position first; one axis per spatial axis if a layer has one number per
        axis (the outer product of the axes). int64 if the product of all kernel sizes is below 2**63, else an object
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
    >>> [path_counts([Upsample(2), Layer(3, padding=1)], output).tolist() for output in (0, 1)]
    [[1, 2], [2, 1]]
    """
    stack = parse_layers(layers)
    axes = stack_axes(stack)
    check_size(stack, axes, together=True)
    index = parse_sizes("output", output, least=0)
    if isinstance(index, tuple) and not (is_per_axis(stack) and len(index) == len(axes)):
        raise bad_value("output", output, "one integer, or one per spatial axis of the layers")
    indices = index if isinstance(index, tuple) else (index,) * len(axes)
    counts = [axis_counts(axis, at) for axis, at in zip(axes, indices, strict=True)]
    if math.prod(path_number(axis) for axis in axes) >= _TOO_MANY:
        counts = [along.astype(object) for along in counts]
    return reduce(np.multiply.outer, counts)
