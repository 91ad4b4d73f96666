"""Receptive fields of stacks and graphs against the set of inputs that paths really reach."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths_oracle import paths, plain

import fastdil
from fastdil.theory import (
    Layer,
    Pool,
    ReceptiveField,
    Transposed,
    Upsample,
    receptive_field,
    receptive_fields,
)


def as_plain(layer) -> dict:
    axis = layer.axes(1)[0]
    return plain(axis.kernel, axis.dilation, axis.stride, axis.padding[0], axis.transposed)


def span(seen) -> int:
    return max(seen) - min(seen) + 1 if seen else 0


# ---------------------------------------------------------------------------------------------------------
# stacks
# ---------------------------------------------------------------------------------------------------------

WINDOWS = {"k": st.integers(1, 5), "d": st.integers(1, 4), "s": st.integers(1, 3), "p": st.integers(-2, 4)}
CONVOLUTIONS = st.builds(lambda k, d, s, p: Layer(k, d, s, ((p, 0),)), **WINDOWS)
TRANSPOSED = st.builds(lambda k, d, s, p: Transposed(k, d, s, ((p, 0),)), **WINDOWS)
POOLS = st.builds(lambda k, s, p: Pool(k, s, p), WINDOWS["k"], WINDOWS["s"], WINDOWS["p"])


@given(st.lists(CONVOLUTIONS | POOLS, min_size=1, max_size=5))
def test_stacks_reach_what_the_field_says(layers):
    fields = receptive_fields(layers)
    assert fields[-1] == receptive_field(layers)
    assert [type(value) for value in fields[-1]] == [int, int, int]
    for count, field in enumerate(fields, start=1):
        for output in (0, 1, 7):
            seen = paths([as_plain(layer) for layer in layers[:count]], output)
            assert span(seen) == field.size
            assert min(seen) == field.start + output * field.stride


@given(st.lists(CONVOLUTIONS | TRANSPOSED | st.builds(Upsample, st.integers(1, 3)), min_size=1, max_size=4))
def test_upsampling_stacks_reach_what_the_field_says(layers):
    oracle = [as_plain(layer) for layer in layers]
    phases = math.prod(layer.stride for layer in layers if layer.transposed)
    seen = [paths(oracle, output) for output in range(phases)]
    field = receptive_field(layers)
    assert field.size == max(map(span, seen))
    assert field.start == (min(seen[0]) if seen[0] else None)
    stride = Fraction(1)
    for layer in layers:
        stride *= Fraction(1, layer.stride) if layer.transposed else layer.stride
    assert field.stride == stride
    assert receptive_fields(layers)[-1] == field


def test_fields_of_real_strided_stacks():
    """Impulses through the engine: the outputs that change tell which inputs each of them sees."""
    layers = [Layer(3, 2, 2, padding=3), Layer(4, 3, 1, ((2, 5),)), Pool(2)]
    n = 64
    y = np.eye(n, dtype=np.int64)[:, None]
    for layer in layers:
        axis = layer.axes(1)[0]
        w = np.ones((1, 1, axis.kernel), np.int64)
        y = fastdil.conv1d(y, w, stride=axis.stride, dilation=axis.dilation, padding=(axis.padding,))
    field = receptive_field(layers)
    for output in range(y.shape[2]):
        reads = np.flatnonzero(y[:, 0, output])
        first = field.start + output * field.stride
        if first >= 0 and first + field.size <= n:
            assert (reads[0], reads[-1]) == (first, first + field.size - 1)
        else:
            assert reads[0] >= first
            assert reads[-1] < first + field.size
    assert sum(field.start + o * field.stride >= 0 for o in range(y.shape[2])) > 3


def test_named_paddings():
    for k, d in itertools.product((1, 2, 3, 4), (1, 2, 5)):
        reach = (k - 1) * d
        assert receptive_field([Layer(k, d, padding="same")]) == (reach + 1, 1, -(reach // 2))
        assert receptive_field([Layer(k, d, padding="same_lower")]).start == -(reach - reach // 2)
        assert receptive_field([Layer(k, d, padding="causal")]).start == -reach
        assert receptive_field([Layer(k, d, padding="anticausal")]).start == 0
        assert receptive_field([Layer(k, d, padding="valid")]).start == 0
    causal = receptive_field([Layer(2, 2**i, padding="causal") for i in range(5)])
    assert causal.start + causal.size - 1 == 0
    unknown = receptive_field([Layer(3, stride=2, padding="same"), Layer(3, padding=1)])
    assert unknown == ReceptiveField(7, 2, None)
    assert receptive_field([Layer(4, stride=2, padding="same")]).start == -1  # 2 or 3 padded: 1 before in both cases
    with pytest.raises(ValueError, match=r"padding='same': .*numbers"):
        receptive_field([Layer(3, stride=2, padding="same"), Upsample(2)])


def test_per_axis():
    layers = [Layer((3, 5), (2, 1), padding=(2, 0)), Layer(3, stride=(1, 2)), Upsample((2, 1))]
    field = receptive_field(layers)
    by_axis = [
        receptive_field([Layer(3, 2, padding=2), Layer(3), Upsample(2)]),
        receptive_field([Layer(5), Layer(3, stride=2), Upsample(1)]),
    ]
    assert field == ReceptiveField(*zip(*by_axis, strict=True))
    assert receptive_field([Layer((3,))]) == ((3,), (1,), (0,))
    assert receptive_field([Layer(3, padding=((2, 0),))]) == (3, 1, -2)
    assert receptive_fields(layers)[0] == ((5, 5), (1, 1), (-2, 0))


def test_worked_numbers():
    assert [f.size for f in receptive_fields([Layer(3, 2**i) for i in range(6)])] == [3, 7, 15, 31, 63, 127]
    assert receptive_field([Layer(3), Pool(2), Layer(3)]).size == 8
    assert receptive_field([Layer(3), Layer(3, dilation=2)]).size == 7


VGG = [2, 2, 3, 3, 3]
SPLICEAI = [(k, d) for k, d in ((11, 1), (11, 4), (21, 10), (41, 25)) for _ in range(8)]


@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ([Layer(2, 2**i) for i in range(10)], 1024),
        ([Layer(2, 2**i) for i in range(10)] * 3, 3070),
        ([Layer(k, d) for k, d in SPLICEAI], 10001),
        ([Layer(25), *(Layer(3, 2**i) for i in range(1, 10))], 2069),
        ([Layer(7, 2**i) for i in range(8) for _ in range(2)], 3061),
        ([layer for n in VGG for layer in (*[Layer(3, padding=1)] * n, Pool(2))], 212),
    ],
    ids=["WaveNet", "WaveNet, three cycles", "SpliceAI", "BPNet", "TCN", "VGG-16"],
)
def test_fields_of_known_models(layers, size):
    assert receptive_field(layers).size == size


def test_more_of_known_models():
    context = receptive_fields([Layer(3, d) for d in (1, 1, 2, 4, 8, 16, 1)])
    assert [field.size for field in context] == [3, 5, 9, 17, 33, 65, 67]
    assert receptive_field([layer for n in VGG for layer in (*[Layer(3, padding=1)] * n, Pool(2))]).stride == 32


def test_huge_strides():
    assert receptive_fields([Layer(3, padding="same")] * 1000)[-1] == (2001, 1, -1000)
    assert receptive_field([Layer(3, stride=2)] * 1000) == (2**1001 - 1, 2**1000, 0)
