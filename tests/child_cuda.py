"""The GPU path against the oracle: every method by name. A pytest file that runs in a process of its own.

``tests/test_cuda.py`` runs it, and ``child_cuda_arrays.py``, under Numba's CUDA simulator, everywhere, and on a GPU
where there is one. The simulator is slow, so the cases are as small as the tiles that they must fill.
"""

from __future__ import annotations

import os
import re

import baton
import naive
import numpy as np
import pytest
from checks import assert_within, row
from grid import Case

import fastdil
import fastdil.cuda
from fastdil.cuda import device, engine, gemm
from fastdil.cuda.availability import is_simulated

if is_simulated():
    baton.install()

METHODS = fastdil.cuda.methods()
#: Error allowed, in units of max A, at the precisions below "highest".
LIMITS = {"high": 2.0**-14, "medium": 2.0**-6}

CASES = [
    Case("signal", (1, 1, 40), (1, 1, 3), dilation=2),
    Case("signal", (2, 2, 33), (2, 1, 5), stride=2, padding="same", dilation=7, groups=2),
    Case("signal", (1, 1, 50), (1, 1, 19), padding="causal"),
    Case("chains", (1, 3, 60), (1, 3, 20), padding=(5,), dilation=2),
    Case("chains", (1, 70, 24), (4, 70, 11), dilation=2),
    Case("image", (1, 2, 10, 13), (2, 1, 3, 3), padding=3, dilation=3, groups=2),
    Case("image", (1, 3, 12, 11), (4, 3, 3, 3), padding=4, dilation=(2, 3)),
    Case("image", (1, 3, 9, 40), (17, 3, 3, 3), stride=2, padding=2, dilation=2),
    Case("image", (1, 9, 8, 9), (20, 9, 2, 3), padding=((1, 2), (-2, 3))),
    Case("groups", (1, 6, 7, 13), (12, 3, 3, 2), padding=1, groups=2),
    Case("culled", (2, 5, 9, 9), (6, 5, 3, 3), padding=6, dilation=6),
    Case("culled", (1, 1, 9, 9), (1, 1, 3, 3), padding=12, dilation=12),
    Case("culled", (1, 4, 50), (3, 4, 3), padding=40, dilation=40),
    Case("volume", (1, 1, 4, 5, 9), (2, 1, 2, 3, 2), stride=(2, 1, 2), padding=2, dilation=(1, 2, 2)),
    Case("volume", (1, 4, 3, 4, 5), (4, 2, 2, 2, 2), padding=(1, 2, 1), dilation=(1, 2, 2), groups=2),
    *(
        Case("mode", (1, 3, 5, 9), (5, 3, 3, 2), padding=((9, 2), (0, 12)), dilation=(3, 4), padding_mode=mode)
        for mode in ("reflect", "replicate", "circular", "symmetric")
    ),
    Case("crop", (1, 2, 8, 9), (2, 2, 3, 2), padding=((6, -2), (-8, 4))),
]


def may_refuse(method: str, dtype: np.dtype, precision: str = "highest") -> bool:
    """Where a method may say no: all but the definition compute floating-point numbers only."""
    if method == "tensor":
        return dtype != np.float32 or precision == "highest"
    return method != "reference" and dtype.name not in ("float32", "float64")


def forced(method: str, x, w, bias=None, **args):
    """The result of one method, or None where it refuses what it may refuse, in the words of `explain`."""
    dtype = naive.result_dtype(x, w, bias)
    compute = np.dtype(np.float32) if dtype == np.float16 else dtype
    verdict = row(fastdil.cuda.explain(x.shape, w.shape, dtype=compute, has_bias=bias is not None, **args), method)
    if verdict.verdict != "refused":
        return fastdil.cuda.conv(x, w, bias, method=method, **args)
    assert may_refuse(method, compute, args.get("precision", "highest")), verdict.reason
    with pytest.raises(ValueError, match=re.escape(verdict.reason)):
        fastdil.cuda.conv(x, w, bias, method=method, **args)
    return None


def data(case: Case, dtype, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weights and bias: small integers, or normal deviates where `dtype` is floating."""
    rng = np.random.default_rng(seed)
    arrays = []
    for shape in (case.x_shape, case.w_shape, case.w_shape[:1]):
        if np.dtype(dtype).kind in "fc":
            array = rng.normal(size=shape)
            arrays.append((array + 1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else array).astype(dtype))
        else:
            arrays.append(rng.integers(-100, 100, shape).astype(dtype))
    return tuple(arrays)


# ---------------------------------------------------------------------------------------------------------
# results
# ---------------------------------------------------------------------------------------------------------


def cases_of(method: str) -> list[Case]:
    """`tensor` finds its samples as `gemm` does, and the simulator is slowest with it: every other case will do."""
    return CASES[1::2] if method == "tensor" else CASES


@pytest.mark.parametrize(
    ("case", "method"),
    [pytest.param(case, method, id=f"{case}-{method}") for method in METHODS for case in cases_of(method)],
)
def test_grid(case, method):
    x, w, bias = data(case, np.float32)
    precision = "high" if method == "tensor" else "highest"
    y = forced(method, x, w, bias, precision=precision, **case.args)
    truth = naive.conv(x, w, bias, **case.args)
    assert y.shape == truth.shape
    assert y.dtype == np.float32
    limit = naive.bound(np.float32, x, w, bias, **case.args)
    assert_within(y, truth, LIMITS["high"] * naive.magnitude(x, w, bias, **case.args) if method == "tensor" else limit)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES[4:16:5], ids=str)
def test_small_integers_are_exact(case, method):
    """Sums that every accumulator can hold, products that bfloat16 can hold: rounding cannot hide a wrong index."""
    rng = np.random.default_rng(1)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (case.x_shape, case.w_shape))
    y = forced(method, x, w, precision="medium" if method == "tensor" else "highest", **case.args)
    np.testing.assert_array_equal(y, naive.conv(x, w, **case.args))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "dtype", ["float64", "complex64", "complex128", "int8", "uint8", "int32", "uint64", "bool", "float16"]
)
def test_dtypes(dtype, method):
    case = Case("dtype", (1, 2, 3, 7), (2, 2, 2, 3), padding=1, dilation=2)
    x, w, bias = data(case, dtype)
    y = forced(method, x, w, bias, **case.args)
    if y is None:
        return
    truth = naive.conv(x, w, bias, **case.args)
    assert y.dtype == naive.result_dtype(x, w, bias)
    if np.dtype(dtype).kind in "biu":
        np.testing.assert_array_equal(y, truth)
    else:
        limit = naive.bound(dtype, x, w, bias, **case.args)
        assert_within(y, truth, limit)


def test_mixed_dtypes_follow_numpy():
    case = Case("dtype", (1, 2, 12), (2, 2, 3), dilation=2)
    x, w = data(case, np.int16)[0], data(case, np.float32)[1]
    y = fastdil.cuda.conv1d(x, w, dilation=2)
    assert y.dtype == np.float32
    assert_within(y, naive.conv(x, w, dilation=2), naive.bound(np.float32, x, w, dilation=2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu"])
def test_activations(activation, method):
    case = Case("activation", (1, 2, 12), (2, 2, 3), padding=2, dilation=2)
    x, w, bias = data(case, np.float32)
    x[0, 0, 2:5] *= 100  # both tails
    precision = "high" if method == "tensor" else "highest"
    y = forced(method, x, w, bias, activation=activation, precision=precision, **case.args)
    truth = naive.conv(x, w, bias, activation=activation, **case.args)
    limit = LIMITS["high"] * naive.magnitude(x, w, bias, **case.args) if method == "tensor" else None
    limit = limit or naive.bound(np.float32, x, w, bias, **case.args)
    assert_within(y, truth, naive.SLOPES[activation] * limit + 4e-7 * np.max(np.abs(truth)))


@pytest.mark.parametrize("method", METHODS)
def test_equal_terms_keep_the_contract(method):
    """The hard case for sums: one chain of all 700 products would err by 87 eps."""
    x, w = np.full((1, 35, 21), 0.1, np.float32), np.full((1, 35, 20), 0.3, np.float32)
    precision = "high" if method == "tensor" else "highest"
    y = forced(method, x, w, precision=precision)
    limit = naive.bound(np.float32, x, w) if method != "tensor" else LIMITS["high"] * naive.magnitude(x, w)
    assert_within(y, naive.conv(x, w), limit)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nonfinite_samples_reach_their_outputs_only(value, method):
    case = Case("nan", (1, 3, 9, 10), (5, 3, 3, 3), padding=3, dilation=3)
    x, w, bias = data(case, np.float32)
    x[0, 1, 4, 2] = value
    y = forced(method, x, w, bias, precision="high" if method == "tensor" else "highest", **case.args)
    truth = naive.conv(x, w, bias, **case.args)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(truth))
    np.testing.assert_array_equal(y[np.isinf(truth)], truth[np.isinf(truth)])
    assert np.isfinite(y[np.isfinite(truth)]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_weights_meet_padding(value, method):
    """A padding zero is a sample: Inf times it is NaN, also where a whole tap could be skipped."""
    case = Case("nan", (1, 2, 9), (2, 2, 3), padding=8, dilation=8)
    x, w, _ = data(case, np.float32)
    w[1, 0, 2] = value
    x[0, 0, 8] = -value
    y = forced(method, x, w, precision="high" if method == "tensor" else "highest", **case.args)
    truth = naive.conv(x, w, **case.args)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(truth))
    np.testing.assert_array_equal(y[np.isinf(truth)], truth[np.isinf(truth)])


@pytest.mark.parametrize("method", METHODS)
def test_a_split_batch_has_the_same_bits(method):
    case = Case("batch", (2, 9, 5, 6), (5, 9, 3, 2), padding=4, dilation=4)
    x, w, bias = data(case, np.float32)
    words = {**case.args, "precision": "high" if method == "tensor" else "highest"}
    whole = forced(method, x, w, bias, **words)
    parts = [forced(method, x[n : n + 1], w, bias, **words) for n in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("x_shape", "w_shape"), [((0, 2, 9), (3, 2, 3)), ((2, 0, 9), (3, 0, 3)), ((2, 9), (0, 2, 3))])
def test_empty_ones(x_shape, w_shape):
    x, w, bias = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32), np.arange(w_shape[0], dtype=np.float32)
    np.testing.assert_array_equal(fastdil.cuda.conv(x, w, bias), naive.conv(x, w, bias))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tiles_of_a_gpu(dtype, monkeypatch):
    """Full-sized blocks, which the simulator is otherwise spared."""
    for module in (engine, device):
        monkeypatch.setattr(module, "current", fastdil.cuda.Device.standard)
    monkeypatch.setitem(gemm._TILES, dtype, gemm._TILES[dtype][:1])
    case = Case("tile", (1, 9, 6, 11), (10, 9, 1, 2), padding=1, dilation=2)
    x, w, bias = data(case, dtype)
    truth, limit = naive.conv(x, w, bias, **case.args), naive.bound(dtype, x, w, bias, **case.args)
    for method in ("direct", "gemm"):
        assert_within(forced(method, x, w, bias, **case.args), truth, limit)


# ---------------------------------------------------------------------------------------------------------
# choice
# ---------------------------------------------------------------------------------------------------------


def test_explain():
    why = fastdil.cuda.explain((1, 64, 56, 56), (64, 64, 3, 3), dilation=2, padding=2)
    assert why.chosen == "gemm"
    assert [candidate.name for candidate in why.candidates] == list(METHODS)
    assert row(why, "gemm").workspace_bytes >= 64 * 64 * 9 * 4
    depthwise = fastdil.cuda.explain((1, 64, 56, 56), (64, 1, 3, 3), groups=64, dilation=2, padding=2)
    assert depthwise.chosen == "direct"
    assert fastdil.cuda.explain((1, 2, 20), (2, 2, 3), dtype="int32").chosen == "reference"
    with pytest.raises(ValueError, match="it computes float32 and float64, not int32"):
        fastdil.cuda.explain((1, 2, 20), (2, 2, 3), dtype="int32", method="gemm")


def test_the_process_is_what_it_should_be():
    """Neither a simulator on a machine that was asked for its GPU, nor the other way round."""
    assert is_simulated() == (os.environ.get("NUMBA_ENABLE_CUDASIM") == "1")
    assert fastdil.cuda.is_available()
