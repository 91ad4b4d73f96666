"""Signals: what must hold whatever is computed: NaN, bits, other people's memory, refusals, odd shapes."""

import itertools
import re
import tracemalloc

import naive
import numpy as np
import pytest
import scipy.signal
from checks import METHODS, PLAIN, TRANSFORMS, assert_within
from signal_oracle import BOUNDARIES, MODES, limit, small, stuffed, truth

import fastdil
from fastdil import signals

both = pytest.mark.parametrize("name", ["correlate", "convolve"])
every_method = pytest.mark.parametrize("method", METHODS)
every_mode = pytest.mark.parametrize("mode", MODES)


def normal(shape, dtype="float64", seed=0) -> np.ndarray:
    """Random numbers whose sums round."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


# ---------------------------------------------------------------------------------------------------------
# accuracy
# ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_errors_stay_below_the_bound(name, method, dtype):
    cases = [
        ((700,), (130,), 3, "same", None),
        ((3, 500), (60,), 1, "full", None),
        ((2, 90, 4), (20,), 3, "causal", 1),
        ((40, 50), (7, 9), (2, 3), "full", None),
        ((2, 30, 3, 20), (4, 5), 2, "same", (1, 3)),
        ((6, 30, 40), (3, 9), 2, "valid", (0, 2)),
        ((9, 10, 11), (3, 2, 4), 2, "same", None),
        ((50, 64), (60,), 1, "same", 0),
    ]
    if dtype != "float32":
        cases = cases[:4:3]  # other dtypes take the same ways; these are long sums, in one axis and in two
    for (x_shape, taps_shape, dilation, mode, axes), boundary in itertools.product(cases, ("zeros", "symmetric")):
        x, taps = normal(x_shape, dtype), normal(taps_shape, dtype, 1)
        args = (name, x, taps, dilation, mode, axes, boundary)
        y = getattr(fastdil, name)(x, taps, dilation, mode, axes=axes, boundary=boundary, method=method)
        assert_within(y, truth(*args), limit(*args))


@both
def test_lower_precisions(name):
    x, taps = normal((3, 200), "float32"), normal(9, "float32", 1)
    expected = truth(name, x, taps)
    for precision, share in (("high", 2.0**-14), ("medium", 2.0**-6), ("highest", 8 * 2.0**-23), (None, 8 * 2.0**-23)):
        y = getattr(fastdil, name)(x, taps, precision=precision)
        assert_within(y, expected, share * truth(name, x, taps, conv=naive.magnitude))


# ---------------------------------------------------------------------------------------------------------
# NaN and infinity
# ---------------------------------------------------------------------------------------------------------


@both
@every_mode
@pytest.mark.parametrize("method", [*PLAIN, "auto"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_what_touches_them(name, mode, method, value):
    for x_shape, taps_shape, axes in (((300,), (40,), None), ((40, 5), (3,), 0), ((3, 20, 30), (2, 3), None)):
        x, taps = normal(x_shape), np.abs(normal(taps_shape, seed=1))
        x.flat[x.size // 3] = value
        for boundary in ("zeros", "reflect"):
            touched = truth(name, ~np.isfinite(x) * 1.0, np.ones(taps_shape), 2, mode, axes, boundary) > 0
            y = getattr(fastdil, name)(x, taps, 2, mode, axes=axes, boundary=boundary, method=method)
            np.testing.assert_array_equal(~np.isfinite(y), touched)


@both
def test_infinite_taps_meet_the_zeros_beyond_the_edges(name):
    taps = np.array([1.0, np.inf, 2.0])
    for x, axes in ((np.ones(5), None), (np.ones((5, 3)), 0), (np.ones((5, 40))[:, :35], 0), (np.ones((2, 5)), 1)):
        expected = truth(name, x, taps, 2, "full", axes)
        np.testing.assert_array_equal(getattr(fastdil, name)(x, taps, 2, axes=axes), expected)
        np.testing.assert_array_equal(getattr(fastdil, name)(x, taps, 2, axes=axes, method="direct"), expected)


# ---------------------------------------------------------------------------------------------------------
# bits
# ---------------------------------------------------------------------------------------------------------

#: Shape, taps, axes, the batch axis to split.
SPLITS = [
    ((6, 200), (9,), 1, 0),
    ((6, 150), (100,), 1, 0),
    ((3, 6, 60), (5,), 2, 1),
    ((200, 6), (9,), 0, 1),
    ((150, 6), (100,), 0, 1),
    ((90, 80), (7,), 0, 1),
    ((150, 80), (60,), 0, 1),
    ((2, 60, 3, 40), (8,), 1, 3),
    ((2, 60, 3, 40), (8,), 1, 2),
    ((30, 40, 6), (5, 6), (0, 1), 2),
    ((30, 6, 40), (5, 6), (0, 2), 1),
    ((6, 30, 40), (7, 3), (1, 2), 0),
]


@pytest.mark.parametrize(("shape", "taps_shape", "axes", "split"), SPLITS)
@pytest.mark.parametrize("boundary", ["zeros", "symmetric", "circular"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_bits_do_not_depend_on_how_a_batch_is_split(shape, taps_shape, axes, split, boundary, dtype):
    x, taps = normal(shape, dtype), normal(taps_shape, dtype, 1)
    for method in METHODS:
        args = {"axes": axes, "boundary": boundary, "method": method}
        if method != "reference" and split > np.min(axes):
            continue  # folded axes change how sums are cut into chains, and the length of a transform
        whole = fastdil.correlate(x, taps, 2, "same", **args)
        for parts in ([1], [2], [1, 4], [35]):
            pieces = np.split(x, [at for at in parts if at < shape[split]], split)
            for copied in (False, True) if split == 0 or method == "reference" else (True,):
                done = [fastdil.correlate(p.copy() if copied else p, taps, 2, "same", **args) for p in pieces]
                np.testing.assert_array_equal(np.concatenate(done, split), whole, err_msg=f"{method} {parts} {copied}")


@every_method
def test_the_bits_do_not_depend_on_the_threads(method):
    for shape, axes in (((40, 3000), 1), ((3000, 40), 0), ((40, 50, 60), (1, 2)), ((100_000,), 0)):
        x, taps = normal(shape, "float32"), normal((40,) if np.size(axes) == 1 else (5, 8), "float32", 1)
        one = fastdil.convolve(x, taps, 2, "same", axes=axes, method=method, threads=1)
        for threads in (2, 5):
            np.testing.assert_array_equal(
                fastdil.convolve(x, taps, 2, "same", axes=axes, method=method, threads=threads), one
            )


# ---------------------------------------------------------------------------------------------------------
# which method
# ---------------------------------------------------------------------------------------------------------


def methods_of(x, *args, **kwargs) -> tuple[str, ...]:
    """Names of the methods that a call tries in turn."""
    signals._filters._entries.clear()
    fastdil.correlate(x, *args, **kwargs)
    (bound,) = signals._filters._entries.values()
    return tuple(algorithm.name for algorithm in bound.runner.algorithms)


@pytest.mark.parametrize("shape", [(2**17,), (32, 2**12), (2**16, 2)])
def test_short_taps_are_summed_and_long_ones_transformed(shape):
    x, axes = normal(shape, "float32"), int(np.argmax(shape))
    assert methods_of(x, np.ones(9, "f4"), 3, "same", axes=axes)[0] not in TRANSFORMS
    assert methods_of(x, np.ones(max(shape) - 1, "f4"), 1, "same", axes=axes)[0] in TRANSFORMS
    assert methods_of(x.astype("int32"), np.ones(2047, "i4"), 1, "same", axes=axes)[0] not in TRANSFORMS


def test_a_batch_is_transformed_many_at_a_time():
    """One member after the other would take ten times as long."""
    x, taps = normal((500, 4096), "float32"), np.ones(2048, "f4")
    assert methods_of(x, taps, 1, "same")[0] in TRANSFORMS
    (bound,) = signals._filters._entries.values()
    assert bound.runner.problem.batch == 1


def test_an_autocorrelation_needs_little_memory():
    x = normal(100_000)
    fastdil.correlate(x, x)
    tracemalloc.start()
    try:
        y = fastdil.correlate(x, x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * x.nbytes
    assert_within(y, scipy.signal.correlate(x, x), 16 * np.finfo(float).eps * np.sum(x**2))


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_a_forced_transform_refuses_integers(dtype):
    with pytest.raises(ValueError, match=r"method='fft': expected .*must be exact"):
        fastdil.correlate(np.ones(50, dtype), np.ones(5, dtype), method="fft")


def test_a_forced_transform_that_refuses_writes_nothing():
    x, out = np.ones((3, 300)), np.full((3, 300), 5.0)
    x[2, 100] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fastdil.correlate(x, np.ones(40), mode="same", method="fft", out=out)
    assert (out == 5).all()


# ---------------------------------------------------------------------------------------------------------
# out
# ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("dtype", ["int16", "float16", "float32", "complex64"])
@pytest.mark.parametrize("ndim", [1, 5])
def test_out(name, dtype, ndim):
    shape, taps_shape, axes = ((4, 5, 20), (3,), 1) if ndim == 1 else ((3, 3, 3, 3, 4), (2,) * 4, (0, 1, 3, 4))
    x, taps = small(shape, dtype), small(taps_shape, dtype, 1)
    expected = getattr(fastdil, name)(x, taps, 2, "same", axes=axes)
    frame = np.full([2 * n + 1 for n in shape], 7, dtype)
    outs = [
        np.empty(shape, dtype),
        np.asfortranarray(np.empty(shape, dtype)),
        frame[(slice(1, None, 2),) * len(shape)],
        frame[(slice(-2, None, -2),) * len(shape)],
        np.empty(shape, np.dtype(dtype).newbyteorder()),
    ]
    for out in outs:
        y = getattr(fastdil, name)(x, taps, 2, "same", axes=axes, out=out)
        assert y is out
        np.testing.assert_array_equal(y, expected)
    assert (frame[(slice(None, None, 2),) * len(shape)] == 7).all()


BUFFER = np.arange(40.0)


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        ([0.0] * 20, TypeError, "out='list': expected a NumPy array"),
        (np.empty(19), ValueError, "out.shape=(19,): expected (20,)"),
        (np.empty((1, 20)), ValueError, "out.shape=(1, 20)"),
        (np.empty(20, "f4"), TypeError, "out.dtype='float32': expected float64"),
        (BUFFER[10:30], ValueError, "out='array that overlaps an input'"),
        (BUFFER[38:], ValueError, "out.shape"),
        (np.broadcast_to(np.zeros(1), (20,)), ValueError, "out='read-only array'"),
        (np.lib.stride_tricks.as_strided(np.zeros(1), (20,), (0,)), ValueError, "out.strides"),
    ],
)
def test_an_out_that_does_not_fit(out, error, words):
    before = BUFFER.copy()
    with pytest.raises(error, match=re.escape(words)):
        fastdil.correlate(BUFFER[:20], np.ones(3), mode="same", out=out)
    np.testing.assert_array_equal(BUFFER, before)
    with pytest.raises(ValueError, match="overlaps an input"):
        fastdil.correlate(np.ones(20), BUFFER[19:22], mode="same", out=BUFFER[:20])
    interleaved = np.arange(40.0)
    fastdil.correlate(interleaved[::2], np.ones(1), mode="same", out=interleaved[1::2])
    np.testing.assert_array_equal(interleaved[1::2], np.arange(0.0, 40, 2))


# ---------------------------------------------------------------------------------------------------------
# arguments that do not fit
# ---------------------------------------------------------------------------------------------------------

X, TAPS = np.ones((4, 10)), np.ones(3)


@both
@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ((X, TAPS, 0), {}, ValueError, "dilation=0: expected an integer >= 1"),
        ((X, TAPS, 1.0), {}, TypeError, "dilation=1.0: expected an integer >= 1"),
        ((X, TAPS, True), {}, TypeError, "dilation=True"),
        ((X, TAPS, "2"), {}, TypeError, "dilation='2'"),
        ((X, TAPS, (1, 2)), {}, ValueError, "dilation=(1, 2): expected 1 entries"),
        ((X, TAPS, 1, "Full"), {}, ValueError, "mode='Full': expected one of 'full', 'same', 'valid', 'causal'"),
        ((X, TAPS, 1, ["full"]), {}, TypeError, "mode=['full']"),
        ((X, TAPS, 1, None), {}, TypeError, "mode=None"),
        ((X, TAPS), {"boundary": "mirror"}, ValueError, "boundary='mirror': expected one of 'zeros', 'reflect'"),
        ((X, TAPS), {"boundary": None}, TypeError, "boundary=None"),
        ((X, TAPS, 1, "valid"), {"boundary": "mirror"}, ValueError, "boundary='mirror'"),
        ((X, TAPS), {"method": "magic"}, ValueError, "method='magic': expected one of 'auto'"),
        ((X, TAPS), {"precision": "low"}, ValueError, "precision='low'"),
        ((X, TAPS), {"threads": 0}, ValueError, "threads=0"),
        ((X, TAPS), {"threads": 1.0}, TypeError, "threads=1.0"),
        ((X, TAPS, 5, "valid"), {}, ValueError, "taps.shape=(3,): expected at most the 10 samples on axis 1 of x"),
        (
            (X, np.ones((5, 2)), 1, "valid"),
            {},
            ValueError,
            "taps.shape=(5, 2): expected at most the 4 samples on axis 0",
        ),
        ((X, np.ones((1, 1, 1))), {}, ValueError, "taps='array of 3 dimensions': expected at most the 2 of x"),
        ((np.float64(3), TAPS), {}, ValueError, "taps='array of 1 dimensions': expected at most the 0 of x"),
        ((X, np.ones(0)), {}, ValueError, "taps.shape=(0,): expected at least one tap"),
        ((X, np.ones((2, 0))), {}, ValueError, "taps.shape=(2, 0): expected at least one tap"),
        ((X, TAPS), {"axes": 2}, ValueError, "axes=2: expected 1 different axes of x"),
        ((X, TAPS), {"axes": -3}, ValueError, "axes=-3"),
        ((X, TAPS), {"axes": (0, 1)}, ValueError, "axes=(0, 1): expected 1 different"),
        ((X, TAPS), {"axes": ()}, ValueError, "axes=()"),
        ((X, TAPS), {"axes": 1.0}, TypeError, "axes=1.0"),
        ((X, TAPS), {"axes": "0"}, TypeError, "axes='0'"),
        ((X, np.ones((2, 2))), {"axes": (1, 1)}, ValueError, "axes=(1, 1): expected 2 different"),
        ((X, np.ones((2, 2))), {"axes": (1, -1)}, ValueError, "axes=(1, -1)"),
        ((X.astype(object), TAPS), {}, TypeError, "x='array of dtype object'"),
        ((X, np.array(["a"])), {}, TypeError, "taps='array of dtype <U1'"),
        (([[1], [1, 2]], TAPS), {}, ValueError, "x=[[1], [1, 2]]"),
        ((X.astype(np.longdouble), TAPS), {}, TypeError, "dtype='"),
    ],
)
def test_arguments_that_do_not_fit(name, args, kwargs, error, words):
    call = getattr(fastdil, name)
    call(X, TAPS)  # the same call with good arguments is remembered: that must not let bad ones pass
    with pytest.raises(error, match=re.escape(words)):
        call(*args, **kwargs)


def test_taps_longer_than_the_signal_are_fine_where_the_result_says_so():
    """SciPy exchanges the inputs of mode "valid" then; here that is an error, and the other modes keep their length."""
    x, taps = small(4), small(9, seed=1)
    for mode in ("full", "same"):
        np.testing.assert_array_equal(
            fastdil.correlate(x, taps, 2, mode), scipy.signal.correlate(x, stuffed(taps, 2), mode, method="direct")
        )
    assert fastdil.correlate(x, taps, 2, "causal").shape == (4,)


# ---------------------------------------------------------------------------------------------------------
# odd shapes, remembered calls
# ---------------------------------------------------------------------------------------------------------


@both
@every_mode
@pytest.mark.parametrize("boundary", ["zeros", "circular", "symmetric"])
def test_empty_and_single(name, mode, boundary):
    call, args = getattr(fastdil, name), {"boundary": boundary}
    taps = np.array([1.0, 2.0])
    longer = {"full": 3, "same": 0, "valid": -3, "causal": 0}[mode]
    assert call(np.zeros((0, 8)), taps, 3, mode, **args).shape == (0, 8 + longer)
    assert call(np.zeros((8, 0)), taps, 3, mode, axes=0, **args).shape == (8 + longer, 0)
    assert call(np.zeros((5, 0, 8)), taps, 3, mode, **args).shape == (5, 0, 8 + longer)
    assert call(np.full((1, 1, 1), 3.0), [[2.0]], 3, mode, **args).tolist() == [[[6.0]]]
    assert call(np.ones((1, 8, 1)), taps, 3, mode, axes=1, **args).shape == (1, 8 + longer, 1)
    if mode == "valid":
        with pytest.raises(ValueError, match="at most the 0 samples on axis 0"):
            call(np.zeros(0), taps, 3, mode, **args)
    else:
        out = np.zeros((2, 0), np.float32)
        assert call(np.zeros((2, 0), np.float32), taps.astype("f4"), 3, mode, out=out, **args) is out
    with pytest.raises(ValueError, match="magic"):
        call(np.zeros((0, 8)), taps, 3, mode, method="magic")


def test_taps_without_axes_scale():
    assert fastdil.correlate([1, 2, 3], 2).tolist() == [2, 4, 6]
    assert fastdil.correlate([1.0, 2.0], 2j).tolist() == [-2j, -4j]
    assert fastdil.convolve(3.0, 2j).shape == ()
    assert fastdil.convolve(3.0, 2j)[()] == 6j


@both
@every_mode
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", ["float64", "complex64", "int16"])
def test_taps_along_more_than_three_axes(name, mode, boundary, dtype):
    x = small((4, 5, 3, 4, 5), dtype)
    for taps_shape, axes in (
        ((2, 2, 2, 3), None),
        ((2, 3, 2, 2), (3, 0, 4, 1)),
        ((2, 2, 3, 2, 2), None),
        ((2, 1, 3, 1, 2), None),
    ):
        taps = small(taps_shape, dtype, 1)
        y = getattr(fastdil, name)(x, taps, 1, mode, axes=axes, boundary=boundary)
        expected = truth(name, x, taps, 1, mode, axes, boundary)
        assert y.flags.c_contiguous
        assert y.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(y, expected)


def test_taps_along_four_axes_keep_the_bound_and_their_nans():
    x, taps = normal((5, 6, 7, 8), "float32"), normal((4, 3, 2, 3), "float32", 1)
    y = fastdil.convolve(x, taps, mode="same")
    assert_within(y, truth("convolve", x, taps, 1, "same"), limit("convolve", x, taps, 1, "same"))
    x[2, 3, 4, 5] = np.inf
    y, expected = fastdil.convolve(x, taps, mode="same"), truth("convolve", x, taps, 1, "same")
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
    np.testing.assert_array_equal(y[np.isinf(y)], expected[np.isinf(expected)])


def test_a_remembered_call_looks_at_its_arrays_anew():
    x, taps = normal((3, 50)), normal(4, seed=1)
    for _ in range(3):
        np.testing.assert_array_equal(fastdil.correlate(x, taps, 2), fastdil.correlate(x.copy(), taps.copy(), 2))
        x[1], taps[2] = x[1] + 1, taps[2] * 2
    assert fastdil.correlate(x, taps, 2).shape == (3, 56)
    assert fastdil.convolve(x, taps, 2)[0, 0] == x[0, 0] * taps[0]
    taps[1] = np.nan
    assert np.isnan(fastdil.correlate(x, taps, 2)).all()


def test_memory_of_remembered_calls_is_bounded():
    for length in range(300):
        fastdil.correlate(np.ones(length + 1), [1.0])
    assert len(signals._filters) <= signals._filters.limit
