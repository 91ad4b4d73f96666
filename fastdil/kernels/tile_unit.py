"""The tile unit of AMX, and an emulation of it in plain vector code.

A tile is a register of 16 rows of 64 bytes; one instruction multiplies two tiles of bfloat16 numbers and adds the
product to a third, of float32. `NativeUnit` emits LLVM's intrinsics, which need a CPU with amx_tile and amx_bf16;
`EmulatedUnit` keeps tiles in memory and computes the same bits on every machine, so that whatever is built on the unit
can be tested there. Which of them is a compile-time literal of every kernel.

The instruction as Intel's manual describes it: the products of the even and of the odd elements of a row are two chains
of fused multiply-adds, each from zero; the two are added, and their sum is added to the accumulator. Every step rounds
to nearest even, denormal inputs count as zero and denormal results become zero.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastdil.kernels.vectors import I8, Vectors, constant, counted_loop, literals, returns, splat

#: Rows of a tile, bytes of a row, and of a tile.
TILE_ROWS, ROW_BYTES = 16, 64
TILE_BYTES = TILE_ROWS * ROW_BYTES
#: Memory that a unit needs: its configuration, or the emulated registers.
UNIT_BYTES = 8 * TILE_BYTES
#: Terms of the reduction in one step: elements of a row.
STEP_TERMS = 32
#: Outputs and pixels of a block of two by two tiles.
BLOCK = 2 * TILE_ROWS

#: Parts of bfloat16 that a float32 is split into -> phases of products (part of the weight, part of the sample), so
#: ordered that neighbours share a part that is loaded. Together two parts keep 16 bits and three all 24; products below
#: the last part's digits are left out. With three parts, all small products are summed before the first large one, so
#: that only those that count round at the size of the sum.
PHASES = {
    1: (((0, 0),),),
    2: (((0, 1), (0, 0), (1, 0)),),
    3: (((2, 0), (1, 0), (1, 1), (0, 1), (0, 2)), ((0, 0),)),
}

#: Registers of the two tiles of samples and of weights; the accumulators come first.
_SAMPLES, _WEIGHTS = 4, 6

#: Bits of a float32.
_SIGN, _EXPONENT, HIGH_HALF = 0x80000000, 0x7F800000, 0xFFFF0000


class NativeUnit:
    """Emits AMX instructions. Tiles are numbers from 0 to 7."""

    def __init__(self, builder: ir.IRBuilder, memory: ir.Value):
        self._builder, self._memory = builder, memory

    def _emit(self, name: str, *arguments: ir.Value) -> None:
        function = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        declared = cgutils.get_or_insert_function(self._builder.module, function, f"llvm.x86.{name}")
        self._builder.call(declared, arguments)

    def _pointer(self, address: ir.Value) -> ir.Value:
        return self._builder.inttoptr(address, ir.PointerType())

    def configure(self) -> None:
        """All eight tiles 16 rows of 64 bytes: palette 1, row lengths from byte 16, numbers of rows from byte 48."""
        words = Vectors(self._builder, "i64", 8)
        lengths, rows = int.from_bytes(ROW_BYTES.to_bytes(2, "little") * 4, "little"), TILE_ROWS * 0x0101010101010101
        words.store(ir.Constant(words.type, [1, 0, lengths, lengths, 0, 0, rows, 0]), self._memory)
        self._emit("ldtilecfg", self._pointer(self._memory))

    def release(self) -> None:
        """Leave the tiles' state, which the system would save at each switch."""
        self._emit("tilerelease")

    def zero(self, tile: int) -> None:
        self._emit("tilezero", ir.Constant(I8, tile))

    def load(self, tile: int, address: ir.Value, stride: int, is_streamed: bool = False) -> None:
        """Rows `stride` bytes apart; with a hint that L1 need not keep them where `is_streamed`."""
        name = "tileloaddt164" if is_streamed else "tileloadd64"
        self._emit(name, ir.Constant(I8, tile), self._pointer(address), constant(stride))

    def store(self, tile: int, address: ir.Value, stride: int) -> None:
        """Rows `stride` bytes apart."""
        self._emit("tilestored64", ir.Constant(I8, tile), self._pointer(address), constant(stride))

    def multiply(self, target: int, a: int, b: int) -> None:
        """``target[m, n] += sum_k a[m, 2k] b[k, 2n] + a[m, 2k + 1] b[k, 2n + 1]``."""
        self._emit("tdpbf16ps", *(ir.Constant(I8, tile) for tile in (target, a, b)))


class EmulatedUnit:
    """The same operations on tiles that lie in memory."""

    def __init__(self, builder: ir.IRBuilder, memory: ir.Value):
        self._builder, self._memory = builder, memory
        self._floats, self._words = Vectors(builder, "f32", TILE_ROWS), Vectors(builder, "i32", TILE_ROWS)

    def _row(self, tile: int, row: ir.Value) -> ir.Value:
        offset = self._builder.mul(row, constant(ROW_BYTES))
        return self._builder.add(self._builder.add(self._memory, constant(tile * TILE_BYTES)), offset)

    def _each_row(self, body) -> None:
        def step(row, _):
            body(row)
            return []

        counted_loop(self._builder, constant(TILE_ROWS), [], step)

    def _flushed(self, bits: ir.Value) -> ir.Value:
        """Numbers with these bits, zero with their sign where they are denormal."""
        exponents = self._builder.and_(bits, ir.Constant(bits.type, [_EXPONENT] * TILE_ROWS))
        signs = self._builder.and_(bits, ir.Constant(bits.type, [_SIGN] * TILE_ROWS))
        is_denormal = self._builder.icmp_unsigned("==", exponents, ir.Constant(bits.type, None))
        return self._builder.bitcast(self._builder.select(is_denormal, signs, bits), self._floats.type)

    def _rounded(self, values: ir.Value) -> ir.Value:
        return self._flushed(self._builder.bitcast(values, self._words.type))

    def _pair(self, words: ir.Value) -> list[ir.Value]:
        """The even and the odd elements of words of two bfloat16 numbers, as float32."""
        low = self._builder.shl(words, ir.Constant(words.type, [16] * TILE_ROWS))
        high = self._builder.and_(words, ir.Constant(words.type, [HIGH_HALF] * TILE_ROWS))
        return [self._flushed(low), self._flushed(high)]

    def configure(self) -> None:
        pass

    def release(self) -> None:
        pass

    def zero(self, tile: int) -> None:
        self._each_row(lambda row: self._floats.store(self._floats.zero, self._row(tile, row)))

    def load(self, tile: int, address: ir.Value, stride: int, is_streamed: bool = False) -> None:
        def move(row):
            at = self._builder.add(address, self._builder.mul(row, constant(stride)))
            self._floats.store(self._floats.load(at), self._row(tile, row))

        self._each_row(move)

    def store(self, tile: int, address: ir.Value, stride: int) -> None:
        def move(row):
            at = self._builder.add(address, self._builder.mul(row, constant(stride)))
            self._floats.store(self._floats.load(self._row(tile, row)), at)

        self._each_row(move)

    def multiply(self, target: int, a: int, b: int) -> None:
        builder, words = self._builder, self._words

        def over_rows(row):
            def over_pairs(pair, chains):
                weight = Vectors(builder, "i32", 1).load_scalar(words.at(self._row(a, row), pair))
                weights = self._pair(splat(builder, weight, TILE_ROWS))
                samples = self._pair(words.load(self._row(b, pair)))
                terms = zip(weights, samples, chains, strict=True)
                return [self._rounded(self._floats.fma(*term)) for term in terms]

            zeros = [self._floats.zero] * 2
            even, odd = counted_loop(builder, constant(TILE_ROWS), zeros, over_pairs)
            at = self._row(target, row)
            total = self._floats.add(self._floats.load(at), self._rounded(self._floats.add(even, odd)))
            self._floats.store(self._rounded(total), at)

        self._each_row(over_rows)


_UNITS = {"native": NativeUnit, "emulated": EmulatedUnit}


@intrinsic(prefer_literal=True)
def open_tiles(typingctx, unit, memory):
    """Set the tile unit up; `memory` holds `UNIT_BYTES`."""
    (unit_name,) = literals(unit)

    def codegen(context, builder, signature, args):
        _UNITS[unit_name](builder, args[1]).configure()
        return context.get_dummy_value()

    return returns(types.void, (unit, memory)), codegen


@intrinsic(prefer_literal=True)
def close_tiles(typingctx, unit, memory):
    """Undo `open_tiles`."""
    (unit_name,) = literals(unit)

    def codegen(context, builder, signature, args):
        _UNITS[unit_name](builder, args[1]).release()
        return context.get_dummy_value()

    return returns(types.void, (unit, memory)), codegen


@intrinsic(prefer_literal=True)
def repeat_products(typingctx, unit, memory, count):
    """`count` times four products of tiles in registers, each into an accumulator of its own."""
    (unit_name,) = literals(unit)

    def codegen(context, builder, signature, args):
        tiles = _UNITS[unit_name](builder, args[1])

        def body(_, carried):
            for tile in range(4):
                tiles.multiply(tile, _SAMPLES + tile // 2, _WEIGHTS + tile % 2)
            return []

        for tile in range(8):
            tiles.zero(tile)
        counted_loop(builder, args[2], [], body)
        return context.get_dummy_value()

    return returns(types.void, (unit, memory, count)), codegen


@intrinsic(prefer_literal=True)
def multiply_tiles(
    typingctx, unit, parts, memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume
):
    """``target = samples @ weights`` for 32 pixels by 32 outputs, float32, rows of 128 bytes.

    With `resume` other than 0 the sums go on from what `target` holds. The reduction has `taps` x `steps` steps of 32
    terms. A step has of each part two tiles of samples, 16 pixels by 32 terms, and two of weights, 16 pairs of terms by
    16 outputs. The second tile of samples begins `half` bytes behind the first, the next part and step `part_bytes`
    further on; `offsets` are where the samples of a tap begin, `tap_table` has its number in the weights.

    Weights are loaded past L1, which the samples fill: on a Xeon (Granite Rapids) 18 steps of 2 KiB of samples stay
    there, and one core reaches 2.2 of 3.4 TFLOP/s while weights stream from L2; 1.7 with the ordinary instruction, by
    which they push the samples out.
    """
    unit_name, part_count = literals(unit, parts)
    step_bytes = part_count * 2 * TILE_BYTES

    def codegen(context, builder, signature, args):
        memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume = args[2:]
        tiles, integers = _UNITS[unit_name](builder, memory), Vectors(builder, "i64", 1)
        tap_bytes = builder.mul(steps, constant(step_bytes))
        moves = builder.mul(part_bytes, constant(part_count)), constant(step_bytes)

        def load_samples(base: ir.Value, part: int) -> None:
            first = builder.add(base, builder.mul(part_bytes, constant(part)))
            tiles.load(_SAMPLES, first, ROW_BYTES)
            tiles.load(_SAMPLES + 1, builder.add(first, half), ROW_BYTES)

        def load_weights(base: ir.Value, part: int) -> None:
            for tile in range(2):
                place = builder.add(base, constant((part * 2 + tile) * TILE_BYTES))
                tiles.load(_WEIGHTS + tile, place, ROW_BYTES, is_streamed=True)

        def over_steps(phase):
            def step(_, carried):
                loaded = (None, None)
                for product in phase:
                    if product[0] != loaded[0]:
                        load_weights(carried[1], product[0])
                    if product[1] != loaded[1]:
                        load_samples(carried[0], product[1])
                    loaded = product
                    for tile in range(4):
                        tiles.multiply(tile, _SAMPLES + tile // 2, _WEIGHTS + tile % 2)
                return [builder.add(at, move) for at, move in zip(carried, moves, strict=True)]

            return step

        def sums(tile: int) -> ir.Value:
            return builder.add(target, constant(tile // 2 * TILE_ROWS * 2 * ROW_BYTES + tile % 2 * ROW_BYTES))

        with builder.if_else(builder.icmp_signed("!=", resume, constant(0))) as (goes_on, begins):
            with goes_on:
                for tile in range(4):
                    tiles.load(tile, sums(tile), 2 * ROW_BYTES, is_streamed=True)
            with begins:
                for tile in range(4):
                    tiles.zero(tile)
        for phase in PHASES[part_count]:

            def over_taps(tap, _, phase=phase):
                number, offset = (integers.load_scalar(integers.at(table, tap)) for table in (tap_table, offsets))
                begin = [builder.add(samples, offset), builder.add(weights, builder.mul(number, tap_bytes))]
                counted_loop(builder, steps, begin, over_steps(phase))
                return []

            counted_loop(builder, taps, [], over_taps)
        for tile in range(4):
            tiles.store(tile, sums(tile), 2 * ROW_BYTES)
        return context.get_dummy_value()

    arguments = (
        unit, parts, memory, samples, half, part_bytes, offsets, weights, tap_table, taps, steps, target, resume,
    )  # fmt: skip
    return returns(types.void, arguments), codegen
