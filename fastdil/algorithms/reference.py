"""reference: the definition in plain loops. It accepts every valid problem and is the yardstick of the others.

float32 is summed in float64, integers in 64 bits, and what each addition rounds away is kept (TwoSum), so float64
results are as good as twice the precision. The sums alone would err by n / 8 eps where n terms are equal.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import costmodel, jit
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import activate
from fastdil.hardware import Machine
from fastdil.kernels.geometry import source_index
from fastdil.padding import MODES
from fastdil.problem import Problem


class Reference:
    """Plain loops, one output at a time."""

    name = "reference"
    needs_tame_input = False

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        outputs = problem.batch * problem.out_channels * problem.out_pixels
        return {"call": 1, "output": outputs, "product": problem.macs}

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        return Estimate(costmodel.predict(self.name, self.features(problem, threads)), 0, 1.0)

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        summed_in = _accumulator(problem.dtype)
        return Weights(np.array(w.reshape(*w.shape[:2], *problem.kernel), summed_in, order="C"))

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        loops = _loops(problem.dtype.name)
        full_shape = (problem.batch, problem.in_channels, *problem.size)
        out_shape = (problem.batch, problem.out_channels, *problem.out_size)
        kept = tuple(slice(window.crop, window.crop + window.size) for window in problem.windows)
        before = [window.lo for window in problem.windows]
        settings = np.array([problem.stride, problem.dilation, before, [MODES[problem.padding_mode]] * 3], np.int64)
        no_bias = np.zeros(problem.out_channels, _accumulator(problem.dtype))

        def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
            # The same memory with five axes, whatever number the caller's array has.
            samples = np.lib.stride_tricks.as_strided(x, full_shape, x_strides, writeable=False)[:, :, *kept]
            start = no_bias if bias is None else bias.astype(no_bias.dtype)
            loops(samples, weights.data, start, out.reshape(out_shape), settings)
            activate(problem, out)

        return call


def _accumulator(dtype: np.dtype) -> np.dtype:
    return np.dtype({"f": "float64", "c": "complex128", "i": "int64", "u": "uint64"}[dtype.kind])


@cache
def _loops(dtype: str) -> Any:
    from numba import types
    from numba.np.numpy_support import from_dtype

    stamp = jit.source_stamp()
    element, total = from_dtype(np.dtype(dtype)), from_dtype(_accumulator(np.dtype(dtype)))
    signature = types.void(
        types.Array(element, 5, "A", readonly=True), total[:, :, :, :, ::1], total[::1], element[:, :, :, :, ::1],
        types.int64[:, ::1],
    )  # fmt: skip

    def reference(x, w, bias, out, settings):
        stamp  # noqa: B018 - a closure cell in the cache key
        stride, dilation, before, mode = settings[0], settings[1], settings[2], settings[3, 0]
        sizes, kernel, group_in = x.shape[2:], w.shape[2:], w.shape[1]
        zero = w.dtype.type(0)
        group_out = w.shape[0] * group_in // x.shape[1] if x.shape[1] > 0 else 1
        for n, o, i, j, k in np.ndindex(out.shape):
            result, error = bias[o], zero
            for c in range(group_in):
                channel = o // group_out * group_in + c
                for a in range(kernel[0]):
                    depth = source_index(i * stride[0] + a * dilation[0] - before[0], sizes[0], mode)
                    for b in range(kernel[1]):
                        height = source_index(j * stride[1] + b * dilation[1] - before[1], sizes[1], mode)
                        for t in range(kernel[2]):
                            width = source_index(k * stride[2] + t * dilation[2] - before[2], sizes[2], mode)
                            weight = w[o, c, a, b, t]
                            if depth < 0 or height < 0 or width < 0:
                                product = weight * zero  # a padding zero is a sample: Inf times it is NaN
                            else:
                                product = weight * x[n, channel, depth, height, width]
                            last, result = result, result + product
                            added = result - last
                            error += (last - (result - added)) + (product - added)
            # The error of an infinite sum is NaN; that of integers, which wrap, is zero.
            out[n, o, i, j, k] = result + error if error == error else result

    return jit.typed(reference, f"reference_{dtype}", signature)
