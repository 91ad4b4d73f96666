"""The benchmarks of streams, a trous transforms and MiniRocket check what they time."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))  # the benchmarks are no part of the installed package

from benchmarks import atrous, bench_wavelets, compare, peers, pipelines, rocket, streams, timing

SMALL = [
    replace(atrous.ROWS["atrous_2048x2048"], shape=(64, 96), levels=3),
    replace(atrous.ROWS["atrous_2_20"], shape=(512,)),
]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "_WARM_UP", 0.0)
    monkeypatch.setattr(timing, "settle", lambda: True)


# ---------------------------------------------------------------------------------------------------------
# rows
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SMALL)
@pytest.mark.parametrize("name", atrous.CANDIDATES)
def test_transforms_are_checked(monkeypatch, row, name):
    if name == "pywt" and importlib.util.find_spec("pywt") is None:
        with pytest.raises(NotImplementedError, match="PyWavelets"):
            atrous.prepare(name, row, row.data(), np.zeros(1), 1)
        return
    x = row.data()
    expected = atrous.oracle(x, row.levels)
    checked = atrous.prepare(name, row, x, expected, 1)
    assert len(checked.call()) >= row.levels + 1
    assert (checked.error is not None) == (name in ("fastdil", "scipy"))
    if name in ("fastdil", "scipy"):
        with pytest.raises(AssertionError, match="wrong result"):
            atrous.prepare(name, row, x, expected[::-1], 1)
    if name == "pywt":
        monkeypatch.setattr(atrous, "by_pywt", atrous.copied)
        with pytest.raises(AssertionError, match="energy"):
            atrous.prepare(name, row, x, expected, 1)


@pytest.mark.parametrize("name", streams.ROWS)
def test_streams_are_checked(monkeypatch, name):
    calls = streams.calls(name, 1)
    expected = {"fastdil", *(["torch"] if peers.BY_NAME["torch"].available() else [])}
    assert expected <= set(calls)
    row = streams.ROWS[name]
    outputs = row.skip if isinstance(row, streams.WaveNet) else row.outputs
    assert {each.call().shape for each in calls.values()} == {(outputs, row.samples)}
    assert all(0 <= float(each.error) < 100 for each in calls.values())
    part = "_stack" if isinstance(row, streams.WaveNet) else "_stream"
    right = getattr(streams, part)

    def spoiled(*args):
        call = right(*args)
        return lambda block: call(block + 1)

    monkeypatch.setattr(streams, part, spoiled)
    with pytest.raises(AssertionError, match="fastdil is wrong"):
        streams.calls(name, 1)


def test_features_are_checked(monkeypatch):
    monkeypatch.setitem(rocket.ROWS, "small", ((4, 1, 40), "transform"))
    assert rocket.calls("small", 1)["fastdil"].call().shape == (4, 9996)
    assert rocket.calls("small", 1, "float64") == {}


# ---------------------------------------------------------------------------------------------------------
# the table
# ---------------------------------------------------------------------------------------------------------


def test_rows_are_part_of_the_comparison(quick, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(atrous, "ROWS", {row.name: row for row in SMALL})

    def fail(*args):
        raise AssertionError("no luck")

    monkeypatch.setitem(pipelines.ROWS, "stream_fir_k64_d8", fail)
    arguments = ["--workload", "atrous_2_20", "stream_fir_k64_d8", "--repeat", "5", "--threads", "1"]
    saved, shown = tmp_path / "a.json", tmp_path / "a.md"
    monkeypatch.setattr(timing, "bind_to_cores", lambda count: None)
    assert compare.main([*arguments, "--json", str(saved), "--markdown", str(shown)]) == 1
    output = capsys.readouterr()
    assert "stream_fir_k64_d8: failed: AssertionError: no luck" in output.err
    assert shown.read_text().strip() == output.out.strip()
    header, rule, line, failed = output.out.strip().splitlines()
    assert len({len(header), len(rule), len(line), len(failed)}) == 1
    assert line.split()[1] == "atrous_2_20"
    assert "copy" in line.split("|")[-2]
    assert line.split("|")[2].strip().endswith(")")  # the error beside the time
    first, second = json.loads(saved.read_text())["pipelines"]
    assert len(first["cells"]["fastdil"]) == 5
    best = min((n for n in first["cells"] if n not in ("fastdil", "copy")), key=lambda n: np.median(first["cells"][n]))
    assert first["best_peer"] == best
    assert first["ratio"] == pytest.approx(np.median(first["cells"][best]) / np.median(first["cells"]["fastdil"]))
    assert second["cells"] == {}
    assert 0 <= float(first["errors"]["fastdil"]) < 10
    assert first["errors"]["copy"] is None


def test_the_suite_signal_has_them_all(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(pipelines, "measure", lambda names, *args: asked.append(names) or [])
    monkeypatch.setattr(compare, "compare", lambda *args, **settings: compare.Comparison("float32", 1, 5, None, {}))
    monkeypatch.setattr(timing, "bind_to_cores", lambda count: None)
    for suite in ("signal", "all", "dense"):
        assert compare.main(["--suite", suite]) == 0
    assert asked == [list(pipelines.ROWS), list(pipelines.ROWS), []]
    assert {"atrous_2048x2048", "atrous_2_20", "stream_wavenet_d512"} < set(pipelines.ROWS)
    assert sum(name.startswith("minirocket") for name in pipelines.ROWS) == 6


# ---------------------------------------------------------------------------------------------------------
# asv
# ---------------------------------------------------------------------------------------------------------


def test_asv_suite(monkeypatch):
    monkeypatch.setattr(atrous, "ROWS", {row.name: row for row in SMALL})
    for row in SMALL:
        suite, inverse = bench_wavelets.Atrous(), bench_wavelets.InverseAtrous()
        suite.setup(row.name, "fastdil")
        suite.time_transform(row.name, "fastdil")
        inverse.setup(row.name)
        inverse.time_inverse(row.name)
