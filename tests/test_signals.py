"""Signals: correlate and convolve against SciPy, against NumPy's padding, and against their own definition."""

import itertools
import tracemalloc

import naive
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from checks import METHODS, PLAIN, TRANSFORMS, assert_form, assert_within
from signal_oracle import BOUNDARIES, MODES, assert_exact, full_range, limit, paddings, small, stuffed, truth

import fastdil

#: Our names in SciPy's words.
NDIMAGE = {
    "zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap", "symmetric": "reflect",
}  # fmt: skip
DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip

both = pytest.mark.parametrize("name", ["correlate", "convolve"])
every_mode = pytest.mark.parametrize("mode", MODES)
every_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)


# ---------------------------------------------------------------------------------------------------------
# SciPy
# ---------------------------------------------------------------------------------------------------------

SHAPES = [
    ((1,), (1,)), ((9,), (1,)), ((9,), (4,)), ((10,), (5,)), ((1,), (4,)), ((3,), (8,)), ((300,), (64,)),
    ((257,), (100,)),    ((6, 7), (3, 2)), ((6, 7), (1, 4)), ((5, 40), (4, 1)), ((2, 3), (3, 5)), ((31, 33), (8, 7)),
    ((4, 5, 6), (2, 3, 2)), ((5, 4, 20), (1, 1, 3)), ((3, 2, 4), (4, 2, 1)),
]  # fmt: skip
#: For dtypes whose kernels differ in nothing but the type from those that go through all shapes: each width of rows has
#: a kernel to compile, and these are narrow.
FEW_SHAPES = [
    ((9,), (1,)), ((9,), (4,)), ((1,), (4,)), ((3,), (8,)), ((60,), (30,)), ((6, 7), (3, 2)), ((2, 3), (3, 5)),
    ((4, 5, 6), (2, 3, 2)), ((3, 2, 4), (4, 2, 1)),
]  # fmt: skip


@both
@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_agrees_with_scipy(name, mode, method, dtype):
    shapes = SHAPES if dtype == "float32" else FEW_SHAPES
    for (x_shape, taps_shape), dilation in itertools.product(shapes, (1, 2, 3)):
        x, taps = small(x_shape, dtype), small(taps_shape, dtype, 1)
        if method in TRANSFORMS:  # they refuse what the taps do not see, and so all zeros
            x[x == 0], taps[taps == 0] = 2, 1
        dense = stuffed(taps, dilation)
        if mode == "valid" and any(np.less(x_shape, dense.shape)):
            continue
        expected = getattr(scipy.signal, name)(x, dense, mode, method="direct")
        y = getattr(fastdil, name)(x, taps, dilation, mode, method=method)
        assert_form(y, expected, expected.dtype)
        if method in PLAIN:
            np.testing.assert_array_equal(y, expected)
        else:
            assert_within(y, expected, limit(name, x, taps, dilation, mode))


@both
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", [d for d in DTYPES if np.dtype(d).kind in "iu"])
def test_integers_are_exact_and_wrap_as_in_scipy(name, mode, dtype):
    shapes = SHAPES if dtype == "int16" else FEW_SHAPES
    for (x_shape, taps_shape), dilation in itertools.product(shapes, (1, 3)):
        x, taps = full_range(x_shape, dtype), full_range(taps_shape, dtype, 1)
        dense = stuffed(taps, dilation)
        if mode == "valid" and any(np.less(x_shape, dense.shape)):
            continue
        expected = getattr(scipy.signal, name)(x, dense, mode, method="direct")
        y = getattr(fastdil, name)(x, taps, dilation, mode)
        assert_form(y, expected, np.dtype(dtype))
        np.testing.assert_array_equal(y, expected)


@both
def test_every_pair_of_dtypes(name):
    for x_dtype, taps_dtype in itertools.product(DTYPES, DTYPES):
        x, taps = small((2, 20), x_dtype), small((3,), taps_dtype, 1)
        wide = [a.astype(complex if a.dtype.kind == "c" else float) for a in (x, taps)]
        expected = [getattr(scipy.signal, name)(row, stuffed(wide[1], 2), "same") for row in wide[0]]
        dtype = naive.result_dtype(x, taps)
        y = getattr(fastdil, name)(x, taps, 2, "same")
        assert_form(y, np.stack(expected), dtype)
        rounded = np.round(expected)
        np.testing.assert_array_equal(y, rounded.astype(np.int64).astype(dtype) if dtype.kind in "iu" else rounded)


def test_half_precision_rounds_once():
    x = np.full((1, 400), 1, np.float16)
    taps = np.full(300, 1 + 2.0**-10, np.float16)
    expected = np.float16(300 * (1 + 2.0**-10))
    assert (fastdil.correlate(x, taps, mode="valid") == expected).all()
    assert np.isinf(fastdil.correlate(np.full(4, 60000, np.float16), np.ones(2, np.float16), mode="valid")).all()


def test_complex_taps_are_conjugated_by_correlate_alone():
    assert fastdil.correlate([1.0, 0, 0], [1j, 2], mode="causal").tolist() == [2, -1j, 0]
    assert fastdil.convolve([1.0, 0, 0], [1j, 2], mode="causal").tolist() == [1j, 2, 0]
    assert fastdil.correlate(np.arange(3), np.array([1j, 1])).dtype == np.complex128


@both
def test_lists_of_numbers(name):
    y = getattr(fastdil, name)([1, 2, 3], [[4], [5]][0])
    assert y.tolist() == [4, 8, 12]
    assert y.dtype == np.array([1]).dtype


# ---------------------------------------------------------------------------------------------------------
# boundaries and causality
# ---------------------------------------------------------------------------------------------------------


@every_boundary
@pytest.mark.parametrize(("x_shape", "taps_shape"), SHAPES)
def test_boundaries_are_those_of_ndimage(x_shape, taps_shape, boundary):
    for dilation in (1, 2, 5):
        if any((k - 1) * dilation > 4 * n for n, k in zip(x_shape, taps_shape, strict=True)):
            continue  # so far beyond the edges, ndimage's "reflect" is not that of np.pad
        x, taps = small(x_shape), small(taps_shape, seed=1)
        expected = scipy.ndimage.correlate(x, stuffed(taps, dilation), mode=NDIMAGE[boundary])
        assert_exact(fastdil.correlate, expected, x, taps, dilation, "same", boundary=boundary)
        centred = [-1 if ((k - 1) * dilation) % 2 else 0 for k in taps_shape]
        expected = scipy.ndimage.convolve(x, stuffed(taps, dilation), mode=NDIMAGE[boundary], origin=centred)
        assert_exact(fastdil.convolve, expected, x, taps, dilation, "same", boundary=boundary)


@both
@every_mode
@every_boundary
def test_boundaries_in_every_mode(name, mode, boundary):
    for (x_shape, taps_shape), dilation in itertools.product(SHAPES, (1, 3)):
        if mode == "valid" and any((k - 1) * dilation >= n for n, k in zip(x_shape, taps_shape, strict=True)):
            continue
        x, taps = small(x_shape), small(taps_shape, seed=1)
        widths = paddings(taps_shape, dilation, mode)
        padded = np.pad(x, widths, naive.PAD_MODES[boundary])
        expected = getattr(scipy.signal, name)(padded, stuffed(taps, dilation), "valid", method="direct")
        assert_exact(getattr(fastdil, name), expected, x, taps, dilation, mode, boundary=boundary)


@pytest.mark.parametrize("dilation", [1, 3, 50])
def test_causal_convolution_is_an_fir_filter(dilation):
    x, taps = small((3, 40)), small((5,), seed=1)
    y = fastdil.convolve(x, taps, dilation, "causal")
    np.testing.assert_array_equal(y, scipy.signal.lfilter(stuffed(taps, dilation), 1, x))
    x[:, 20:] = 9
    np.testing.assert_array_equal(fastdil.convolve(x, taps, dilation, "causal")[:, :20], y[:, :20])


def test_a_dilation_far_beyond_the_signal_costs_nothing():
    """No tap is ever spread: these would take terabytes."""
    x = small((2, 50))
    taps = np.array([1.0, 2, 3])
    np.testing.assert_array_equal(fastdil.correlate(x, taps, 10**12, "same"), 2 * x)
    np.testing.assert_array_equal(fastdil.convolve(x, taps, 10**12, "causal"), x)
    np.testing.assert_array_equal(fastdil.correlate(x, taps, 10**12, "causal", axes=0), 3 * x)
    np.testing.assert_array_equal(fastdil.correlate(x[:, :1], taps, 10**12, "same", boundary="replicate"), 6 * x[:, :1])
    with pytest.raises(ValueError, match=f"dilation={2**59}: expected taps that reach"):
        fastdil.correlate(x, taps, 2**59, "same", axes=0)


# ---------------------------------------------------------------------------------------------------------
# axes and memory layouts
# ---------------------------------------------------------------------------------------------------------


@both
@every_mode
@every_boundary
def test_any_axes_of_any_array(name, mode, boundary):
    for ndim, rank in ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (4, 3), (5, 1), (5, 2), (5, 3)):
        x = small((4, 5, 3, 6, 2)[:ndim])
        for index, axes in enumerate(itertools.permutations(range(ndim), rank)):
            if index % 3 and rank > 1 and ndim > 3:
                continue
            taps = small([(2, 3, 2)[a % 3] for a in range(rank)], seed=1)
            dilation = tuple(1 + (a + index) % 2 for a in range(rank))
            if mode == "valid" and any(
                (k - 1) * d >= x.shape[a] for k, d, a in zip(taps.shape, dilation, axes, strict=True)
            ):
                continue
            given = axes if index % 2 else tuple(a - ndim for a in axes)
            arguments = {"axes": given if rank > 1 else given[0], "boundary": boundary}
            y = getattr(fastdil, name)(x, taps, dilation, mode, method="direct", **arguments)  # `auto` may transform
            expected = truth(name, x, taps, dilation, mode, axes, boundary)
            assert y.flags.c_contiguous
            assert y.shape == expected.shape
            np.testing.assert_array_equal(y, expected)


def views(dtype):
    """Arrays of shape (4, 6, 30) that lie in memory in many ways."""
    base = small((8, 12, 60), dtype)
    yield "plain", base[:4, :6, :30]
    yield "contiguous", base[:4, :6, :30].copy()
    yield "steps", base[::2, ::2, ::2]
    yield "backwards", base[3::-1, 5::-1, 29::-1]
    yield "transposed", small((30, 4, 6), dtype).transpose(1, 2, 0)
    yield "fortran", np.asfortranarray(base[:4, :6, :30])
    yield "repeated", np.broadcast_to(base[0, 0, :30], (4, 6, 30))
    yield "repeated inside", np.broadcast_to(base[:4, :1, :30], (4, 6, 30))
    yield "constant", np.broadcast_to(base[0, 0, 0], (4, 6, 30))
    yield (
        "sliding",
        np.lib.stride_tricks.as_strided(base[0, 0], (4, 6, 30), (base.itemsize * 5, base.itemsize, base.itemsize)),
    )
    yield "swapped", base[:4, :6, :30].astype(base.dtype.newbyteorder())
    raw = np.zeros(4 * 6 * 30 * base.itemsize + 1, np.uint8)[1:]
    unaligned = raw.view(base.dtype).reshape(4, 6, 30)
    unaligned[...] = base[:4, :6, :30]
    yield "unaligned", unaligned
    record = np.zeros((4, 6, 30), [("tag", "u1"), ("value", base.dtype)])
    record["value"] = base[:4, :6, :30]
    yield "field", record["value"]
    frozen = base[:4, :6, :30].copy()
    frozen.flags.writeable = False
    yield "read-only", frozen


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int16"])
@pytest.mark.parametrize("boundary", ["zeros", "symmetric"])
def test_any_layout(dtype, boundary):
    for label, x in views(dtype):
        before = x.copy()
        for axes, taps_shape in (
            ((2,), (4,)),
            ((0,), (3,)),
            ((1,), (3,)),
            ((0, 2), (2, 3)),
            ((0, 1), (3, 2)),
            ((0, 1, 2), (2, 2, 3)),
        ):
            wide = small([2 * k for k in taps_shape], dtype, 1)
            taps = wide[(slice(None, None, -2),) * len(taps_shape)]
            expected = truth("convolve", x, taps, 2, "causal", axes, boundary)
            y = fastdil.convolve(x, taps, 2, "causal", axes=axes, boundary=boundary, method="direct")
            np.testing.assert_array_equal(y, expected, err_msg=f"{label} {axes}")
            assert y.dtype == np.dtype(dtype)
            again = fastdil.convolve(x.copy(), taps.copy(), 2, "causal", axes=axes, boundary=boundary, method="direct")
            np.testing.assert_array_equal(y, again)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("method", [*PLAIN, "auto"])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "int16"])
def test_taps_may_lie_anywhere(dtype, method):
    x, taps = small((3, 40), dtype), small(9, dtype, 1)
    raw = np.zeros(taps.nbytes + 1, np.uint8)[1:]
    unaligned = raw.view(dtype)
    unaligned[...] = taps
    for name in ("correlate", "convolve"):
        expected = truth(name, x, taps, 2, "same")
        for given in (
            unaligned,
            taps.astype(taps.dtype.newbyteorder()),
            np.repeat(taps, 2)[::2],
            taps[::-1].copy()[::-1],
        ):
            y = getattr(fastdil, name)(x, given, 2, "same", method=method)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("view", "axes"),
    [
        (lambda x: x[:, ::2], -1),
        (lambda x: x[::-1, 1:-1], -1),
        (lambda x: x.reshape(64, 64, 256)[:, ::2, ::2], 2),
        (lambda x: x.reshape(16, 4, 64, 256)[:, ::2, :, 5:], (2, 3)),
        (lambda x: x.reshape(4096, 256)[:, :], 0),
        (lambda x: x.reshape(64, 64, 128, 2), (1, 2)),
        (lambda x: x[:, :2048], 0),
        (lambda x: x.reshape(8, 8, 128, 128)[:, :, ::2], 1),
    ],
)
def test_views_are_read_where_they_lie(view, axes):
    x = view(small((64, 16384), "float32"))
    taps = small((3,) * np.size(axes), "float32", 1)
    out = np.empty_like(x)
    args = (x, taps, 4, "same")
    fastdil.correlate(*args, axes=axes, out=out)
    tracemalloc.start()
    try:
        y = fastdil.correlate(*args, axes=axes, out=out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert y is out
    assert peak < x.nbytes / 20
    np.testing.assert_array_equal(y, truth("correlate", *args, axes=axes))
