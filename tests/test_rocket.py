"""MiniRocket against plain NumPy, and against aeon where it is installed."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

import fastdil

TRIPLES = list(itertools.combinations(range(9), 3))


def rows_of(x, triple, dilation):
    """Zero-padded response of one kernel to one float32 series, in the order of the paper's code."""

    def shifted(row, place):
        offset, result = (place - 4) * dilation, np.zeros_like(row)
        if offset < 0:
            result[-offset:] = row[:offset]
        else:
            result[: len(row) - offset] = row[offset:]
        return result

    total = -x
    for place in (0, 1, 2, 3, 5, 6, 7, 8):
        total = total - shifted(x, place)
    for place in triple:
        total = total + shifted(np.float32(3) * x, place)
    return total


def naive_features(model, x):
    """Features of one series of shape (C, L), from the fitted dilations, channels and biases."""
    result, first, biases = [], 0, model.biases_
    for d, (dilation, count) in enumerate(zip(model.dilations_, model.features_per_dilation_, strict=True)):
        for k, triple in enumerate(TRIPLES):
            total = np.zeros(x.shape[1], np.float32)
            for channel in model.channels_[d * 84 + k]:
                total = total + rows_of(x[channel], triple, int(dilation))
            if (d + k) % 2:
                total = total[4 * dilation : -4 * dilation]
            result += [np.float32(np.mean(total > bias)) for bias in biases[first : first + count]]
            first += count
    return np.array(result, np.float32)


def series(count, channels, length, seed=0):
    return np.random.default_rng(seed).standard_normal((count, channels, length)).astype("f4")


@pytest.mark.parametrize(
    ("channels", "length", "features"),
    [
        (1, 9, 84),
        (1, 10, 500),
        (1, 33, 2000),
        (1, 100, 9996),
        (1, 2049, 840),
        (1, 5000, 336),
        (3, 40, 1000),
        (12, 90, 300),
    ],
)
def test_transform(channels, length, features):
    x = series(3, channels, length)
    model = fastdil.MiniRocket(features, random_state=1).fit(x)
    y = model.transform(x)
    assert y.shape == (3, features // 84 * 84)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y[1], naive_features(model, x[1]))


def test_biases_are_quantiles_of_responses():
    x = series(1, 1, 60)  # a single series: nothing is left to chance
    model = fastdil.MiniRocket(840, random_state=0).fit(x)
    first = 0
    for dilation, count in zip(model.dilations_, model.features_per_dilation_, strict=True):
        for triple in TRIPLES:
            ranks = np.arange(first + 1, first + 1 + count) * ((5**0.5 + 1) / 2) % 1
            expected = np.quantile(rows_of(x[0, 0], triple, int(dilation)).astype(float), ranks)
            np.testing.assert_allclose(model.biases_[first : first + count], expected, rtol=1e-5, atol=1e-5)
            first += count
    assert first == len(model.biases_) == 840


def test_numbers_of_features():
    x = series(2, 1, 300)
    for wanted, given in ((1, 84), (83, 84), (84, 84), (170, 168), (10_000, 9996)):
        model = fastdil.MiniRocket(wanted, random_state=0).fit(x)
        assert model.num_features_ == given == 84 * model.features_per_dilation_.sum()
        assert (model.features_per_dilation_ > 0).all()
        assert model.dilations_[0] == 1
        assert 8 * model.dilations_[-1] < 300


def test_same_bits_for_any_threads_and_split():
    x = series(7, 1, 200)
    model = fastdil.MiniRocket(2000, random_state=3, threads=3).fit(x)
    y = model.transform(x)
    model.set_params(threads=1)
    np.testing.assert_array_equal(np.concatenate([model.transform(x[:2]), model.transform(x[2:])]), y)
    np.testing.assert_array_equal(model.transform(np.asfortranarray(x.astype(float))), y)
    np.testing.assert_array_equal(model.transform(x[:, 0]), y)
    assert model.transform(x[:0]).shape == (0, y.shape[1])


def test_random_state():
    x = series(9, 1, 50)
    first = fastdil.MiniRocket(random_state=1).fit_transform(x)
    np.testing.assert_array_equal(fastdil.MiniRocket(random_state=1).fit_transform(x), first)
    assert (fastdil.MiniRocket(random_state=2).fit_transform(x) != first).any()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - a number leaves the global generator alone
    fastdil.MiniRocket(random_state=1).fit(x)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    one, two = (fastdil.MiniRocket(random_state=np.random.RandomState(5)).fit_transform(x) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_does_not_count(bad):
    x = series(4, 1, 120)
    model = fastdil.MiniRocket(840, random_state=0).fit(x)
    x[2, 0, 60] = bad
    with np.errstate(invalid="ignore"):
        expected = naive_features(model, x[2])
    np.testing.assert_array_equal(model.transform(x)[2], expected)


def test_parameters():
    model = fastdil.MiniRocket(500, threads=2)
    assert model.get_params() == {
        "num_features": 500, "max_dilations_per_kernel": 32, "random_state": None, "threads": 2,
    }  # fmt: skip
    assert model.set_params(num_features=84) is model
    assert "num_features=84" in repr(model)
    with pytest.raises(ValueError, match="parameter='size'"):
        model.set_params(size=3)


@pytest.mark.parametrize(
    ("x", "changes", "error", "text"),
    [
        (np.ones((2, 8)), {}, ValueError, "at least 9 samples"),
        (np.ones(20), {}, ValueError, "X.shape"),
        (np.ones((0, 20)), {}, ValueError, "at least one series"),
        (np.ones((2, 0, 20)), {}, ValueError, "at least one channel"),
        (np.ones((2, 20), complex), {}, TypeError, "X.dtype"),
        (np.ones((2, 20)), {"num_features": 0}, ValueError, "num_features=0"),
        (np.ones((2, 20)), {"max_dilations_per_kernel": 0}, ValueError, "max_dilations"),
        (np.ones((2, 20)), {"random_state": -1}, ValueError, "random_state"),
        (np.ones((2, 20)), {"random_state": "a"}, TypeError, "random_state"),
        (np.ones((2, 20)), {"threads": 0}, ValueError, "threads=0"),
    ],
)
def test_refusals(x, changes, error, text):
    with pytest.raises(error, match=text):
        fastdil.MiniRocket(**changes).fit(x)


def test_transform_needs_what_was_fitted():
    with pytest.raises(ValueError, match="fit"):
        fastdil.MiniRocket().transform(np.ones((1, 20)))
    model = fastdil.MiniRocket(84).fit(np.ones((1, 20)))
    with pytest.raises(ValueError, match="as fitted"):
        model.transform(np.ones((1, 21)))


def test_scikit_learn_can_use_it():
    pytest.importorskip("sklearn", reason="scikit-learn is optional")
    from sklearn.base import clone
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline

    model = clone(fastdil.MiniRocket(168, random_state=0))
    assert model.get_params()["num_features"] == 168
    time = np.arange(100)
    x = np.sin(time * np.repeat([0.2, 0.4], 20)[:, None] + np.random.default_rng(0).uniform(0, 6, (40, 1)))
    labels = np.repeat([0, 1], 20)
    pipeline = make_pipeline(model, RidgeClassifier()).fit(x[::2], labels[::2])
    assert pipeline.score(x[1::2], labels[1::2]) == 1.0
    assert "minirocket" in clone(pipeline).named_steps
    assert repr(pipeline)


def test_import_does_not_need_scikit_learn():
    block = "import sys; sys.modules['sklearn'] = None; import numpy, fastdil; "
    code = block + "fastdil.MiniRocket(84).fit_transform(numpy.ones((1, 9)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("channels", "length"), [(1, 9), (1, 100), (3, 64)])
def test_agrees_with_aeon(channels, length):
    """aeon computes with relaxed arithmetic, so its biases round differently; with equal biases, features are equal."""
    aeon = pytest.importorskip("aeon.transformations.collection.convolution_based", reason="aeon is not installed")
    x = series(10, channels, length)
    theirs = aeon.MiniRocket(random_state=5).fit(x)
    ours = fastdil.MiniRocket(random_state=5).fit(x)
    _, channel_indices, dilations, counts, biases = theirs.parameters
    np.testing.assert_array_equal(ours.dilations_, dilations)
    np.testing.assert_array_equal(ours.features_per_dilation_, counts)
    np.testing.assert_array_equal(np.concatenate(ours.channels_), channel_indices)
    np.testing.assert_allclose(ours.biases_, biases, rtol=0, atol=64 * np.finfo("f4").eps * np.abs(biases).max())
    expected = np.asarray(theirs.transform(x))
    assert np.mean(ours.transform(x) != expected) < 1e-3
    ours.biases_ = biases
    np.testing.assert_array_equal(ours.transform(x), expected)
