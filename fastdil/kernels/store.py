"""Storing finished tiles: bias, activation, and the way from tile rows to rows of the result."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.finish import finish_complex_row, finish_row, finish_strips
from fastdil.kernels.geometry import ACTIVATE, OUT_PIXELS, RELU
from fastdil.kernels.intrinsics import call_on_row, load_i64


@helper
def store_tile(kind, lanes, size, unit, params, tile, tile_line, outputs, first_channel, bias, out, runs):
    """Bias, activation and store of the first `outputs` rows of a finished tile.

    `runs` lists how many runs of neighbouring outputs the tile holds, then each run's first pixel in the tile, its
    length, and its place in the channel that starts at `out`. `tile_line` is the tile's row length in bytes.
    """
    activate, relu = load_i64(params, ACTIVATE), load_i64(params, RELU)
    channel_bytes = load_i64(params, OUT_PIXELS) * unit * size
    for index in range(outputs):
        channel = out + index * channel_bytes
        shift = bias + (first_channel + index) * unit * size if bias != 0 else 0
        part = tile + index * unit * tile_line
        for run in range(load_i64(runs, 0)):
            begin = part + load_i64(runs, 1 + run * 3) * unit * size
            count = load_i64(runs, 2 + run * 3) * unit
            target = channel + load_i64(runs, 3 + run * 3) * unit * size
            if unit == 2:
                finish_complex_row(kind, lanes, target, begin, begin + tile_line, count, shift)
            else:
                finish_row(kind, lanes, target, begin, count, shift, relu)
            if activate != 0:
                call_on_row(activate, target, count)


@helper
def neighbouring_strips(runs, record, first, last, pixels):
    """How many of the strips first..last, from the first on, are whole and follow each other in the result."""
    place = load_i64(runs + first * record, 3)
    for strip in range(first, last):
        at = runs + strip * record
        if load_i64(at, 0) != 1 or load_i64(at, 2) != pixels or load_i64(at, 3) != place:
            return strip - first
        place += pixels
    return last - first


@helper
def store_strips(kind, lanes, width, size, params, tile, tile_step, strips, outputs, first_channel, bias, out):
    """`store_tile` for `strips` whole tiles of real outputs that follow each other from `out` on."""
    activate, relu = load_i64(params, ACTIVATE), load_i64(params, RELU)
    line = width * lanes * size
    for index in range(outputs):
        target = out + index * load_i64(params, OUT_PIXELS) * size
        shift = bias + (first_channel + index) * size if bias != 0 else 0
        finish_strips(kind, lanes, width, target, tile + index * line, tile_step, strips, shift, relu)
        if activate != 0:
            call_on_row(activate, target, strips * width * lanes)
