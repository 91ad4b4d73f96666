"""Layers: their geometry against brute force and the engine, their arguments, and what importing them costs."""

import itertools

import naive
import numpy as np
import pytest
from test_layering import in_child

import fastdil
from fastdil import theory
from fastdil.theory import Layer, Pool, Transposed, Upsample, effective_kernel_size, output_size, tap_positions


def test_effective_kernel_size():
    for k, d in itertools.product(range(1, 8), range(1, 20)):
        assert effective_kernel_size(k, d) == len(range(0, (k - 1) * d + 1))
    assert effective_kernel_size(3, 2) == 5
    assert effective_kernel_size(3, 15) == 31
    assert effective_kernel_size((3, 1, 2), 4) == (9, 1, 5)
    assert effective_kernel_size(3, (1, 2)) == (3, 5)
    assert effective_kernel_size(np.int64(3), np.int32(2)) == 5


@pytest.mark.parametrize(
    "padding", [0, 3, ((2, 0),), ((-1, 4),), "valid", "same", "same_lower", "causal", "anticausal"]
)
def test_output_size_counts_the_windows_that_fit(padding):
    for n, k, s, d in itertools.product(range(1, 12), (1, 2, 3, 4), (1, 2, 3), (1, 2, 5)):
        pairs = naive.padding_pairs(padding, [n], [k], [s], [d])
        count = naive.out_size([n], [k], [s], [d], pairs)[0]
        if count:
            assert output_size(n, k, s, d, padding) == count
        else:
            with pytest.raises(ValueError, match=r"^n=\d+: expected at least \d+ samples"):
                output_size(n, k, s, d, padding)


def test_output_size_is_the_engines():
    x, w = np.ones((1, 17, 20), np.int64), np.ones((1, 1, 3, 2), np.int64)
    arguments = {"stride": (2, 3), "dilation": (3, 1), "padding": ((1, 0), (2, 4))}
    assert output_size((17, 20), (3, 2), **arguments) == fastdil.conv2d(x, w, **arguments).shape[1:]
    assert output_size(33, (3, 5)) == (31, 29)
    assert output_size((9, 10, 11), 3) == (7, 8, 9)
    assert output_size(0, 3, padding="same") == 0


def test_transposed_output_size_is_pytorchs_formula():
    for n, k, s, d, p in itertools.product((1, 4, 9), (1, 3, 4), (1, 2, 3), (1, 2), (0, 1)):
        expected = (n - 1) * s - 2 * p + d * (k - 1) + 1
        layer = Transposed(k, d, s, p).axes(1)[0]
        if expected >= 0:
            assert layer.output_size(n) == expected
        else:
            with pytest.raises(ValueError, match="padding"):
                layer.output_size(n)
    assert Transposed(3, stride=2, padding=((1, 0),)).axes(1)[0].output_size(8) == 16
    assert Upsample((2, 3)).axes(2)[1].output_size(5) == 15


def test_tap_positions_are_those_the_engine_reads():
    n, k, d, s, p = 20, 3, 3, 2, 4
    impulses = np.eye(n, dtype=np.int64)[:, None]
    seen = fastdil.conv1d(impulses, np.ones((1, 1, k), np.int64), stride=s, dilation=d, padding=p)[:, 0]
    for i in range(seen.shape[1]):
        inside = [t for t in tap_positions(i, k, d, s, p) if 0 <= t < n]
        assert inside == np.flatnonzero(seen[:, i]).tolist()


def test_tap_positions_per_axis():
    assert tap_positions(0, 3, 2) == (0, 2, 4)
    assert tap_positions(2, 2, 3, 2, ((3, 0),)) == (1, 4)
    assert tap_positions((1, 0), (3, 1), 2, padding=(1, 0)) == ((0, 2, 4), (0,))
    assert tap_positions(4, 4, 2, padding="same") == (1, 3, 5, 7)
    assert tap_positions(4, 3, 2, padding="causal") == (0, 2, 4)
    with pytest.raises(ValueError, match=r"padding='same': .* depends on the input's size"):
        tap_positions(0, 3, stride=2, padding="same")


def test_same_padding_is_known_exactly_where_it_does_not_depend_on_the_size():
    for k, d, s, name in itertools.product(range(1, 6), range(1, 4), range(1, 6), ("same", "same_lower", "causal")):
        starts = {naive.padding_pairs(name, [n], [k], [s], [d])[0][0] for n in range(1, 60)}
        assert Layer(k, d, s, name).axes(1)[0].pad_lo() == (starts.pop() if len(starts) == 1 else None)


def test_layers_are_values():
    assert Layer([3, np.int64(5)]) == Layer((3, 5))
    assert hash(Layer(3, padding=[[1, 0]])) == hash(Layer(3, padding=((1, 0),)))
    assert Pool(3).stride == 3
    assert Pool((2, 3)).stride == (2, 3)
    assert Pool(3, 2).axes(1)[0] == Layer(3, stride=2).axes(1)[0]
    assert Layer(3).rank is None
    assert Layer(3, padding=(1, 2)).rank == 2
    assert not Layer(3, padding=((1, 2),)).is_per_axis
    assert Layer(3, in_channels=4, out_channels=6, groups=2).groups == 2


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Layer(0), ValueError, "kernel_size=0: expected an integer >= 1"),
        (lambda: Layer(3, dilation=0), ValueError, "dilation=0: expected an integer >= 1"),
        (lambda: Layer(3, stride=(1, 0)), ValueError, "stride=0: expected an integer >= 1"),
        (lambda: Layer(2.5), TypeError, "kernel_size=2.5: expected an integer >= 1"),
        (lambda: Layer(True), TypeError, "kernel_size=True"),
        (lambda: Layer("3"), TypeError, "kernel_size='3'"),
        (lambda: Layer(()), ValueError, r"kernel_size=\(\)"),
        (lambda: Layer((3, 3), dilation=(1, 2, 3)), ValueError, "2 in kernel_size, 3 in dilation"),
        (lambda: Layer(3, padding="wide"), ValueError, "padding='wide': expected one of"),
        (lambda: Layer((3, 3), padding="causal"), ValueError, "padding='causal'"),
        (lambda: Layer(3, padding=((1, 2, 3),)), ValueError, "padding"),
        (lambda: Layer(3, padding=1.5), TypeError, "padding=1.5"),
        (lambda: Layer(3, groups=0), ValueError, "groups=0"),
        (lambda: Layer(3, in_channels=4, groups=3), ValueError, "groups=3: expected a divisor of in_channels=4"),
        (lambda: Layer(3, out_channels=0), ValueError, "out_channels=0"),
        (lambda: Pool(0), ValueError, "kernel_size=0"),
        (lambda: Pool(2, 0), ValueError, "stride=0"),
        (lambda: Upsample(0), ValueError, "scale=0"),
        (lambda: Transposed(3, padding="same"), ValueError, "padding='same'"),
        (lambda: effective_kernel_size(3, 0), ValueError, "dilation=0"),
        (lambda: output_size(-1, 3), ValueError, "n=-1"),
        (lambda: output_size((5, 5), (3, 3, 3)), ValueError, r"n=\(5, 5\): expected 3 entries"),
        (lambda: tap_positions((0, 0), (3,)), ValueError, r"i=\(0, 0\): expected 1 entries"),
    ],
)
def test_refusals_name_the_argument(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("wrong", [2.0, True, np.True_, "3", b"3", {3}, {3: 1}, 1j, None, np.float32(3), [[3]]])
def test_numbers_of_the_wrong_kind(wrong):
    calls = [
        lambda: Layer(wrong),
        lambda: Layer(3, wrong),
        lambda: Layer(3, 1, wrong),
        lambda: Upsample(wrong),
        lambda: effective_kernel_size(3, wrong),
        lambda: output_size(wrong, 3),
        lambda: tap_positions(wrong, 3),
        lambda: theory.path_counts([Layer(3)], wrong),
        lambda: theory.checkerboard_period(2, wrong),
        lambda: theory.hdc_check([1, wrong], 3),
        lambda: theory.repair_schedule([1, wrong], 3),
        lambda: theory.cost([Layer(3)], (1, wrong)),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="expected"):
            call()


@pytest.mark.parametrize("wrong", [2.0, True, b"3", {3}, None, [[2.0, 1]], [["1", 1]]])
def test_paddings_of_the_wrong_kind(wrong):
    for make in (Layer, Pool, Transposed):
        with pytest.raises(TypeError, match=r"padding=.*expected"):
            make(3, padding=wrong)


def test_numbers_as_numpy_has_them():
    assert Layer(np.array(3), np.int8(2), padding=np.array(1)) == Layer(3, 2, padding=1)
    assert Layer(np.array([3, 5]), padding=np.array([[1, 0], [2, 2]])) == Layer((3, 5), padding=((1, 0), (2, 2)))
    assert theory.receptive_field(np.array([Layer(3), Layer(3)], object)).size == 5
    assert theory.path_counts([Layer(3)], np.array(0)).tolist() == [1, 1, 1]


STACK_FUNCTIONS = [
    theory.receptive_field,
    theory.receptive_fields,
    theory.path_counts,
    theory.coverage,
    theory.is_hole_free,
    theory.is_uniform,
    theory.gridding_gcd,
]


@pytest.mark.parametrize("function", STACK_FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("layers", "error", "text"),
    [
        ([], ValueError, r"layers=\[\]: expected .* at least one"),
        (3, TypeError, "layers=3: expected a sequence"),
        (Layer(3), TypeError, "expected a sequence"),
        ("abc", TypeError, "layers='abc'"),
        ([Layer(3), 3], TypeError, r"layers\[1\]=3: expected a Layer"),
        ({Layer(3)}, TypeError, "layers=.*a sequence"),
        ([Layer((3, 3)), Layer((3, 3, 3))], ValueError, r"layers\[1\]=.*2 spatial axes"),
        ([Layer(3, padding="causal"), Layer((3, 3))], ValueError, "padding='causal'"),
    ],
)
def test_stacks_that_are_none(function, layers, error, text):
    with pytest.raises(error, match=text):
        function(layers)


def test_stacks_may_be_any_iterable():
    assert theory.receptive_field(Layer(3, dilation=d) for d in (1, 2)).size == 7


def test_import_and_use_are_light():
    code = (
        "import sys, fastdil; assert 'theory' in dir(fastdil); t = fastdil.theory; L = t.Layer;"
        "assert sorted(t.__all__) == dir(t);"
        "t.coverage([L(3), L(3, dilation=2)]); t.receptive_field_graph([('a', L(3))]); t.phase_sequence(4, 2, 3);"
        "t.path_counts([t.Upsample(2), L(3)]); t.compare([L(3)], {'a': (L(3), None)}, (1, 9));"
        "t.design_schedule(3, 9); t.repair_schedule([2], 3);"
        "t.effective_receptive_field([L(3)] * 99); t.known_model('espnet-module');"
        " t.output_size(9, 3); t.hdc_check([1, 2], 3);"
        "print([m for m in ('numba', 'llvmlite', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    assert in_child(code) == "[]"
    code = "import fastdil\ntry: fastdil.theory.nonsense\nexcept AttributeError as e: print(e)"
    assert "nonsense" in in_child(code)


def test_public_names_resolve_to_what_they_say():
    for name in theory.__all__:
        value = getattr(theory, name)
        assert value.__name__ == name
        assert value.__doc__
