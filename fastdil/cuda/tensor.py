"""tensor: the implicit matrix product of `fastdil.cuda.gemm` in tensor cores, for the lower precisions.

``precision="medium"`` rounds samples and weights to bfloat16 (8 bits): products err by 2**-7 of themselves at most, and
2**-6 is allowed. ``precision="high"`` splits each number into two bfloat16 ones, 16 bits together, and adds three
products, ``a b + a b' + a' b``: what is left out and what the halves miss is below 2**-15, and 2**-14 is allowed. Plain
TF32 would not do (11 bits: 2**-10); three products of TF32 would, at half the speed of bfloat16.

Tensor cores may truncate each sum, an error of 2**-23 per instruction: chains end after 60 of them, and the chains are
added in plain float32.

Weights are packed in the order of the registers of ``mma.sync.m16n8k16``, so that they are copied to shared memory past
the registers (``cp.async``) and loaded in one 16-byte chunk per tile and part. Samples are gathered, converted and
stored in that order too, in slots whose numbers are scrambled so that neither storing nor loading has bank conflicts.
Two parts lie side by side: the halves of split numbers, or two blocks of 16 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numba import cuda, types

from fastdil.cuda import costs, pixels, sums
from fastdil.cuda import geometry as G
from fastdil.cuda.activation import activation
from fastdil.cuda.base import Call, Layout, Operands
from fastdil.cuda.compiled import Kernel, flat, integers, ops, tensor_ops
from fastdil.cuda.device import Device
from fastdil.cuda.pixels import BLOCKS, MOST_SKIPPED, ROW_TILES
from fastdil.cuda.tilings import Tile, Tiling
from fastdil.explanation import Estimate
from fastdil.problem import Problem

#: Threads of a block that packs weights, at most.
_PACK_THREADS = 128
_TILES = (Tile(128, 64, 64, 32, 1.0, 32), Tile(64, 64, 32, 32, 0.8, 32), Tile(32, 32, 32, 32, 0.4, 32))
#: Precision -> channels of a stage, stages of a chain, products per product wanted.
_DEPTH = {"high": 16, "medium": 32}
_CHAIN = {"high": 20, "medium": 2048}
_PASSES = {"high": 3, "medium": 1}
#: Which parts of weights and samples are multiplied: halves of split numbers, or two blocks of 16 channels.
_PARTS = {"high": ((0, 0), (0, 1), (1, 0)), "medium": ((0, 0), (1, 1))}
#: Registers (int32) of a tile of 16 rows, and of 8 columns, both parts.
_TILE_A, _TILE_B = 256, 128


@cache
def _tiling(problem: Problem, device: Device) -> Tiling:
    return Tiling.of("tensor", problem, device, _TILES, _DEPTH[problem.precision])


class Tensor:
    """Implicit matrix product in tensor cores."""

    name = "tensor"

    def supports(self, problem: Problem, device: Device) -> str | None:
        if problem.dtype.name != "float32":
            return f"it computes float32, not {problem.dtype.name}"
        if problem.precision == "highest":
            return 'its products keep 16 or 8 bits: it needs precision="high" or "medium"'
        if device.capability < (8, 0):
            return f"it needs compute capability 8.0, and this GPU has {device.capability[0]}.{device.capability[1]}"
        return "there is nothing to multiply" if problem.is_empty else None

    def estimate(self, problem: Problem, device: Device) -> Estimate:
        tiling = _tiling(problem, device)
        seconds = tiling.seconds(problem, device, _PASSES[problem.precision], "bfloat16") + costs.LAUNCH_SECONDS
        # 2**-7 or 2**-15 in units of float32's eps, what each instruction of a chain may truncate, and the chains' sum.
        stages = min(problem.taps * tiling.channel_blocks(problem), _CHAIN[problem.precision])
        bound = {"high": 2.0**8 + 3 * stages, "medium": 2.0**16 + 2 * stages}[problem.precision]
        return Estimate(seconds, 4 * _packed(problem, tiling), bound + problem.terms / 2000)

    def bind(self, problem: Problem, device: Device, x_layout: Layout, y_layout: Layout) -> Call:
        tiling = _tiling(problem, device)
        tile, geometry = tiling.tile, tiling.describe(problem, x_layout, y_layout)
        pack, multiply = _pack_kernel(problem.precision, tile.rows), _specialised(problem, tiling)
        packs, packed = tiling.packs(problem), _packed(problem, tiling)
        threads = min(_PACK_THREADS, device.block_threads)

        def call(on: Operands) -> None:
            weights, marks = on.scratch(packed, "int32"), on.scratch(packs, "int32")
            pack.launch(packs, threads, on.stream, on.w, weights, marks, geometry)
            multiply.launch(
                tiling.blocks(problem), tile.threads, on.stream, on.x, weights, marks, on.bias, on.out, geometry
            )

        return call

    def kernels(self) -> Iterator[Kernel]:
        for precision in ("high", "medium"):
            yield _pack_kernel(precision, _TILES[0].rows)
            for tile in _TILES[:2]:
                yield _kernel(precision, "relu" if tile is _TILES[0] else None, tile, sums.PLAIN)


def _packed(problem: Problem, tiling: Tiling) -> int:
    """Registers of the packed weights."""
    return tiling.packs(problem) * tiling.channel_blocks(problem) * (tiling.tile.rows // 16) * _TILE_A


def _specialised(problem: Problem, tiling: Tiling) -> Kernel:
    chains = -(-problem.taps * tiling.channel_blocks(problem) // _CHAIN[problem.precision])
    return _kernel(problem.precision, problem.activation, tiling.tile, sums.SINGLE if chains == 1 else sums.PLAIN)


@cache
def _pack_kernel(precision: str, rows: int) -> Kernel:
    """Weights as registers of the tensor cores, and a mark for each tile and tap that holds an Inf or a NaN.

    One block packs one tap of one tile: ``packed[group, tile, tap, stage, 16 rows, part, lane, register]``.
    """
    is_split, depth = precision == "high", _DEPTH[precision]
    convert = tensor_ops.to_bfloat16(is_split, 8)
    zero, tiles = np.float32(0), rows // 16

    def kernel(w, packed, marks, g):
        values = cuda.local.array(8, types.float32)
        block, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
        taps = g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W]
        tap, tile = block % taps, block // taps
        group, first = tile // g[ROW_TILES], tile % g[ROW_TILES] * rows
        is_odd = 0
        parts = 1 if is_split else 2  # that are packed one by one: split numbers give both at once
        for index in range(thread, g[BLOCKS] * tiles * parts * 32, threads):
            lane, part, rest = index % 32, index // 32 % parts, index // 32 // parts
            stage, row0 = rest // tiles, rest % tiles * 16 + lane // 4
            for v in range(8):  # registers are (row, term), (row + 8, term), (row, term + 8), (row + 8, term + 8)
                row = first + row0 + v // 2 % 2 * 8
                c = stage * depth + part * 16 + lane % 4 * 2 + v % 2 + v // 4 * 8
                value = zero
                if row < g[G.GROUP_OUT] and c < g[G.GROUP_IN]:
                    value = ops.load(w, ((group * g[G.GROUP_OUT] + row) * g[G.GROUP_IN] + c) * taps + tap)
                    if value - value != zero:
                        is_odd = 1
                ops.store(values, v, value)
            registers = convert(ops.gather(values, 0, 1, 8, 8))
            to = ((block * g[BLOCKS] + stage) * tiles + rest % tiles) * _TILE_A + part * 128 + lane * 4
            ops.store_chunks(packed, to, 128, registers)
        is_odd = cuda.syncthreads_or(is_odd)
        if thread == 0:
            ops.store(marks, block, is_odd)

    name = f"pack_bfloat16_{precision}_{rows}"
    return Kernel(kernel, name, flat(types.float32), flat(types.int32), flat(types.int32), integers(pixels.COUNT))


@cache
def _kernel(precision: str, fused: str | None, tile: Tile, how: int) -> Kernel:
    finish, zero = activation(fused, "float32"), np.float32(0)
    is_split, depth, chain = precision == "high", _DEPTH[precision], _CHAIN[precision]
    rows, columns, threads = tile.rows, tile.columns, tile.threads
    tiles_a, tiles_b = tile.part_rows // 16, tile.part_columns // 8  # of a warp
    count, across = 4 * tiles_a * tiles_b, columns // tile.part_columns
    size_a, size_b = rows // 16 * _TILE_A, columns // 8 * _TILE_B
    copies = size_a // 4 // threads
    quads = 4 * columns // threads  # slots of a pixel that a thread fills
    # The channels of a quad's registers: its slot holds terms 2q, 2q + 1, 2q + 8 and 2q + 9 of each block of 16.
    channels = tuple(2 * q + c + block for q in range(quads) for block in range(0, depth, 16) for c in (0, 1, 8, 9))
    gather = tensor_ops.gather_at(channels)
    multiply = tensor_ops.warp_product(tiles_a, tiles_b, 128, _TILE_B, _PARTS[precision])
    convert = tensor_ops.to_bfloat16(is_split, 4 if is_split else 8)
    shared_a, shared_b = ops.shared_array("a", 2 * size_a, "int32"), ops.shared_array("b", 2 * size_b, "int32")
    shared_places = ops.shared_array("places", columns, "int64")
    shared_positions = ops.shared_array("positions", 3 * columns, "int64")
    shared_skips = ops.shared_array("skips", MOST_SKIPPED, "int32")
    gathered, part_rows, part_columns = len(channels), tile.part_rows, tile.part_columns

    def kernel(x, packed, marks, bias, out, g):
        a, b = shared_a(), shared_b()
        places, positions, skips = shared_places(), shared_positions(), shared_skips()
        partial = cuda.local.array(count, types.float32)
        thread, block = cuda.threadIdx.x, cuda.blockIdx.x
        row_tile, block = block % g[ROW_TILES], block // g[ROW_TILES]
        groups = g[G.OUT_CHANNELS] // g[G.GROUP_OUT]
        group, tile_number = block % groups, block // groups
        taps, column, quad = g[G.TAPS_D] * g[G.TAPS_H] * g[G.TAPS_W], thread % columns, thread // columns * quads
        pack = (group * g[ROW_TILES] + row_tile) * taps
        is_pixel, n = pixels.prepare(tile_number, columns, pack, thread, threads, marks, places, positions, skips, g)
        origin = g[G.X_FIRST] + n * g[G.X_N] + (group * g[G.GROUP_IN] + 2 * quad) * g[G.X_C]
        cuda.syncthreads()

        warp, lane = thread // 32, thread % 32
        row0, column0 = warp // across * part_rows, warp % across * part_columns
        at_a = row0 // 16 * _TILE_A + lane * 4
        at_b = column0 // 8 * _TILE_B + (lane // 4 * 4 + (lane % 4 ^ lane // 8)) * 4
        to_b = column // 8 * _TILE_B + column % 8 * 16
        mask = column % 8 // 2  # scrambles slots: lanes that store to the same banks, and those that load from them
        parts = ops.fill(zero, count)
        if how != sums.SINGLE:
            for index in range(count):
                ops.store(partial, index, zero)
        tap, part, place, stage, staged, chains = 0, 0, 0, 0, -1, 0
        while tap < taps or staged >= 0:
            if part == 0:
                tap = pixels.next_tap(tap, taps, skips)
                place = G.OUTSIDE
                if tap < taps and is_pixel:
                    place = pixels.place_of(tap, column, columns, positions, g)
            # The next tiles leave memory before the last ones are multiplied.
            values = ops.fill(zero, gathered)
            if tap < taps:
                start, to = ((pack + tap) * g[BLOCKS] + part) * size_a + thread * 4, (1 - stage) * size_a + thread * 4
                for index in range(copies):
                    tensor_ops.copy_16_bytes(a, to + index * threads * 4, packed, start + index * threads * 4)
                limit = g[G.GROUP_IN] - part * depth - 2 * quad if place != G.OUTSIDE else 0
                values = gather(x, origin + place + part * depth * g[G.X_C], g[G.X_C], limit)
            if staged >= 0:
                if how != sums.SINGLE and staged // chain != chains:
                    chains = staged // chain
                    ops.accumulate(partial, g[G.NOTHING], parts)
                    parts = ops.fill(zero, count)
                parts = multiply(parts, a, stage * size_a + at_a, b, stage * size_b + at_b)
            staged = -1
            if tap < taps:
                stage = 1 - stage
                tensor_ops.store_slots(b, stage * size_b + to_b, quad, mask, convert(values))
                tensor_ops.wait_for_copies()
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
        for index in range(count):
            tile_a, tile_b = index // 4 // tiles_b, index // 4 % tiles_b
            row = row_tile * rows + row0 + tile_a * 16 + lane // 4 + index // 2 % 2 * 8
            place = ops.load(places, column0 + tile_b * 8 + lane % 4 * 2 + index % 2)
            if row < g[G.GROUP_OUT] and place != G.OUTSIDE:
                o = group * g[G.GROUP_OUT] + row
                shift = ops.load(bias, o) if g[G.HAS_BIAS] else zero
                value = finish(ops.load(partial, index) + shift)
                ops.store(out, g[G.Y_FIRST] + place + o * g[G.Y_C], value)

    numbers, registers = flat(types.float32), flat(types.int32)
    name = f"tensor_{precision}_{fused}_{rows}x{columns}_{how}"
    most = 160 if part_rows == 64 else None  # three blocks per multiprocessor; two of twice the size would spill
    return Kernel(kernel, name, numbers, registers, registers, numbers, numbers, integers(pixels.COUNT), registers=most)
