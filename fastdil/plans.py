"""Plans: a convolution prepared once and run on any batch and length.

`Runner` is one problem bound to one memory layout: method chosen, tasks cut, kernels compiled. A `Plan` keeps packed
weights and a bounded number of runners; the functional calls keep runners only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastdil.algorithms import Algorithm
from fastdil.algorithms.base import Call, Weights
from fastdil.algorithms.compiled import activate
from fastdil.arrays import as_array, check_bias, check_input, check_out
from fastdil.cache import BoundedCache
from fastdil.costmodel import MOST_REMEMBERED
from fastdil.dispatch import (
    Explanation,
    choose,
    explain_problem,
    granted_threads,
    parse_method,
    parse_threads,
)
from fastdil.dtypes import as_dtype, result_dtypes
from fastdil.errors import UntameInputError
from fastdil.problem import ConvSpec, Problem

#: NumPy's flags C_CONTIGUOUS and ALIGNED.
_PACKABLE = 0x0001 | 0x0100
#: Shapes and layouts whose decisions one plan remembers.
_MOST_RUNNERS = 64
#: The bytes of small weights of recent functional calls and those weights prepared, by runner and method.
_latest = BoundedCache(16)


class Runner:
    """One problem on one memory layout, ready to run.

    Safe to call from many threads at once: nothing in it changes after it has been built, but that methods in reserve
    are bound when first needed. Compiling them too would double the time of a first call.
    """

    def __init__(
        self,
        problem: Problem,
        result_dtype: np.dtype,
        x_strides: tuple[int, ...],
        method: str,
        threads: int,
        prepared: bool,
    ):
        self.problem, self.result_dtype = problem, result_dtype
        self.threads = granted_threads(problem, threads)
        self.x_strides = (*x_strides[:2], *(0,) * (5 - len(x_strides)), *x_strides[2:])
        # Worked out here because each would cost a tenth of a microsecond or more per call.
        self.dtype, self.is_rounded = problem.dtype, problem.dtype != result_dtype
        self.is_empty = problem.is_empty
        self.algorithms: tuple[Algorithm, ...] = ()
        if self.is_empty and method != "auto":
            parse_method(method)
        if not self.is_empty:
            self.algorithms = choose(problem, method, self.threads, prepared)
        self._calls: list[Call | None] = [None] * len(self.algorithms)
        if self.algorithms:
            self._bind(0)

    def _bind(self, number: int) -> Call:
        """Bind a method; two threads may both do so, and either result serves."""
        call = self.algorithms[number].bind(self.problem, self.x_strides, True, self.threads)
        self._calls[number] = call
        return call

    def prepared(self, algorithm: Algorithm, w: np.ndarray) -> Weights:
        """The weights of a functional call, prepared; those of the last one if they are small and the same bytes."""
        if w.nbytes > MOST_REMEMBERED:
            return algorithm.prepare(self.problem, w)
        content = w.tobytes()
        latest = _latest.get((self, algorithm.name))
        if latest is not None and latest[0] == content:
            return latest[1]
        # From bytes that nobody can change: what is prepared may refer to them.
        weights = algorithm.prepare(self.problem, np.frombuffer(content, w.dtype).reshape(w.shape))
        _latest.put((self, algorithm.name), (content, weights))
        return weights

    def run(self, x: np.ndarray, weights_for, bias: np.ndarray | None, out: np.ndarray) -> None:
        """Compute into the C-contiguous `out`; `weights_for(algorithm)` gives packed weights."""
        if self.is_empty:
            _bias_only(self.problem, bias, out)
            return
        for number, algorithm in enumerate(self.algorithms):
            weights: Weights = weights_for(algorithm)
            if weights.finite:
                call = self._calls[number] or self._bind(number)
            else:
                call = algorithm.bind(self.problem, self.x_strides, False, self.threads)
            try:
                return call(x, weights, bias, out)
            except UntameInputError:
                if algorithm is self.algorithms[-1]:
                    raise


def _bias_only(problem: Problem, bias: np.ndarray | None, out: np.ndarray) -> None:
    """The result where no product contributes: an empty array, or the activated bias everywhere."""
    out[...] = 0
    if bias is not None:
        out.reshape(*problem.out_shape[:2], problem.out_pixels)[...] = bias[:, None]
    if out.size:
        activate(problem, out)


# ---------------------------------------------------------------------------------------------------------
# arrays in, arrays out
# ---------------------------------------------------------------------------------------------------------


def readable(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`x` itself if kernels can read it where it lies, else a contiguous copy in `dtype`."""
    if x.dtype == dtype and x.dtype.isnative and x.flags.aligned:
        real = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        if not any(stride % real for stride in x.strides):
            return x
    return np.array(x, dtype, order="C")


def native(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`x` in `dtype` and this machine's byte order: `x` itself, or a contiguous copy."""
    return x if x.dtype == dtype and x.dtype.isnative else np.array(x, dtype, order="C")


def packable(w: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`w` itself if it is aligned, C-contiguous and in `dtype`, else a copy that is."""
    return w if w.dtype is dtype and w.flags.num & _PACKABLE == _PACKABLE else np.require(w, dtype, ["C", "A"])


def apply(
    runner: Runner,
    x: np.ndarray,
    weights_for,
    bias: np.ndarray | None,
    shape: tuple[int, ...],
    out: np.ndarray | None,
) -> np.ndarray:
    """Run into `out`, or into a new array; through a temporary where `out` is not laid out like one."""
    dtype = runner.dtype
    if out is None and not runner.is_rounded:
        result = np.empty(shape, dtype)
        runner.run(x, weights_for, bias, result)
        return result
    # A forced transform may find out on the way that it must refuse: nothing may be half-written then.
    is_sure = not (runner.algorithms and runner.algorithms[-1].needs_tame_input)
    if out is not None and is_sure and out.dtype == dtype and out.dtype.isnative and out.flags.carray:
        runner.run(x, weights_for, bias, out)
        return out
    result = np.empty(shape, dtype)
    runner.run(x, weights_for, bias, result)
    with np.errstate(over="ignore"):  # float16, bfloat16: beyond their range is inf, as everywhere in NumPy
        if out is None:
            return result.astype(runner.result_dtype)
        out[...] = result
    return out


def new_runner(
    spec: ConvSpec, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, method: str, threads: int, prepared: bool
) -> tuple[np.ndarray, Runner, bool]:
    """`x` as kernels can read it, a runner for its layout, and whether the runner serves every array laid out like `x`.

    It does unless `x` lies so oddly in memory that only this call knew to copy it. `prepared`: the weights are prepared
    once for many calls.
    """
    check_input(x, spec)
    compute, result = result_dtypes(*(array.dtype for array in (x, w, bias) if array is not None))
    ready = readable(x, compute)
    batched = ready if ready.ndim == spec.rank + 2 else ready[None]
    problem = spec.problem(batched.shape, compute, bias is not None, result.name == "bfloat16")
    runner = Runner(problem, result, batched.strides, method, threads, prepared)
    return ready, runner, ready is x or x.dtype != compute or not x.dtype.isnative


class _Bound(NamedTuple):
    """What a plan remembers of inputs that are shaped and laid out alike."""

    runner: Runner
    weights_for: Callable[[Algorithm], Weights]
    bias: np.ndarray | None
    shape: tuple[int, ...]  #: of the result


class Plan:
    """A convolution prepared once; build it with `fastdil.plan`.

    Calling it runs it on any batch and spatial size. Weights stay packed, decisions are remembered for the
    last shapes seen. Safe to call from many threads at once. Changing the arrays that it was built from has no effect.
    """

    def __init__(self, w, bias, spec: ConvSpec, method: str, threads: int):
        self._w, self._bias, self._spec = np.array(w), None if bias is None else np.array(bias), spec
        self._method, self._threads = method, threads
        self._bound = BoundedCache(_MOST_RUNNERS)
        self._weights = BoundedCache(_MOST_RUNNERS)

    @property
    def spec(self) -> ConvSpec:
        """The validated arguments."""
        return self._spec

    def __repr__(self) -> str:
        spec = self._spec
        return f"Plan(w_shape={spec.w_shape}, dtype={self._w.dtype.name}, method={self._method!r})"

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Convolve `x`, shape ``(N, C, *spatial)`` or ``(C, *spatial)``.

        Parameters
        ----------
        x : array_like
        out : ndarray, optional
            Where to write; same shape and dtype as the result, no memory shared with `x`.

        Returns
        -------
        ndarray

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` does not fit; nothing is written then.
        """
        x = given = x if type(x) is np.ndarray else as_array("x", x)
        key = (x.shape, x.strides, x.dtype)
        bound = self._bound.get(key)
        if bound is None or not x.flags.aligned:
            args = (self._w, self._bias, self._method, self._threads, True)
            x, runner, is_lasting = new_runner(self._spec, as_array("x", x), *args)
            bound = self._bind(runner, has_batch=x.ndim == self._spec.rank + 2)
            if is_lasting:
                self._bound.put(key, bound)
        runner, weights_for, bias, shape = bound
        if x.dtype is not runner.dtype:
            x = native(x, runner.dtype)
        if out is not None:
            check_out(out, shape, runner.result_dtype, (given,))
        return apply(runner, x, weights_for, bias, shape, out)

    def _bind(self, runner: Runner, has_batch: bool) -> _Bound:
        """A runner with what this plan hands to it, so that a small call looks up nothing else."""
        kept: dict[str, Weights] = {}

        def weights_for(algorithm: Algorithm) -> Weights:
            weights = kept.get(algorithm.name)
            if weights is None:
                weights = kept[algorithm.name] = self._packed(algorithm, runner.problem)
            return weights

        bias = None if self._bias is None else self._converted("bias", runner.dtype)
        return _Bound(runner, weights_for, bias, runner.problem.out_shape[0 if has_batch else 1 :])

    def _converted(self, name: str, dtype: np.dtype) -> np.ndarray:
        converted = self._weights.get((name, dtype))
        if converted is None:
            converted = np.ascontiguousarray(self._w if name == "w" else self._bias, dtype)
            self._weights.put((name, dtype), converted)
        return converted

    def _packed(self, algorithm: Algorithm, problem: Problem) -> Weights:
        key = (algorithm.name, problem.dtype, problem.is_bfloat16)
        packed = self._weights.get(key)
        if packed is None:
            packed = algorithm.prepare(problem, self._converted("w", problem.dtype))
            self._weights.put(key, packed)
        return packed

    def explain(self, x_shape: tuple[int, ...], dtype: object = None) -> Explanation:
        """Which method runs on an input of this shape, and why.

        Parameters
        ----------
        x_shape : tuple of int
            ``(N, C, *spatial)`` or ``(C, *spatial)``.
        dtype : dtype, optional
            Of the input; that of the weights unless given.

        Returns
        -------
        Explanation
        """
        shape = tuple(x_shape)
        if len(shape) == self._spec.rank + 1:
            shape = (1, *shape)
        given = self._w.dtype if dtype is None else as_dtype(dtype)
        compute, result = result_dtypes(
            *(d for d in (given, self._w.dtype, getattr(self._bias, "dtype", None)) if d is not None)
        )
        problem = self._spec.problem(shape, compute, self._bias is not None, result.name == "bfloat16")
        return explain_problem(problem, self._method, self._threads)


def plan(
    w: np.ndarray,
    bias: np.ndarray | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    threads: int | None = None,
) -> Plan:
    """Prepare a convolution: validate once, pack the weights once, run on any batch and length.

    Parameters are those of `fastdil.conv`, without the input.

    Returns
    -------
    Plan
        ``y = p(x, out=None)`` runs it; ``p.explain(x_shape)`` tells which method and why.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the text names it, its value and what was expected.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> p = fastdil.plan(np.ones((4, 2, 3), np.float32), dilation=8, padding="causal")
    >>> p(np.ones((2, 100), np.float32)).shape, p(np.ones((5, 2, 37), np.float32)).shape
    ((4, 100), (5, 4, 37))
    """
    weights = as_array("w", w)
    spec = ConvSpec.parse(
        weights.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        activation=activation,
        precision=precision,
    )
    checked = check_bias(bias, spec.out_channels)
    result_dtypes(weights.dtype)
    return Plan(weights, checked, spec, parse_method(method), parse_threads(threads))
