"""Explanations: every method has its row, its verdict and a reason that a user can read."""

import contextlib
import math
import re

import grid
import numpy as np
import pytest
from checks import ABLE, NARROW, PLAIN, may_refuse, row
from checks import EVERY_METHOD as METHODS

import fastdil
from fastdil.kernels.amx import amx_kernel
from fastdil.kernels.winograd import winograd_kernel
from fastdil.kernels.winograd_weights import weight_kernel

VERDICTS = {"chosen", "slower", "refused"}
SHAPES = [
    ((1, 32, 128, 128), (64, 32, 3, 3), {"padding": 15, "dilation": 15}),
    ((1, 1, 1 << 20), (1, 1, 1024), {"dilation": 4}),
    ((1, 64, 56, 56), (64, 1, 7, 7), {"padding": 9, "dilation": 3, "groups": 64}),
    ((1, 2048, 33, 33), (256, 2048, 3, 3), {"padding": 18, "dilation": 18}),
    ((4, 32, 48, 48, 48), (32, 32, 3, 3, 3), {"padding": 2, "dilation": 2}),
    ((0, 3, 9), (4, 3, 3), {}),
    ((1, 0, 9), (4, 0, 3), {}),
    ((2, 3, 40), (4, 3, 3), {"stride": 2}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int16", "bool", "float16"])
@pytest.mark.parametrize(("x_shape", "w_shape", "args"), SHAPES)
def test_rows(x_shape, w_shape, args, dtype):
    e = fastdil.explain(x_shape, w_shape, dtype=dtype, **args)
    assert sorted(c.name for c in e.candidates) == sorted(METHODS)
    assert [c.name for c in e.candidates if c.verdict == "chosen"] == [e.chosen]
    fastest = row(e, e.chosen).seconds
    for c in e.candidates:
        assert c.verdict in VERDICTS
        assert isinstance(c.reason, str)
        assert len(c.reason) >= 10
        if c.verdict == "refused":
            assert may_refuse(c.name, dtype, args.get("stride", 1), e.problem)
            assert c.seconds is None
        else:
            assert c.seconds >= fastest >= 0
            assert c.seconds > 0 or e.problem.is_empty
            assert math.isfinite(c.seconds)
            assert 0 <= c.workspace_bytes <= 64 << 20
            assert c.gflops >= 0
            # Shares count the products of the definition; transforms need far fewer.
            assert c.peak_share is None or 0 <= c.peak_share <= (1.5 if c.name in PLAIN else 100)


@pytest.mark.parametrize("case", grid.SAMPLE, ids=str)
def test_what_is_explained_is_what_can_run(case):
    e = fastdil.explain(case.x_shape, case.w_shape, **case.args)
    assert e.chosen in METHODS
    assert not may_refuse(e.chosen, "float32", case.stride, e.problem)
    assert (
        e.problem.out_shape
        == fastdil.conv(np.zeros(case.x_shape, "f4"), np.zeros(case.w_shape, "f4"), **case.args).shape
    )


@pytest.mark.parametrize("name", ABLE)
def test_a_forced_method_is_the_chosen_one(name):
    e = fastdil.explain((1, 32, 4000), (1, 32, 3 if name in NARROW else 30), method=name)
    assert e.chosen == name
    assert row(e, name).verdict == "chosen"
    assert sorted(c.name for c in e.candidates) == sorted(METHODS)


@pytest.mark.parametrize("args", [{"stride": 2}, {"dtype": "int32"}])
def test_forcing_what_refuses(args):
    e = fastdil.explain((1, 1, 4000), (1, 1, 30), **args)
    for c in e.candidates:
        if c.verdict == "refused":
            with pytest.raises(ValueError, match=re.escape(c.reason)):
                fastdil.explain((1, 1, 4000), (1, 1, 30), method=c.name, **args)


def test_gflops_follow_from_the_seconds():
    e = fastdil.explain((1, 32, 128, 128), (64, 32, 3, 3), padding=15, dilation=15)
    for c in e.candidates:
        if c.seconds is not None:
            assert c.gflops == pytest.approx(e.problem.flops / c.seconds / 1e9, rel=1e-6)


def test_table():
    e = fastdil.explain((1, 32, 128, 128), (64, 32, 3, 3), padding=15, dilation=15)
    text = str(e)
    for c in e.candidates:
        line = next(line for line in text.splitlines() if re.search(rf"\b{c.name}\b.*\b{c.verdict}\b", line))
        assert line
    assert len(text.splitlines()) >= len(METHODS) + 1
    assert all(len(line) <= 200 for line in text.splitlines())
    assert text == text.rstrip("\n")


def test_refusals_are_in_the_table():
    e = fastdil.explain((1, 1, 4000), (1, 1, 30), stride=2)
    for c in e.candidates:
        if c.verdict == "refused":
            assert c.reason in str(e)


def test_explaining_compiles_and_computes_nothing():
    """A problem far too large to run is explained at once."""
    e = fastdil.explain((64, 4096, 4096, 4096), (4096, 4096, 3, 3), padding=1)
    assert e.chosen in METHODS


def test_unbatched_shapes():
    assert fastdil.explain((32, 128), (64, 32, 3)).problem.batch == 1


def test_threads_make_it_no_slower():
    one = fastdil.explain((1, 64, 128, 128), (64, 64, 3, 3), threads=1)
    two = fastdil.explain((1, 64, 128, 128), (64, 64, 3, 3), threads=2)
    for name in ABLE:
        assert row(two, name).seconds <= row(one, name).seconds * 1.0001


def test_methods_and_machine():
    assert METHODS[:1] != ()
    assert set(METHODS) >= {"reference", "direct", "im2col", "fft", "winograd", "amx"}
    assert isinstance(METHODS, tuple)
    m = fastdil.machine()
    assert m.isa in ("avx512", "avx2", "generic")
    assert m.vector_bytes in (16, 32, 64)
    assert m.cores >= 1
    assert 0 < m.l1 <= m.l2
    assert m.isa in str(m)


def test_warmup_leaves_nothing_of_common_layers_to_compile():
    """Of those with many channels too, of which `winograd` and `amx` have kernels of their own."""
    fastdil.warmup()
    kernels = [winograd_kernel, weight_kernel, amx_kernel]
    before = [kernel.cache_info().misses for kernel in kernels]
    rng = np.random.default_rng(0)
    for shape in ((96, 64, 3, 3), (64, 96, 3)):
        x = rng.standard_normal((2, shape[1], *(30,) * (len(shape) - 2)), np.float32)
        w = rng.standard_normal(shape, np.float32)
        for method in fastdil.methods():
            with contextlib.suppress(ValueError):  # not on this processor
                fastdil.conv(x, w, method=method)
    assert [kernel.cache_info().misses for kernel in kernels] == before


def test_warmup_returns_and_repeats():
    fastdil.warmup()
    fastdil.warmup(dtypes=("float32", "float64"), methods=("direct",))
    with pytest.raises((TypeError, ValueError), match="expected"):
        fastdil.warmup(dtypes=("float31",))
    with pytest.raises((TypeError, ValueError), match="expected"):
        fastdil.warmup(methods=("best",))
