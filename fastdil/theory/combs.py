"""Sums over combs: how paths through a stack without upsampling add up on one axis.

Path counts are the coefficients of ``prod (1 + z^D + ... + z^((k-1)D))``, D the dilation in input pixels. Each
factor is a sum over a box of k taps, taken with about log2 k shifted additions; nothing is subtracted, so the same
code serves exact integers, truth values and floating point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import reduce

import numpy as np

from fastdil.theory.layers import AxisLayer

#: Layers, and layers of a kind, from which a spectrum is quicker than one pass per layer (it takes three per kind).
_DEEP, _KINDS = 64, 4

#: Reach from which the tables of spectra take too much memory.
_LONG = 2**24

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
    """Sum of k copies of `values`, each shifted by one more dilation along the first axis; truth values are or-ed."""
    kernel, dilation = comb
    total, copies = values, 1
    for bit in bin(kernel)[3:]:
        total, copies = _shifted_sum(total, total, copies * dilation), 2 * copies
        if bit == "1":
            total, copies = _shifted_sum(total, values, copies * dilation), copies + 1
    return total


def _shifted_sum(values: np.ndarray, others: np.ndarray, shift: int) -> np.ndarray:
    """``values + others`` with `others` moved `shift` along the first axis, as long as needed."""
    total = np.zeros((max(len(values), shift + len(others)), *values.shape[1:]), values.dtype)
    total[: len(values)] = values
    total[shift : shift + len(others)] += others
    return total


def counts(found: Sequence[Comb], dtype: type) -> np.ndarray:
    """Paths to each position, exact where `dtype` holds them."""
    if dtype is object and _recurrence_pays(found):
        return _counts_by_recurrence(found)
    return reduce(box, found, np.ones(1, dtype))


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


def shares(found: Sequence[Comb]) -> np.ndarray:
    """Share of the paths that each position has, in floating point."""
    reach = sum((kernel - 1) * dilation for kernel, dilation in found)
    if len(found) > max(_DEEP, _KINDS * len(set(found))) and reach < _LONG:
        return _shares_by_spectrum(found)
    share = np.ones(1)
    for comb in found:
        share = box(share, comb) / comb[0]
    return share


def _shares_by_spectrum(found: Sequence[Comb]) -> np.ndarray:
    """Shares of deep stacks of few kinds of layers, from their spectra: right to about 1e-12 of the peak.

    Centred, k taps at distance d have the spectrum ``sin(k d w / 2) / (k sin(d w / 2))``. It is real, and dilation only
    reads it elsewhere, so one logarithm per kernel size and frequency serves all dilations and depths.
    """
    reach = sum((kernel - 1) * dilation for kernel, dilation in found)
    length = 1 << reach.bit_length()
    frequencies = np.arange(length // 2 + 1)
    logarithm, negative = np.zeros(len(frequencies)), np.zeros(len(frequencies), bool)
    kernels = Counter(kernel for kernel, _ in found)
    tables = {kernel: _centred_spectrum(kernel, length) for kernel in kernels}
    for (kernel, dilation), number in Counter(found).items():
        logs, signs = tables[kernel]
        at = frequencies * (dilation % (2 * length)) & (2 * length - 1)
        logarithm += number * logs[at]
        if number % 2:
            negative ^= signs[at]
    magnitude = np.where(negative, -1.0, 1.0) * np.exp(logarithm)
    to_first_tap = np.exp(-1j * np.pi / length * (frequencies * reach % (2 * length)))
    return np.maximum(np.fft.irfft(magnitude * to_first_tap, length)[: reach + 1], 0.0)


def _centred_spectrum(kernel: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(logarithm of the magnitude, whether it is negative) at multiples of 1 / length, two periods of them."""
    half = np.pi / length * np.arange(2 * length)
    half[[0, length]] = 1.0  # the quotient's two limits are set below
    spectrum = np.sin(kernel * half) / (kernel * np.sin(half))
    spectrum[[0, length]] = 1.0, (-1.0) ** (kernel - 1)
    with np.errstate(divide="ignore"):
        return np.log(np.abs(spectrum)), spectrum < 0


def support(found: Sequence[Comb]) -> np.ndarray:
    """Which positions have a path at all: combs of one dilation together reach like a single long one."""
    taps: dict[int, int] = {}
    for kernel, dilation in found:
        taps[dilation] = taps.get(dilation, 1) + kernel - 1
    return reduce(box, ((kernel, dilation) for dilation, kernel in taps.items()), np.ones(1, bool))
