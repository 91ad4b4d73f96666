"""Influence: profiles against counted paths and random stacks, gradients against finite differences by hand."""

import math

import naive
import numpy as np
import paths_oracle as oracle
import pytest

from fastdil.theory import Layer, Pool, Upsample, effective_receptive_field, erf_std, measured_influence


@pytest.mark.parametrize(
    "steps", [[(3, 1, 1)] * 5, [(3, 1, 1), (2, 3, 2), (5, 2, 1)], [(1, 4, 3)], [(2, 2, 2), (2, 1, 1)]]
)
def test_profile_is_the_share_of_paths(steps):
    counts = np.array(oracle.dense(oracle.paths([oracle.plain(*step) for step in steps])), float)
    share = counts / counts.sum()
    positions = np.arange(len(share))
    std = math.sqrt(share @ (positions - share @ positions) ** 2)
    found = effective_receptive_field([Layer(k, dilation=d, stride=s) for k, d, s in steps])
    np.testing.assert_allclose(found.profile, share, rtol=1e-13)
    assert found.std == pytest.approx(std, rel=1e-12)
    assert found.size == np.count_nonzero(share > 0.0455 * share.max())
    assert erf_std([Layer(k, dilation=d, stride=s) for k, d, s in steps]) == found.std


def test_width_grows_with_the_root_of_the_depth():
    assert erf_std([Layer(3)] * 100) == pytest.approx(10 * erf_std([Layer(3)]))
    assert erf_std([Layer((3, 5)), Pool((2, 2))]) == pytest.approx((math.sqrt(8 / 12 + 3 / 12), math.sqrt(2 + 3 / 12)))
    deep = effective_receptive_field([Layer(3)] * 400)
    assert len(deep.profile) == 801
    assert deep.size == pytest.approx(2 * math.sqrt(-2 * math.log(0.0455)) * deep.std, rel=0.02)  # a bell curve


def test_widths_whose_squares_exceed_floating_point():
    deep = [Layer(3, stride=2)] * 900
    assert erf_std(deep) == pytest.approx(math.sqrt(2 / 9) * 2.0**900, rel=1e-12)  # sum of 4**l is 4**900 / 3
    assert erf_std([Layer(3), Layer(3, dilation=2**59)]) == pytest.approx(2**59 * math.sqrt(2 / 3))


def test_behind_upsampling():
    found = effective_receptive_field([Upsample(2), Layer(3, padding=1)])
    np.testing.assert_allclose(found.profile, [1 / 3, 2 / 3])
    assert found.std == erf_std([Upsample(2), Layer(3, padding=1)]) == pytest.approx(math.sqrt(2) / 3)


def responses(layers, weights, shape):
    """Answer of output 0, summed over channels, to an impulse at every input: the gradient, with nothing transposed."""
    gradient = np.zeros(shape)
    for at in np.ndindex(shape):
        x = np.zeros((1, *shape))
        x[(0, *at)] = 1
        for layer, w in zip(layers, weights, strict=True):
            x = naive.conv(x, w, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)
        gradient[at] = x[(0, slice(None), *(0,) * (x.ndim - 2))].sum()
    return gradient


@pytest.mark.parametrize(
    ("layers", "shapes", "field"),
    [
        ([Layer(3, dilation=2, stride=2), Layer(2, groups=2)], [(4, 2, 3), (2, 2, 2)], (2, 7)),
        ([Layer((2, 3), dilation=(1, 2)), Layer((2, 1), stride=(2, 1))], [(2, 1, 2, 3), (1, 2, 2, 1)], (1, 3, 5)),
    ],
)
def test_gradient_is_the_answer_to_impulses(layers, shapes, field):
    rng = np.random.default_rng(3)
    weights = [rng.integers(-4, 5, shape).astype(float) for shape in shapes]
    found = measured_influence(layers, weights)
    assert found.shape == field
    np.testing.assert_array_equal(found, responses(layers, weights, field))
    parts = [measured_influence(layers, weights, output_channel=o) for o in range(shapes[-1][0])]
    np.testing.assert_array_equal(sum(parts), found)


def test_random_weights_come_to_the_profile():
    layers, rng = [Layer(3), Layer(3, dilation=2), Layer(2)], np.random.default_rng(8)
    power = np.zeros(8)
    for _ in range(400):
        weights = [rng.standard_normal(shape) for shape in ((8, 1, 3), (8, 8, 3), (1, 8, 2))]
        power += measured_influence(layers, weights)[0] ** 2
    np.testing.assert_allclose(power / power.sum(), effective_receptive_field(layers).profile, rtol=0.3)


@pytest.mark.parametrize(
    ("layers", "weights", "options", "error", "text"),
    [
        ([Layer(3)], [np.ones((1, 1, 2))], {}, ValueError, r"weights\[0\].shape"),
        ([Layer(3)], [], {}, (ValueError, IndexError), "one array per layer"),
        ([Pool(2)], [np.ones((1, 1, 2))], {}, TypeError, r"layers\[0\]"),
        ([Layer(1)] * 2, [np.ones((2, 1, 1)), np.ones((1, 3, 1))], {}, ValueError, r"weights\[1\].shape"),
        ([Layer(1)], [np.ones((1, 1, 1))], {"output_channel": 1}, ValueError, "output_channel=1"),
        ([Layer(1)], [np.ones((1, 1, 1))], {"output_channel": 0.0}, TypeError, "output_channel=0.0"),
        ([Layer(1)], [np.full((1, 1, 1), "a")], {}, TypeError, r"weights\[0\].dtype"),
    ],
)
def test_refusals(layers, weights, options, error, text):
    with pytest.raises(error, match=text):
        measured_influence(layers, weights, **options)


@pytest.mark.parametrize("threshold", ["0.1", None, True, (0.1,), 1j])
def test_threshold_of_the_wrong_kind(threshold):
    with pytest.raises(TypeError, match=r"threshold=.*expected a number"):
        effective_receptive_field([Layer(3)], threshold=threshold)


@pytest.mark.parametrize("threshold", [-0.1, 1, float("nan")])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match="threshold"):
        effective_receptive_field([Layer(3)], threshold=threshold)
