"""The a trous transform against `numpy.pad` and plain sums, against SciPy, and against what theory promises."""

import itertools
import math

import numpy as np
import pytest
from checks import assert_form, assert_within
from scipy import ndimage

import fastdil

B3 = np.array([1, 4, 6, 4, 1]) / 16
BOUNDARIES = ("symmetric", "reflect", "replicate", "circular", "zeros")
PAD_MODE = {
    "zeros": "constant",
    "replicate": "edge",
    "circular": "wrap",
    "reflect": "reflect",
    "symmetric": "symmetric",
}
SCIPY_MODE = {"zeros": "constant", "replicate": "nearest", "circular": "grid-wrap", "reflect": "mirror"}
SCIPY_MODE["symmetric"] = "reflect"

#: Filters of every parity and centring, the last one long enough to need the kernel without unrolling.
FILTERS = {
    "b3": B3,
    "linear": np.array([1, 2, 1]) / 4,
    "haar": np.array([1, 1]) / 2,
    "one": np.array([0.5]),
    "even": np.array([0.1, 0.5, 0.3, -0.2]),
    "long": np.linspace(-0.2, 0.5, 13),
}

#: Shapes and axes that take every way through the kernels: single rows, several tasks per row, rows combined whole,
#: both axes in one pass and in two, pixels of several elements, batch axes before, between and after.
LAYOUTS = [
    ((1,), None),
    ((2,), None),
    ((37,), None),
    ((40_000,), None),
    ((1, 1), None),
    ((9, 11), None),
    ((1, 150), None),
    ((70, 131), None),
    ((131, 70), 0),
    ((70, 131), (-1,)),
    ((300, 5), None),
    ((1000, 8), 1),  # short rows are transposed: as wide as vectors, wider, narrower, fewer than a block holds
    ((67, 13), 1),
    ((2, 7), 1),
    ((40, 128), 1),
    ((21, 40, 3), (0, 1)),
    ((2, 40_000), None),
    ((5, 8, 65), None),
    ((2, 3, 66, 67), (2, 3)),
    ((3, 4, 66, 5), (0, 2)),
    ((5, 4, 3, 2), None),
    ((6, 5, 33, 64), None),
]


def normal_axes(ndim, axes):
    if axes is None:
        return tuple(range(ndim))
    return tuple(sorted(axis % ndim for axis in np.atleast_1d(axes)))


def smoothed(x, taps, distance, boundary, axis):
    """One axis, from the definition."""
    centre, last = len(taps) // 2, len(taps) - 1
    pad = [(0, 0)] * x.ndim
    pad[axis] = (centre * distance, (last - centre) * distance)
    padded = np.pad(x, pad, mode=PAD_MODE[boundary])
    size = x.shape[axis]
    parts = [np.take(padded, np.arange(a * distance, a * distance + size), axis) * tap for a, tap in enumerate(taps)]
    return np.sum(parts, axis=0)


def oracle(x, levels, taps=B3, boundary="symmetric", axes=None):
    """Planes in double precision."""
    now = x.astype(np.result_type(x, np.float64))
    planes = []
    for level in range(levels):
        after = now
        for axis in normal_axes(x.ndim, axes):
            after = smoothed(after, taps, 2**level, boundary, axis)
        planes.append(now - after)
        now = after
    return np.array([*planes, now])


def sample(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def bound(x, levels, taps, axes):
    """Rounding: each axis of a level adds one per tap and two more, to sums of at most (2 |h|_1 + |sum h|) max |x|."""
    steps = levels * len(normal_axes(x.ndim, axes))
    size = max(3 * np.abs(taps).sum(), 1) * max(np.abs(taps).sum(), 1) ** steps
    return (steps * (len(taps) + 2) + 1) * size * np.finfo(x.dtype).eps * np.max(np.abs(x), initial=0)


# ---------------------------------------------------------------------------------------------------------
# forward
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "axes"), LAYOUTS)
def test_definition(shape, axes, boundary):
    x = sample(shape, "float32")
    got = fastdil.atrous_transform(x, 4, boundary=boundary, axes=axes)
    truth = oracle(x, 4, B3, boundary, axes)
    assert_form(got, truth, np.float32)
    assert_within(got, truth, bound(x, 4, B3, axes))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *itertools.product(FILTERS, ["float32", "complex64"]),
        *itertools.product(["b3", "long"], ["float64", "complex128"]),  # the other kernels differ in the type alone
    ],
)
def test_filters_and_dtypes(name, dtype):
    taps = FILTERS[name]
    scaling = name if name in ("b3", "linear", "haar") else taps
    for shape, boundary in (((29, 90), "reflect"), ((211,), "zeros"), ((30, 19, 3), "circular")):
        x = sample(shape, dtype)
        got = fastdil.atrous_transform(x, 3, scaling=scaling, boundary=boundary)
        truth = oracle(x, 3, taps, boundary)
        assert_form(got, truth, np.dtype(dtype))
        assert_within(got, truth, 2 * bound(x, 3, taps, None))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_dilation_beyond_the_size(boundary, size):
    """As `numpy.pad` repeats: one period of it tells what stands 2**69 samples away."""
    levels = 70
    x = sample((size,))
    period = {"circular": size, "symmetric": 2 * size, "reflect": max(2 * size - 2, 1)}.get(boundary)
    order = np.pad(np.arange(size), (0, period), mode=PAD_MODE[boundary]) if period else None
    now, planes = x, []
    for level in range(levels):
        after = np.zeros(size)
        for i in range(size):
            for a, tap in enumerate(B3):
                place = i + (a - 2) * 2**level
                if period:
                    after[i] += tap * now[order[place % period]]
                elif boundary == "replicate" or 0 <= place < size:
                    after[i] += tap * now[min(max(place, 0), size - 1)]
        planes.append(now - after)
        now = after
    got = fastdil.atrous_transform(x, levels, boundary=boundary)
    assert_within(got, np.array([*planes, now]), bound(x, levels, B3, None))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_many_tasks_and_dilations_longer_than_a_task(boundary):
    x = sample((150_000,), "float32")
    got = fastdil.atrous_transform(x, 17, boundary=boundary)
    assert_within(got, oracle(x, 17, B3, boundary), bound(x, 17, B3, None))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("count", [300, 301])
def test_filters_longer_than_the_data(count, boundary):
    taps = np.hanning(count + 2)[1:-1] / (count + 1) * 2
    for shape in ((130, 90), (200, 3), (66, 500)):
        x = sample(shape, "float32")
        got = fastdil.atrous_transform(x, 2, scaling=taps, boundary=boundary)
        assert_within(got, oracle(x, 2, taps.astype(np.float32), boundary), bound(x, 2, taps, None))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_scipy(boundary):
    x = sample((60, 77))
    for level in range(4):
        distance = 2**level
        stuffed = np.zeros(4 * distance + 1)
        stuffed[::distance] = B3
        expected = x
        for axis in range(2):
            expected = ndimage.convolve1d(expected, stuffed, axis, mode=SCIPY_MODE[boundary])
        planes = fastdil.atrous_transform(x, level + 1, boundary=boundary)
        before = fastdil.atrous_transform(x, level, boundary=boundary)[-1]
        if level == 0:
            assert_within(planes[-1], expected, bound(x, 1, B3, None))
            assert_within(planes[0], x - expected, bound(x, 1, B3, None))
        next_plane = before
        for axis in range(2):
            next_plane = ndimage.convolve1d(next_plane, stuffed, axis, mode=SCIPY_MODE[boundary])
        assert_within(planes[-1], next_plane, bound(x, 1, B3, None))


@pytest.mark.parametrize(("dtype", "name"), [("float32", "linear"), ("float64", "b3")])
def test_integers_are_exact(dtype, name):
    """Every product and sum of such data is representable, so rounding cannot hide a wrong sample."""
    x = np.random.default_rng(1).integers(-8, 8, (33, 70)).astype(dtype) * 2**8
    for boundary in BOUNDARIES:
        np.testing.assert_array_equal(
            fastdil.atrous_transform(x, 2, scaling=name, boundary=boundary),
            oracle(x, 2, FILTERS[name], boundary),
        )


def test_even_filters_lean_to_the_past():
    x = np.zeros(16, np.float32)
    x[5] = 2
    got = fastdil.atrous_transform(x, 3, scaling="haar", boundary="zeros")
    np.testing.assert_array_equal(np.flatnonzero(got[-1]), np.arange(5, 13))
    np.testing.assert_array_equal(got[0], [0] * 5 + [1, -1] + [0] * 9)


@pytest.mark.parametrize("boundary", [name for name in BOUNDARIES if name != "zeros"])
@pytest.mark.parametrize(
    ("scaling", "dtype"),
    [
        *((scaling, "float32") for scaling in ("b3", "linear", "haar", [0.3, 0.3, 0.4], [-0.25, 1.5, -0.25])),
        ("b3", "float64"),
    ],
)
def test_flat_data_has_no_details(boundary, dtype, scaling):
    for value in (1 / 3, math.pi, -1e-30, 1e30):
        x = np.full((40, 77), value, dtype)
        got = fastdil.atrous_transform(x, 5, scaling=scaling, boundary=boundary)
        assert not got[:-1].any()
        np.testing.assert_array_equal(got[-1], x)


def test_circular_shifts_move_the_planes():
    x = sample((37, 80), "float32")
    planes = fastdil.atrous_transform(x, 4, boundary="circular")
    for shift in ((1, 0), (0, 1), (5, -13)):
        moved = fastdil.atrous_transform(np.roll(x, shift, (0, 1)), 4, boundary="circular")
        np.testing.assert_array_equal(moved, np.roll(planes, shift, (1, 2)))


@pytest.mark.parametrize(
    ("shape", "axes"), [((90_000,), None), ((300, 260), None), ((300, 260), 0), ((40, 50, 70), None)]
)
def test_threads_do_not_change_a_bit(shape, axes):
    x = sample(shape, "float32")
    one = fastdil.atrous_transform(x, 6, axes=axes, threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(fastdil.atrous_transform(x, 6, axes=axes, threads=threads), one)
        back = fastdil.inverse_atrous_transform(one, threads=threads)
        np.testing.assert_array_equal(back, fastdil.inverse_atrous_transform(one, threads=1))


def test_batch_axes_are_independent():
    x = sample((3, 40, 70), "float32")
    together = fastdil.atrous_transform(x, 4, axes=(1, 2))
    for same in ([2, 1], np.array([-1, 1])):
        np.testing.assert_array_equal(fastdil.atrous_transform(x, 4, axes=same), together)
    for index in range(3):
        np.testing.assert_array_equal(together[:, index], fastdil.atrous_transform(x[index], 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(90,), (31, 75)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_nonfinite_samples_reach_what_touches_them(bad, shape, boundary):
    for place in (tuple(n // 2 for n in shape), (1,) * len(shape), tuple(n - 1 for n in shape)):
        x = sample(shape)
        x[place] = bad
        with np.errstate(invalid="ignore"):
            truth = oracle(x, 3, B3, boundary)
        got = fastdil.atrous_transform(x, 3, boundary=boundary)
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(truth))


# ---------------------------------------------------------------------------------------------------------
# arrays of every kind
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("bool", "float32"),
        ("uint8", "float32"),
        ("int16", "float32"),
        ("int32", "float64"),
        ("int64", "float64"),
        ("float16", "float32"),
        (">f4", "float32"),
        (">f8", "float64"),
        (">c16", "complex128"),
    ],
)
def test_dtypes_follow_result_type(given, result):
    x = (sample((20, 70)) * 9 > 3).astype(given)
    got = fastdil.atrous_transform(x, 2)
    assert_form(got, oracle(x.astype(result), 2), np.dtype(result))
    np.testing.assert_array_equal(got, fastdil.atrous_transform(x.astype(result), 2))
    assert fastdil.inverse_atrous_transform(got.astype(given)).dtype == np.dtype(result)


def test_views_lists_and_read_only_input():
    base = sample((90, 160))
    for view in (
        base[::2, 1::2],
        base[::-1],
        base.T,
        np.asfortranarray(base),
        base[3],
        np.broadcast_to(base[0], (70, 160)),
    ):
        kept = view.copy()
        view.flags.writeable = False
        got = fastdil.atrous_transform(view, 3)
        np.testing.assert_array_equal(got, fastdil.atrous_transform(kept, 3))
        np.testing.assert_array_equal(view, kept)
    np.testing.assert_array_equal(
        fastdil.atrous_transform([1, 2, 4], 1), fastdil.atrous_transform(np.array([1.0, 2.0, 4.0]), 1)
    )
    unaligned = np.zeros(801, np.uint8)[1:].view(np.float64)
    unaligned[:] = base[0, :100]
    np.testing.assert_array_equal(fastdil.atrous_transform(unaligned, 2), fastdil.atrous_transform(base[0, :100], 2))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (3, 0, 2)])
@pytest.mark.parametrize("levels", [0, 3])
def test_empty(shape, levels):
    got = fastdil.atrous_transform(np.ones(shape, np.float32), levels)
    assert got.shape == (levels + 1, *shape)
    assert got.dtype == np.float32
    assert fastdil.inverse_atrous_transform(got).shape == shape
    assert fastdil.atrous_threshold(got).shape == got.shape


def test_no_levels():
    x = sample((5, 6))
    got = fastdil.atrous_transform(x, 0)
    np.testing.assert_array_equal(got, x[None])
    assert not np.shares_memory(got, x)
    np.testing.assert_array_equal(fastdil.inverse_atrous_transform(got), x)


# ---------------------------------------------------------------------------------------------------------
# inverse
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(1,), (63,), (64,), (70_001,), (45, 131), (7, 30, 33)])
def test_perfect_reconstruction(shape, dtype):
    x = sample(shape, dtype)
    planes = fastdil.atrous_transform(x, 6)
    back = fastdil.inverse_atrous_transform(planes)
    assert_form(back, x, np.dtype(dtype))
    # One rounding of at most eps / 2 per level in each direction, for each of two parts of a complex number.
    assert_within(back, x, 6 * 2 * np.finfo(dtype).eps * np.max(np.abs(planes)))


def test_planes_are_added_from_the_smoothest():
    planes = sample((7, 50, 61), "float32")
    total = planes[-1]
    for plane in planes[-2::-1]:
        total = total + plane
    np.testing.assert_array_equal(fastdil.inverse_atrous_transform(planes), total)
    np.testing.assert_array_equal(fastdil.inverse_atrous_transform(planes[:, ::-1]), total[::-1])


# ---------------------------------------------------------------------------------------------------------
# denoising
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("ndim", [1, 2])
def test_noise_gains_are_the_energy_of_the_response_to_one_sample(name, ndim):
    levels, taps = 3, FILTERS[name]
    reach = len(taps) * 2**levels
    x = np.zeros((2 * reach + 1,) * ndim)
    x[(reach,) * ndim] = 1
    planes = oracle(x, levels, taps, "zeros")
    energy = np.sqrt(np.sum(planes[:-1] ** 2, axis=tuple(range(1, ndim + 1))))
    # With sigma 1 and k 1, a coefficient survives if it is at least the gain of its plane.
    gains = energy[(...,) + (None,) * ndim] * np.ones((levels, *(2,) * ndim))
    flat = np.concatenate([gains, gains[:1]])
    assert np.all(fastdil.atrous_threshold(flat * (1 + 1e-9), 1, sigma=1, scaling=taps)[:-1] > 0)
    assert not np.any(fastdil.atrous_threshold(flat * (1 - 1e-9), 1, sigma=1, scaling=taps)[:-1])


def test_noise_gains_of_the_starlet():
    """By hand for one level; for images, the norms of the starlets that astronomical packages tabulate."""
    h2 = 70 / 256  # sum of the squared taps
    for ndim, first in ((1, math.sqrt(134) / 16), (2, math.sqrt(1 - 2 * (6 / 16) ** 2 + h2**2))):
        planes = np.stack([sample((4,) * ndim), sample((4,) * ndim)])
        assert fastdil.atrous_noise(planes)[0] == pytest.approx(
            np.median(np.abs(planes[0] - np.median(planes[0]))) / 0.67449
        )
        kept = fastdil.atrous_threshold(np.full((2, *(4,) * ndim), first), 1, sigma=1 - 1e-12)
        assert kept.all()
        assert not fastdil.atrous_threshold(np.full((2, *(4,) * ndim), first), 1, sigma=1 + 1e-12)[0].any()
    norms = [0.8907963102787584, 0.20066385102441897, 0.08550750475336993, 0.0412174443743162, 0.02042496659278143]
    planes = np.stack([sample((8, 8))] * 6)
    sigma = fastdil.atrous_noise(planes)
    np.testing.assert_allclose(sigma / sigma[0] * norms[0], norms, rtol=1e-12)


def test_noise_is_estimated_beside_a_signal():
    rng = np.random.default_rng(3)
    truth = np.zeros((200, 220))
    truth[50:60, 70:90] = 100
    planes = fastdil.atrous_transform(truth + rng.normal(scale=2, size=truth.shape), 4)
    sigma = fastdil.atrous_noise(planes)
    pure = fastdil.atrous_transform(rng.normal(scale=2, size=(800, 800)), 4)[:-1].std(axis=(1, 2))
    np.testing.assert_allclose(sigma, pure, rtol=0.05)
    noise = rng.normal(scale=2, size=(5, 4000)).astype(np.float32)
    batch = fastdil.atrous_transform(noise, 3, axes=1, scaling="haar")
    np.testing.assert_allclose(
        fastdil.atrous_noise(batch, axes=1, scaling="haar"), batch[:-1].std(axis=(1, 2)), rtol=0.08
    )


def test_noise_leaves_out_what_is_not_finite():
    planes = fastdil.atrous_transform(sample((64, 64)), 2)
    spoiled = planes.copy()
    spoiled[0, 0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_allclose(fastdil.atrous_noise(spoiled), fastdil.atrous_noise(planes), rtol=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_threshold(mode, dtype):
    planes = sample((4, 30, 31), dtype)
    kept = planes.copy()
    sigma = np.array([0.1, 0.3, 0.5])
    got = fastdil.atrous_threshold(planes, 2, mode, sigma=sigma)
    np.testing.assert_array_equal(planes, kept)
    assert got.dtype == planes.dtype
    np.testing.assert_array_equal(got[-1], planes[-1])
    for plane, result, limit in zip(planes, got, 2 * sigma, strict=False):
        size = np.abs(plane)
        if mode == "hard":
            np.testing.assert_array_equal(result, np.where(size >= limit, plane, 0))
        else:
            expected = np.where(size > limit, plane * (1 - limit / size), 0)
            np.testing.assert_allclose(result, expected, rtol=0, atol=4 * np.finfo(dtype).eps * size.max())


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_threshold_keeps_nan_infinity_and_zero(mode):
    planes = np.array([[np.nan, np.inf, -np.inf, 0.0], [1, 2, 3, 4]])
    np.testing.assert_array_equal(fastdil.atrous_threshold(planes, 3, mode, sigma=[1.0]), planes)


def test_denoising_in_three_lines():
    rng = np.random.default_rng(5)
    truth = np.exp(-(np.linspace(-6, 6, 160)[:, None] ** 2) - np.linspace(-6, 6, 170) ** 2) * 50
    noisy = truth + rng.normal(size=truth.shape)
    for mode in ("hard", "soft"):
        planes = fastdil.atrous_transform(noisy, 5)
        clean = fastdil.inverse_atrous_transform(fastdil.atrous_threshold(planes, 3, mode))
        assert np.std(clean - truth) < 0.35 * np.std(noisy - truth)


# ---------------------------------------------------------------------------------------------------------
# refusals
# ---------------------------------------------------------------------------------------------------------

X = np.ones((6, 7))


@pytest.mark.parametrize(
    ("args", "settings", "error", "shown"),
    [
        ((X, -1), {}, ValueError, "levels=-1: expected an integer >= 0"),
        ((X, 1.5), {}, TypeError, "levels=1.5"),
        ((X, True), {}, TypeError, "levels=True"),
        ((np.float64(3), 1), {}, ValueError, "x.ndim=0"),
        ((["a"], 1), {}, TypeError, "x="),
        ((np.ones(3, np.longdouble), 1), {}, TypeError, "at most double precision"),
        ((X, 1), {"scaling": "b4"}, ValueError, "scaling='b4': expected one of 'b3'"),
        ((X, 1), {"scaling": []}, ValueError, "scaling="),
        ((X, 1), {"scaling": [[1.0]]}, ValueError, "scaling="),
        ((X, 1), {"scaling": [1.0, np.nan]}, ValueError, "scaling="),
        ((X, 1), {"scaling": [1j]}, TypeError, "scaling="),
        ((X.astype("f4"), 1), {"scaling": [1e39]}, ValueError, "in float32"),
        ((X, 1), {"boundary": "wrap"}, ValueError, "boundary='wrap': expected one of 'zeros'"),
        ((X, 1), {"boundary": 3}, TypeError, "boundary=3"),
        ((X, 1), {"axes": 2}, ValueError, "axes=2: expected different integers from -2 to 1"),
        ((X, 1), {"axes": (0, -2)}, ValueError, "axes="),
        ((X, 1), {"axes": ()}, ValueError, "axes="),
        ((X, 1), {"axes": (0.5,)}, TypeError, "axes="),
        ((X, 1), {"threads": 0}, ValueError, "threads=0"),
    ],
)
def test_transform_refuses(args, settings, error, shown):
    with pytest.raises(error) as caught:
        fastdil.atrous_transform(*args, **settings)
    assert shown in str(caught.value)


@pytest.mark.parametrize(
    ("function", "args", "settings", "error", "shown"),
    [
        ("inverse_atrous_transform", (np.ones(3),), {}, ValueError, "coefficients.shape=(3,)"),
        ("inverse_atrous_transform", (np.ones((0, 3)),), {}, ValueError, "coefficients.shape=(0, 3)"),
        ("inverse_atrous_transform", ("no",), {}, TypeError, "coefficients="),
        ("atrous_noise", (np.ones((1, 3)),), {}, ValueError, "at least one detail plane"),
        ("atrous_noise", (np.full((2, 3), np.nan),), {}, ValueError, "finite values"),
        ("atrous_noise", (np.ones((2, 3), complex),), {}, TypeError, "real coefficients"),
        ("atrous_noise", (np.ones((2, 3)),), {"scaling": [1.0]}, ValueError, "taps that leave details"),
        ("atrous_noise", (np.ones((2, 3)),), {"axes": 1}, ValueError, "axes=1"),
        ("atrous_threshold", (np.ones((2, 3)), -1), {}, ValueError, "k=-1: expected a number >= 0"),
        ("atrous_threshold", (np.ones((2, 3)), np.nan), {}, ValueError, "k=nan"),
        ("atrous_threshold", (np.ones((2, 3)), [1]), {}, TypeError, "k=[1]"),
        ("atrous_threshold", (np.ones((2, 3)), 3, "firm"), {}, ValueError, "mode='firm'"),
        ("atrous_threshold", (np.ones((2, 3)),), {"sigma": -1}, ValueError, "sigma=-1"),
        ("atrous_threshold", (np.ones((2, 3)),), {"sigma": [1, 2]}, ValueError, "sigma.shape=(2,): expected (1,)"),
        ("atrous_threshold", (np.ones((2, 3)),), {"sigma": [-2.0]}, ValueError, "sigma="),
    ],
)
def test_helpers_refuse(function, args, settings, error, shown):
    with pytest.raises(error) as caught:
        getattr(fastdil, function)(*args, **settings)
    assert shown in str(caught.value)
