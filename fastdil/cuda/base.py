"""What every method on a GPU offers; as on the CPU, see CONTRIBUTING.md, "How to add a method"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from fastdil.cuda.compiled import Kernel
from fastdil.cuda.device import Device
from fastdil.explanation import Estimate
from fastdil.problem import Problem

#: Strides in elements of the axes N, C, depth, height, width, and the index of the first sample.
Layout = tuple[int, int, int, int, int, int]


class Operands(NamedTuple):
    """Arrays of one call on the device, flat; weights are contiguous, ``(O, C // groups, *kernel)``."""

    x: Any
    w: Any
    bias: Any  #: one element that is not read where there is none
    out: Any
    stream: Any
    scratch: Callable[[int, str], Any]  #: ``scratch(count, dtype)``: a new flat array, ordered after earlier work


#: ``call(operands)``: queues the kernels of one bound problem.
Call = Callable[[Operands], None]


class Method(Protocol):
    """One way to compute a convolution on a GPU. Stateless; registered in `fastdil.cuda.registry`."""

    name: str

    def supports(self, problem: Problem, device: Device) -> str | None:
        """None, or a sentence that says why not."""

    def estimate(self, problem: Problem, device: Device) -> Estimate:
        """Predicted cost of a supported problem; the workspace is packed weights."""

    def bind(self, problem: Problem, device: Device, x_layout: Layout, y_layout: Layout) -> Call:
        """Everything that can be worked out before the data is there."""

    def kernels(self) -> Iterator[Kernel]:
        """Typical specialisations, so that tests can compile every kernel where there is no GPU."""
