"""reference: the definition, one thread per output. It accepts every valid problem and is the yardstick of the others.

float32 is summed in float64, integers in 64 bits, and what each addition rounds away is kept (TwoSum).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numba import cuda
from numba.np.numpy_support import from_dtype

from fastdil.cuda import costs
from fastdil.cuda import geometry as G
from fastdil.cuda.activation import activation
from fastdil.cuda.base import Call, Layout, Operands
from fastdil.cuda.compiled import Kernel, flat, integers, ops
from fastdil.cuda.device import Device
from fastdil.cuda.geometry import source_index
from fastdil.explanation import Estimate
from fastdil.problem import Problem

_THREADS = 128


class Reference:
    """One thread per output, all its products in order."""

    name = "reference"

    def supports(self, problem: Problem, device: Device) -> str | None:
        return None

    def estimate(self, problem: Problem, device: Device) -> Estimate:
        return Estimate(costs.reference(problem, device), 0, 1.0)

    def bind(self, problem: Problem, device: Device, x_layout: Layout, y_layout: Layout) -> Call:
        kernel = _kernel(problem.dtype.name, problem.activation)
        geometry = G.describe(problem, x_layout, y_layout)
        outputs = problem.batch * problem.out_channels * problem.out_pixels
        blocks = -(-outputs // _THREADS)

        def call(on: Operands) -> None:
            kernel.launch(blocks, _THREADS, on.stream, on.x, on.w, on.bias, on.out, geometry)

        return call

    def kernels(self) -> Iterator[Kernel]:
        for dtype, name in (("complex64", None), ("uint64", "relu"), ("float32", "silu"), ("float32", "gelu")):
            yield _kernel(dtype, name)


@cache
def _kernel(dtype: str, fused: str | None) -> Kernel:
    wide = {"f": "float64", "c": "complex128", "i": "int64", "u": "uint64"}[np.dtype(dtype).kind]
    wraps = wide in ("int64", "uint64")
    finish = activation(fused, dtype if wraps else wide)
    total = np.dtype(wide).type
    zero = total(0)

    def kernel(x, w, bias, out, g):
        index = cuda.grid(1)
        pixels = g[G.OUT_D] * g[G.OUT_H] * g[G.OUT_W]
        if index >= g[G.BATCH] * g[G.OUT_CHANNELS] * pixels:
            return
        k, j, i = index % g[G.OUT_W], index // g[G.OUT_W] % g[G.OUT_H], index // (g[G.OUT_H] * g[G.OUT_W]) % g[G.OUT_D]
        o, n = index // pixels % g[G.OUT_CHANNELS], index // pixels // g[G.OUT_CHANNELS]
        first = g[G.X_FIRST] + n * g[G.X_N] + o // g[G.GROUP_OUT] * g[G.GROUP_IN] * g[G.X_C]
        at = o * g[G.GROUP_IN] * g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W]
        result = total(ops.load(bias, o)) if g[G.HAS_BIAS] else zero
        error = zero
        for c in range(g[G.GROUP_IN]):
            for a in range(g[G.TAPS_D]):
                depth = source_index(i * g[G.STRIDE_D] + a * g[G.DILATION_D] - g[G.BEFORE_D], g[G.SIZE_D], g[G.MODE])
                for b in range(g[G.TAPS_H]):
                    height = source_index(
                        j * g[G.STRIDE_H] + b * g[G.DILATION_H] - g[G.BEFORE_H], g[G.SIZE_H], g[G.MODE]
                    )
                    for t in range(g[G.TAPS_W]):
                        width = source_index(
                            k * g[G.STRIDE_W] + t * g[G.DILATION_W] - g[G.BEFORE_W], g[G.SIZE_W], g[G.MODE]
                        )
                        product = total(ops.load(w, at))
                        at += 1
                        if depth < 0 or height < 0 or width < 0:
                            product *= zero  # a padding zero is a sample: Inf times it is NaN
                        else:
                            place = first + c * g[G.X_C] + depth * g[G.X_D] + height * g[G.X_H] + width * g[G.X_W]
                            product *= total(ops.load(x, place))
                        last, result = result, result + product
                        added = result - last
                        error += (last - (result - added)) + (product - added)
        # The error of an infinite sum is NaN; that of integers, which wrap, is zero.
        result = result + error if error == error else result
        to = g[G.Y_FIRST] + n * g[G.Y_N] + o * g[G.Y_C] + i * g[G.Y_D] + j * g[G.Y_H] + k * g[G.Y_W]
        if wraps:  # to the dtype first, as NumPy would
            ops.store(out, to, result)
            ops.store(out, to, finish(ops.load(out, to)))
        else:
            ops.store(out, to, finish(result))

    element = flat(from_dtype(np.dtype(dtype)))
    return Kernel(kernel, f"reference_{dtype}_{fused}", element, element, element, element, integers(G.COUNT))
