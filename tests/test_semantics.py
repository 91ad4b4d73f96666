"""What every method must keep whatever it does inside: locality, bits, and other people's memory."""

import itertools

import grid
import naive
import numpy as np
import pytest
from checks import ABLE, METHODS, PLAIN, TRANSFORMS, assert_within, forced, run_child

import fastdil

every_method = pytest.mark.parametrize("method", METHODS)
forced_method = pytest.mark.parametrize("method", ABLE)
plain_method = pytest.mark.parametrize("method", PLAIN)
plain_or_auto = pytest.mark.parametrize("method", [*PLAIN, "auto"])
transform_method = pytest.mark.parametrize("method", TRANSFORMS)

#: Cases with samples to poison.
FILLED = tuple(case for case in grid.SAMPLE if 0 not in case.x_shape + case.w_shape)


# ---------------------------------------------------------------------------------------------------------
# NaN and infinity
# ---------------------------------------------------------------------------------------------------------


def poisoned(case, dtype, value, places):
    """Random arrays with `value` at some samples, some zero weights, and the outputs that touch a sample."""
    x, w, _ = grid.data(case, dtype)
    rng = np.random.default_rng(5)
    at = rng.choice(x.size, min(places, x.size), replace=False)
    w.flat[:: 2 + w.size % 3] = 0  # a zero weight still touches
    mark = np.zeros(x.shape)
    mark.flat[at] = 1
    touched = naive.conv(mark, np.ones(w.shape), **case.args) > 0
    clean = x.copy()
    clean.flat[at] = 0
    x.flat[at] = value
    return x, w, touched, clean


@plain_or_auto
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("case", FILLED, ids=str)
def test_nan_reaches_exactly_the_outputs_that_touch_it(case, places, dtype, method):
    x, w, touched, clean = poisoned(case, dtype, np.nan, places)
    y = fastdil.conv(x, w, method=method, **case.args)
    np.testing.assert_array_equal(np.isnan(y), touched)
    truth = naive.conv(clean, w, **case.args)
    assert_within(np.where(touched, 0, y), np.where(touched, 0, truth), naive.bound(dtype, clean, w, **case.args))


@plain_or_auto
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", FILLED, ids=str)
def test_infinity_follows_ieee(case, dtype, method):
    """Infinite with the product's sign; NaN where the weight is zero or where signs meet."""
    x, w, touched, _ = poisoned(case, dtype, np.inf, 3)
    y = fastdil.conv(x, w, method=method, **case.args)
    truth = naive.conv(x, w, **case.args)
    np.testing.assert_array_equal(~np.isfinite(y), touched)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(truth))
    np.testing.assert_array_equal(y[np.isinf(y)], truth[np.isinf(truth)])


@plain_or_auto
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("case", FILLED, ids=str)
def test_weights_that_are_not_finite(case, value, method):
    """A padding zero is a sample like any other: infinity times it is NaN."""
    x, w, bias = grid.data(case, np.float32)
    w.flat[w.size // 2] = value
    y = fastdil.conv(x, w, bias, method=method, **case.args)
    truth = naive.conv(x, w, bias, **case.args)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(truth))
    np.testing.assert_array_equal(y[np.isinf(y)], truth[np.isinf(truth)])
    finite = np.isfinite(truth)
    w.flat[w.size // 2] = 0
    assert_within(np.where(finite, y, 0), np.where(finite, truth, 0), naive.bound("f4", x, w, bias, **case.args))


@plain_or_auto
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
@pytest.mark.parametrize("tap", [0, 4, 8])
@pytest.mark.parametrize("padding", [(20, 20), (3, 40), (40, 5)])
@pytest.mark.parametrize("channels", [1, 2])
def test_taps_that_never_meet_a_sample(channels, padding, tap, value, method):
    """A kernel that is larger than the map: its outer taps add nothing, unless their weight is not finite."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype("f4") for shape in ((2, 4, 14, 14), (4, channels, 3, 3)))
    w.reshape(4, channels, 9)[1, 0, tap] = value
    args = {"dilation": (20, 3), "padding": [padding, (3, 3)], "groups": 4 // channels}
    y, truth = fastdil.conv2d(x, w, method=method, **args), naive.conv(x, w, **args)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(truth))
    finite, plain = np.isfinite(truth), np.where(np.isfinite(w), w, 0)
    assert_within(np.where(finite, y, 0), np.where(finite, truth, 0), naive.bound("f4", x, plain, **args))
    np.testing.assert_array_equal(fastdil.plan(w, method=method, **args)(x), y)


@pytest.mark.parametrize(
    ("kernel", "dilation", "padding"),
    [((1, 3), (10**9, 2), (0, 2)), ((2, 3), (10**7, 2), (10**7, 2)), ((7, 7), (10**6, 3), (3 * 10**6, 9))],
)
def test_dilations_far_beyond_the_map(kernel, dilation, padding):
    """Nothing is listed or laid out for rows that do not exist."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-4, 5, (2, 3, 9, 20)).astype("f4"), rng.integers(-4, 5, (3, 1, *kernel)).astype("f4")
    pad = [(p, p) for p in padding]
    if kernel[0] == 2:
        pad[0] = (dilation[0], 0)
    args = {"dilation": dilation, "padding": pad, "groups": 3}
    rows = {1: 0, 2: 1, 7: 3}[kernel[0]]  # the only row of the kernel that meets samples
    near = {"dilation": (1, dilation[1]), "padding": [(0, 0), pad[1]], "groups": 3}
    truth = naive.conv(x, w[:, :, rows : rows + 1], **near)
    candidates = {row.name: row for row in fastdil.explain(x.shape, w.shape, method="direct", **args).candidates}
    assert candidates["direct"].workspace_bytes < 1 << 20
    np.testing.assert_array_equal(fastdil.conv2d(x, w, method="direct", **args), truth)


@transform_method
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["x", "w"])
def test_transforms_refuse_what_is_not_finite(which, value, method):
    x, w = np.ones((2, 1, 300)), np.ones((1, 1, 40))
    (x if which == "x" else w).flat[7] = value
    out = np.full((2, 1, 261), 5.0)
    with pytest.raises(ValueError, match="finite"):
        fastdil.conv1d(x, w, method=method, out=out)
    assert (out == 5).all()
    touched = naive.conv(~np.isfinite(x) * 1.0, np.ones(w.shape)) > 0
    y = fastdil.conv1d(x, w)
    np.testing.assert_array_equal(~np.isfinite(y), touched if which == "x" else True)


def _where_auto_transforms():
    """A signal problem for which `auto` picks a transform, or None."""
    for samples, taps in ((4096, 512), (16384, 2048), (65536, 8192), (200_000, 20_000)):
        explanation = fastdil.explain((1, 1, samples), (1, 1, taps), dtype="float64")
        if explanation.chosen in TRANSFORMS:
            return samples, taps
    return None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_auto_leaves_a_transform_for_data_that_is_not_finite(value):
    found = _where_auto_transforms()
    assert found is not None, "auto picks the transform for no signal at all"
    samples, taps = found
    x = np.random.default_rng(0).standard_normal((1, 1, samples))
    w = np.random.default_rng(1).standard_normal((1, 1, taps))
    x[..., samples // 2] = value
    y = fastdil.conv1d(x, w)[0, 0]
    first = samples // 2 - taps + 1
    touched = np.zeros(y.size, bool)
    touched[max(first, 0) : samples // 2 + 1] = True
    np.testing.assert_array_equal(~np.isfinite(y), touched)


def test_auto_keeps_the_bound_where_a_spike_meets_zero_weights():
    """A transform errs by the largest sample; the contract's bound is what the taps see of it."""
    found = _where_auto_transforms()
    assert found is not None
    samples, taps = found
    x = np.ones((1, 1, samples))
    w = np.ones((1, 1, taps))
    x[..., 0] = 1e20
    w[..., 0] = 0
    y = fastdil.conv1d(x, w)
    assert np.abs(y - (taps - 1)).max() <= 8 * np.finfo(float).eps * (taps - 1)


# ---------------------------------------------------------------------------------------------------------
# the ends of the number range
# ---------------------------------------------------------------------------------------------------------


@plain_or_auto
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", FILLED[::4], ids=str)
def test_denormals_are_numbers(case, dtype, method):
    """Integer multiples of the smallest number: their sums are exact, so nothing may be flushed to zero."""
    x, w, _ = grid.data(case, dtype, "small")
    smallest = np.finfo(dtype).smallest_subnormal
    y = fastdil.conv(x * smallest, w, method=method, **case.args)
    np.testing.assert_array_equal(y, naive.conv(x, w, **case.args).astype(dtype) * smallest)


@transform_method
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transforms_of_denormals_round_or_refuse(dtype, method):
    """Below the smallest number every rounding is a multiple of it, so a transform may refuse."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-4, 5, (1, 1, 500)).astype(dtype), rng.integers(-4, 5, (1, 1, 30)).astype(dtype)
    smallest = np.finfo(dtype).smallest_subnormal
    try:
        y = fastdil.conv1d(x * smallest, w, method=method)
    except ValueError as error:
        assert "expected" in str(error)  # noqa: PT017
    else:
        assert np.abs(y - naive.conv(x, w).astype(dtype) * smallest).max() <= 64 * 30 * smallest


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("taps", [3, 600])
def test_huge_numbers_keep_the_bound_or_are_refused(taps, dtype, method):
    rng = np.random.default_rng(0)
    x = (rng.uniform(-1, 1, (1, 1, 2000)) * np.finfo(dtype).max / (2 * taps)).astype(dtype)
    w = rng.uniform(-1, 1, (1, 1, taps)).astype(dtype)
    try:
        y = fastdil.conv1d(x, w, method=method)
    except ValueError as error:
        assert method in TRANSFORMS
        assert "expected" in str(error)  # noqa: PT017
        return
    scaled = x.astype(np.longdouble)
    assert_within(y, naive.conv(scaled, w.astype(np.longdouble)), 8 * np.finfo(dtype).eps * naive.magnitude(x, w))


@plain_method
def test_sums_that_overflow_are_infinite(method):
    x = np.full((1, 1, 10), 3e38, np.float32)
    w = np.array([[[1, 1]], [[-1, -1]]], np.float32)
    y = fastdil.conv1d(x, w, method=method)
    assert (y[0, 0] == np.inf).all()
    assert (y[0, 1] == -np.inf).all()


# ---------------------------------------------------------------------------------------------------------
# the same bits
# ---------------------------------------------------------------------------------------------------------

REPEATED = (*FILLED[::6], *(case for case in grid.CASES if case.group == "large"))


@forced_method
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("case", REPEATED, ids=str)
def test_threads_do_not_change_a_bit(case, dtype, method):
    x, w, bias = grid.data(case, dtype)
    one = forced(method, x, w, bias, threads=1, **case.args)
    if one is None:
        return
    for threads in (2, 3, None):
        np.testing.assert_array_equal(forced(method, x, w, bias, threads=threads, **case.args), one)


@forced_method
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("case", REPEATED, ids=str)
def test_batches_do_not_change_a_bit(case, dtype, method):
    _, w, bias = grid.data(case, dtype)
    shape = (5, *case.x_shape[1:])
    x = np.random.default_rng(0).standard_normal((*shape, 2)).astype(np.float64)
    x = (x[..., 0] + 1j * x[..., 1]).astype(dtype) if dtype == "complex64" else x[..., 0].astype(dtype)
    whole = forced(method, x, w, bias, **case.args)
    if whole is None:
        return
    for cuts in ([0, 1, 2, 3, 4, 5], [0, 2, 5], [0, 4, 5]):
        parts = [fastdil.conv(x[a:b], w, bias, method=method, **case.args) for a, b in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@forced_method
@pytest.mark.parametrize("case", REPEATED[::3], ids=str)
def test_layout_does_not_change_a_bit(case, method):
    """The same numbers in another memory order give the same bits, and so does a second call."""
    x, w, bias = grid.data(case, np.float32)
    first = forced(method, x, w, bias, **case.args)
    if first is None:
        return
    np.testing.assert_array_equal(forced(method, x, w, bias, **case.args), first)
    np.testing.assert_array_equal(forced(method, np.asfortranarray(x), np.asfortranarray(w), bias, **case.args), first)


# ---------------------------------------------------------------------------------------------------------
# memory
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "dilation"),
    [((1, 1, 60, 150), (1, 1, 3, 3), 2), ((1, 2, 110, 170), (1, 2, 13, 9), 3), ((1, 1, 3000), (1, 1, 64), 8),
     ((2, 3, 2500), (3, 1, 101), 5), ((1, 1, 4000), (1, 1, 700), 3)],
)  # fmt: skip
def test_direct_sums_do_not_depend_on_the_position(x_shape, w_shape, dilation, dtype):
    """Where a group has one output: streams and blocks of larger data then give the same bits as one call."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    arguments = {"dilation": dilation, "groups": w_shape[0], "method": "direct"}
    whole = fastdil.conv(x, w, **arguments)
    for shift in (1, 2, 3, 17, 40):
        part = tuple([slice(None)] * 2 + [slice(shift, None)] * (x.ndim - 2))
        np.testing.assert_array_equal(fastdil.conv(x[part], w, **arguments), whole[part])
    padded = fastdil.conv(x, w, **arguments, padding=5)
    inner = tuple([slice(None)] * 2 + [slice(5, -5)] * (x.ndim - 2))
    np.testing.assert_array_equal(padded[inner], whole)


@forced_method
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int8"])
@pytest.mark.parametrize("case", FILLED, ids=str)
def test_nothing_is_written_outside_out(case, dtype, method):
    """`out` is the inside of a larger array, whose rim must keep its values."""
    x, w, bias = grid.data(case, dtype, "small")
    expected = forced(method, x, w, bias, **case.args)
    if expected is None:
        return
    frame = np.full([n + 4 for n in expected.shape], 99).astype(dtype)
    inside = (slice(2, -2),) * frame.ndim
    fastdil.conv(x, w, bias, method=method, out=frame[inside], **case.args)
    np.testing.assert_array_equal(frame[inside], expected)
    frame[inside] = 99
    assert (frame == 99).all()


@every_method
def test_nothing_is_read_or_written_beyond_the_arrays(method):
    """Arrays that end, or begin, at an unmapped page: one sample too far ends the child process."""
    run_child("child_guard.py", "sample", method, "float32", "float64", "int8")
