"""Channels mixed at each frequency, samples laid out for transforms and back, and how loud they are.

Frequencies f and L - f are worked on together: real taps have conjugate spectra there, so one broadcast weight serves
both. A sum of many channels is cut into chains as in `fastdil.kernels.tiles`.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from fastdil.jit import helper
from fastdil.kernels.intrinsics import Vectors, constant, counted_loop, literals, returns

#: What becomes of a finished chain: it replaces the sums, is added to them, or added with what rounding loses kept.
REPLACE, ADD, ADD_EXACTLY = range(3)


@intrinsic(prefer_literal=True)
def pack_pair(typingctx, kind, lanes, panel, data, channel_step, channels, first, second):
    """Copy the points at byte offsets `first` and `second` of every channel side by side into the panel."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        panel, data, channel_step, channels, first, second = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            to, at = carried
            for i, place in enumerate((builder.add(at, first), builder.add(at, second))):
                for part in range(2):
                    value = vectors.load(vectors.at(place, part * lane_count))
                    vectors.store(value, vectors.at(to, (2 * i + part) * lane_count))
            return [vectors.at(to, 4 * lane_count), builder.add(at, channel_step)]

        counted_loop(builder, channels, [panel, data], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, panel, data, channel_step, channels, first, second)), codegen


@intrinsic(prefer_literal=True)
def mix_chain(typingctx, kind, lanes, rows, weights, panel, count, target, second, row_step, how, errors):
    """One chain: complex weights of `rows` outputs times `count` channels of a panel.

    `weights` lists real and imaginary parts of `rows` numbers per channel. The sums of row r at the first frequency
    go to ``target + r * row_step``, those at the second, whose weights are the conjugates, `second` bytes further on.
    `how` is one of `REPLACE`, `ADD`, `ADD_EXACTLY`; `errors` is the distance in bytes from sums to what they lost.
    """
    kind_name, lane_count, row_count = literals(kind, lanes, rows)

    def codegen(context, builder, signature, args):
        weights, panel, count, target, second, row_step, how, errors = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        # A single row has too few sums to keep the multiply-add units busy: real and imaginary weights sum apart.
        apart = row_count == 1
        sums = [vectors.zero] * (4 * row_count * (2 if apart else 1))

        def body(index, carried):
            at, w, *sums = carried
            samples = [vectors.load(vectors.at(at, i * lane_count)) for i in range(4)]
            for row in range(row_count):
                real = vectors.splat(vectors.load_scalar(vectors.at(w, 2 * row)))
                imaginary = vectors.splat(vectors.load_scalar(vectors.at(w, 2 * row + 1)))
                minus = builder.fneg(imaginary)
                for i in range(4):
                    sums[4 * row + i] = vectors.fma(samples[i], real, sums[4 * row + i])
                # i w times x, at the second frequency -i w times x
                for i, factor in enumerate((minus, imaginary, imaginary, minus)):
                    to = 4 + i if apart else 4 * row + i
                    sums[to] = vectors.fma(samples[i ^ 1], factor, sums[to])
            return [vectors.at(at, 4 * lane_count), vectors.at(w, 2 * row_count), *sums]

        _, _, *sums = counted_loop(builder, count, [panel, weights, *sums], body)
        if apart:
            sums = [vectors.add(a, b) for a, b in zip(sums[:4], sums[4:], strict=True)]
        places = []
        for row in range(row_count):
            at = builder.add(target, builder.mul(row_step, constant(row)))
            for place in (at, builder.add(at, second)):
                places += [place, vectors.at(place, lane_count)]

        def close(value, place):
            vectors.store(value, place)

        def close_plainly(value, place):
            vectors.store(vectors.add(vectors.load(place), value), place)

        def close_exactly(value, place):
            before, error_place = vectors.load(place), builder.add(place, errors)
            after = vectors.add(before, value)
            added = vectors.sub(after, before)
            lost = vectors.add(vectors.sub(before, vectors.sub(after, added)), vectors.sub(value, added))
            vectors.store(after, place)
            vectors.store(vectors.add(vectors.load(error_place), lost), error_place)

        for code, action in ((REPLACE, close), (ADD, close_plainly), (ADD_EXACTLY, close_exactly)):
            with builder.if_then(builder.icmp_signed("==", how, constant(code))):
                for value, place in zip(sums, places, strict=True):
                    action(value, place)
        return context.get_dummy_value()

    arguments = (kind, lanes, rows, weights, panel, count, target, second, row_step, how, errors)
    return returns(types.void, arguments), codegen


@intrinsic(prefer_literal=True)
def settle_pair(typingctx, kind, lanes, rows, sums, errors, target, second, row_step):
    """Move `rows` finished sums (two points of two vectors each) to their places, with what rounding lost added."""
    kind_name, lane_count, row_count = literals(kind, lanes, rows)

    def codegen(context, builder, signature, args):
        sums, errors, target, second, row_step = args[3:]
        vectors = Vectors(builder, kind_name, lane_count)
        for row in range(row_count):
            at = builder.add(target, builder.mul(row_step, constant(row)))
            for i, place in enumerate((at, builder.add(at, second))):
                for part in range(2):
                    source = vectors.at(sums, (4 * row + 2 * i + part) * lane_count)
                    value = vectors.add(vectors.load(source), vectors.load(builder.add(source, errors)))
                    vectors.store(value, vectors.at(place, part * lane_count))
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, rows, sums, errors, target, second, row_step)), codegen


@intrinsic(prefer_literal=True)
def fill_zeros(typingctx, kind, lanes, target, count):
    """`count` vectors of zeros."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            vectors.store(vectors.zero, carried[0])
            return [vectors.at(carried[0], lane_count)]

        counted_loop(builder, args[3], [args[2]], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, count)), codegen


@intrinsic(prefer_literal=True)
def copy_pairs(typingctx, kind, lanes, target, target_step, source, source_step, count, shift):
    """`count` times: copy `lanes` neighbours, and `lanes` neighbours `shift` bytes further on, which may overlap them.

    So any number of elements between one and two vectors is copied without masks. Steps are in bytes.
    """
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, count, shift = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            to, at = carried
            values = [vectors.load(at), vectors.load(builder.add(at, shift))]
            vectors.store(values[0], to)
            vectors.store(values[1], builder.add(to, shift))
            return [builder.add(to, target_step), builder.add(at, source_step)]

        counted_loop(builder, count, [target, source], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, target_step, source, source_step, count, shift)), codegen


@helper
def copy_columns(kind, size, target, target_step, source, source_step, count, width):
    """Copy `count` rows of `width` neighbours; a row has at most 32."""
    if width == 1:
        copy_pairs(kind, 1, target, target_step, source, source_step, count, 0)
    elif width == 2:
        copy_pairs(kind, 1, target, target_step, source, source_step, count, size)
    elif width <= 4:
        copy_pairs(kind, 2, target, target_step, source, source_step, count, (width - 2) * size)
    elif width <= 8:
        copy_pairs(kind, 4, target, target_step, source, source_step, count, (width - 4) * size)
    elif width <= 16:
        copy_pairs(kind, 8, target, target_step, source, source_step, count, (width - 8) * size)
    else:
        copy_pairs(kind, 16, target, target_step, source, source_step, count, (width - 16) * size)


def _transposed(vectors: Vectors, rows: list) -> list:
    """Rows as columns: ever smaller square blocks across the diagonal change places."""
    lanes, half = vectors.lanes, vectors.lanes // 2
    while half:
        keep = [i if not i & half else lanes + i - half for i in range(lanes)]
        move = [i + half if not i & half else lanes + i for i in range(lanes)]
        result = list(rows)
        for i in range(lanes):
            if not i & half:
                result[i] = vectors.shuffle(rows[i], rows[i + half], keep)
                result[i + half] = vectors.shuffle(rows[i], rows[i + half], move)
        rows, half = result, half // 2
    return rows


@intrinsic(prefer_literal=True)
def interleave(typingctx, kind, lanes, target, target_step, pointers, blocks):
    """Transpose `lanes` rows, whose addresses are listed, into rows of `lanes` columns `target_step` bytes apart."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, pointers, blocks = args[2:]
        vectors, integers = Vectors(builder, kind_name, lane_count), Vectors(builder, "i64", 1)
        starts = [integers.load_scalar(integers.at(pointers, i)) for i in range(lane_count)]

        def body(index, carried):
            to, done = carried
            rows = [vectors.load(builder.add(start, done)) for start in starts]
            for column in _transposed(vectors, rows):
                vectors.store(column, to)
                to = builder.add(to, target_step)
            return [to, vectors.at(done, lane_count)]

        counted_loop(builder, blocks, [target, constant(0)], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, target_step, pointers, blocks)), codegen


@intrinsic(prefer_literal=True)
def separate(typingctx, kind, lanes, target, target_step, source, source_step, blocks):
    """The reverse of `interleave`: columns become rows `target_step` bytes apart."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        target, target_step, source, source_step, blocks = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            to, at = carried
            rows = [vectors.load(builder.add(at, builder.mul(source_step, constant(i)))) for i in range(lane_count)]
            for i, row in enumerate(_transposed(vectors, rows)):
                vectors.store(row, builder.add(to, builder.mul(target_step, constant(i))))
            return [vectors.at(to, lane_count), builder.add(at, builder.mul(source_step, constant(lane_count)))]

        counted_loop(builder, blocks, [target, source], body)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, target, target_step, source, source_step, blocks)), codegen


# ---------------------------------------------------------------------------------------------------------
# how loud the samples are
# ---------------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def measure(typingctx, kind, lanes, data, length, energy, largest):
    """Store the energy of each lane (real and imaginary parts together); raise the lanes' `largest` magnitudes."""
    kind_name, lane_count = literals(kind, lanes)
    unrolled = 2  # points: an addition takes four cycles

    def codegen(context, builder, signature, args):
        data, length, energy, largest = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def larger(value, most):
            size = vectors.absolute(value)
            return builder.select(builder.fcmp_ordered(">", size, most), size, most)

        def body(index, carried):
            at, *sums = carried
            for i in range(2 * unrolled):
                value = vectors.load(vectors.at(at, i * lane_count))
                sums[i] = vectors.fma(value, value, sums[i])
                sums[2 * unrolled + i % 2] = larger(value, sums[2 * unrolled + i % 2])
            return [vectors.at(at, 2 * unrolled * lane_count), *sums]

        start = [vectors.zero] * (2 * unrolled) + [vectors.load(largest)] * 2
        _, *sums = counted_loop(builder, builder.udiv(length, constant(unrolled)), [data, *start], body)
        total = vectors.add(vectors.add(sums[0], sums[1]), vectors.add(sums[2], sums[3]))
        vectors.store(total, energy)
        vectors.store(larger(sums[4], sums[5]), largest)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, data, length, energy, largest)), codegen


@intrinsic(prefer_literal=True)
def see_taps(typingctx, kind, lanes, data, taps, count, sums):
    """Add ``|samples| * taps`` over `count` neighbouring points to the two vectors at `sums`."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        data, taps, count, sums = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)
        places = [sums, vectors.at(sums, lane_count)]

        def body(index, carried):
            at, tap, *totals = carried
            weight = vectors.splat(vectors.load_scalar(tap))
            for i in range(2):
                value = vectors.absolute(vectors.load(vectors.at(at, i * lane_count)))
                totals[i] = vectors.fma(value, weight, totals[i])
            return [vectors.at(at, 2 * lane_count), vectors.at(tap, 1), *totals]

        _, _, *totals = counted_loop(builder, count, [data, taps, *(vectors.load(p) for p in places)], body)
        for total, place in zip(totals, places, strict=True):
            vectors.store(total, place)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, data, taps, count, sums)), codegen


@intrinsic(prefer_literal=True)
def weigh(typingctx, kind, lanes, weights, vectors_at, count, total):
    """Add ``weights[i] * vector i`` over `count` neighbouring vectors to the vector at `total`."""
    kind_name, lane_count = literals(kind, lanes)

    def codegen(context, builder, signature, args):
        weights, values, count, total = args[2:]
        vectors = Vectors(builder, kind_name, lane_count)

        def body(index, carried):
            w, at, sum_ = carried
            weight = vectors.splat(vectors.load_scalar(w))
            return [vectors.at(w, 1), vectors.at(at, lane_count), vectors.fma(vectors.load(at), weight, sum_)]

        *_, result = counted_loop(builder, count, [weights, values, vectors.load(total)], body)
        vectors.store(result, total)
        return context.get_dummy_value()

    return returns(types.void, (kind, lanes, weights, vectors_at, count, total)), codegen
