"""Winograd's transforms on vectors, and the register tile that multiplies between them.

Along an axis of three taps, F(2,3) makes two outputs out of four samples with four multiplications instead of six
(Winograd, Arithmetic Complexity of Computations, 1980; interpolation at 0, 1, -1 and infinity). An axis of one tap
passes through. Frequencies are as many as samples.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.tiles import accumulate
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: Samples that one tile reads along an axis, by its taps, and outputs that it makes.
SAMPLES = {1: 1, 3: 4}
OUTPUTS = {1: 1, 3: 2}

#: Products that are summed in registers before they are added to the tile. Short, because transformed samples and
#: weights may cancel against each other at the end: their sums must be better than those of plain products.
CHAIN_TERMS = 12
#: Sums of chains that stay in registers, beside as many chains, while a tile is computed: in memory, they would be
#: loaded and stored for every twelve products (LLVM did both twice).
_MOST_TOTALS = 12


def _forward(vectors: Vectors, taps: int, x: list) -> list:
    """Samples to frequencies."""
    if taps == 1:
        return x
    return [vectors.sub(x[0], x[2]), vectors.add(x[1], x[2]), vectors.sub(x[2], x[1]), vectors.sub(x[1], x[3])]


def _backward(vectors: Vectors, taps: int, m: list) -> list:
    """Products at each frequency to outputs."""
    if taps == 1:
        return m
    return [
        vectors.add(m[0], vectors.add(m[1], m[2])),
        vectors.sub(vectors.sub(m[1], m[2]), m[3]),
    ]


@intrinsic(prefer_literal=True)
def transform_rows(typingctx, kind, lanes, taps, target, pitch, row0, row1, row2, row3, count):
    """Along the height: `count` neighbouring samples of each row to as many of each frequency, `pitch` bytes apart.

    As many of the rows are read as a tile has samples; one tap copies a row. Nothing is read beyond `count` samples;
    a last vector is stored whole, zeros behind them.
    """
    kind_name, lane_count, tap_count = literals(kind, lanes, taps)

    def codegen(context, builder, signature, args):
        target, pitch, *rows, count = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows = rows[: SAMPLES[tap_count]]

        def move(at, mask):
            places = [vectors.at(row, at) for row in rows]
            samples = [vectors.load(p) if mask is None else vectors.load_masked(p, mask) for p in places]
            to = vectors.at(target, at)
            for value in _forward(vectors, tap_count, samples):
                vectors.store(value, to)
                to = builder.add(to, pitch)

        whole = builder.sdiv(count, constant(lane_count))

        def body(index, carried):
            move(builder.mul(index, constant(lane_count)), None)
            return []

        counted_loop(builder, whole, [], body)
        done = builder.mul(whole, constant(lane_count))
        left = builder.sub(count, done)
        with builder.if_then(builder.icmp_signed(">", left, constant(0))):
            move(done, vectors.first_lanes(left))
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, taps, target, pitch, row0, row1, row2, row3, count)), codegen


def _halves(lanes: int, step: int) -> tuple[list[int], list[int]]:
    """Of two vectors of neighbouring columns: those in even runs of `step` columns, and those in odd ones."""
    columns = range(2 * lanes)
    return [c for c in columns if c // step % 2 == 0], [c for c in columns if c // step % 2]


@intrinsic(prefer_literal=True)
def transform_columns(typingctx, kind, lanes, rows, taps, step, source, pitch, shift, target, frequency_step, count):
    """Along the width: `count` tiles of each of `rows` rows that are `pitch` bytes apart to all their frequencies.

    With `step` 0, sample k of the tiles starts ``k * shift`` bytes into the row, and neighbouring tiles are
    neighbours there. Else the tiles stand in runs of `step` with gaps of `step`, as in the input, and are taken apart
    in registers. Frequencies are `frequency_step` bytes apart. Whole vectors are read and written.
    """
    kind_name, lane_count, row_count, tap_count, run = literals(kind, lanes, rows, taps, step)
    run = run if run <= lane_count else 0  # not reached: kernels ask only where a run fits a vector

    def codegen(context, builder, signature, args):
        source, pitch, shift, target, frequency_step, count = args[5:]
        vectors = Vectors(builder, kind_name, lane_count)
        samples = SAMPLES[tap_count]

        def load_apart(at):
            even, odd = _halves(lane_count, run)
            values = []
            for pair in range((samples + 1) // 2):
                place = vectors.at(at, pair * 2 * run)
                both = vectors.load(place), vectors.load(vectors.at(place, lane_count))
                values += [vectors.shuffle(*both, even), vectors.shuffle(*both, odd)]
            return values[:samples]

        def load_side_by_side(at):
            values = []
            for _ in range(samples):
                values.append(vectors.load(at))
                at = builder.add(at, shift)
            return values

        def body(index, carried):
            at, to = carried
            row, place = at, to
            for _ in range(row_count):
                values = load_apart(row) if run else load_side_by_side(row)
                for value in _forward(vectors, tap_count, values):
                    vectors.store(value, place)
                    place = builder.add(place, frequency_step)
                row = builder.add(row, pitch)
            return [vectors.at(at, (2 if run else 1) * lane_count), vectors.at(to, lane_count)]

        steps = builder.sdiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))
        counted_loop(builder, steps, [source, target], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, rows, taps, step, source, pitch, shift, target, frequency_step, count)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def frequency_tile(typingctx, kind, lanes, rows, width, weights, panel, pitch, terms, tile):
    """``tile = weights @ panel`` over `terms` channels of one frequency, in chains of `CHAIN_TERMS`.

    `weights` holds `rows` consecutive numbers per channel; lines of the panel are `pitch` bytes apart.
    """
    kind_name, lane_count, tile_rows, tile_width = literals(kind, lanes, rows, width)

    def codegen(context, builder, signature, args):
        weights, panel, pitch, terms, tile = args[4:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows_at_once = tile_rows if tile_rows * tile_width <= _MOST_TOTALS else tile_rows // 2
        zeros = [vectors.zero] * (rows_at_once * tile_width)
        chains = builder.sdiv(builder.add(terms, constant(CHAIN_TERMS - 1)), constant(CHAIN_TERMS))

        def step(_, carried):
            at_weights, at_panel, *sums = carried
            samples = [vectors.load(vectors.at(at_panel, v * lane_count)) for v in range(tile_width)]
            for v in range(tile_width if fetches_next else 0):
                vectors.prefetch(vectors.at(at_panel, (tile_width + v) * lane_count))
            places = [vectors.at(at_weights, row) for row in range(rows_at_once)]
            sums = accumulate(vectors, sums, samples, places)
            return [vectors.at(at_weights, tile_rows), builder.add(at_panel, pitch), *sums]

        def add_chain(_, carried):
            at_weights, at_panel, left, *totals = carried
            count = builder.select(builder.icmp_signed("<", left, most), left, most)
            at_weights, at_panel, *sums = counted_loop(builder, count, [at_weights, at_panel, *zeros], step)
            totals = [vectors.add(total, value) for total, value in zip(totals, sums, strict=True)]
            return [at_weights, at_panel, builder.sub(left, most), *totals]

        most = constant(CHAIN_TERMS)
        for row in range(0, tile_rows, rows_at_once):
            fetches_next = row > 0  # the strip of the next tile, while there is time between the products
            start = [vectors.at(weights, row), panel, terms, *zeros]
            totals = counted_loop(builder, chains, start, add_chain)[3:]
            for i, value in enumerate(totals, row * tile_width):
                vectors.store(value, vectors.at(tile, i * lane_count))
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, rows, width, weights, panel, pitch, terms, tile)), codegen


@intrinsic(prefer_literal=True)
def combine_frequencies(typingctx, kind, lanes, heights, widths, source, frequency_step, target, output_step, count):
    """`count` vectors of products at all frequencies to the outputs of their tiles, `output_step` bytes apart.

    `heights` and `widths` are the taps of the two axes.
    """
    kind_name, lane_count, height_taps, width_taps = literals(kind, lanes, heights, widths)

    def codegen(context, builder, signature, args):
        source, frequency_step, target, output_step, count = args[4:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows, columns = SAMPLES[height_taps], SAMPLES[width_taps]

        def body(index, carried):
            at, to = carried
            following = [vectors.at(at, lane_count), vectors.at(to, lane_count)]
            products = []
            for _ in range(rows * columns):
                products.append(vectors.load(at))
                at = builder.add(at, frequency_step)
            by_column = [_backward(vectors, height_taps, products[c::columns]) for c in range(columns)]
            for row in range(OUTPUTS[height_taps]):
                for value in _backward(vectors, width_taps, [column[row] for column in by_column]):
                    vectors.store(value, to)
                    to = builder.add(to, output_step)
            return following

        counted_loop(builder, count, [source, target], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, heights, widths, source, frequency_step, target, output_step, count)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def join_runs(typingctx, kind, lanes, step, target, even, odd, count):
    """Put runs of `step` outputs, taken from `even` and `odd` in turn, side by side; `count` of each.

    `step` divides the lanes. Whole vectors are read and written.
    """
    kind_name, lane_count, run = literals(kind, lanes, step)

    def codegen(context, builder, signature, args):
        target, even, odd, count = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        order = [c // (2 * run) * run + c % run + (lane_count if c // run % 2 else 0) for c in range(2 * lane_count)]

        def body(index, carried):
            to, *places = carried
            both = [vectors.load(at) for at in places]
            vectors.store(vectors.shuffle(*both, order[:lane_count]), to)
            vectors.store(vectors.shuffle(*both, order[lane_count:]), vectors.at(to, lane_count))
            return [vectors.at(to, 2 * lane_count), *(vectors.at(at, lane_count) for at in places)]

        steps = builder.sdiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))
        counted_loop(builder, steps, [target, even, odd], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, step, target, even, odd, count)), codegen


@intrinsic(prefer_literal=True)
def transform_weights(
    typingctx, kind, lanes, heights, widths, source, tap_step, target, frequency_step, energies, count
):
    """Weights to frequencies: `count` neighbours of each tap, `tap_step` bytes apart; in doubles, rounded once.

    The factors 1/2 of F(2,3) are taken in here. `energies` receives the sums of the squares over all taps.
    """
    kind_name, lane_count, height_taps, width_taps = literals(kind, lanes, heights, widths)

    def codegen(context, builder, signature, args):
        source, tap_step, target, frequency_step, energies, count = args[4:]
        vectors, doubles = Vectors(builder, kind_name, lane_count), Vectors(builder, "f64", lane_count)
        half = doubles.filled(0.5)

        def forward(taps, w):
            if taps == 1:
                return w
            outer = doubles.add(w[0], w[2])
            both = doubles.add(outer, w[1]), doubles.sub(outer, w[1])
            return [w[0], *(builder.fmul(half, value) for value in both), w[2]]

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            at, to = vectors.at(source, shift), vectors.at(target, shift)
            weights, energy = [], doubles.zero
            for _ in range(height_taps * width_taps):
                value = vectors.load(at)
                weights.append(builder.fpext(value, doubles.type) if kind_name == "f32" else value)
                energy = doubles.fma(weights[-1], weights[-1], energy)
                at = builder.add(at, tap_step)
            doubles.store(energy, doubles.at(energies, shift))
            columns = [forward(height_taps, weights[c::width_taps]) for c in range(width_taps)]
            for row in range(SAMPLES[height_taps]):
                for value in forward(width_taps, [column[row] for column in columns]):
                    vectors.store(builder.fptrunc(value, vectors.type) if kind_name == "f32" else value, to)
                    to = builder.add(to, frequency_step)
            return []

        counted_loop(builder, builder.sdiv(count, constant(lane_count)), [], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, heights, widths, source, tap_step, target, frequency_step, energies, count)
    return returns(types.void, arguments), codegen
