"""gemm: implicit matrix product for dense layers. No im2col matrix is ever built.

Rows are output channels, columns are output pixels, terms are taps and channels. A block computes a tile of the result.
Weights are packed into tiles first, so that they are read in 16-byte chunks; samples are gathered where they lie, tap
by tap, so any stride, dilation, padding mode and memory layout is a matter of one address per pixel and tap. Both go to
shared memory, in two buffers: one is filled while the other is multiplied. A thread keeps up to 8 x 8 sums in
registers.

Chains of 48 products are added plainly up to twelve of them, and beyond with the rounding errors kept. The sums of
chains lie in local memory: in registers they left room for one block per multiprocessor (248 registers per thread), and
nothing to do while it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numba import cuda, types
from numba.np.numpy_support import from_dtype

from fastdil.cuda import costs, pixels, sums
from fastdil.cuda import geometry as G
from fastdil.cuda.activation import activation
from fastdil.cuda.base import Call, Layout, Operands
from fastdil.cuda.compiled import Kernel, flat, integers, ops
from fastdil.cuda.device import Device
from fastdil.cuda.pixels import BLOCKS, MOST_SKIPPED, ROW_TILES
from fastdil.cuda.sums import merge
from fastdil.cuda.tilings import Tile, Tiling
from fastdil.explanation import Estimate
from fastdil.problem import Problem

#: Channels that are staged at once.
_DEPTH = 8
#: Threads of a block that packs weights, at most.
_PACK_THREADS = 256

_TILES = {
    "float32": (Tile(128, 128, 8, 8, 1.0), Tile(64, 64, 8, 8, 0.85), Tile(32, 128, 4, 8, 0.7), Tile(16, 32, 4, 4, 0.4)),
    "float64": (Tile(64, 64, 4, 4, 1.0), Tile(32, 64, 4, 4, 0.9), Tile(16, 32, 4, 4, 0.6)),
}


@cache
def _tiling(problem: Problem, device: Device) -> Tiling:
    return Tiling.of("gemm", problem, device, _TILES[problem.dtype.name], _DEPTH)


class Gemm:
    """Implicit matrix product in plain threads."""

    name = "gemm"

    def supports(self, problem: Problem, device: Device) -> str | None:
        if problem.dtype.name not in _TILES:
            return f"it computes float32 and float64, not {problem.dtype.name}"
        return "there is nothing to multiply" if problem.is_empty else None

    def estimate(self, problem: Problem, device: Device) -> Estimate:
        tiling = _tiling(problem, device)
        seconds = tiling.seconds(problem, device) + costs.LAUNCH_SECONDS  # one more launch, to pack the weights
        bound = sums.error_bound(problem.terms, sums.chain_terms(problem))
        return Estimate(seconds, _packed(problem, tiling) * problem.dtype.itemsize, bound)

    def bind(self, problem: Problem, device: Device, x_layout: Layout, y_layout: Layout) -> Call:
        tiling, dtype = _tiling(problem, device), problem.dtype.name
        tile, geometry = tiling.tile, tiling.describe(problem, x_layout, y_layout)
        pack, multiply = _pack_kernel(dtype, tile.rows), _specialised(problem, tiling)
        packs, packed = tiling.packs(problem), _packed(problem, tiling)
        threads = min(_PACK_THREADS, device.block_threads)

        def call(on: Operands) -> None:
            weights, marks = on.scratch(packed, dtype), on.scratch(packs, "int32")
            pack.launch(packs, threads, on.stream, on.w, weights, marks, geometry)
            multiply.launch(
                tiling.blocks(problem), tile.threads, on.stream, on.x, weights, marks, on.bias, on.out, geometry
            )

        return call

    def kernels(self) -> Iterator[Kernel]:
        for dtype, tiles in _TILES.items():
            chain = sums.CHAIN_TERMS // _DEPTH
            yield _pack_kernel(dtype, tiles[0].rows)
            yield _kernel(dtype, "gelu", tiles[0], chain, sums.EXACT)
            yield _kernel(dtype, "relu", tiles[-2], chain, sums.PLAIN)


def _packed(problem: Problem, tiling: Tiling) -> int:
    """Elements of the packed weights."""
    return tiling.packs(problem) * tiling.channel_blocks(problem) * _DEPTH * tiling.tile.rows


def _specialised(problem: Problem, tiling: Tiling) -> Kernel:
    stages, chain = problem.taps * tiling.channel_blocks(problem), sums.chain_terms(problem) // _DEPTH
    return _kernel(problem.dtype.name, problem.activation, tiling.tile, chain, sums.merging(-(-stages // chain)))


@cache
def _pack_kernel(dtype: str, rows: int) -> Kernel:
    """Weights in the order in which blocks read them, and a mark for each tile and tap that holds an Inf or a NaN.

    One block packs one tap of one tile: ``packed[group, tile, tap, channel, row]``, zeros beyond the last ones.
    """
    zero = np.dtype(dtype).type(0)

    def kernel(w, packed, marks, g):
        block, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
        taps, depth = g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W], g[BLOCKS] * _DEPTH
        tap, tile = block % taps, block // taps
        group, first = tile // g[ROW_TILES], tile % g[ROW_TILES] * rows
        is_odd = 0
        for index in range(thread, depth * rows, threads):
            row, c = first + index % rows, index // rows
            value = zero
            if row < g[G.GROUP_OUT] and c < g[G.GROUP_IN]:
                value = ops.load(w, ((group * g[G.GROUP_OUT] + row) * g[G.GROUP_IN] + c) * taps + tap)
                if value - value != zero:
                    is_odd = 1
            ops.store(packed, block * depth * rows + index, value)
        is_odd = cuda.syncthreads_or(is_odd)
        if thread == 0:
            ops.store(marks, block, is_odd)

    array = flat(from_dtype(np.dtype(dtype)))
    return Kernel(kernel, f"pack_{dtype}_{rows}", array, array, flat(types.int32), integers(pixels.COUNT))


@cache
def _kernel(dtype: str, fused: str | None, tile: Tile, chain: int, how: int) -> Kernel:
    finish = activation(fused, dtype)
    zero = np.dtype(dtype).type(0)
    lanes = 16 // np.dtype(dtype).itemsize
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    across = columns // tile.part_columns  # threads along the pixels
    row_jump, column_jump = lanes * rows // tile.part_rows, lanes * across
    multiply = ops.tile_product(tile.part_rows, tile.part_columns, row_jump, column_jump, rows, columns, _DEPTH)
    count = tile.part_rows * tile.part_columns
    size_a, size_b = _DEPTH * rows, _DEPTH * columns
    chunks = -(-size_a // (threads * lanes))
    spare = chunks * threads * lanes > size_a  # fewer chunks than threads
    channel_step = threads // columns  # channels that the block's threads load at once
    gathered = _DEPTH // channel_step
    plain = sums.PLAIN_CHAINS * chain
    shared_a, shared_b = ops.shared_array("a", 2 * size_a, dtype), ops.shared_array("b", 2 * size_b, dtype)
    shared_places = ops.shared_array("places", columns, "int64")
    shared_positions = ops.shared_array("positions", 3 * columns, "int64")
    shared_skips = ops.shared_array("skips", MOST_SKIPPED, "int32")
    element = from_dtype(np.dtype(dtype))
    part_rows, part_columns = tile.part_rows, tile.part_columns
    value_count = chunks * lanes

    def kernel(x, packed, marks, bias, out, g):
        a, b = shared_a(), shared_b()
        places, positions, skips = shared_places(), shared_positions(), shared_skips()
        partial = cuda.local.array(count, element)
        totals, errors = cuda.local.array(count, element), cuda.local.array(count, element)
        thread, block = cuda.threadIdx.x, cuda.blockIdx.x
        row_tile, block = block % g[ROW_TILES], block // g[ROW_TILES]
        groups = g[G.OUT_CHANNELS] // g[G.GROUP_OUT]
        group, tile_number = block % groups, block // groups
        taps, column, channel = g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W], thread % columns, thread // columns
        pack = (group * g[ROW_TILES] + row_tile) * taps
        is_pixel, n = pixels.prepare(tile_number, columns, pack, thread, threads, marks, places, positions, skips, g)
        origin = g[G.X_FIRST] + n * g[G.X_N] + (group * g[G.GROUP_IN] + channel) * g[G.X_C]
        cuda.syncthreads()

        at_a, at_b = thread // across * lanes, thread % across * lanes
        to_b = channel * columns + column
        chunk_step = threads * lanes
        parts = ops.fill(zero, count)
        if how != sums.SINGLE:
            for index in range(count):
                ops.store(partial, index, zero)
                ops.store(totals, index, zero)
                ops.store(errors, index, zero)
        tap, part, place, stage, staged, chains, exact = 0, 0, 0, 0, -1, 0, 0
        while tap < taps or staged >= 0:
            if part == 0:
                tap = pixels.next_tap(tap, taps, skips)
                place = G.OUTSIDE
                if tap < taps and is_pixel:
                    place = pixels.place_of(tap, column, columns, positions, g)
            # The next tiles leave memory before the last ones are multiplied.
            from_a, from_b = ops.fill(zero, value_count), ops.fill(zero, gathered)
            if tap < taps:
                if not spare or thread * lanes < size_a:
                    start = ((pack + tap) * g[BLOCKS] + part) * size_a + thread * lanes
                    from_a = ops.load_chunks(packed, start, chunk_step, chunks)
                inside = g[G.GROUP_IN] - part * _DEPTH - channel
                limit = (inside + channel_step - 1) // channel_step if place != G.OUTSIDE else 0
                at = origin + place + part * _DEPTH * g[G.X_C]
                from_b = ops.gather(x, at, channel_step * g[G.X_C], gathered, limit)
            if staged >= 0:
                if how != sums.SINGLE and staged // chain != chains:
                    chains = staged // chain
                    ops.accumulate(partial, g[G.NOTHING], parts)
                    parts = ops.fill(zero, count)
                if how == sums.EXACT and staged // plain != exact:
                    exact = staged // plain
                    for index in range(count):
                        merge(totals, errors, index + g[G.NOTHING], ops.load(partial, index + g[G.NOTHING]))
                        ops.store(partial, index + g[G.NOTHING], zero)
                parts = multiply(parts, a, stage * size_a + at_a, b, stage * size_b + at_b)
            staged = -1
            if tap < taps:
                stage = 1 - stage
                if not spare or thread * lanes < size_a:
                    ops.store_chunks(a, stage * size_a + thread * lanes, chunk_step, from_a)
                ops.scatter(b, stage * size_b + to_b, channel_step * columns, from_b)
                cuda.syncthreads()
                staged = tap * g[BLOCKS] + part
                part += 1
                if part == g[BLOCKS]:
                    part = 0
                    tap += 1

        if how == sums.SINGLE:
            ops.store_many(partial, g[G.NOTHING], parts)
        else:
            ops.accumulate(partial, g[G.NOTHING], parts)
        o_first = row_tile * rows + thread // across * lanes
        for r in range(part_rows):
            row = o_first + r // lanes * row_jump + r % lanes
            if row < g[G.GROUP_OUT]:
                o = group * g[G.GROUP_OUT] + row
                shift = ops.load(bias, o) if g[G.HAS_BIAS] else zero
                for c in range(part_columns):
                    place = ops.load(places, thread % across * lanes + c // lanes * column_jump + c % lanes)
                    index = r * part_columns + c
                    value = ops.load(partial, index)
                    if how == sums.EXACT:
                        merge(totals, errors, index, value)
                        value, lost = ops.load(totals, index), ops.load(errors, index)
                        value = value + lost if lost == lost else value
                    if place != G.OUTSIDE:
                        ops.store(out, g[G.Y_FIRST] + place + o * g[G.Y_C], finish(value + shift))

    array = flat(element)
    name = f"gemm_{dtype}_{fused}_{rows}x{columns}_{part_rows}x{part_columns}_chain{chain}_{how}"
    registers = 128 if threads == 256 else None  # two blocks per multiprocessor
    return Kernel(
        kernel, name, array, array, flat(types.int32), array, array, integers(pixels.COUNT), registers=registers
    )
