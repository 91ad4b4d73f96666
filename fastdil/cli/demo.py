"""`fastdil demo`: one dilated layer on real input, by every method, against an independent float64 result."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fastdil
from fastdil.cli import inputs
from fastdil.cli.terminal import CliError, Progress, seconds

IN_CHANNELS, OUT_CHANNELS, KERNEL = inputs.CHANNELS, 64, 3
#: The filter bank's scales: the same eight filters at these dilations, 32 channels together.
SCALES = (1, 2, 4, 8)
#: A method that is not chosen and is predicted to take longer than this, in seconds, is not run.
PATIENCE = 5.0
#: Seconds after which no further run of a method is started.
TIME_LIMIT = 2.0
#: Outputs of one band of the float64 result: keeps its temporaries small.
BAND = 2**16


@dataclass(frozen=True)
class Timing:
    """What one method did: seconds of its first call, seconds of the others, its largest error."""

    name: str
    first: float
    runs: list[float]
    error: float

    @property
    def typical(self) -> float:
        """Median seconds."""
        return median(self.runs)


def gabor_bank(rank: int) -> np.ndarray:
    """Eight filters of zero mean and unit norm: ``(8, 5, 5)`` for images, ``(8, 9)`` for sounds.

    Images: four orientations, even and odd. Sounds: four wavelengths, even and odd.
    """
    half = 2 if rank == 2 else 4
    grid = np.meshgrid(*[np.arange(-half, half + 1.0)] * rank, indexing="ij")
    window = np.exp(-sum(axis**2 for axis in grid) / (2 * (half / 2) ** 2))
    filters = []
    for step in range(4):
        if rank == 2:
            angle = step * np.pi / 4
            phase = (grid[1] * np.cos(angle) + grid[0] * np.sin(angle)) * 2 * np.pi / 4
        else:
            phase = grid[0] * 2 * np.pi / (3, 4, 6, 8)[step]
        for wave in (np.cos, np.sin):
            taps = window * wave(phase)
            taps -= window * taps.sum() / window.sum()
            filters.append(taps / np.linalg.norm(taps))
    return np.array(filters, dtype=np.float32)


def features(plane: np.ndarray, threads: int | None) -> np.ndarray:
    """32 channels of a grey image or a sound, shape ``(1, 32, *spatial)``."""
    bank = gabor_bank(plane.ndim)[:, None]
    options: dict[str, Any] = {"padding": "same", "padding_mode": "reflect", "threads": threads}
    return np.concatenate([fastdil.conv(plane[None], bank, dilation=d, **options) for d in SCALES])[None]


def layer_weights(rank: int) -> np.ndarray:
    """Weights of the layer, ``(64, 32, 3, 3)`` or ``(64, 32, 3)``: He-scaled, always the same."""
    scale = np.sqrt(2 / (IN_CHANNELS * KERNEL**rank))
    shape = (OUT_CHANNELS, IN_CHANNELS) + (KERNEL,) * rank
    return (np.random.default_rng(15).standard_normal(shape) * scale).astype(np.float32)


def float64_layer(x: np.ndarray, w: np.ndarray, dilation: int) -> tuple[np.ndarray, float]:
    """The layer in float64 by one matrix product per tap, and the largest sum of magnitudes, max A.

    Independent of fastdil: what its results are compared with. `x` is ``(32, *spatial)``; padding is "same".
    """
    size, kernel = x.shape[1:], w.shape[2:]
    x64 = x.astype(np.float64)
    weights = np.moveaxis(w, (0, 1), (-2, -1)).astype(np.float64)  # one matrix per tap
    y = np.zeros((w.shape[0], *size))
    largest = 0.0
    rows = max(BAND // int(np.prod(size[1:])), 1)
    for start in range(0, size[0], rows):
        band = y[:, start : start + rows]
        magnitude = np.zeros_like(band)
        for tap in itertools.product(*map(range, kernel)):
            offsets = [(a - k // 2) * dilation for a, k in zip(tap, kernel, strict=True)]  # odd kernels
            first = [max(-offset, 0) for offset in offsets]
            last = [min(n, n - offset) for n, offset in zip(size, offsets, strict=True)]
            first[0], last[0] = max(first[0], start), min(last[0], start + band.shape[1])
            if any(lo >= hi for lo, hi in zip(first, last, strict=True)):
                continue
            read = tuple(slice(lo + o, hi + o) for lo, hi, o in zip(first, last, offsets, strict=True))
            first[0], last[0] = first[0] - start, last[0] - start
            written = (slice(None), *map(slice, first, last))
            samples = x64[:, *read]
            band[written] += np.tensordot(weights[tap], samples, 1)
            magnitude[written] += np.tensordot(np.abs(weights[tap]), np.abs(samples), 1)
        largest = max(largest, float(magnitude.max()))
    return y, largest


def describe(problem: fastdil.Problem, title: str) -> str:
    """The layer in numbers: what it sees, what it costs, and why it is dilated."""
    rank, dilation, span = problem.rank, problem.dilation[-1], problem.effective_kernel[-1]
    pixels = "pixels" if rank == 2 else "samples"
    taps, sees = (" x ".join([str(k)] * rank) for k in (KERNEL, span))
    size = " x ".join(map(str, problem.size[3 - rank :]))
    weights = IN_CHANNELS * OUT_CHANNELS * KERNEL**rank
    dense = IN_CHANNELS * OUT_CHANNELS * span**rank
    channels = f"{IN_CHANNELS} -> {OUT_CHANNELS} channels"
    inside = problem.useful_macs / problem.macs
    return "\n".join(
        [
            f"input     {title}, {size} {pixels}, as {IN_CHANNELS} channels of float32",
            f"layer     {taps} taps, dilation {dilation}, {channels}, padding 'same'",
            f"sees      {sees} {pixels} per output: effective kernel (3 - 1) * {dilation} + 1 = {span}",
            f"weights   {weights:,}; a dense {sees} kernel has {dense:,}, {dense / weights:.3g} times that",
            f"MACs      {problem.macs:,}; {inside:.1%} of them meet {pixels}, the others padding",
        ]
    )


def measure(
    name: str,
    plan: Callable[[], fastdil.Plan],
    x: np.ndarray,
    out: np.ndarray,
    exact: np.ndarray,
    repeat: int,
) -> Timing:
    """Time one method, its plan and first call apart, and compare what it leaves in `out` with `exact`."""
    with Progress() as progress:
        progress.show(f"{name}: first call")
        start = time.perf_counter()
        convolve = plan()
        convolve(x, out=out)
        first = time.perf_counter() - start
        runs: list[float] = []
        while len(runs) < repeat and sum(runs) < TIME_LIMIT:
            progress.show(f"{name}: run {len(runs) + 1} of {repeat}")
            start = time.perf_counter()
            convolve(x, out=out)
            runs.append(time.perf_counter() - start)
        progress.show(f"{name}: comparing with float64")
        error = max(float(np.abs(mine - wanted).max()) for mine, wanted in zip(out[0], exact, strict=True))
    return Timing(name, first, runs, error)


def report(timings: list[Timing], chosen: str, flops: int, bound: float) -> str:
    """The table of measured times, fastest first."""
    lines = ["method            time   GFLOP/s   runs   first call   largest error   of its bound"]
    for timing in sorted(timings, key=lambda timing: timing.typical):
        name = timing.name + " *" * (timing.name == chosen)
        share = timing.error / bound if bound else 0.0
        lines.append(
            f"{name:<12}{seconds(timing.typical):>10}{flops / timing.typical / 1e9:>10.1f}"
            f"{len(timing.runs):>7}"
            f"{seconds(timing.first):>13}{timing.error:>16.2g}{share:>15.1%}"
        )
    return "\n".join(lines)


def _select(explanation: fastdil.Explanation, method: str) -> tuple[list[str], list[str]]:
    """Methods to run, the chosen one first, and a line for each that would take too long."""
    run, too_slow = [explanation.chosen], []
    for row in explanation.candidates:
        if method != "auto" or row.seconds is None or row.name == explanation.chosen:
            continue
        if row.seconds > PATIENCE:
            too_slow.append(f"{row.name} was not run: about {seconds(row.seconds)} predicted")
        else:
            run.append(row.name)
    return run, too_slow


def run(arguments: argparse.Namespace) -> None:
    """Run the demo as the command line asks."""
    save = _output_path(arguments.save)
    title, plane = inputs.photograph() if arguments.file is None else inputs.load(arguments.file)
    rank = min(plane.ndim, 2)
    w = layer_weights(rank)
    x_shape = (1, IN_CHANNELS, *plane.shape[-rank:])
    layer: dict[str, Any] = {"padding": "same", "dilation": arguments.dilation, "threads": arguments.threads}
    try:
        explanation = fastdil.explain(x_shape, w.shape, method=arguments.method, **layer)
    except (TypeError, ValueError) as error:
        raise CliError(str(error)) from None
    print(describe(explanation.problem, title))
    print(f"\npredicted\n{explanation}", flush=True)

    with Progress() as progress:
        progress.show("filter bank, the first convolution of this process")
        start = time.perf_counter()
        x = plane[None] if plane.ndim == 3 else features(plane, arguments.threads)
        bank_time = time.perf_counter() - start
        progress.show("float64 result, by NumPy alone")
        exact, largest = float64_layer(x[0], w, arguments.dilation)
    names, too_slow = _select(explanation, arguments.method)
    timings = []
    out = np.empty(explanation.problem.out_shape, np.float32)
    for name in names:
        plan = partial(fastdil.plan, w, method=name, **layer)
        timings.append(measure(name, plan, x, out, exact, arguments.repeat))
        if save is not None and name == explanation.chosen:
            _save(save, out[0])

    bound = 8 * float(np.finfo(np.float32).eps) * largest
    print("\nmeasured: median time, first call apart (* chosen)")
    print(report(timings, explanation.chosen, explanation.problem.flops, bound))
    for line in too_slow:
        print(line)
    print(f"\nErrors are against float64; the bound is 8 eps max conv(|x|, |w|) = {bound:.2g}.")
    if plane.ndim < 3:
        print("The 32 channels are Gabor filters at dilations 1, 2, 4 and 8, computed by fastdil. They took")
        print(f"{seconds(bank_time)}, first call of the process included, which loads or compiles kernels.")
    if save is not None:
        print(f"Saved the result, {explanation.problem.out_shape[1:]} float32, to {save}.")


def _output_path(text: str | None) -> Path | None:
    """Where the result goes; refused before the work is done, not after it."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix != ".npy":
        raise CliError(f"argument --save: expected a file ending in .npy, not {text!r}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise CliError(f"argument --save: expected a file in an existing folder, not {text!r}")
    return path


def _save(path: Path, y: np.ndarray) -> None:
    try:
        with path.open("wb") as file:
            np.save(file, y)
    except OSError as error:
        raise CliError(f"argument --save: {path}: {error.strerror or error}") from None
