"""The benchmarks measure what they say: shapes, oracles, adapters, the table and its command line."""

import doctest
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import naive
import numpy as np
import pytest

from fastdil.problem import Problem

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the benchmarks are no part of the installed package

from benchmarks import (  # noqa: E402
    bench_conv,
    bench_overhead,
    bench_signals,
    bench_startup,
    bench_streams,
    calibrate,
    compare,
    dispatch_quality,
    flatness,
    machine_peak,
    ours,
    peers,
    reduced,
    report,
    timing,
    workloads,
)

ROWS = [pytest.param(row, id=row.name) for row in (*workloads.WORKLOADS, *workloads.SMALL)]

#: Nominal work in GFLOP, computed once by hand: two operations per output, tap and input channel.
GFLOP = {
    "aspp_d6": 10.28,
    "aspp_d12": 10.28,
    "aspp_d18": 10.28,
    "drn_256_d2": 4.98,
    "drn_512_d4": 19.94,
    "ctx_64_d8": 1.21,
    "seed_32_64_d15": 0.60,
    "wavenet_d16": 0.54,
    "wavenet_d512": 0.52,
    "tcn_128_d8": 1.61,
    "bpnet_64_d64": 0.42,
    "splice_k11_d4": 1.35,
    "splice_k41_d25": 5.04,
    "vol_32_d2": 6.12,
    "dw_256_3x3_d2": 0.019,
    "van_dw_7x7_d3": 0.020,
}


def data(row, dtype="float32"):
    x, w = workloads.make_arrays(row, dtype)
    return x, w, workloads.expected(row, x, w)


# ---------------------------------------------------------------------------------------------------------
# workloads and oracles
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_shapes_are_those_of_the_library(row):
    problem = Problem.create(row.x_shape, row.w_shape, **row.spec)
    assert row.out_shape == problem.out_shape
    assert row.gflop == pytest.approx(problem.flops / 1e9)
    assert row.gflop == pytest.approx(GFLOP.get(row.name, row.gflop), rel=0.02)


def test_names_are_unique_and_the_subset_exists():
    assert len(workloads.BY_NAME) == len(workloads.WORKLOADS) + len(workloads.SMALL)
    assert set(workloads.ASV_SUBSET) <= set(workloads.BY_NAME)
    assert set(GFLOP) <= set(workloads.BY_NAME)
    known = {name for names in workloads.PEERS_OF_SUITE.values() for name in names}
    assert known == set(peers.BY_NAME)


def test_images_keep_their_size_and_signals_lose_the_reach():
    for row in workloads.WORKLOADS:
        if row.suite == "image":
            assert row.out_shape == row.x_shape
        if row.suite == "signal":
            assert row.out_size[0] == row.x_shape[2] - row.reach[0]


def test_asv_rows_follow_the_environment(monkeypatch):
    monkeypatch.delenv("FASTDIL_BENCH", raising=False)
    assert workloads.asv_names() == list(workloads.ASV_SUBSET)
    monkeypatch.setenv("FASTDIL_BENCH", "all")
    assert workloads.asv_names() == [row.name for row in workloads.WORKLOADS]


@pytest.mark.parametrize("row", ROWS)
def test_oracles_agree_with_the_naive_one(row):
    small = row.shrunken()
    x, w, expected = data(small, "float64")
    truth = naive.conv(x, w, **small.spec)
    # Both round in float64 or better: n terms of at most eps each, in random directions.
    allowed = 4 * math.sqrt(math.prod(small.w_shape[1:]))
    assert expected.error(np.asarray(truth, np.float64), "float64") < allowed
    assert expected.scale == pytest.approx(float(np.max(naive.conv(np.abs(x), np.abs(w), **small.spec))))
    assert workloads.sampled_error(small, x, w, expected.y) < allowed


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 3])
def test_oracles_know_stride_and_groups(stride, padding):
    row = workloads.Workload("x", "dense", (2, 6, 11, 13), (4, 3, 2, 3), 2, padding, stride, groups=2)
    x, w, expected = data(row, "float64")
    assert expected.error(np.asarray(naive.conv(x, w, **row.spec), np.float64), "float64") < 8
    assert workloads.sampled_error(row, x, w, expected.y) < 8


def test_errors_are_seen():
    row = workloads.BY_NAME["conv1d_8_256"]
    x, w, expected = data(row)
    y = expected.y.astype(np.float32)
    assert expected.error(y, "float32") <= 1
    assert expected.error(y[:, :, 1:], "float32") == math.inf
    y[0, 0, 0] = np.nan
    assert expected.error(y, "float32") == math.inf
    assert workloads.sampled_error(row, x, w, y) == math.inf  # the corner is among the samples
    assert workloads.sampled_error(row, x, w, -expected.y) > ours.PEER_LIMIT


# ---------------------------------------------------------------------------------------------------------
# peers
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("peer", [pytest.param(peer, id=peer.name) for peer in peers.installed()])
def test_peers_agree_with_the_oracle(peer, dtype):
    rows = [row.shrunken() for row in (*workloads.WORKLOADS, *workloads.SMALL)]
    rows = [row for row in rows if peer.supports(row, dtype) is None]
    if not rows:
        pytest.skip(f"{peer.name} has no {dtype}")
    for row in rows:
        x, w, expected = data(row, dtype)
        run = peer.prepare(row, x, w, 1)
        for _ in range(2):
            y = run()
            assert y.dtype == x.dtype
            assert expected.error(y, dtype) < ours.OUR_LIMIT, row.name
    assert peer.version() != "unknown"


def test_missing_peers_are_absent_not_errors(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.installed() == []
    assert ours.refusal("torch", workloads.WORKLOADS[0], "float32", 1) == "torch is not installed"


def test_peers_refuse_what_they_cannot_do():
    dense, image = workloads.BY_NAME["aspp_d6"], workloads.BY_NAME["img_5x5_d1"]
    assert "no such operation" in peers.BY_NAME["cv2"].supports(dense, "float32")
    assert peers.BY_NAME["cv2"].supports(image, "float64") is None
    assert "float32" in peers.BY_NAME["openvino"].supports(dense, "float64")


def test_crashes_stay_in_a_child(monkeypatch):
    row = workloads.BY_NAME["signal_1024_k16"]
    assert not peers.crashes(peers.BY_NAME["numpy"], row, "float32", 1)
    done = subprocess.CompletedProcess([], -11)
    monkeypatch.setattr(peers.subprocess, "run", lambda *args, **kwargs: done)
    monkeypatch.setattr(peers.BY_NAME["numpy"], "fragile", True)
    cells = compare.compare_one(row, [ours.AUTO, "numpy"], "float32", 1, 5, 0.0).cells
    assert cells["numpy"].note == "failed: it crashes the process"
    assert cells["numpy"].is_bad


# ---------------------------------------------------------------------------------------------------------
# timing
# ---------------------------------------------------------------------------------------------------------


def test_interleaved_times_every_candidate_equally_often(monkeypatch):
    monkeypatch.setattr(timing, "settle", lambda: True)
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    samples = timing.interleaved(calls, repeat=5, min_time=0.0, warm_up=0.0)
    assert {len(s.seconds) for s in samples.values()} == {5}
    assert order[6:] == list("abcbcacababcbca")  # after two calls each to plan the samples
    assert all(s.median >= 0 for s in samples.values())


def test_settle_waits_for_rest():
    assert timing.settle(limit=5.0)
    assert timing.granted_cores() >= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peaks_are_positive(dtype):
    assert machine_peak.fma_peak(dtype, 1).gflops > 0.1
    assert machine_peak.gemm_peak(dtype, 128).gflops > 0.01


# ---------------------------------------------------------------------------------------------------------
# the comparison
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison():
    names = [peer.name for peer in peers.installed() if peer.name in ("numpy", "fftconvolve", "oaconvolve")]
    row = replace(workloads.BY_NAME["sig_k16_d1"], x_shape=(1, 1, 400))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_WARM_UP", 0.0)
        return compare.compare([row], names, repeat=5, min_time=0.001)


def test_compare_checks_and_times_every_method(comparison):
    (row,) = comparison.rows
    assert comparison.wrong() == []
    assert {ours.AUTO, ours.PLAN, *ours.methods()} <= set(row.cells)
    assert row.method in ours.methods()
    assert row.cells[ours.AUTO].error <= ours.OUR_LIMIT
    assert row.auto > 0
    assert row.best_peer in ("fftconvolve", "oaconvolve")
    assert row.ratio == pytest.approx(row.cells[row.best_peer].seconds / row.auto)
    mean, count = comparison.geometric_means()["signal"]
    assert (mean, count) == (pytest.approx(row.ratio), 1)


def test_reports(comparison):
    text, markdown = report.text(comparison), report.markdown(comparison)
    for shown in (text, markdown):
        assert "sig_k16_d1" in shown
        assert "fastdil auto" in shown
        assert "geometric mean" in shown
    assert "\n| --- |" in markdown
    brief = report.summary(comparison).splitlines()
    assert len(brief) == 2 + len(comparison.rows)
    assert brief[0].count("|") == brief[-1].count("|") == 8
    saved = json.loads(json.dumps(compare.as_json(comparison), allow_nan=False))
    assert saved["rows"][0]["cells"]["auto"]["seconds"] == comparison.rows[0].auto


def test_precision_is_compared_with_bfloat16_too(monkeypatch):
    """Two families of peers, each with its own best; what is too slow without bfloat16 instructions is called once."""
    monkeypatch.setattr(timing, "_WARM_UP", 0.0)
    row = workloads.BY_NAME["seed_32_64_d15"].shrunken()
    names = [*reduced.installed(), *(name for name in ("torch",) if peers.BY_NAME[name].available())]
    result = compare.compare([row], names, repeat=5, min_time=0.0, precision="medium")
    assert result.wrong() == []
    (done,) = result.rows
    for name in names:
        limit = ours.REDUCED_LIMIT if name in reduced.installed() else ours.PEER_LIMIT
        assert done.cells[name].error < limit, name
    assert done.best_reduced in (*reduced.installed(), None)
    text = report.text(result)
    assert "float32 at precision medium" in text
    assert "best bfloat16" in text
    assert json.loads(json.dumps(compare.as_json(result), allow_nan=False))["precision"] == "medium"
    assert ours.limit(ours.AUTO, "medium") == pytest.approx(2.0**-6 / np.finfo(np.float32).eps)


def test_slow_peers_are_called_once(monkeypatch):
    row = workloads.BY_NAME["sig_k16_d1"].shrunken()
    monkeypatch.setattr(compare, "_TOO_SLOW", 0.0)
    cells = compare.compare_one(row, [ours.AUTO, "oaconvolve"], "float32", 1, 5, 0.0).cells
    assert cells["oaconvolve"].seconds is None
    assert cells["oaconvolve"].note.startswith("a call takes")
    assert cells[ours.AUTO].seconds > 0


def test_wrong_results_are_shown_and_never_timed(monkeypatch, comparison):
    prepare = ours.prepare

    def spoiled(name, *args):
        if name == "fftconvolve":
            return lambda: -prepare(name, *args)()
        if name == ours.AUTO:
            raise RuntimeError("no luck")
        return prepare(name, *args)

    monkeypatch.setattr(ours, "prepare", spoiled)
    monkeypatch.setattr(timing, "_WARM_UP", 0.0)
    row = compare.compare_one(comparison.rows[0].workload, [ours.AUTO, "fftconvolve"], "float32", 1, 5, 0.0)
    assert row.cells["fftconvolve"].seconds is None
    assert row.cells["fftconvolve"].note.startswith("wrong: error")
    assert row.cells[ours.AUTO].note == "failed: RuntimeError: no luck"
    assert row.best_peer is None
    result = replace(comparison, rows=[row])
    assert result.wrong() == ["sig_k16_d1/auto: failed: RuntimeError: no luck"]
    assert "WRONG[2]" in report.text(result)
    assert "FAILED[1]" in report.text(result)


# ---------------------------------------------------------------------------------------------------------
# the asv suite
# ---------------------------------------------------------------------------------------------------------


def test_asv_checks_before_it_times(monkeypatch):
    suite = bench_overhead.SmallCalls()
    names, implementations = suite.params
    assert {ours.AUTO, ours.PLAN} <= set(implementations)
    for name in names:
        suite.setup(name, ours.AUTO)
        suite.time_call(name, ours.AUTO)
    monkeypatch.setattr(ours, "sampled_error", lambda *args: math.inf)
    with pytest.raises(AssertionError, match="wrong result"):
        suite.setup(names[0], ours.PLAN)


@pytest.mark.parametrize("suite", [bench_conv.Float32(), bench_conv.Float64(), bench_conv.Memory()])
def test_asv_lists_every_method_and_skips_what_does_not_apply(suite):
    names, implementations = suite.params
    assert set(names) <= set(workloads.BY_NAME)
    assert set(ours.methods()) <= set(implementations)
    with pytest.raises(NotImplementedError, match="cv2"):
        ours.checked_call("aspp_d6", "cv2", suite.dtype)


@pytest.mark.parametrize("signals", list(bench_signals.CASES))
def test_signals_are_checked_before_they_are_timed(signals, monkeypatch):
    suite = bench_signals.Correlate()
    for implementation in suite.params[1]:
        suite.setup(signals, implementation)
        suite.time_correlate(signals, implementation)
    prepare = bench_signals.prepare
    monkeypatch.setattr(bench_signals, "prepare", lambda *args: lambda: prepare(*args)()[::-1])
    with pytest.raises(AssertionError, match="wrong result"):
        suite.setup(signals, ours.AUTO)


def test_first_call_in_a_fresh_process(tmp_path):
    assert 0 < bench_startup.first_call("signal_1024_k16", str(tmp_path)) < 60
    assert any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------
# flatness, quality of the choices, denormals
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [pytest.param(layer, id=layer.name) for layer in flatness.LAYERS])
def test_flat_layers_keep_their_output(layer):
    for dilation in flatness.DILATIONS:
        x_shape, w_shape = layer.shapes(dilation)
        spec = {"dilation": dilation, "padding": layer.padding, "groups": layer.groups}
        assert Problem.create(x_shape, w_shape, **spec).out_shape == (1, layer.outputs, *layer.out_size)


def test_flatness_times_every_dilation_and_names_what_misses(monkeypatch):
    monkeypatch.setattr(timing, "_WARM_UP", 0.0)
    layer = flatness.Layer("small", 2, 3, 1, (3,), (40,), "valid")
    result = flatness.measure(layer, "direct", dilations=(1, 4), repeat=5, min_time=0.0)
    assert set(result.seconds) == {1, 4}
    assert result.ratios[1] == 1
    flat = flatness.Flatness("a", "direct", {1: 1e-3, 512: 1.1e-3})
    steep = flatness.Flatness("b", "im2col", {1: 1e-3, 512: 3e-3})
    shown = flatness.report([flat, steep])
    assert "1 of 2 rows" in shown
    assert "missed by b, im2col: 3.00" in shown
    assert "missed by a" not in shown
    with pytest.raises(SystemExit, match="2"):
        flatness.main(["--rows", "nothing"])


def test_choices_are_judged_by_their_times():
    draw = next(calibrate.draws(1, 7))
    names = ours.methods()
    timings = [calibrate.Timing(name, {}, len(names) - number) for number, name in enumerate(names)]
    verdict = dispatch_quality.judge(draw, 1, timings)
    seconds = {timing.method: timing.seconds for timing in timings}
    assert verdict.best == names[-1]
    assert verdict.ratio == seconds[verdict.chosen]
    shown = dispatch_quality.report([verdict, verdict._replace(ratio=1.0), verdict._replace(ratio=2.5)])
    assert "worst: " in shown
    assert str(draw.w_shape) in shown
    with pytest.raises(SystemExit, match="2"):
        dispatch_quality.main(["--seed", "1"])


def test_fit_finds_the_weights_behind_disturbed_timings():
    rng = np.random.default_rng(3)
    timings = []
    for number in range(200):
        features = {"call": 1.0, "fma": float(np.exp(rng.uniform(5, 15))), "never": 0.0}
        seconds = 1e-9 * (5000 + 0.25 * features["fma"]) * np.exp(0.05 * rng.standard_normal())
        prepared = (100_000, 203e-6) if number % 2 else (100, 3e-6)
        timings.append(calibrate.Timing("im2col", features, seconds * (4 if number % 15 == 0 else 1), *prepared))
    found = calibrate.fit(timings, [1.0] * len(timings))
    assert found["call"] == pytest.approx(5000, rel=0.1)
    assert found["fma"] == pytest.approx(0.25, rel=0.1)
    assert (found["never"], found["prepare"], found["weight"]) == (0.0, 3000.0, 2.0)


def test_dispatch_quality_runs(capsys):
    assert dispatch_quality.main(["--problems", "1", "--seed", "5", "--budget", "0.01", "--threads", "1"]) == 0
    assert "% of 1 problems" in capsys.readouterr().out


@pytest.mark.parametrize("kind", bench_overhead.Denormals.params[0])
@pytest.mark.parametrize("method", bench_overhead.Denormals.params[1])
def test_denormals_are_computed_not_flushed(method, kind):
    bench = bench_overhead.Denormals()
    bench.setup(kind, method)
    bench.time_call(kind, method)
    x, w, spec = bench.x, bench.w, bench.spec
    scale = 1.0 if kind == "normal" else 2.0**126
    truth = naive.conv(x.astype("f8") * scale, w.astype("f8"), **spec) / scale
    largest = naive.conv(np.abs(x.astype("f8")) * scale, np.abs(w.astype("f8")), **spec).max() / scale
    underflow = 2.0**-149 * math.prod(w.shape[1:])  # half a unit of the smallest number for each rounding, and more
    assert np.abs(bench.out - truth).max() <= 8 * np.finfo("f4").eps * largest + underflow
    assert (kind == "normal") == bool(np.abs(bench.out).max() > np.finfo("f4").tiny)


# ---------------------------------------------------------------------------------------------------------
# the command line
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [peers, report])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("module", ["compare", "dispatch_quality", "flatness", "machine_peak"])
def test_help(module):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--threads" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--threads", "0"], "--threads 0: expected 1 to"),
        (["--repeat", "2"], "--repeat 2: expected at least 5"),
        (["--workload", "nothing"], "nothing"),
        (["--precision", "high", "--dtype", "float64"], "--precision high: expected --dtype float32"),
    ],
)
def test_bad_arguments(arguments, shown, capsys):
    with pytest.raises(SystemExit, match="2"):
        compare.main(arguments)
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize("implementation", ["stream", "matmul"])
def test_streams(implementation):
    suite = bench_streams.Steps()
    suite.setup("filter_k16", 16, implementation)
    suite.time_call("filter_k16", 16, implementation)
