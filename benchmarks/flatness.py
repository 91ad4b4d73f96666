"""Is time flat in dilation? ``python -m benchmarks.flatness [--threads N] [--dtype D] [--rows NAME ...]``.

Times layers at dilations from 1 to 512 with the same output size, and prints ``time(d) / time(1)`` for each method. Two
ways keep the output equal: padding to the same size (*same*), where more and more taps fall on zeros, which may make a
large dilation faster; and an input that grows with the reach (*valid*), where every tap falls on a sample.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from typing import NamedTuple

import numpy as np

from benchmarks import timing

DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: Largest time(d) / time(1) that counts as flat.
TARGET = 1.1
METHODS = ("direct", "im2col", "auto")


class Layer(NamedTuple):
    """A layer of fixed output size, whatever its dilation."""

    name: str
    inputs: int
    outputs: int
    groups: int
    kernel: tuple[int, ...]
    out_size: tuple[int, ...]
    padding: str  #: "same" or "valid"

    def shapes(self, dilation: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of input and weights."""
        reach = [(k - 1) * dilation if self.padding == "valid" else 0 for k in self.kernel]
        size = [n + more for n, more in zip(self.out_size, reach, strict=True)]
        return (1, self.inputs, *size), (self.outputs, self.inputs // self.groups, *self.kernel)


LAYERS = (
    Layer("1d_64_k3_same", 64, 64, 1, (3,), (16384,), "same"),
    Layer("1d_64_k3_valid", 64, 64, 1, (3,), (16384,), "valid"),
    Layer("1d_1_k64_valid", 1, 1, 1, (64,), (262144,), "valid"),
    Layer("1d_dw64_k7_same", 64, 64, 64, (7,), (16384,), "same"),
    Layer("2d_32_k3_same", 32, 32, 1, (3, 3), (128, 128), "same"),
    Layer("2d_32_k3_valid", 32, 32, 1, (3, 3), (128, 128), "valid"),
    Layer("2d_1_k5_same", 1, 1, 1, (5, 5), (1024, 1024), "same"),
    Layer("2d_1_k5_valid", 1, 1, 1, (5, 5), (1024, 1024), "valid"),
    Layer("2d_dw64_k3_same", 64, 64, 64, (3, 3), (64, 64), "same"),
)
#: Bytes of input beyond which a dilation is left out.
_MOST_BYTES = 1 << 28


class Flatness(NamedTuple):
    """Seconds of one layer and method, by dilation."""

    layer: str
    method: str
    seconds: dict[int, float]

    @property
    def ratios(self) -> dict[int, float]:
        """Times over the time at dilation 1."""
        return {dilation: seconds / self.seconds[1] for dilation, seconds in self.seconds.items()}

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return max(self.ratios.values())


def prepared(
    layer: Layer, method: str, dilation: int, dtype: str, threads: int
) -> functools.partial[np.ndarray] | None:
    """A call of a plan, so that weights are packed once; None where the input would be too large."""
    import fastdil

    rng = np.random.default_rng(0)
    x_shape, w_shape = layer.shapes(dilation)
    if math.prod(x_shape) * np.dtype(dtype).itemsize > _MOST_BYTES:
        return None
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    settings = {"dilation": dilation, "padding": layer.padding, "groups": layer.groups}
    plan = fastdil.plan(w, method=method, threads=threads, **settings)
    out = plan(x)
    assert out.shape[2:] == layer.out_size
    return functools.partial(plan, x, out)


def measure(
    layer: Layer,
    method: str,
    dtype: str = "float32",
    threads: int = 1,
    dilations: tuple[int, ...] = DILATIONS,
    repeat: int = 15,
    min_time: float = 0.05,
) -> Flatness:
    """Time one layer with one method at every dilation, in turn."""
    calls = {}
    for dilation in dilations:
        call = prepared(layer, method, dilation, dtype, threads)
        if call is not None:
            calls[str(dilation)] = call
    samples = timing.interleaved(calls, repeat, min_time)
    # The shortest time: whatever else runs on the machine only adds to it.
    return Flatness(layer.name, method, {int(name): min(sample.seconds) for name, sample in samples.items()})


def report(results: list[Flatness]) -> str:
    """A table of ratios, and the rows that miss the target."""
    dilations = sorted({d for result in results for d in result.seconds})
    head = f"{'layer':<18}{'method':<9}{'ms at 1':>9}" + "".join(f"{'d=' + str(d):>8}" for d in dilations) + "   worst"
    lines = [head]
    for result in results:
        ratios = "".join(f"{result.ratios[d]:8.2f}" if d in result.seconds else f"{'-':>8}" for d in dilations)
        miss = "" if result.worst <= TARGET else "  MISS"
        lines.append(
            f"{result.layer:<18}{result.method:<9}{1e3 * result.seconds[1]:9.3f}{ratios}{result.worst:8.2f}{miss}"
        )
    misses = [result for result in results if result.worst > TARGET]
    lines.append(f"time(d) / time(1) at most {TARGET}: {len(results) - len(misses)} of {len(results)} rows")
    lines += [f"  missed by {result.layer}, {result.method}: {result.worst:.2f}" for result in misses]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flatness", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of each call (default %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--rows", nargs="+", default=[layer.name for layer in LAYERS], metavar="NAME", help="layers")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME", help="default: direct im2col auto")
    parser.add_argument("--repeat", type=int, default=15, help="samples; the shortest counts (default %(default)s)")
    options = parser.parse_args(arguments)
    unknown = set(options.rows) - {layer.name for layer in LAYERS}
    if unknown:
        parser.error(f"--rows {' '.join(sorted(unknown))}: expected names of {[layer.name for layer in LAYERS]}")
    results = []
    for layer in LAYERS:
        for method in options.methods if layer.name in options.rows else ():
            results.append(measure(layer, method, options.dtype, options.threads, repeat=options.repeat))
            print(f"\r{layer.name} {method:<10}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
