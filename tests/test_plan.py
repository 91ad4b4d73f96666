"""Plans: the functional call's results, any batch and length, many threads."""

import re
import threading

import grid
import naive
import numpy as np
import pytest
from checks import METHODS, PLAIN, TRANSFORMS, assert_within, may_refuse, row
from test_conv import VIEW_CASES

import fastdil


def plan_of(case, w, bias=None, **more):
    return fastdil.plan(w, bias, **case.args, **more)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int32"])
@pytest.mark.parametrize("case", VIEW_CASES, ids=str)
def test_plan_is_the_functional_call(case, dtype, method):
    if method != "auto" and may_refuse(method, dtype, case.stride):
        pytest.skip("the method may refuse this problem")
    x, w, bias = grid.data(case, dtype)
    expected = fastdil.conv(x, w, bias, method=method, **case.args)
    p = plan_of(case, w, bias, method=method)
    for _ in range(2):
        y = p(x)
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y, expected)
    out = np.empty_like(expected)
    assert p(x, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("case", grid.SAMPLE, ids=str)
def test_plan_over_the_grid(case):
    x, w, bias = grid.data(case, "float32")
    y = plan_of(case, w, bias)(x)
    np.testing.assert_array_equal(y, fastdil.conv(x, w, bias, **case.args))


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_any_batch_and_any_length(method):
    rng = np.random.default_rng(0)
    w = rng.integers(-4, 5, (5, 3, 4)).astype(np.float32)
    p = fastdil.plan(w, padding="same", dilation=3, method=method)
    for shape in [
        (1, 3, 40),
        (3, 3, 40),
        (0, 3, 40),
        (2, 3, 7),
        (1, 3, 1),
        (3, 500),
        (2, 3, 0),
        (1, 3, 3001),
    ]:
        x = rng.integers(-4, 5, shape).astype(np.float32)
        truth = naive.conv(x, w, padding="same", dilation=3)
        y = p(x)
        assert y.shape == truth.shape
        assert_within(y, truth, naive.bound("f4", x, w, padding="same", dilation=3) if method in TRANSFORMS else 0)


def test_any_image_size_and_dtype():
    rng = np.random.default_rng(0)
    w = rng.integers(-4, 5, (4, 2, 3, 3)).astype(np.int16)
    p = fastdil.plan(w, padding=2, dilation=2)
    for dtype in ("int16", "int8", "float32", "float64", "complex64", "float16"):
        for size in ((8, 9), (20, 5)):
            x = rng.integers(-4, 5, (1, 2, *size)).astype(dtype)
            y = p(x)
            assert y.dtype == np.result_type(x, w)
            np.testing.assert_array_equal(y, naive.conv(x, w, padding=2, dilation=2))


def test_weights_are_taken_when_the_plan_is_made():
    """A later change of the caller's arrays does not reach the plan."""
    x = np.ones((1, 1, 8), np.float32)
    for method in (*METHODS, "auto"):
        w, bias = np.ones((1, 1, 3), np.float32), np.zeros(1, np.float32)
        p = fastdil.plan(w, bias, method=method)
        w[...], bias[...] = 50, 50
        np.testing.assert_allclose(p(x), 3, rtol=1e-6)
        np.testing.assert_allclose(p(x[..., :5]), 3, rtol=1e-6)


def test_decisions_are_cached_and_bounded():
    """Many shapes through one plan do not make it grow without end."""
    import gc
    import tracemalloc

    w = np.ones((4, 4, 3), np.float32)
    p = fastdil.plan(w, dilation=2)

    def sweep(start, stop):
        for n in range(start, stop):
            p(np.ones((1, 4, n), np.float32))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        warm = sweep(10, 700)
        after = sweep(700, 2100)
    finally:
        tracemalloc.stop()
    assert after - warm < 300_000


def test_functional_calls_do_not_keep_weights_alive():
    import gc
    import weakref

    class Weights(np.ndarray):
        pass

    w = np.ones((4, 4, 3), np.float32).view(Weights)
    gone = weakref.ref(w)
    fastdil.conv1d(np.ones((1, 4, 50), np.float32), w)
    del w
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shared", [True, False], ids=["plan", "functional"])
def test_eight_threads_at_once(shared, method):
    """Different sizes at once on one plan: every result has the bits of the lone call."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    inputs = [rng.standard_normal((1, 8, 20 + i, 40 + 3 * i)).astype(np.float32) for i in range(8)]
    p = fastdil.plan(w, padding=2, dilation=2, method=method)

    def call(x):
        return p(x) if shared else fastdil.conv2d(x, w, padding=2, dilation=2, method=method)

    expected = [call(x) for x in inputs]
    fresh = fastdil.plan(w, padding=2, dilation=2, method=method)
    p = fresh
    barrier, wrong = threading.Barrier(8), []

    def work(i):
        barrier.wait()
        for _ in range(10):
            if not np.array_equal(call(inputs[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plan_explains_itself():
    w = np.ones((64, 8, 3, 3), np.float32)
    p = fastdil.plan(w, padding=15, dilation=15)
    mine = p.explain((1, 8, 128, 128))
    other = fastdil.explain((1, 8, 128, 128), w.shape, padding=15, dilation=15)
    assert mine.chosen == other.chosen
    assert [c.name for c in mine.candidates] == [c.name for c in other.candidates]
    assert mine.problem == other.problem


@pytest.mark.parametrize("method", TRANSFORMS)
def test_a_forced_method_that_refuses(method):
    w = np.ones((1, 1, 3))
    reason = row(fastdil.explain((1, 1, 30), w.shape, stride=2, dtype="float64"), method).reason
    with pytest.raises(ValueError, match=re.escape(reason)):
        fastdil.plan(w, stride=2, method=method)(np.ones((1, 1, 30)))


@pytest.mark.parametrize("method", PLAIN)
def test_threads_of_a_plan(method):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 4, 300)), rng.standard_normal((6, 4, 5))
    results = [fastdil.plan(w, dilation=7, method=method, threads=n)(x) for n in (1, 2, 3, None)]
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


def test_wrong_calls_of_a_plan():
    p = fastdil.plan(np.ones((3, 2, 3)))
    with pytest.raises(ValueError, match=r"^x\.shape=.*2 channels"):
        p(np.ones((1, 3, 9)))
    with pytest.raises(ValueError, match=r"^x\.shape=.*dimensions"):
        p(np.ones((1, 2, 9, 9)))
    with pytest.raises(ValueError, match=r"^x\.shape=.*effective kernel of 3"):
        p(np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match=r"^out\b"):
        p(np.ones((1, 2, 9)), out=np.ones((1, 3, 8)))
    with pytest.raises(TypeError, match=r"^out\b"):
        p(np.ones((1, 2, 9)), out=np.ones((1, 3, 7), np.float32))


def test_repr_says_what_it_is():
    text = repr(fastdil.plan(np.ones((3, 2, 5)), dilation=4, padding="causal"))
    assert "Plan" in text
    assert len(text) < 400
