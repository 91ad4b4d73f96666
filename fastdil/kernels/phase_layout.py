"""How `fft` cuts outputs into sequences: its kernels' parameters, and which outputs belong to the lanes of a task."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.geometry import DW, GEOMETRY, UNIT, XW
from fastdil.kernels.intrinsics import load_i64, store_i64

#: This kernel's own parameters, after the geometry.
(
    LENGTH, BLOCK, BLOCKS, PHASES,  # points of a transform; outputs of a sequence; sequences of a row
    ROWS, ROW_STEP, ROW_PHASES, ROW_GROUPS, LINES,  # rows of a task, a dilation apart; lines of one depth
    SEQUENCES, TASKS,  # of one sample and group
    TILE_ROWS, OUTPUTS,  # output rows of a tile; output channels, filled up to whole tiles
    DATA_STEP,  # bytes between the lines of `DATA`
    STEPS, PAIRS, PAIR_COUNT, SPECTRUM,  # addresses of tables, their length; numbers in the spectra of a group
    FORWARD, INVERSE, MIX,  # addresses of the parts that are compiled on their own
    DATA, PANEL, SUMS, RUNS, STAGING, POINTERS, ENERGY, SEEN, LARGEST,  # byte offsets in the scratch memory
) = range(GEOMETRY, GEOMETRY + 30)  # fmt: skip
FIELDS = 30

#: What the `w` argument points to: packed spectra, absolute weights of the loudest output, squares, the report.
(W_SPECTRA, W_ABSOLUTE, W_SQUARES, W_REPORT) = range(4)
#: Per task: the square of the loudest block as the weights see it, the largest sum of magnitudes, the largest sample.
REPORT_FIELDS = 3

#: A run of neighbouring phases: its first lane, how many, depth and first row of its outputs, first output in a row.
(R_LANE, R_COUNT, R_DEPTH, R_HEIGHT, R_FIRST) = range(5)
RUN_FIELDS = 5


@helper
def limited(value, low, high):
    """`value` within [low, high]."""
    return max(min(value, high), low)


@helper
def are_neighbours(params):
    """Whether real samples that follow each other along the width do so in memory."""
    return load_i64(params, XW) == 1 and load_i64(params, UNIT) == 1


@helper
def is_dense(params):
    """Whether a sequence is a row of neighbours in memory."""
    return load_i64(params, DW) == 1 and are_neighbours(params)


@helper
def list_runs(params, runs, first, lanes):
    """Write the runs of the sequences first..first+lanes; returns how many runs they are."""
    phases, rows = load_i64(params, PHASES), load_i64(params, ROWS)
    row_length = load_i64(params, BLOCKS) * phases
    groups, row_phases = load_i64(params, ROW_GROUPS), load_i64(params, ROW_PHASES)
    step, most = load_i64(params, BLOCK) * load_i64(params, DW), lanes if are_neighbours(params) else 1
    lane, count = 0, 0
    while lane < lanes and first + lane < load_i64(params, SEQUENCES):
        row, place = (first + lane) // row_length, (first + lane) % row_length
        block, phase = place // phases, place % phases
        plane_row = row % (row_phases * groups)
        run = runs + count * RUN_FIELDS * 8
        width = min(min(phases - phase, lanes - lane), most)
        store_i64(run, R_LANE, lane)
        store_i64(run, R_COUNT, width)
        store_i64(run, R_DEPTH, row // (row_phases * groups))
        store_i64(run, R_HEIGHT, plane_row % groups * rows * load_i64(params, ROW_STEP) + plane_row // groups)
        store_i64(run, R_FIRST, block * step + phase)
        lane += width
        count += 1
    return count
