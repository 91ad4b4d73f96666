"""What small calls rely on: addresses, the test for Inf and NaN, keys of remembered calls, changed arrays."""

import threading

import checks
import naive
import numpy as np
import pytest

import fastdil
from fastdil import addresses
from fastdil.algorithms.compiled import all_finite, pack_weights
from fastdil.problem import Problem


@pytest.mark.parametrize("read_only", [False, True])
def test_addresses_are_numpys(read_only):
    base = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    views = [base, base[1:], base[::-1, :, ::2], base.T, base[:0], base[1, 2, 3:4], base.view(">u2"), base.view("u1")]
    views += [np.array(1.5), np.zeros((0, 3)), np.broadcast_to(np.float32(1), (4, 4)), np.frombuffer(b"12345678")]
    views.append(np.frombuffer(bytearray(17), np.uint8)[1:].view(np.float64))
    for view in views:
        if read_only:
            view = view.view()
            view.flags.writeable = False
        assert addresses.address_of(view) == view.ctypes.data


def test_addresses_where_the_quick_way_fails(monkeypatch):
    monkeypatch.setattr(addresses, "_quick", lambda array: 0)
    assert addresses._fastest() is addresses._plain
    assert addresses._plain(np.zeros(3)) != 0


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 16, 31, 64, 65, 1000])
def test_every_place_of_a_nonfinite_weight_is_seen(dtype, size):
    largest = np.finfo(dtype).max
    w = np.full(size, largest, dtype)  # their sum overflows, they do not
    assert all_finite(w)
    for place in range(size) if size < 100 else (0, 1, 500, 998, 999):
        for value in (np.inf, -np.inf, np.nan):
            for part in ("real", "imag") if w.dtype.kind == "c" else ("real",):
                bad = w.copy()
                getattr(bad, part)[place] = value
                assert not all_finite(bad)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize(("shape", "groups"), [((3, 5, 7), 1), ((9, 1, 3), 1), ((18, 2, 1), 2), ((1, 13, 3), 1)])
@pytest.mark.parametrize(("rows", "taps_first", "part"), [(8, True, 4), (4, False, None)])
def test_packing_sees_every_place_of_a_nonfinite_weight(dtype, shape, groups, rows, taps_first, part):
    w = np.ones(shape, dtype)
    problem = Problem.create((1, groups * shape[1], 20), shape, dtype=dtype, groups=groups)
    assert pack_weights(problem, w, rows, taps_first=taps_first, part=part).finite
    for place in range(w.size):
        for value in (np.nan, -np.inf) + ((1j * np.inf,) if w.dtype.kind == "c" else ()):
            bad = w.copy()
            bad.flat[place] = value
            assert not pack_weights(problem, bad, rows, taps_first=taps_first, part=part).finite, place


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8"])
def test_integers_are_finite(dtype):
    assert all_finite(np.full(5, np.iinfo(dtype).max, dtype))


@pytest.mark.parametrize("method", ["direct", "im2col", "auto"])
def test_weights_are_read_on_every_call(method):
    """Weights, bias and input that changed since an earlier call are seen, Inf and NaN included."""
    rng = np.random.default_rng(0)
    x, w, bias = (rng.integers(-4, 5, shape).astype("f4") for shape in ((1, 3, 40), (4, 3, 3), (4,)))
    for step in range(6):
        np.testing.assert_array_equal(
            fastdil.conv1d(x, w, bias, padding=2, dilation=2, method=method),
            naive.conv(x, w, bias, padding=2, dilation=2),
        )
        w[step % 4, step % 3, step % 3] = [np.inf, 1, np.nan, 2, -np.inf, 3][step]
        x[0, step % 3, 5 * step] += 1
        bias[step % 4] -= 1


@pytest.mark.parametrize("method", checks.METHODS)
@pytest.mark.parametrize(("channels", "size"), [(1, 3), (600, 60)])  # small weights are remembered, large ones are not
def test_remembered_weights_are_those_of_the_call(method, channels, size):
    """What a call remembers is neither an array that changes later, nor other weights of the same shape."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype("f4") for shape in ((1, channels, 100), (2, channels, size)))
    old, other = w.copy(), w[:, :, ::-1].copy()

    def check(weights):
        y = fastdil.conv1d(x, weights, method=method)
        checks.assert_within(y, naive.conv(x, weights), naive.bound("float32", x, weights))

    for weights in (w, w, other, w):
        check(weights)
    w[...] = 7
    for weights in (old, w, other, old):
        check(weights)
    taps = old[0, 0].copy()
    before = fastdil.correlate(x[0, 0], taps, method=method)
    taps[0] += 1
    after = fastdil.correlate(x[0, 0], taps, method=method)
    assert not np.array_equal(before, after)


def test_layouts_of_weights_and_bias():
    """The same shapes, each time laid out differently in memory."""
    rng = np.random.default_rng(1)
    x, w, bias = (rng.integers(-4, 5, shape).astype("f4") for shape in ((2, 3, 40), (4, 3, 3), (4,)))
    truth = naive.conv(x, w, bias, dilation=2)
    unaligned = np.zeros(w.nbytes + 1, "u1")[1:].view("f4").reshape(w.shape)
    unaligned[...] = w
    wide = np.zeros((4, 3, 6), "f4")
    wide[:, :, ::2] = w
    frozen = w.copy()
    frozen.flags.writeable = False
    layouts = [w, np.asfortranarray(w), w[::-1].copy()[::-1], wide[:, :, ::2], unaligned, w.astype(">f4"), frozen]
    spread = np.zeros(8, "f4")
    spread[::2] = bias
    for weights in layouts:
        for shifts in (bias, spread[::2], bias.astype(">f4")):
            np.testing.assert_array_equal(fastdil.conv1d(x, weights, shifts, dilation=2), truth)
            np.testing.assert_array_equal(fastdil.plan(weights, shifts, dilation=2)(x), truth)


def test_equal_arguments_of_another_type_are_validated():
    x, w = np.ones((1, 1, 9), "f4"), np.ones((1, 1, 3), "f4")
    assert fastdil.conv1d(x, w, None, 1, 0, 1, 1).shape == (1, 1, 7)
    for value in (1.0, True, np.float64(1)):
        for name in ("stride", "dilation", "groups", "padding", "threads"):
            with pytest.raises(TypeError, match=name):
                fastdil.conv1d(x, w, **{name: value})
    assert fastdil.conv1d(x, w, stride=np.int64(1), dilation=(1,), padding=[(0, 0)]).shape == (1, 1, 7)
    with pytest.raises(TypeError, match="stride"):
        fastdil.conv1d(x, w, stride=(1.0,))


def test_plans_give_different_arrays_to_different_threads():
    """Scratch memory and remembered calls are shared, results are not."""
    rng = np.random.default_rng(2)
    w = rng.integers(-4, 5, (8, 8, 3)).astype("f4")
    p = fastdil.plan(w, dilation=2)
    inputs = [rng.integers(-4, 5, (1, 8, 100 + 7 * (i % 3))).astype("f4") for i in range(6)]
    truths = [naive.conv(x, w, dilation=2) for x in inputs]
    wrong = []

    def work(x, truth):
        for _ in range(200):
            if not np.array_equal(p(x), truth) or not np.array_equal(fastdil.conv1d(x, w, dilation=2), truth):
                wrong.append(x.shape)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, truths, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
