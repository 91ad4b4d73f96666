"""One to a few samples of a causal convolution at a time: the compiled part of `fastdil.streaming`.

The vectors of a tile run over output channels, because a single sample offers nothing else to run over; samples are
broadcast. That is `chain_tile` with its arguments exchanged. The terms of a sum come in the order, and in the chains,
that a table lists: the table is written so that every sum has the bits that the offline methods give it.

The past lies in a ring, one position after the other, the channels of a position side by side: a step writes one
position and reads the `taps` positions it needs, whatever lies between them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import copy_vectors
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.finish import finish_row
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.intrinsics import call_on_row, load_element, load_i64, store_element, store_i64
from fastdil.kernels.tiles import chain_tile
from fastdil.kernels.totals import merge_tile, settle_tile

#: What the kernel is told; addresses and strides are in bytes.
(
    BATCH, CHANNELS, RING_LENGTH, POSITION,  # positions of the ring, and where the next sample goes
    TAPS, DILATION, GROUPS, GROUP_IN, GROUP_OUT,
    TERMS, RUNS, CHAINS, IS_LONG, BLOCKS,  # terms per sum; runs and chains they come in; blocks of outputs per group
    RELU, ACTIVATE,
    XN, XC, XL, YN, YC, YL,  # strides of the chunk and of the result
    RUN_TABLE, CHAIN_TABLE, RING, WEIGHTS, BIAS,
    ONES, PANEL, PLACES, TILE, ROW,  # addresses of a vector of ones, and of scratch memory
) = range(32)  # fmt: skip
FIELDS = 32

#: Entries of the tables. A run is some neighbouring channels of one tap, and which terms they
#: are: the first, and the step from one to the next. A chain is so many terms; `resume` says if
#: it is added to the tile; `merge` is -1, or whether the total that the tile is then merged into has a value (0: no).
RUN_FIELDS, CHAIN_FIELDS = 5, 3

#: Samples per register tile in a chunk.
CHUNK_PIXELS = 4
#: Samples of one task; a ring has room for them beside the history.
PIECE = 64


def tile_width(rows: int, vector_bytes: int, unit: int, lanes: int) -> int:
    """Vectors of one block of packed weights: as many as `rows` real output rows fill, up to 8 (complex: 2)."""
    most = 2 if unit == 2 else 8 if vector_bytes == 64 else 4
    needed = -(-rows // lanes)
    return next((width for width in (1, 2, 4) if needed <= width <= most), most)


@helper
def write_ring(kind, size, unit, params, x, count):
    """Copy `count` samples of every channel to the ring."""
    channels, length = load_i64(params, CHANNELS), load_i64(params, RING_LENGTH)
    ring, position = load_i64(params, RING), load_i64(params, POSITION)
    for sample in range(load_i64(params, BATCH)):
        for index in range(count):
            place = position + index
            place = place - length if place >= length else place
            target = ring + (sample * length + place) * channels * unit * size
            source = x + sample * load_i64(params, XN) + index * load_i64(params, XL)
            copy_vectors(
                kind, unit, target, unit * size, source, load_i64(params, XC), channels, (1 << unit) - 1
            )  # fmt: skip


@helper
def fill_places(size, unit, params, sample, index):
    """Where the samples stand that each tap reads for output `index` of the chunk."""
    length, taps = load_i64(params, RING_LENGTH), load_i64(params, TAPS)
    bytes_each = load_i64(params, CHANNELS) * unit * size
    first = load_i64(params, RING) + sample * length * bytes_each
    places, dilation = load_i64(params, PLACES), load_i64(params, DILATION)
    place = load_i64(params, POSITION) + index - (taps - 1) * dilation
    place = place + length if place < 0 else place
    for tap in range(taps):
        place = place - length if place >= length else place
        store_i64(places, tap, first + place * bytes_each)
        place += dilation


@helper
def pack_samples(kind, size, unit, pixels, params, group, pixel):
    """Lay out the samples of one output in the order of its terms, as number `pixel` of `pixels` per term."""
    runs, places = load_i64(params, RUN_TABLE), load_i64(params, PLACES)
    shift = group * load_i64(params, GROUP_IN)
    target = load_i64(params, PANEL) + pixel * unit * size
    step = pixels * unit * size
    for run in range(load_i64(params, RUNS)):
        tap, channel = load_i64(runs, run * RUN_FIELDS), load_i64(runs, run * RUN_FIELDS + 1)
        count = load_i64(runs, run * RUN_FIELDS + 2)
        source = load_i64(places, tap) + (shift + channel) * unit * size
        first, move = load_i64(runs, run * RUN_FIELDS + 3), load_i64(runs, run * RUN_FIELDS + 4)
        copy_vectors(
            kind, unit, target + first * step, move * step, source, unit * size, count, (1 << unit) - 1
        )  # fmt: skip


@helper
def sum_tile(kind, lanes, size, rows, width, stride, params, weights, tile):
    """All chains of one tile; returns the address of the sums."""
    chains, line, tile_bytes = load_i64(params, CHAIN_TABLE), stride * lanes * size, rows * width * lanes * size
    panel, total = load_i64(params, PANEL), tile + tile_bytes
    for chain in range(load_i64(params, CHAINS)):
        terms = load_i64(chains, chain * CHAIN_FIELDS)
        resume, merge = load_i64(chains, chain * CHAIN_FIELDS + 1), load_i64(chains, chain * CHAIN_FIELDS + 2)
        chain_tile(kind, lanes, rows, width, stride, panel, terms, weights, tile, resume)
        panel += terms * rows * size
        weights += terms * line
        if merge >= 0:
            merge_tile(kind, lanes, tile, total, total + tile_bytes, rows * width, merge)
    if load_i64(params, IS_LONG) == 0:
        return tile
    settle_tile(kind, lanes, total, total + tile_bytes, rows * width)
    return total


@helper
def combine_complex(kind, size, row, by_real, by_imaginary, half, outputs, bias):
    """Complex outputs from the sums with the real parts of the samples, and with their imaginary parts.

    Each holds `half` sums with real parts of weights, then as many with imaginary parts. Like `finish_complex_row`,
    every step is rounded to the element kind.
    """
    for index in range(outputs):
        at = row + 2 * index * size
        here, there = index * size, (half + index) * size
        store_element(kind, at, load_element(kind, by_real + here) - load_element(kind, by_imaginary + there))
        store_element(kind, at + size, load_element(kind, by_imaginary + here) + load_element(kind, by_real + there))
        for part in range(2):
            shift = load_element(kind, bias + (2 * index + part) * size) if bias != 0 else 0.0
            store_element(kind, at + part * size, load_element(kind, at + part * size) + shift)


@helper
def store_pixel(kind, float_kind, lanes, size, unit, width, params, sums, outputs, bias, target):
    """Activation and store of one sample of some output channels; `sums` is its row of the tile (complex: two)."""
    row, line = load_i64(params, ROW), width * lanes * size
    if unit == 2:
        combine_complex(float_kind, size, row, sums, sums + line, width * lanes // 2, outputs, bias)
    else:
        finish_row(kind, lanes, row, sums, outputs, 0, load_i64(params, RELU))
    if load_i64(params, ACTIVATE) != 0:
        call_on_row(load_i64(params, ACTIVATE), row, outputs)
    copy_vectors(kind, unit, target, load_i64(params, YC), row, unit * size, outputs, (1 << unit) - 1)


@helper
def run_block(kind, float_kind, lanes, size, unit, rows, stride, width, params, group, block, used, y):
    """All outputs of one block of packed weights, for the samples in the panel; `y` is their place in channel 0."""
    group_out = load_i64(params, GROUP_OUT)
    tile, ones = load_i64(params, TILE), load_i64(params, ONES)
    step, each = stride * lanes // unit, width * lanes // unit
    index = group * load_i64(params, BLOCKS) + block
    weights = load_i64(params, WEIGHTS) + index * load_i64(params, TERMS) * stride * lanes * size
    for part in range(stride // width):
        first = block * step + part * each
        outputs = min(each, group_out - first)
        if outputs > 0:
            shift = part * width * lanes * size
            sums = sum_tile(kind, lanes, size, rows, width, stride, params, weights + shift, tile)
            bias = load_i64(params, BIAS)
            channel = group * group_out + first
            if unit == 1:
                # One more chain, of a single term: the bias (or zero) times one.
                at = bias + index * stride * lanes * size + shift
                chain_tile(kind, lanes, rows, width, stride, ones, 1, at, sums, 1)
            elif bias != 0:
                bias += channel * 2 * size
            for pixel in range(used):
                row = sums + pixel * unit * width * lanes * size
                target = y + channel * load_i64(params, YC) + pixel * load_i64(params, YL)
                store_pixel(kind, float_kind, lanes, size, unit, width, params, row, outputs, bias, target)


@cache
def stream_kernel(kind: str, vector_bytes: int, unit: int, pixels: int, stride: int) -> Any:
    """The kernel that takes `pixels` samples at a time; what others take for weights is the number of samples."""
    lanes, size, stamp = lanes_of(kind, vector_bytes), int(kind[1:]) // 8, jit.source_stamp()
    rows, most = pixels * unit, 16 if vector_bytes == 64 else 8  # samples per term; accumulators
    width = min(stride, most // pixels) if unit == 1 else stride
    float_kind = kind if kind[0] == "f" else "f64"  # complex numbers only; the branch is compiled for all

    def stream(params, x, samples, unused, y, scratch, task):
        """Task = a piece of the chunk; one after the other, as each finds the ring as the one before it left it."""
        stamp  # noqa: B018 - a closure cell in the cache key
        first = task * PIECE
        count = min(PIECE, samples - first)
        x += first * load_i64(params, XL)
        y += first * load_i64(params, YL)
        write_ring(kind, size, unit, params, x, count)
        for sample in range(load_i64(params, BATCH)):
            for index in range(0, count, pixels):
                used = min(pixels, count - index)
                target = y + sample * load_i64(params, YN) + index * load_i64(params, YL)
                for group in range(load_i64(params, GROUPS)):
                    for pixel in range(pixels):
                        # Beyond the chunk the last sample is computed again, and not stored.
                        if group == 0 or pixels > 1:
                            fill_places(size, unit, params, sample, index + min(pixel, used - 1))
                        pack_samples(kind, size, unit, pixels, params, group, pixel)
                    for block in range(load_i64(params, BLOCKS)):
                        run_block(
                            kind, float_kind, lanes, size, unit, rows, stride, width, params, group, block, used,
                            target,
                        )  # fmt: skip
        position = load_i64(params, POSITION) + count
        length = load_i64(params, RING_LENGTH)
        store_i64(params, POSITION, position - length if position >= length else position)

    name = f"stream_{kind}_{pixels}x{stride * lanes}_{'complex' if unit == 2 else 'real'}_{8 * vector_bytes}bit"
    return jit.callback(stream, name, KERNEL_ARGUMENTS)
