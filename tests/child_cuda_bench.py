"""The benchmarks of the GPU path where they can run; a pytest file as `child_cuda`. Its times mean nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from child_cuda import METHODS

from benchmarks import bench_cuda, compare_cuda, gpu
from benchmarks.workloads import BY_NAME, Workload
from fastdil.cuda import Device
from fastdil.cuda.availability import is_simulated

LAYER = Workload("layer", "dense", (1, 5, 2, 4), (3, 5, 2, 2), dilation=2, padding=1)
PLANE = Workload("plane", "image", (1, 1, 6, 7), (1, 1, 3, 3), dilation=2, padding=2)


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    """Under the simulator, arrays are Numba's, whatever is installed."""
    if is_simulated():
        monkeypatch.setattr(gpu, "_torch", lambda: None)


def test_every_method_is_a_row():
    names = gpu.names()
    assert set(METHODS) - {"tensor"} < set(names)
    assert {"auto", "tensor_high", "tensor_medium", "cudnn", "cudnn_tf32_nhwc", "cupy_fftconvolve"} < set(names)


def test_compare_checks_and_times():
    row = compare_cuda.compare_one(LAYER, gpu.names(), "float32", 5, 0.0)
    for name in gpu.ours():
        cell = row.cells[name]
        assert cell.note is None, cell.note
        assert cell.error <= gpu.limit(name)
        assert len(cell.samples) == 5
        assert cell.seconds > 0
    assert row.cells["tensor_medium"].error > row.cells["tensor_high"].error > row.cells["gemm"].error
    assert row.traffic == 4 * (5 * 8 + 3 * 5 * 4 + 3 * 8)
    if is_simulated():
        assert "PyTorch" in row.cells["cudnn"].note
    assert "channels" in row.cells["cupy_fftconvolve"].note
    table = compare_cuda.text([row], Device.standard(), "float32")
    assert "66908 GFLOP/s, 3350 GB/s" in table
    assert "tensor_high" in table
    assert "| layer |" in table


def test_wrong_results_are_not_timed(monkeypatch):
    monkeypatch.setattr(gpu, "to_host", lambda array: np.zeros(LAYER.out_shape, np.float32))
    row = compare_cuda.compare_one(LAYER, ["auto"], "float32", 5, 0.0)
    assert row.cells["auto"].note.startswith("wrong: error")
    assert row.cells["auto"].seconds is None
    assert "layer, auto: wrong" in compare_cuda.text([row], Device.standard(), "float32")


def test_figures_beside_peers():
    cells = {name: compare_cuda.Cell(seconds, 1.0) for name, seconds in (("auto", 1e-3), ("auto_high", 5e-4))}
    cells |= {name: compare_cuda.Cell(note="not here") for name in gpu.names() if name not in cells}
    cells["cudnn"] = compare_cuda.Cell(3e-3, 1.0)
    cells["cudnn_nhwc"] = compare_cuda.Cell(2e-3, 1.0)
    cells["cudnn_tf32"] = compare_cuda.Cell(4e-4, 100.0)
    row = compare_cuda.Row(BY_NAME["ctx_64_d8"], 335 * 10**7, cells)
    figures = compare_cuda._figures(row, Device.standard(), "float32")
    assert figures == ["2.00", "0.80", "2%", "100%"]


def test_main(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "names", lambda: ["auto", "direct"])
    saved, table = tmp_path / "all.json", tmp_path / "table.md"
    monkeypatch.setattr(gpu, "ours", lambda: {"auto": ("auto", "highest"), "direct": ("direct", "highest")})
    assert compare_cuda.main([PLANE], "float32", 5, saved, table) == 0
    assert table.read_text() == capsys.readouterr().out
    cells = json.loads(saved.read_text())["rows"][0]["cells"]
    assert len(cells["direct"]["samples"]) == 5


@pytest.mark.parametrize("implementation", ["auto", "auto_high"])
def test_the_asv_suite(implementation, monkeypatch):
    monkeypatch.setitem(bench_cuda.BY_NAME, "layer", LAYER)
    suite = bench_cuda.Convolution()
    suite.setup("layer", implementation, "float32")
    suite.time_convolution("layer", implementation, "float32")
    with pytest.raises(NotImplementedError, match="channels"):
        suite.setup("layer", "cupy_fftconvolve", "float32")
    with pytest.raises(NotImplementedError, match="lower precisions"):
        suite.setup("layer", "auto_high", "float64")
    monkeypatch.setattr(bench_cuda.gpu, "to_host", lambda array: np.zeros(LAYER.out_shape, np.float32))
    with pytest.raises(AssertionError, match="wrong result"):
        suite.setup("layer", implementation, "float32")
