"""direct: stencils on the rows of the input, for one or few channels, depthwise layers and filter banks."""

from __future__ import annotations

import numpy as np

from fastdil import costmodel
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import (
    activation_address,
    all_finite,
    crop_bytes,
    kernel_call,
    pack_weights,
    real_strides,
)
from fastdil.algorithms.direct_layouts import ChannelLayout, channel_tile, layout_of
from fastdil.hardware import Machine
from fastdil.kernels import stencil
from fastdil.kernels.geometry import ACTIVATE
from fastdil.kernels.stencil import CHAIN_TERMS
from fastdil.problem import Problem

#: The list of lines (16 bytes each) and the sums of one tile must not push the samples out of L2.
_MOST_LINES = 1 << 16


class Direct:
    """Stencils: `fastdil.kernels.planes` and `folds` for groups with one output channel, else `stencil`."""

    name = "direct"
    needs_tame_input = False

    def supports(self, problem: Problem, machine: Machine) -> str | None:
        lines = problem.group_in * problem.kernel[0] * problem.kernel[1]
        if lines > _MOST_LINES:
            return f"one output reads {lines} rows of samples, more than {_MOST_LINES}; im2col takes them in blocks"
        return None

    def features(self, problem: Problem, threads: int) -> dict[str, float]:
        layout = layout_of(problem, is_plain=True)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = layout_of(problem, is_plain=True)
        return Estimate(
            costmodel.predict(self.name, layout.features(min(threads, layout.tasks))),
            layout.scratch_bytes * min(threads, layout.tasks),
            costmodel.chain_error(CHAIN_TERMS, problem.terms),
            costmodel.preparation(self.name, 0 if _is_plain_order(problem) else problem.weights),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        if _is_plain_order(problem):
            return Weights(w, all_finite(w))
        return pack_weights(problem, w, channel_tile(problem)[0], taps_first=False)

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        strides = real_strides(problem, x_strides)
        layout = layout_of(problem, is_plain=finite and strides[-1] == problem.unit)
        params = layout.params
        layout.place(strides)
        params[ACTIVATE] = activation_address(problem)
        if isinstance(layout, ChannelLayout):
            params[stencil.SKIP_PADDING] = int(finite)
        skip = crop_bytes(problem, x_strides)
        return kernel_call(layout.kernel().address, params, skip, layout.tasks, layout.scratch_bytes, threads)


def _is_plain_order(problem: Problem) -> bool:
    """Whether weights are used as they are: a single row per group is in the order of the kernels already."""
    return problem.group_out == 1 and problem.dtype.kind != "c"
