"""Arrays of bfloat16, whose dtype comes from `ml_dtypes`: computed in float32, rounded to nearest even once."""

from __future__ import annotations

import subprocess
import sys

import checks
import grid
import ml_dtypes
import naive
import numpy as np
import pytest

import fastdil
from fastdil.dtypes import result_dtypes
from fastdil.problem import Problem

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CASES = grid.SAMPLE[::6]


def rounded(values) -> np.ndarray:
    """Numbers that bfloat16 holds exactly, in float64."""
    return np.asarray(values).astype(BFLOAT16).astype(np.float64)


def as_bfloat16(*arrays):
    return tuple(array.astype(BFLOAT16) for array in arrays)


def assert_rounded_once(y, truth, error):
    """`y` is a bfloat16 between the roundings of the least and the greatest that float32 may give."""
    assert y.dtype == BFLOAT16
    assert y.shape == truth.shape
    found = y.astype(np.float64)
    assert (rounded(np.float32(truth - error)) <= found).all()
    assert (found <= rounded(np.float32(truth + error))).all()


@pytest.mark.parametrize("method", fastdil.methods())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rounded_once(case, method):
    x, w, bias = map(rounded, grid.data(case, np.float32))
    truth = naive.conv(x, w, bias, **case.args)
    explanation = fastdil.explain(x.shape, w.shape, dtype="bfloat16", has_bias=True, **case.args)
    if checks.row(explanation, method).verdict == "refused":
        assert checks.may_refuse(
            method,
            "float32",
            case.args.get("stride", 1),
            Problem.create(x.shape, w.shape, dtype="float32", **case.args),
        )
        return
    y = fastdil.conv(*as_bfloat16(x, w, bias), method=method, **case.args)
    assert_rounded_once(y, truth, naive.bound("float32", *map(np.float32, (x, w, bias)), **case.args))


def test_halfway_goes_to_even_and_overflow_to_infinity():
    x = np.array([[1, 2**-8, 3 * 2**-8, 2.0**127, -(2.0**127)]]).astype(BFLOAT16)
    one = np.ones((1, 1, 1), BFLOAT16)
    sums = fastdil.conv1d(x, one, np.array([1], BFLOAT16))
    assert sums.astype(float)[0, :3].tolist() == [2, 1, 1 + 2**-6]
    twice = fastdil.conv1d(x, np.full((1, 1, 1), 2, BFLOAT16))
    assert twice.astype(float)[0, 3:].tolist() == [np.inf, -np.inf]
    nothing = fastdil.conv1d(np.array([[np.nan, np.inf, 1]], BFLOAT16), one).astype(float)
    np.testing.assert_array_equal(nothing, [[np.nan, np.inf, 1]])


def numpys_result(other) -> str | None:
    """What NumPy makes of bfloat16 beside `other`; None where it refuses, which `ml_dtypes` settles."""
    try:
        return np.result_type(BFLOAT16, other).name
    except TypeError:  # float16 and integers of 16 bits and more, before ml_dtypes 0.7
        return None


@pytest.mark.parametrize("other", ["bool", "int8", "int16", "int32", "float16", "float32", "float64", "complex64"])
def test_beside_other_dtypes(other):
    x, w = np.ones((1, 2, 9), BFLOAT16), np.ones((3, 2, 3), other)
    result = numpys_result(other)
    if result is None:
        with pytest.raises(TypeError, match=f"dtype='bfloat16 and {other}': expected dtypes that NumPy can combine"):
            fastdil.conv1d(x, w)
        return
    y = fastdil.conv1d(x, w)
    assert y.dtype.name == result
    assert (y == 6).all()


def test_without_a_common_dtype(monkeypatch):
    def refuse(*dtypes):
        raise np.exceptions.DTypePromotionError

    monkeypatch.setattr(np, "result_type", refuse)  # whichever pairs the installed ml_dtypes combines
    with pytest.raises(TypeError, match="dtype='bfloat16 and int32': expected dtypes that NumPy can combine"):
        result_dtypes(BFLOAT16, np.dtype(np.int32))


def test_plans_and_out():
    rng = np.random.default_rng(1)
    x, w = as_bfloat16(rng.standard_normal((2, 4, 60)), rng.standard_normal((3, 4, 5)))
    expected = fastdil.conv1d(x, w, dilation=4)
    p = fastdil.plan(w, dilation=4)
    out = np.empty_like(expected)
    assert p(x, out=out) is out
    for y in (out, p(x), p(x[:, :, ::-1][:, :, ::-1]), fastdil.conv1d(x, w, dilation=4, out=np.empty_like(out))):
        np.testing.assert_array_equal(y, expected)
    assert p.explain(x.shape).chosen == fastdil.explain(x.shape, w.shape, dtype=BFLOAT16, dilation=4).chosen
    with pytest.raises(TypeError, match=r"out\.dtype='float32': expected bfloat16"):
        p(x, out=np.empty(out.shape, np.float32))


def test_signals_streams_blocks_and_banks():
    rng = np.random.default_rng(2)
    x, taps = as_bfloat16(rng.standard_normal((2, 80)), rng.standard_normal(5))
    wide = [array.astype(np.float32) for array in (x, taps)]
    filtered = fastdil.correlate(x, taps, 3, "causal")
    np.testing.assert_array_equal(filtered, fastdil.correlate(*wide, 3, "causal").astype(BFLOAT16))

    w = np.repeat(taps[None, None], 2, axis=1)
    stream = fastdil.Stream(w, dilation=3)
    chunks = np.concatenate([stream.process(x[:, :33]), stream.process(x[:, 33:])], axis=1)
    whole = fastdil.conv1d(x, w, dilation=3, padding="causal", method=stream.method)
    assert chunks.dtype == BFLOAT16
    np.testing.assert_array_equal(chunks, whole)

    out = np.empty((1, 76), BFLOAT16)
    fastdil.conv_blocks(x, w, out, dilation=1, method="direct")
    np.testing.assert_array_equal(out, fastdil.conv1d(x, w, method="direct"))


def test_only_names_need_ml_dtypes():
    """Without bfloat16 arrays the package is not imported; its name alone is enough to ask for an explanation."""
    code = (
        "import sys, numpy as np, fastdil\n"
        "fastdil.conv1d(np.ones((1, 9), 'f4'), np.ones((1, 1, 3), 'f4'))\n"
        "assert 'ml_dtypes' not in sys.modules\n"
        "print(fastdil.explain((1, 8, 99), (8, 8, 3), dtype='bfloat16').chosen)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() in fastdil.methods()
