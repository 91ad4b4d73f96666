"""direct: stencils on the rows of the input, for one or few channels, depthwise layers and filter banks."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from fastdil import costmodel
from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Estimate, Weights
from fastdil.algorithms.compiled import (
    activation_address,
    all_finite,
    crop_bytes,
    kernel_call,
    pack_weights,
    real_strides,
)
from fastdil.algorithms.direct_layouts import ChannelLayout, Layout, channel_tile
from fastdil.algorithms.plane_layouts import layout_of
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
        layout = _usual_layout(problem)
        return layout.features(min(threads, layout.tasks))

    def estimate(self, problem: Problem, threads: int) -> Estimate:
        layout = _usual_layout(problem)
        return Estimate(
            costmodel.predict(self.name, layout.features(min(threads, layout.tasks))),
            layout.scratch_bytes * min(threads, layout.tasks),
            costmodel.chain_error(CHAIN_TERMS, problem.terms),
            costmodel.preparation(self.name, 0 if _is_plain_order(problem) else problem.weights),
        )

    def prepare(self, problem: Problem, w: np.ndarray) -> Weights:
        if _is_plain_order(problem):
            return Weights(w, all_finite(w), address_of(w))
        return pack_weights(problem, w, channel_tile(problem)[0], taps_first=False)

    def bind(self, problem: Problem, x_strides: tuple[int, ...], finite: bool, threads: int) -> Call:
        taps: tuple[slice, ...] = ()
        if finite:
            problem, taps = _on_met_taps(problem)
        if _is_pointwise(problem) and _is_one_run(problem, x_strides):
            problem, x_strides = _on_one_row(problem), (*x_strides[:2], 0, 0, x_strides[4])
        strides = real_strides(problem, x_strides)
        layout = layout_of(problem, is_plain=finite and strides[-1] == problem.unit)
        params = layout.params
        layout.place(strides)
        params[ACTIVATE] = activation_address(problem)
        if isinstance(layout, ChannelLayout):
            params[stencil.SKIP_PADDING] = int(finite)
        skip = crop_bytes(problem, x_strides)
        call = kernel_call(layout.kernel().address, params, skip, layout.tasks, layout.scratch_bytes, threads)
        return _handing_over(call, taps) if taps else call


def _usual_layout(problem: Problem) -> Layout:
    """The layout for finite weights and contiguous samples."""
    problem, _ = _on_met_taps(problem)
    return layout_of(_on_one_row(problem) if _is_pointwise(problem) else problem, is_plain=True)


@lru_cache(maxsize=256)
def _on_met_taps(problem: Problem) -> tuple[Problem, tuple[slice, ...]]:
    """The problem without taps that never meet a sample, and the taps that are left: none if all are.

    A 3 x 3 kernel whose dilation exceeds the map is a single tap. Only for one chain of products per output: zeros
    left out of it change no bit. The weights of several outputs are packed for any input size, and padding is skipped.
    """
    if not _is_plain_order(problem) or problem.padding_mode != "zeros" or problem.terms > CHAIN_TERMS:
        return problem, ()
    met = tuple(problem.met_taps(axis) for axis in range(3))
    if met == tuple((0, count) for count in problem.kernel):
        return problem, ()
    return problem.with_taps(met), tuple(slice(*ends) for ends in met[3 - problem.rank :])


def _handing_over(call: Call, taps: tuple[slice, ...]) -> Call:
    """The same call, given these taps of the weights only."""

    def call_with_some(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
        some = np.ascontiguousarray(weights.data[(..., *taps)])
        call(x, Weights(some, True, address_of(some)), bias, out)

    return call_with_some


def _is_pointwise(problem: Problem) -> bool:
    """Whether each output reads the samples at its own place, and no others."""
    return problem.taps == 1 and problem.stride == (1, 1, 1) and problem.padding == ((0, 0),) * 3


def _is_one_run(problem: Problem, x_strides: tuple[int, ...]) -> bool:
    """Whether the samples of a channel follow each other from row to row as they do along a row."""
    follows = x_strides[4]
    for size, stride in zip(reversed(problem.size), reversed(x_strides[2:]), strict=True):
        if size > 1 and stride != follows:
            return False
        follows *= size
    return True


def _on_one_row(problem: Problem) -> Problem:
    """A pointwise problem with all rows in one: a row costs some 150 cycles before its first product."""
    return replace(problem, size=(1, 1, math.prod(problem.size)))


def _is_plain_order(problem: Problem) -> bool:
    """Whether weights are used as they are: a single row per group is in the order of the kernels already."""
    return problem.group_out == 1 and problem.dtype.kind != "c"
