"""Signals: random arguments against the oracle, and the laws of convolution that need none.

The laws are tried on one dtype of each kind: each further one would compile some ten kernels of its own.
"""

import naive
import numpy as np
import pytest
import scipy.signal
from checks import METHODS, PLAIN, assert_within
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from signal_oracle import BOUNDARIES, MODES, assert_exact, limit, small, stuffed, truth

import fastdil

#: Laws hold for the methods that sum exactly on small integers, whatever `auto` chooses among them.
exact = st.sampled_from(PLAIN)
names = st.sampled_from(("correlate", "convolve"))
LARGEST = 200_000  # samples of a padded signal


@st.composite
def calls(draw, modes=MODES, boundaries=("zeros", *BOUNDARIES), ranks=(1, 1, 2, 3, 4), least_batch=0):
    """``(x_shape, taps_shape, dict(dilation, mode, axes, boundary))`` of a valid call."""
    rank = draw(st.sampled_from(ranks))
    ndim = draw(st.integers(rank + least_batch, max(rank + least_batch, 4)))
    axes = draw(st.permutations(range(ndim)))[:rank]
    longest = {1: 120, 2: 24, 3: 9, 4: 5}[rank]
    shape = [draw(st.integers(1, longest if axis in axes else 5)) for axis in range(ndim)]
    taps_shape = [draw(st.integers(1, {1: 60, 2: 6, 3: 3, 4: 2}[rank])) for _ in axes]
    dilation = [draw(st.sampled_from((1, 1, 2, 3, 7))) for _ in axes]
    mode = draw(st.sampled_from(modes))
    if mode == "valid":
        assume(all((k - 1) * d < shape[a] for k, d, a in zip(taps_shape, dilation, axes, strict=True)))
    padded = 1
    for axis, n in enumerate(shape):
        reach = [(k - 1) * d for k, d, a in zip(taps_shape, dilation, axes, strict=True) if a == axis]
        padded *= n + 2 * sum(reach)
    assume(padded <= LARGEST)
    args = {
        "dilation": tuple(dilation),
        "mode": mode,
        "axes": tuple(axes),
        "boundary": draw(st.sampled_from(boundaries)),
    }
    return tuple(shape), tuple(taps_shape), args


@settings(max_examples=120)
@given(
    call=calls(),
    name=names,
    method=st.sampled_from(("auto", *METHODS)),
    dtype=st.sampled_from(("float32", "float64", "complex64", "complex128")),
    seed=st.integers(0, 9),
)
def test_random_calls(call, name, method, dtype, seed):
    x_shape, taps_shape, args = call
    rng = np.random.default_rng(seed)
    x, taps = rng.standard_normal(x_shape), rng.standard_normal(taps_shape)
    if np.dtype(dtype).kind == "c":
        x, taps = x + 1j * rng.standard_normal(x_shape), taps + 1j * rng.standard_normal(taps_shape)
    x, taps = x.astype(dtype), taps.astype(dtype)
    try:
        y = getattr(fastdil, name)(x, taps, method=method, **args)
    except ValueError:
        # A transform may find that the taps see little of the signal.
        with pytest.raises(ValueError, match=r"method='fft': expected input whose loud parts"):
            getattr(fastdil, name)(x, taps, method=method, **args)
        return
    expected = truth(name, x, taps, **args)
    assert y.shape == expected.shape
    assert_within(y, expected, limit(name, x, taps, **args))


@settings(max_examples=100)
@given(
    call=calls(),
    name=names,
    dtype=st.sampled_from(("int8", "uint16", "int32", "uint64", "float32", "complex64")),
    how=st.sampled_from(("plain", "backwards", "steps", "transposed")),
)
def test_random_calls_exactly(call, name, dtype, how):
    x_shape, taps_shape, args = call
    if how == "steps":
        x = small([2 * n for n in x_shape], dtype)[(slice(None, None, 2),) * len(x_shape)]
    elif how == "transposed":
        x = small(x_shape[::-1], dtype).T
    else:
        x = small(x_shape, dtype)[(slice(None, None, -1 if how == "backwards" else 1),) * len(x_shape)]
    taps = small(taps_shape, dtype, 1)
    assert_exact(getattr(fastdil, name), truth(name, x, taps, **args), x, taps, **args)


@settings(max_examples=40)
@given(call=calls(), name=names, method=exact)
def test_linear_in_the_signal_and_in_the_taps(call, name, method):
    x_shape, taps_shape, args = call
    x, x2, taps, taps2 = small(x_shape), small(x_shape, seed=2), small(taps_shape, seed=1), small(taps_shape, seed=3)

    def filtered(x, taps):
        return getattr(fastdil, name)(x, taps, method=method, **args)

    np.testing.assert_array_equal(filtered(2 * x - 3 * x2, taps), 2 * filtered(x, taps) - 3 * filtered(x2, taps))
    np.testing.assert_array_equal(filtered(x, 2 * taps - 3 * taps2), 2 * filtered(x, taps) - 3 * filtered(x, taps2))


@settings(max_examples=40)
@given(
    call=calls(boundaries=("circular",), modes=("same", "causal")), name=names, method=exact, shift=st.integers(-7, 7)
)
def test_shifting_a_periodic_signal_shifts_the_result(call, name, method, shift):
    x_shape, taps_shape, args = call
    x, taps = small(x_shape), small(taps_shape, seed=1)
    for axis in range(x.ndim):
        y = getattr(fastdil, name)(x, taps, method=method, **args)
        np.testing.assert_array_equal(
            getattr(fastdil, name)(np.roll(x, shift, axis), taps, method=method, **args), np.roll(y, shift, axis)
        )


@settings(max_examples=60)
@given(call=calls(), dtype=st.sampled_from(("int16", "float64", "complex64")))
def test_convolving_is_correlating_with_flipped_conjugated_taps(call, dtype):
    x_shape, taps_shape, args = call
    x, taps = small(x_shape, dtype), small(taps_shape, dtype, 1)
    flipped = np.flip(taps).conj()
    np.testing.assert_array_equal(fastdil.convolve(x, taps, **args), fastdil.correlate(x, flipped, **args))


@settings(max_examples=60)
@given(call=calls(), name=names, method=exact)
def test_dilated_taps_are_taps_with_zeros_between(call, name, method):
    x_shape, taps_shape, args = call
    x, taps = small(x_shape), small(taps_shape, seed=1)
    y = getattr(fastdil, name)(x, taps, method=method, **args)
    dense = getattr(fastdil, name)(x, stuffed(taps, args["dilation"]), method=method, **{**args, "dilation": 1})
    np.testing.assert_array_equal(y, dense)


@settings(max_examples=60)
@given(call=calls(ranks=(1, 1, 2, 3), least_batch=1), name=names, where=st.integers(0, 3), cut=st.integers(1, 4))
def test_a_batch_in_two_parts(call, name, where, cut):
    x_shape, taps_shape, args = call
    batch = [axis for axis in range(len(x_shape)) if axis not in args["axes"]]
    axis = batch[where % len(batch)]
    method = "direct" if axis < min(args["axes"]) else "reference"
    rng = np.random.default_rng(0)
    x, taps = rng.standard_normal(x_shape).astype("f4"), rng.standard_normal(taps_shape).astype("f4")
    whole = getattr(fastdil, name)(x, taps, method=method, **args)
    parts = [
        getattr(fastdil, name)(part.copy(), taps, method=method, **args)
        for part in np.split(x, [min(cut, x_shape[axis])], axis)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis), whole)


@settings(max_examples=40)
@given(call=calls(boundaries=("zeros",), modes=("full",)), name=names)
def test_full_contains_the_other_modes(call, name):
    x_shape, taps_shape, args = call
    x, taps = small(x_shape), small(taps_shape, seed=1)
    full = getattr(fastdil, name)(x, taps, **args)
    reach = {a: (k - 1) * d for k, d, a in zip(taps_shape, args["dilation"], args["axes"], strict=True)}
    for mode, first in (("same", lambda r: r // 2), ("causal", lambda r: 0)):
        window = tuple(slice(first(reach.get(a, 0)), first(reach.get(a, 0)) + n) for a, n in enumerate(x_shape))
        np.testing.assert_array_equal(getattr(fastdil, name)(x, taps, **{**args, "mode": mode}), full[window])
    if all(reach.get(a, 0) < n for a, n in enumerate(x_shape)):
        window = tuple(slice(reach.get(a, 0), n) for a, n in enumerate(x_shape))
        np.testing.assert_array_equal(getattr(fastdil, name)(x, taps, **{**args, "mode": "valid"}), full[window])


@settings(max_examples=60)
@given(
    n=st.integers(1, 200),
    k=st.integers(1, 60),
    dilation=st.integers(1, 9),
    mode=st.sampled_from(("full", "same", "valid")),
    name=names,
    dtype=st.sampled_from(("int16", "float64", "complex64")),
)
def test_scipy_in_one_dimension(n, k, dilation, mode, name, dtype):
    assume(mode != "valid" or (k - 1) * dilation < n)
    x, taps = small(n, dtype), small(k, dtype, 1)
    expected = getattr(scipy.signal, name)(x, stuffed(taps, dilation), mode, method="direct")
    y = getattr(fastdil, name)(x, taps, dilation, mode)
    assert y.dtype == expected.dtype == naive.result_dtype(x, taps)
    np.testing.assert_array_equal(y, expected)
