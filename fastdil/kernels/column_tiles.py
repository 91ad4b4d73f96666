"""Register tiles that go down a plane and load each line once: see `fastdil.kernels.columns`."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.copies import OUTSIDE
from fastdil.kernels.finish import optional_bias
from fastdil.kernels.plane_tiles import store_row
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


class _Column:
    """The sums of `width` vectors of neighbouring outputs, for as many output rows as the kernel has rows."""

    def __init__(self, vectors: Vectors, width: int, kernel: tuple[int, int], table: Any, step: Any, weights: Any):
        self.vectors, self.width, (self.heights, self.taps) = vectors, width, kernel
        self.integers = Vectors(vectors.builder, "i64", 1)
        self.table, self.sample_step, self.weights = table, vectors.at(constant(0), step), weights
        registers = 32 if vectors.lanes * vectors.size == 64 else 16
        needed = self.heights * self.taps + (self.heights + 1) * width
        self._kept = (
            {}
            if needed > registers
            else {(a, t): self._load(a, t) for a in range(self.heights) for t in range(self.taps)}
        )

    def _load(self, height: int, tap: int) -> Any:
        return self.vectors.splat(self.vectors.load_scalar(self.vectors.at(self.weights, height * self.taps + tap)))

    def _weight(self, height: int, tap: int) -> Any:
        """A weight in all lanes: from a register if all weights have room there, else from memory each time."""
        return self._kept.get((height, tap)) or self._load(height, tap)

    def add_line(self, x: Any, line: Any, rows: list, last: int) -> list:
        """Add a line to the sums of `rows`, which it meets with their kernel rows `last`, ``last - 1``, ..."""
        builder, vectors = self.vectors.builder, self.vectors
        offset = self.integers.load_scalar(self.integers.at(self.table, line))
        before, added = builder.block, [list(sums) for sums in rows]
        with builder.if_then(builder.icmp_signed("!=", offset, constant(OUTSIDE))):
            at = vectors.at(x, offset)
            for tap in range(self.taps):
                samples = [vectors.load(vectors.at(at, v * vectors.lanes)) for v in range(self.width)]
                for number, sums in enumerate(added):
                    weight = self._weight(last - number, tap)
                    sums[:] = [vectors.fma(sample, weight, total) for sample, total in zip(samples, sums, strict=True)]
                at = builder.add(at, self.sample_step)
            end = builder.block
        results = []
        for sums, more in zip(rows, added, strict=True):
            results.append([builder.phi(vectors.type) for _ in sums])
            for phi, *values in zip(results[-1], sums, more, strict=True):
                phi.add_incoming(values[0], before)
                phi.add_incoming(values[1], end)
        return results


@intrinsic(prefer_literal=True)
def column_run(
    typingctx, kind, lanes, width, heights, taps, table, x, step, weights, outputs, present, target, row_bytes, bias,
    relu,
):  # fmt: skip
    """`outputs` neighbouring outputs of `present` rows of one phase, straight to the result, `width` vectors at a time.

    As `fastdil.kernels.plane_tiles.plane_run` for one sheet and a kernel of `heights` x `taps`, and the same sums. Row r
    reads the lines r to ``r + heights - 1`` of the `table`.
    """
    kind_name, lane_count, tile_width, kernel_rows, kernel_taps = literals(kind, lanes, width, heights, taps)

    def codegen(context, builder, signature, args):
        table, x, step, weights, outputs, present, target, row_bytes, bias, relu = args[5:]
        vectors, strip = Vectors(builder, kind_name, lane_count), constant(tile_width * lane_count)
        column = _Column(vectors, tile_width, (kernel_rows, kernel_taps), table, step, weights)
        shift = optional_bias(vectors, bias, weights, 1)
        is_short = builder.icmp_signed("<", outputs, strip)
        last = builder.select(is_short, constant(0), builder.sub(outputs, strip))
        zeros = [vectors.zero] * tile_width

        def over_tiles(index, _):
            # The last tile is moved back to end with the row, so that whole vectors are stored.
            first = builder.mul(index, strip)
            first = builder.select(builder.icmp_signed("<", first, last), first, last)
            samples, rows = vectors.at(x, first), []
            for line in range(kernel_rows - 1):  # each begins a row
                rows = column.add_line(samples, constant(line), [*rows, zeros], line)

            def over_lines(index, carried):
                at, *sums = carried
                rows = [sums[i : i + tile_width] for i in range(0, len(sums), tile_width)]
                line = builder.add(index, constant(kernel_rows - 1))
                done, *rows = column.add_line(samples, line, [*rows, zeros], kernel_rows - 1)
                store_row(vectors, done, at, outputs, is_short, shift, relu)
                return [builder.add(at, row_bytes), *(total for sums in rows for total in sums)]

            start = [vectors.at(target, first), *(total for sums in rows for total in sums)]
            counted_loop(builder, present, start, over_lines)
            return []

        tiles = builder.udiv(builder.add(outputs, constant(tile_width * lane_count - 1)), strip)
        counted_loop(builder, tiles, [], over_tiles)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, width, heights, taps, table, x, step, weights, outputs, present, target, row_bytes, bias, relu,
    )  # fmt: skip
    return returns(types.void, arguments), codegen
