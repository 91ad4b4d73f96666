"""The weights of `fft` transformed, in double precision, into the order in which its kernel mixes channels.

A *line* is one row of taps of one input channel for a tile of outputs: as many sequences as the tile has outputs, side
by side in the packed spectra. One task takes as many lines as fill the lanes of a vector.

Two real sequences could be the real and imaginary parts of one transform, as samples are, at half the work. But then
each spectrum errs relative to the larger of the two, and faint weights may be those that the loudest samples meet.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from fastdil import jit
from fastdil.kernels.copies import fill_zeros
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.intrinsics import call_with_table, load_element, load_i64, store_element, store_i64
from fastdil.kernels.vectors import Vectors, counted_loop, literals, returns

(
    LENGTH, FREQUENCIES, STEPS, PLACES, FORWARD,  # points, results; addresses of tables and of the transform
    LINES, TILES, DEPTHS, HEIGHTS, CHANNELS, TAPS,  # lines of all groups; tiles of one; taps along the width
    OUTPUTS, TILE_ROWS, NUMBERS,  # outputs and rows of a group's tiles; its complex numbers at one frequency
    TARGETS,  # byte offset in the scratch memory; the points of the transform come first
) = range(15)  # fmt: skip
FIELDS = 15


def batch_lines(vector_bytes: int, width: int) -> int:
    """Lines of one task, for tiles of `width` outputs."""
    return lanes_of("f64", vector_bytes) // width


@intrinsic(prefer_literal=True)
def store_spectra(typingctx, kind, lanes, width, data, length, places, count, targets, shift, step):
    """Write the transforms of all lanes, as conjugates divided by `length`.

    `places` lists the byte offsets of the first `count` frequencies in `data`. Line i of `width` sequences goes to
    `shift` bytes behind the address that is number i of `targets`, and `step` bytes further on for each frequency.
    """
    kind_name, lane_count, sequences = literals(kind, lanes, width)

    def codegen(context, builder, signature, args):
        data, length, places, count, targets, shift, step = args[3:]
        doubles, results = Vectors(builder, "f64", lane_count), Vectors(builder, kind_name, 2 * sequences)
        integers, rounded = Vectors(builder, "i64", 1), Vectors(builder, kind_name, lane_count)
        scale = builder.fdiv(doubles.filled(1.0), doubles.splat(builder.sitofp(length, doubles.element)))
        starts = [integers.load_scalar(integers.at(targets, i)) for i in range(lane_count // sequences)]

        def scaled(address, factor):
            value = builder.fmul(doubles.load(address), factor)
            return builder.fptrunc(value, rounded.type) if kind_name == "f32" else value

        def body(index, carried):
            place, to = carried
            at = builder.add(data, integers.load_scalar(place))
            parts = scaled(at, scale), scaled(doubles.at(at, lane_count), builder.fneg(scale))
            for i, start in enumerate(starts):
                order = [i * sequences + j + part * lane_count for j in range(sequences) for part in range(2)]
                results.store(rounded.shuffle(*parts, order), builder.add(start, to))
            return [integers.at(place, 1), builder.add(to, step)]

        counted_loop(builder, count, [places, shift], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, width, data, length, places, count, targets, shift, step)
    return returns(types.void, arguments), codegen


def _make_kernel(kind: str, lanes: int, width: int, name: str) -> Any:
    stamp, size = jit.source_stamp(), int(kind[1:]) // 8
    batch, point = lanes // width, 2 * lanes * 8

    def weight_spectra(params, x, w, bias, out, scratch, task):
        """Task = one batch of lines: ``out[group][frequency][tile][depth][row][channel][row of the tile][output]``."""
        stamp  # noqa: B018 - a closure cell in the cache key
        length, count, taps = load_i64(params, LENGTH), load_i64(params, FREQUENCIES), load_i64(params, TAPS)
        tiles, depths, heights = load_i64(params, TILES), load_i64(params, DEPTHS), load_i64(params, HEIGHTS)
        channels, outputs, rows = load_i64(params, CHANNELS), load_i64(params, OUTPUTS), load_i64(params, TILE_ROWS)
        targets, step = scratch + load_i64(params, TARGETS), load_i64(params, NUMBERS) * 2 * size
        fill_zeros("f64", lanes, scratch, 2 * length)
        for index in range(batch):
            line = min(task * batch + index, load_i64(params, LINES) - 1)  # after the last line, that one again
            channel, row = line % channels, line // channels
            height, plane = row % heights, row // heights
            depth, place = plane % depths, plane // depths
            tile, group = place % tiles, place // tiles
            for output in range(min(width, outputs - tile * width)):
                sequence = (group * outputs + tile * width + output) * channels + channel
                source = w + ((sequence * depths + depth) * heights + height) * taps * size
                at = scratch + (index * width + output) * 8
                for tap in range(taps):
                    store_element("f64", at + tap * point, load_element(kind, source + tap * size))
            place = ((tile * depths + depth) * (heights + rows - 1) + height) * channels + channel
            store_i64(targets, index, out + group * count * step + place * rows * width * 2 * size)
        call_with_table(load_i64(params, FORWARD), scratch, load_i64(params, STEPS))
        for row in range(rows):
            shift = row * (channels * rows + 1) * width * 2 * size
            store_spectra(
                kind, lanes, width, scratch, length, load_i64(params, PLACES), count, targets, shift, step
            )  # fmt: skip

    return jit.callback(weight_spectra, name, KERNEL_ARGUMENTS)


@cache
def spectra_kernel(kind: str, vector_bytes: int, width: int) -> Any:
    """The compiled kernel for weights of one element kind, vectors of doubles and tiles of `width` outputs."""
    name = f"weight_spectra_{kind}_{width}_{8 * vector_bytes}bit"
    return _make_kernel(kind, lanes_of("f64", vector_bytes), width, name)
