"""Receptive fields of stacks and graphs against the set of inputs that paths really reach."""

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths_oracle import paths, plain

import fastdil
from fastdil.theory import (
    Layer,
    Node,
    Pool,
    ReceptiveField,
    Transposed,
    Upsample,
    receptive_field,
    receptive_field_graph,
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


def test_ten_thousand_layers_and_huge_strides():
    start = time.perf_counter()
    assert receptive_fields([Layer(3, padding="same")] * 10_000)[-1] == (20_001, 1, -10_000)
    assert receptive_field([Layer(3, stride=2)] * 1000) == (2**1001 - 1, 2**1000, 0)
    chain = [Node(f"n{i}", Layer(3, padding=1)) for i in range(5_000)]
    assert receptive_field_graph(chain) == (10_001, 1, -5_000)
    assert time.perf_counter() - start < 10


# ---------------------------------------------------------------------------------------------------------
# graphs
# ---------------------------------------------------------------------------------------------------------


def graph_paths(nodes, name, output) -> set[int]:
    """Inputs that one output of a node reaches, by recursion."""
    if name == "input":
        return {output}
    layer, inputs = nodes[name]
    stack = [] if layer in (None, "add", "concat") else layer if isinstance(layer, list) else [layer]
    reached = paths([as_plain(each) for each in stack], output)
    names = [inputs] if isinstance(inputs, str) else inputs
    return {source for at in reached for before in names for source in graph_paths(nodes, before, at)}


def same(k, d=1, s=1):
    return Layer(k, d, s, padding=(k - 1) * d // 2)


RESIDUAL = {
    "a": ([same(3), same(3, 2)], "input"),
    "sum": ("add", ["a", "input"]),
    "b": (same(5, 3), "sum"),
    "sum2": ("add", ["b", "sum"]),
}
ASPP = {
    **{f"d{d}": (same(3, d), "input") for d in (6, 12, 18)},
    "one": (Layer(1), "input"),
    "all": ("concat", ["d6", "d12", "d18", "one"]),
    "out": (same(3), "all"),
}
UNET = {
    "enc": ([same(3), same(3)], "input"),
    "down": (Pool(2), "enc"),
    "mid": ([same(3), Pool(2), same(3), Upsample(2), same(3)], "down"),
    "skip": ("concat", ["mid", "down"]),
    "up": (Transposed(4, stride=2, padding=1), "skip"),
    "join": ("concat", ["up", "enc"]),
    "dec": (same(3), "join"),
}
STRIDED = {"a": (same(3, 1, 2), "input"), "b": ([same(5), same(1, 1, 2)], "input"), "s": ("add", ["a", "b"])}


@pytest.mark.parametrize("nodes", [RESIDUAL, ASPP, UNET, STRIDED], ids=["residual", "ASPP", "U-Net", "strided"])
def test_graphs_reach_what_the_field_says(nodes):
    end = list(nodes)[-1]
    seen = [graph_paths(nodes, end, output) for output in range(8)]
    field = receptive_field_graph(nodes)
    assert field.size == max(map(span, seen))
    assert field.start == min(seen[0])
    sizes = [span(each) for each in seen]
    assert sizes[:4] == sizes[4:]
    assert [min(b) - min(a) for a, b in zip(seen[:4], seen[4:], strict=True)] == [4 * field.stride] * 4
    shuffled = [Node(name, *nodes[name]) for name in sorted(nodes)]
    assert receptive_field_graph(shuffled) == field
    assert receptive_field_graph([tuple(node) for node in shuffled], output=end) == field


def test_a_graph_without_branches_is_a_stack():
    layers = [same(3), Pool(2), same(5, 2), Upsample(2), Layer(4, 2)]
    chain = [Node(f"n{i}", layer) for i, layer in enumerate(layers)]
    assert receptive_field_graph(chain) == receptive_field(layers)
    assert receptive_field_graph({"all": (layers, "input")}) == receptive_field(layers)
    assert receptive_field_graph(chain, output="n1") == receptive_field(layers[:2])
    assert receptive_field_graph([("relu", None)]) == (1, 1, 0)
    assert receptive_field_graph([Node("c", Layer((3, 5))), Node("act")]) == ((3, 5), (1, 1), (0, 0))


def test_a_residual_leaves_the_hull():
    branch = [same(3), same(3, 2)]
    assert receptive_field_graph(dict(list(RESIDUAL.items())[:2])) == receptive_field(branch)


def test_causal_networks_align_at_their_end():
    nodes = [
        Node("c1", [Layer(7, padding="causal"), Layer(7, padding="causal")]),
        Node("down", Layer(1), "input"),
        Node("s1", "add", ("c1", "down")),
        Node("c2", Layer(2, 4, padding=((4, 0),))),
        Node("s2", "add", ("c2", "s1")),
    ]
    assert receptive_field_graph(nodes) == (17, 1, -16)
    mirrored = [Node("c", Layer(3, padding="anticausal")), Node("s", "add", ("c", "input"))]
    assert receptive_field_graph(mirrored) == (3, 1, 0)
    assert receptive_field_graph(mirrored, align="start") == (3, 1, 0)
    with pytest.raises(ValueError, match=r"nodes\['s'\]=.*aligned at the centre, but 'c' has it at 1 and 'input' at 0"):
        receptive_field_graph(mirrored, align="centre")
    with pytest.raises(ValueError, match=r"nodes\['s'\]=.*aligned at the end, but 'c' has it at 2 and 'input' at 0"):
        receptive_field_graph(mirrored, align="end")


def test_unaligned_branches_have_a_hull():
    nodes = {"a": (Layer(3), "input"), "b": (Layer(2, padding=((6, 0),)), "input"), "s": ("add", ["a", "b"])}
    assert receptive_field_graph(nodes, align="none") == (9, 1, -6)


def pair(a, b):
    return {"a": (a, "input"), "b": (b, "input"), "meet": ("add", ["a", "b"])}


@pytest.mark.parametrize(
    ("nodes", "error", "text"),
    [
        (
            pair(Layer(3), Layer(3, padding=1)),
            ValueError,
            r"nodes\['meet'\].*'a' has it at 1 and 'b' at 0",
        ),
        (pair(same(3), Layer(2, padding="same")), ValueError, r"nodes\['meet'\].*'b' at 1/2"),
        (pair(same(3), same(3, 1, 2)), ValueError, r"nodes\['meet'\].*one stride, but 'a' has 1 and 'b' has 2"),
        (pair([same(3, 1, 2), Upsample(2)], same(3)), ValueError, r"nodes\['meet'\].*'a' has it at -1/2"),
        (pair(Layer(3, 1, 2, "same"), same(3, 1, 2)), ValueError, r"nodes\['meet'\].*where 'a' looks depends on"),
        (pair(Layer((3, 3), padding=(1, 0)), Layer(1)), ValueError, r"nodes\['meet'\].*'a' has it at 1"),
        ({"a": (same(3), "b"), "b": (same(3), "a")}, ValueError, "circle"),
        ({"a": (same(3), "a")}, ValueError, "circle"),
        ({"a": (same(3), "c")}, ValueError, r"nodes\['a'\]='c': expected the name of another node or 'input'"),
        ({"a": (same(3), "input"), "b": (same(3), "input")}, ValueError, "output=None: .*: a, b"),
        ({"a": (same(3), ["input", "input"])}, ValueError, r"nodes\['a'\].*one input; 'add' or 'concat' joins several"),
        ({"a": (same(3), [])}, ValueError, r"nodes\['a'\]=\[\]: expected the names"),
        ({"a": (same(3), 3)}, TypeError, r"nodes\['a'\]=3"),
        ({"a": ("mul", "input")}, ValueError, r"nodes\['a'\]='mul'"),
        ({"a": ([], "input")}, ValueError, "at least one"),
        ({"a": (3, "input")}, TypeError, "layers=3"),
        ({"a": same(3)}, TypeError, r"nodes\['a'\].*a pair \(layer, inputs\)"),
        ({"input": (same(3), "input")}, ValueError, "nodes='input'"),
        ([("a", same(3)), ("a", same(3))], ValueError, "nodes='a': expected every name once"),
        ([(1, same(3))], TypeError, "nodes=1"),
        ([same(3)], TypeError, "nodes=Layer"),
        ({}, ValueError, "nodes={}: expected at least one node"),
        (3, TypeError, "nodes=3"),
        ("ab", TypeError, "nodes='ab'"),
    ],
)
def test_refusals_name_the_node(nodes, error, text):
    with pytest.raises(error, match=text):
        receptive_field_graph(nodes)


def test_refused_options():
    with pytest.raises(ValueError, match="output='x'"):
        receptive_field_graph(ASPP, output="x")
    with pytest.raises(ValueError, match="align='left'"):
        receptive_field_graph(ASPP, align="left")
