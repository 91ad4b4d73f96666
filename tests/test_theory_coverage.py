"""Path counts, holes and evenness against enumeration of all paths and impulses through real convolutions."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths_oracle import dense, paths, plain

import fastdil
from fastdil.theory import (
    Layer,
    Pool,
    Transposed,
    Upsample,
    coverage,
    gridding_gcd,
    hdc_check,
    is_hole_free,
    is_uniform,
    measured_influence,
    path_counts,
)


def stack3(*dilations, k=3):
    return [Layer(k, dilation=d) for d in dilations]


def sums_of_taps(combs) -> np.ndarray:
    """Path counts by adding up every choice of taps."""
    total = np.zeros(1, int)
    for k, d in combs:
        total = np.add.outer(total, np.arange(k) * d).ravel()
    return np.bincount(total)


def check(combs, layers, seen):
    """Everything that `coverage` and its neighbours say, from the counts alone."""
    positions = np.flatnonzero(seen)
    assert path_counts(layers).tolist() == seen.tolist()
    found = coverage(layers)
    assert (found.size, found.seen) == (len(seen), len(positions))
    assert found.holes == tuple(np.flatnonzero(seen == 0).tolist())
    assert found.fraction == Fraction(len(positions), len(seen))
    assert found.gcd == gridding_gcd(layers) == (math.gcd(*positions.tolist()) or 1)
    assert is_hole_free(layers) == (len(positions) == len(seen))
    assert is_uniform(layers) == (len(set(seen.tolist())) == 1)
    assert found.cv == pytest.approx(np.std(seen) / np.mean(seen), abs=1e-12)
    if len(seen) > 1:
        share = seen[seen > 0] / seen.sum()
        assert found.entropy_ratio == pytest.approx(-(share * np.log(share)).sum() / np.log(len(seen)), abs=1e-12)
    # the bound that the textbook's "1/g of the data" stands for
    assert found.seen <= (found.size - 1) // found.gcd + 1


KINDS = list(itertools.product(range(1, 6), range(1, 9)))
SETS = [combs for depth in (1, 2, 3) for combs in itertools.combinations_with_replacement(KINDS, depth)]


def test_all_small_stacks():
    """Every stack with k <= 5, d <= 8 and up to three layers, all 65,640 of them, in every order."""
    made = {kind: Layer(kind[0], dilation=kind[1]) for kind in KINDS}
    expected = {combs: sums_of_taps(combs).tobytes() for combs in SETS}
    number = 0
    for depth in (1, 2, 3):
        for combs in itertools.product(KINDS, repeat=depth):
            counts = path_counts([made[kind] for kind in combs])
            assert counts.tobytes() == expected[tuple(sorted(combs))], combs
            number += 1
    assert number == 40 + 40**2 + 40**3


def test_what_follows_for_all_small_stacks():
    """Holes, divisors and uniformity of every such set of layers; the order does not matter, so each comes in one."""
    for number, combs in enumerate(SETS):
        layers = [Layer(k, dilation=d) for k, d in (combs if number % 2 else combs[::-1])]
        seen = sums_of_taps(combs)
        if number % 29 == 0:
            check(combs, layers, seen)
            continue
        assert is_hole_free(layers) == bool((seen > 0).all())
        assert is_uniform(layers) == bool((seen == seen[0]).all())
        assert gridding_gcd(layers) == (int(np.gcd.reduce(np.flatnonzero(seen))) or 1)


LAYERS = st.builds(
    lambda k, d, s, p, t: (Transposed if t else Layer)(k, d, s, ((p, 1),)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(-1, 3),
    st.booleans(),
)


def as_plain(layer) -> dict:
    return plain(layer.kernel_size, layer.dilation, layer.stride, layer.padding[0][0], layer.transposed)


@given(st.lists(LAYERS, min_size=1, max_size=4))
def test_strides_and_transposed_layers(layers):
    oracle = [as_plain(layer) for layer in layers]
    upsampling = math.prod(layer.stride for layer in layers if layer.transposed)
    all_seen = [paths(oracle, output) for output in range(upsampling)]
    for output, seen in enumerate(all_seen):
        assert path_counts(layers, output).tolist() == dense(seen)
        found = coverage(layers, output)
        assert (found.size, found.seen) == (len(dense(seen)), len(seen))
    assert is_hole_free(layers) == all(0 not in dense(seen) for seen in all_seen)
    assert is_uniform(layers) == all(len(set(dense(seen))) <= 1 for seen in all_seen)
    steps = [b - a for seen in all_seen for a, b in itertools.pairwise(sorted(seen))]
    assert gridding_gcd(layers) == (math.gcd(*steps) or 1)


def ones_response(layers, size) -> np.ndarray:
    """What output 0 of a real stack with all weights 1 answers to an impulse at each position of the input."""
    rank = len(size)
    y = np.eye(math.prod(size), dtype=np.int64).reshape(-1, 1, *size)
    for layer in layers:
        kernel = layer.axes(rank)
        w = np.ones((1, 1, *(axis.kernel for axis in kernel)), np.int64)
        y = fastdil.conv(y, w, stride=tuple(a.stride for a in kernel), dilation=tuple(a.dilation for a in kernel))
    return y[(slice(None), 0, *(0,) * rank)].reshape(size)


def as_layer(layer) -> Layer:
    """Pooling as the convolution that it is to the gradient."""
    return Layer(layer.kernel_size, layer.dilation, layer.stride)


def ones_of(layers) -> list[np.ndarray]:
    return [np.ones((1, 1, layer.kernel_size)) for layer in layers]


def pushed_back(layers, rank=1) -> np.ndarray:
    """An impulse at one output of a real stack, pushed back to its input: zeros between the outputs undo a stride, and
    the turned kernel, here the same, on all that it touches is the adjoint of the layer."""
    y = np.ones((1,) * (rank + 2), np.int64)
    for layer in reversed(layers):
        axes = layer.axes(rank)
        spaced = np.zeros((1, 1, *((n - 1) * a.stride + 1 for n, a in zip(y.shape[2:], axes, strict=True))), np.int64)
        spaced[(..., *(slice(None, None, a.stride) for a in axes))] = y
        w = np.ones((1, 1, *(a.kernel for a in axes)), np.int64)
        y = fastdil.conv(spaced, w, dilation=tuple(a.dilation for a in axes), padding=tuple(a.reach for a in axes))
    return y[0, 0]


@pytest.mark.parametrize(
    "layers",
    [
        stack3(1, 2, 4),
        stack3(2, 4),
        stack3(2, 3),
        [Layer(5, dilation=3), Layer(2, dilation=4), Layer(4)],
        [Layer(3), Pool(2), Layer(3, dilation=2), Pool(3, 2), Layer(2)],
    ],
)
def test_impulses_through_real_convolutions(layers):
    counts = path_counts(layers)
    assert ones_response(layers, counts.shape).tolist() == counts.tolist()
    assert pushed_back(layers).tolist() == counts.tolist()
    assert measured_influence([as_layer(each) for each in layers], ones_of(layers))[0].tolist() == counts.tolist()


def test_impulses_through_real_convolutions_in_2d_and_3d():
    for layers in (
        [Layer((3, 2), dilation=(2, 1)), Layer(3, dilation=(1, 2)), Pool(2)],
        [Layer((1, 2, 3), dilation=2), Layer(2, stride=(1, 2, 1))],
    ):
        counts = path_counts(layers)
        assert ones_response(layers, counts.shape).tolist() == counts.tolist()
        assert pushed_back(layers, counts.ndim).tolist() == counts.tolist()
        found = coverage(layers)
        assert found.size == counts.shape
        assert found.fraction == Fraction(np.count_nonzero(counts), counts.size)
        assert found.cv == pytest.approx(np.std(counts) / np.mean(counts))
        share = counts[counts > 0] / counts.sum()
        assert found.entropy_ratio == pytest.approx(-(share * np.log(share)).sum() / np.log(counts.size))


def test_per_axis_results_are_tuples():
    found = coverage([Layer((3, 3, 1), dilation=(2, 1, 7)), Layer(3, dilation=(4, 2, 1))])
    assert found.size == (13, 7, 3)
    assert found.seen == (7, 7, 3)
    assert found.holes == ((1, 3, 5, 7, 9, 11), (), ())
    assert found.gcd == gridding_gcd([Layer((3, 3, 1), dilation=(2, 1, 7)), Layer(3, dilation=(4, 2, 1))]) == (2, 1, 1)
    assert found.fraction == Fraction(7, 13)
    assert coverage([Layer((3,))]).size == (3,)
    assert coverage([Layer(3, padding=((2, 0),))]).size == 3
    layers = [Layer((2, 2)), Upsample((1, 2))]
    assert path_counts(layers, (0, 1)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"output=\(0, 1, 2\)"):
        path_counts(layers, (0, 1, 2))
    with pytest.raises(ValueError, match="output=-1"):
        coverage(layers, -1)


def test_worked_numbers():
    found = coverage(stack3(2, 4))
    assert (found.seen, found.size, found.gcd) == (7, 13, 2)
    assert coverage([Layer((3, 3), dilation=2), Layer((3, 3), dilation=4)]).fraction == Fraction(49, 169)
    assert len(coverage(stack3(2, 3)).holes) == 2
    assert gridding_gcd(stack3(2, 3)) == 1
    assert is_hole_free(stack3(1, 2, 4))
    assert path_counts(stack3(1, 2, 4)).tolist() == [1, 1, 2, 1, 3, 2, 3, 1, 3, 2, 3, 1, 2, 1, 1]
    assert path_counts(stack3(1, 3)).tolist() == [1] * 9
    assert coverage(stack3(2, 2, 2)).seen == 7
    assert coverage(stack3(2, 2, 2)).size == 13
    for dilations, cv, entropy in (
        ((1, 3), 0, 1),
        ((1, 1), 0.415740, 0.946265),
        ((1, 2), 0.351364, 0.970836),
        ((2, 2), 1.054093, 0.693127),
    ):
        found = coverage(stack3(*dilations))
        assert (round(found.cv, 6), round(found.entropy_ratio, 6)) == (cv, entropy)


def test_uniform_schedules_of_the_literature():
    assert is_uniform([Layer(2, dilation=2**i) for i in range(10)])
    assert is_uniform([Layer(3, dilation=3**i) for i in range(10)])
    assert not is_uniform([Layer(3, dilation=2**i) for i in range(10)])
    assert is_uniform([Layer(2, stride=2), Layer(3), Layer(1, dilation=50), Layer(5, dilation=3)])
    assert is_uniform([Layer(1)])


def test_a_field_of_one_sample():
    assert path_counts([Layer(1, dilation=9)]).tolist() == [1]
    assert coverage([Layer(1)]) == (1, 1, Fraction(1), (), 1, 0.0, 1.0)


def test_outputs_that_read_nothing():
    layers = [Transposed(1, stride=3)]
    assert path_counts(layers, 1).tolist() == []
    assert coverage(layers, 1) == (0, 0, Fraction(1), (), 1, 0.0, 1.0)


# ---------------------------------------------------------------------------------------------------------
# HDC
# ---------------------------------------------------------------------------------------------------------


def paper_m2(rates) -> int:
    """Wang et al. 2018, as it is written."""

    def m(i):
        return (
            rates[-1]
            if i == len(rates)
            else max(m(i + 1) - 2 * rates[i - 1], 2 * rates[i - 1] - m(i + 1), rates[i - 1])
        )

    return m(2)


def test_hdc():
    assert hdc_check([1, 2, 5], 3) == (True, 2)
    assert hdc_check([1, 2, 9], 3) == (False, 5)
    assert hdc_check((2, 2, 2), kernel_size=3) == (True, 2)
    assert not is_hole_free(stack3(2, 2, 2))
    for depth in (2, 3, 4):
        for rates in itertools.product(range(1, 7), repeat=depth):
            assert hdc_check(rates, 3) == (paper_m2(rates) <= 3, paper_m2(rates))
    assert hdc_check([4], 3) == (False, 4)


@pytest.mark.parametrize(
    ("dilations", "kernel", "error", "text"),
    [
        ([], 3, ValueError, "dilations"),
        ([1, 0], 3, ValueError, "dilations=0"),
        (3, 3, TypeError, "dilations=3"),
        ("12", 3, TypeError, "dilations='12'"),
        ([1, 2], 0, ValueError, "kernel_size=0"),
        ([1, 2], (3, 3), TypeError, "kernel_size"),
    ],
)
def test_hdc_refusals(dilations, kernel, error, text):
    with pytest.raises(error, match=text):
        hdc_check(dilations, kernel)


# ---------------------------------------------------------------------------------------------------------
# exactness and speed
# ---------------------------------------------------------------------------------------------------------


def polynomial_power(k, n) -> list[int]:
    """Coefficients of ``(1 + z + ... + z^(k-1))^n`` by squaring one long integer with wide digits."""
    width = n * k.bit_length() + 1
    packed = sum(1 << (width * i) for i in range(k)) ** n
    return [(packed >> (width * i)) & ((1 << width) - 1) for i in range((k - 1) * n + 1)]


@pytest.mark.parametrize(("k", "n"), [(2, 62), (2, 63), (2, 64), (3, 39), (3, 40), (5, 27), (5, 28), (4, 150)])
def test_counts_around_and_beyond_64_bits(k, n):
    counts = path_counts([Layer(k)] * n)
    assert counts.dtype == (np.int64 if k**n < 2**63 else object)
    assert counts.tolist() == polynomial_power(k, n)
    assert all(type(count) is int for count in counts.tolist())
    assert sum(counts.tolist()) == k**n


def test_long_counts_of_mixed_stacks():
    """The recurrence for deep stacks and the boxes for shallow ones agree, and with a product of long integers."""
    for layers in ([Layer(3), Layer(2, dilation=2), Layer(4, dilation=3)] * 30, stack3(*(2**i for i in range(6))) * 8):
        width = 200
        packed = 1
        for layer in layers:
            packed *= sum(1 << (width * layer.dilation * a) for a in range(layer.kernel_size))
        counts = path_counts(layers)
        assert counts.dtype == object
        assert sum(count << (width * i) for i, count in enumerate(counts.tolist())) == packed


def test_coverage_beyond_64_bits_agrees_with_exact_counts():
    for layers in ([Layer(3)] * 60, stack3(2, 4, 6) * 14, [Layer(5, dilation=3)] * 30):
        counts = path_counts(layers).tolist()
        found = coverage(layers)
        total = sum(counts)
        shares = [Fraction(count, total) for count in counts]
        variance = sum((share * len(counts) - 1) ** 2 for share in shares) / len(counts)
        assert found.cv == pytest.approx(math.sqrt(variance), rel=1e-12)
        entropy = -sum(float(share) * math.log(share) for share in shares if share)
        assert found.entropy_ratio == pytest.approx(entropy / math.log(len(counts)), rel=1e-12)
        assert found.holes == tuple(i for i, count in enumerate(counts) if count == 0)
    assert coverage([Layer(2, dilation=2**i) for i in range(20)] + [Layer(1)] * 50)[5:] == (0.0, 1.0)


def test_outer_products_beyond_64_bits():
    counts = path_counts([Layer((2, 2))] * 40)
    assert counts.dtype == object
    assert counts[20, 20] == math.comb(40, 20) ** 2


def test_fields_that_no_memory_holds():
    """Questions that need no list of positions are answered for any size; the others are refused in words."""
    layers = [Layer(3, dilation=2**40), Layer(3)]
    assert gridding_gcd(layers) == 1
    assert not is_hole_free(layers)
    for function in (path_counts, coverage):
        with pytest.raises(ValueError, match=r"^layers=.*at most 268435456 positions, not 2199023255555"):
            function(layers)
    wide = [Layer((2**20, 2**20))]
    assert coverage(wide).fraction == 1
    with pytest.raises(ValueError, match="at most 268435456 positions, not 1099511627776"):
        path_counts(wide)
