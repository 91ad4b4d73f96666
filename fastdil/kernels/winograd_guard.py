"""What a task of `fastdil.kernels.winograd` reports, so that data on which it errs too much are refused.

Outputs are differences of larger numbers. The *load* of a tile is the sum of the magnitudes that are added up to one of
its outputs; rounding errors are a small multiple of its eps. The definition allows errors in units of
``conv(|x|, |w|)``, so the largest load of a task is compared with what this is at the outputs of the same tile. Where
that does not settle it, some outputs of the tile are computed once more, one product after the other.
"""

from __future__ import annotations

import math

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
    LINE_TILES,
    ROW_STEP,
    SAMPLE,
    first_output,
    line_at,
)

#: Loads, in units of ``conv(|x|, |w|)``, that are let pass in any case: the errors of equal or alternating numbers
#: reach 2.4 eps of the load.
SURE_LOAD = 3
#: The largest load that is let pass if a look at the tile shows small errors, by whether both axes are transformed:
#: random data of 64 channels have 2 to 11, and err by 1 to 3 eps, because their errors point in all directions.
MOST_LOAD = {False: 6, True: 12}
#: Errors (rms) that the look may show, in eps times ``conv(|x|, |w|)``; random data of 64 channels have 0.2 to 1.3, and
#: 0.2 to 0.9 where both axes are transformed.
#: Of 6400 hard inputs that pass (equal, alternating, sparse, with a loud pixel, channel or tap), none errs by more than
#: 5.5 eps; of 8000 before `MOST_COHERENCE`, one by 8.5.
MOST_ERROR = {False: 1.6, True: 1.1}
#: What the largest load of the outputs may be in units of that of the probes if a look decides.
MOST_COHERENCE = 3
#: Outputs that are looked at: the last ones of a tile err most.
_LOOKED_AT = 8
#: Channels that count from which on the errors of a few outputs tell those of all: of a single loud channel, others err
#: up to 18 times more.
_LEAST_CHANNELS = 3


@intrinsic(prefer_literal=True)
def largest_of(typingctx, kind, lanes, source, count):
    """The largest of `count` neighbouring magnitudes, as a double; NaN if one is.

    Compared as integers, which order magnitudes alike, and NaN behind Inf: one instruction instead of three.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        source, count = args[2:]
        bits, numbers = Vectors(builder, f"i{kind_name[1:]}", lane_count), Vectors(builder, kind_name, 1)
        no_sign = bits.filled((1 << 8 * bits.size - 1) - 1)

        def larger(a, b):
            return builder.select(builder.icmp_signed(">", a, b), a, b)

        def body(index, carried):
            value = bits.load(bits.at(source, builder.mul(index, constant(lane_count))))
            return [larger(carried[0], builder.and_(value, no_sign))]

        whole = builder.sdiv(count, constant(lane_count))
        done = builder.mul(whole, constant(lane_count))
        rest = bits.load_masked(bits.at(source, done), bits.first_lanes(builder.sub(count, done)))
        (largest,) = counted_loop(builder, whole, [builder.and_(rest, no_sign)], body)
        half = lane_count // 2
        while half:
            order = [lane + half if lane < half else lane for lane in range(lane_count)]
            largest = larger(largest, bits.shuffle(largest, largest, order))
            half //= 2
        element = builder.bitcast(builder.extract_element(largest, I32(0)), numbers.element)
        return builder.fpext(element, Vectors(builder, "f64", 1).element) if kind_name == "f32" else element

    return returns(types.float64, (kind, lanes, source, count)), codegen


@helper
def taps_of(params):
    """Taps along all axes."""
    return load_i64(params, KD) * load_i64(params, KH) * load_i64(params, KW)


@helper
def output_at(kind, size, params, sample, weights, depth, height, width):
    """One output in double precision, its ``sum |w| |x|``, and how many channels of equal products would weigh as much.

    `weights` is the address of its first weight.
    """
    mode, channels = load_i64(params, MODE), load_i64(params, GROUP_IN)
    all_taps, heights, widths = taps_of(params), load_i64(params, KH), load_i64(params, KW)
    total, lost, magnitude, squares, taps = 0.0, 0.0, 0.0, 0.0, 0
    for tap in range(all_taps):
        position = depth + tap // (heights * widths) * load_i64(params, DD) - load_i64(params, LD)
        at_depth = source_index(position, load_i64(params, ND), mode)
        position = height + tap // widths % heights * load_i64(params, DH) - load_i64(params, LH)
        at_height = source_index(position, load_i64(params, NH), mode)
        position = width + tap % widths * load_i64(params, DW) - load_i64(params, LW)
        at_width = source_index(position, load_i64(params, NW), mode)
        if at_depth < 0 or at_height < 0 or at_width < 0:
            continue
        taps += 1
        offset = at_depth * load_i64(params, XD) + at_height * load_i64(params, XH) + at_width * load_i64(params, XW)
        at, at_weight = sample + offset * size, weights + tap * size
        for _channel in range(channels):
            product = float(load_element(kind, at)) * load_element(kind, at_weight)
            if size == 8:  # where doubles are no better than what they judge, keep what sums lose (Knuth's TwoSum)
                after = total + product
                added = after - total
                lost += (total - (after - added)) + (product - added)
                total = after
            else:
                total += product
            magnitude += abs(product)
            squares += product * product
            at += load_i64(params, XC) * size
            at_weight += all_taps * size
    return total + lost, magnitude, magnitude * magnitude / (squares * taps) if squares > 0.0 else 0.0


@helper
def look_at_tile(
    kind, size, height_outputs, width_outputs, params, state, x, weights, tile, outputs, output_step, load, most_load
):
    """The largest ``sum |w| |x|`` of one tile's outputs, or one that settles it, and the rms error of some of them.

    The error is infinite where so few channels count that others like them may err far more.

    `weights` is the address of the first weight of the output channel, `tile` the number of the tile in the task.
    `outputs` is where the results of the channel start, `output_step` bytes from one output of all tiles to the next.
    """
    channel = load_i64(state, GROUP) * load_i64(params, GROUP_IN)
    sample = x + (load_i64(state, SAMPLE) * load_i64(params, XN) + channel * load_i64(params, XC)) * size
    depth, group = line_at(params, state, tile // load_i64(state, LINE_TILES))
    step, row_step = load_i64(params, COLUMN_STEP), load_i64(params, ROW_STEP)
    row = first_output(group, row_step, height_outputs)
    place = tile % load_i64(state, LINE_TILES)
    column = load_i64(state, FIRST_COLUMN) + first_output(place, step, width_outputs)
    seen, counted, squares, looks = 0.0, 0.0, 0.0, 0
    for index in range(height_outputs * width_outputs):
        which = height_outputs * width_outputs - 1 - index
        height = row + which // width_outputs * row_step
        width = column + which % width_outputs * step
        if height >= load_i64(params, OH) or width >= load_i64(params, OW):
            continue
        value, magnitude, loud = output_at(kind, size, params, sample, weights, depth, height, width)
        if magnitude > seen:
            seen, counted = magnitude, loud
        if looks < _LOOKED_AT:
            error = load_element(kind, outputs + which * output_step + tile * size) - value
            squares += error * error  # a power would be compiled from a function of its own
            looks += 1
        if load <= SURE_LOAD * seen or (looks == _LOOKED_AT and load <= most_load * seen):
            break
    return seen, math.sqrt(squares / max(looks, 1)) if counted >= _LEAST_CHANNELS else math.inf
