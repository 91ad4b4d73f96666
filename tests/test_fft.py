"""`fft`'s own kernels: transforms, tails of blocks and lanes, sums that do not depend on the cut of a call."""

import naive
import numpy as np
import pytest
from checks import assert_within

import fastdil
from fastdil.addresses import address_of
from fastdil.algorithms import overlap_save
from fastdil.hardware import machine
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.transforms import Schedule, frequencies, transform_kernel

DTYPES = ("float32", "float64", "complex64", "complex128")


def random(shape, dtype, seed=0):
    rng = np.random.default_rng([seed, *shape])
    parts = [rng.standard_normal(shape) for _ in range(2)]
    return (parts[0] + 1j * parts[1] if np.dtype(dtype).kind == "c" else parts[0]).astype(dtype)


def check(x, w, bias=None, threads=1, **spec):
    """A new plan, since functional calls would remember the cut of an earlier test."""
    y = fastdil.plan(w, bias, method="fft", threads=threads, **spec)(x)
    truth = naive.conv(x, w, bias, **spec)
    limit = naive.bound(x.dtype, x, w, bias, **{k: v for k, v in spec.items() if k != "activation"})
    assert_within(y, truth, limit)
    return y


@pytest.fixture
def cut(monkeypatch):
    """Fixes points per transform and output rows per task."""

    def fix(length, rows=1):
        monkeypatch.setattr(overlap_save, "_best", lambda problem: (machine().vector_bytes, length, rows))

    return fix


# ---------------------------------------------------------------------------------------------------------
# transforms
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [1 << 30, 4096, 0])
@pytest.mark.parametrize("length", [4, 8, 12, 16, 20, 24, 40, 64, 96, 128, 160, 640])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_transforms_equal_numpy(kind, length, cache_bytes):
    dtype, lanes = np.dtype(f"f{int(kind[1:]) // 8}"), lanes_of(kind, machine().vector_bytes)
    data = random((length, 2, lanes), dtype)
    before = data.copy()
    schedule = Schedule(length, dtype, 2 * lanes * dtype.itemsize, cache_bytes)
    tables = address_of(data), address_of(schedule.table)
    transform_kernel(kind, machine().vector_bytes, inverse=False).ctypes(*tables)
    truth = np.fft.fft(before[:, 0].astype("D") + 1j * before[:, 1], axis=0)[frequencies(length)]
    scale = np.abs(truth).max() * np.finfo(dtype).eps
    assert_within(data[:, 0] + 1j * data[:, 1], truth, 4 * scale)
    transform_kernel(kind, machine().vector_bytes, inverse=True).ctypes(*tables)
    assert_within(data / length, before.astype("d"), 4 * scale)


# ---------------------------------------------------------------------------------------------------------
# tails
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("length", [16, 24, 32, 40])
def test_outputs_below_at_and_above_whole_blocks(cut, length, dilation):
    length = length // 8 * lanes_of("f32", machine().vector_bytes)
    cut(length)
    block = length - 4
    for outputs in (1, block - 1, block, block + 1, 2 * block, 2 * block + 1):
        for change in (-1, 0, 1):
            n = max(outputs * dilation + change, 1) + 4 * dilation
            check(random((1, 2, n), "f"), random((3, 2, 5), "f", 1), dilation=dilation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dilation", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33])
def test_any_number_of_phases_fills_the_lanes(dtype, dilation):
    for outputs in (1, dilation - 1, dilation, dilation + 1, 3 * dilation + 2):
        x = random((1, 2, max(outputs, 1) + 3 * dilation), dtype)
        check(x, random((2, 2, 4), dtype, 1), dilation=dilation)


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_any_number_of_rows_shares_lines(cut, rows, outputs):
    cut(32, rows)
    for height in (1, rows, rows + 1, 3 * rows + 2):
        x = random((1, 1, 2 * height + 4, 40), "f")
        check(x, random((outputs, 1, 3, 5), "f", 1), dilation=2, padding=(0, 3))


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 32, 33, 100])
def test_equal_terms_of_many_channels(channels):
    """One chain of them all would err by an eighth of their number."""
    x, w = np.full((1, channels, 90), 1 / 3, "f"), np.full((3, channels, 9), 1 / 7, "f")
    check(x, w, dilation=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "symmetric"])
def test_three_axes_groups_padding_bias_activation(dtype, mode):
    x, w, bias = random((2, 4, 5, 6, 19), dtype), random((6, 2, 2, 3, 4), dtype, 1), random((6,), dtype, 2)
    spec = {"groups": 2, "dilation": (2, 1, 3), "padding": ((1, 1), (2, 2), (5, 4)), "padding_mode": mode}
    check(x, w, bias, **spec)
    if np.dtype(dtype).kind == "f":
        check(x, w, bias, activation="relu", **spec)
        check(x, w, bias, activation="tanh", **spec)


def test_half_precision_and_odd_strides():
    x = random((2, 60, 3), "e").transpose(0, 2, 1)[:, :, ::-2]
    w = random((4, 3, 5), "e", 1)
    y = fastdil.conv(x, w, method="fft", padding=2)
    assert y.dtype == np.float16
    assert_within(y, naive.conv(x, w, padding=2), naive.bound(np.dtype("e"), x, w, padding=2))


# ---------------------------------------------------------------------------------------------------------
# what a call does not change
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_bits_do_not_depend_on_threads_or_batch(dtype):
    x, w = random((5, 6, 3000), dtype), random((6, 3, 40), dtype, 1)
    runs = [fastdil.plan(w, groups=2, dilation=5, method="fft", threads=threads) for threads in (1, 2)]
    y = runs[0](x)
    np.testing.assert_array_equal(runs[1](x), y)
    np.testing.assert_array_equal(runs[1](x[:3]), y[:3])
    for i in range(5):
        np.testing.assert_array_equal(runs[i % 2](x[i : i + 1]), y[i : i + 1])


# ---------------------------------------------------------------------------------------------------------
# tame and untame data
# ---------------------------------------------------------------------------------------------------------


def test_weights_that_only_meet_padding_do_not_blur_the_sums():
    x, w = random((1, 1, 20), "f"), np.array([[[3e6, 1.0, -2.0]]], "f")
    check(x, w, dilation=25, padding=((25, 25),))  # here the first tap meets samples
    y = check(x, w, dilation=25, padding=((50, 0),))
    np.testing.assert_allclose(y, -2 * x, rtol=1e-5)


def test_an_impulse_that_the_taps_see_is_tame():
    for place in (0, 57, 299):
        x = np.zeros((1, 1, 300), "f")
        x[0, 0, place] = 2.0
        check(x, random((2, 1, 9), "f", 1), padding=4)


def test_a_loud_sample_that_the_taps_hardly_touch_is_refused():
    x = random((1, 1, 2000), "f")
    x[0, 0, 700] = 1e6
    w = np.zeros((1, 1, 30), "f")
    w[0, 0, 12] = w[0, 0, 3] = 1.0
    check(x, w, dilation=2)
    x[0, 0, 1999] = 1e6  # met by the last tap alone
    x[0, 0, 700] = 1.0
    with pytest.raises(ValueError, match=r"method='fft': expected input whose loud parts the taps see"):
        fastdil.conv(x, w, method="fft", dilation=2)
    assert_within(fastdil.conv(x, w, dilation=2), naive.conv(x, w, dilation=2), naive.bound("f", x, w, dilation=2))


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_numbers_whose_squares_leave_the_range_are_refused_or_right(scale):
    x, w = random((1, 1, 200), "f"), random((1, 1, 20), "f", 1)
    check(x, w * np.float32(1e-10 if scale > 1 else 1e10), dilation=2)
    with pytest.raises(ValueError, match=r"method='fft': expected .*(large|small) enough|too large"):
        fastdil.conv(x * np.float32(scale), w, method="fft")


@pytest.mark.parametrize("place", [0, 7, 8, 63, 199])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_found_in_every_lane(place, value):
    x, w = random((1, 2, 200), "f"), random((2, 2, 9), "f", 1)
    x[0, 1, place] = value
    with pytest.raises(ValueError, match=r"method='fft': expected finite input"):
        fastdil.conv(x, w, method="fft", dilation=3)
