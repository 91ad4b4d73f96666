"""The products of `fastdil.kernels.winograd`: samples of a task with the weights of its outputs, at all frequencies."""

from __future__ import annotations

from fastdil.jit import helper
from fastdil.kernels.geometry import GROUP_IN, KD
from fastdil.kernels.intrinsics import call_kernel, load_i64
from fastdil.kernels.winograd_samples import clear
from fastdil.kernels.winograd_tasks import (
    ERRORS,
    FIRST_BLOCK,
    GROUP,
    GROUP_BLOCKS,
    IS_BY_TAP,
    IS_SHARED,
    LAST_BLOCK,
    LAZY_BLOCKS,
    LINE_TILES,
    PACKING,
    PAIR_STRIPS,
    PANEL,
    PART,
    PITCH,
    SPECTRA,
    SPECTRUM,
    SPECTRUM_STEP,
    STRIPS,
    SUMS,
    VECTORS,
    W_SPECTRA,
    W_TRANSFORM,
)
from fastdil.kernels.winograd_tiles import frequency_tile


@helper
def multiply_tile(
    kind, lanes, rows, width, chain, used, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume, is_half
):  # fmt: skip
    """One tile; the last strip may use fewer than `width` vectors."""
    if used == width:
        frequency_tile(
            kind, lanes, rows, width, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume, is_half
        )
    elif width > 2 and used == 2:
        frequency_tile(
            kind, lanes, rows, 2, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume, is_half
        )
    else:
        frequency_tile(
            kind, lanes, rows, 1, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume, is_half
        )


@helper
def multiply_blocks(
    kind, lanes, rows, width, size, frequencies, chain, params, state, scratch, first, last, weights, probes, channels,
    resume, frequency_step, sums_step,
):  # fmt: skip
    """Multiply the panel with the weights of some blocks of outputs, at all frequencies.

    `weights` is where their spectra begin, `probes` the probes' (0: without them), which count as the block behind.
    One frequency after the other, and at each all outputs of a strip before the next one: its samples stay in L1.

    Where phases along the height may have a single sample between zeros (F(2,2)), only the second third of frequencies
    sees it, or goes to an output that exists: the sums of strips with no other tiles are zero at the others.
    """
    strip_bytes, tile_bytes, row_bytes = width * lanes * size, rows * width * lanes * size, rows * size
    depths, pitch = load_i64(params, KD), load_i64(params, PITCH)
    spectrum, spectrum_step = load_i64(params, SPECTRUM), load_i64(params, SPECTRUM_STEP)
    taps, terms, tap_step = 1, channels * depths, 0
    if load_i64(params, IS_BY_TAP) != 0:
        is_shared = load_i64(params, IS_SHARED) != 0
        taps, terms, tap_step = depths, channels, load_i64(state, LINE_TILES) * size if is_shared else channels * pitch
    panel, vectors, errors = scratch + load_i64(params, PANEL), load_i64(state, VECTORS), load_i64(params, ERRORS)
    block_bytes = vectors * lanes * row_bytes
    first_sums = scratch + load_i64(params, SUMS) + (first - load_i64(state, FIRST_BLOCK)) * block_bytes
    for frequency in range(frequencies):
        full = load_i64(state, STRIPS if frequency * 3 // frequencies == 1 else PAIR_STRIPS)
        for strip in range(load_i64(state, STRIPS)):
            used = min(width, vectors - strip * width)
            for block in range(last - first + (1 if probes != 0 else 0)):
                at, is_probe = weights + block * spectrum, 0
                if block == last - first:
                    at, is_probe = probes, 1
                sums = first_sums + block * block_bytes + strip * tile_bytes
                if strip < full:
                    multiply_tile(
                        kind, lanes, rows, width, chain, used, at + frequency * spectrum_step,
                        panel + strip * strip_bytes, taps, tap_step, terms, pitch, sums,
                        sums + errors if errors > 0 else 0, resume, is_probe,
                    )  # fmt: skip
                elif resume == 0:
                    clear(kind, lanes, sums, rows * used * lanes)
                    if errors > 0:
                        clear(kind, lanes, sums + errors, rows * used * lanes)
        panel += frequency_step
        first_sums += sums_step


@helper
def multiply_part(
    kind, lanes, rows, width, size, frequencies, chain, params, state, scratch, w, first_channel, channels,
    frequency_step, sums_step,
):  # fmt: skip
    """Multiply the panel with the weights of all outputs of the task, transforming them unless they are.

    The task that has the first outputs multiplies with the probes too.
    """
    first, last, spectrum = load_i64(state, FIRST_BLOCK), load_i64(state, LAST_BLOCK), load_i64(params, SPECTRUM)
    blocks, part = load_i64(params, GROUP_BLOCKS), load_i64(params, PART)
    parts = (load_i64(params, GROUP_IN) + part - 1) // part
    number = (load_i64(state, GROUP) * parts + first_channel // part) * (blocks + 1)  # of the first spectrum
    weights, lazy = load_i64(w, W_SPECTRA) + (number + first) * spectrum, load_i64(params, LAZY_BLOCKS)
    probes = load_i64(w, W_SPECTRA) + (number + blocks) * spectrum
    at_once = lazy if lazy > 0 else last - first
    for begin in range(first, last, at_once):
        end = min(begin + at_once, last)
        has_probes = first == 0 and end == last
        if lazy > 0:
            weights = scratch + load_i64(params, SPECTRA)
            probes = weights + (end - begin) * spectrum
            for index in range(end - begin + (1 if has_probes else 0)):
                made = number + (begin + index if begin + index < end else blocks)
                call_kernel(
                    load_i64(w, W_TRANSFORM), params, 0, w, 0, weights + (index - made) * spectrum,
                    scratch + load_i64(params, PACKING), made,
                )  # fmt: skip
        multiply_blocks(
            kind, lanes, rows, width, size, frequencies, chain, params, state, scratch, begin, end, weights,
            probes if has_probes else 0, channels, min(first_channel, 1), frequency_step, sums_step,
        )  # fmt: skip
