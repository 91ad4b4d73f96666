"""Copying channels-last samples to where neighbouring samples of a channel are neighbours in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastdil import jit
from fastdil.jit import helper
from fastdil.kernels.copies import copy_run, copy_vectors, interleave_rows
from fastdil.kernels.driver import KERNEL_ARGUMENTS
from fastdil.kernels.geometry import lanes_of
from fastdil.kernels.intrinsics import load_i64

#: Parameters: channels, which are neighbours in the source; size and stride, in elements, of the batch and three axes.
FIELDS = 9
CHANNELS, BATCH, DEPTH, HEIGHT, WIDTH, BATCH_STEP, DEPTH_STEP, HEIGHT_STEP, WIDTH_STEP = range(FIELDS)
#: Samples of a line, and channels, that are one task. Two threads that write close to each other take lines of memory
#: from each other: with 128 samples a task they were slower than one.
TASK_SAMPLES, TASK_CHANNELS = 4096, 64
#: Samples that are read for all channels of a task, so that lines of memory which channels share are read once.
_RUN = 256


@helper
def copy_block(kind, lanes, size, target, target_step, source, source_step, samples, channels, scratch):
    """Up to `lanes` samples of up to `lanes` channels; all vectors are whole if the samples are."""
    interleave_rows(kind, lanes, lanes, scratch, source, source_step, samples, channels)
    for channel in range(channels):
        to, row = target + channel * target_step, scratch + channel * lanes * size
        if samples == lanes:
            copy_run(kind, lanes, to, row, lanes)
        else:
            copy_vectors(kind, 1, to, size, row, size, samples, 1)


def _make_kernel(kind: str, size: int, lanes: int, name: str) -> Any:
    stamp = jit.source_stamp()

    def channels_first(params, x, w, bias, out, scratch, task):
        """Task = a piece of a line, for a chunk of the channels; `out` is contiguous."""
        stamp  # noqa: B018 - a closure cell in the cache key
        channels, width = load_i64(params, CHANNELS), load_i64(params, WIDTH)
        depths, heights, step = load_i64(params, DEPTH), load_i64(params, HEIGHT), load_i64(params, WIDTH_STEP) * size
        pieces, chunks = (width + TASK_SAMPLES - 1) // TASK_SAMPLES, (channels + TASK_CHANNELS - 1) // TASK_CHANNELS
        piece, chunk, line = task % pieces, task // pieces % chunks, task // pieces // chunks
        sample, depth, height = line // (depths * heights), line // heights % depths, line % heights
        source = x + size * (
            sample * load_i64(params, BATCH_STEP)
            + depth * load_i64(params, DEPTH_STEP)
            + height * load_i64(params, HEIGHT_STEP)
        )
        channel_bytes = depths * heights * width * size
        target = out + sample * channels * channel_bytes + (depth * heights + height) * width * size
        last_channel = min((chunk + 1) * TASK_CHANNELS, channels)
        for begin in range(piece * TASK_SAMPLES, min((piece + 1) * TASK_SAMPLES, width), _RUN):
            for channel in range(chunk * TASK_CHANNELS, last_channel, lanes):
                count = min(lanes, last_channel - channel)
                for position in range(begin, min(begin + _RUN, width), lanes):
                    # The last vector of a line begins earlier and repeats some of what the one before has written.
                    first = max(min(position, width - lanes), 0)
                    copy_block(
                        kind, lanes, size, target + channel * channel_bytes + first * size, channel_bytes,
                        source + first * step + channel * size, step, min(width, lanes), count, scratch,
                    )  # fmt: skip

    return jit.callback(channels_first, name, KERNEL_ARGUMENTS)


@cache
def channels_first_kernel(size: int, vector_bytes: int) -> Any:
    """The kernel for elements of 4 or 8 bytes."""
    kind = f"f{8 * size}"
    return _make_kernel(kind, size, lanes_of(kind, vector_bytes), f"channels_first_{kind}_{8 * vector_bytes}bit")


def tasks_of(batch: int, channels: int, sizes: list[int]) -> int:
    """Tasks of a copy."""
    return batch * sizes[0] * sizes[1] * -(-sizes[2] // TASK_SAMPLES) * -(-channels // TASK_CHANNELS)


def scratch_bytes(size: int, vector_bytes: int) -> int:
    """Scratch memory per worker."""
    return size * lanes_of(f"f{8 * size}", vector_bytes) ** 2
