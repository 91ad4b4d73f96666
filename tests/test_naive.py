"""The oracle against independent implementations, so that the rest can rely on it."""

from itertools import product

import naive
import numpy as np
import pytest
from scipy import signal


@pytest.mark.parametrize("dtype", [np.float64, np.complex128, np.int64])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_against_scipy(rank, dtype):
    rng = np.random.default_rng(rank)
    x = (10 * rng.standard_normal((8, 9, 7)[:rank])).astype(dtype)
    w = (10 * rng.standard_normal((3, 2, 4)[:rank])).astype(dtype)
    mine = naive.conv(x[None], w[None, None])[0]
    np.testing.assert_allclose(mine.astype(dtype), signal.correlate(x, w.conj(), "valid", method="direct"), atol=1e-9)


def scalar_conv(x, w, stride, dilation, pairs, groups):
    """The contract's sum, term by term, in 1-D with zero padding."""
    n, channels, size = x.shape
    outputs, per_group, taps = w.shape
    lo, hi = pairs
    count = (size + lo + hi - (taps - 1) * dilation - 1) // stride + 1
    y = np.zeros((n, outputs, count), x.dtype)
    for b, o, i, c, a in product(range(n), range(outputs), range(count), range(per_group), range(taps)):
        position = i * stride + a * dilation - lo
        if 0 <= position < size:
            y[b, o, i] += w[o, c, a] * x[b, o // (outputs // groups) * per_group + c, position]
    assert channels == per_group * groups
    return y


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("dilation", [1, 3, 11])
@pytest.mark.parametrize("pairs", [(0, 0), (7, 2), (25, 30)])
@pytest.mark.parametrize("groups", [1, 2])
def test_against_the_sum_itself(stride, dilation, pairs, groups):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 4, 30))
    w = rng.integers(-9, 9, (6, 4 // groups, 3))
    mine = naive.conv(x, w, stride=stride, dilation=dilation, padding=(pairs,), groups=groups)
    np.testing.assert_array_equal(mine, scalar_conv(x, w, stride, dilation, pairs, groups))


def test_padding_modes_by_hand():
    x = np.array([1, 2, 3])
    expected = {
        "zeros": [0, 0, 0, 0, 1, 2, 3, 0, 0],
        "reflect": [1, 2, 3, 2, 1, 2, 3, 2, 1],
        "replicate": [1, 1, 1, 1, 1, 2, 3, 3, 3],
        "circular": [3, 1, 2, 3, 1, 2, 3, 1, 2],
        "symmetric": [3, 3, 2, 1, 1, 2, 3, 3, 2],
    }
    for mode, values in expected.items():
        assert naive.pad(x, [(4, 2)], mode).tolist() == values


def test_negative_padding_crops_before_the_mode_continues():
    x = np.arange(1, 7)
    assert naive.pad(x, [(-2, 2)], "reflect").tolist() == [3, 4, 5, 6, 5, 4]
    assert naive.pad(x, [(3, -4)], "circular").tolist() == [2, 1, 2, 1, 2]
    assert naive.pad(x, [(-8, 5)]).tolist() == [0, 0, 0]


def test_integers_wrap():
    x = np.full((1, 1, 3), 200, np.uint8)
    w = np.full((1, 1, 3), 200, np.uint8)
    assert naive.conv(x, w)[0, 0, 0] == 3 * 200 * 200 % 256
    x = np.full((1, 1, 1), -(2**63), np.int64)
    assert naive.conv(x, np.full((1, 1, 1), 3))[0, 0, 0] == -(2**63)


def test_activations_at_known_points():
    y = np.array([-np.inf, -1.0, 0.0, 1.0, np.inf])
    known = {
        "relu": [0, 0, 0, 1, np.inf],
        "leaky_relu": [-np.inf, -0.01, 0, 1, np.inf],
        "tanh": [-1, -0.7615941559557649, 0, 0.7615941559557649, 1],
        "sigmoid": [0, 0.2689414213699951, 0.5, 0.7310585786300049, 1],
        "silu": [np.nan, -0.2689414213699951, 0, 0.7310585786300049, np.inf],
        "gelu": [np.nan, -0.15865525393145707, 0, 0.8413447460685429, np.inf],
    }
    for name, values in known.items():
        np.testing.assert_allclose(naive.activate(y, name), values, rtol=1e-15)
