"""Shape arithmetic against brute force, and every refusal in words."""

import itertools
import sys

import naive
import numpy as np
import pytest

import fastdil
from fastdil.dtypes import as_dtype, result_dtypes
from fastdil.problem import ConvSpec, Problem, effective_kernel_size

# ---------------------------------------------------------------------------------------------------------
# shapes
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("dilation", [1, 2, 5, 40])
@pytest.mark.parametrize("pair", [(0, 0), (3, 1), (50, 90), (-2, 4), (4, -3), (-4, -4)])
def test_output_size_counts_the_windows_that_fit(pair, dilation, stride):
    for n, k in itertools.product(range(1, 20), (1, 2, 3, 5)):
        count = naive.out_size([n], [k], [stride], [dilation], [pair])[0]
        if count:
            p = Problem.create((1, 1, n), (1, 1, k), stride=stride, padding=(pair,), dilation=dilation)
            assert p.out_size == (1, 1, count)
            assert p.out_shape == (1, 1, count)
            assert p.effective_kernel[2] == len(range(0, (k - 1) * dilation + 1))
        else:
            with pytest.raises(ValueError, match=r"^x\.shape=.*effective kernel of"):
                Problem.create((1, 1, n), (1, 1, k), stride=stride, padding=(pair,), dilation=dilation)


@pytest.mark.parametrize("name", ["valid", "same", "same_lower", "causal", "anticausal"])
def test_named_padding_sizes(name):
    for n, k, s, d in itertools.product(range(1, 14), (1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3)):
        lo, hi = naive.padding_pairs(name, [n], [k], [s], [d])[0]
        count = naive.out_size([n], [k], [s], [d], [(lo, hi)])[0]
        if count == 0:
            continue
        p = Problem.create((1, 1, n), (1, 1, k), stride=s, padding=name, dilation=d)
        assert p.padding[2] == (lo, hi)
        assert p.out_size[2] == count
        if name.startswith("same"):
            assert count == -(-n // s)
        if name in ("causal", "anticausal"):
            assert count == (n - 1) // s + 1


@pytest.mark.parametrize("name", ["same", "same_lower", "causal", "anticausal"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_named_padding_of_nothing_is_nothing(name, kernel, stride):
    """``ceil(0 / stride)`` outputs: an empty chunk of a stream is no error."""
    p = Problem.create((1, 2, 0), (3, 2, kernel), stride=stride, padding=name, dilation=2)
    assert p.out_shape == (1, 3, 0)


def test_axes_that_are_missing_come_first():
    p = Problem.create((2, 6, 30), (4, 3, 5), stride=2, padding=3, dilation=4, groups=2)
    assert p.rank == 1
    assert (p.size, p.kernel, p.stride, p.dilation) == ((1, 1, 30), (1, 1, 5), (1, 1, 2), (1, 1, 4))
    assert p.padding == ((0, 0), (0, 0), (3, 3))
    p = Problem.create((2, 6, 30, 31), (4, 6, 5, 3), stride=(2, 1), padding=((1, 2), 3), dilation=(4, 2))
    assert (p.size, p.kernel, p.stride, p.dilation) == ((1, 30, 31), (1, 5, 3), (1, 2, 1), (1, 4, 2))
    assert p.padding == ((0, 0), (1, 2), (3, 3))


def test_counts_of_the_textbook_layer():
    p = Problem.create((1, 32, 128, 128), (64, 32, 3, 3), dilation=15, padding=15)
    assert p.out_shape == (1, 64, 128, 128)
    assert p.effective_kernel == (1, 31, 31)
    assert (p.taps, p.terms, p.out_pixels) == (9, 288, 16384)
    assert p.macs == 64 * 128 * 128 * 288
    assert p.flops == 2 * p.macs
    assert Problem.create((1, 2, 9), (3, 2, 3), dtype="complex64").flops == 8 * 7 * 3 * 6
    assert (p.group_in, p.group_out) == (32, 64)
    assert not p.is_empty


@pytest.mark.parametrize(("dilation", "share"), [(6, 0.772), (12, 0.574), (18, 0.405)])
def test_useful_share_of_the_narrow_map(dilation, share):
    p = Problem.create((1, 4, 33, 33), (4, 4, 3, 3), padding=dilation, dilation=dilation)
    assert p.useful_macs / p.macs == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize("pair", [(0, 0), (3, 1), (9, 12), (-2, 4), (4, -3), (-9, 15), (15, -9)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 11])
def test_valid_outputs_and_useful_work_by_counting(dilation, stride, pair):
    n, k = 8, 3
    if n + sum(pair) < (k - 1) * dilation + 1:
        pytest.skip("the kernel does not fit")
    p = Problem.create((2, 6, n), (3, 2, k), stride=stride, padding=(pair,), dilation=dilation, groups=3)
    kept = range(max(-pair[0], 0), n - max(-pair[1], 0))
    total = 0
    for tap in range(k):
        inside = [i for i in range(p.out_size[2]) if i * stride + tap * dilation - pair[0] in kept]
        assert p.valid_outputs(2, tap) == ((inside[0], inside[-1] + 1) if inside else (0, 0))
        total += len(inside)
    assert p.useful_macs == 2 * 3 * 2 * total


@pytest.mark.parametrize("pair", [(0, 0), (3, 1), (12, 12), (25, 3), (2, 30), (-2, 24), (24, -3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 4, 9])
def test_taps_that_meet_samples_by_counting(dilation, stride, pair):
    n, k = 8, 4
    if n + sum(pair) < (k - 1) * dilation + 1:
        pytest.skip("the kernel does not fit")
    p = Problem.create((1, 1, n), (1, 1, k), stride=stride, padding=(pair,), dilation=dilation)
    met = [tap for tap in range(k) if p.valid_outputs(2, tap) != (0, 0)]
    first, end = p.met_taps(2)
    assert set(met) <= set(range(first, end))
    if stride == 1 and met:
        assert (first, end) == (met[0], met[-1] + 1)
    x, w = np.arange(1.0, n + 1)[None, None], np.array([[[1.0, 10.0, 100.0, 1000.0]]])
    few = p.with_taps([(0, 1), (0, 1), (first, end)])
    assert few.out_shape == p.out_shape
    np.testing.assert_array_equal(
        naive.conv(x, w[..., first:end], stride=stride, padding=few.padding[2:], dilation=dilation),
        naive.conv(x, w, stride=stride, padding=[pair], dilation=dilation),
    )


@pytest.mark.parametrize("pair", [(0, 0), (3, 1), (-2, 4), (4, -3), (-3, -2), (-9, 15), (15, -9)])
def test_windows_crop_first_then_pad(pair):
    x = np.arange(1, 9)
    p = Problem.create((1, 1, 8), (1, 1, 1), padding=(pair,))
    crop, size, lo, hi = p.windows[2]
    np.testing.assert_array_equal(np.pad(x[crop : crop + size], (lo, hi)), naive.pad(x, [pair]))


@pytest.mark.parametrize(
    ("x_shape", "w_shape"), [((0, 2, 9), (3, 2, 3)), ((2, 0, 9), (3, 0, 3)), ((2, 2, 9), (0, 2, 3))]
)
def test_empty_problems_have_shapes(x_shape, w_shape):
    p = Problem.create(x_shape, w_shape)
    assert p.is_empty
    assert p.out_shape == (x_shape[0], w_shape[0], 7)


def test_unbatched_shapes_are_one_batch():
    assert Problem.create((2, 9), (3, 2, 3)).out_shape == (1, 3, 7)


def test_spec_is_hashable_and_knows_its_weights():
    spec = ConvSpec.parse((4, 3, 5), groups=2, dilation=[2], padding=[[1, 2]])
    assert spec == ConvSpec.parse((4, 3, 5), groups=2, dilation=(2,), padding=((1, 2),))
    assert hash(spec) == hash(ConvSpec.parse((4, 3, 5), groups=2, dilation=2, padding=((1, 2),)))
    assert spec.w_shape == (4, 3, 5)
    assert hash(spec.problem((1, 6, 20), np.dtype("f4"))) == hash(spec.problem((1, 6, 20), np.dtype("f4")))


def test_numpy_integers_are_integers():
    p = Problem.create(
        tuple(np.array([1, 2, 30])),
        tuple(np.array([4, 1, 3])),
        stride=np.int8(2),
        padding=np.array([3]),
        dilation=np.uint16(2),
        groups=np.int64(2),
    )
    assert p == Problem.create((1, 2, 30), (4, 1, 3), stride=2, padding=3, dilation=2, groups=2)
    assert all(type(n) is int for n in (*p.size, *p.kernel, *p.stride, *p.dilation, *p.padding[2], p.groups))


def test_effective_kernel_size():
    assert [effective_kernel_size(3, d) for d in (1, 2, 15)] == [3, 5, 31]
    assert effective_kernel_size(1, 99) == 1


@pytest.mark.parametrize(
    ("dtypes", "compute", "result"),
    [
        (["float32"], "float32", "float32"),
        (["float16"], "float32", "float16"),
        (["float16", "float32"], "float32", "float32"),
        (["float16", "int16"], "float32", "float32"),
        (["bfloat16"], "float32", "bfloat16"),
        (["bfloat16", "int8"], "float32", "bfloat16"),
        (["bfloat16", "float32"], "float32", "float32"),
        (["bfloat16", "float64"], "float64", "float64"),
        (["bool"], "uint8", "uint8"),
        (["bool", "int8"], "int8", "int8"),
        (["int64", "float32"], "float64", "float64"),
        (["complex64", "float64"], "complex128", "complex128"),
        ([">f4"], "float32", "float32"),
        ([">i2", "<i2"], "int16", "int16"),
    ],
)
def test_result_dtypes(dtypes, compute, result):
    found = result_dtypes(*map(as_dtype, dtypes))
    assert found == (as_dtype(compute), as_dtype(result))
    assert all(dtype.isnative for dtype in found)


# ---------------------------------------------------------------------------------------------------------
# refusals: the arguments of a call, what it raises, the parameter it names, words of the message
# ---------------------------------------------------------------------------------------------------------

HUGE = 10**30

REFUSALS = [
    # stride and dilation
    ({"stride": 0}, ValueError, "stride=0", ">= 1"),
    ({"stride": -1}, ValueError, "stride=-1", ">= 1"),
    ({"stride": 1.5}, TypeError, "stride=1.5", "integer"),
    ({"stride": 2.0}, TypeError, "stride=2.0", "integer"),
    ({"stride": True}, TypeError, "stride=True", "integer"),
    ({"stride": np.True_}, TypeError, "stride=np.True_", "integer"),
    ({"stride": "2"}, TypeError, "stride='2'", "integer"),
    ({"stride": None}, TypeError, "stride=None", "integer"),
    ({"stride": (1, 1, 1)}, ValueError, "stride=(1, 1, 1)", "2 entries"),
    ({"stride": (1,)}, ValueError, "stride=(1,)", "2 entries"),
    ({"stride": (1, 0)}, ValueError, "stride=0", ">= 1"),
    ({"stride": (1, None)}, TypeError, "stride=None", "integer"),
    ({"stride": HUGE}, ValueError, f"stride={HUGE}", "2**60"),
    ({"dilation": 0}, ValueError, "dilation=0", ">= 1"),
    ({"dilation": -3}, ValueError, "dilation=-3", ">= 1"),
    ({"dilation": False}, TypeError, "dilation=False", "integer"),
    ({"dilation": (2, 2.0)}, TypeError, "dilation=2.0", "integer"),
    ({"dilation": ()}, ValueError, "dilation=()", "2 entries"),
    ({"dilation": HUGE}, ValueError, f"dilation={HUGE}", "2**60"),
    ({"dilation": 2**59}, ValueError, "x.shape=", "effective kernel"),
    # padding
    ({"padding": 1.0}, TypeError, "padding=1.0", "integer"),
    ({"padding": None}, TypeError, "padding=None", "integer"),
    ({"padding": True}, TypeError, "padding=True", "integer"),
    ({"padding": "SAME"}, ValueError, "padding='SAME'", "'same'"),
    ({"padding": "full"}, ValueError, "padding='full'", "'valid'"),
    ({"padding": "causal"}, ValueError, "padding='causal'", "1-D"),
    ({"padding": "anticausal"}, ValueError, "padding='anticausal'", "1-D"),
    ({"padding": (1, 2, 3)}, ValueError, "padding=(1, 2, 3)", "2 entries"),
    ({"padding": ((1, 2, 3), (1, 2))}, ValueError, "padding=((1, 2, 3), (1, 2))", "(lo, hi)"),
    ({"padding": ((1, "a"), (1, 2))}, TypeError, "padding='a'", "integer"),
    ({"padding": (("same"), 1)}, TypeError, "padding='same'", "integer"),
    ({"padding": HUGE}, ValueError, f"padding={HUGE}", "2**60"),
    ({"padding": -HUGE}, ValueError, f"padding=-{HUGE}", "2**60"),
    ({"padding": 2**59}, ValueError, "padding=", "2**60"),
    ({"padding": -4}, ValueError, "x.shape=(9, 8)", "effective kernel of 3"),
    (
        {"padding": ((0, 0), (-9, 20)), "padding_mode": "reflect"},
        ValueError,
        "padding_mode='reflect'",
        "sample",
    ),
    # words
    ({"padding_mode": "edge"}, ValueError, "padding_mode='edge'", "'replicate'"),
    ({"padding_mode": None}, TypeError, "padding_mode=None", "'zeros'"),
    ({"padding_mode": 0}, TypeError, "padding_mode=0", "'zeros'"),
    ({"activation": "softmax"}, ValueError, "activation='softmax'", "'relu'"),
    ({"activation": abs}, TypeError, "activation=", "'relu'"),
    ({"precision": "low"}, ValueError, "precision='low'", "'highest'"),
    ({"precision": 32}, TypeError, "precision=32", "'highest'"),
    # groups and shapes
    ({"groups": 0}, ValueError, "groups=0", ">= 1"),
    ({"groups": 2}, ValueError, "groups=2", "divisor"),
    ({"groups": 3}, ValueError, "x.shape=", "6 channels"),
    ({"groups": True}, TypeError, "groups=True", "integer"),
    ({"groups": (1,)}, TypeError, "groups=(1,)", "integer"),
    ({"groups": HUGE}, ValueError, f"groups={HUGE}", "2**60"),
    ({"w_shape": (3, 2)}, ValueError, "w.shape=(3, 2)", "dimensions"),
    ({"w_shape": (3, 2, 1, 1, 1, 1)}, ValueError, "w.shape=(3, 2, 1, 1, 1, 1)", "dimensions"),
    ({"w_shape": (3, 2, 0, 3)}, ValueError, "w.shape=(3, 2, 0, 3)", "at least one tap"),
    ({"w_shape": (3, 5, 3, 3)}, ValueError, "x.shape=", "5 channels"),
    ({"x_shape": (1, 2, 9)}, ValueError, "x.shape=", "2 channels"),
    ({"x_shape": (9,)}, ValueError, "x.shape=(9,)", "4 dimensions"),
    ({"x_shape": ()}, ValueError, "x.shape=()", "4 dimensions"),
    ({"x_shape": (1, 1, 2, 9, 8)}, ValueError, "x.shape=(1, 1, 2, 9, 8)", "4 dimensions"),
    ({"x_shape": (1, 2, 2, 8)}, ValueError, "x.shape=(2, 8)", "effective kernel of 3"),
    ({"x_shape": (1, 2, 0, 8)}, ValueError, "x.shape=(0, 8)", "effective kernel of 3"),
]


@pytest.mark.parametrize(("change", "error", "named", "fragment"), REFUSALS, ids=lambda v: str(v)[:50])
def test_refusals_name_parameter_value_and_expectation(change, error, named, fragment):
    call = {"x_shape": (1, 2, 9, 8), "w_shape": (3, 2, 3, 3), **change}
    with pytest.raises(error) as caught:
        Problem.create(call.pop("x_shape"), call.pop("w_shape"), **call)
    text = str(caught.value)
    assert text.startswith(named)
    assert "expected " in text
    assert fragment in text
    assert len(text) < 500


@pytest.mark.parametrize(("change", "error", "named", "fragment"), REFUSALS, ids=lambda v: str(v)[:50])
def test_conv_refuses_in_the_same_words(change, error, named, fragment):
    call = {"x_shape": (1, 2, 9, 8), "w_shape": (3, 2, 3, 3), **change}
    x, w = np.zeros(call.pop("x_shape")), np.zeros(call.pop("w_shape"))
    with pytest.raises(error) as caught:
        fastdil.conv2d(x, w, **call)
    assert fragment in str(caught.value) or "dimensions" in str(caught.value)
    assert "expected " in str(caught.value)
    if w.ndim == 4:
        assert str(caught.value).startswith(named)


ONE = np.ones((1, 2, 9))
TAPS = np.ones((3, 2, 3))

CALLS = [
    (lambda: fastdil.conv1d(ONE, TAPS, method="best"), ValueError, "method='best'", "'direct'"),
    (lambda: fastdil.conv1d(ONE, TAPS, method=None), TypeError, "method=None", "'auto'"),
    (lambda: fastdil.conv1d(ONE, TAPS, threads=0), ValueError, "threads=0", ">= 1"),
    (lambda: fastdil.conv1d(ONE, TAPS, threads=1.0), TypeError, "threads=1.0", "integer"),
    (lambda: fastdil.conv1d(ONE, TAPS, threads=True), TypeError, "threads=True", "integer"),
    (lambda: fastdil.conv1d(ONE, TAPS, threads="2"), TypeError, "threads='2'", "integer"),
    (lambda: fastdil.conv1d(ONE, TAPS, np.ones(4)), ValueError, "bias", "(3,)"),
    (lambda: fastdil.conv1d(ONE, TAPS, np.ones((3, 1))), ValueError, "bias", "(3,)"),
    (lambda: fastdil.conv1d(ONE, TAPS, 1.0), ValueError, "bias", "(3,)"),
    (lambda: fastdil.conv1d(ONE, TAPS, "abc"), TypeError, "bias", "expected"),
    (lambda: fastdil.conv2d(ONE, TAPS), ValueError, "w.shape=(3, 2, 3)", "4 dimensions"),
    (lambda: fastdil.conv3d(ONE, TAPS), ValueError, "w.shape=(3, 2, 3)", "5 dimensions"),
    (
        lambda: fastdil.conv1d(ONE[..., None], TAPS[..., None]),
        ValueError,
        "w.shape=(3, 2, 3, 1)",
        "3 dimensions",
    ),
    (lambda: fastdil.conv(ONE, np.ones(3)), ValueError, "w.shape=(3,)", "dimensions"),
    (lambda: fastdil.conv(3.0, TAPS), ValueError, "x", "dimensions"),
    (lambda: fastdil.conv(ONE, 3.0), ValueError, "w.shape=()", "dimensions"),
    (lambda: fastdil.conv(None, TAPS), TypeError, "", "expected"),
    (lambda: fastdil.conv(ONE, None), TypeError, "", "expected"),
    (lambda: fastdil.conv("text", TAPS), TypeError, "", "expected"),
    (lambda: fastdil.conv([[1, 2], [3]], TAPS), ValueError, "x", "expected"),
    (lambda: fastdil.explain((1, 2, 9), (3, 2, 3), dtype="float31"), TypeError, "dtype='float31'", "dtype"),
    (lambda: fastdil.explain((1, 2, 9), (3, 2, 3), dtype="U3"), TypeError, "dtype=", "float64"),
    (lambda: fastdil.explain((1, 2, 9), (3, 2, 3), method="best"), ValueError, "method='best'", "'direct'"),
    (lambda: fastdil.explain((1, 2, -9), (3, 2, 3)), ValueError, "x.shape=-9", ">= 0"),
    (lambda: fastdil.explain((1, 2, 9.5), (3, 2, 3)), TypeError, "x.shape=9.5", "integer"),
    (lambda: fastdil.plan(TAPS, dilation=0), ValueError, "dilation=0", ">= 1"),
    (lambda: fastdil.plan(TAPS, method="best"), ValueError, "method='best'", "'direct'"),
    (lambda: fastdil.plan(TAPS, np.ones(2)), ValueError, "bias", "(3,)"),
    (lambda: fastdil.plan(TAPS)(np.ones((1, 3, 9))), ValueError, "x.shape=(1, 3, 9)", "2 channels"),
]


@pytest.mark.parametrize(("call", "error", "named", "fragment"), CALLS, ids=lambda v: v if isinstance(v, str) else "")
def test_calls_refuse_in_words(call, error, named, fragment):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(named)
    assert "expected " in text
    assert fragment in text


def test_huge_values_are_refused_without_building_anything():
    for change in ({"padding": 2**58}, {"padding": ((2**59, 0), (0, 0)), "stride": 2**59}):
        p = Problem.create((1, 2, 9, 8), (3, 2, 3, 3), **change)
        assert all(type(n) is int and n >= 1 for n in p.out_size)
    with pytest.raises(ValueError, match=r"2\*\*60"):
        Problem.create((1, 2, 9, sys.maxsize), (3, 2, 3, 3))


def test_long_values_are_cut_in_messages():
    with pytest.raises(ValueError, match="expected") as caught:
        Problem.create((1, 2, 9), (3, 2, 3), stride=tuple(range(1000)))
    assert len(str(caught.value)) < 300
