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
from dataclasses import dataclass
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
from fastdil.cuda.pixels import Band
from fastdil.cuda.sums import merge
from fastdil.explanation import Estimate
from fastdil.problem import Problem

#: Channels that are staged at once.
_DEPTH = 8
_PACK_THREADS = 256
#: Taps for which a block remembers whether it skips them; later ones are never skipped.
_MOST_SKIPPED = 512

# Where the integers of a tiling stand, behind those of the problem and of the bands.
_BANDS = G.COUNT
ROW_TILES, BLOCKS = G.COUNT + pixels.COUNT, G.COUNT + pixels.COUNT + 1
_COUNT = G.COUNT + pixels.COUNT + 2
_MOST_BANDS = pixels.MOST_BANDS


@dataclass(frozen=True)
class Tile:
    """Shape of a block's and of a thread's share of the result: output channels x pixels."""

    rows: int
    columns: int
    thread_rows: int
    thread_columns: int
    efficiency: float  #: of its inner loop, relative to the largest tile; estimated from its loads, not measured

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (self.thread_rows * self.thread_columns)


_TILES = {
    "float32": (Tile(128, 128, 8, 8, 1.0), Tile(64, 64, 8, 8, 0.85), Tile(32, 128, 4, 8, 0.7), Tile(16, 32, 4, 4, 0.4)),
    "float64": (Tile(64, 64, 4, 4, 1.0), Tile(32, 64, 4, 4, 0.9), Tile(16, 32, 4, 4, 0.6)),
}


@dataclass(frozen=True)
class Tiling:
    """A tile, and the bands of columns that it is used on."""

    tile: Tile
    bands: tuple[Band, ...]
    row_tiles: int
    column_tiles: int

    @classmethod
    def of(cls, problem: Problem, device: Device) -> Tiling:
        fitting = [tile for tile in _TILES[problem.dtype.name] if tile.threads <= device.block_threads]
        tilings = [cls._with(tile, problem) for tile in fitting]
        return min(tilings, key=lambda tiling: tiling.seconds(problem, device))

    @classmethod
    def _with(cls, tile: Tile, problem: Problem) -> Tiling:
        chosen = pixels.best_bands(problem, tile.columns)
        columns = sum(pixels.tiles_of(problem, chosen, tile.columns))
        return cls(tile, tuple(chosen), -(-problem.group_out // tile.rows), columns)

    def blocks(self, problem: Problem) -> int:
        return problem.groups * self.row_tiles * self.column_tiles

    def seconds(self, problem: Problem, device: Device) -> float:
        depth = -(-problem.group_in // _DEPTH) * _DEPTH
        computed = pixels.useful_taps(problem, list(self.bands), self.tile.columns) * depth
        macs = problem.groups * self.row_tiles * self.tile.rows * self.tile.columns * computed / self.tile.efficiency
        return costs.roofline("gemm", device, problem, macs, self.blocks(problem))

    def packed(self, problem: Problem) -> int:
        """Elements of the packed weights."""
        depth = -(-problem.group_in // _DEPTH) * _DEPTH
        return problem.groups * self.row_tiles * problem.taps * depth * self.tile.rows


@cache
def _tiling(problem: Problem, device: Device) -> Tiling:
    return Tiling.of(problem, device)


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
        return Estimate(seconds, tiling.packed(problem) * problem.dtype.itemsize, bound)

    def bind(self, problem: Problem, device: Device, x_layout: Layout, y_layout: Layout) -> Call:
        tiling, dtype = _tiling(problem, device), problem.dtype.name
        tile = tiling.tile
        blocks = -(-problem.group_in // _DEPTH)
        geometry = (
            *G.describe(problem, x_layout, y_layout),
            *pixels.describe(problem, list(tiling.bands), tile.columns),
            tiling.row_tiles,
            blocks,
        )
        pack, multiply = _pack_kernel(dtype, tile.rows), _specialised(problem, tile)
        packs, packed = problem.groups * tiling.row_tiles * problem.taps, tiling.packed(problem)

        def call(on: Operands) -> None:
            weights, marks = on.scratch(packed, dtype), on.scratch(packs, "int32")
            pack.launch(packs, _PACK_THREADS, on.stream, on.w, weights, marks, geometry)
            multiply.launch(
                tiling.blocks(problem), tile.threads, on.stream, on.x, weights, marks, on.bias, on.out, geometry
            )

        return call

    def kernels(self) -> Iterator[Kernel]:
        for dtype, tiles in _TILES.items():
            chain = sums.CHAIN_TERMS // _DEPTH
            yield _pack_kernel(dtype, tiles[0].rows)
            yield _kernel(dtype, None, tiles[0], chain, sums.SINGLE)
            yield _kernel(dtype, "gelu", tiles[0], chain, sums.EXACT)
            for tile in tiles[1:]:
                yield _kernel(dtype, "relu", tile, chain, sums.PLAIN)


def _specialised(problem: Problem, tile: Tile) -> Kernel:
    depth_tiles = -(-problem.group_in // _DEPTH) * problem.taps
    chain = sums.chain_terms(problem) // _DEPTH
    return _kernel(problem.dtype.name, problem.activation, tile, chain, sums.merging(-(-depth_tiles // chain)))


@cache
def _pack_kernel(dtype: str, rows: int) -> Kernel:
    """Weights in the order in which blocks read them, and a mark for each tile and tap that holds an Inf or a NaN.

    One block packs one tap of one tile: ``packed[group, tile, tap, channel, row]``, zeros beyond the last ones.
    """
    zero = np.dtype(dtype).type(0)

    def kernel(w, packed, marks, g):
        block, thread = cuda.blockIdx.x, cuda.threadIdx.x
        taps, depth = g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W], g[BLOCKS] * _DEPTH
        tap, tile = block % taps, block // taps
        group, first = tile // g[ROW_TILES], tile % g[ROW_TILES] * rows
        is_odd = 0
        for index in range(thread, depth * rows, _PACK_THREADS):
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
    return Kernel(kernel, f"pack_{dtype}_{rows}", array, array, flat(types.int32), integers(_COUNT))


@cache
def _kernel(dtype: str, fused: str | None, tile: Tile, chain: int, how: int) -> Kernel:
    finish = activation(fused, dtype)
    zero = np.dtype(dtype).type(0)
    lanes = 16 // np.dtype(dtype).itemsize
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    across = columns // tile.thread_columns  # threads along the pixels
    row_jump, column_jump = lanes * rows // tile.thread_rows, lanes * across
    multiply = ops.tile_product(tile.thread_rows, tile.thread_columns, row_jump, column_jump, rows, columns, _DEPTH)
    count = tile.thread_rows * tile.thread_columns
    size_a, size_b = _DEPTH * rows, _DEPTH * columns
    chunks = -(-size_a // (threads * lanes))
    spare = chunks * threads * lanes > size_a  # fewer chunks than threads
    channel_step = threads // columns  # channels that the block's threads load at once
    gathered = _DEPTH // channel_step
    plain = sums.PLAIN_CHAINS * chain
    shared_a, shared_b = ops.shared_array("a", 2 * size_a, dtype), ops.shared_array("b", 2 * size_b, dtype)
    shared_places = ops.shared_array("places", columns, "int64")
    shared_positions = ops.shared_array("positions", 3 * columns, "int64")
    shared_skips = ops.shared_array("skips", _MOST_SKIPPED, "int32")
    element = from_dtype(np.dtype(dtype))
    thread_rows, thread_columns = tile.thread_rows, tile.thread_columns
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
        band = 0
        for index in range(1, _MOST_BANDS):
            if tile_number >= g[_BANDS + index]:
                band = index
        band_first, width = g[_BANDS + _MOST_BANDS + band], g[_BANDS + 2 * _MOST_BANDS + band]
        first = (tile_number - g[_BANDS + band]) * columns
        count_pixels = g[G.BATCH] * g[G.OUT_D] * g[G.OUT_H] * width

        # The pixel whose samples this thread gathers, and where its results go.
        pixel = first + thread % columns
        k, line = band_first + pixel % width, pixel // width
        j, i, n = line % g[G.OUT_H], line // g[G.OUT_H] % g[G.OUT_D], line // g[G.OUT_H] // g[G.OUT_D]
        if thread < columns:
            place = n * g[G.Y_N] + i * g[G.Y_D] + j * g[G.Y_H] + k * g[G.Y_W]
            ops.store(places, thread, place if pixel < count_pixels else G.OUTSIDE)
            ops.store(positions, thread, i)
            ops.store(positions, columns + thread, j)
            ops.store(positions, 2 * columns + thread, k)
        channel = thread // columns
        origin = g[G.X_FIRST] + n * g[G.X_N] + (group * g[G.GROUP_IN] + channel) * g[G.X_C]

        # The range of outputs of the tile along each axis, to see which taps it can skip.
        line0, line1 = first // width, (min(first + columns, count_pixels) - 1) // width
        k0, k1, j0, j1, i0, i1 = band_first, band_first + width - 1, 0, g[G.OUT_H] - 1, 0, g[G.OUT_D] - 1
        if line0 == line1:
            k0, k1 = band_first + first % width, band_first + (min(first + columns, count_pixels) - 1) % width
        if line0 // g[G.OUT_H] == line1 // g[G.OUT_H]:
            j0, j1 = line0 % g[G.OUT_H], line1 % g[G.OUT_H]
        if line0 // g[G.OUT_H] // g[G.OUT_D] == line1 // g[G.OUT_H] // g[G.OUT_D]:
            i0, i1 = line0 // g[G.OUT_H] % g[G.OUT_D], line1 // g[G.OUT_H] % g[G.OUT_D]

        taps = g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W]
        pack = (group * g[ROW_TILES] + row_tile) * taps
        for tap in range(thread, min(taps, _MOST_SKIPPED), threads):
            t, u, v = tap % g[G.TAPS_W], tap // g[G.TAPS_W] % g[G.TAPS_H], tap // g[G.TAPS_W] // g[G.TAPS_H]
            is_outside = (
                pixels.outside(k0, k1, t, g[G.STRIDE_W], g[G.DILATION_W], g[G.BEFORE_W], g[G.SIZE_W])
                or pixels.outside(j0, j1, u, g[G.STRIDE_H], g[G.DILATION_H], g[G.BEFORE_H], g[G.SIZE_H])
                or pixels.outside(i0, i1, v, g[G.STRIDE_D], g[G.DILATION_D], g[G.BEFORE_D], g[G.SIZE_D])
            )
            ops.store(skips, tap, 1 if is_outside and g[G.MODE] == 0 and ops.load(marks, pack + tap) == 0 else 0)
        cuda.syncthreads()

        at_a, at_b = thread // across * lanes, thread % across * lanes
        to_b = channel * columns + thread % columns
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
                while tap < min(taps, _MOST_SKIPPED) and ops.load(skips, tap):
                    tap += 1
                place = G.OUTSIDE
                if tap < taps and pixel < count_pixels:
                    t, u, v = tap % g[G.TAPS_W], tap // g[G.TAPS_W] % g[G.TAPS_H], tap // g[G.TAPS_W] // g[G.TAPS_H]
                    i, j = ops.load(positions, thread % columns), ops.load(positions, columns + thread % columns)
                    k = ops.load(positions, 2 * columns + thread % columns)
                    place = pixels.place_of(i, j, k, v, u, t, g)
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
        for r in range(thread_rows):
            row = o_first + r // lanes * row_jump + r % lanes
            if row < g[G.GROUP_OUT]:
                o = group * g[G.GROUP_OUT] + row
                shift = ops.load(bias, o) if g[G.HAS_BIAS] else zero
                for c in range(thread_columns):
                    place = ops.load(places, thread % across * lanes + c // lanes * column_jump + c % lanes)
                    index = r * thread_columns + c
                    value = ops.load(partial, index)
                    if how == sums.EXACT:
                        merge(totals, errors, index, value)
                        value, lost = ops.load(totals, index), ops.load(errors, index)
                        value = value + lost if lost == lost else value
                    if place != G.OUTSIDE:
                        ops.store(out, g[G.Y_FIRST] + place + o * g[G.Y_C], finish(value + shift))

    array = flat(element)
    name = f"gemm_{dtype}_{fused}_{rows}x{columns}_{thread_rows}x{thread_columns}_chain{chain}_{how}"
    registers = 128 if threads == 256 else None  # two blocks per multiprocessor
    return Kernel(kernel, name, array, array, flat(types.int32), array, array, integers(_COUNT), registers=registers)
