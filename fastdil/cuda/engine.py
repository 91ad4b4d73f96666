"""A convolution on the device, from arguments to queued kernels; `fastdil.cuda.functional` is its public face."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastdil.arguments import as_int, one_of
from fastdil.arrays import check_bias, check_input, check_out
from fastdil.cache import BoundedCache
from fastdil.cuda import arrays, copies
from fastdil.cuda.arrays import View
from fastdil.cuda.base import Call, Layout, Method, Operands
from fastdil.cuda.device import Device, current
from fastdil.cuda.registry import METHODS
from fastdil.dtypes import result_dtypes
from fastdil.errors import bad_type, bad_value
from fastdil.explanation import Estimate, Explanation, explain_choice
from fastdil.problem import ConvSpec, Problem

#: Bound calls of recent problems and layouts.
_calls = BoundedCache(256)


def convolve(
    rank: int | None,
    x: Any,
    w: Any,
    bias: Any,
    words: dict[str, Any],
    method: str,
    threads: int | None,
    out: Any,
    stream: Any,
) -> Any:
    """Everything that `fastdil.cuda.conv` does; see there. `words` are keyword arguments of `ConvSpec.parse`."""
    one_of("method", method, ("auto", *METHODS))
    if threads is not None:
        as_int("threads", threads, 1)
    with arrays.device_of(x):
        given = [arrays.described(*pair) for pair in (("x", x), ("w", w), ("bias", bias)) if pair[1] is not None]
        request = _Request.parse(rank, [view.outline for view in given], words, method)
        target = _target(x, out, request, [view.outline for view in given])
        on = arrays.stream_for(stream, x)
        if not arrays.is_on_device(x):
            seen = arrays.fresh(request.shape, request.result, on)
        else:
            target = arrays.allocated_like(x, request.shape, request.result, on) if target is None else target
            seen = arrays.view("out", target)
        if seen.outline.size:
            arrays.wait_for([*given, seen], on)
            _Queue(request, x, on).run([arrays.uploaded(view, on) for view in given], seen)
        if arrays.is_on_device(x):
            return target
        host = arrays.downloaded(seen, on)
        if target is None:
            return host
        target[...] = host
        return target


class _Request(NamedTuple):
    """What is asked for, validated as on the CPU."""

    problem: Problem
    result: np.dtype
    shape: tuple[int, ...]  #: of the result, as the caller sees it
    device: Device
    method: Method

    @property
    def is_batched(self) -> bool:
        return len(self.shape) == self.problem.rank + 2

    @classmethod
    def parse(cls, rank: int | None, given: list[np.ndarray], words: dict[str, Any], method: str) -> _Request:
        x, w = given[:2]
        spec = ConvSpec.parse(w.shape, rank=rank, **words)
        check_input(x, spec)
        check_bias(given[2] if len(given) > 2 else None, spec.out_channels)
        compute, result = result_dtypes(*(outline.dtype for outline in given))
        if "bfloat16" in {outline.dtype.name for outline in given}:
            raise bad_type("dtype", "bfloat16", "another dtype: fastdil.cuda does not take this one")
        is_batched = x.ndim == spec.rank + 2
        problem = spec.problem(x.shape if is_batched else (1, *x.shape), compute, len(given) > 2)
        device = current()
        shape = problem.out_shape if is_batched else problem.out_shape[1:]
        return cls(problem, result, shape, device, choose(problem, method, device))


def _target(x: Any, out: Any, request: _Request, given: list[np.ndarray]) -> Any:
    """`out`, if it can hold the result and lies where `x` does."""
    if out is None:
        return None
    if arrays.is_on_device(out) != arrays.is_on_device(x):
        place = "a device array, as x is one" if arrays.is_on_device(x) else "a NumPy array, as x is on the host"
        raise bad_type("out", type(out).__name__, place)
    check_out(
        arrays.view("out", out).outline if arrays.is_on_device(out) else out,
        request.shape,
        request.result,
        tuple(given),
    )
    return out


class _Queue:
    """The kernels of one request, put on a stream: conversions, the convolution, the rounding of float16."""

    def __init__(self, request: _Request, like: Any, stream: Any):
        self.request, self.like, self.stream = request, like, stream

    def run(self, inputs: list[View], target: View) -> None:
        request, dtype = self.request, self.request.problem.dtype
        x = inputs[0] if inputs[0].outline.dtype == dtype else self._copied(inputs[0], dtype)
        w, *rest = [self._plain(view, dtype) for view in inputs[1:]]
        bias = rest[0] if rest else w  # kernels that are told of no bias do not read it
        seen = target if target.outline.dtype == dtype else self._new(request.shape, dtype)
        flat_x, flat_out = arrays.flat(x), arrays.flat(seen)
        call = _bound(request, self._layout(flat_x), self._layout(flat_out))
        call(Operands(flat_x[0], arrays.flat(w)[0], arrays.flat(bias)[0], flat_out[0], self.stream, self._scratch))
        if seen is not target:
            copies.copy(flat_out, arrays.flat(target), request.shape, self.stream)

    def _plain(self, view: View, dtype: np.dtype) -> View:
        """In the dtype computed in, contiguous: so kernels index weights and bias."""
        is_plain = view.outline.dtype == dtype and view.outline.flags.c_contiguous
        return view if is_plain else self._copied(view, dtype)

    def _copied(self, view: View, dtype: np.dtype) -> View:
        target = self._new(view.outline.shape, dtype)
        if view.outline.size:
            copies.copy(arrays.flat(view), arrays.flat(target), view.outline.shape, self.stream)
        return target

    def _scratch(self, count: int, dtype: str) -> Any:
        return arrays.flat(self._new((count,), np.dtype(dtype)))[0]

    def _new(self, shape: tuple[int, ...], dtype: np.dtype) -> View:
        """Memory from the pool of the input's library, where it has one."""
        return arrays.view("scratch", arrays.allocated_like(self.like, shape, dtype, self.stream))

    def _layout(self, flat: tuple[Any, tuple[int, ...], int]) -> Layout:
        strides = flat[1] if self.request.is_batched else (0, *flat[1])
        missing = (0,) * (3 - self.request.problem.rank)
        return (*strides[:2], *missing, *strides[2:], flat[2])  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------------
# choosing
# ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _refusals(problem: Problem, device: Device) -> dict[str, str | None]:
    return {name: method.supports(problem, device) for name, method in METHODS.items()}


@lru_cache(maxsize=256)
def _estimates(problem: Problem, device: Device) -> dict[str, Estimate]:
    refusals = _refusals(problem, device)
    return {name: method.estimate(problem, device) for name, method in METHODS.items() if refusals[name] is None}


def choose(problem: Problem, method: str, device: Device) -> Method:
    """The forced method, or the one with the shortest predicted time.

    Raises
    ------
    ValueError
        If the forced method refuses the problem; the text is its reason.
    """
    if problem.is_empty:  # nothing is multiplied: the definition writes the bias
        return METHODS["reference"]
    if method != "auto":
        refusal = _refusals(problem, device)[method]
        if refusal is not None:
            raise bad_value("method", method, f"one that supports this problem: {refusal}")
        return METHODS[method]
    estimates = _estimates(problem, device)
    return METHODS[min(estimates, key=lambda name: estimates[name].seconds)]


def explain(problem: Problem, method: str, device: Device) -> Explanation:
    """Every method's verdict on a problem."""
    one_of("method", method, ("auto", *METHODS))
    chosen = choose(problem, method, device).name if not problem.is_empty or method == "auto" else method
    refusals = dict.fromkeys(METHODS) if problem.is_empty else _refusals(problem, device)
    estimates = dict.fromkeys(METHODS, Estimate(0.0, 0, 0.0)) if problem.is_empty else _estimates(problem, device)
    kind = problem.dtype.name if problem.dtype.name in ("float32", "float64") else None
    peaks = {name: device.peak_gflops("bfloat16" if name == "tensor" else kind) if kind else None for name in METHODS}
    return explain_choice(problem, chosen, refusals, estimates, is_forced=method != "auto", peaks=peaks, caveats={})


def _bound(request: _Request, x_layout: Layout, y_layout: Layout) -> Call:
    key = (request.problem, request.device, request.method.name, x_layout, y_layout)
    call = _calls.get(key)
    if call is None:
        call = request.method.bind(request.problem, request.device, x_layout, y_layout)
        _calls.put(key, call)
    return call
