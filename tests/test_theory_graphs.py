"""Receptive fields and path counts of graphs against the paths that one follows, node by node."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from paths_oracle import dense, paths, plain

import fastdil
from fastdil.theory import (
    Layer,
    Node,
    Pool,
    Transposed,
    Upsample,
    compare,
    cost,
    coverage,
    known_model,
    path_counts,
    receptive_field,
    receptive_field_graph,
)


def as_plain(layer) -> dict:
    axis = layer.axes(1)[0]
    return plain(axis.kernel, axis.dilation, axis.stride, axis.padding[0], axis.transposed)


def span(seen) -> int:
    return max(seen) - min(seen) + 1 if seen else 0


def graph_paths(nodes, name, output) -> Counter:
    """Input -> number of paths from one output of a node, by recursion."""
    if name == "input":
        return Counter({output: 1})
    layer, inputs = nodes[name]
    stack = [] if layer in (None, "add", "concat") else layer if isinstance(layer, list) else [layer]
    seen = Counter()
    for at, count in paths([as_plain(each) for each in stack], output).items():
        for before in [inputs] if isinstance(inputs, str) else inputs:
            for source, further in graph_paths(nodes, before, at).items():
                seen[source] += count * further
    return seen


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


GRAPHS = pytest.mark.parametrize("nodes", [RESIDUAL, ASPP, UNET, STRIDED], ids=["residual", "ASPP", "U-Net", "strided"])


@GRAPHS
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


@GRAPHS
def test_paths_through_graphs_are_those_counted_one_by_one(nodes):
    end = list(nodes)[-1]
    for output in range(4):
        seen = dense(graph_paths(nodes, end, output))
        assert path_counts(nodes, output).tolist() == seen
        found = coverage(nodes, output)
        assert (found.size, found.seen) == (len(seen), np.count_nonzero(seen))
        assert found.holes == tuple(np.flatnonzero(np.array(seen) == 0))
        assert found.fraction == Fraction(found.seen, found.size)
        assert found.gcd == (math.gcd(*np.flatnonzero(seen).tolist()) or 1)
        assert found.cv == pytest.approx(np.std(seen) / np.mean(seen))


def ones(*shape):
    return np.ones((1, 1, *shape), np.int64)


def test_paths_through_graphs_in_two_dimensions():
    """A real pyramid with all weights 1, its branches added up: answers to impulses, which are no product of axes."""
    rates = ((1, 3), (2, 2), (4, 1))
    branches = {f"{d}": (Layer((3, 3), d, padding="same"), "input") for d in rates}
    nodes = {**branches, "all": ("concat", list(branches)), "last": (Layer((2, 1), stride=(2, 1)), "all")}
    counts = path_counts(nodes)
    x = np.eye(21 * 21, dtype=np.int64).reshape(-1, 1, 21, 21)
    y = sum(fastdil.conv2d(x, ones(3, 3), dilation=d, padding="same") for d in rates)
    y = fastdil.conv2d(y, ones(2, 1), stride=(2, 1))[:, 0, 5, 10].reshape(21, 21)
    rows, columns = np.nonzero(y)
    block = y[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert counts.tolist() == block.tolist()
    assert np.linalg.matrix_rank(counts) > 1
    found = coverage(nodes)
    assert found.size == block.shape == receptive_field_graph(nodes).size
    assert found.seen == (np.count_nonzero(block.any(axis=1)), np.count_nonzero(block.any(axis=0)))
    assert found.fraction == Fraction(np.count_nonzero(block), block.size)
    assert found.cv == pytest.approx(np.std(block) / np.mean(block))
    share = block[block > 0] / block.sum()
    assert found.entropy_ratio == pytest.approx(-(share * np.log(share)).sum() / np.log(block.size))


@pytest.mark.parametrize(
    "layers", [[same(3), Pool(2), same(5, 2), Upsample(2), Layer(4, 2)], [Layer((3, 2), (2, 3))] * 3]
)
def test_paths_of_a_chain_are_those_of_its_stack(layers):
    for output in range(2):
        assert path_counts({"all": (layers, "input")}, output).tolist() == path_counts(layers, output).tolist()
    of_graph, of_stack = coverage({"all": (layers, "input")}), coverage(layers)
    assert of_graph[:5] == of_stack[:5]
    assert of_graph[5:] == pytest.approx(of_stack[5:])


def test_more_paths_than_64_bits():
    """Residual blocks of three taps: a path passes each block in 4 ways, (1 + (z^-1 + 1 + z)) to the depth."""
    depth, nodes, before = 40, {}, "input"
    for number in range(depth):
        nodes[f"c{number}"] = (same(3), before)
        nodes[f"s{number}"] = ("add", [f"c{number}", before])
        before = f"s{number}"
    counts = path_counts(nodes)
    packed = (1 + 2 * 2**128 + 2**256) ** depth  # digits wide enough for 4**40
    assert counts.tolist() == [(packed >> (128 * i)) & (2**128 - 1) for i in range(2 * depth + 1)]
    assert sum(counts.tolist()) == 4**depth
    found = coverage(nodes)
    shares = counts.astype(float) / 4.0**depth
    assert found.cv == pytest.approx(np.std(shares) / np.mean(shares), rel=1e-12)
    assert found.holes == ()


def test_graphs_side_by_side():
    """A pyramid (ASPP) against a stack of the same rates, with everything that is said of two stacks."""
    pyramid = known_model("deeplab-aspp").design
    stack = [Layer((3, 3), dilation=d, padding="same", out_channels=256) for d in (6, 12, 18)]
    found = compare(pyramid, stack, (256, 33, 33))
    assert (found.a.receptive_field.size, found.b.receptive_field.size) == ((37, 37), (73, 73))
    assert (found.a.receptive_field.stride, found.b.receptive_field.stride) == ((1, 1), (1, 1))
    # 8 taps around the centre at each of three rates; 6 i + 12 j + 18 k takes 13 values per axis
    assert (found.a.coverage.fraction, found.b.coverage.fraction) == (Fraction(25, 37**2), Fraction(13**2, 73**2))
    assert (found.a.cost.parameters, found.b.cost.parameters) == (256**2 * (1 + 27 + 4), 256**2 * 27)
    assert cost(pyramid, (256, 33, 33)) == found.a.cost
    assert "1.8%" in str(found)
    numbers = {"a": (Layer(3, dilation=2, padding="same"), "input"), "s": ("add", ["a", "input"])}
    assert compare(numbers, stack[:1], (1, 9, 9)).a.coverage.fraction == Fraction(9, 25)


def test_what_graphs_cannot_be_asked():
    with pytest.raises(ValueError, match=r"nodes\['s'\].*aligned"):
        path_counts({"a": (Layer(2, padding="same"), "input"), "s": ("add", ["a", "input"])})
    with pytest.raises(ValueError, match=r"nodes=\(20001, 20001\): .* at most 16777216 positions"):
        coverage({"a": (Layer((3, 3), 10_000), "input")})
    with pytest.raises(ValueError, match=r"output=\(0, 0\)"):
        path_counts(RESIDUAL, (0, 0))


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
    for name in (["d6"], {}, 1):
        with pytest.raises(ValueError, match=r"output=.*expected the name of a node"):
            receptive_field_graph(ASPP, output=name)
    with pytest.raises(ValueError, match="output='x'"):
        receptive_field_graph(ASPP, output="x")
    with pytest.raises(ValueError, match="align='left'"):
        receptive_field_graph(ASPP, align="left")
