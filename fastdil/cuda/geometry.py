"""The integers by which kernels know a problem, and the arithmetic on positions that they share."""

from __future__ import annotations

from fastdil import padding
from fastdil.cuda.compiled import device_function
from fastdil.padding import MODES
from fastdil.problem import Problem

# Where the integers of a problem stand in a kernel's tuple `g`: ``g[G.OUT_H]``. D, H and W are depth, height and width.
BATCH, GROUP_IN, GROUP_OUT, OUT_CHANNELS = range(4)
OUT_D, OUT_H, OUT_W, TAPS_D, TAPS_H, TAPS_W = range(4, 10)
STRIDE_D, STRIDE_H, STRIDE_W, DILATION_D, DILATION_H, DILATION_W = range(10, 16)
BEFORE_D, BEFORE_H, BEFORE_W, SIZE_D, SIZE_H, SIZE_W = range(16, 22)
MODE, HAS_BIAS = 22, 23
#: Distances in elements between samples, channels, depths, lines and columns of the input, and its first sample.
X_N, X_C, X_D, X_H, X_W, X_FIRST = range(24, 30)
#: The same for the output.
Y_N, Y_C, Y_D, Y_H, Y_W, Y_FIRST = range(30, 36)
#: Always 0, which the compiler cannot know: an index that contains it keeps an array in memory, out of registers.
NOTHING = 36
COUNT = 37

#: Stands for the place of a line that is padding. Places can be negative: strides can.
OUTSIDE = -(2**62)


def describe(problem: Problem, x_layout: tuple[int, ...], y_layout: tuple[int, ...]) -> tuple[int, ...]:
    """The integers of a problem; a layout is five strides in elements and the index of the first sample.

    Samples that negative padding crops are never seen: the index of the first one says where the rest begins.
    """
    windows = problem.windows
    cropped = sum(window.crop * stride for window, stride in zip(windows, x_layout[2:5], strict=True))
    values = (
        problem.batch,
        problem.group_in,
        problem.group_out,
        problem.out_channels,
        *problem.out_size,
        *problem.kernel,
        *problem.stride,
        *(d if k > 1 else 1 for k, d in zip(problem.kernel, problem.dilation, strict=True)),
        *(window.lo for window in windows),
        *(window.size for window in windows),
        MODES[problem.padding_mode],
        int(problem.has_bias),
        *x_layout[:5],
        x_layout[5] + cropped,
        *y_layout,
        0,
    )
    assert len(values) == COUNT
    return values


#: `fastdil.padding.source_index`, for kernels.
source_index = device_function(padding.source_index)


@device_function
def smaller(a, b):
    """The smaller one of two integers. With Numba 0.68 `min` does not compile for GPUs."""
    return a if a < b else b
