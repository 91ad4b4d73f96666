"""Channels-last input for methods that read it in rows: copied to rows first, once, in the workspace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from fastdil.addresses import address_of
from fastdil.algorithms.base import Call, Weights
from fastdil.hardware import machine
from fastdil.kernels import channels_first
from fastdil.kernels.driver import launcher
from fastdil.problem import Problem
from fastdil.workspace import borrowed_array, limit_bytes

#: Share of the workspace that copies may take.
_SHARE = 0.5
#: Sizes of elements that the kernel moves.
_SIZES = (4, 8)


def bind_to_rows(
    problem: Problem,
    x_strides: tuple[int, ...],
    threads: int,
    bind: Callable[[Problem, tuple[int, ...], int], Call],
    scratch_bytes: int = 0,
) -> Call:
    """What `bind` makes of the problem, if its input is in rows; else of copies in rows, some samples at a time.

    `bind` also gets the bytes of the workspace that copies take, which leave `scratch_bytes` of it.
    """
    at_once = samples_at_once(problem, x_strides, scratch_bytes)
    if at_once == 0:
        return bind(problem, x_strides, 0)
    counts = [at_once] * (problem.batch // at_once)
    if problem.batch % at_once:
        counts.append(problem.batch % at_once)
    strides, bound = _row_strides(problem), {}
    for count in set(counts):
        part = dataclasses.replace(problem, batch=count)
        bound[count] = _copier(part, x_strides, threads), bind(part, strides, at_once * strides[0])

    def call(x: np.ndarray, weights: Weights, bias: np.ndarray | None, out: np.ndarray) -> None:
        source, results, first = address_of(x), out.reshape(problem.out_shape), 0
        with borrowed_array((at_once, problem.in_channels, *problem.size), problem.dtype) as rows:
            for count in counts:
                copy, convolve = bound[count]
                copy(source + first * x_strides[0], 0, 0, address_of(rows))
                convolve(rows[:count], weights, bias, results[first : first + count])
                first += count

    return call


def samples_at_once(problem: Problem, x_strides: tuple[int, ...], scratch_bytes: int = 0) -> int:
    """How many samples of the batch to copy at a time, beside so much scratch memory.

    0 where channels are not neighbours, or nothing fits.
    """
    size, sample_bytes = problem.dtype.itemsize, _row_strides(problem)[0]
    if x_strides[1] != size or problem.in_channels == 1 or size not in _SIZES or sample_bytes == 0:
        return 0
    room = min(int(_SHARE * limit_bytes()), limit_bytes() - scratch_bytes)
    return min(max(room // sample_bytes, 0), problem.batch)


def _row_strides(problem: Problem) -> tuple[int, ...]:
    """Byte strides of an input in rows."""
    depth, height, width = problem.size
    size = problem.dtype.itemsize
    steps = (problem.in_channels * depth * height * width, depth * height * width, height * width, width, 1)
    return tuple(step * size for step in steps)


def _copier(problem: Problem, x_strides: tuple[int, ...], threads: int) -> Callable[[int, int, int, int], None]:
    """A function of the addresses ``(x, 0, 0, rows)``."""
    size, vector_bytes = problem.dtype.itemsize, machine().vector_bytes
    batch_step, _, *steps = (stride // size for stride in x_strides)
    sizes = list(problem.size)
    for axis in (1, 0):  # lines that follow each other are one
        if steps[axis] == sizes[2] * steps[2] and sizes[axis + 1 : 2] == [1] * (1 - axis):
            sizes[2], sizes[axis] = sizes[2] * sizes[axis], 1
    params = np.array([problem.in_channels, problem.batch, *sizes, batch_step, *steps], np.int64)
    tasks = channels_first.tasks_of(problem.batch, problem.in_channels, sizes)
    kernel = channels_first.channels_first_kernel(size, vector_bytes)
    return launcher(kernel.address, params, tasks, channels_first.scratch_bytes(size, vector_bytes), threads)
