"""Every method, forced by name, against the oracle over the grid and every kind of array."""

from functools import lru_cache

import checks
import grid
import naive
import numpy as np
import pytest

import fastdil
from fastdil import costmodel
from fastdil.algorithms import direct_layouts, im2col, plane_layouts, regions
from fastdil.problem import Problem

FLOATS = ("float32", "float64", "complex64", "complex128")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")

every_method = pytest.mark.parametrize("method", checks.METHODS)
forced_method = pytest.mark.parametrize("method", checks.ABLE)
plain_method = pytest.mark.parametrize("method", checks.PLAIN)


@lru_cache(maxsize=32)
def prepared(case, dtype, kind, with_bias):
    """Arrays of a case, the truth and the contract's bound, kept while the methods take their turns."""
    x, w, bias = grid.data(case, dtype, kind)
    bias = bias if with_bias else None
    truth = naive.conv(x, w, bias, **case.args)
    limit = naive.bound(dtype, x, w, bias, **case.args) if np.dtype(dtype).kind in "fc" else 0.0
    return x, w, bias, truth, limit


# ---------------------------------------------------------------------------------------------------------
# the grid
# ---------------------------------------------------------------------------------------------------------


@forced_method
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", grid.CASES, ids=str)
def test_grid_floats(case, dtype, method):
    """Small integers exactly (with a bias), random numbers within the contract's bound (without)."""
    for kind, with_bias in (("small", True), ("normal", False)):
        x, w, bias, truth, limit = prepared(case, dtype, kind, with_bias)
        y = checks.forced(method, x, w, bias, **case.args)
        if y is None:
            continue
        checks.assert_form(y, truth, dtype)
        if kind == "small" and method not in checks.ROUNDING:
            np.testing.assert_array_equal(y, truth)
        checks.assert_within(y, truth, limit)


@every_method
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("case", grid.SAMPLE, ids=str)
def test_grid_integers(case, dtype, method):
    """The whole range of every integer type, exact modulo 2**bits."""
    x, w, bias, truth, _ = prepared(case, dtype, "full", True)
    y = checks.forced(method, x, w, bias, **case.args)
    if y is not None:
        checks.assert_form(y, truth, "uint8" if dtype == "bool" else dtype)
        np.testing.assert_array_equal(y, truth)


@pytest.mark.parametrize("case", grid.CASES, ids=str)
def test_auto(case):
    x, w, bias, truth, limit = prepared(case, "float32", "normal", True)
    y = fastdil.conv(x, w, bias, **case.args)
    checks.assert_form(y, truth, "float32")
    checks.assert_within(y, truth, limit)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_named_ranks_are_conv(rank):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 3, *(7,) * rank)).astype(np.float32)
    w = rng.integers(-9, 9, (4, 3, *(2,) * rank)).astype(np.float32)
    bias = rng.integers(-9, 9, 4).astype(np.float32)
    by_name = getattr(fastdil, f"conv{rank}d")(x, w, bias, 2, 1, 3, 1)
    np.testing.assert_array_equal(by_name, fastdil.conv(x, w, bias, stride=2, padding=1, dilation=3, groups=1))
    np.testing.assert_array_equal(by_name, naive.conv(x, w, bias, 2, 1, 3, 1))


# ---------------------------------------------------------------------------------------------------------
# long sums
# ---------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("values", ["uniform", "constant"])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "dilation"),
    [
        ((1, 1, 20050), (1, 1, 20000), 1),
        ((1, 2000, 31), (3, 2000, 10), 2),
        ((1, 20000, 5), (2, 20000, 1), 1),
        ((1, 2222, 4, 8), (2, 2222, 3, 3), 1),
        ((1, 1, 150, 150), (1, 1, 142, 141), 1),
    ],
    ids=["taps", "both", "channels", "image", "image-taps"],
)
def test_long_sums_keep_the_bound(x_shape, w_shape, dilation, values, dtype, method):
    """20,000 terms of one sign: a single running sum would drift beyond ``8 eps``.

    Equal terms are the hard case, because then every addition rounds the same way.
    """
    rng = np.random.default_rng(0)

    def draw(shape):
        part = rng.uniform(size=shape) if values == "uniform" else np.full(shape, 0.1)
        return (part * (1 + 0.3j) if np.dtype(dtype).kind == "c" else part).astype(dtype)

    x, w = draw(x_shape), draw(w_shape)
    truth = naive.conv(x, w, dilation=dilation)
    y = checks.forced(method, x, w, dilation=dilation)
    checks.assert_within(y, truth, naive.bound(dtype, x, w, dilation=dilation))


@every_method
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize(("precision", "relative"), [("highest", None), ("high", 2**-14), ("medium", 2**-6)])
def test_precisions_keep_their_bounds(precision, relative, dtype, method):
    for case in (c for c in grid.CASES if c.group in ("large", "aspp")):
        x, w, bias, truth, limit = prepared(case, dtype, "normal", True)
        y = checks.forced(method, x, w, bias, precision=precision, **case.args)
        checks.assert_form(y, truth, dtype)
        scale = limit / (8 * np.finfo(dtype).eps)
        checks.assert_within(y, truth, limit if relative is None else relative * scale)


# ---------------------------------------------------------------------------------------------------------
# memory layouts
# ---------------------------------------------------------------------------------------------------------


def _broadcast(axis):
    def view(x):
        return np.broadcast_to(np.take(x, [0], axis=axis), x.shape)

    return view


def _stepped(x):
    big = np.full([2 * n + 1 for n in x.shape], 77).astype(x.dtype)
    big[tuple(slice(1, None, 2) for _ in x.shape)] = x
    return big[tuple(slice(1, None, 2) for _ in x.shape)]


def _reversed(x):
    backwards = (slice(None, None, -1),) * x.ndim
    return x[backwards].copy()[backwards]


def _channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim > 1 else x


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _misaligned(x):
    view = np.ndarray(x.shape, x.dtype, buffer=bytearray(x.nbytes + 1), offset=1)
    view[...] = x
    return view


def _field(x):
    records = np.zeros(x.shape, np.dtype([("tag", "i1"), ("value", x.dtype)]))
    records["value"] = x
    return records["value"]


def _frombuffer(x):
    return np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)


VIEWS = {
    "reversed": _reversed,
    "broadcast-first": _broadcast(0),
    "broadcast-last": _broadcast(-1),
    "channels-last": _channels_last,
    "fortran": np.asfortranarray,
    "stepped": _stepped,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": _read_only,
    "misaligned": _misaligned,
    "field": _field,
    "bytes": _frombuffer,
}

VIEW_CASES = (
    grid.Case("view", (2, 3, 40), (4, 3, 3), padding=5, dilation=5),
    grid.Case("view", (2, 4, 11, 23), (6, 2, 3, 3), padding=2, dilation=(1, 2), groups=2, padding_mode="reflect"),
    grid.Case("view", (1, 2, 5, 6, 20), (3, 2, 2, 3, 3), padding=1),
    grid.Case("view", (2, 3, 9, 33), (5, 3, 3, 3), stride=2, padding=2, dilation=2),
    grid.Case("view", (2, 1, 18, 40), (1, 1, 3, 5), dilation=3),
)


@forced_method
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16"])
@pytest.mark.parametrize("case", VIEW_CASES, ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_views(name, case, dtype, method):
    arrays = [VIEWS[name](a) for a in grid.data(case, dtype, "small")]
    before = [a.copy() for a in arrays]
    truth = naive.conv(*before, **case.args)
    y = checks.forced(method, *arrays, **case.args)
    if y is not None:
        checks.assert_form(y, truth, dtype)
        if method in checks.ROUNDING:
            checks.assert_within(y, truth, naive.bound(dtype, *before, **case.args))
        else:
            np.testing.assert_array_equal(y, truth)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy, err_msg="an input was changed")


@every_method
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unbatched(rank, method):
    rng = np.random.default_rng(rank)
    x = rng.integers(-9, 9, (3, *(8,) * rank)).astype(np.float32)
    w = rng.integers(-9, 9, (4, 3, *(3,) * rank)).astype(np.float32)
    y = fastdil.conv(x, w, dilation=2, padding=1, method=method)
    assert y.shape == (4, *(6,) * rank)
    np.testing.assert_array_equal(y, fastdil.conv(x[None], w, dilation=2, padding=1, method=method)[0])
    checks.assert_within(y, naive.conv(x, w, dilation=2, padding=1), naive.bound("f4", x, w, dilation=2, padding=1))


@plain_method
def test_repeated_calls_do_not_remember_the_wrong_thing(method):
    """One shape, again and again, with everything else changing between the calls."""
    case = VIEW_CASES[0]
    calls = []
    for seed in range(3):
        x, w, bias = grid.data(case, "float32", "small", seed)
        infinite = w.copy()
        infinite.flat[seed] = np.inf
        for view in ("read-only", "misaligned", "byte-swapped", "fortran", "stepped", "field"):
            calls += [
                (x, w, bias, {}),
                (VIEWS[view](x), w, bias, {}),
                (x, VIEWS[view](w), None, {}),
                (x, infinite, bias, {}),
                (x, w, VIEWS[view](bias), {"activation": "relu"}),
                (x.astype("float64"), w, bias, {}),
                (x, w.astype("int8"), bias.astype("int8"), {}),
                (x.astype("float16"), w.astype("float16"), None, {}),
                (x, w, bias, {"padding_mode": "circular"}),
                (x, w, bias, {"padding": "same"}),
                (x, w, bias, {"threads": 1}),
                (x[:1], w, bias, {}),
                (x[0], w, bias, {}),
            ]
    for x, w, bias, change in calls:
        args = {**case.args, **change}
        y = fastdil.conv1d(x, w, bias, method=method, **args)
        args.pop("threads", None)
        truth = naive.conv(x, w, bias, **args)
        assert y.dtype == naive.result_dtype(x, w, bias)
        np.testing.assert_array_equal(y, truth)


# ---------------------------------------------------------------------------------------------------------
# dtypes
# ---------------------------------------------------------------------------------------------------------

MIXED = [
    ("int32", "float32", "float64"),
    ("int16", "float32", "float32"),
    ("float32", "float64", "float64"),
    ("float64", "float32", "float64"),
    ("float32", "complex64", "complex64"),
    ("complex64", "float64", "complex128"),
    ("int8", "uint8", "int16"),
    ("uint64", "int64", "float64"),
    ("bool", "float32", "float32"),
    ("bool", "int8", "int8"),
    ("bool", "bool", "uint8"),
    ("float16", "float32", "float32"),
    ("float16", "int8", "float16"),
    ("float16", "int32", "float64"),
    ("float16", "complex64", "complex64"),
]


@pytest.mark.parametrize(("first", "second", "result"), MIXED)
def test_mixed_dtypes_follow_numpy(first, second, result):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (2, 3, 20)).astype(first)
    w = rng.integers(0, 2, (4, 3, 3)).astype(second)
    y = fastdil.conv1d(x, w, dilation=2, method="direct")
    assert y.dtype == result
    np.testing.assert_array_equal(y, naive.conv(x, w, dilation=2))


def test_bias_takes_part_in_the_result_dtype():
    x = np.ones((1, 1, 4), np.float32)
    y = fastdil.conv1d(x, x[..., :2], np.array([1e-9]), method="reference")
    assert y.dtype == np.float64
    assert (y == 2 + 1e-9).all()


@forced_method
@pytest.mark.parametrize("case", VIEW_CASES, ids=str)
def test_float16_rounds_once(case, method):
    """Computed in float32, then rounded: half a unit in the last place of float16 beside float32's bound."""
    x, w, bias = grid.data(case, np.float16)
    truth = naive.conv(x, w, bias, **case.args)
    y = checks.forced(method, x, w, bias, **case.args)
    if y is None:
        return
    checks.assert_form(y, truth, "float16")
    exact = naive.bound("float32", x, w, bias, **case.args)
    limit = exact + np.spacing((np.abs(truth) + exact).astype(np.float16)).astype(float) / 2
    assert (np.abs(y - truth) <= limit).all()


@plain_method
def test_float16_range(method):
    """Sums beyond float16 pass through float32 unharmed; a result beyond it becomes infinite, silently."""
    x = np.array([[60000, 60000, 60000, -60000]], np.float16)
    w = np.array([[[1, 1, 1]], [[1, 1, -2]]], np.float16)
    y = fastdil.conv1d(x, w, method=method)
    assert y.tolist() == [[np.inf, 60000], [0, np.inf]]


def test_lists_are_arrays():
    y = fastdil.conv1d([[1, 2, 3]], [[[1, 1]]], [10])
    assert y.dtype == np.int64
    assert y.tolist() == [[13, 15]]
    assert fastdil.conv1d([[1.0, 2, 3]], [[[1, 1]]]).dtype == np.float64


@pytest.mark.parametrize(
    "dtype", ["longdouble", "clongdouble", "object", "U3", "S3", "datetime64[s]", "timedelta64[s]", "V4"]
)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_other_dtypes_are_refused(dtype, which):
    arrays = [np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones(1)]
    arrays[which] = np.empty(arrays[which].shape, dtype)
    with pytest.raises(TypeError, match=r"expected (an array of numbers|bool, an integer type, float16)"):
        fastdil.conv1d(*arrays)


# ---------------------------------------------------------------------------------------------------------
# activations
# ---------------------------------------------------------------------------------------------------------


@plain_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", naive.SLOPES)
def test_activation_accuracy(name, dtype, method):
    """Through a convolution that changes nothing, so that only the activation can err."""
    ends = np.geomspace(1e-30, 1e30 if dtype == "float32" else 1e300, 997)
    sweep = np.concatenate([np.linspace(-110, 110, 4003), ends, -ends]).astype(dtype)[None]
    y = fastdil.conv1d(sweep, np.ones((1, 1, 1), dtype), activation=name, method=method)
    truth = naive.activate(sweep.astype(np.longdouble), name)
    eps = np.finfo(dtype).eps
    limit = 8 * eps * np.abs(truth) + 128 * np.finfo(dtype).tiny
    if name == "gelu":
        limit += 2 * eps * np.abs(sweep)  # x (1 + erf)/2 cancels in the negative tail, as everybody's does
    error = np.abs(y - truth)
    worst = np.argmax(np.where(np.isnan(error), np.inf, error / limit))
    assert (error <= limit).all(), (sweep.flat[worst], y.flat[worst], truth.flat[worst])


@plain_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_of_special_values(dtype, method):
    x = np.array([[np.nan, np.inf, -np.inf]], dtype)
    expected = {
        "relu": (np.inf, {0.0}),
        "leaky_relu": (np.inf, {-np.inf}),
        "tanh": (1.0, {-1.0}),
        "sigmoid": (1.0, {0.0}),
        # -inf times a factor of 0: PyTorch gives NaN, the limit is 0. Both are honest.
        "silu": (np.inf, {0.0, "nan"}),
        "gelu": (np.inf, {0.0, "nan"}),
    }
    for name, (above, below) in expected.items():
        y = fastdil.conv1d(x, np.ones((1, 1, 1), dtype), activation=name, method=method)[0]
        assert np.isnan(y[0]), name
        assert y[1] == above, name
        assert ("nan" if np.isnan(y[2]) else y[2]) in below, name


@forced_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", naive.SLOPES)
@pytest.mark.parametrize("case", VIEW_CASES, ids=str)
def test_activation_follows_the_bias(case, name, dtype, method):
    x, w, bias = grid.data(case, dtype)
    truth = naive.conv(x, w, bias, activation=name, **case.args)
    y = checks.forced(method, x, w, bias, activation=name, **case.args)
    if y is None:
        return
    checks.assert_form(y, truth, dtype)
    before = naive.bound(dtype, x, w, bias, **case.args)
    checks.assert_within(y, truth, naive.SLOPES[name] * before + 8 * np.finfo(dtype).eps * np.abs(truth).max())


@plain_method
def test_relu_of_integers(method):
    x = np.array([[-5, 3, -128, 127]], np.int8)
    y = fastdil.conv1d(x, np.ones((1, 1, 1), np.int8), np.array([1], np.int8), activation="relu", method=method)
    assert y.tolist() == [[0, 4, 0, 0]]  # 127 + 1 wraps to -128 before the activation
    assert y.dtype == np.int8


@pytest.mark.parametrize(
    ("dtype", "name"), [("complex64", "relu"), ("complex128", "tanh"), ("int32", "gelu"), ("bool", "silu")]
)
def test_activations_without_meaning_are_refused(dtype, name):
    with pytest.raises(TypeError, match=f"activation='{name}'"):
        fastdil.conv1d(np.ones((1, 1, 4), dtype), np.ones((1, 1, 2), dtype), activation=name)


# ---------------------------------------------------------------------------------------------------------
# out=
# ---------------------------------------------------------------------------------------------------------

OUTS = {
    name: VIEWS[name]
    for name in ("reversed", "channels-last", "fortran", "stepped", "byte-swapped", "misaligned", "field")
}
OUTS["contiguous"] = np.copy


@forced_method
@pytest.mark.parametrize("dtype", ["float32", "complex64", "uint8"])
@pytest.mark.parametrize("case", VIEW_CASES, ids=str)
@pytest.mark.parametrize("layout", OUTS)
def test_out_of_any_layout(layout, case, dtype, method):
    x, w, bias = grid.data(case, dtype, "small")
    expected = checks.forced(method, x, w, bias, **case.args)
    if expected is None:
        return
    out = OUTS[layout](np.full(expected.shape, 99).astype(dtype))
    assert fastdil.conv(x, w, bias, method=method, out=out, **case.args) is out
    np.testing.assert_array_equal(out, expected)


@every_method
def test_out_of_an_unbatched_input(method):
    x, w = np.ones((3, 10), np.float32), np.ones((2, 3, 3), np.float32)
    out = np.empty((2, 8), np.float32)
    assert fastdil.conv1d(x, w, method=method, out=out) is out
    np.testing.assert_allclose(out, 9, rtol=1e-6)


@pytest.mark.parametrize("layout", ["contiguous", "stepped", "byte-swapped"])
def test_out_in_float16(layout):
    x, w = np.ones((1, 3, 10), np.float16), np.ones((2, 3, 3), np.float16)
    out = OUTS[layout](np.zeros((1, 2, 8), np.float16))
    assert fastdil.conv1d(x, w, out=out) is out
    np.testing.assert_array_equal(out, 9)


def _read_only_out(shape):
    out = np.full(shape, 5, np.float32)
    out.flags.writeable = False
    return out


@every_method
@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda s: np.full((1, *s[1:]), 5, np.float32), ValueError, r"expected .*\(2, 3, 18\)"),
        (lambda s: np.full(s[1:], 5, np.float32), ValueError, r"expected .*\(2, 3, 18\)"),
        (lambda s: np.full((*s, 1), 5, np.float32), ValueError, r"expected .*\(2, 3, 18\)"),
        (lambda s: np.full(s, 5, np.float64), TypeError, "float32"),
        (lambda s: np.full(s, 5, np.int32), TypeError, "float32"),
        (lambda s: np.full(s, 5, np.complex64), TypeError, "float32"),
        (_read_only_out, ValueError, "writ"),
        (lambda s: np.full(s, 5, np.float32).tolist(), TypeError, "array"),
    ],
    ids=["batch", "unbatched", "rank", "float64", "int32", "complex64", "read-only", "list"],
)
def test_wrong_out_is_refused_untouched(make, error, text, method):
    x, w = np.ones((2, 2, 20), np.float32), np.ones((3, 2, 3), np.float32)
    out = make((2, 3, 18))
    with pytest.raises(error, match=rf"^out\b.*{text}"):
        fastdil.conv1d(x, w, method=method, out=out)
    assert (np.asarray(out) == 5).all()


@every_method
def test_overlapping_out_is_refused_untouched(method):
    memory = np.full(100, 5, np.float32)
    x, w = memory[:40].reshape(1, 2, 20), memory[40:52].reshape(3, 2, 2)
    for start in (0, 39, 40, 51):
        out = np.ndarray((1, 3, 19), np.float32, buffer=memory, offset=4 * min(start, 43))
        with pytest.raises(ValueError, match=r"^out\b.*overlap"):
            fastdil.conv1d(x, w, method=method, out=out)
        assert (memory == 5).all()


@every_method
def test_out_over_the_bias_is_refused_or_right(method):
    memory = np.array([1, 2, 3, 0], np.float32)
    x, w = np.ones((1, 2, 5), np.float32), np.ones((3, 2, 5), np.float32)
    try:
        y = fastdil.conv1d(x, w, memory[:3], method=method, out=memory[1:].reshape(1, 3, 1))
    except ValueError:
        assert memory.tolist() == [1, 2, 3, 0]
    else:
        np.testing.assert_allclose(y.ravel(), [11, 12, 13], rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": 0},
        {"padding": "sme"},
        {"dilation": 99},
        {"groups": 3},
        {"method": "fast"},
        {"activation": "softmax"},
        {"threads": 0},
        {"bias": np.ones(4)},
    ],
    ids=str,
)
def test_errors_leave_out_untouched(wrong):
    x, w = np.ones((1, 2, 20)), np.ones((3, 2, 3))
    out = np.full((1, 3, 18), 5.0)
    with pytest.raises(ValueError, match="expected"):
        fastdil.conv1d(x, w, out=out, **wrong)
    assert (out == 5).all()


@pytest.mark.parametrize("outputs", [81, 96])
def test_regions_in_halves_are_whole(monkeypatch, outputs):
    """`im2col` computes the last of few regions in halves of the outputs, whatever their number; bits stay the same."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in ((1, 5, 33, 33), (outputs, 5, 3, 3)))
    problem = Problem.create(x.shape, w.shape, dilation=12, padding=12)
    pieces = regions.cut(problem, lambda region: region.pixels * region.taps)
    monkeypatch.setattr(im2col, "_cut", lambda problem, finite: pieces)
    assert len(pieces) == 9
    assert im2col.Layout(problem, pieces, 2).halved > 0
    halves, alone = (
        fastdil.conv2d(x, w, dilation=12, padding=12, method="im2col", threads=threads) for threads in (2, 1)
    )
    truth = naive.conv(x, w, dilation=12, padding=12)
    checks.assert_within(halves, truth, naive.bound("float32", x, w, dilation=12, padding=12))
    np.testing.assert_array_equal(halves, alone)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "dilation"),
    [
        ((1, 1, 300, 14), (51, 1, 3, 3), 3),
        ((1, 1, 81, 8, 12), (64, 1, 3, 3, 3), 4),
        ((1, 2, 200, 9), (20, 2, 3, 3), 4),
        ((1, 64, 33, 33), (64, 64, 3, 3), 12),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_maps_are_cut_only_where_that_pays(x_shape, w_shape, dilation, dtype):
    """With few channels, storing rows in pieces takes longer than the products of taps that padding would leave out."""
    problem = Problem.create(x_shape, w_shape, dtype=dtype, dilation=dilation, padding=dilation)
    cut, uncut = (  # weights that are not finite forbid cuts
        costmodel.predict("im2col", im2col.Layout(problem, im2col._cut(problem, finite), 1).features(1))
        for finite in (True, False)
    )
    assert cut <= 1.01 * uncut


FILTER_BANKS = [
    ((2, 1, 9, 41), (60, 1, 3, 3), {"padding": 2, "dilation": 2, "padding_mode": "reflect"}),
    ((1, 4, 203), (37, 2, 5), {"groups": 1, "padding": 4}),
    ((3, 2, 150), (70, 1, 70), {"groups": 2, "padding": 10}),
    ((1, 3, 4, 11, 30), (19, 3, 2, 3, 2), {"padding": 1, "activation": "tanh"}),
    ((2, 60, 40), (21, 60, 11), {"padding": 5, "activation": "relu"}),
    ((1, 3, 20, 33), (50, 3, 3, 3), {"stride": 2, "padding": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int16"])
@pytest.mark.parametrize(("x_shape", "w_shape", "args"), FILTER_BANKS, ids=str)
def test_filter_banks_in_parts(x_shape, w_shape, args, dtype, monkeypatch):
    """`direct` computes few of many outputs at a time where the result is large: the same bits as all in turn."""
    args = {name: value for name, value in args.items() if name != "activation" or dtype.startswith("float")}
    w_shape = (w_shape[0], x_shape[1] // args.get("groups", 1), *w_shape[2:])
    rng = np.random.default_rng(0)
    x, w, bias = ((9 * rng.standard_normal(shape)).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    whole = fastdil.plan(w, bias, method="direct", **args)(x)
    monkeypatch.setattr(direct_layouts, "_FAR_RESULT", 0)
    monkeypatch.setattr(direct_layouts, "_MOST_OUTPUTS", 8)
    for threads in (1, 2):
        plan = fastdil.plan(w, bias, method="direct", threads=threads, **args)
        np.testing.assert_array_equal(plan(x), whole)
        out = np.full(whole.shape, 5, whole.dtype)
        np.testing.assert_array_equal(plan(x, out=out), whole)


@pytest.mark.parametrize("case", [case for case in grid.SAMPLE if case.w_shape[0] > case.groups], ids=str)
def test_samples_asked_for_ahead(case, monkeypatch):
    """`direct` asks for samples ahead where many lines are read from a large input: the same bits as without."""
    x, w, bias, truth, limit = prepared(case, "float32", "normal", True)
    plain = fastdil.plan(w, bias, method="direct", **case.args)(x)
    monkeypatch.setattr(direct_layouts, "_FAR_INPUT", -1)
    monkeypatch.setattr(direct_layouts, "_MANY_LINES", 0)
    assert direct_layouts.ChannelLayout(Problem.create(x.shape, w.shape, dtype="float32", **case.args)).is_ahead
    ahead = fastdil.plan(w, bias, method="direct", **case.args)(x)
    np.testing.assert_array_equal(ahead, plain)
    checks.assert_within(ahead, truth, limit)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("taps", [1, 2, 7, 23, 48])
@pytest.mark.parametrize(("size", "dilation"), [(60, 1), (133, 1), (5000, 1), (5000, 90)])
def test_rows_alone(size, dilation, taps, padding_mode):
    """`direct` computes outputs of one line of taps row by row: the bits of tiles, which fetch samples one by one."""
    rng = np.random.default_rng(0)
    args = {"padding": taps * dilation, "dilation": dilation, "groups": 3, "padding_mode": padding_mode}
    x, w = rng.standard_normal((2, 3, 2 * size), np.float32)[:, :, ::2], rng.standard_normal((3, 1, taps), np.float32)
    problem = Problem.create(x.shape, w.shape, dtype="float32", **args)
    kinds = [type(plane_layouts.layout_of(problem, is_plain)) for is_plain in (True, False)]
    assert kinds[0] is not kinds[1] is direct_layouts.ChannelLayout
    y = fastdil.conv1d(x.copy(), w, method="direct", **args)
    np.testing.assert_array_equal(y, fastdil.conv1d(x, w, method="direct", **args))
    checks.assert_within(y, naive.conv(x, w, **args), naive.bound("float32", x, w, **args))


# ---------------------------------------------------------------------------------------------------------
# results belong to the caller
# ---------------------------------------------------------------------------------------------------------


@every_method
def test_results_are_new_arrays(method):
    x, w = np.ones((1, 1, 8), np.float32), np.ones((1, 1, 1), np.float32)
    first = fastdil.conv1d(x, w, method=method)
    first[...] = 7
    second = fastdil.conv1d(x, w, method=method)
    np.testing.assert_allclose(second, 1, rtol=1e-6)
    assert (x == 1).all()
    assert not np.shares_memory(first, second)
