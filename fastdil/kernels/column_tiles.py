"""Register tiles that go down a plane and load each line once: see `fastdil.kernels.columns`."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.finish import optional_bias, store_row
from fastdil.kernels.places import OUTSIDE
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns


class _Column:
    """The sums of `width` vectors of neighbouring outputs, for all output rows that one line meets."""

    def __init__(self, vectors: Vectors, width: int, kernel: tuple[int, int, int], weights: Any, places: Any):
        self.vectors, self.width, (self.heights, self.taps, self.stride) = vectors, width, kernel
        self.integers = Vectors(vectors.builder, "i64", 1)
        self.weights = weights
        offsets = (self.integers.load_scalar(self.integers.at(places, tap)) for tap in range(self.taps))
        self.places = [vectors.at(constant(0), offset) for offset in offsets]
        #: Output rows that the sums of a tile belong to at a time.
        self.rows = -(-self.heights // self.stride)
        registers = 32 if vectors.lanes * vectors.size == 64 else 16
        self._kept = {}
        if self.heights * self.taps + (self.rows + 1) * width <= registers:
            self._kept = {(a, t): self._load(a, t) for a in range(self.heights) for t in range(self.taps)}

    def _load(self, height: int, tap: int) -> Any:
        return self.vectors.splat(self.vectors.load_scalar(self.vectors.at(self.weights, height * self.taps + tap)))

    def _weight(self, height: int, tap: int) -> Any:
        """A weight in all lanes: from a register if all weights have room there, else from memory each time."""
        return self._kept.get((height, tap)) or self._load(height, tap)

    def add_line(self, x: Any, at_line: Any, sums: list, height: int) -> list:
        """Add a line, the kernel row `height` of the first row of `sums`, to it and those after it that it meets."""
        builder, vectors, count = self.vectors.builder, self.vectors, height // self.stride + 1
        offset = self.integers.load_scalar(at_line)
        before, added = builder.block, [list(row) for row in sums[:count]]
        with builder.if_then(builder.icmp_signed("!=", offset, constant(OUTSIDE))):
            line = vectors.at(x, offset)
            for tap, place in enumerate(self.places):
                at = builder.add(line, place)
                samples = [vectors.load(vectors.at(at, v * vectors.lanes)) for v in range(self.width)]
                for number, row in enumerate(added):
                    weight = self._weight(height - number * self.stride, tap)
                    row[:] = [vectors.fma(sample, weight, total) for sample, total in zip(samples, row, strict=True)]
            end = builder.block
        results = [[builder.phi(vectors.type) for _ in row] for row in added]
        for phis, *values in zip(results, sums, added, strict=False):
            for phi, unchanged, changed in zip(phis, *values, strict=True):
                phi.add_incoming(unchanged, before)
                phi.add_incoming(changed, end)
        return [*results, *sums[count:]]

    def run_down(self, x: Any, table: Any, present: Any, store: Any) -> None:
        """All sums of the lines of `table`, which start at `x` plus their offsets.

        ``store(row, sums)`` is told of each of the `present` output rows when it is complete.
        """
        builder, zeros = self.vectors.builder, [self.vectors.zero] * self.width
        early = max(self.heights - self.stride, 0)  # lines before the last ones of the first row
        sums = [zeros] * (self.rows - 1)
        for line in range(early):
            sums = self.add_line(x, self.integers.at(table, line), sums, line)

        def over_rows(row, carried):
            at_line = self.integers.at(carried[0], early)
            flat = carried[1:]
            sums = [*(flat[i : i + self.width] for i in range(0, len(flat), self.width)), zeros]
            for height in range(early, self.heights):
                sums = self.add_line(x, at_line, sums, height)
                at_line = self.integers.at(at_line, 1)
            store(row, sums[0])
            following = self.integers.at(carried[0], self.stride)
            return [following, *(total for row in sums[1:] for total in row)]

        counted_loop(builder, present, [table, *(total for row in sums for total in row)], over_rows)


@intrinsic(prefer_literal=True)
def column_run(
    typingctx, kind, lanes, width, heights, taps, stride, table, x, places, weights, outputs, present, target,
    row_bytes, bias, relu,
):  # fmt: skip
    """`outputs` neighbouring outputs of `present` rows of one phase, straight to the result, `width` vectors at a time.

    As `fastdil.kernels.plane_tiles.plane_run` for one sheet and a kernel of `heights` x `taps`, and the same sums. Row
    r reads `heights` lines of the `table` from line ``r * stride`` on; tap t reads the vectors that start ``places[t]``
    elements into a line.
    """
    kind_name, lane_count, tile_width, *kernel = literals(kind, lanes, width, heights, taps, stride)

    def codegen(context, builder, signature, args):
        table, x, places, weights, outputs, present, target, row_bytes, bias, relu = args[6:]
        vectors, strip = Vectors(builder, kind_name, lane_count), constant(tile_width * lane_count)
        column = _Column(vectors, tile_width, tuple(kernel), weights, places)
        shift = optional_bias(vectors, bias, weights, 1)
        is_short = builder.icmp_signed("<", outputs, strip)
        last = builder.select(is_short, constant(0), builder.sub(outputs, strip))

        def over_tiles(index, _):
            # The last tile is moved back to end with the row, so that whole vectors are stored.
            first = builder.mul(index, strip)
            first = builder.select(builder.icmp_signed("<", first, last), first, last)
            at = vectors.at(target, first)

            def store(row, sums):
                place = builder.add(at, builder.mul(row, row_bytes))
                store_row(vectors, sums, place, outputs, is_short, shift, relu)

            column.run_down(vectors.at(x, first), table, present, store)
            return []

        tiles = builder.udiv(builder.add(outputs, constant(tile_width * lane_count - 1)), strip)
        counted_loop(builder, tiles, [], over_tiles)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, width, heights, taps, stride, table, x, places, weights, outputs, present, target, row_bytes, bias,
        relu,
    )  # fmt: skip
    return returns(types.void, arguments), codegen
