"""Costs against counting: every output, every tap, every weight, one at a time."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fastdil.theory import Layer, Pool, Transposed, Upsample, compare, cost, valid_tap_fraction


def count_taps(n, kernel, dilation, stride, lo, hi):
    """(inside, all), one tap at a time."""
    outputs = (n + lo + hi - (kernel - 1) * dilation - 1) // stride + 1
    reads = [i * stride + a * dilation - lo for i in range(outputs) for a in range(kernel)]
    return sum(0 <= read < n for read in reads), len(reads)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pads", [(0, 0), (4, 4), (12, 0), (0, 9), (-1, 7), (20, 20)])
def test_valid_taps(n, stride, pads):
    for kernel, dilation in itertools.product((1, 2, 3), (1, 2, 5)):
        if n + sum(pads) < (kernel - 1) * dilation + 1:
            with pytest.raises(ValueError, match="samples"):
                valid_tap_fraction(n, kernel, dilation, stride, [pads])
            continue
        inside, every = count_taps(n, kernel, dilation, stride, *pads)
        assert valid_tap_fraction(n, kernel, dilation, stride, [pads]) == Fraction(inside, every)


def test_valid_taps_of_kernels_longer_than_any_loop():
    assert valid_tap_fraction(1000, 2**40, padding="same") == Fraction(1000, 2**40)
    assert valid_tap_fraction(10**15, 10**6 + 1, 3, stride=7) == 1
    n, k, d = 10**12, 10**5 + 1, 10**6
    outside = 2 * sum(a * d for a in range(k // 2 + 1))
    assert valid_tap_fraction(n, k, d, padding="same") == 1 - Fraction(outside, n * k)


def test_valid_taps_per_axis_and_empty():
    assert valid_tap_fraction((33, 33), 3, 6, padding="same") == (Fraction(29, 33),) * 2
    assert valid_tap_fraction(0, 3, padding="same") == 1
    assert [round(float(valid_tap_fraction(33, 3, d, padding="same") ** 2), 3) for d in (6, 12, 18)] == [
        0.772,
        0.574,
        0.405,
    ]


def test_textbook_layers():
    dense = cost([Layer(31, padding=15, in_channels=32, out_channels=64)], (32, 40, 40))
    dilated = cost([Layer(3, dilation=15, padding=15, in_channels=32, out_channels=64)], (32, 40, 40))
    assert (dense.parameters, dilated.parameters) == (1_968_128, 18_432)
    assert dense.output_shape == dilated.output_shape == (64, 40, 40)
    assert dense.macs == dense.parameters * 1600


@pytest.mark.parametrize(("channels", "ratio"), [(64, 1.6), (3, 3.526)])
def test_dilation_against_pooling(channels, ratio):
    first = Layer(3, padding="same", out_channels=64)
    pooled = [first, Pool(2), Layer(3, padding="same")]
    dilated = [first, Layer(3, dilation=2, padding="same")]
    found = compare(pooled, dilated, (channels, 32, 32))
    assert (found.a.receptive_field.size, found.b.receptive_field.size) == (8, 7)
    assert found.a.cost.parameters == found.b.cost.parameters
    assert found.b.cost.macs / found.a.cost.macs == pytest.approx(ratio, abs=5e-4)
    assert found.b.cost.per_layer[1].macs == 4 * found.a.cost.per_layer[2].macs
    assert {len(row) for row in found.rows} == {3}


def test_coverage_counts_all_axes():
    found = compare([Layer(3, dilation=2), Layer(3, dilation=4)], [Layer((3, 3))] * 6, (1, 32, 32))
    assert (found.a.coverage.fraction, found.b.coverage.fraction) == (Fraction(49, 169), 1)


def test_every_amount_of_a_small_stack():
    stack = [Layer(3, dilation=2, padding=1, out_channels=4, groups=2), Pool(2), Layer(2, out_channels=1)]
    found = cost(stack, (2, 9), bias=True, dtype="float64")
    shapes = [row.output_shape for row in found.per_layer]
    assert shapes == [(4, 7), (4, 3), (1, 2)]
    assert [row.parameters for row in found.per_layer] == [4 * 1 * 3 + 4, 0, 4 * 2 + 1]
    inside, every = count_taps(9, 3, 2, 1, 1, 1)
    assert [row.macs for row in found.per_layer] == [4 * every, 0, 16]
    assert [row.useful_macs for row in found.per_layer] == [4 * inside, 0, 16]
    assert [row.state_bytes for row in found.per_layer] == [8 * 2 * 4, 8 * 4, 8 * 4]
    assert found.activation_bytes == 8 * (18 + 28 + 12 + 2)
    assert found.peak_bytes == 8 * (18 + 28)
    assert str(found).count("\n") == 4


@pytest.mark.parametrize(
    ("n", "kernel", "dilation", "stride", "crop"), [(4, 3, 1, 2, 1), (5, 2, 3, 1, 0), (3, 4, 2, 3, 2)]
)
def test_transposed(n, kernel, dilation, stride, crop):
    found = cost([Transposed(kernel, dilation, stride, crop, out_channels=2)], (3, n))
    size = (n - 1) * stride + (kernel - 1) * dilation + 1 - 2 * crop
    writes = [i * stride + a * dilation - crop for i in range(n) for a in range(kernel)]
    assert found.output_shape == (2, size)
    assert (found.macs, found.useful_macs) == (6 * len(writes), 6 * sum(0 <= at < size for at in writes))
    assert cost([Upsample(2)], (3, n)).macs == 0


def test_graph():
    nodes = {
        "a": (Layer(3, padding="same", out_channels=5), "input"),
        "b": ([Layer(1, out_channels=2), Layer(3, dilation=2, padding="same")], "input"),
        "all": ("concat", ["a", "b"]),
        "out": ("add", ["all", "all2"]),
        "all2": (Layer(1), "all"),
    }
    found = cost(nodes, (1, 8), dtype="uint8")
    assert found.output_shape == (7, 8)
    assert found.parameters == 15 + 2 + 12 + 49
    assert found.activation_bytes == 8 * (1 + 5 + 2 + 2 + 7 + 7 + 7)
    assert found.peak_bytes == 8 * 21  # both terms of the sum, and the sum


def test_one_large_kernel_against_many_small_ones():
    large, small = [Layer(7, padding="same")], [Layer(3, padding="same")] * 3
    found = compare(large, small, (32, 64, 64))
    assert found.a.receptive_field == found.b.receptive_field == (7, 1, -3)
    assert found.a.cost.output_shape == found.b.cost.output_shape
    assert Fraction(found.b.cost.macs, found.a.cost.macs) == Fraction(27, 49)
    assert (found.a.coverage.cv, found.a.coverage.fraction, found.b.coverage.fraction) == (0, 1, 1)
    assert found.b.coverage.cv > 0.5  # as many pixels, but those at the rim by one path of 27 * 27
    table = str(found).splitlines()
    assert [line.split()[-1] for line in table if line.startswith("MACs")] == ["0.551"]
    assert max(map(len, table)) <= 80


def test_measured():
    found = cost([Layer(3, padding="same", out_channels=4), Pool(2), Layer(3)], (2, 40), bias=True, measure=True)
    times = [row.seconds for row in found.per_layer]
    assert times[0] > 0
    assert times[1] is None
    assert found.seconds == pytest.approx(times[0] + times[2])


@pytest.mark.parametrize(
    ("layers", "shape", "text"),
    [
        ([], (1, 8), "at least one"),
        ([Layer(3)], (8,), "input_shape=(8,): expected (C, *spatial)"),
        ([Layer(3)], (0, 8), "input_shape=(0, 8)"),
        ([Layer(3, in_channels=2)], (3, 8), "layers[0].in_channels=2: expected 3"),
        ([Layer(3), Layer(3, groups=2)], (3, 8), "layers[1].groups=2"),
        ([Layer(3), Layer(9)], (1, 8), "layers[1]: n=6"),
        ([Layer((3, 3))], (1, 8), "spatial axes"),
        ({"a": (Layer(1), "input"), "b": (Layer(2), "input"), "s": ("add", ["a", "b"])}, (1, 8), "nodes['s']"),
    ],
)
def test_refusals(layers, shape, text):
    with pytest.raises(ValueError, match="expected") as refusal:
        cost(layers, shape)
    assert text in str(refusal.value)


def test_wrong_types():
    for layers, shape in (("12", (1, 8)), ([3], (1, 8)), ([Layer(3)], 8), ([Layer(3)], (1, 8.0))):
        with pytest.raises(TypeError, match="expected"):
            cost(layers, shape)


def test_costs_are_python_ints():
    found = cost([Layer(3, out_channels=np.int64(2))], np.array([1, 8]))
    for name in ("bias", "measure"):
        with pytest.raises(TypeError, match=f"{name}=1: expected True or False"):
            cost([Layer(3)], (1, 8), **{name: 1})
    assert all(type(value) is int for value in (found.parameters, found.macs, found.useful_macs, *found.output_shape))
