"""The index maps of the padding modes against `numpy.pad` itself."""

import numpy as np
import pytest

from fastdil.padding import MODES, source_indices

NUMPY = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}


def test_modes_are_the_contract():
    assert list(MODES) == ["zeros", "reflect", "replicate", "circular", "symmetric"]
    assert sorted(MODES.values()) == list(range(5))


@pytest.mark.parametrize("mode", NUMPY)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 20])
def test_every_position_is_numpys(size, mode):
    """Padding of every length up to several times the signal."""
    x = np.arange(size) + 1
    for width in range(4 * size + 3):
        mine = x[source_indices(np.arange(-width, size + width), size, mode)]
        np.testing.assert_array_equal(mine, np.pad(x, width, mode=NUMPY[mode]))


@pytest.mark.parametrize("mode", NUMPY)
def test_uneven_padding(mode):
    x = np.arange(5) + 1
    for lo, hi in ((0, 13), (13, 0), (2, 9), (31, 4)):
        mine = x[source_indices(np.arange(-lo, 5 + hi), 5, mode)]
        np.testing.assert_array_equal(mine, np.pad(x, (lo, hi), mode=NUMPY[mode]))


def test_zeros_are_minus_one():
    assert source_indices(np.arange(-2, 5), 3, "zeros").tolist() == [-1, -1, 0, 1, 2, -1, -1]
    assert source_indices(np.arange(3), 0, "zeros").tolist() == [-1, -1, -1]


@pytest.mark.parametrize("mode", NUMPY)
def test_far_positions_do_not_overflow(mode):
    far = np.array([-(2**59), 2**59], np.int64)
    indices = source_indices(far, 7, mode)
    assert ((indices >= 0) & (indices < 7)).all()
