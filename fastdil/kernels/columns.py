"""Small kernels on small planes: the compiled part of `direct` for depthwise layers of up to 7 x 7 taps.

The output rows of one phase read lines of samples that are `dilation` apart. A register tile goes down a phase and
keeps the sums of all rows that a line meets: each line is loaded once. A task is a run of planes. Larger kernels, whose
sums have no room, and larger planes are left to `fastdil.kernels.planes`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastdil import jit
from fastdil.kernels.column_tiles import column_run
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    ACTIVATE,
    DW,
    GEOMETRY,
    GROUPS,
    KH,
    KW,
    OD,
    OH,
    OUT_PIXELS,
    OW,
    RELU,
    SW,
    XC,
    XN,
    lanes_of,
)
from fastdil.kernels.intrinsics import call_on_row, load_i64
from fastdil.kernels.laid_out import CLASS_STEP, LAID_OUT, LAID_OUT_FIELDS, lay_out_parts, lay_out_plane
from fastdil.kernels.planes import fill_phases

#: Rows and taps of a kernel at most.
MOST_ROWS = MOST_TAPS = 7

#: This kernel's own parameters, after those of a laid-out plane.
(
    UNITS, TASK_UNITS,  # planes in all, and per task
    PHASES, ROW_STRIDE,  # output rows of a phase are `PHASES` apart, and read every so many-th of its lines on
    LINES,  # of a phase
    TABLE,  # byte offset of the lists of lines
    PLACES,  # and `MOST_TAPS` fields: where each tap reads in a line
) = range(LAID_OUT_FIELDS, LAID_OUT_FIELDS + 7)  # fmt: skip
FIELDS = PLACES + MOST_TAPS - GEOMETRY


def _make_column_kernel(kind: str, size: int, lanes: int, width: int, kernel: tuple, name: str) -> Any:
    stamp, (heights, taps, stride) = jit.source_stamp(), kernel

    def columns(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        groups, phases, depths = load_i64(params, GROUPS), load_i64(params, PHASES), load_i64(params, OD)
        height, out_width, table = load_i64(params, OH), load_i64(params, OW), scratch + load_i64(params, TABLE)
        lines, row_bytes = load_i64(params, LINES), phases * out_width * size
        first = task * load_i64(params, TASK_UNITS)
        listed = -1
        for plane in range(first, min(first + load_i64(params, TASK_UNITS), load_i64(params, UNITS))):
            group, target = plane % groups, out + plane * load_i64(params, OUT_PIXELS) * size
            if load_i64(params, LAID_OUT) != 0:
                lay_out_plane(kind, lanes, size, params, scratch, x, plane, plane == first)
                source = scratch + load_i64(params, LAID_OUT)
            else:
                source = x + (plane // groups * load_i64(params, XN) + group * load_i64(params, XC)) * size
            for depth in range(depths):
                if depth != listed:
                    fill_phases(params, table, depth, phases, lines)
                    listed = depth
                for phase in range(phases):
                    column_run(
                        kind, lanes, width, heights, taps, stride, table + phase * lines * 8, source,
                        params + PLACES * 8, w + group * heights * taps * size, out_width,
                        (height - phase + phases - 1) // phases, target + phase * out_width * size, row_bytes,
                        bias + group * size if bias != 0 else 0, load_i64(params, RELU),
                    )  # fmt: skip
                target += height * out_width * size
            if load_i64(params, ACTIVATE):
                count = load_i64(params, OUT_PIXELS)
                call_on_row(load_i64(params, ACTIVATE), target - count * size, count)

    return jit.callback(columns, name, KERNEL_ARGUMENTS)


@cache
def column_kernel(kind: str, vector_bytes: int, width: int, kernel: tuple[int, int, int]) -> Any:
    """The compiled kernel for one element kind, vector width, width of a tile, and `kernel`: rows, taps, row stride."""
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    name = f"columns_{kind}_{kernel[0]}x{kernel[1]}_s{kernel[2]}_{width * lanes}_{8 * vector_bytes}bit"
    return _make_column_kernel(kind, size, lanes, width, kernel, name)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, rows: int, width: int) -> int:
    """Write lines, places and the byte offsets of the scratch memory's parts into `params`; returns its size.

    ``params[LAID_OUT]`` is as in `lay_out_parts`. Tiles do not matter.
    """
    size, phases, stride = int(kind[1:]) // 8, int(params[PHASES]), int(params[SW])
    most_rows = -(-int(params[OH]) // phases)
    params[LINES] = (most_rows - 1) * int(params[ROW_STRIDE]) + int(params[KH])
    positions = np.arange(int(params[KW])) * int(params[DW])
    params[PLACES : PLACES + int(params[KW])] = positions % stride * params[CLASS_STEP] + positions // stride
    return lay_out_parts(params, ((TABLE, phases * int(params[LINES]) * 8),), size)
