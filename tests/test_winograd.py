"""What `winograd` promises beyond the method-driven tests: its error bound on hard data, and when it steps back."""

import naive
import numpy as np
import pytest
from checks import assert_within

import fastdil
from fastdil.algorithms import winograd_layout

NAMES = (
    "random", "rectified", "equal", "positive", "alternating", "pairs of signs", "uneven channels", "sparse", "one tap",
    "loud pixel", "loud channel", "channels that cancel",
)  # fmt: skip
X_SHAPE, W_SHAPE, ARGS = (2, 72, 20, 37), (10, 72, 3, 3), {"dilation": 4, "padding": 4}


def hard(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Input and weights whose rounding errors point the same way, cancel, or are of very different size."""
    x, w = rng.standard_normal(X_SHAPE), rng.standard_normal(W_SHAPE)
    if name == "equal":
        x, w = np.full(X_SHAPE, 0.1), np.full(W_SHAPE, 0.7)
    elif name == "positive":
        x, w = abs(x), abs(w)
    elif name == "rectified":
        x = np.maximum(x, 0)
    elif name == "alternating":
        x = abs(x) * (-1.0) ** np.arange(X_SHAPE[-1])
    elif name == "pairs of signs":  # the largest frequencies, in all channels at once
        signs = np.array([1, 1, -1, -1])
        x, w = np.full(X_SHAPE, 0.7), abs(w)
        x *= signs[np.arange(X_SHAPE[2]) // 4 % 4][:, None] * signs[np.arange(X_SHAPE[3]) // 4 % 4]
    elif name == "uneven channels":
        x = x * 10.0 ** (np.arange(72) / 3 - 12)[:, None, None]
    elif name == "sparse":
        x = np.where(rng.random(X_SHAPE) < 0.02, x, 0)
    elif name == "one tap":
        w[..., :, [0, 2]] = 0
    elif name == "loud pixel":  # the same in all channels, so that their errors add up
        x, w = np.full(X_SHAPE, 0.5117), 1 + 1e-3 * w
        x[:, :, 9, 17] = 5117
    elif name == "loud channel":
        x[:, 36] *= 500
        w = 1 + 1e-3 * w
    elif name == "channels that cancel":  # a loud pixel that the loud tap does not meet; no sum shows either
        signs = (-1.0) ** np.arange(X_SHAPE[1])
        x, w = np.full(X_SHAPE, 0.5321), np.broadcast_to(0.635 * signs[:, None, None], W_SHAPE).copy()
        x[:, :, -1, 3] = 5321
        w[..., 2, 2] *= 1e4
    return x, w


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dilation", [4, (12, 19)])  # long phases; one or two samples between zeros
def test_hard_data_stays_within_the_bound_or_is_refused(dilation, name, dtype):
    x, w = (array.astype(dtype) for array in hard(name, np.random.default_rng(3)))
    args = {"dilation": dilation, "padding": dilation}
    truth, limit = naive.conv(x, w, **args), naive.bound(dtype, x, w, **args)
    assert_within(fastdil.conv2d(x, w, **args), truth, limit)
    try:
        y = fastdil.conv2d(x, w, method="winograd", **args)
    except ValueError:
        if name in ("random", "rectified"):  # what layers see must not be refused
            raise
    else:
        assert_within(y, truth, limit)


def test_a_loud_sample_that_the_taps_hardly_weigh_is_refused():
    """A tile errs by its loudest sample, the bound counts what the taps make of it."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, 72, 16, 37)).astype("f4"), rng.standard_normal(W_SHAPE).astype("f4")
    w[:, 5, 2] *= 1e-9
    x[0, 5, -1, 18] = 1e9  # without padding, the last row meets the last row of taps only
    with pytest.raises(ValueError, match="winograd"):
        fastdil.conv2d(x, w, dilation=4, method="winograd")
    truth, limit = naive.conv(x, w, dilation=4), naive.bound("float32", x, w, dilation=4)
    assert_within(fastdil.conv2d(x, w, dilation=4), truth, limit)


def test_a_loud_sample_in_the_last_row_of_whole_tiles_is_harmless():
    """There it enters products with the taps that hardly weigh it only, as in the definition."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal(X_SHAPE).astype("f4"), rng.standard_normal(W_SHAPE).astype("f4")
    w[:, 5, 2] *= 1e-9
    x[0, 5, -1, 18] = 1e9
    truth, limit = naive.conv(x, w, dilation=4), naive.bound("float32", x, w, dilation=4)
    for method in ("winograd", "auto"):
        assert_within(fastdil.conv2d(x, w, dilation=4, method=method), truth, limit)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("where", ["x", "w"])
def test_what_is_not_finite_or_overflows_is_refused_and_stays_local_in_auto(where, value):
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal(X_SHAPE).astype("f4"), rng.standard_normal(W_SHAPE).astype("f4")
    (x if where == "x" else w)[1, 2, 1, 1] = value
    with pytest.raises(ValueError, match="winograd"):
        fastdil.conv2d(x, w, method="winograd", **ARGS)
    automatic, direct = (fastdil.conv2d(x, w, method=method, **ARGS) for method in ("auto", "direct"))
    np.testing.assert_array_equal(np.isfinite(automatic), np.isfinite(direct))


@pytest.mark.parametrize("loud", [0, 3, 9])
@pytest.mark.parametrize("scale", [1e36, 1e37])
def test_one_output_that_overflows_is_seen_whatever_the_others_are(loud, scale):
    """Its sums are Inf minus Inf at some frequencies, so that its load is NaN; the next outputs' are not."""
    rng = np.random.default_rng(6)
    x, w = 100 * rng.standard_normal(X_SHAPE).astype("f4"), rng.standard_normal(W_SHAPE).astype("f4")
    w[loud] *= np.float32(scale)
    with pytest.raises(ValueError, match="winograd"):
        fastdil.conv2d(x, w, method="winograd", **ARGS)
    automatic, direct = (fastdil.conv2d(x, w, method=method, **ARGS) for method in ("auto", "direct"))
    np.testing.assert_array_equal(np.isfinite(automatic), np.isfinite(direct))


@pytest.mark.parametrize(
    ("x_shape", "taps", "args"),
    [
        ((2, 40, 90), (4,), {"dilation": 3, "padding": "causal"}),
        ((1, 40, 23, 31), (5, 3), {"dilation": (2, 3), "padding": (4, 3)}),
        ((1, 60, 40, 9), (2, 1), {"dilation": (4, 1)}),
    ],
)
def test_other_numbers_of_taps(x_shape, taps, args):
    rng = np.random.default_rng(6)
    x = rng.standard_normal(x_shape).astype("f4")
    w = rng.standard_normal((7, x_shape[1], *taps)).astype("f4")
    y = fastdil.conv(x, w, method="winograd", **args)
    assert_within(y, naive.conv(x, w, **args), naive.bound("float32", x, w, **args))


#: Several tasks each: planes and lines, runs shorter and longer than vectors and tasks, exact sums, groups.
CUT = (
    ((3, 72, 70, 75), (40, 72, 3, 3), {"dilation": 3, "padding": 3}),
    ((3, 24, 40, 90), (30, 24, 3, 3), {"dilation": 4, "padding": 4}),
    ((3, 48, 6000), (20, 48, 2), {"dilation": 900, "padding": ((900, 0),)}),
    ((3, 288, 400), (290, 288, 3), {"dilation": 8, "padding": 8}),
    ((3, 128, 40, 40), (24, 64, 3, 3), {"dilation": 1, "padding": 1, "groups": 2}),
    ((3, 72, 33, 65), (24, 72, 3, 3), {"dilation": 12, "padding": 12}),
    ((3, 72, 23, 33), (24, 72, 3, 3), {"dilation": (4, 12), "padding": (4, 12)}),
    ((3, 72, 33, 40), (24, 72, 3, 3), {"dilation": (18, 20), "padding": (18, 20)}),
    ((3, 72, 19, 64), (24, 72, 3, 3), {"dilation": (18, 4), "padding": (18, 4)}),
    ((3, 40, 5, 70, 9), (20, 40, 3, 3, 3), {"dilation": (1, 40, 5), "padding": (1, 40, 5)}),
    ((3, 24, 13, 21, 40), (18, 24, 3, 3, 3), {"dilation": (3, 1, 2), "padding": (3, 1, 2)}),
    ((3, 24, 7, 5, 300), (18, 24, 3, 1, 4), {"dilation": (2, 1, 5), "padding": "same", "padding_mode": "reflect"}),
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("x_shape", "w_shape", "args"), CUT)
def test_threads_batches_and_layouts_do_not_change_a_bit(x_shape, w_shape, args, dtype):
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    bias = rng.standard_normal(w_shape[0]).astype(dtype)

    def run(x, **more):
        return fastdil.conv(x, w, bias, activation="relu", method="winograd", **args, **more)

    one = run(x, threads=1)
    truth, limit = naive.conv(x, w, bias, **args), naive.bound(dtype, x, w, bias, **args)
    assert_within(one, np.maximum(truth, 0), limit)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(run(x, threads=threads), one)
    np.testing.assert_array_equal(np.concatenate([run(x[:1]), run(x[1:])]), one)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))  # channels last
    np.testing.assert_array_equal(run(np.moveaxis(last, -1, 1)), one)
    np.testing.assert_array_equal(run(np.ascontiguousarray(x[..., ::-1])[..., ::-1]), one)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at_once", [1, 1 << 17])  # one block of outputs, or some
@pytest.mark.parametrize(("x_shape", "w_shape", "args"), CUT)
def test_weights_that_tasks_transform_give_the_same_bits(monkeypatch, x_shape, w_shape, args, at_once, dtype):
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    kept = fastdil.plan(w, method="winograd", **args)(x)
    monkeypatch.setattr(winograd_layout, "_MOST_KEPT", 0)
    monkeypatch.setattr(winograd_layout, "_MOST_AT_HAND", 0)
    monkeypatch.setattr(winograd_layout, "_MOST_AT_ONCE", at_once)
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(fastdil.plan(w, method="winograd", threads=threads, **args)(x), kept)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "args"),
    [
        ((1, 130, 40, 40), (130, 130, 3, 3), {"dilation": 2, "padding": 2}),
        ((2, 2000, 20), (720, 1000, 3), {"dilation": 3, "groups": 2}),
    ],
)
def test_large_weights(x_shape, w_shape, args):
    """More than are transformed once: the tasks do so, in parts of the channels and some outputs at a time."""
    rng = np.random.default_rng(9)
    x, w = rng.standard_normal(x_shape).astype("f4"), rng.standard_normal(w_shape).astype("f4")
    y = fastdil.conv(x, w, method="winograd", **args)
    assert_within(y, naive.conv(x, w, **args), naive.bound("float32", x, w, **args))


def test_a_plan_serves_sizes_that_are_computed_otherwise():
    """Both axes in tiles of four or three outputs, or the height as a stack of lines: each wants its own weights."""
    rng = np.random.default_rng(8)
    w = rng.standard_normal((20, 72, 3, 3)).astype("f4")
    layer = fastdil.plan(w, dilation=8, padding=8, method="winograd")
    for size in ((64, 64), (10, 64), (20, 20), (64, 20), (64, 64)):
        x = rng.standard_normal((1, 72, *size)).astype("f4")
        args = {"dilation": 8, "padding": 8}
        assert_within(layer(x), naive.conv(x, w, **args), naive.bound("float32", x, w, **args))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", range(64, 72))
def test_any_number_of_channels(channels, dtype):
    """Weights of one frequency fill any part of a cache line; those of the next one begin a line."""
    rng = np.random.default_rng(10)
    x = rng.standard_normal((1, channels, 9, 21)).astype(dtype)
    w = rng.standard_normal((9, channels, 3, 3)).astype(dtype)
    for shape in ((9, channels, 3, 3), (9, channels, 3)):
        data, weights = (x, w) if len(shape) == 4 else (x[:, :, 0], w[:, :, 0])
        y = fastdil.conv(data, weights, padding=1, method="winograd")
        truth, limit = naive.conv(data, weights, padding=1), naive.bound(dtype, data, weights, padding=1)
        assert_within(y, truth, limit)


def test_many_taps_along_the_height_are_refused():
    with pytest.raises(ValueError, match="at most 128 taps"):
        fastdil.conv2d(np.ones((1, 2, 200, 9), "f4"), np.ones((1, 2, 129, 3), "f4"), method="winograd")
