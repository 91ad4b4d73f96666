"""direct: tiles of samples in shared memory, for depthwise layers, images, signals and few channels.

With dilation d and stride s, outputs ``P = d / gcd(d, s)`` apart read samples that are whole dilations apart: the
outputs of one phase (their index modulo P) are a dense convolution of every d-th sample. A block computes one phase of
the rows, so its tile holds every d-th row only, and its halo is ``k - 1`` rows, not ``(k - 1) d``. Along the width it
takes up to 64 neighbouring phases at once, on neighbouring lanes, so that any dilation reads and writes whole runs of
memory: one phase alone would use 4 of every 4 d bytes.

A thread computes several outputs of its phase, one below the other (on signals: one after the other, an odd number, so
that lanes read different banks), and reads a sample once for all taps and outputs that share it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.np.numpy_support import from_dtype

from fastdil.cuda import costs, sums
from fastdil.cuda import geometry as G
from fastdil.cuda.activation import activation
from fastdil.cuda.base import Call, Layout, Operands
from fastdil.cuda.compiled import Kernel, flat, integers, ops
from fastdil.cuda.device import Device
from fastdil.cuda.geometry import OUTSIDE, smaller, source_index
from fastdil.explanation import Estimate
from fastdil.problem import Problem

#: Lines of samples (depth times height) of a tile, whose places are worked out once per block.
_MOST_LINES = 256
#: Taps that pass through registers at once; a multiple of a 16-byte chunk.
_TAP_CHUNK = 16
#: Neighbouring phases on neighbouring lanes: enough for whole cache lines.
_MOST_PHASES = 64
#: More input channels than this are many to `estimate`; a guess, like all of it.
_FEW_CHANNELS = 4
#: Shared memory of a block, so that several fit on a multiprocessor.
_SHARED_BYTES = 40 * 1024

# Where the integers of a tiling stand, behind those of the problem: how outputs are shared among blocks and threads,
# outputs of a phase from sample to sample, and the size of a tile.
_FIELDS = 13
(
    PHASES_H,
    TILES_H,
    STEP_H,
    PHASES_W,
    CHUNKS_W,
    TILES_W,
    STEP_W,
    LANE_PHASES,
    LANE_STEPS,
    ROWS,
    TILE_H,
    TILE_W,
    TAP_LINES,
) = range(G.COUNT, G.COUNT + _FIELDS)


class Axis(NamedTuple):
    """One axis of outputs, split into phases."""

    phases: int  #: outputs this far apart belong together
    stride: int  #: in units of the dilation, between outputs of a phase
    steps: int  #: outputs of the longest phase

    @classmethod
    def of(cls, problem: Problem, axis: int) -> Axis:
        out, stride = problem.out_size[axis], problem.stride[axis]
        dilation = problem.dilation[axis] if problem.kernel[axis] > 1 else 1
        common = math.gcd(stride, dilation)
        phases = dilation // common
        return cls(phases, stride // common, -(-out // phases))


@dataclass(frozen=True)
class Tiling:
    """How blocks and threads share the outputs."""

    march: int  #: axis along which a thread computes several outputs: 1 height, 2 width
    per_thread: int  #: so many
    outputs: int  #: output channels of a thread
    lane_phases: int  #: phases of the width side by side
    lane_steps: int  #: threads along the width in each of them
    rows: int  #: threads along the height
    height: Axis
    width: Axis
    kernel: tuple[int, int, int]

    @classmethod
    def of(cls, problem: Problem, device: Device) -> Tiling:
        height, width = Axis.of(problem, 1), Axis.of(problem, 2)
        march = 1 if height.steps > 1 else 2
        taps, along = problem.kernel[march], (height, width)[march - 1].steps
        most = 4 if march == 1 else 9 if taps >= 16 else 5
        per_thread = max(n for n in (1, 2, 3, 4, 5, 9) if n <= min(along, most) and (march == 1 or n % 2))
        outputs = max(n for n in (1, 2, 4) if problem.group_out % n == 0 or n == 1)
        row_tiles = -(-height.steps // (per_thread if march == 1 else 1))
        steps = -(-width.steps // (per_thread if march == 2 else 1))
        rows = min(row_tiles, max(device.block_threads // 32, 1))
        lanes = max(device.block_threads // rows, 1)
        phases = min(width.phases, problem.out_size[2])
        lane_phases = -(-phases // -(-phases // min(lanes, _MOST_PHASES)))
        lane_steps = min(steps, max(lanes // lane_phases, 1))
        rows = min(row_tiles, max(device.block_threads // (lane_phases * lane_steps), 1))
        return cls(march, per_thread, outputs, lane_phases, lane_steps, rows, height, width, problem.kernel)

    def smaller(self) -> Tiling | None:
        """With fewer threads along the longer way, or None if there is but one thread."""
        name = max(("rows", "lane_steps", "lane_phases"), key=lambda field: getattr(self, field))
        size = getattr(self, name)
        return replace(self, **{name: size // 2}) if size > 1 else None

    @property
    def threads(self) -> int:
        return self.lane_phases * self.lane_steps * self.rows

    @property
    def block_height(self) -> int:
        """Outputs of a block along the height, in its phase."""
        return self.rows * (self.per_thread if self.march == 1 else 1)

    @property
    def block_width(self) -> int:
        """Outputs of a block along the width, in each of its phases."""
        return self.lane_steps * (self.per_thread if self.march == 2 else 1)

    @property
    def tile(self) -> tuple[int, int]:
        """Lines, and samples of a line in each phase, that the block's outputs read at one depth."""
        return (
            (self.block_height - 1) * self.height.stride + self.kernel[1],
            (self.block_width - 1) * self.width.stride + self.kernel[2],
        )

    @property
    def weight_pitch(self) -> int:
        """Taps along the marching axis, rounded up to whole 16-byte chunks of float32."""
        return -(-self.kernel[self.march] // 4) * 4

    @property
    def tap_lines(self) -> int:
        """Lines of taps along the marching axis."""
        return math.prod(self.kernel) // self.kernel[self.march]

    @property
    def elements(self) -> int:
        """Elements of shared memory: weights, then samples."""
        lines, columns = self.tile
        samples = self.kernel[0] * lines * columns * self.lane_phases
        return self.outputs * self.tap_lines * self.weight_pitch + max(samples, self.threads * self.per_thread)

    def blocks(self, problem: Problem) -> int:
        chunks_w = -(-min(self.width.phases, problem.out_size[2]) // self.lane_phases)
        tiles_w = -(-self.width.steps // self.block_width)
        height = min(self.height.phases, problem.out_size[1]) * -(-self.height.steps // self.block_height)
        return (
            chunks_w * tiles_w * height * problem.out_size[0] * (problem.out_channels // self.outputs) * problem.batch
        )

    def describe(self, problem: Problem) -> tuple[int, ...]:
        """The integers that follow those of the problem, in the order of their names above."""
        phases = [min(axis.phases, n) for axis, n in zip((self.height, self.width), problem.out_size[1:], strict=True)]
        return (
            phases[0],
            -(-self.height.steps // self.block_height),
            self.height.stride,
            phases[1],
            -(-phases[1] // self.lane_phases),
            -(-self.width.steps // self.block_width),
            self.width.stride,
            self.lane_phases,
            self.lane_steps,
            self.rows,
            *self.tile,
            self.tap_lines,
        )


@cache
def _tiling(problem: Problem, device: Device) -> Tiling | None:
    """The largest tiling that fits shared memory, or None."""
    tiling: Tiling | None = Tiling.of(problem, device)
    while tiling is not None and tiling.elements * problem.dtype.itemsize > _SHARED_BYTES:
        tiling = tiling.smaller()
    return tiling


class Direct:
    """Taps over tiles of samples in shared memory."""

    name = "direct"

    def supports(self, problem: Problem, device: Device) -> str | None:
        if problem.dtype.name not in ("float32", "float64"):
            return f"it computes float32 and float64, not {problem.dtype.name}"
        if problem.is_empty:
            return "there is nothing to multiply"
        tiling = _tiling(problem, device)
        if tiling is None:
            return f"a tile for kernels of this size does not fit {_SHARED_BYTES // 1024} KiB of shared memory"
        if problem.kernel[0] * tiling.tile[0] > _MOST_LINES:
            return f"a tile would have more than {_MOST_LINES} lines of samples"
        return None

    def estimate(self, problem: Problem, device: Device) -> Estimate:
        tiling = _tiling(problem, device)
        assert tiling is not None
        blocks = tiling.blocks(problem)
        macs = blocks * tiling.threads * tiling.per_thread * tiling.outputs * problem.terms
        if problem.group_in > _FEW_CHANNELS:  # every channel's tile is waited for: none is loaded ahead
            macs *= 2
        seconds = costs.roofline(self.name, device, problem, macs, blocks)
        return Estimate(seconds, 0, sums.error_bound(problem.terms, sums.chain_terms(problem)))

    def bind(self, problem: Problem, device: Device, x_layout: Layout, y_layout: Layout) -> Call:
        tiling = _tiling(problem, device)
        assert tiling is not None
        kernel = _specialised(problem, tiling)
        geometry = G.describe(problem, x_layout, y_layout) + tiling.describe(problem)
        blocks, shared = tiling.blocks(problem), tiling.elements * problem.dtype.itemsize

        def call(on: Operands) -> None:
            kernel.launch(blocks, tiling.threads, on.stream, on.x, on.w, on.bias, on.out, geometry, shared_bytes=shared)

        return call

    def kernels(self) -> Iterator[Kernel]:
        device = Device.standard()
        for x_shape, w_shape, words in (
            ((1, 64, 64, 64), (64, 1, 3, 3), {"groups": 64, "dilation": 2, "activation": "gelu"}),
            ((1, 64, 56, 56), (64, 1, 7, 7), {"groups": 64, "dilation": 3, "dtype": "float64"}),
            ((1, 1, 4096), (1, 1, 1000), {"dilation": 4}),
            ((1, 3, 64, 64), (8, 3, 3, 3), {"stride": 2, "precision": "high"}),
        ):
            problem = Problem.create(x_shape, w_shape, **words)
            tiling = _tiling(problem, device)
            assert tiling is not None
            yield _specialised(problem, tiling)


def _specialised(problem: Problem, tiling: Tiling) -> Kernel:
    taps = problem.kernel[tiling.march]
    lines = problem.group_in * tiling.tap_lines
    chunks_per_chain = max(sums.chain_terms(problem) // min(taps, _TAP_CHUNK), 1)
    chains = -(-lines * -(-taps // _TAP_CHUNK) // chunks_per_chain)
    stride = (tiling.height, tiling.width)[tiling.march - 1].stride
    how = sums.merging(chains)
    return _kernel(
        problem.dtype.name, problem.activation, tiling.march, tiling.per_thread, tiling.outputs, taps, stride,
        chunks_per_chain, how,
    )  # fmt: skip


@cache
def _kernel(
    dtype: str,
    fused: str | None,
    march: int,
    per_thread: int,
    outputs: int,
    taps: int,
    stride: int,
    chain: int,
    how: int,
) -> Kernel:
    finish = activation(fused, dtype)
    zero = np.dtype(dtype).type(0)
    pitch = -(-taps // 4) * 4
    whole, rest = max(taps // _TAP_CHUNK, 1), taps % _TAP_CHUNK if taps > _TAP_CHUNK else 0
    chunks = whole + (rest > 0)
    multiply = ops.correlation(outputs, per_thread, min(taps, _TAP_CHUNK), stride, pitch)
    multiply_rest = ops.correlation(outputs, per_thread, max(rest, 1), stride, pitch)
    count = outputs * per_thread
    down, right = (per_thread, 1) if march == 1 else (1, per_thread)
    shared, line_places = ops.shared_array("tile", 0, dtype), ops.shared_array("lines", _MOST_LINES, "int64")
    element = from_dtype(np.dtype(dtype))

    def kernel(x, w, bias, out, g):
        memory, places = shared(), line_places()
        results, errors = cuda.local.array(count, element), cuda.local.array(count, element)
        thread, threads, block = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x

        # Which outputs: the block's phases, first steps in them, depth, channels and sample.
        phase_w, block = block % g[CHUNKS_W] * g[LANE_PHASES], block // g[CHUNKS_W]
        first_w, block = block % g[TILES_W] * g[LANE_STEPS] * right, block // g[TILES_W]
        phase_h, block = block % g[PHASES_H], block // g[PHASES_H]
        first_h, block = block % g[TILES_H] * g[ROWS] * down, block // g[TILES_H]
        depth, block = block % g[G.OUT_D], block // g[G.OUT_D]
        channels = g[G.OUT_CHANNELS] // outputs
        o, n = block % channels * outputs, block // channels

        # This thread's place in the block.
        lane = thread % g[LANE_PHASES]
        step_w, step_h = (
            thread // g[LANE_PHASES] % g[LANE_STEPS] * right,
            thread // g[LANE_PHASES] // g[LANE_STEPS] * down,
        )

        lines, line = g[G.TAPS_D] * g[TILE_H], g[TILE_W] * g[LANE_PHASES]
        for index in range(thread, lines, threads):
            i = depth * g[G.STRIDE_D] + index // g[TILE_H] * g[G.DILATION_D] - g[G.BEFORE_D]
            j = (first_h * g[STEP_H] + index % g[TILE_H]) * g[G.DILATION_H] + phase_h * g[G.STRIDE_H] - g[G.BEFORE_H]
            i, j = source_index(i, g[G.SIZE_D], g[G.MODE]), source_index(j, g[G.SIZE_H], g[G.MODE])
            ops.store(places, index, OUTSIDE if i < 0 or j < 0 else i * g[G.X_D] + j * g[G.X_H])

        samples = outputs * g[TAP_LINES] * pitch
        mine = samples + (step_h * g[STEP_H] * g[TILE_W] + step_w * g[STEP_W]) * g[LANE_PHASES] + lane
        # Taps along the marching axis are one step apart in the tile, lines of taps another.
        tap_step, line_step = (line, g[LANE_PHASES]) if march == 1 else (g[LANE_PHASES], line)
        depth_step, taps_other = g[TILE_H] * line, g[TAP_LINES] // g[G.TAPS_D]
        taps_all = g[TAP_LINES] * taps
        sweep = smaller(line, threads)  # threads of one line, when they load the tile
        parts, total, error = ops.fill(zero, count), ops.fill(zero, count), ops.fill(zero, count)
        filled = 0
        for c in range(g[G.GROUP_IN]):
            cuda.syncthreads()  # the places are known, the tile of the channel before is used up
            first = g[G.X_FIRST] + n * g[G.X_N] + (o // g[G.GROUP_OUT] * g[G.GROUP_IN] + c) * g[G.X_C]
            for index in range(thread, outputs * taps_all, threads):
                tap, channel = index % taps_all, index // taps_all
                t, row = tap % g[G.TAPS_W], tap // g[G.TAPS_W]
                along, other = (row % g[G.TAPS_H], t) if march == 1 else (t, row % g[G.TAPS_H])
                to = ((row // g[G.TAPS_H] * taps_other + other) * outputs + channel) * pitch + along
                ops.store(memory, to, ops.load(w, ((o + channel) * g[G.GROUP_IN] + c) * taps_all + tap))
            for column in range(thread % sweep, line if thread < threads // sweep * sweep else 0, sweep):
                step, phase = column // g[LANE_PHASES], phase_w + column % g[LANE_PHASES]
                k = (first_w * g[STEP_W] + step) * g[G.DILATION_W] + phase * g[G.STRIDE_W] - g[G.BEFORE_W]
                k = source_index(k, g[G.SIZE_W], g[G.MODE])
                for index in range(thread // sweep, lines, threads // sweep):
                    place, value = ops.load(places, index), zero
                    if k >= 0 and place != OUTSIDE:
                        value = ops.load(x, first + place + k * g[G.X_W])
                    ops.store(memory, samples + index * line + column, value)
            cuda.syncthreads()
            at_w = 0
            for a in range(g[G.TAPS_D]):
                for b in range(taps_other):
                    at = mine + a * depth_step + b * line_step
                    for chunk in range(chunks):
                        if chunk == whole:
                            parts = multiply_rest(parts, memory, at, tap_step, memory, at_w + chunk * _TAP_CHUNK)
                        else:
                            parts = multiply(parts, memory, at, tap_step, memory, at_w + chunk * _TAP_CHUNK)
                        at += _TAP_CHUNK * tap_step
                        filled += 1
                        if how != sums.SINGLE and filled == chain:
                            if how == sums.EXACT:
                                pair = ops.add_exactly(total, error, parts)
                                total, error = pair[0], pair[1]
                            else:
                                total = ops.add(total, parts)
                            parts, filled = ops.fill(zero, count), 0
                    at_w += outputs * pitch
        if how == sums.EXACT:
            pair = ops.add_exactly(total, error, parts)
            total, error = pair[0], pair[1]
        else:
            total = ops.add(total, parts)

        ops.store_many(results, 0, total)
        ops.store_many(errors, 0, error)
        top = g[G.Y_FIRST] + n * g[G.Y_N] + depth * g[G.Y_D]
        block_w = g[LANE_STEPS] * right
        for channel in range(outputs):
            shift = ops.load(bias, o + channel) if g[G.HAS_BIAS] else zero
            if march == 2:
                cuda.syncthreads()  # the samples, or the results of the channel before, are used up
            for r in range(per_thread):
                value, lost = ops.load(results, channel * per_thread + r), ops.load(errors, channel * per_thread + r)
                value = finish((value + lost if lost == lost else value) + shift)
                if march == 1:
                    j = phase_h + (first_h + step_h + r) * g[PHASES_H]
                    k = phase_w + lane + (first_w + step_w) * g[PHASES_W]
                    if phase_w + lane < g[PHASES_W] and j < g[G.OUT_H] and k < g[G.OUT_W]:
                        ops.store(out, top + (o + channel) * g[G.Y_C] + j * g[G.Y_H] + k * g[G.Y_W], value)
                else:
                    ops.store(memory, samples + (step_h * block_w + step_w + r) * g[LANE_PHASES] + lane, value)
            if march == 2:
                cuda.syncthreads()
                for index in range(thread, g[ROWS] * block_w * g[LANE_PHASES], threads):
                    phase, step = phase_w + index % g[LANE_PHASES], index // g[LANE_PHASES]
                    j = phase_h + (first_h + step // block_w) * g[PHASES_H]
                    k = phase + (first_w + step % block_w) * g[PHASES_W]
                    if phase < g[PHASES_W] and j < g[G.OUT_H] and k < g[G.OUT_W]:
                        value = ops.load(memory, samples + index)
                        ops.store(out, top + (o + channel) * g[G.Y_C] + j * g[G.Y_H] + k * g[G.Y_W], value)

    array = flat(element)
    name = f"direct_{dtype}_{fused}_march{march}_{outputs}x{per_thread}_taps{taps}_stride{stride}_chain{chain}_{how}"
    return Kernel(kernel, name, array, array, array, array, integers(G.COUNT + _FIELDS))
