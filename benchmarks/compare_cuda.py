"""Time fastdil.cuda beside cuDNN and CuPy: ``python -m benchmarks.compare --device cuda``.

Every result is compared with the float64 oracle before anything is timed, as on the CPU. Times are of calls on arrays
that lie on the GPU, each followed by a wait for the GPU.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu, report, timing
from benchmarks.report import Cell
from benchmarks.workloads import Workload, expected, make_arrays


@dataclass
class Row:
    """One workload, all implementations."""

    workload: Workload
    traffic: int  #: bytes of input, weights and result
    cells: dict[str, Cell]

    def seconds(self, name: str) -> float:
        """NaN where there is no time."""
        value = self.cells[name].seconds if name in self.cells else None
        return math.nan if value is None else value

    def ratio(self, name: str, peers: Sequence[str]) -> float:
        """Time of the fastest of some peers divided by that of one of ours; NaN without either."""
        times = [seconds for seconds in map(self.seconds, peers) if math.isfinite(seconds)]
        return min(times) / self.seconds(name) if times else math.nan


def compare_one(workload: Workload, names: Sequence[str], dtype: str, repeat: int, min_time: float = 0.1) -> Row:
    """Check, then time, the implementations called `names` on one workload."""
    from fastdil.cuda.costs import traffic_bytes

    x, w = make_arrays(workload, dtype)
    oracle = expected(workload, x, w)
    cells, calls = {}, {}
    for name in names:
        cells[name] = cell = Cell(note=gpu.refusal(name, workload, dtype))
        if cell.note is not None:
            continue
        try:
            call = gpu.prepare(name, workload, x, w)
            cell.error = oracle.error(gpu.to_host(call()), dtype)
        except Exception as error:  # whatever a library throws belongs into the table, not over it
            cell.note = f"failed: {type(error).__name__}: {[*str(error).splitlines(), ''][0]}"
            continue
        if cell.error <= gpu.limit(name):
            calls[name] = gpu.waiting(call)
        else:
            cell.note = f"wrong: error {cell.error:.3g}, {gpu.limit(name):g} allowed"
    for name, samples in timing.interleaved(calls, repeat, min_time).items():
        cells[name].seconds, cells[name].samples = samples.median, samples.seconds
    return Row(workload, traffic_bytes(gpu.problem_of(workload, dtype)), cells)


def text(rows: Sequence[Row], device: Any, dtype: str) -> str:
    """A Markdown table: milliseconds, shares of the GPU's peak and of its bandwidth, ratios to cuDNN."""
    shown = [name for name in rows[0].cells if any(row.cells[name].seconds or row.cells[name].is_bad for row in rows)]
    lines = [["workload", "GFLOP", *shown, "cuDNN / auto", "TF32 / best tier", "of peak", "of bandwidth"]]
    notes: list[str] = []
    for row in rows:
        cells = []
        for name in shown:
            cell = row.cells[name]
            if cell.is_bad:
                notes.append(f"- {row.workload.name}, {name}: {cell.note}")
            times = f"{report.milliseconds(row.seconds(name))} ({cell.error:.2g})" if cell.seconds else "-"
            cells.append("BAD" if cell.is_bad else times)
        lines.append([row.workload.name, f"{row.workload.gflop:.3g}", *cells, *_figures(row, device, dtype)])
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    table = ["| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:])]
    heading = (
        f"{device.name}, {dtype}. Milliseconds a call, the wait for the GPU included; in brackets the largest error "
        f"from float64 in units of eps max A. Peak {device.peak_gflops(dtype):.0f} GFLOP/s, "
        f"{device.bytes_per_second / 1e9:.0f} GB/s, computed from the GPU's attributes; padding zeros count as work."
    )
    return "\n".join([heading, "", *table, "", *notes])


def _figures(row: Row, device: Any, dtype: str) -> list[str]:
    """auto beside cuDNN without TF32, the lower precisions beside cuDNN with it, and auto beside the GPU's limits."""
    plain, tf32 = (tuple(n for n, (allowed, _) in gpu.CUDNN.items() if allowed == is_tf32) for is_tf32 in (False, True))
    tiers = [row.ratio(name, tf32) for name in ("auto_high", "auto_medium")]
    ratios = row.ratio("auto", plain), max((r for r in tiers if math.isfinite(r)), default=math.nan)
    speeds = 1e9 * row.workload.gflop / row.seconds("auto"), row.traffic / row.seconds("auto")
    shares = speeds[0] / (1e9 * device.peak_gflops(dtype)), speeds[1] / device.bytes_per_second
    shown = [f"{value:.2f}" for value in ratios] + [f"{share:.0%}" for share in shares]
    return ["-" if "nan" in entry else entry for entry in shown]


def main(chosen: Sequence[Workload], dtype: str, repeat: int, json_file: Path | None, markdown: Path | None) -> int:
    """Print the table; 1 if one of fastdil's results is wrong, 2 without a GPU."""
    reason = gpu.missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    from fastdil.cuda.device import current

    device, rows = current(), []
    for number, workload in enumerate(chosen, start=1):
        print(f"{number}/{len(chosen)} {workload.name}", file=sys.stderr, flush=True)
        rows.append(compare_one(workload, gpu.names(), dtype, repeat))
    table = text(rows, device, dtype)
    if json_file is not None:
        saved = [{"workload": row.workload.name, "cells": {n: asdict(c) for n, c in row.cells.items()}} for row in rows]
        json_file.write_text(json.dumps({"device": asdict(device), "dtype": dtype, "rows": saved}, indent=1) + "\n")
    if markdown is not None:
        markdown.write_text(table + "\n")
    print(table)
    return int(any(row.cells[name].is_bad for row in rows for name in gpu.ours()))
