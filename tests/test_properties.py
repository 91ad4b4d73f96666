"""Random problems: the oracle, and the laws of convolution that need no oracle."""

import naive
import numpy as np
import pytest
from checks import METHODS, PLAIN, TRANSFORMS, assert_within, forced
from grid import MODES, Case, data, nominal_macs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastdil

every_method = pytest.mark.parametrize("method", METHODS)
plain_method = pytest.mark.parametrize("method", PLAIN)

LARGEST = 400_000  # multiply-accumulates of one example


@st.composite
def pairs(draw, n: int, span: int, mode: str):
    """A (lo, hi) padding of an axis that leaves room for the kernel's span, negative now and then."""
    lo, hi = draw(st.integers(-3, span + 3)), draw(st.integers(-3, span + 3))
    assume(n + lo + hi >= span)
    assume(mode == "zeros" or n + min(lo, 0) + min(hi, 0) >= 1)
    return lo, hi


@st.composite
def cases(draw, rank=None, stride=True, mode=None) -> Case:
    """A valid problem of up to three axes with uncorrelated arguments."""
    rank = draw(st.integers(1, 3)) if rank is None else rank
    mode = draw(st.sampled_from(("zeros", "zeros", *MODES))) if mode is None else mode
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    sizes = [draw(st.integers(1, (70, 24, 9)[rank - 1])) for _ in range(rank)]
    kernel = [draw(st.integers(1, (12, 5, 3)[rank - 1])) for _ in range(rank)]
    dilation = [draw(st.sampled_from((1, 1, 2, 3, 5, 9))) for _ in range(rank)]
    strides = [draw(st.sampled_from((1, 1, 2, 3, 7))) if stride else 1 for _ in range(rank)]
    padding = [draw(pairs(n, (k - 1) * d + 1, mode)) for n, k, d in zip(sizes, kernel, dilation, strict=True)]
    case = Case(
        "random",
        (draw(st.integers(1, 3)), groups * draw(st.integers(1, 9)), *sizes),
        (groups * draw(st.integers(1, 9)), 1, *kernel),
        stride=tuple(strides),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        padding_mode=mode,
    )
    case = Case(**{**case.__dict__, "w_shape": (case.w_shape[0], case.x_shape[1] // groups, *kernel)})
    out = naive.out_size(sizes, kernel, strides, dilation, padding)
    assume(nominal_macs(case, (case.x_shape[0], case.w_shape[0], *out)) <= LARGEST)
    return case


@every_method
@settings(max_examples=150)
@given(
    case=cases(),
    dtype=st.sampled_from(("float32", "float64", "complex64", "complex128")),
    seed=st.integers(0, 9),
)
def test_random_problems(method, case, dtype, seed):
    x, w, bias = data(case, dtype, seed=seed)
    y = forced(method, x, w, bias, **case.args)
    if y is not None:
        truth = naive.conv(x, w, bias, **case.args)
        assert y.shape == truth.shape
        assert_within(y, truth, naive.bound(dtype, x, w, bias, **case.args))


@plain_method
@settings(max_examples=100)
@given(case=cases(), dtype=st.sampled_from(("int8", "uint16", "int32", "uint64", "bool", "float32", "float64")))
def test_random_problems_exactly(method, case, dtype):
    x, w, bias = data(case, dtype, "small" if dtype.startswith("float") else "full")
    y = fastdil.conv(x, w, bias, method=method, **case.args)
    np.testing.assert_array_equal(y, naive.conv(x, w, bias, **case.args))


@settings(max_examples=100)
@given(case=cases())
def test_random_problems_auto(case):
    x, w, bias = data(case, "float32")
    y = fastdil.conv(x, w, bias, **case.args)
    assert_within(y, naive.conv(x, w, bias, **case.args), naive.bound("float32", x, w, bias, **case.args))


@plain_method
@settings(max_examples=40)
@given(case=cases())
def test_linear_in_the_input_and_in_the_weights(method, case):
    x, w, _ = data(case, "float64", "small")
    x2, w2, _ = data(case, "float64", "small", seed=1)

    def conv(x, w):
        return fastdil.conv(x, w, method=method, **case.args)

    np.testing.assert_array_equal(conv(2 * x - 3 * x2, w), 2 * conv(x, w) - 3 * conv(x2, w))
    np.testing.assert_array_equal(conv(x, 2 * w - 3 * w2), 2 * conv(x, w) - 3 * conv(x, w2))


@every_method
@settings(max_examples=40)
@given(case=cases(stride=False, mode="zeros"))
def test_adjoint(method, case):
    """``<conv(x, w), y> = <x, conv(y, w*)>``: taps reversed, channels exchanged, padding mirrored."""
    x, w, _ = data(case, "float64", "small")
    forward = fastdil.conv(x, w, method=method, **case.args)
    rank, groups = case.rank, case.groups
    y = np.random.default_rng(0).integers(-4, 5, forward.shape).astype(float)
    reversed_taps = w[(slice(None), slice(None)) + (slice(None, None, -1),) * rank]
    per_group = reversed_taps.reshape(groups, -1, *w.shape[1:])
    swapped = np.swapaxes(per_group, 1, 2).reshape(-1, w.shape[0] // groups, *w.shape[2:])
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], case.dilation, strict=True)]
    mirrored = tuple((r - lo, r - hi) for r, (lo, hi) in zip(reach, case.padding, strict=True))
    backward = fastdil.conv(y, swapped, padding=mirrored, dilation=case.dilation, groups=groups, method=method)
    assert backward.shape == x.shape
    left, right = np.vdot(forward, y), np.vdot(x, backward)
    # Integers: exact, or to rounding where the method transforms.
    assert abs(left - right) <= (1e-9 * (1 + np.abs(forward).sum() * 4) if method in TRANSFORMS else 0)


@plain_method
@settings(max_examples=40)
@given(case=cases(stride=False, mode="circular"), shift=st.integers(-5, 5))
def test_shifting_a_periodic_input_shifts_the_output(method, case, shift):
    """With circular padding of ``(k - 1) d`` in all, the output has the input's size and turns with it."""
    x, w, _ = data(case, "float64", "small")
    args = {
        **case.args,
        "padding": tuple(((k - 1) * d, 0) for k, d in zip(w.shape[2:], case.dilation, strict=True)),
    }
    y = fastdil.conv(x, w, method=method, **args)
    moved = fastdil.conv(np.roll(x, shift, -1), w, method=method, **args)
    np.testing.assert_array_equal(moved, np.roll(y, shift, -1))


@every_method
@settings(max_examples=40)
@given(case=cases(), cut=st.integers(1, 2))
def test_a_batch_in_two_parts(method, case, cut):
    x, w, bias = data(case, "float32")
    whole = forced(method, x, w, bias, **case.args)
    if whole is None or cut >= len(x):
        return
    parts = [fastdil.conv(part, w, bias, method=method, **case.args) for part in (x[:cut], x[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@plain_method
@settings(max_examples=40)
@given(case=cases(mode="zeros"))
def test_dilation_is_a_kernel_with_zeros_between_its_taps(method, case):
    x, w, _ = data(case, "float64", "small")
    spread = np.zeros((*w.shape[:2], *((k - 1) * d + 1 for k, d in zip(w.shape[2:], case.dilation, strict=True))))
    spread[(..., *(slice(None, None, d) for d in case.dilation))] = w
    dense = fastdil.conv(x, spread, method=method, **{**case.args, "dilation": 1})
    np.testing.assert_array_equal(fastdil.conv(x, w, method=method, **case.args), dense)
