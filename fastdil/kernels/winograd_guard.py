"""What a task of `fastdil.kernels.winograd` reports, so that data on which it errs too much are refused.

Outputs are differences of larger numbers. The *load* of a tile is the sum of the magnitudes that are added up to one of
its outputs; rounding errors are a small multiple of its eps. The definition allows errors in units of
``conv(|x|, |w|)``, so the largest load of a task is compared with what this is at the outputs of the same tile.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.geometry import (
    DD,
    DH,
    DW,
    GROUP_IN,
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
    OH,
    OW,
    XC,
    XD,
    XH,
    XN,
    XW,
    source_index,
)
from fastdil.kernels.intrinsics import load_element, load_i64
from fastdil.kernels.vectors import I32, Vectors, constant, counted_loop, literals, returns
from fastdil.kernels.winograd_tasks import (
    COLUMN_STEP,
    FIRST_COLUMN,
    GROUP,
    GROUP_BLOCKS,
    LINE_TILES,
    ROW_STEP,
    SAMPLE,
    first_output,
    line_at,
)

#: The largest load that is let pass, in units of ``conv(|x|, |w|)``, by whether both axes are transformed. Measured,
#: not proved: of 9200 inputs, most of equal or alternating numbers, sparse, or with a loud channel or tap, none with
#: less erred by more than 7.2 eps. Random ones of 64 channels have loads of 2 to 11, and err by 1 to 2 eps.
MOST_LOAD = {False: 6, True: 12}


@intrinsic(prefer_literal=True)
def largest_of(typingctx, kind, lanes, source, count):
    """The largest of `count` neighbouring magnitudes, as a double; NaN if one is."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        source, count = args[2:]
        vectors, doubles = Vectors(builder, kind_name, lane_count), Vectors(builder, "f64", 1)

        def body(index, carried):
            at = vectors.at(source, builder.mul(index, constant(lane_count)))
            return [vectors.maximum(carried[0], vectors.load(at))]

        whole = builder.sdiv(count, constant(lane_count))
        done = builder.mul(whole, constant(lane_count))
        rest = vectors.load_masked(vectors.at(source, done), vectors.first_lanes(builder.sub(count, done)))
        (largest,) = counted_loop(builder, whole, [rest], body)
        half = lane_count // 2
        while half:
            order = [lane + half if lane < half else lane for lane in range(lane_count)]
            largest = vectors.maximum(largest, vectors.shuffle(largest, largest, order))
            half //= 2
        element = builder.extract_element(largest, I32(0))
        return builder.fpext(element, doubles.element) if kind_name == "f32" else element

    return returns(types.float64, (kind, lanes, source, count)), codegen


@helper
def magnitude_at(kind, size, rows, params, sample, weights, depth, height, width):
    """``sum |w| |x|`` of one output; `weights` is that of its row for the first tap and channel."""
    mode, channels = load_i64(params, MODE), load_i64(params, GROUP_IN)
    depths, heights, widths = load_i64(params, KD), load_i64(params, KH), load_i64(params, KW)
    total = 0.0
    for tap in range(depths * heights * widths):
        position = depth + tap // (heights * widths) * load_i64(params, DD) - load_i64(params, LD)
        at_depth = source_index(position, load_i64(params, ND), mode)
        position = height + tap // widths % heights * load_i64(params, DH) - load_i64(params, LH)
        at_height = source_index(position, load_i64(params, NH), mode)
        position = width + tap % widths * load_i64(params, DW) - load_i64(params, LW)
        at_width = source_index(position, load_i64(params, NW), mode)
        if at_depth < 0 or at_height < 0 or at_width < 0:
            continue
        offset = at_depth * load_i64(params, XD) + at_height * load_i64(params, XH) + at_width * load_i64(params, XW)
        at, at_weight = sample + offset * size, weights + tap * channels * rows * size
        for _channel in range(channels):
            total += abs(load_element(kind, at)) * abs(load_element(kind, at_weight))
            at += load_i64(params, XC) * size
            at_weight += rows * size
    return total


@helper
def seen_by_tile(
    kind, size, rows, height_outputs, width_outputs, params, state, x, weights, output, tile, enough
):  # fmt: skip
    """The largest ``sum |w| |x|`` of one tile's outputs, or the first one that is `enough`.

    `output` is the number of the output channel in its group, `tile` that of the tile in the task, `weights` the
    address of the plain ones, ``[group][block][tap][channel][row]``.
    """
    channels = load_i64(params, GROUP_IN)
    taps = load_i64(params, KD) * load_i64(params, KH) * load_i64(params, KW)
    block = load_i64(state, GROUP) * load_i64(params, GROUP_BLOCKS) + output // rows
    at = weights + (block * taps * channels * rows + output % rows) * size
    channel = load_i64(state, GROUP) * channels
    sample = x + (load_i64(state, SAMPLE) * load_i64(params, XN) + channel * load_i64(params, XC)) * size
    depth, group = line_at(params, state, tile // load_i64(state, LINE_TILES))
    step, row_step = load_i64(params, COLUMN_STEP), load_i64(params, ROW_STEP)
    row = first_output(group, row_step, height_outputs)
    place = tile % load_i64(state, LINE_TILES)
    column = load_i64(state, FIRST_COLUMN) + first_output(place, step, width_outputs)
    seen = 0.0
    for which in range(height_outputs * width_outputs):
        height = row + which // width_outputs * row_step
        width = column + which % width_outputs * step
        if height >= load_i64(params, OH) or width >= load_i64(params, OW):
            continue
        seen = max(seen, magnitude_at(kind, size, rows, params, sample, at, depth, height, width))
        if seen >= enough:
            break
    return seen
