"""Register tiles of several output rows of one channel that share their lines of samples: see `fastdil.kernels.planes`.

Row r of a tile reads lines r to ``r + heights - 1`` of each sheet (a channel and a depth tap), line ``r + a`` with the
row a of the kernel. A table lists the element offsets of the lines, `OUTSIDE` for a line of padding zeros. Tap t reads
the vectors that start ``t * step`` elements into a line. Weights are in plain order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.finish import optional_bias, store_row
from fastdil.kernels.places import OUTSIDE
from fastdil.kernels.tiles import accumulate, load_samples
from fastdil.kernels.totals import close_chain, close_chain_exactly
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


class _Kernel(NamedTuple):
    """The taps of a tile: `heights` rows (at least as many as the tile) of `taps`, the last one of `last_taps`."""

    sheets: Any
    sheet_lines: Any  # entries of the table for one sheet
    heights: Any
    taps: Any
    last_taps: Any
    step: Any
    weights: Any
    row_weights: Any  # per kernel row
    sheet_weights: Any  # per sheet


class _Tile:
    """The sums of one tile, in registers; `masks` lists for each tap and vector the lanes to read, if `is_masked`."""

    def __init__(self, vectors: Vectors, rows: int, width: int, kernel: _Kernel, is_masked: bool, masks: Any):
        self.vectors, self.rows, self.width, self.kernel = vectors, rows, width, kernel
        self.is_masked, self.masks = is_masked, masks
        self.integers = Vectors(vectors.builder, "i64", 1)
        self.zeros = [vectors.zero] * (rows * width)
        self.sample_step = vectors.at(constant(0), kernel.step)
        self.line_step = vectors.at(constant(0), kernel.row_weights)
        self.back = [vectors.builder.mul(self.line_step, constant(-row)) for row in range(rows)]

    def part(self, present: Sequence[int]) -> slice:
        """The sums of these rows, which follow each other."""
        return slice(present[0] * self.width, (present[-1] + 1) * self.width)

    def _add_taps(self, at, at_weights, first, count, sums: list, present: Sequence[int]) -> list:
        """Add `count` taps from tap `first` on to the rows in `present`; `at_weights` is for tap 0 of row 0."""
        if not present:
            return sums
        vectors, builder = self.vectors, self.vectors.builder

        def over_taps(tap, inner):
            at, at_weights, tap_masks, *inner_sums = inner
            samples = load_samples(vectors, at, tap_masks, self.width, self.is_masked)
            places = [builder.add(at_weights, self.back[row]) for row in present]
            inner_sums = accumulate(vectors, inner_sums, samples, places)
            following = [builder.add(at, self.sample_step), vectors.at(at_weights, 1)]
            return [*following, self.integers.at(tap_masks, self.width), *inner_sums]

        start = [
            builder.add(at, builder.mul(self.sample_step, first)),
            vectors.at(at_weights, first),
            self.integers.at(self.masks, builder.mul(first, constant(self.width))),
            *sums[self.part(present)],
        ]
        result = list(sums)
        result[self.part(present)] = counted_loop(builder, count, start, over_taps)[3:]
        return result

    def _add_line(self, x, lines, line, at_weights, sums: list, present: Sequence[int], is_last: bool) -> list:
        """Add a line to the rows of `present`; if `is_last`, it meets the last kernel row of the first of them."""
        builder, taps, last_taps = self.vectors.builder, self.kernel.taps, self.kernel.last_taps
        offset = self.integers.load_scalar(self.integers.at(lines, line))
        is_outside = builder.icmp_signed("==", offset, constant(OUTSIDE))
        at, at_weights = self.vectors.at(x, offset), builder.add(at_weights, builder.mul(self.line_step, line))
        count = builder.select(is_outside, constant(0), last_taps if is_last else taps)
        sums = self._add_taps(at, at_weights, constant(0), count, sums, present)
        if is_last and last_taps is not taps:
            rest = builder.select(is_outside, constant(0), builder.sub(taps, last_taps))
            sums = self._add_taps(at, at_weights, last_taps, rest, sums, present[1:])
        return sums

    def sums(self, table, x, end_line: Callable | None = None) -> list:
        """All products of the tile whose lines start at `x` plus the offsets of the `table`.

        ``end_line(line, present, sums)`` is told after each line which rows it met, and returns the sums to go on with.
        """
        builder, kernel, rows = self.vectors.builder, self.kernel, self.rows

        def add_line(lines, line, at_weights, sums, present, is_last=False):
            sums = self._add_line(x, lines, line, at_weights, sums, present, is_last)
            return sums if end_line is None else end_line(line, present, sums)

        def over_sheets(sheet, carried):
            lines, at_weights, *sums = carried
            for row in range(rows - 1):  # what the first rows alone read
                sums = add_line(lines, constant(row), at_weights, sums, range(row + 1))

            def over_lines(index, inner):
                return add_line(lines, builder.add(index, constant(rows - 1)), at_weights, inner, range(rows))

            last = builder.sub(kernel.heights, constant(1))
            sums = counted_loop(builder, builder.sub(last, constant(rows - 1)), sums, over_lines)
            for row in range(rows):  # the row's last line, and what the rows after it still read
                sums = add_line(lines, builder.add(last, constant(row)), at_weights, sums, range(row, rows), True)
            following = self.integers.at(lines, kernel.sheet_lines)
            return [following, self.vectors.at(at_weights, kernel.sheet_weights), *sums]

        start = [table, kernel.weights, *self.zeros]
        return counted_loop(builder, kernel.sheets, start, over_sheets)[2:]


def _clear(vectors: Vectors, tile, errors, count: int) -> None:
    """A tile in memory, and the errors of its sums unless their address is 0, from zero."""
    for i in range(count):
        vectors.store(vectors.zero, vectors.at(tile, i * vectors.lanes))
    with vectors.builder.if_then(vectors.builder.icmp_signed("!=", errors, constant(0))):
        for i in range(count):
            vectors.store(vectors.zero, vectors.at(errors, i * vectors.lanes))


def _add_chains(register_tile: _Tile, table, x, closes, tile, errors) -> None:
    """Add all products to the `tile` in memory, chain by chain.

    A chain ends after each kernel row that `closes` marks and is added exactly if `errors` is the address of a second
    tile. So every output is the same sum of the same chains, wherever it stands in a tile.
    """
    vectors, builder, integers = register_tile.vectors, register_tile.vectors.builder, register_tile.integers

    def close(line, present, sums):
        """Add the rows whose chain ends after this line, and start new ones."""
        sums = list(sums)
        for row in present:
            mark = integers.load_scalar(integers.at(closes, builder.sub(line, constant(row))))
            part = register_tile.part([row])
            at, at_errors = (vectors.at(address, part.start * vectors.lanes) for address in (tile, errors))
            before = builder.block
            with builder.if_then(builder.icmp_signed("!=", mark, constant(0))):
                with builder.if_else(builder.icmp_signed("==", errors, constant(0))) as (plainly, exactly):
                    with plainly:
                        close_chain(vectors, at, sums[part], constant(1))
                    with exactly:
                        close_chain_exactly(vectors, at, at_errors, sums[part], constant(1))
                end = builder.block
            for i in range(part.start, part.stop):
                phi = builder.phi(vectors.type)
                phi.add_incoming(sums[i], before)
                phi.add_incoming(vectors.zero, end)
                sums[i] = phi
        return sums

    register_tile.sums(table, x, close)


@intrinsic(prefer_literal=True)
def plane_tile(
    typingctx, kind, lanes, rows, width, table, heights, ntaps, last_taps, closes, x, step, weights, tile, errors
):
    """A tile of `rows` x `width` vectors behind `x`, one sheet, as sums of chains in memory (`_add_chains`)."""
    kind_name, lane_count, tile_rows, tile_width = literals(kind, lanes, rows, width)

    def codegen(context, builder, signature, args):
        table, heights, taps, last_taps, closes, x, step, weights, tile, errors = args[4:]
        vectors, one = Vectors(builder, kind_name, lane_count), constant(1)
        kernel = _Kernel(one, constant(0), heights, taps, last_taps, step, weights, taps, constant(0))
        _clear(vectors, tile, errors, tile_rows * tile_width)
        register_tile = _Tile(vectors, tile_rows, tile_width, kernel, False, constant(0))
        _add_chains(register_tile, table, x, closes, tile, errors)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, table, heights, ntaps, last_taps, closes, x, step, weights, tile, errors
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def plane_run(
    typingctx, kind, lanes, rows, width, single, masked, table, sheets, sheet_lines, heights, ntaps, most_taps, closes,
    x, step, weights, masks, tile, errors, outputs, present, target, row_bytes, bias, relu,
):  # fmt: skip
    """`outputs` neighbouring outputs of `present` rows of one phase, straight to the result.

    They go to `target`, the rows `row_bytes` apart, with the element at `bias` (0: none) added, and clipped at zero if
    `relu`. The last tile of a row is moved back to end with it, so that whole vectors are stored wherever a row is at
    least a tile long; with `masked` it must not be longer.

    With `single`, all terms of an output are one chain. Else they are those of `_add_chains`, kernel rows of more than
    `most_taps` in parts.
    """
    kind_name, lane_count, tile_rows, tile_width, is_single, is_masked = literals(
        kind, lanes, rows, width, single, masked
    )

    def codegen(context, builder, signature, args):
        table, sheets, sheet_lines, heights, taps, most_taps, closes, x, step, weights, masks = args[6:17]
        memory, errors, outputs, present, target, row_bytes, bias, relu = args[17:]
        vectors, strip = Vectors(builder, kind_name, lane_count), constant(tile_width * lane_count)
        kernel = _Kernel(sheets, sheet_lines, heights, taps, taps, step, weights, taps, builder.mul(heights, taps))
        tile = _Tile(vectors, tile_rows, tile_width, kernel, is_masked, masks)
        shift = optional_bias(vectors, bias, weights, 1)
        is_short = builder.icmp_signed("<", outputs, strip)
        last = builder.select(is_short, constant(0), builder.sub(outputs, strip))

        def chained_sums(table, x):
            count = tile_rows * tile_width
            _clear(vectors, memory, errors, count)

            def over_parts(index, _):
                done = builder.mul(index, most_taps)
                left = builder.sub(taps, done)
                some = builder.select(builder.icmp_signed("<", left, most_taps), left, most_taps)
                part = kernel._replace(taps=some, last_taps=some, weights=vectors.at(weights, done))
                part_masks = tile.integers.at(masks, builder.mul(done, constant(tile_width)))
                samples = vectors.at(x, builder.mul(done, step))
                part_tile = _Tile(vectors, tile_rows, tile_width, part, is_masked, part_masks)
                _add_chains(part_tile, table, samples, closes, memory, errors)
                return []

            parts = builder.udiv(builder.add(taps, builder.sub(most_taps, constant(1))), most_taps)
            counted_loop(builder, parts, [], over_parts)
            plain = [vectors.load(vectors.at(memory, i * lane_count)) for i in range(count)]
            before = builder.block
            with builder.if_then(builder.icmp_signed("!=", errors, constant(0))):
                lost = [vectors.load(vectors.at(errors, i * lane_count)) for i in range(count)]
                exact = [vectors.add_unless_nan(*pair) for pair in zip(plain, lost, strict=True)]
                after = builder.block
            phis = [builder.phi(vectors.type) for _ in range(count)]
            for phi, *values in zip(phis, plain, exact, strict=True):
                phi.add_incoming(values[0], before)
                phi.add_incoming(values[1], after)
            return phis

        def over_groups(_, carried):
            table, target, present = carried

            def over_tiles(index, _):
                first = builder.mul(index, strip)
                first = builder.select(builder.icmp_signed("<", first, last), first, last)
                samples = vectors.at(x, first)
                sums = tile.sums(table, samples) if is_single else chained_sums(table, samples)
                for row in range(tile_rows):
                    at = builder.add(vectors.at(target, first), builder.mul(row_bytes, constant(row)))
                    with builder.if_then(builder.icmp_signed(">", present, constant(row))):
                        store_row(vectors, sums[tile.part([row])], at, outputs, is_short, shift, relu)
                return []

            counted_loop(builder, tiles, [], over_tiles)
            following = builder.add(target, builder.mul(row_bytes, constant(tile_rows)))
            return [tile.integers.at(table, tile_rows), following, builder.sub(present, constant(tile_rows))]

        def rounded_up(count, size):
            return builder.udiv(builder.add(count, constant(size - 1)), constant(size))

        tiles = rounded_up(outputs, tile_width * lane_count)
        counted_loop(builder, rounded_up(present, tile_rows), [table, target, present], over_groups)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, single, masked, table, sheets, sheet_lines, heights, ntaps, most_taps, closes, x,
        step, weights, masks, tile, errors, outputs, present, target, row_bytes, bias, relu,
    )  # fmt: skip
    return returns(types.void, arguments), codegen
