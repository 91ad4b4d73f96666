"""Winograd's transforms on vectors, and the register tile that multiplies between them.

Along an axis, six samples are interpolated at 0, 3/4, -3/4, 3/2, -3/2 and infinity: r taps make 7 - r outputs with six
multiplications instead of r (7 - r) (Winograd, Arithmetic Complexity of Computations, 1980). Samples are transformed
alike for any number of taps; an axis of one tap passes through. Frequencies are as many as samples.

The points are not 1 and 2: with 3 x 3 taps these err four times as much (`docs/performance.md`). All factors of samples
and outputs are exact in float32.
"""

from __future__ import annotations

from functools import reduce

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.tiles import accumulate
from fastdil.kernels.totals import close_chain, close_chain_exactly
from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: The points other than 0 and infinity; each also with the opposite sign.
_POINTS = (0.75, 1.5)
#: Samples that one tile reads along an axis, by its taps, and outputs that it makes.
SAMPLES = {1: 1} | dict.fromkeys((2, 3, 4, 5), 6)
OUTPUTS = {1: 1, 2: 5, 3: 4, 4: 3, 5: 2}

#: Products that are summed in registers before they are added to the tile. Short, because transformed samples and
#: weights may cancel against each other at the end: their sums must be better than those of plain products.
CHAIN_TERMS = 12
#: The same where a single axis is transformed.
LINE_CHAIN_TERMS = 16
#: Sums of chains that stay in registers, beside as many chains, while a tile is computed: in memory, they would be
#: loaded and stored for every chain (LLVM did both twice).
_MOST_TOTALS = 12
#: Chains during which the lines of a tile are fetched, to which they will be added.
_FETCHING_CHAINS = 6


def _scaled(vectors: Vectors, factor: float, value, added):
    """``factor * value + added``."""
    return vectors.fma(vectors.filled(factor), value, added)


def _forward(vectors: Vectors, taps: int, x: list) -> list:
    """Samples to frequencies: the rows are the polynomials with all points but one as roots."""
    if taps == 1:
        return x
    a, b = _POINTS
    both, product = a * a + b * b, a * a * b * b
    ends = [_scaled(vectors, product, x[i], _scaled(vectors, -both, x[i + 2], x[i + 4])) for i in range(2)]
    inner = []
    for point, other in ((a, b), (b, a)):
        even = _scaled(vectors, -other * other, x[2], x[4])
        odd = _scaled(vectors, -other * other, x[1], x[3])
        inner += [_scaled(vectors, point, odd, even), _scaled(vectors, -point, odd, even)]
    return [ends[0], *inner, ends[1]]


def _backward(vectors: Vectors, taps: int, m: list) -> list:
    """Products at each frequency to outputs: output i is the sum of those at each point, times its i-th power."""
    if taps == 1:
        return m
    a, b = _POINTS
    sums = vectors.add(m[1], m[2]), vectors.add(m[3], m[4])
    differences = vectors.sub(m[1], m[2]), vectors.sub(m[3], m[4])
    outputs = [vectors.add(m[0], vectors.add(*sums))]
    for power in range(1, OUTPUTS[taps]):
        at_a, at_b = differences if power % 2 else sums
        outputs.append(_scaled(vectors, a**power, at_a, vectors.mul(vectors.filled(b**power), at_b)))
    outputs[-1] = vectors.add(outputs[-1], m[5])
    return outputs


def _load(vectors: Vectors, taps: int, m: list):
    """At least the sum of the magnitudes that `_backward` adds up to any output; `m` are magnitudes."""
    if taps == 1:
        return m[0]
    rest = vectors.add(vectors.add(m[0], m[5]), vectors.add(m[1], m[2]))
    return _scaled(vectors, _POINTS[1] ** (OUTPUTS[taps] - 1), vectors.add(m[3], m[4]), rest)


def _weights_forward(doubles: Vectors, taps: int, w: list) -> list:
    """Weights to frequencies: their polynomial at each point, over the product of its distances from the others."""
    if taps == 1:
        return w
    a, b = _POINTS

    def polynomial(first: int, point: float, norm: float):
        """Every second term, from `first` on."""
        factors = [(w[power], point**power / norm) for power in range(first, taps, 2)]
        start = doubles.mul(doubles.filled(factors[0][1]), factors[0][0])
        return reduce(lambda total, term: _scaled(doubles, term[1], term[0], total), factors[1:], start)

    inner = []
    for point, other in ((a, b), (b, a)):
        norm = 2 * point**2 * (point**2 - other**2)
        even, odd = polynomial(0, point, norm), polynomial(1, point, norm)
        inner += [doubles.add(even, odd), doubles.sub(even, odd)]
    return [doubles.mul(doubles.filled(1 / (a * a * b * b)), w[0]), *inner, w[-1]]


@intrinsic(prefer_literal=True)
def transform_rows(typingctx, kind, lanes, taps, target, pitch, rows, zeros, shift, count, following, ahead):
    """Along the height: `count` neighbouring samples of each row to as many of each frequency, `pitch` bytes apart.

    `rows` lists the addresses of as many rows as a tile has samples; they are read `shift` bytes further on. Where the
    address is 0, those at `zeros` are. One tap copies a row. Nothing is read beyond `count` samples; a last vector is
    stored whole, zeros behind them. Meanwhile those of the rows listed at `following` are fetched, which are read next,
    `ahead` bytes further on: neighbouring lines are not neighbours in memory.
    """
    kind_name, lane_count, tap_count = literals(kind, lanes, taps)

    def codegen(context, builder, signature, args):
        target, pitch, table, zeros, shift, count, following, ahead = args[3:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)

        def listed(table, shift):
            rows = []
            for index in range(SAMPLES[tap_count]):
                row = integers.load_scalar(integers.at(table, index))
                is_padding = builder.icmp_signed("==", row, constant(0))
                rows.append(builder.select(is_padding, zeros, builder.add(row, shift)))
            return rows

        rows, next_rows = listed(table, shift), listed(following, ahead)

        def move(at, mask):
            places = [vectors.at(row, at) for row in rows]
            for row in next_rows:
                vectors.prefetch(vectors.at(row, at))
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

    arguments = (kind, lanes, taps, target, pitch, rows, zeros, shift, count, following, ahead)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def transform_columns(typingctx, kind, lanes, rows, taps, step, source, pitch, shift, target, frequency_step, count):
    """Along the width: `count` tiles of each of `rows` rows that are `pitch` bytes apart to all their frequencies.

    With `step` 0, sample k of the tiles starts ``k * shift`` bytes into the row, and neighbouring tiles are
    neighbours there. Else the tiles stand in runs of `step`, as in the input, one for every output of a tile, and are
    taken apart in registers. Frequencies are `frequency_step` bytes apart. Whole vectors are read and written.
    """
    kind_name, lane_count, row_count, tap_count, run = literals(kind, lanes, rows, taps, step)
    run = run if run <= lane_count else 0  # not reached: kernels ask only where a run fits a vector

    def codegen(context, builder, signature, args):
        source, pitch, shift, target, frequency_step, count = args[5:]
        vectors = Vectors(builder, kind_name, lane_count)
        samples, outputs = SAMPLES[tap_count], OUTPUTS[tap_count]

        def load_apart(at):
            values = []
            # The first outputs of the next tiles are samples of these ones too.
            for first in range(0, samples, outputs):
                place = vectors.at(at, first * run)
                lines = [vectors.load(vectors.at(place, v * lane_count)) for v in range(outputs)]
                for sample in range(min(outputs, samples - first)):
                    columns = [(t // run * outputs + sample) * run + t % run for t in range(lane_count)]
                    values.append(vectors.pick(lines, columns))
            return values

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
            return [vectors.at(at, (outputs if run else 1) * lane_count), vectors.at(to, lane_count)]

        steps = builder.sdiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))
        counted_loop(builder, steps, [source, target], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, rows, taps, step, source, pitch, shift, target, frequency_step, count)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def frequency_tile(
    typingctx, kind, lanes, rows, width, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume
):
    """``tile (+)= weights @ panel`` over `taps` times `terms` products, of a tap in equal chains of `chain` at most.

    `weights` holds `rows` consecutive numbers per product; lines of the panel are `pitch` bytes apart, taps `tap_step`.
    `tile` is added to if `resume`; what that rounds away is kept at `errors`, unless this is 0.
    """
    kind_name, lane_count, tile_rows, tile_width, most_terms = literals(kind, lanes, rows, width, chain)

    def codegen(context, builder, signature, args):
        weights, panel, taps, tap_step, terms, pitch, tile, errors, resume = args[5:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows_at_once = tile_rows if tile_rows * tile_width <= _MOST_TOTALS else tile_rows // 2
        zeros = [vectors.zero] * (rows_at_once * tile_width)
        chains = builder.sdiv(builder.add(terms, constant(most_terms - 1)), constant(most_terms))

        def step(_, carried):
            at_weights, at_panel, *sums = carried
            samples = [vectors.load(vectors.at(at_panel, v * lane_count)) for v in range(tile_width)]
            for v in range(tile_width if fetches_next else 0):
                vectors.prefetch(vectors.at(at_panel, (tile_width + v) * lane_count))
            places = [vectors.at(at_weights, row) for row in range(rows_at_once)]
            sums = accumulate(vectors, sums, samples, places)
            return [vectors.at(at_weights, tile_rows), builder.add(at_panel, pitch), *sums]

        def add_chain(_, carried):
            at_weights, at_panel, left, ahead, *totals = carried
            # The tile and its errors, which may have left L2 since the last block of terms.
            for place in places:
                for line in range(lines_per_chain):
                    vectors.prefetch(builder.add(place, builder.add(ahead, constant(64 * line))))
            ahead = builder.add(ahead, constant(64 * lines_per_chain))
            count = builder.select(builder.icmp_signed("<", left, most), left, most)
            at_weights, at_panel, *sums = counted_loop(builder, count, [at_weights, at_panel, *zeros], step)
            totals = [vectors.add(total, value) for total, value in zip(totals, sums, strict=True)]
            return [at_weights, at_panel, builder.sub(left, most), ahead, *totals]

        def add_tap(_, carried):
            at_weights, at_panel, *rest = carried
            results = counted_loop(builder, chains, [at_weights, at_panel, terms, *rest], add_chain)
            return [results[0], builder.add(at_panel, tap_step), *results[3:]]

        most = builder.sdiv(builder.add(terms, builder.sub(chains, constant(1))), chains)
        is_exact = builder.icmp_signed("!=", errors, constant(0))
        lines_per_chain = -(-rows_at_once * tile_width * lane_count * vectors.size // (64 * _FETCHING_CHAINS))
        for row in range(0, tile_rows, rows_at_once):
            fetches_next = row > 0  # the strip of the next tile, while there is time between the products
            shift = row * tile_width * lane_count
            here, here_errors = vectors.at(tile, shift), vectors.at(errors, shift)
            places = [here, builder.select(is_exact, here_errors, here)]
            start = [vectors.at(weights, row), panel, constant(0), *zeros]
            totals = counted_loop(builder, taps, start, add_tap)[3:]
            with builder.if_else(is_exact) as (exactly, plainly):
                with exactly:
                    close_chain_exactly(vectors, here, here_errors, totals, resume)
                with plainly:
                    close_chain(vectors, here, totals, resume)
        return context.get_dummy_value()

    arguments = (
        kind, lanes, rows, width, chain, weights, panel, taps, tap_step, terms, pitch, tile, errors, resume
    )  # fmt: skip
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def combine_frequencies(
    typingctx, kind, lanes, heights, widths, source, frequency_step, target, output_step, loads, count
):
    """`count` vectors of products at all frequencies to the outputs of their tiles, `output_step` bytes apart.

    `heights` and `widths` are the taps of the two axes. `loads` receives a vector for each vector of tiles: the sum of
    the magnitudes that are added up to the outputs of a tile, or a little more.
    """
    kind_name, lane_count, height_taps, width_taps = literals(kind, lanes, heights, widths)

    def codegen(context, builder, signature, args):
        source, frequency_step, target, output_step, loads, count = args[4:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows, columns = SAMPLES[height_taps], SAMPLES[width_taps]

        def body(index, carried):
            at, to, at_load = carried
            following = [vectors.at(place, lane_count) for place in carried]
            products = []
            for _ in range(rows * columns):
                products.append(vectors.load(at))
                at = builder.add(at, frequency_step)
            magnitudes = [vectors.absolute(product) for product in products]
            by_column = [_load(vectors, height_taps, magnitudes[c::columns]) for c in range(columns)]
            vectors.store(_load(vectors, width_taps, by_column), at_load)
            by_column = [_backward(vectors, height_taps, products[c::columns]) for c in range(columns)]
            for row in range(OUTPUTS[height_taps]):
                for value in _backward(vectors, width_taps, [column[row] for column in by_column]):
                    vectors.store(value, to)
                    to = builder.add(to, output_step)
            return following

        counted_loop(builder, count, [source, target, loads], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, heights, widths, source, frequency_step, target, output_step, loads, count)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def join_runs(typingctx, kind, lanes, taps, step, target, source, output_step, count):
    """Put runs of `step` outputs, taken from each output of a tile in turn, side by side; `count` of each.

    Outputs are `output_step` bytes apart; `step` divides the lanes. Whole vectors are read and written.
    """
    kind_name, lane_count, tap_count, run = literals(kind, lanes, taps, step)

    def codegen(context, builder, signature, args):
        target, source, output_step, count = args[4:]
        vectors, outputs = Vectors(builder, kind_name, lane_count), OUTPUTS[tap_count]

        def lane(column):
            """Where a column stands, counted through the vectors of all outputs."""
            return column // run % outputs * lane_count + column // run // outputs * run + column % run

        def body(index, carried):
            to, at = carried
            following = [vectors.at(to, outputs * lane_count), vectors.at(at, lane_count)]
            lines = []
            for _ in range(outputs):
                lines.append(vectors.load(at))
                at = builder.add(at, output_step)
            for first in range(0, outputs * lane_count, lane_count):
                order = [lane(column) for column in range(first, first + lane_count)]
                vectors.store(vectors.pick(lines, order), vectors.at(to, first))
            return following

        steps = builder.sdiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))
        counted_loop(builder, steps, [target, source], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, taps, step, target, source, output_step, count)), codegen


@intrinsic(prefer_literal=True)
def transform_weights(typingctx, kind, lanes, heights, widths, source, tap_step, target, frequency_step, count):
    """Weights to frequencies: `count` neighbours of each tap, `tap_step` bytes apart; in doubles, rounded once."""
    kind_name, lane_count, height_taps, width_taps = literals(kind, lanes, heights, widths)

    def codegen(context, builder, signature, args):
        source, tap_step, target, frequency_step, count = args[4:]
        vectors, doubles = Vectors(builder, kind_name, lane_count), Vectors(builder, "f64", lane_count)

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            at, to = vectors.at(source, shift), vectors.at(target, shift)
            weights = []
            for _ in range(height_taps * width_taps):
                value = vectors.load(at)
                weights.append(builder.fpext(value, doubles.type) if kind_name == "f32" else value)
                at = builder.add(at, tap_step)
            columns = [_weights_forward(doubles, height_taps, weights[c::width_taps]) for c in range(width_taps)]
            for row in range(SAMPLES[height_taps]):
                for value in _weights_forward(doubles, width_taps, [column[row] for column in columns]):
                    vectors.store(builder.fptrunc(value, vectors.type) if kind_name == "f32" else value, to)
                    to = builder.add(to, frequency_step)
            return []

        counted_loop(builder, builder.sdiv(count, constant(lane_count)), [], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, heights, widths, source, tap_step, target, frequency_step, count)
    return returns(types.void, arguments), codegen
