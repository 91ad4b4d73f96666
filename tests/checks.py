"""What several test files share: the list of methods, what each may refuse, and the comparisons."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest

import fastdil
from fastdil import hardware

#: Methods that take some kernels only; tests that force them go through `forced`.
NARROW = ("winograd", "amx")

EVERY_METHOD = fastdil.methods()
#: Those that this machine can run on some problem; `test_amx.py` emulates what it cannot.
ABLE = tuple(name for name in EVERY_METHOD if name != "amx" or hardware._amx())
METHODS = tuple(name for name in EVERY_METHOD if name not in NARROW)

#: Methods that compute by transforms: exact and local only up to rounding, so they take finite floats only.
TRANSFORMS = ("fft",)
PLAIN = tuple(name for name in METHODS if name not in TRANSFORMS)
#: Methods whose sums of small integers are rounded.
ROUNDING = (*TRANSFORMS, "winograd")

TESTS = Path(__file__).resolve().parent


def may_refuse(method: str, dtype, stride, problem=None) -> bool:
    """True where the contract lets `method` refuse a valid problem with finite data; the `NARROW` need the problem."""
    if method == "amx":
        is_single = np.dtype(dtype) in (np.float32, np.float16)
        return not is_single or problem.group_in < 16 or not fastdil.machine().amx
    if method == "winograd":
        return np.dtype(dtype).kind not in "f" or np.max(stride) > 1 or not _winograd_suits(problem)
    return method in TRANSFORMS and (np.dtype(dtype).kind in "biu" or np.max(stride) > 1)


def _winograd_suits(problem) -> bool:
    """Whether height and width, or one of them, have two to five taps that `winograd` can join."""
    terms, taps = problem.group_in * np.prod(problem.kernel), problem.kernel[1:]
    joins = [2 <= problem.kernel[axis] <= 5 and problem.out_size[axis] >= 2 * problem.dilation[axis] for axis in (1, 2)]
    if 1 in taps:
        return max(taps) > 1 and joins[taps[0] == 1] and terms >= 96
    if all(joins) and terms >= 576 and (min(taps) > 2 or problem.rank == 3):
        return True
    is_image = problem.kernel[0] == problem.size[0] == problem.out_size[0] == 1
    return is_image and joins[1] and terms >= 96


def row(explanation, method: str):
    """The explanation's row of `method`."""
    rows = [candidate for candidate in explanation.candidates if candidate.name == method]
    assert len(rows) == 1
    return rows[0]


def forced(method: str, x, w, bias=None, **args):
    """The result of one method by name, or None where it refuses what it may refuse.

    A refusal must be announced by `explain`, be allowed by `may_refuse`, and be raised with the same
    sentence. So neither a fallback nor a refusal that is too wide can hide an untested path.
    """
    dtype = naive.result_dtype(x, w, bias)
    explanation = fastdil.explain(x.shape, w.shape, dtype=dtype, has_bias=bias is not None, **args)
    verdict = row(explanation, method)
    if verdict.verdict != "refused":
        return fastdil.conv(x, w, bias, method=method, **args)
    assert may_refuse(method, dtype, args.get("stride", 1), explanation.problem), (
        f"{method} refuses {x.shape}: {verdict.reason}"
    )
    assert len(verdict.reason) > 10
    with pytest.raises(ValueError, match=re.escape(verdict.reason)):
        fastdil.conv(x, w, bias, method=method, **args)
    return None


def assert_form(y, truth, dtype) -> None:
    """`y` is a new C-contiguous array of the right shape and dtype."""
    assert type(y) is np.ndarray
    assert y.shape == truth.shape
    assert y.dtype == dtype
    assert y.dtype.isnative
    assert y.flags.c_contiguous
    assert y.flags.writeable


def worst(y, truth) -> float:
    """Largest absolute difference; infinite if `y` holds a NaN."""
    difference = np.abs(y.astype(truth.dtype) - truth)
    return float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0))


def assert_within(y, truth, limit: float) -> None:
    """No element differs by more than `limit`."""
    error = worst(y, truth)
    assert error <= limit, f"error {error:.3g} above the bound {limit:.3g} ({error / limit if limit else 0:.2f} of it)"


def run_child(script: str, *args: str, timeout: float = 240, env: dict[str, str] | None = None):
    """Run a script of this folder in a fresh interpreter; its output is shown if it fails."""
    command = [sys.executable, "-W", "error", str(TESTS / script), *args]
    variables = {**os.environ, "PYTHONPATH": str(TESTS.parent), "PYTHONFAULTHANDLER": "1", **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=variables, check=False)
    assert done.returncode == 0, (
        f"{script} {' '.join(args)} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done
