"""The a trous benchmark checks what it times."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent))  # the benchmarks are no part of the installed package

from benchmarks import atrous, bench_wavelets, timing

SMALL = [
    replace(atrous.ROWS["image_2048"], shape=(64, 96), levels=3),
    replace(atrous.ROWS["signal_2_20"], shape=(512,)),
]


@pytest.mark.parametrize("row", SMALL)
@pytest.mark.parametrize("name", atrous.CANDIDATES)
def test_candidates_are_checked(monkeypatch, row, name):
    if name == "pywt" and importlib.util.find_spec("pywt") is None:
        with pytest.raises(NotImplementedError, match="PyWavelets"):
            atrous.prepare(name, row, row.data(), np.zeros(1), 1)
        return
    x = row.data()
    expected = atrous.oracle(x, row.levels)
    assert len(atrous.prepare(name, row, x, expected, 1)()) >= row.levels + 1
    if name in ("fastdil", "scipy"):
        with pytest.raises(AssertionError, match="wrong result"):
            atrous.prepare(name, row, x, expected[::-1], 1)
    if name == "pywt":
        monkeypatch.setattr(atrous, "by_pywt", atrous.copied)
        with pytest.raises(AssertionError, match="energy"):
            atrous.prepare(name, row, x, expected, 1)


def test_table(monkeypatch):
    monkeypatch.setattr(timing, "_WARM_UP", 0.0)
    row = SMALL[0]
    shown = atrous.table(row, "float32", atrous.measure(row, "float32", 1, 5))
    assert all(name in shown for name in ("fastdil", "scipy", "copy", "GB/s"))


def test_asv_suite(monkeypatch):
    monkeypatch.setattr(atrous, "ROWS", {row.name: row for row in SMALL})
    for row in SMALL:
        suite, inverse = bench_wavelets.Atrous(), bench_wavelets.InverseAtrous()
        suite.setup(row.name, "fastdil")
        suite.time_transform(row.name, "fastdil")
        inverse.setup(row.name)
        inverse.time_inverse(row.name)


@pytest.mark.parametrize(
    ("arguments", "shown"), [(["--threads", "0"], "--threads 0: expected 1 to"), (["--repeat", "2"], "--repeat 2")]
)
def test_bad_arguments(arguments, shown, capsys):
    with pytest.raises(SystemExit, match="2"):
        atrous.main(arguments)
    assert shown in capsys.readouterr().err
