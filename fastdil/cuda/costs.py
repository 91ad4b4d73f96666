"""Predicted seconds on a GPU: a roofline from the device's attributes.

None of these constants has been calibrated: they were written down without a GPU at hand, as shares of the peaks that
kernels of each kind commonly reach. They rank the methods; they do not promise times.
"""

from __future__ import annotations

import math

from fastdil.cuda.device import Device
from fastdil.problem import Problem

#: Seconds from a launch to the end of an empty kernel, as the queue sees it.
LAUNCH_SECONDS = 5e-6
#: Share of the memory's peak that streaming kernels reach.
_STREAMING = 0.8
#: Share of the multiply-add peak: plain threads reading global memory, tiles of samples, register tiles, tensor cores.
_SHARES = {"reference": 0.01, "direct": 0.35, "gemm": 0.6, "tensor": 0.4}


def _kind(problem: Problem) -> str:
    """The units that compute it: integers count as float32, what is complex or 64 bits wide as float64."""
    return "float64" if problem.dtype.itemsize == 8 or problem.dtype.kind == "c" else "float32"


def traffic_bytes(problem: Problem) -> int:
    """Bytes that must be moved at least: input, weights and result, each once."""
    pixels = problem.in_channels * math.prod(problem.size), problem.out_channels * problem.out_pixels
    return problem.dtype.itemsize * (problem.batch * sum(pixels) + problem.out_channels * problem.terms)


def roofline(name: str, device: Device, problem: Problem, macs: float, blocks: int, kind: str | None = None) -> float:
    """Seconds of a kernel that does `macs` multiply-adds, idle lanes included, in `blocks` blocks."""
    peak = 1e9 * device.peak_gflops(kind or _kind(problem)) * _SHARES[name]
    # Blocks run in waves: the last one keeps all processors waiting, however few blocks it has.
    fill = blocks / (math.ceil(blocks / device.processors) * device.processors)
    memory = traffic_bytes(problem) / (device.bytes_per_second * _STREAMING)
    return LAUNCH_SECONDS + max(2 * macs / (peak * fill), memory)


def reference(problem: Problem, device: Device) -> float:
    """float32 is summed in float64, and each product costs ten more operations."""
    peak = 1e9 * device.peak_gflops("float64") * _SHARES["reference"]
    return LAUNCH_SECONDS + problem.flops / peak
