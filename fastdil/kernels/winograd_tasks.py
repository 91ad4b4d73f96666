"""The parameters of `fastdil.kernels.winograd`, what one task of it covers, and how its scratch memory is laid out."""

from __future__ import annotations

import numpy as np

from fastdil.jit import helper
from fastdil.kernels.geometry import DD, GEOMETRY, GROUP_IN, GROUPS, KD, KH, KW, OD, lanes_of
from fastdil.kernels.intrinsics import load_i64, store_i64
from fastdil.kernels.winograd_tiles import tile_shape
from fastdil.kernels.winograd_transforms import OUTPUTS, SAMPLES
from fastdil.workspace import ALIGNMENT, lay_out

#: Terms whose blocks are added plainly; beyond, what rounding loses is kept.
PLAIN_TERMS = 256
#: This kernel's own parameters, after the geometry.
(
    LINES,  # of one sample: depths times lines of one depth
    PLANE_LINES,  # of one depth
    PAIR_LINES,  # of these, the first ones, whose phases along the height have more than one sample
    TASK_LINES,
    LINE_BLOCKS,  # tasks that share the lines of a sample
    IS_SHARED,  # 1 if the lines of a task are a dilation of the depth apart, so that their taps share samples
    LONG_RUNS,  # runs of such lines that are one line longer than the others
    LONG_BLOCKS,  # tasks of one of these
    SHORT_BLOCKS,  # and of one of the others
    ROWS_BEFORE,  # from the first sample that a tile reads, at the first output, to the input
    COLUMNS_BEFORE,
    ROW_STEP,
    COLUMN_STEP,  # outputs per run: the dilation, or the whole axis where it has one tap
    TILES,  # of one line
    CHUNK,  # most tiles of a line in one task
    CHUNKS,
    RUN_CHUNKS,  # chunks of one run, if a chunk never holds a whole one; else 0
    GROUP_BLOCKS,  # weight blocks per group
    TASK_BLOCKS,
    PART,  # channels that are transformed and multiplied at a time, with all taps of the depth
    IS_BY_TAP,  # 1 if products are summed tap by tap of the depth, 0 if its taps count as channels
    SPECTRUM,  # bytes of one block's weights of a part of the channels, at all frequencies
    SPECTRUM_STEP,  # and of these, from one frequency to the next one
    LAZY_BLOCKS,  # blocks whose weights a task transforms at a time; 0 if it finds all of them transformed
    PITCH,  # bytes from one channel's frequencies to the next one's
    ROW_PITCH,  # bytes of one row of samples after the transform along the height
    PIECE_PITCH,  # bytes from the samples 0 of a line's tiles to the samples 1
    PIECES,  # of a row that are fetched apart
    PIECE,  # samples of one
    PANEL,
    SPECTRA,
    PACKING,
    SUMS,
    ROWS,
    ROW_TABLES,  # addresses of each line's rows
    COPY_TABLE,  # and of copies of one line's
    LINES_AT,
    ZEROS,
    COLUMNS,
    OUTPUTS_AT,
    LOADS,
    JOINED,  # byte offsets of the parts of the scratch memory
    ERRORS,  # bytes from sums to what was rounded away from them, if blocks are added exactly; else 0
) = range(GEOMETRY, GEOMETRY + 43)
FIELDS = 43

#: What the `w` argument points to: spectra of all weights (unless tasks transform them), the kernel that makes them,
#: weights as given, those of the probes, the report, the largest loads of each sample so far (outputs, probes).
(W_SPECTRA, W_TRANSFORM, W_PLAIN, W_PLAIN_PROBES, W_REPORT, W_LOUDEST) = range(6)
#: Outputs of each group that are computed for the guard alone, with signs of the channels' weights drawn at random:
#: where all outputs cancel over the channels, sums say nothing of the magnitudes that went into them.
PROBES = 4
#: A task reports of its outputs and of its probes (zeros if it has none): the largest load of a tile, and of the same
#: tile ``sum |w| |x|`` and an error (`winograd_guard`).
REPORT_ROWS, REPORT_FIELDS = 2, 3

#: What `open_task` works out, at the start of the worker's scratch memory.
(
    SAMPLE,
    GROUP,
    FIRST_BLOCK,
    LAST_BLOCK,
    FIRST_LINE,  # or, where lines share samples, the number of all of them within their depths
    FIRST_DEPTH,  # in that case
    TASK_LINE_COUNT,
    FIRST_TILE,
    LINE_TILES,
    FIRST_COLUMN,
    STRIPS,
    PAIR_STRIPS,  # with tiles of `PAIR_LINES`: the first ones
    VECTORS,
) = range(13)
STATE_FIELDS = 13


@helper
def first_output(tile, step, outputs):
    """Where the outputs of a tile begin along an axis; they are `step` apart."""
    return tile // step * outputs * step + tile % step


@helper
def open_lines(params, state, block):
    """The lines of a task, by its number among those that share the lines of a sample."""
    most = load_i64(params, TASK_LINES)
    if load_i64(params, IS_SHARED) == 0:
        first = block * most
        store_i64(state, FIRST_LINE, first)
        store_i64(state, TASK_LINE_COUNT, min(load_i64(params, LINES) - first, most))
        return
    step, long_runs, blocks = load_i64(params, DD), load_i64(params, LONG_RUNS), load_i64(params, LONG_BLOCKS)
    depth_blocks = long_runs * blocks + (step - long_runs) * load_i64(params, SHORT_BLOCKS)
    store_i64(state, FIRST_LINE, block // depth_blocks)
    block, phase = block % depth_blocks, 0
    if block >= long_runs * blocks:
        block, phase, blocks = block - long_runs * blocks, long_runs, load_i64(params, SHORT_BLOCKS)
    phase, first = phase + block // blocks, block % blocks * most
    store_i64(state, FIRST_DEPTH, phase + first * step)
    lines = (load_i64(params, OD) - phase + step - 1) // step
    store_i64(state, TASK_LINE_COUNT, min(lines - first, most))


@helper
def line_at(params, state, index):
    """Depth of a line of the task, and its number within this depth."""
    first = load_i64(state, FIRST_LINE)
    if load_i64(params, IS_SHARED) != 0:
        return load_i64(state, FIRST_DEPTH) + index * load_i64(params, DD), first
    lines = load_i64(params, PLANE_LINES)
    return (first + index) // lines, (first + index) % lines


@helper
def panel_width(params, state):
    """Lines of one channel that the panel holds: those of the task, and what further taps see if they share them."""
    more = load_i64(params, KD) - 1 if load_i64(params, IS_SHARED) != 0 else 0
    return load_i64(state, TASK_LINE_COUNT) + more


@helper
def pair_lines(params, state):
    """Lines of the task up to the last one whose phases have more than one sample; all if it has several planes."""
    count, first, lines = load_i64(state, TASK_LINE_COUNT), load_i64(state, FIRST_LINE), load_i64(params, PLANE_LINES)
    left = load_i64(params, PAIR_LINES) - first % lines
    if load_i64(params, IS_SHARED) != 0:
        return count if left > 0 else 0
    return count if first % lines + count > lines else min(max(left, 0), count)


@helper
def open_task(params, state, task, width, lanes, width_outputs):
    """Decode a task."""
    rest, line_blocks, chunks = task, load_i64(params, LINE_BLOCKS), load_i64(params, CHUNKS)
    line_block, rest = rest % line_blocks, rest // line_blocks
    chunk, rest = rest % chunks, rest // chunks
    blocks, task_blocks = load_i64(params, GROUP_BLOCKS), load_i64(params, TASK_BLOCKS)
    out_chunks = (blocks + task_blocks - 1) // task_blocks
    first_block, rest = rest % out_chunks * task_blocks, rest // out_chunks
    groups = load_i64(params, GROUPS)
    store_i64(state, GROUP, rest % groups)
    store_i64(state, SAMPLE, rest // groups)
    store_i64(state, FIRST_BLOCK, first_block)
    store_i64(state, LAST_BLOCK, min(first_block + task_blocks, blocks))
    open_lines(params, state, line_block)
    step, most, parts = load_i64(params, COLUMN_STEP), load_i64(params, CHUNK), load_i64(params, RUN_CHUNKS)
    first = chunk * most
    last = first + most
    if parts > 0:
        first = chunk // parts * step + chunk % parts * most
        last = min(first + most, (chunk // parts + 1) * step)
    tiles = min(last, load_i64(params, TILES)) - first
    store_i64(state, FIRST_TILE, first)
    store_i64(state, LINE_TILES, tiles)
    store_i64(state, FIRST_COLUMN, first_output(first, step, width_outputs))
    vectors = (load_i64(state, TASK_LINE_COUNT) * tiles + lanes - 1) // lanes
    store_i64(state, VECTORS, vectors)
    store_i64(state, STRIPS, (vectors + width - 1) // width)
    strip = width * lanes
    store_i64(state, PAIR_STRIPS, (pair_lines(params, state) * tiles + strip - 1) // strip)


def packing_bytes(params: np.ndarray, kind: str, vector_bytes: int) -> int:
    """Scratch memory in which weights of one block and part are put in order before they are transformed."""
    rows, _ = tile_shape(vector_bytes)
    terms = int(params[PART] * params[KD] * params[KH] * params[KW])
    return (lanes_of(kind, vector_bytes) + terms) * rows * (int(kind[1:]) // 8)


def scratch_layout(params: np.ndarray, kind: str, vector_bytes: int, height_form: int, width_form: int) -> int:
    """Write pitches and the byte offsets of the scratch memory's parts into `params`; returns its size per worker."""
    rows, width = tile_shape(vector_bytes)
    lanes, size = lanes_of(kind, vector_bytes), int(kind[1:]) // 8
    strip = width * lanes
    is_exact = int(params[GROUP_IN] * params[KD]) > PLAIN_TERMS
    height_samples, width_samples = SAMPLES[height_form], SAMPLES[width_form]
    frequencies, width_outputs = height_samples * width_samples, OUTPUTS[width_form]
    chunk, step = int(params[CHUNK]), int(params[COLUMN_STEP])
    tiles = int(params[TASK_LINES]) * chunk
    strips, whole = -(-tiles // strip), -(-tiles // lanes) * lanes
    is_apart = width_form == 1 or int(params[RUN_CHUNKS]) > 0
    pieces = width_samples if is_apart else 1
    runs = -(-chunk // step)
    # Side by side, a row holds all samples of its tiles; some of its last vectors reach beyond.
    piece = chunk if is_apart else (width_outputs * runs + width_samples - width_outputs) * step
    piece_pitch = (-(-piece // lanes) + 2 * width_outputs + 1) * ALIGNMENT * (lanes * size) // ALIGNMENT
    params[PIECES], params[PIECE], params[PIECE_PITCH] = pieces, piece, piece_pitch
    params[ROW_PITCH] = pieces * piece_pitch
    # Many cache lines are an odd number, so that neighbouring channels do not compete for the same part of L1.
    depths = int(params[KD])
    taps, more = (1, depths - 1) if params[IS_SHARED] else (depths, 0)  # as in `panel_width`
    pitch = -(-(whole + more * chunk + 2 * lanes) * size // ALIGNMENT)
    params[PITCH] = (pitch if pitch <= 4 else pitch | 1) * ALIGNMENT
    terms, tables = int(params[PART]) * taps, int(params[TASK_LINES]) + more
    sums = frequencies * ((int(params[TASK_BLOCKS]) + 1) * rows * whole * size + ALIGNMENT)
    # So are those from one frequency of a spectrum to the next one: a transform writes to all of them in turn.
    spectrum_step = (-(-int(params[PART]) * depths * rows * size // ALIGNMENT) | 1) * ALIGNMENT
    params[SPECTRUM_STEP], params[SPECTRUM] = spectrum_step, frequencies * spectrum_step
    lazy = int(params[LAZY_BLOCKS])
    params[ERRORS] = sums if is_exact else 0
    parts = (
        (None, STATE_FIELDS * 8),
        (PANEL, frequencies * (terms * int(params[PITCH]) + ALIGNMENT)),
        (SPECTRA, (lazy + 1) * int(params[SPECTRUM]) if lazy else 0),
        (PACKING, packing_bytes(params, kind, vector_bytes) if lazy else 0),
        (SUMS, 2 * sums if is_exact else sums),
        (ROWS, height_samples * int(params[ROW_PITCH])),
        (ROW_TABLES, tables * height_samples * 8),
        (COPY_TABLE, height_samples * 8),
        (LINES_AT, height_samples * int(params[ROW_PITCH])),
        (ZEROS, int(params[ROW_PITCH])),
        (COLUMNS, pieces * piece * 8),
        (OUTPUTS_AT, (OUTPUTS[height_form] * width_outputs * strips * strip + lanes) * size),
        (LOADS, strips * strip * size),
        (JOINED, width_outputs * ((runs + 1) * min(step, chunk) + 2 * lanes) * size),
    )
    return lay_out(params, parts)
