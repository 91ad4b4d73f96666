"""Time fastdil and every installed peer side by side: ``python -m benchmarks.compare``.

Every result is compared with a float64 oracle before anything is timed. `benchmarks/README.md` tells how to
read the table and what makes it fair.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import compare_cuda, machine_peak, ours, peers, pipelines, reduced, report, timing
from benchmarks.report import Cell
from benchmarks.workloads import BY_NAME, SUITES, Expected, Workload, expected, make_arrays

#: Seconds of the first call of a peer beyond which it is not called again: bfloat16 without the instructions for it.
_TOO_SLOW = 2.0


@dataclass
class Row:
    """One workload, all implementations."""

    workload: Workload
    method: str  #: what auto chose
    cells: dict[str, Cell]

    @property
    def auto(self) -> float:
        """Seconds of a functional call; NaN where its result is wrong."""
        seconds = self.cells[ours.AUTO].seconds
        return math.nan if seconds is None else seconds

    @property
    def best_peer(self) -> str | None:
        """The fastest peer whose result is right, of those that compute in full precision."""
        return self._fastest(peers.BY_NAME)

    @property
    def best_reduced(self) -> str | None:
        """The fastest peer that computes in bfloat16."""
        return self._fastest([peer.name for peer in reduced.PEERS])

    def _fastest(self, names: Collection[str]) -> str | None:
        timed = {n: c.seconds for n, c in self.cells.items() if n in names and c.seconds is not None}
        return min(timed, key=timed.__getitem__) if timed else None

    @property
    def ratio(self) -> float:
        """Time of the best peer divided by ours: above 1, fastdil is ahead. NaN without a peer."""
        return self._ratio_to(self.best_peer)

    @property
    def reduced_ratio(self) -> float:
        """The same for the best peer that computes in bfloat16."""
        return self._ratio_to(self.best_reduced)

    def _ratio_to(self, name: str | None) -> float:
        return math.nan if name is None else self.cells[name].seconds / self.auto

    @property
    def gflops(self) -> float:
        """Nominal operations per second, padding zeros included: skipped zeros can lift it above the peak."""
        return self.workload.gflop / self.auto


@dataclass
class Comparison:
    """Everything that one run measured."""

    dtype: str
    threads: int
    repeat: int
    peak: machine_peak.Peak
    versions: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    precision: str | None = None
    tile_peak: machine_peak.Peak | None = None  #: of the tile unit, at the lower precisions

    def tile_share(self, row: Row) -> float:
        """Share of the tile unit's peak, counting every product of parts; NaN for other methods and machines."""
        if self.tile_peak is None or row.method != "amx":
            return math.nan
        return row.gflops * reduced.PRODUCTS[self.precision or "highest"] / self.tile_peak.gflops

    def geometric_means(self) -> dict[str, tuple[float, int]]:
        """Suite -> geometric mean of the ratios and how many rows it is of; "all" last."""
        means = {}
        for suite in (*SUITES, "all"):
            chosen = [row.ratio for row in self.rows if suite in ("all", row.workload.suite)]
            ratios = [ratio for ratio in chosen if math.isfinite(ratio)]
            if ratios:
                means[suite] = math.exp(math.fsum(map(math.log, ratios)) / len(ratios)), len(ratios)
        return means

    def wrong(self) -> list[str]:
        """``workload/implementation`` for each of fastdil's own results that is wrong or failed."""
        return [
            f"{row.workload.name}/{name}: {cell.note}"
            for row in self.rows
            for name, cell in row.cells.items()
            if name not in reduced.BY_NAME and cell.is_bad
        ]


def compare_one(
    workload: Workload,
    names: Sequence[str],
    dtype: str,
    threads: int,
    repeat: int,
    min_time: float = 0.1,
    precision: str | None = None,
) -> Row:
    """Check, then time, the implementations called `names` on one workload."""
    x, w = make_arrays(workload, dtype)
    oracle = expected(workload, x, w)
    cells, calls = {}, {}
    for name in names:
        cells[name], call = _checked(name, workload, x, w, oracle, threads, precision)
        if call is not None:
            calls[name] = call
    for name, samples in timing.interleaved(calls, repeat, min_time).items():
        cells[name].seconds, cells[name].samples = samples.median, samples.seconds
    return Row(workload, ours.chosen(workload, dtype, threads, precision), cells)


def _checked(
    name: str, workload: Workload, x, w, oracle: Expected, threads: int, precision: str | None
) -> tuple[Cell, peers.Run | None]:
    """A cell with the error of the result, and the call to time if the result is right."""
    dtype = x.dtype.name
    reason = ours.refusal(name, workload, dtype, threads, precision)
    if reason is not None:
        return Cell(note=reason), None
    peer = reduced.BY_NAME.get(name)
    if peer is not None and peer.fragile and peers.crashes(peer, workload, dtype, threads):
        return Cell(note="failed: it crashes the process"), None
    try:
        call = ours.prepare(name, workload, x, w, threads, precision)
        start = time.perf_counter()
        y = call()
        seconds = time.perf_counter() - start
        y = y if peer is None else peer.reads(y)
    except Exception as error:  # whatever a library throws belongs into the table, not over it
        return Cell(note=f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"), None
    if y.dtype != x.dtype:
        return Cell(note=f"wrong: the result is {y.dtype}"), None
    error, limit = oracle.error(y, dtype), ours.limit(name, precision)
    if not error <= limit:
        return Cell(error=error, note=f"wrong: error {error:.3g}, {limit:g} allowed"), None
    if peer is not None and seconds > _TOO_SLOW:
        return Cell(error=error, note=f"a call takes {seconds:.2g} s"), None
    return Cell(error=error), call


def compare(
    chosen: Sequence[Workload],
    peer_names: Sequence[str],
    dtype: str = "float32",
    threads: int = 1,
    repeat: int = 9,
    min_time: float = 0.1,
    precision: str | None = None,
) -> Comparison:
    """Run the whole comparison; progress goes to standard error."""
    names = [ours.AUTO, ours.PLAN, *ours.methods(), *peer_names]
    versions = {name: reduced.BY_NAME[name].version() for name in peer_names}
    peak = machine_peak.peak(dtype, threads)
    tile_peak = machine_peak.tile_peak(threads) if precision else None
    result = Comparison(dtype, threads, repeat, peak, versions, precision=precision, tile_peak=tile_peak)
    for number, workload in enumerate(chosen, start=1):
        print(f"{number}/{len(chosen)} {workload.name}", file=sys.stderr, flush=True)
        result.rows.append(compare_one(workload, names, dtype, threads, repeat, min_time, precision))
    # Once more at the end: a neighbour can only lower a peak.
    result.peak = max(result.peak, machine_peak.peak(dtype, threads))
    if tile_peak is not None:
        result.tile_peak = max(tile_peak, machine_peak.tile_peak(threads) or tile_peak)
    return result


def as_json(result: Comparison) -> dict[str, object]:
    """Everything measured, for machines; NaN and infinity become null."""
    import fastdil

    def number(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    rows = []
    for row in result.rows:
        cells = {name: asdict(cell) | {"error": number(cell.error)} for name, cell in row.cells.items()}
        rows.append(
            asdict(row.workload)
            | {"gflop": row.workload.gflop, "method": row.method, "cells": cells}
            | {"best_peer": row.best_peer, "ratio": number(row.ratio), "gflops": number(row.gflops)}
            | {"best_reduced": row.best_reduced, "reduced_ratio": number(row.reduced_ratio)}
            | {"tile_share": number(result.tile_share(row))}
        )
    return {
        "fastdil": fastdil.__version__,
        "python": platform.python_version(),
        "cpu": fastdil.machine().cpu,
        "peers": result.versions,
        "dtype": result.dtype,
        "precision": result.precision or "highest",
        "threads": result.threads,
        "repeat": result.repeat,
        "peak": result.peak._asdict(),
        "tile_peak": result.tile_peak and result.tile_peak._asdict(),
        "rows": rows,
        "geometric_means": {name: mean for name, (mean, _) in result.geometric_means().items()},
    }


def _parser() -> argparse.ArgumentParser:
    known = [peer.name for peer in peers.PEERS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Time fastdil by method, and every installed peer, side by side in one run. "
        "Each cell: milliseconds (error against float64 in units of eps max A).",
    )
    add = parser.add_argument
    add("--suite", choices=[*SUITES, "small", "all"], default="all", help="default: all but small")
    rows = [*BY_NAME, *pipelines.ROWS]
    add("--workload", nargs="+", metavar="NAME", choices=rows, help="these rows instead of a suite")
    add("--dtype", choices=["float32", "float64"], default="float32")
    add(
        "--precision", choices=["highest", "high", "medium"], help="float32 at this precision; bfloat16 peers take part"
    )
    add("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: fastdil.cuda beside cuDNN and CuPy, on a GPU")
    add("--threads", type=int, default=timing.granted_cores(), help="default: every core granted")
    add("--repeat", type=int, default=9, help=f"samples per time, at least {timing.FEWEST} (default 9)")
    add("--peers", nargs="*", metavar="PEER", choices=known, help=f"default: the installed ones of {known}")
    add("--json", type=Path, metavar="FILE", help="save every sample")
    add("--markdown", metavar="FILE", help="write the table as Markdown; - for standard output")
    add("--summary", type=Path, metavar="FILE", help="write fastdil beside the best peer of each row as Markdown")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if one of fastdil's results is wrong."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not 1 <= args.threads <= timing.granted_cores():
        parser.error(f"--threads {args.threads}: expected 1 to {timing.granted_cores()}, the cores granted")
    if args.repeat < timing.FEWEST:
        parser.error(f"--repeat {args.repeat}: expected at least {timing.FEWEST}")
    if args.precision and (args.dtype, args.device) != ("float32", "cpu"):
        parser.error(f"--precision {args.precision}: expected --dtype float32 and --device cpu beside it")
    timing.bind_to_cores(args.threads)
    installed = [peer.name for peer in peers.installed()]
    missing = set(args.peers or ()) - set(installed)
    if missing:
        parser.error(f"--peers {' '.join(sorted(missing))}: not installed")
    suites = SUITES if args.suite == "all" else (args.suite,)
    chosen = [row for row in BY_NAME.values() if row.suite in suites]
    if args.workload:
        chosen = [BY_NAME[name] for name in args.workload if name in BY_NAME]
    if args.device == "cuda":
        target = None if args.markdown in (None, "-") else Path(args.markdown)
        return compare_cuda.main(chosen, args.dtype, args.repeat, args.json, target)
    names = [name for name in installed if args.peers is None or name in args.peers]
    names = [name for name in names if any(name in row.peers for row in chosen)]
    if args.precision:
        names += reduced.installed()
    result = compare(chosen, names, args.dtype, args.threads, args.repeat, precision=args.precision)
    more = args.workload or (pipelines.ROWS if "signal" in suites and not args.precision else ())
    piped = pipelines.measure([name for name in more if name in pipelines.ROWS], args.dtype, args.threads, args.repeat)
    if args.json is not None:
        args.json.write_text(json.dumps(as_json(result) | {"pipelines": pipelines.as_json(piped)}, indent=1) + "\n")
    for target, render in ((args.markdown, report.markdown), (args.summary, report.summary)):
        if target not in (None, "-"):
            Path(target).write_text(_tables(render, result, piped))
    print(_tables(report.markdown if args.markdown == "-" else report.text, result, piped))
    wrong = [*result.wrong(), *(f"{row.name}: {row.note}" for row in piped if row.note)]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _tables(render: Callable[[Comparison], str], result: Comparison, piped: list[pipelines.Result]) -> str:
    """The convolutions, and the rows that are none below them."""
    return "\n".join([*([render(result)] if result.rows else []), *([pipelines.text(piped)] if piped else [])])


if __name__ == "__main__":
    sys.exit(main())
