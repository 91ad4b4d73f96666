"""Splitting weights and packing them in the order in which `fastdil.kernels.amx` reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.amx import REPORT_BYTES
from fastdil.kernels.amx_tasks import STEP_BYTES
from fastdil.kernels.copies import copy_run, copy_vectors, interleave_rows
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.intrinsics import load_i64
from fastdil.kernels.split import clear_extent, split_weights, write_extent
from fastdil.kernels.tile_unit import BLOCK, ROW_BYTES, STEP_TERMS, TILE_BYTES, TILE_ROWS

#: Parameters of the weight packer: output channels and input channels per group, taps, blocks of outputs per group,
#: steps of the channels that are packed together, parts of a number.
P_OUTPUTS, P_CHANNELS, P_TAPS, P_BLOCKS, P_STEPS, P_PARTS = range(6)
#: Taps that are transposed together, and scratch memory of the packer: their lines, vectors on the way there, and what
#: was seen of the weights.
_TAPS = 16
_LINES = STEP_TERMS * BLOCK * 4
_VECTORS, _EXTENT = _TAPS * _LINES, _TAPS * _LINES + TILE_BYTES
PACKER_SCRATCH = _EXTENT + 128


@helper
def stage_terms(scratch, source, present, terms, taps, row_step, channel, half):
    """Transpose terms of 16 outputs, `taps` for each channel, to lines ``[tap][channel][output]``."""
    tap = 0
    for first in range(0, terms, TILE_ROWS):
        count = min(TILE_ROWS, terms - first)
        interleave_rows(
            "f32", TILE_ROWS, TILE_ROWS, scratch + _VECTORS, source + first * 4, row_step * 4, present, count
        )  # fmt: skip
        for index in range(count):
            target = scratch + tap * _LINES + channel * BLOCK * 4 + half * ROW_BYTES
            copy_run("f32", TILE_ROWS, target, scratch + _VECTORS + index * ROW_BYTES, TILE_ROWS)
            tap += 1
            if tap == taps:
                tap, channel = 0, channel + 1


@helper
def stage_weights(scratch, source, outputs, channels, all_taps, taps, row_step):
    """Lines of up to 32 outputs by 32 channels, one per channel, for up to 16 of `all_taps` taps."""
    used = min(channels, STEP_TERMS)
    for half in range(2):
        at, present = source + half * TILE_ROWS * row_step * 4, min(outputs - half * TILE_ROWS, TILE_ROWS)
        if present <= 0:
            used = 0
        elif taps == all_taps:  # the channels' terms follow each other
            stage_terms(scratch, at, present, used * taps, taps, row_step, 0, half)
        else:
            for channel in range(used):
                stage_terms(scratch, at + channel * all_taps * 4, present, taps, taps, row_step, channel, half)
        for tap in range(taps):
            lines = scratch + tap * _LINES + half * ROW_BYTES
            copy_vectors(
                "f32", TILE_ROWS, lines + used * BLOCK * 4, BLOCK * 4, scratch, 0, STEP_TERMS - used, 0
            )  # fmt: skip


@helper
def split_tap(parts, source, target, extent):
    """`split_weights`, for a number of parts that is not known at compile time."""
    if parts == 1:
        split_weights(1, source, target, extent)
    elif parts == 2:
        split_weights(2, source, target, extent)
    else:
        split_weights(3, source, target, extent)


def _make_weight_packer(name: str) -> Any:
    stamp = jit.source_stamp()

    def pack_amx_weights(params, x, w, bias, out, scratch, task):
        """Task = one block of outputs of one group: out[group][steps of channels][block][tap][step]; report at `x`."""
        stamp  # noqa: B018 - a closure cell in the cache key
        outputs, channels, taps = load_i64(params, P_OUTPUTS), load_i64(params, P_CHANNELS), load_i64(params, P_TAPS)
        blocks, at_once, parts = load_i64(params, P_BLOCKS), load_i64(params, P_STEPS), load_i64(params, P_PARTS)
        group, block = task // blocks, task % blocks
        all_steps, row_step, first = (channels + STEP_TERMS - 1) // STEP_TERMS, channels * taps, block * BLOCK
        source = w + (group * outputs + first) * row_step * 4
        clear_extent(scratch + _EXTENT)
        for begin in range(0, all_steps, at_once):
            steps = min(at_once, all_steps - begin)
            target = out + ((group * all_steps + begin) * blocks + block * steps) * taps * parts * STEP_BYTES
            for step in range(steps):
                channel = (begin + step) * STEP_TERMS
                for tap in range(0, taps, _TAPS):
                    count = min(_TAPS, taps - tap)
                    at = source + (channel * taps + tap) * 4
                    stage_weights(scratch, at, outputs - first, channels - channel, taps, count, row_step)
                    for index in range(count):
                        to = target + ((tap + index) * steps + step) * parts * STEP_BYTES
                        split_tap(parts, scratch + index * _LINES, to, scratch + _EXTENT)
        write_extent(scratch + _EXTENT, x + task * REPORT_BYTES)

    return jit.callback(pack_amx_weights, name, KERNEL_ARGUMENTS)


@cache
def weight_packer() -> Any:
    """The kernel that splits weights and packs them in blocks of 32 outputs."""
    return _make_weight_packer("pack_amx_weights_f32")
