"""What every algorithm offers; see CONTRIBUTING.md, "How to add a method"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastdil.hardware import Machine
from fastdil.problem import Problem


class Estimate(NamedTuple):
    """What running a problem is predicted to take."""

    seconds: float
    workspace_bytes: int  #: scratch memory of all threads together
    error_bound: float  #: in units of eps times the largest conv(|x|, |w|)
    preparation_seconds: float = 0.0  #: what preparing the weights takes, once per plan but in each functional call


class Weights(NamedTuple):
    """Weights as one algorithm wants them: prepared once, used for any batch and spatial size."""

    data: Any
    #: False if a weight is Inf or NaN: then padding zeros must be multiplied, not skipped.
    finite: bool = True


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
