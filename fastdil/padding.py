"""Padding modes as index maps: which input sample stands at a padded position.

A convolution never needs a padded copy of its input. It needs to know, for a position before the first or
after the last sample, which sample NumPy's `numpy.pad` would have put there. `source_index` is compiled into
kernels, `source_indices` is its readable form, used wherever whole index vectors are wanted.
"""

from __future__ import annotations

import numpy as np

#: Mode name -> code that compiled kernels receive. The names are the contract's, the meaning is `numpy.pad`'s.
MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3, "symmetric": 4}


def source_indices(positions: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Input index read at each position, or -1 where the sample is a padding zero.

    Parameters
    ----------
    positions : ndarray of int64
        Positions relative to the first sample: negative before it, ``>= size`` after the last.
    size : int
        Number of samples, at least 1 unless `mode` is ``"zeros"``.
    mode : str
        A key of `MODES`.

    Examples
    --------
    >>> source_indices(np.arange(-3, 6), 3, "reflect")
    array([1, 2, 1, 0, 1, 2, 1, 0, 1])
    >>> source_indices(np.arange(-2, 4), 2, "zeros")
    array([-1, -1,  0,  1, -1, -1])
    """
    if mode == "zeros":
        return np.where((positions >= 0) & (positions < size), positions, -1)
    if mode == "replicate":
        return np.clip(positions, 0, size - 1)
    if mode == "circular":
        return positions % size
    if mode == "symmetric":
        folded = positions % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    # reflect: the edge sample is not repeated, so the period is 2 (n - 1); a single sample repeats itself.
    period = max(2 * (size - 1), 1)
    folded = positions % period
    return np.minimum(folded, period - folded) if size > 1 else np.zeros_like(positions)


def source_index(position, size, mode):
    """`source_indices` for one position and a code from `MODES`; kernels on the CPU and on GPUs are compiled with it.

    Examples
    --------
    >>> [source_index(position, 3, MODES["reflect"]) for position in range(-3, 6)]
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    if 0 <= position < size:
        return position
    if mode == 0:
        return -1
    if mode == 2:
        return 0 if position < 0 else size - 1
    if mode == 3:
        return position % size
    if mode == 4:
        folded = position % (2 * size)
        return folded if folded < size else 2 * size - 1 - folded
    if size == 1:
        return 0
    folded = position % (2 * (size - 1))
    return folded if folded < size else 2 * (size - 1) - folded
