"""Predicted seconds: every tuned constant of the dispatcher, with its pedigree.

An algorithm describes a problem by *features*, amounts of work such as vector multiply-adds or gathered vectors,
already divided by the threads that share them. The prediction is their sum weighted by `NANOSECONDS`; so the weights
can be fitted to timings, and each has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastdil.hardware import machine

#: Weights of `amx`, not calibrated: no machine with AMX was at hand. What it has in common with `im2col` is rounded
#: from that method. "product" (of two tiles, 16,384 operations) is derived from a prototype on a two-core machine with
#: AMX, whose innermost loop ran at 3.9 TFLOP/s with one product per number. "split" (16 numbers into one part) and
#: "weight" (packed, per part) took 1.8 to 2.1 ns and 0.7 to 2.0 ns on an AMD EPYC (Zen 3, AVX2), 2026-11-25, one
#: thread. They predict 1.4 and 0.7 TFLOP/s on two cores for 256 channels of 65 x 65 and 3 x 3 taps at one and three
#: products; 3 x 3 layers of the prototype reached 1.5 to 1.8 and 0.70 to 0.80.
_AMX = {
    "call": 6000.0, "task": 1000.0, "store": 7.0, "copy": 1.0, "run": 4.5, "gather": 5.5, "entry": 11.0, "index": 5.7,
    "stream": 0.02, "split": 2.0, "product": 8.4, "prepare": 0.0, "weight": 1.0,
}  # fmt: skip

#: Instruction set -> method -> feature -> nanoseconds per unit; `weights_of` picks. Pedigree: ``python -m
#: benchmarks.calibrate --seed 5 --problems 300``, random float32 and float64 problems and the layers of
#: `benchmarks.workloads` on one and two threads of two cores; `benchmarks.dispatch_quality` judges the choices.
#: "prepare" and "weight": what preparing any weights takes, and each number of them.
#: avx512: AMD EPYC (Zen 4), 2026-11-29; means of that fit and of two to 200 problems of seed 2 and the layers.
#: "prepare" and "weight" are from another run of the same day.
#: avx2: AMD EPYC (Zen 3), 2026-11-25; `direct`'s "straight" from two depthwise layers and two images, one thread.
#: Every "prepare", and "weight" of `fft`, are those of the Zen 4, the latter with AVX2.
NANOSECONDS: dict[str, dict[str, dict[str, float]]] = {
    "avx512": {
        "reference": {"call": 24200.0, "output": 8.0, "product": 5.59, "prepare": 0.0, "weight": 0.0},
        "direct": {
            "call": 1490.0, "unit": 43.8, "tile": 0.0, "store": 16.8, "cycle": 0.51, "dense": 0.691, "straight": 0.78,
            "begin": 0.0, "lay_out": 13.5, "masked": 0.557, "gather": 10.2, "pair": 2.5, "index": 2.37,
            "byte": 0.0433, "prepare": 0.0, "weight": 0.853,
        },
        "im2col": {
            "call": 2940.0, "task": 470.0, "store": 7.02, "fma": 0.33, "copy": 1.91, "run": 5.41, "gather": 20.2,
            "entry": 12.7, "index": 3.19, "stream": 0.0328, "prepare": 0.0, "weight": 0.821,
        },
        "fft": {
            "call": 37900.0, "task": 0.0, "butterfly": 0.639, "mix": 0.394, "move": 13.2, "element": 0.0, "spill": 1.3,
            "stream": 0.0, "prepare": 40600.0, "weight": 1.88,
        },
        "winograd": {
            "call": 33200.0, "task": 39.0, "line": 113.0, "run": 18.3, "forward": 0.352, "fma": 0.305,
            "backward": 2.16, "store": 14.3, "stream": 0.13, "byte": 0.124, "prepare": 55200.0, "weight": 2.8,
        },
        "amx": _AMX,
    },
    "avx2": {
        "reference": {"call": 99400.0, "output": 8.0, "product": 7.51, "prepare": 0.0, "weight": 0.0},
        "direct": {
            "call": 11700.0, "unit": 83.2, "tile": 21.2, "store": 16.6, "cycle": 0.629, "dense": 0.629,
            "straight": 0.36, "begin": 0.0, "lay_out": 0.0, "masked": 0.54, "gather": 5.65, "pair": 2.5, "index": 2.15,
            "byte": 0.0505, "prepare": 0.0, "weight": 1.1,
        },
        "im2col": {
            "call": 4210.0, "task": 628.0, "store": 7.27, "fma": 0.205, "copy": 1.36, "run": 6.07, "gather": 7.43,
            "entry": 11.4, "index": 5.65, "stream": 0.0209, "prepare": 0.0, "weight": 1.5,
        },
        "fft": {
            "call": 113000.0, "task": 459.0, "butterfly": 0.0, "mix": 0.265, "move": 11.8, "element": 0.0,
            "spill": 0.0, "stream": 0.0, "prepare": 40600.0, "weight": 1.9,
        },
        "winograd": {
            "call": 112000.0, "task": 818.0, "line": 73.9, "run": 22.5, "forward": 0.0, "fma": 0.26,
            "backward": 2.75, "store": 7.21, "stream": 0.148, "byte": 0.147, "prepare": 55200.0, "weight": 4.5,
        },
        "amx": _AMX,  # with the emulated unit only
    },
}  # fmt: skip

#: What a vector multiply-add of integers takes in `im2col`, times that of floats; `direct` waits for its loads instead.
#: Pedigree: same machine and day, 64 -> 64 channels of 64 x 64, one thread, against float32 in turn.
INTEGER_FACTOR = {"i8": 1.8, "i16": 1.0, "i32": 1.75, "i64": 2.2}

#: Bytes of weights up to which a functional call remembers them: preparing few takes longer than to compare them.
MOST_REMEMBERED = 1 << 14

#: Below this many multiply-accumulates the caller's thread does all the work: waking the pool costs up to 40 us.
SERIAL_MACS = 1 << 20

#: What a call costs that computes nothing.
CALL_SECONDS = 5e-6

#: Relative error that the lower precisions allow; the highest allows 8 eps.
_RELATIVE = {"high": 2.0**-14, "medium": 2.0**-6}


def weights_of(method: str) -> dict[str, float]:
    """Nanoseconds per unit of each feature of a method, and of a prepared weight, on this machine."""
    return NANOSECONDS[machine().isa if machine().isa in NANOSECONDS else "avx2"][method]


def predict(method: str, features: Mapping[str, float]) -> float:
    """Seconds that `method` is predicted to take for this much work."""
    weights = weights_of(method)
    return 1e-9 * sum(weights[name] * amount for name, amount in features.items())


def preparation(method: str, numbers: float) -> float:
    """Seconds that preparing the weights is predicted to take, for this many numbers."""
    weights = weights_of(method)
    return 1e-9 * (weights["prepare"] + weights["weight"] * numbers)


def error_limit(precision: str, dtype: np.dtype) -> float:
    """Error that a precision allows, in eps of the dtype times the largest ``conv(|x|, |w|)``."""
    return max(8.0, _RELATIVE.get(precision, 0.0) / float(np.finfo(dtype).eps))


def chain_error(chain: int, terms: int) -> float:
    """Error bound in eps for sums of `terms` products in chains of `chain`, which then are added exactly.

    The worst measured over 20,000 products, each summed n times: n / 7.8 eps. Longer sums add at most 1.5 eps more.
    """
    return 0.5 + min(chain, terms) / 7.8 + (1.5 if terms > chain else 0.0)
