"""Winograd's transforms on vectors.

Along an axis, n samples are interpolated at n - 1 points and infinity: r taps make n + 1 - r outputs with n
multiplications instead of r (n + 1 - r) (Winograd, Arithmetic Complexity of Computations, 1980). Most axes take six
samples at 0, 3/4, -3/4, 3/2 and -3/2; where outputs are few, five at 1/2, -1/2, 3/2 and -3/2. Samples are
transformed alike for any number of taps; an axis of one tap passes through. Frequencies are as many as samples.

Where an axis has only two samples in a phase, and zeros around them, two outputs of three taps are w1 x0 + w2 x1 and
w0 x0 + w1 x1: three multiplications, as ``w1 (x0 + x1)`` is in both (F(2,2), with the parts of taps and samples
exchanged).

The points are not 0, 1 and 2: with 3 x 3 taps these err two to four times as much (`docs/performance.md`). All factors
of samples and outputs are exact in float32.
"""

from __future__ import annotations

from functools import reduce

from numba import types
from numba.extending import intrinsic

from fastdil.kernels.vectors import Vectors, constant, counted_loop, literals, returns

#: The *form* of an axis is its number of taps, or ten more: a tile of five samples instead of six.
_SHORT = (12, 13, 14)
#: And three taps on two samples between zeros: the tile starts where the second tap of its first output reads, and the
#: third of its samples is one of those zeros.
PAIR = 23
#: Samples that one tile reads along an axis of a form, taps, and outputs that it makes.
SAMPLES = {1: 1} | dict.fromkeys((2, 3, 4, 5), 6) | dict.fromkeys(_SHORT, 5) | {PAIR: 3}
TAPS = {form: form % 10 for form in SAMPLES}
OUTPUTS = {form: samples + 1 - TAPS[form] for form, samples in SAMPLES.items()} | {PAIR: 2}
#: The points other than 0, which six samples have too, and infinity; each also with the opposite sign.
_POINTS = dict.fromkeys((2, 3, 4, 5), (0.75, 1.5)) | dict.fromkeys(_SHORT, (0.5, 1.5))


def _scaled(vectors: Vectors, factor: float, value, added):
    """``factor * value + added``."""
    return vectors.fma(vectors.filled(factor), value, added)


def _forward(vectors: Vectors, form: int, x: list) -> list:
    """Samples to frequencies: the rows are the polynomials with all points but one as roots."""
    if form == 1:
        return x
    if form == PAIR:
        return [x[0], vectors.add(x[0], x[1]), x[1]]
    a, b = _POINTS[form]
    both, product, first = a * a + b * b, a * a * b * b, SAMPLES[form] - 5
    ends = [_scaled(vectors, product, x[i], _scaled(vectors, -both, x[i + 2], x[i + 4])) for i in range(first + 1)]
    inner = []
    for point, other in ((a, b), (b, a)):
        even = _scaled(vectors, -other * other, x[first + 1], x[first + 3])
        odd = _scaled(vectors, -other * other, x[first], x[first + 2])
        inner += [_scaled(vectors, point, odd, even), _scaled(vectors, -point, odd, even)]
    return [*ends[:first], *inner, ends[-1]]


def _backward(vectors: Vectors, form: int, m: list) -> list:
    """Products at each frequency to outputs: output i is the sum of those at each point, times its i-th power."""
    if form == 1:
        return m
    if form == PAIR:
        return [vectors.add(m[1], m[2]), vectors.add(m[1], m[0])]
    (a, b), (a_plus, a_minus, b_plus, b_minus, last) = _POINTS[form], m[-5:]
    sums = vectors.add(a_plus, a_minus), vectors.add(b_plus, b_minus)
    differences = vectors.sub(a_plus, a_minus), vectors.sub(b_plus, b_minus)
    start = vectors.add(*sums)
    outputs = [vectors.add(m[0], start) if len(m) > 5 else start]
    for power in range(1, OUTPUTS[form]):
        at_a, at_b = differences if power % 2 else sums
        outputs.append(_scaled(vectors, a**power, at_a, vectors.mul(vectors.filled(b**power), at_b)))
    outputs[-1] = vectors.add(outputs[-1], last)
    return outputs


def _load(vectors: Vectors, form: int, m: list):
    """At least the sum of the magnitudes that `_backward` adds up to any output; `m` are magnitudes."""
    if form == 1:
        return m[0]
    if form == PAIR:
        return reduce(vectors.add, m)
    *first, a_plus, a_minus, b_plus, b_minus, last = m
    rest = reduce(vectors.add, first, vectors.add(last, vectors.add(a_plus, a_minus)))
    return _scaled(vectors, _POINTS[form][1] ** (OUTPUTS[form] - 1), vectors.add(b_plus, b_minus), rest)


def _weights_forward(doubles: Vectors, form: int, w: list) -> list:
    """Weights to frequencies: their polynomial at each point, over the product of its distances from the others."""
    if form == 1:
        return w
    if form == PAIR:
        return [doubles.sub(w[0], w[1]), w[1], doubles.sub(w[2], w[1])]
    (a, b), has_zero = _POINTS[form], SAMPLES[form] > 5

    def polynomial(first: int, point: float, norm: float):
        """Every second term, from `first` on."""
        factors = [(w[power], point**power / norm) for power in range(first, TAPS[form], 2)]
        start = doubles.mul(doubles.filled(factors[0][1]), factors[0][0])
        return reduce(lambda total, term: _scaled(doubles, term[1], term[0], total), factors[1:], start)

    inner = []
    for point, other in ((a, b), (b, a)):
        norm = 2 * point * (point**2 - other**2) * (point if has_zero else 1)
        even, odd = polynomial(0, point, norm), polynomial(1, point, norm)
        inner += [doubles.add(even, odd), doubles.sub(even, odd) if has_zero else doubles.sub(odd, even)]
    zero = [doubles.mul(doubles.filled(1 / (a * a * b * b)), w[0])] if has_zero else []
    return [*zero, *inner, w[-1]]


@intrinsic(prefer_literal=True)
def transform_rows(typingctx, kind, lanes, form, target, pitch, rows, zeros, shift, count, following, ahead):
    """Along the height: `count` neighbouring samples of each row to as many of each frequency, `pitch` bytes apart.

    `rows` lists the addresses of as many rows as a tile has samples; they are read `shift` bytes further on. Where the
    address is 0, those at `zeros` are. One tap copies a row. Nothing is read beyond `count` samples; a last vector is
    stored whole, zeros behind them. Meanwhile those of the rows listed at `following` are fetched, which are read next,
    `ahead` bytes further on: neighbouring lines are not neighbours in memory.
    """
    kind_name, lane_count, axis_form = literals(kind, lanes, form)

    def codegen(context, builder, signature, args):
        target, pitch, table, zeros, shift, count, following, ahead = args[3:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)

        def listed(table, shift):
            rows = []
            for index in range(SAMPLES[axis_form]):
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
            for value in _forward(vectors, axis_form, samples):
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

    arguments = (kind, lanes, form, target, pitch, rows, zeros, shift, count, following, ahead)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def transform_columns(typingctx, kind, lanes, rows, form, step, source, pitch, shift, target, frequency_step, count):
    """Along the width: `count` tiles of each of `rows` rows that are `pitch` bytes apart to all their frequencies.

    With `step` 0, sample k of the tiles starts ``k * shift`` bytes into the row, and neighbouring tiles are
    neighbours there. Else the tiles stand in runs of `step`, as in the input, one for every output of a tile, and are
    taken apart in registers. Frequencies are `frequency_step` bytes apart. Whole vectors are read and written.
    """
    kind_name, lane_count, row_count, axis_form, run = literals(kind, lanes, rows, form, step)
    run = run if run <= lane_count else 0  # not reached: kernels ask only where a run fits a vector

    def codegen(context, builder, signature, args):
        source, pitch, shift, target, frequency_step, count = args[5:]
        vectors = Vectors(builder, kind_name, lane_count)
        samples, outputs = SAMPLES[axis_form], OUTPUTS[axis_form]

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
                for value in _forward(vectors, axis_form, values):
                    vectors.store(value, place)
                    place = builder.add(place, frequency_step)
                row = builder.add(row, pitch)
            return [vectors.at(at, (outputs if run else 1) * lane_count), vectors.at(to, lane_count)]

        steps = builder.sdiv(builder.add(count, constant(lane_count - 1)), constant(lane_count))
        counted_loop(builder, steps, [source, target], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, rows, form, step, source, pitch, shift, target, frequency_step, count)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def combine_frequencies(
    typingctx, kind, lanes, heights, widths, source, frequency_step, target, output_step, loads, count
):
    """`count` vectors of products at all frequencies to the outputs of their tiles, `output_step` bytes apart.

    `heights` and `widths` are the forms of the two axes. `loads` receives a vector for each vector of tiles: the sum of
    the magnitudes that are added up to the outputs of a tile, or a little more.
    """
    kind_name, lane_count, height_form, width_form = literals(kind, lanes, heights, widths)

    def codegen(context, builder, signature, args):
        source, frequency_step, target, output_step, loads, count = args[4:]
        vectors = Vectors(builder, kind_name, lane_count)
        rows, columns = SAMPLES[height_form], SAMPLES[width_form]

        def body(index, carried):
            at, to, at_load = carried
            following = [vectors.at(place, lane_count) for place in carried]
            products = []
            for _ in range(rows * columns):
                products.append(vectors.load(at))
                at = builder.add(at, frequency_step)
            magnitudes = [vectors.absolute(product) for product in products]
            by_column = [_load(vectors, height_form, magnitudes[c::columns]) for c in range(columns)]
            vectors.store(_load(vectors, width_form, by_column), at_load)
            by_column = [_backward(vectors, height_form, products[c::columns]) for c in range(columns)]
            for row in range(OUTPUTS[height_form]):
                for value in _backward(vectors, width_form, [column[row] for column in by_column]):
                    vectors.store(value, to)
                    to = builder.add(to, output_step)
            return following

        counted_loop(builder, count, [source, target, loads], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, heights, widths, source, frequency_step, target, output_step, loads, count)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def join_runs(typingctx, kind, lanes, form, step, target, source, output_step, count):
    """Put runs of `step` outputs, taken from each output of a tile in turn, side by side; `count` of each.

    Outputs are `output_step` bytes apart; `step` divides the lanes. Whole vectors are read and written.
    """
    kind_name, lane_count, axis_form, run = literals(kind, lanes, form, step)

    def codegen(context, builder, signature, args):
        target, source, output_step, count = args[4:]
        vectors, outputs = Vectors(builder, kind_name, lane_count), OUTPUTS[axis_form]

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

    return returns(types.void, (kind, lanes, form, step, target, source, output_step, count)), codegen


@intrinsic(prefer_literal=True)
def transform_weights(typingctx, kind, lanes, heights, widths, source, tap_step, target, frequency_step, count):
    """Weights to frequencies: `count` neighbours of each tap, `tap_step` bytes apart; in doubles, rounded once."""
    kind_name, lane_count, height_form, width_form = literals(kind, lanes, heights, widths)

    def codegen(context, builder, signature, args):
        source, tap_step, target, frequency_step, count = args[4:]
        vectors, doubles = Vectors(builder, kind_name, lane_count), Vectors(builder, "f64", lane_count)
        along = TAPS[width_form]

        def body(index, carried):
            shift = builder.mul(index, constant(lane_count))
            at, to = vectors.at(source, shift), vectors.at(target, shift)
            weights = []
            for _ in range(TAPS[height_form] * along):
                value = vectors.load(at)
                weights.append(builder.fpext(value, doubles.type) if kind_name == "f32" else value)
                at = builder.add(at, tap_step)
            columns = [_weights_forward(doubles, height_form, weights[c::along]) for c in range(along)]
            for row in range(SAMPLES[height_form]):
                for value in _weights_forward(doubles, width_form, [column[row] for column in columns]):
                    vectors.store(builder.fptrunc(value, vectors.type) if kind_name == "f32" else value, to)
                    to = builder.add(to, frequency_step)
            return []

        counted_loop(builder, builder.sdiv(count, constant(lane_count)), [], body)
        return context.get_dummy_value()

    arguments = (kind, lanes, heights, widths, source, tap_step, target, frequency_step, count)
    return returns(types.void, arguments), codegen
