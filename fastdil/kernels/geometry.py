"""The integers that kernels receive: one layout, filled from a `Problem`, read by name.

All strides are counted in real elements. A complex array is seen as interleaved real numbers: its samples are two
lanes wide (`UNIT` is 2), and a complex weight counts as two real output rows, its real and its imaginary part.
"""

from __future__ import annotations

import numpy as np

from fastdil import padding
from fastdil.jit import helper
from fastdil.padding import MODES
from fastdil.problem import Problem

#: Number of integers that `fill` writes; a kernel's own fields follow.
GEOMETRY = 31

(
    XN, XC, XD, XH, XW,  # strides of x: batch, channel, depth, height, width
    ND, NH, NW,  # samples per axis, after cropping
    LD, LH, LW,  # padding before them
    SD, SH, SW, DD, DH, DW, KD, KH, KW,  # stride, dilation, taps
    OD, OH, OW, OUT_PIXELS,  # outputs per axis, and of one channel
    GROUPS, GROUP_IN, GROUP_OUT, MODE, UNIT,
    RELU, ACTIVATE,  # clip at zero; address of a callback(row, count), or 0
) = range(GEOMETRY)  # fmt: skip

#: Where the strides of the input stand.
STRIDES = slice(XN, XW + 1)

#: Dtype -> element kind of the vector layer. Unsigned integers wrap like signed ones, complex ones are pairs.
ELEMENT_KIND = {
    "float32": "f32",
    "float64": "f64",
    "complex64": "f32",
    "complex128": "f64",
    **{f"{sign}int{bits}": f"i{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def lanes_of(kind: str, vector_bytes: int) -> int:
    """Lanes of a vector. Never more than 16: narrow integers have no vector gather, so wider ones would not pay."""
    return min(vector_bytes // (int(kind[1:]) // 8), 16)


def fill(problem: Problem, extra: int) -> np.ndarray:
    """Parameters for `problem` and room for `extra` more; `STRIDES` and ``ACTIVATE`` are left to the caller."""
    out = problem.out_size
    values = [
        *(0,) * 5,
        *(window.size for window in problem.windows),
        *(window.lo for window in problem.windows),
        *problem.stride,
        *problem.dilation,
        *problem.kernel,
        *out,
        problem.out_pixels,
        problem.groups,
        problem.group_in,
        problem.group_out,
        MODES[problem.padding_mode],
        problem.unit,
        int(problem.activation == "relu"),
        0,
    ]
    params = np.zeros(GEOMETRY + extra, np.int64)
    params[:GEOMETRY] = values
    return params


#: `fastdil.padding.source_index`, for kernels.
source_index = helper(padding.source_index)
