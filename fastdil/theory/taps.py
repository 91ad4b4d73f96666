"""Which taps of a layer fall on its input, and how many: counted without looking at each."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from fastdil.theory.geometry import layer_beside
from fastdil.theory.layers import AxisLayer, Layer, Sizes, per_axis_result


def floor_sum(count: int, divisor: int, slope: int, offset: int) -> int:
    """``sum of floor((slope i + offset) / divisor) for i < count``; slope and offset not negative.

    Euclid's algorithm: the roles of slope and divisor change until nothing is left, in steps as many as digits.

    >>> floor_sum(4, 3, 2, 1), sum((2 * i + 1) // 3 for i in range(4))
    (4, 4)
    """
    total = 0
    while count:
        total += (slope // divisor) * (count * (count - 1) // 2) + (offset // divisor) * count
        slope, offset = slope % divisor, offset % divisor
        top = slope * count + offset
        count, offset, divisor, slope = top // divisor, top % divisor, slope, divisor
    return total


def _pairs_within(walked: int, axis: AxisLayer, limit: int) -> int:
    """How many i < `walked` and taps a have ``i s + a d <= limit``."""
    if limit < 0 or not walked:
        return 0
    all_of = max(
        min((limit - (walked - 1) * axis.stride) // axis.dilation + 1, axis.kernel), 0
    )  # taps that every i has
    some_of = min(limit // axis.dilation + 1, axis.kernel) - all_of
    # Tap a is had by floor((limit - a d) / s) + 1 of them; counted from the last one, the slope is positive.
    least = limit - (all_of + some_of - 1) * axis.dilation
    return all_of * walked + (some_of + floor_sum(some_of, axis.stride, axis.dilation, least) if some_of else 0)


def taps_inside(axis: AxisLayer, n: int) -> tuple[int, int]:
    """(useful, all) pairs of output and tap on one axis of `n` samples."""
    out = axis.output_size(n)
    lo = axis.pair(n)[0]
    # A transposed layer is a convolution from its output to its input: there the crop takes the part of the padding.
    walked, other = (n, out) if axis.transposed else (out, n)
    useful = _pairs_within(walked, axis, lo + other - 1) - _pairs_within(walked, axis, lo - 1)
    return useful, walked * axis.kernel


def valid_tap_fraction(
    n: Sizes, kernel_size: Sizes, dilation: Sizes = 1, stride: Sizes = 1, padding: Any = 0
) -> Fraction | tuple[Fraction, ...]:
    """Share of a layer's taps that fall on the input rather than on padding, over all its outputs.

    Parameters
    ----------
    n : int or tuple of int
        Input samples, at least 0; one number for all axes or one per axis.
    kernel_size, dilation, stride : int or tuple of int
        At least 1.
    padding : int, tuple or str
        As in `fastdil.conv`.

    Returns
    -------
    Fraction or tuple of Fraction
        Per axis; the share over several axes is the product. 1 where there is no output.

    Raises
    ------
    ValueError
        If the effective kernel is longer than the padded input.

    Notes
    -----
    With k = 3 and padding "same", ``n + 2 max(0, n - d)`` of the 3 n taps are inside. Chen et al., "Rethinking atrous
    convolution for semantic image segmentation", 2017, section 3.3, show how few weights remain valid as rates grow.

    Examples
    --------
    On 33 x 33 pixels, the rates of a pyramid:

    >>> for d in (6, 12, 18):
    ...     share = valid_tap_fraction(33, 3, d, padding="same")
    ...     print(d, share, f"{float(share**2):.1%}")
    6 29/33 77.2%
    12 25/33 57.4%
    18 7/11 40.5%
    """
    pairs, as_tuple = layer_beside("n", n, Layer(kernel_size, dilation, stride, padding))
    counts = [taps_inside(axis, size) for axis, size in pairs]
    return per_axis_result([Fraction(useful, total) if total else Fraction(1) for useful, total in counts], as_tuple)
