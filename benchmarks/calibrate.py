"""Fit the dispatcher's constants to this machine: ``python -m benchmarks.calibrate [--problems N] [--seed S]``.

Draws random problems, adds the layers of `benchmarks.workloads`, times every method that supports them, and fits the
constants of this instruction set in ``fastdil.costmodel.NANOSECONDS`` by robust least squares on relative errors.
Prints the table to paste, the typical error of the fit, and how much slower its choices are than the best ones.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import interleaved
from benchmarks.workloads import WORKLOADS
from fastdil import costmodel
from fastdil.algorithms import ALGORITHMS
from fastdil.dispatch import granted_threads
from fastdil.errors import UntameInputError
from fastdil.functional import conv
from fastdil.hardware import machine
from fastdil.plans import plan
from fastdil.problem import Problem

#: Problems are drawn between these many multiply-accumulates.
_MACS = (1e4, 1e9)
#: Numbers whose preparation takes next to nothing beside what is the same for any number, and those where it is most.
_FEW_WEIGHTS, _MANY_WEIGHTS = 3_000, 30_000
#: Seconds of a call from which the preparation of few weights can be told.
_SHORT = 5e-4
#: Predicted seconds beyond which a method is not timed.
_TOO_SLOW = 0.3
#: Seconds of untimed calls before each sample: all threads are this library's.
_WARM_UP = 0.03


class Draw(NamedTuple):
    """A random problem: shapes, and the arguments of `fastdil.plan`."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    dtype: str
    spec: dict[str, Any]

    @property
    def problem(self) -> Problem:
        """The validated problem."""
        return Problem.create(self.x_shape, self.w_shape, dtype=self.dtype, **self.spec)


class Timing(NamedTuple):
    """One method on one problem."""

    method: str
    features: dict[str, float]
    seconds: float
    prepared: int = 0  #: numbers that are prepared
    preparation: float = 0.0  #: seconds that a functional call takes longer for that than a plan


def draws(count: int, seed: int) -> Iterator[Draw]:
    """Random problems: all ranks, dense, grouped, depthwise and single-channel, short and long kernels."""
    rng = np.random.default_rng(seed)
    while count:
        draw = _draw(rng)
        try:
            macs = draw.problem.macs
        except ValueError:  # the kernel does not fit into the input
            continue
        if _MACS[0] <= macs <= _MACS[1]:
            count -= 1
            yield draw


def layers() -> Iterator[Draw]:
    """The layers, images and signals of `benchmarks.workloads`: larger than most random problems."""
    for workload in WORKLOADS:
        if workload.suite != "small":
            spec = {"stride": 1, "groups": 1, "padding_mode": "zeros", **workload.spec}
            yield Draw(workload.x_shape, workload.w_shape, "float32", spec)


def _draw(rng: np.random.Generator) -> Draw:
    rank = int(rng.choice([1, 2, 2, 3]))

    def spread(lo: float, hi: float) -> int:
        return round(math.exp(rng.uniform(math.log(lo), math.log(hi))))

    kind = rng.choice(["dense", "depthwise", "grouped", "single", "bank"])
    inputs = {"dense": spread(2, 512), "depthwise": spread(2, 256), "grouped": 8 * spread(1, 16)}.get(kind, 1)
    groups = {"depthwise": inputs, "grouped": int(rng.choice([2, 4, 8]))}.get(kind, 1)
    outputs = {"depthwise": inputs, "single": 1, "grouped": 8 * spread(1, 16), "bank": spread(2, 64)}.get(
        kind, spread(2, 512)
    )
    longest = {1: 1500, 2: 31, 3: 5}[rank]
    taps = spread(1, longest if kind == "single" else min(longest, 45))
    kernel = (3 if rng.random() < 0.3 else taps,) * rank  # as in most layers
    size = tuple(spread(*{1: (100, 1_000_000), 2: (8, 2000), 3: (6, 96)}[rank]) for _ in range(rank))
    dilation = spread(1, {1: 512, 2: 24, 3: 6}[rank])
    stride = int(rng.choice([1, 1, 1, 1, 2]))
    padding = "valid" if rng.random() < 0.3 else "same"
    mode = str(rng.choice(["zeros", "zeros", "zeros", "reflect"])) if min(size) > 1 else "zeros"
    spec = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode}
    batch = spread(1, 8)
    dtype = str(rng.choice(["float32", "float32", "float64"]))
    return Draw((batch, inputs, *size), (outputs, inputs // groups, *kernel), dtype, spec)


def measure(draw: Draw, threads: int, budget: float = 0.1) -> list[Timing]:
    """Time every method that supports the problem and is not hopeless, side by side."""
    problem = draw.problem
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(draw.dtype) for shape in (draw.x_shape, draw.w_shape))
    used = granted_threads(problem, threads)
    calls, features = {}, {}
    able = {name: each for name, each in ALGORITHMS.items() if each.supports(problem, machine()) is None}
    predicted = {name: algorithm.estimate(problem, used).seconds for name, algorithm in able.items()}
    for name, algorithm in able.items():
        if predicted[name] <= max(_TOO_SLOW, min(predicted.values())):
            call = plan(w, method=name, threads=threads, **draw.spec)
            try:
                call(x)
            except UntameInputError:  # refused for these numbers, as it would be in `auto`
                continue
            calls[name], features[name] = partial(call, x), algorithm.features(problem, used)
    timed = interleaved(calls, repeat=5, min_time=budget, warm_up=_WARM_UP)
    medians = {name: samples.median for name, samples in timed.items()}
    return [
        Timing(name, features[name], medians[name], *_prepare(draw, name, threads, x, w, medians[name]))
        for name in calls
    ]


def _prepare(draw: Draw, method: str, threads: int, x: np.ndarray, w: np.ndarray, seconds: float) -> tuple[int, float]:
    """Numbers that a functional call prepares, and the seconds that it takes longer than a plan, which takes `seconds`.

    Zeros where that could not be told from the noise.
    """
    fixed = costmodel.preparation(method, 0)
    estimate = ALGORITHMS[method].estimate(draw.problem, granted_threads(draw.problem, threads))
    count = (estimate.preparation_seconds - fixed) / max(costmodel.preparation(method, 1) - fixed, 1e-15)
    if count < _MANY_WEIGHTS and (count >= _FEW_WEIGHTS or seconds > _SHORT):
        return 0, 0.0
    prepared, differences, w = plan(w, method=method, threads=threads, **draw.spec), [], w.copy()
    for _ in range(5):
        w.flat[0] *= -1  # or small weights would be remembered; a guard sees the same magnitudes
        start = time.perf_counter()
        prepared(x)
        middle = time.perf_counter()
        conv(x, w, method=method, threads=threads, **draw.spec)
        differences.append(time.perf_counter() - middle - (middle - start))
    return round(count), max(statistics.median(differences[1:]), 0.0)  # the first calls also worked out the layout


def fit(timings: list[Timing], ratios: list[float]) -> dict[str, float]:
    """Weights in nanoseconds that predict the timings of one method.

    Minimises the logarithms of the errors; a few large ones, of runs that something else disturbed, count for little,
    and timings less the larger their `ratios` over the problem's best: choices are close where methods are.
    """
    from scipy.optimize import least_squares, nnls

    names = list(timings[0].features)
    rows = np.array([[timing.features[name] / (1e9 * timing.seconds) for name in names] for timing in timings])
    largest = rows.max(axis=0)
    rows /= np.where(largest > 0, largest, 1.0)
    start, _ = nnls(rows, np.ones(len(rows)))
    importance = np.minimum(ratios, 10.0) ** -0.5

    def errors(logarithms: np.ndarray) -> np.ndarray:
        return importance * np.log(rows @ np.exp(logarithms))

    begin = np.log(np.maximum(start, 1e-6 * start.max()))
    fitted = np.exp(least_squares(errors, begin, loss="soft_l1", f_scale=0.2).x)
    kept = np.where((largest > 0) & (fitted > 1e-4), fitted / np.maximum(largest, 1e-300), 0.0)
    table = {name: float(f"{value:.3g}") for name, value in zip(names, kept, strict=True)}
    return table | _fit_preparation(timings)


def _fit_preparation(timings: list[Timing]) -> dict[str, float]:
    """Nanoseconds to prepare any weights, and for each number: medians over those with few, and with many."""
    few = [1e9 * t.preparation for t in timings if 0 < t.prepared < _FEW_WEIGHTS]
    fixed = statistics.median(few or [0.0])
    many = [max(1e9 * t.preparation - fixed, 0) / t.prepared for t in timings if t.prepared >= _MANY_WEIGHTS]
    return {"prepare": float(f"{fixed:.3g}"), "weight": float(f"{statistics.median(many or [0.0]):.3g}")}


def report(results: list[list[Timing]], table: dict[str, dict[str, float]]) -> str:
    """The fitted table, the error of its predictions and the quality of its choices."""
    lines = [f'NANOSECONDS["{costmodel.table_name()}"] = {{']
    for method, weights in table.items():
        lines.append(f'    "{method}": {{{", ".join(f"{name!r}: {value}" for name, value in weights.items())}}},')
    lines = [line.replace("'", '"') for line in (*lines, "}")]
    for method in table:
        ratios = [_predicted(table, t) / t.seconds for timings in results for t in timings if t.method == method]
        errors = sorted(max(ratio, 1 / ratio) for ratio in ratios)
        lines.append(
            f"{method:>10}: {len(errors)} problems, prediction off by a factor of {errors[len(errors) // 2]:.2f} "
            f"(median), {errors[int(len(errors) * 0.9)]:.2f} (nine in ten)"
        )
    losses = sorted(_loss(timings, table) for timings in results if timings)
    good = sum(loss <= 1.15 for loss in losses) / len(losses)
    lines.append(f"choices within 15 % of the best: {100 * good:.0f} %, worst {losses[-1]:.2f} times the best")
    return "\n".join(lines)


def _predicted(table: dict[str, dict[str, float]], timing: Timing) -> float:
    return 1e-9 * sum(table[timing.method][name] * amount for name, amount in timing.features.items())


def _loss(timings: list[Timing], table: dict[str, dict[str, float]]) -> float:
    chosen = min(timings, key=lambda timing: _predicted(table, timing))
    return chosen.seconds / min(timing.seconds for timing in timings)


def main(arguments: list[str] | None = None) -> int:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=150, help="random problems to time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random problems (default %(default)s)")
    parser.add_argument("--check", action="store_true", help="judge the constants in use instead of fitting new ones")
    options = parser.parse_args(arguments)
    cores = machine().cores
    cases = [(draw, 1 + number % 2 * (cores - 1)) for number, draw in enumerate(draws(options.problems, options.seed))]
    cases += [(layer, threads) for layer in layers() for threads in sorted({1, cores})]
    results = []
    for number, (draw, threads) in enumerate(cases, 1):
        results.append(measure(draw, threads))
        print(f"\r{number} of {len(cases)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    table = {method: costmodel.weights_of(method) for method in ALGORITHMS}
    if not options.check:
        table = {}
        for method in ALGORITHMS:
            mine = [
                (t, t.seconds / min(each.seconds for each in ts)) for ts in results for t in ts if t.method == method
            ]
            if mine:
                timings, ratios = zip(*mine, strict=True)
                table[method] = fit(list(timings), list(ratios))
        # What any functional call takes longer than a plan tells no method from another.
        common = min(filter(None, (weights["prepare"] for weights in table.values())), default=0.0)
        for weights in table.values():
            weights["prepare"] = round(max(weights["prepare"] - common, 0.0), 1)
    print(report(results, table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
