"""What every algorithm offers; see CONTRIBUTING.md, "How to add a method"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastdil.explanation import Estimate
from fastdil.hardware import Machine
from fastdil.problem import Problem


class Weights(NamedTuple):
    """Weights as one algorithm wants them: prepared once, used for any batch and spatial size."""

    data: Any
    #: False if a weight is Inf or NaN: then padding zeros must be multiplied, not skipped.
    finite: bool = True
    #: Where `data` lies, if it is an array.
    address: int = 0


#: ``call(x, weights, bias, out)``: runs one bound problem. Safe to call from many threads at once.
Call = Callable[[np.ndarray, Weights, np.ndarray | None, np.ndarray], None]


class Algorithm(Protocol):
    """One way to compute a convolution. Stateless; registered in `fastdil.algorithms`."""

    name: str
    #: True if it spreads NaN and Inf, or overflow, beyond the outputs that touch them (transforms do).
    needs_tame_input: bool

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        """None, or a sentence that says why not."""

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        """Amounts of work of a supported problem, per thread; `fastdil.costmodel` weighs them."""

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        """Predicted cost of a supported problem."""

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        """Pack contiguous weights of the problem's dtype; independent of batch and spatial size."""

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        """Everything that can be worked out before the data is there.

        `x_strides` are those of the five-dimensional input ``(N, C, D, H, W)`` in bytes; `finite` is `Weights.finite`.
        """
