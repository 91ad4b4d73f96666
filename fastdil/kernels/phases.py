"""Overlap-save on dilation phases: the compiled part of `fft`.

A convolution with dilation d is d independent dense ones, each on every d-th sample. Along the width, outputs are cut
into sequences: one phase, `BLOCK` outputs long, read from `LENGTH` samples. Sequences of one sample and group fill the
lanes of two vectors, neighbouring phases side by side, because they are neighbours in memory. One task transforms
them for all lines of samples that its outputs read, mixes lines at each frequency, and transforms back.

A line is one channel of one row of samples. Kernel rows and depths are lines too: `ROWS` output rows a dilation apart
share ``taps + ROWS - 1`` of them, and mixing adds up the kernel's rows.

Whether the data suit a transform is found out on the way and reported, task by task: see `judge`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import (
    ACTIVATE,
    DD,
    DH,
    DW,
    GEOMETRY,
    GROUP_IN,
    GROUP_OUT,
    GROUPS,
    KD,
    KH,
    KW,
    LD,
    LH,
    LW,
    MODE,
    ND,
    NH,
    NW,
    OD,
    OH,
    OUT_PIXELS,
    OW,
    RELU,
    UNIT,
    XC,
    XD,
    XH,
    XN,
    XW,
    lanes_of,
    source_index,
)
from fastdil.kernels.intrinsics import (
    call_on_row,
    copy_vectors,
    finish_row,
    load_element,
    load_i64,
    store_element,
    store_i64,
)
from fastdil.kernels.spectra import (
    ADD,
    ADD_EXACTLY,
    REPLACE,
    copy_columns,
    fill_zeros,
    interleave,
    measure,
    mix_chain,
    pack_pair,
    see_taps,
    separate,
    settle_pair,
    weigh,
)
from fastdil.kernels.transforms import transform

#: Channels that are summed in registers.
CHAIN_CHANNELS = 24
#: Chains that may be added plainly.
PLAIN_CHAINS = 2

#: This kernel's own parameters, after the geometry.
(
    LENGTH, BLOCK, BLOCKS, PHASES,  # points of a transform; outputs of a sequence; sequences of a row
    ROWS, ROW_STEP, ROW_PHASES, ROW_GROUPS, LINES,  # rows of a task, a dilation apart; lines of one depth
    SEQUENCES, TASKS,  # of one sample and group
    TILE_ROWS, OUTPUTS,  # output rows of a tile; output channels, filled up to whole tiles
    DATA_STEP,  # bytes between the lines of `DATA`
    PASSES, PASS_COUNT, SPLIT, TWIDDLES, PAIRS, PAIR_COUNT,  # addresses of tables, and their lengths
    SEEN_OUTPUTS, ALLOWED,  # outputs that `judge` looks at; a float64: how loud a block may be
    DATA, PANEL, SUMS, RUNS, STAGING, POINTERS, ENERGY, SEEN, LARGEST,  # byte offsets in the scratch memory
) = range(GEOMETRY, GEOMETRY + 31)  # fmt: skip
FIELDS = 31

#: What the `w` argument points to: packed spectra, absolute weights of the loudest outputs, squares, the report.
(W_SPECTRA, W_ABSOLUTE, W_SQUARES, W_REPORT) = range(4)
#: Per task: the square of the loudest block as the weights see it, the largest sum of magnitudes, the largest sample.
REPORT_FIELDS = 3

#: A run of neighbouring phases: its first lane, how many, depth and first row of its outputs, first output in a row.
(R_LANE, R_COUNT, R_DEPTH, R_HEIGHT, R_FIRST) = range(5)
RUN_FIELDS = 5

#: Places where `judge` works out what the taps see, if one does not suffice: three along each of width and height.
PLACES = 9


@helper
def limited(value, low, high):
    """`value` within [low, high]."""
    return max(min(value, high), low)


@helper
def are_neighbours(params):
    """Whether real samples that follow each other along the width do so in memory."""
    return load_i64(params, XW) == 1 and load_i64(params, UNIT) == 1


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


# ---------------------------------------------------------------------------------------------------------
# samples in, outputs out
# ---------------------------------------------------------------------------------------------------------


@helper
def fill_elements(kind, size, params, target, step, source, start, begin, end, width):
    """Rows begin..end of `width` samples each, wherever the padding mode finds them."""
    dilation, position_step = load_i64(params, DW), load_i64(params, XW)
    mode, samples = load_i64(params, MODE), load_i64(params, NW)
    needed = (load_i64(params, OW) - 1) + (load_i64(params, KW) - 1) * dilation - load_i64(params, LW)
    for row in range(begin, end):
        for index in range(width):
            position = start + row * dilation + index
            place = source_index(position, samples, mode) if position <= needed else -1
            at = source + max(place, 0) * position_step * size
            copy_vectors(kind, 1, target + row * step + index * size, 0, at, 0, 1, 1 if place >= 0 else 0)


@helper
def fill_run(kind, size, params, target, step, source, first, width):
    """All samples of a run of `width` sequences whose first output is `first`, `step` bytes from row to row."""
    length, dilation, samples = load_i64(params, LENGTH), load_i64(params, DW), load_i64(params, NW)
    start = first - load_i64(params, LW)
    last = min(samples - 1, (load_i64(params, OW) - 1) + (load_i64(params, KW) - 1) * dilation - load_i64(params, LW))
    begin = limited((dilation - 1 - start) // dilation, 0, length)
    end = limited((last - width + 1 - start) // dilation + 1, begin, length)
    fill_elements(kind, size, params, target, step, source, start, 0, begin, width)
    position_bytes = load_i64(params, XW) * size
    at = source + (start + begin * dilation) * position_bytes
    copy_columns(kind, size, target + begin * step, step, at, dilation * position_bytes, end - begin, width)
    fill_elements(kind, size, params, target, step, source, start, end, length, width)


@helper
def find_row(params, run, depth_tap, line, size, source):
    """Address of the row of samples that a run reads, or 0 for zeros."""
    mode = load_i64(params, MODE)
    depth = load_i64(run, R_DEPTH) + depth_tap * load_i64(params, DD) - load_i64(params, LD)
    height = load_i64(run, R_HEIGHT) + line * load_i64(params, DH) - load_i64(params, LH)
    if height > load_i64(params, OH) - 1 + (load_i64(params, KH) - 1) * load_i64(params, DH) - load_i64(params, LH):
        return 0  # no output reads it
    depth, height = source_index(depth, load_i64(params, ND), mode), source_index(height, load_i64(params, NH), mode)
    if depth < 0 or height < 0:
        return 0
    return source + (depth * load_i64(params, XD) + height * load_i64(params, XH)) * size


@helper
def fill_line(kind, lanes, size, params, scratch, data, runs, count, source, depth_tap, line):
    """The samples of one channel of one row for all sequences of a task, one lane each."""
    length = load_i64(params, LENGTH)
    step = 2 * lanes * size
    last = runs + (count - 1) * RUN_FIELDS * 8
    if load_i64(last, R_LANE) + load_i64(last, R_COUNT) < 2 * lanes:
        fill_zeros(kind, lanes, data, 2 * length)
    for index in range(count):
        run = runs + index * RUN_FIELDS * 8
        target, width = data + load_i64(run, R_LANE) * size, load_i64(run, R_COUNT)
        row = find_row(params, run, depth_tap, line, size, source)
        if row != 0:
            fill_run(kind, size, params, target, step, row, load_i64(run, R_FIRST), width)
        else:
            zeros = scratch + load_i64(params, STAGING)
            copy_columns(kind, size, target, step, zeros, 0, length, width)


@helper
def interleave_line(kind, lanes, size, params, scratch, data, runs, count, source, depth_tap, line):
    """The same for dilation 1, where each sequence is a row of neighbours: rows are transposed."""
    length, staging, pointers = load_i64(params, LENGTH), load_i64(params, STAGING), load_i64(params, POINTERS)
    zeros = scratch + staging
    for lane in range(2 * lanes):
        place = zeros
        if lane < count:
            run = runs + lane * RUN_FIELDS * 8
            row = find_row(params, run, depth_tap, line, size, source)
            start = load_i64(run, R_FIRST) - load_i64(params, LW)
            if row != 0:
                place = row + start * size
                if start < 0 or start + length > load_i64(params, NW):
                    place = zeros + (lane + 1) * length * size
                    fill_row(kind, lanes, size, params, place, row, start)
        store_i64(scratch + pointers, lane, place)
    step = 2 * lanes * size
    for half in range(2):
        at, table = data + half * lanes * size, scratch + pointers + half * lanes * 8
        interleave(kind, lanes, at, step, table, length // lanes)


@helper
def fill_row(kind, lanes, size, params, target, row, start):
    """`LENGTH` neighbouring samples from position `start` on, which may lie outside."""
    length = load_i64(params, LENGTH)
    begin = limited(-start, 0, length)
    end = limited(load_i64(params, NW) - start, begin, length)
    fill_elements(kind, size, params, target, size, row, start, 0, begin, 1)
    finish_row(kind, lanes, target + begin * size, row + (start + begin) * size, end - begin, 0, 0)
    fill_elements(kind, size, params, target, size, row, start, end, length, 1)


@helper
def store_run(kind, size, params, source, step, target, first, width):
    """The outputs of a run; `target` is the row's first output."""
    dilation, unit, outputs = load_i64(params, DW), load_i64(params, UNIT), load_i64(params, OW)
    block = load_i64(params, BLOCK)
    whole = limited((outputs - width - first) // dilation + 1, 0, block)
    at, target_step = target + first * unit * size, dilation * unit * size
    copy_columns(kind, size, at, target_step, source, step, whole, width)
    for row in range(whole, block):
        for index in range(width):
            if first + row * dilation + index < outputs:
                place = at + row * target_step + index * size
                copy_vectors(kind, 1, place, 0, source + row * step + index * size, 0, 1, 1)


@helper
def store_line(kind, lanes, size, params, scratch, data, runs, count, target, row, bias):
    """Bias, activation and store of one output channel of one output row; `target` is the channel's first output."""
    block, relu, activate = load_i64(params, BLOCK), load_i64(params, RELU), load_i64(params, ACTIVATE)
    unit, step = load_i64(params, UNIT), 2 * lanes * size
    if bias != 0 or relu != 0:
        finish_row(kind, lanes, data, data, block * 2 * lanes, bias, relu)
    if activate != 0:
        call_on_row(activate, data, block * 2 * lanes)
    is_dense = load_i64(params, DW) == 1 and are_neighbours(params)
    length = load_i64(params, LENGTH)
    rows = scratch + load_i64(params, STAGING) + length * size
    if is_dense:
        for half in range(2):
            at = rows + half * lanes * length * size
            separate(kind, lanes, at, length * size, data + half * lanes * size, step, (block + lanes - 1) // lanes)
    for index in range(count):
        run = runs + index * RUN_FIELDS * 8
        height = load_i64(run, R_HEIGHT) + row * load_i64(params, ROW_STEP)
        if height < load_i64(params, OH):
            line = load_i64(run, R_DEPTH) * load_i64(params, OH) + height
            place = target + line * load_i64(params, OW) * unit * size
            first = load_i64(run, R_FIRST)
            if is_dense:
                wanted = limited(load_i64(params, OW) - first, 0, block)
                finish_row(kind, lanes, place + first * size, rows + index * length * size, wanted, 0, 0)
            else:
                at = data + load_i64(run, R_LANE) * size
                store_run(kind, size, params, at, step, place, first, load_i64(run, R_COUNT))


# ---------------------------------------------------------------------------------------------------------
# mixing
# ---------------------------------------------------------------------------------------------------------


@helper
def mix_tile(kind, lanes, tile, size, params, scratch, weights, first_row, target, second):
    """One tile of outputs at one pair of frequencies: all its lines, chain by chain."""
    channels = load_i64(params, GROUP_IN) * load_i64(params, UNIT)
    depths, lines, data_step = load_i64(params, KD), load_i64(params, LINES), load_i64(params, DATA_STEP)
    count = (load_i64(params, KH) + load_i64(params, TILE_ROWS) - 1) * channels
    parts = (count + CHAIN_CHANNELS - 1) // CHAIN_CHANNELS
    each = (count + parts - 1) // parts
    panel, sums = scratch + load_i64(params, PANEL), scratch + load_i64(params, SUMS)
    line, errors = 4 * lanes * size, tile * 4 * lanes * size
    if depths * parts == 1:
        first = panel + first_row * channels * line
        mix_chain(kind, lanes, tile, weights, first, count, target, second, data_step, REPLACE, 0)
        return
    fill_zeros(kind, lanes, sums, tile * 8)
    how = ADD_EXACTLY if depths * parts > PLAIN_CHAINS else ADD
    for depth in range(depths):
        at = panel + (depth * lines + first_row) * channels * line
        for done in range(0, count, each):
            chain = min(each, count - done)
            mix_chain(
                kind, lanes, tile, weights, at + done * line, chain, sums, 2 * lanes * size, line, how, errors
            )  # fmt: skip
            weights += chain * tile * 2 * size
    settle_pair(kind, lanes, tile, sums, errors, target, second, data_step)


@helper
def mix(kind, lanes, tile, size, params, scratch, spectra):
    """All frequencies: the spectra of the lines become those of the outputs, in the same place."""
    channels = load_i64(params, GROUP_IN) * load_i64(params, UNIT)
    tile_rows, outputs, rows = load_i64(params, TILE_ROWS), load_i64(params, OUTPUTS), load_i64(params, ROWS)
    tile_outputs = tile // tile_rows
    depths, data_step = load_i64(params, KD), load_i64(params, DATA_STEP)
    data, panel = scratch + load_i64(params, DATA), scratch + load_i64(params, PANEL)
    weights, tile_bytes = spectra, (load_i64(params, KH) + tile_rows - 1) * channels * depths * tile * 2 * size
    pairs = load_i64(params, PAIRS)
    for pair in range(load_i64(params, PAIR_COUNT)):
        first, second = load_i64(pairs, 2 * pair), load_i64(pairs, 2 * pair + 1)
        pack_pair(kind, lanes, panel, data, data_step, depths * load_i64(params, LINES) * channels, first, second)
        for output in range(0, outputs, tile_outputs):
            for row in range(0, rows, tile_rows):
                target = data + (row * outputs + output) * data_step + first
                mix_tile(kind, lanes, tile, size, params, scratch, weights, row, target, second - first)
            weights += tile_bytes


# ---------------------------------------------------------------------------------------------------------
# how loud the samples are, and what the taps see of it
# ---------------------------------------------------------------------------------------------------------


@helper
def seen(kind, size, params, runs, count, sums, row, place):
    """The largest sum over the lanes whose output number `place` of row `row` exists."""
    largest = 0.0
    for index in range(count):
        run = runs + index * RUN_FIELDS * 8
        if load_i64(run, R_HEIGHT) + row * load_i64(params, ROW_STEP) < load_i64(params, OH):
            first = load_i64(run, R_FIRST) + place * load_i64(params, DW)
            for lane in range(min(load_i64(run, R_COUNT), load_i64(params, OW) - first)):
                largest = max(largest, load_element(kind, sums + (load_i64(run, R_LANE) + lane) * size))
    return largest


@helper
def largest_lane(kind, lanes, size, vector):
    """The largest element of a vector; NaN if one is."""
    largest = 0.0
    for lane in range(lanes):
        value = load_element(kind, vector + lane * size)
        if not value <= largest:
            largest = value
    return largest


@helper
def loudness(kind, lanes, size, params, scratch, squares):
    """The largest mean square of a sequence, each line weighed with the square of its weights."""
    channels = load_i64(params, GROUP_IN) * load_i64(params, UNIT)
    outputs, rows = load_i64(params, GROUP_OUT) * load_i64(params, UNIT), load_i64(params, ROWS)
    count, lines = load_i64(params, KH) * channels, load_i64(params, LINES)
    energy, total = scratch + load_i64(params, ENERGY), scratch + load_i64(params, SUMS)
    largest = 0.0
    for row in range(rows):
        for output in range(outputs):
            fill_zeros(kind, lanes, total, 1)
            for depth in range(load_i64(params, KD)):
                weights = squares + (output * load_i64(params, KD) + depth) * count * size
                weigh(
                    kind, lanes, weights, energy + (depth * lines + row) * channels * lanes * size, count, total
                )  # fmt: skip
            value = largest_lane(kind, lanes, size, total)
            if not value <= largest:
                largest = value
    return largest / load_i64(params, LENGTH)


@helper
def find_peak(kind, lanes, size, params, data, peak, line, best):
    """Raise `best` to the largest magnitude of a line; `peak` receives the line and the point."""
    for point in range(load_i64(params, LENGTH)):
        for lane in range(2 * lanes):
            value = abs(load_element(kind, data + (point * 2 * lanes + lane) * size))
            if value > best:
                best = value
                store_i64(peak, 0, line)
                store_i64(peak, 1, point)
    return best


@helper
def near(index, taps, choice, most):
    """An output that reads sample `index` with its middle, first or last tap, or the next one that exists."""
    tap = taps // 2 if choice == 0 else (0 if choice == 1 else taps - 1)
    return limited(index - tap, 0, most)


@helper
def search(kind, lanes, size, params, scratch, runs, count, source, absolute):
    """The largest sum of magnitudes at outputs that see the largest sample: loads all lines once more, twice."""
    channels, unit = load_i64(params, GROUP_IN) * load_i64(params, UNIT), load_i64(params, UNIT)
    depths, lines, rows = load_i64(params, KD), load_i64(params, LINES), load_i64(params, ROWS)
    heights, taps, block = load_i64(params, KH), load_i64(params, KW), load_i64(params, BLOCK)
    data, peak = scratch + load_i64(params, DATA), scratch + load_i64(params, POINTERS)
    outputs, sums = load_i64(params, SEEN_OUTPUTS), scratch + load_i64(params, SEEN)
    vector = 2 * lanes * size
    fill_zeros(kind, lanes, sums, 2 * PLACES * outputs)
    best, line, point = 0.0, 0, 0
    for look in range(2):
        for depth in range(depths):
            for index in range(lines * channels):
                channel = index % channels
                begin = source + (channel // unit * load_i64(params, XC) + channel % unit) * size
                fill_line(kind, lanes, size, params, scratch, data, runs, count, begin, depth, index // channels)
                if look == 0:
                    best = find_peak(kind, lanes, size, params, data, peak, index // channels, best)
                    continue
                for place in range(PLACES):
                    row = near(line, heights, place // 3, rows - 1)
                    height = index // channels - row
                    at = data + near(point, taps, place % 3, block - 1) * vector
                    if 0 <= height < heights:
                        for output in range(outputs):
                            term = ((output * depths + depth) * heights + height) * channels + channel
                            total = sums + (output * PLACES + place) * vector
                            see_taps(kind, lanes, at, absolute + term * taps * size, taps, total)
        if best == 0.0:
            return 0.0
        line, point = load_i64(peak, 0), load_i64(peak, 1)
    largest = 0.0
    for index in range(PLACES * outputs):
        row, at = near(line, heights, index % PLACES // 3, rows - 1), near(point, taps, index % 3, block - 1)
        largest = max(largest, seen(kind, size, params, runs, count, sums + index * vector, row, at))
    return largest


@helper
def judge(kind, lanes, size, params, scratch, runs, count, source, absolute, squares, report):
    """Report whether a transform does what the definition says on these samples.

    It errs everywhere in a block by its loudest part, which the weights see as `loudness`; allowed is what the taps see
    of it, the largest sum of magnitudes, known from one output per sequence. Where that is too little, as for
    an impulse, outputs that see the largest sample are asked too.
    """
    loud = loudness(kind, lanes, size, params, scratch, squares)
    row, place = load_i64(params, ROWS) // 2, load_i64(params, BLOCK) // 2
    most = seen(kind, size, params, runs, count, scratch + load_i64(params, SEEN), row, place)
    largest = largest_lane(kind, lanes, size, scratch + load_i64(params, LARGEST))
    limit = load_element("f64", params + ALLOWED * 8)
    if not loud <= limit * limit * most * most:
        most = max(most, search(kind, lanes, size, params, scratch, runs, count, source, absolute))
    store_element("f64", report, loud)
    store_element("f64", report + 8, most)
    store_element("f64", report + 16, largest)


# ---------------------------------------------------------------------------------------------------------
# the kernel
# ---------------------------------------------------------------------------------------------------------


@helper
def transform_lines(kind, lanes, size, params, scratch, runs, count, source, absolute):
    """Load, measure and transform all lines of a task."""
    channels, unit = load_i64(params, GROUP_IN) * load_i64(params, UNIT), load_i64(params, UNIT)
    lines, length, taps = load_i64(params, LINES), load_i64(params, LENGTH), load_i64(params, KW)
    energy, sums = scratch + load_i64(params, ENERGY), scratch + load_i64(params, SEEN)
    largest, vector = scratch + load_i64(params, LARGEST), 2 * lanes * size
    row, heights = load_i64(params, ROWS) // 2, load_i64(params, KH)
    is_dense = load_i64(params, DW) == 1 and are_neighbours(params)
    fill_zeros(kind, lanes, sums, 2)
    fill_zeros(kind, lanes, largest, 1)
    at = scratch + load_i64(params, DATA)
    for depth in range(load_i64(params, KD)):
        for line in range(lines):
            for channel in range(channels):
                begin = source + (channel // unit * load_i64(params, XC) + channel % unit) * size
                if is_dense:
                    interleave_line(kind, lanes, size, params, scratch, at, runs, count, begin, depth, line)
                else:
                    fill_line(kind, lanes, size, params, scratch, at, runs, count, begin, depth, line)
                measure(kind, lanes, at, length, energy, largest)
                if 0 <= line - row < heights:
                    term = (depth * heights + line - row) * channels + channel
                    place = at + load_i64(params, BLOCK) // 2 * vector
                    see_taps(kind, lanes, place, absolute + term * taps * size, taps, sums)
                transform(
                    kind, lanes, size, 0, at, length, load_i64(params, PASSES), load_i64(params, PASS_COUNT),
                    load_i64(params, SPLIT), load_i64(params, TWIDDLES),
                )  # fmt: skip
                energy += lanes * size
                at += load_i64(params, DATA_STEP)


def _make_kernel(kind: str, lanes: int, tile: int, name: str) -> Any:
    stamp, size = jit.source_stamp(), int(kind[1:]) // 8

    def phases(params, x, w, bias, out, scratch, task):
        stamp  # noqa: B018 - a closure cell in the cache key
        tasks, groups, unit = load_i64(params, TASKS), load_i64(params, GROUPS), load_i64(params, UNIT)
        group, sample = task // tasks % groups, task // tasks // groups
        group_in, group_out = load_i64(params, GROUP_IN), load_i64(params, GROUP_OUT)
        depths, heights, taps = load_i64(params, KD), load_i64(params, KH), load_i64(params, KW)
        channels, outputs = group_in * unit, group_out * unit
        source = x + (sample * load_i64(params, XN) + group * group_in * load_i64(params, XC)) * size
        terms = depths * heights * channels
        lines = (heights + load_i64(params, TILE_ROWS) - 1) * channels * depths
        spectrum = load_i64(params, PAIR_COUNT) * load_i64(params, OUTPUTS) * load_i64(params, TILE_ROWS) * lines * 2
        absolute = load_i64(w, W_ABSOLUTE) + group * load_i64(params, SEEN_OUTPUTS) * terms * taps * size
        runs = scratch + load_i64(params, RUNS)
        count = list_runs(params, runs, task % tasks * 2 * lanes, 2 * lanes)
        fill_zeros(kind, lanes, scratch + load_i64(params, STAGING), load_i64(params, LENGTH) // lanes)
        transform_lines(kind, lanes, size, params, scratch, runs, count, source, absolute)
        mix(kind, lanes, tile, size, params, scratch, load_i64(w, W_SPECTRA) + group * spectrum * size)
        for row in range(load_i64(params, ROWS)):
            for output in range(outputs):
                at = scratch + load_i64(params, DATA)
                at += (row * load_i64(params, OUTPUTS) + output) * load_i64(params, DATA_STEP)
                transform(
                    kind, lanes, size, 1, at, load_i64(params, LENGTH), load_i64(params, PASSES),
                    load_i64(params, PASS_COUNT), load_i64(params, SPLIT), load_i64(params, TWIDDLES),
                )  # fmt: skip
                channel = group * outputs + output
                plane = sample * groups * group_out + channel // unit
                target = out + (plane * load_i64(params, OUT_PIXELS) * unit + channel % unit) * size
                shift = bias + channel * size if bias != 0 else 0
                store_line(kind, lanes, size, params, scratch, at, runs, count, target, row, shift)
        squares = load_i64(w, W_SQUARES) + group * outputs * terms * size
        report = load_i64(w, W_REPORT) + task * REPORT_FIELDS * 8
        judge(kind, lanes, size, params, scratch, runs, count, source, absolute, squares, report)

    return jit.callback(phases, name, KERNEL_ARGUMENTS)


@cache
def phase_kernel(kind: str, vector_bytes: int, tile: int) -> Any:
    """The compiled kernel for one element kind, vector width and number of output rows in a tile."""
    lanes = lanes_of(kind, vector_bytes)
    return _make_kernel(kind, lanes, tile, f"phases_{kind}_{tile}_{8 * vector_bytes}bit")
