"""What a GPU can do, as far as the cost model asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

#: Compute capability -> multiply-adds per clock and multiprocessor: float32, float64, bfloat16 in tensor cores. From
#: the tables of NVIDIA's CUDA C++ Programming Guide (arithmetic instructions) and architecture white papers.
_RATES = {
    (7, 0): (64, 32, 0),
    (7, 5): (64, 2, 0),
    (8, 0): (64, 32, 1024),
    (8, 6): (128, 2, 512),
    (8, 9): (128, 2, 512),
    (9, 0): (128, 64, 2048),
    (10, 0): (128, 64, 4096),
    (12, 0): (128, 2, 512),
}


@dataclass(frozen=True)
class Device:
    """A GPU, or a stand-in for one.

    Examples
    --------
    >>> Device.standard().peak_gflops("float32")
    66908.16
    """

    name: str
    capability: tuple[int, int]
    processors: int  #: streaming multiprocessors
    clock_hz: float
    bytes_per_second: float  #: peak of its memory
    block_threads: int = 256  #: threads of a block at most; far fewer under the simulator

    @classmethod
    def standard(cls) -> Device:
        """The data-centre GPU (H100, SXM, from its data sheet) that stands in for one that is not there."""
        return cls("H100 SXM (data sheet)", (9, 0), 132, 1.98e9, 3.35e12)

    @property
    def _rates(self) -> tuple[int, int, int]:
        known = [capability for capability in _RATES if capability <= self.capability]
        return _RATES[max(known, default=min(_RATES))]

    def peak_gflops(self, kind: str) -> float:
        """Peak of the units for "float32", "float64" or "bfloat16" (tensor cores), two operations per multiply-add."""
        rate = self._rates[("float32", "float64", "bfloat16").index(kind)]
        return round(2e-9 * rate * self.processors * self.clock_hz, 3)


def current() -> Device:
    """The GPU of this thread's CUDA context; a stand-in under the simulator."""
    from fastdil.cuda.availability import is_simulated

    if is_simulated():
        return replace(Device.standard(), name="simulator", block_threads=32)
    from numba import cuda

    return _described(cuda.get_current_device().id)


@cache
def _described(index: int) -> Device:
    from numba import cuda

    with cuda.gpus[index]:
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        # Both clocks are in kHz, the bus is in bits, and memory moves data on both edges of its clock.
        memory = 2e3 * device.MEMORY_CLOCK_RATE * device.GLOBAL_MEMORY_BUS_WIDTH / 8
        capability = tuple(device.compute_capability)
        return Device(name, capability, device.MULTIPROCESSOR_COUNT, 1e3 * device.CLOCK_RATE, memory)
