"""Filter banks against plain loops in float64."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastdil

sys.path.append(str(Path(__file__).resolve().parent.parent))  # the benchmarks are no part of the installed package

from benchmarks import bench_banks

PADDINGS = ("same", "valid")


def response(x, taps, dilation, padding):
    """One response, summed over shifted copies in float64."""
    x, length, count = np.asarray(x, np.float64), len(x), len(taps)
    low = (count - 1) * dilation // 2 if padding == "same" else 0
    size = length if padding == "same" else length - (count - 1) * dilation
    result = np.zeros(size)
    for i in range(size):
        for k in range(count):
            place = i + k * dilation - low
            result[i] += float(taps[k]) * (x[place] if 0 <= place < length else 0.0)
    return result


def pooled(values, name, limits=(0.0,)):
    if name == "ppv":
        return [np.mean(values > limit) for limit in limits]
    return [np.max(values) if name == "max" else np.mean(values)]


def tolerance(x, taps, dtype):
    """(K + 1) / 2 units of eps for each product."""
    worst = np.abs(x).max() * np.abs(taps).sum(axis=1).max() + 10
    return (taps.shape[1] + 1) * np.finfo(dtype).eps * worst


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 130, 5000])
def test_responses(length, dtype):
    random = np.random.default_rng(length)
    x, taps = random.standard_normal((2, length)).astype(dtype), random.standard_normal((5, 4)).astype(dtype)
    bias = random.standard_normal(5).astype(dtype)
    dilations = (1, 3, length, 10**12) if length < 1000 else (2, 900)
    y = fastdil.filter_bank(x, taps, dilations, bias=bias)
    assert y.shape == (2, len(dilations), 5, length)
    assert y.dtype == dtype
    for d, dilation in enumerate(dilations):
        for f in range(5) if length < 1000 else (1, 4):
            expected = response(x[1], taps[f], dilation, "same") + bias[f]
            np.testing.assert_allclose(y[1, d, f], expected, rtol=0, atol=tolerance(x, taps, dtype))


@pytest.mark.parametrize("count", [1, 2, 9, 60])
@pytest.mark.parametrize("filters", [1, 3, 4, 5, 84])
def test_integers_are_exact(filters, count):
    random = np.random.default_rng(count)
    x, taps = random.integers(-9, 9, 70), random.integers(-9, 9, (filters, count))
    for padding in PADDINGS:
        y = fastdil.filter_bank(x, taps, padding=padding)
        assert y.dtype == np.float64
        np.testing.assert_array_equal(y, [response(x, taps[f], 1, padding) for f in range(filters)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [17, 40, 129, 4100, 9000])
def test_pools_with_padding_of_each_filter(length, dtype):
    random = np.random.default_rng(length)
    # Small integers: sums are exact, so counts must match exactly.
    x, taps = random.integers(-4, 5, (1, length)).astype(dtype), random.integers(-3, 4, (6, 3)).astype(dtype)
    dilations = (1, 8) if length < 1000 else (7, length // 2 - 1)
    padding = random.choice(PADDINGS, (2, 6))
    limits = random.integers(-5, 6, (2, 6, 3)) + 0.5
    names = ("ppv", "max", "mean")
    y = fastdil.filter_bank(x, taps, dilations, padding=padding, pool=names, thresholds=limits)
    assert y.shape == (1, 2, 6, 5)
    for d, dilation in enumerate(dilations):
        for f in range(6):
            values = response(x[0], taps[f], dilation, padding[d, f])
            expected = np.concatenate([pooled(values, name, limits[d, f]) for name in names]).astype(dtype)
            np.testing.assert_array_equal(y[0, d, f, :4], expected[:4])
            np.testing.assert_allclose(y[0, d, f, 4], expected[4], rtol=4 * np.finfo(dtype).eps, atol=1e-300)


def test_axes_follow_the_arguments():
    x, taps = np.ones((2, 3, 20)), np.ones((4, 3))
    shapes = {
        (1, None): (2, 3, 4, 20),
        ((1, 2), None): (2, 3, 2, 4, 20),
        (1, "max"): (2, 3, 4),
        ((5,), "max"): (2, 3, 1, 4),
        ((1, 2), ("max",)): (2, 3, 2, 4, 1),
        (np.int64(2), ("ppv", "mean")): (2, 3, 4, 2),
    }
    for (dilations, pool), shape in shapes.items():
        assert fastdil.filter_bank(x, taps, dilations, pool=pool).shape == shape
    y = fastdil.filter_bank(x, taps, pool="ppv", thresholds=np.zeros((4, 6)))
    assert y.shape == (2, 3, 4, 6)
    assert fastdil.filter_bank(np.ones((0, 20)), taps).shape == (0, 4, 20)
    assert fastdil.filter_bank(x, np.ones((0, 3)), pool="max").shape == (2, 3, 0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_matter(threads):
    random = np.random.default_rng(0)
    x, taps = random.standard_normal((3, 700)).astype("f4"), random.standard_normal((30, 9)).astype("f4")
    for pool in (None, ("max", "mean", "ppv")):
        whole = fastdil.filter_bank(x, taps, (1, 6, 30), pool=pool, threads=threads)
        parts = [fastdil.filter_bank(row, taps, (1, 6, 30), pool=pool, threads=1) for row in x]
        np.testing.assert_array_equal(whole, np.stack(parts))


def test_layouts_and_dtypes():
    random = np.random.default_rng(1)
    x, taps = random.integers(-5, 5, (4, 50)).astype("f4"), random.integers(-5, 5, (3, 5)).astype("f4")
    expected = fastdil.filter_bank(x, taps)
    wide = np.zeros((4, 100), "f4")
    wide[:, ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (wide[:, ::2], x[:, ::-1][:, ::-1], np.asfortranarray(x), x.astype(">f4"), frozen, x.tolist()):
        np.testing.assert_array_equal(fastdil.filter_bank(same, taps), expected)
    half = fastdil.filter_bank(x.astype("f2"), taps.astype("f2"))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected.astype("f2"))
    out = np.full((4, 3, 100), 7, "f4")
    assert np.shares_memory(fastdil.filter_bank(x, taps, out=out[:, :, ::2]), out)
    np.testing.assert_array_equal(out[:, :, ::2], expected)
    assert (out[:, :, 1::2] == 7).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_reach_what_touches_them(bad):
    x, taps = np.ones(100, "f4"), np.array([[1, 2, 0], [1, 1, 1], [-1, 2, 3]], "f4")
    x[40] = bad
    y = fastdil.filter_bank(x, taps, 4)
    with np.errstate(invalid="ignore"):
        expected = np.array([response(x, row, 4, "same") for row in taps])
        np.testing.assert_array_equal(y, expected.astype("f4"))
        features = fastdil.filter_bank(x, taps, 4, pool=("max", "mean", "ppv"))
        np.testing.assert_array_equal(features[:, 0], expected.max(axis=1))
        np.testing.assert_allclose(features[:, 1], expected.mean(axis=1), rtol=1e-6)
        np.testing.assert_array_equal(features[:, 2], (expected > 0).mean(axis=1).astype("f4"))


def test_means_of_long_series_keep_their_digits():
    x = np.full(1_000_000, 0.1, "f4")
    y = fastdil.filter_bank(x, np.ones((1, 1), "f4"), pool="mean")
    np.testing.assert_allclose(y, np.float32(0.1), rtol=1.2e-7)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"x": np.ones((2, 0))}, ValueError, "x.shape"),
        ({"x": 1.0}, ValueError, "x.shape"),
        ({"x": np.ones(9, complex)}, TypeError, "x.dtype"),
        ({"taps": np.ones(3)}, ValueError, "taps.shape"),
        ({"taps": np.ones((3, 0))}, ValueError, "taps.shape"),
        ({"dilations": 0}, ValueError, "dilations=0"),
        ({"dilations": 1.5}, TypeError, "dilations"),
        ({"dilations": ()}, ValueError, "dilations"),
        ({"dilations": "1"}, TypeError, "dilations"),
        ({"bias": np.ones(3)}, ValueError, "bias.shape"),
        ({"padding": "full"}, ValueError, "padding='full'"),
        ({"padding": ["same", "valid"]}, ValueError, "padding"),
        ({"padding": ["same"], "pool": "max"}, ValueError, "padding.shape"),
        ({"padding": [1, 2], "pool": "max"}, ValueError, "padding"),
        ({"padding": "valid", "dilations": (1, 2)}, ValueError, "one dilation"),
        ({"padding": "valid", "dilations": 50}, ValueError, "span"),
        ({"pool": "min"}, ValueError, "pool='min'"),
        ({"pool": ()}, ValueError, "pool"),
        ({"pool": ("max", "max")}, ValueError, "pool"),
        ({"thresholds": np.ones((2, 1))}, ValueError, "thresholds"),
        ({"thresholds": np.ones(2), "pool": "ppv"}, ValueError, "thresholds.shape"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"out": np.ones((2, 19))}, ValueError, "out.shape"),
        ({"out": np.ones((2, 20), "f4")}, TypeError, "out.dtype"),
    ],
)
def test_refusals(changes, error, text):
    arguments = {"x": np.ones(20), "taps": np.ones((2, 3)), **changes}
    with pytest.raises(error, match=text):
        fastdil.filter_bank(**arguments)


def test_out_may_not_overlap():
    x = np.ones((1, 20))
    with pytest.raises(ValueError, match="overlap"):
        fastdil.filter_bank(x[0], np.ones((1, 3)), out=x)


@pytest.mark.parametrize("pool", bench_banks.FilterBank.params[0])
def test_asv_checks_before_it_times(pool):
    suite = bench_banks.FilterBank()
    suite.setup(pool)
    suite.time_bank(pool)
