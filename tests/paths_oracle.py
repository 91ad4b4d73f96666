"""Oracle of the theory tests: follows every path from an output to the input, one tap at a time, in plain Python.

A layer is a dict of one axis: kernel, dilation, stride, lo (padding before the first sample), transposed.
"""

from __future__ import annotations

from collections import Counter


def plain(kernel, dilation=1, stride=1, lo=0, transposed=False) -> dict:
    """A layer as the oracle takes it."""
    return {"kernel": kernel, "dilation": dilation, "stride": stride, "lo": lo, "transposed": transposed}


def reads(layer: dict, output: int) -> list[int]:
    """Input positions that one output of a layer reads, one entry per tap that meets a position."""
    k, d, s, p = layer["kernel"], layer["dilation"], layer["stride"], layer["lo"]
    if not layer["transposed"]:
        return [output * s + a * d - p for a in range(k)]
    near = range(-abs(output) - abs(p) - k * d - 2, abs(output) + abs(p) + k * d + 3)
    return [i for i in near for a in range(k) if i * s - p + a * d == output]


def paths(stack: list[dict], output: int = 0) -> Counter:
    """Position -> number of paths from one output of the stack."""
    seen = Counter({output: 1})
    for layer in reversed(stack):
        before: Counter = Counter()
        for position, count in seen.items():
            for source in reads(layer, position):
                before[source] += count
        seen = before
    return seen


def dense(seen: Counter) -> list[int]:
    """The counts from the first position with a path to the last."""
    return [seen[i] for i in range(min(seen), max(seen) + 1)] if seen else []
