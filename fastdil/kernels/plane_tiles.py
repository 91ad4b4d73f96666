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

from fastdil.kernels.copies import OUTSIDE
from fastdil.kernels.finish import add_and_clip, optional_bias
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


@intrinsic(prefer_literal=True)
def plane_tile(
    typingctx, kind, lanes, rows, width, masked, table, sheets, sheet_lines, heights, ntaps, last_taps, closes, x, step,
    weights, row_weights, sheet_weights, masks, tile, errors, resume,
):  # fmt: skip
    """The tile of `rows` x `width` vectors behind `x`, as sums of chains that are added in memory.

    A chain ends after each kernel row that `closes` marks and is added to `tile`, exactly if `errors` is the address of
    a second tile; both start from zero unless `resume`. So every output is the same sum of the same chains, wherever it
    stands in a tile.
    """
    kind_name, lane_count, tile_rows, tile_width, is_masked = literals(kind, lanes, rows, width, masked)

    def codegen(context, builder, signature, args):
        table, sheets, sheet_lines, heights, taps, last_taps, closes, x, step = args[5:14]
        weights, row_weights, sheet_weights, masks, tile, errors, resume = args[14:]
        vectors = Vectors(builder, kind_name, lane_count)
        kernel = _Kernel(
            sheets, sheet_lines, heights, taps, last_taps, step, weights, row_weights, sheet_weights
        )  # fmt: skip
        register_tile = _Tile(vectors, tile_rows, tile_width, kernel, is_masked, masks)

        def close(line, present, sums):
            """Add to the tile the rows whose chain ends after this line, and start new ones."""
            integers, sums = register_tile.integers, list(sums)
            for row in present:
                mark = integers.load_scalar(integers.at(closes, builder.sub(line, constant(row))))
                part = register_tile.part([row])
                at, at_errors = (vectors.at(address, part.start * lane_count) for address in (tile, errors))
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

        with builder.if_then(builder.icmp_signed("==", resume, constant(0))):
            for i in range(tile_rows * tile_width):
                vectors.store(vectors.zero, vectors.at(tile, i * lane_count))
            with builder.if_then(builder.icmp_signed("!=", errors, constant(0))):
                for i in range(tile_rows * tile_width):
                    vectors.store(vectors.zero, vectors.at(errors, i * lane_count))
        register_tile.sums(table, x, close)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, masked, table, sheets, sheet_lines, heights, ntaps, last_taps, closes, x, step,
        weights, row_weights, sheet_weights, masks, tile, errors, resume,
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def plane_run(
    typingctx, kind, lanes, rows, width, masked, table, sheets, sheet_lines, heights, ntaps, x, step, weights, masks,
    outputs, present, target, row_bytes, bias, relu,
):  # fmt: skip
    """`outputs` neighbouring outputs of `present` rows of one phase, each one chain, straight to the result.

    They go to `target`, the rows `row_bytes` apart, with the element at `bias` (0: none) added, and clipped at zero if
    `relu`. The last tile of a row is moved back to end with it, so that whole vectors are stored wherever a row is at
    least a tile long; with `masked` it must not be longer.
    """
    kind_name, lane_count, tile_rows, tile_width, is_masked = literals(kind, lanes, rows, width, masked)

    def codegen(context, builder, signature, args):
        table, sheets, sheet_lines, heights, taps, x, step, weights, masks = args[5:14]
        outputs, present, target, row_bytes, bias, relu = args[14:]
        vectors, strip = Vectors(builder, kind_name, lane_count), constant(tile_width * lane_count)
        kernel = _Kernel(
            sheets, sheet_lines, heights, taps, taps, step, weights, taps, builder.mul(heights, taps)
        )  # fmt: skip
        tile = _Tile(vectors, tile_rows, tile_width, kernel, is_masked, masks)
        shift = optional_bias(vectors, bias, weights, 1)
        is_short = builder.icmp_signed("<", outputs, strip)
        last = builder.select(is_short, constant(0), builder.sub(outputs, strip))

        def store_row(at, sums):
            values = [add_and_clip(vectors, value, shift, relu) for value in sums]
            places = [vectors.at(at, v * lane_count) for v in range(tile_width)]
            with builder.if_else(is_short) as (partly, wholly):
                with partly:
                    for v, (value, place) in enumerate(zip(values, places, strict=True)):
                        mask = vectors.first_lanes(builder.sub(outputs, constant(v * lane_count)))
                        vectors.store_masked(value, place, mask)
                with wholly:
                    for value, place in zip(values, places, strict=True):
                        vectors.store(value, place)

        def over_groups(_, carried):
            table, target, present = carried

            def over_tiles(index, _):
                first = builder.mul(index, strip)
                first = builder.select(builder.icmp_signed("<", first, last), first, last)
                sums = tile.sums(table, vectors.at(x, first))
                for row in range(tile_rows):
                    at = builder.add(vectors.at(target, first), builder.mul(row_bytes, constant(row)))
                    with builder.if_then(builder.icmp_signed(">", present, constant(row))):
                        store_row(at, sums[tile.part([row])])
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
        kind, lanes, rows, width, masked, table, sheets, sheet_lines, heights, ntaps, x, step, weights, masks, outputs,
        present, target, row_bytes, bias, relu,
    )  # fmt: skip
    return returns(types.void, arguments), codegen
