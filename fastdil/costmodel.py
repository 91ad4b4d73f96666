"""Predicted seconds: every tuned constant of the dispatcher, with its pedigree.

An algorithm describes a problem by *features*, amounts of work such as vector multiply-adds or gathered vectors,
already divided by the threads that share them. The prediction is their sum weighted by `NANOSECONDS`; so the weights
can be fitted to timings, and each has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastdil.hardware import machine

#: Weights of `amx`: Intel Xeon (Granite Rapids), 2026-11-30, 48 layers and random problems of 16 channels and more at
#: each precision, one or two threads, samples copied or not; "task", "gather" and "weight" set. A product of two tiles
#: (16,384 operations) takes 4.7 ns at the unit's peak.
_AMX = {
    "call": 5000.0, "task": 300.0, "split": 2.8, "gather": 5.0, "panel": 1.6, "product": 7.6, "direct": 7.1, "sum": 6.7,
    "store": 4.5, "entry": 80.0, "stream": 0.03, "prepare": 0.0, "weight": 1.0,
}  # fmt: skip

#: Instruction set -> method -> feature -> nanoseconds per unit; `weights_of` picks. Pedigree: ``python -m
#: benchmarks.calibrate --seed 5 --problems 200``, random float32 and float64 problems and the layers of
#: `benchmarks.workloads` on one and two threads of two cores; `benchmarks.dispatch_quality` judges the choices.
#: "prepare" and "weight": what preparing any weights takes, and each number of them.
#: avx512: AMD EPYC (Zen 5), 2026-11-30; those of `winograd` from 190 problems that it takes, those of `direct` with 90
#: problems of seed 2 besides, its "far" and "lay_out" set: they matter where other methods are slower.
#: avx512 on Intel: Xeon (Granite Rapids), 2026-11-30; `winograd` with 56 problems of seed 11 that it takes.
#: avx512 in halves (`hardware.Machine.has_halves`): AMD EPYC (Zen 4), 2026-12-01, seeds 3, 5, 7 and 13; `direct`'s
#: "begin" and "lay_out" and `im2col`'s "gather" and "line" set; `winograd` from 150 problems of seed 11 and these.
#: `direct`'s "gather" on the others was counted in vectors, and is scaled.
#: avx2: AMD EPYC (Zen 3), 2026-12-01, seeds 3, 5 and 7, set by hand between fits to parts of these.
#: `winograd`'s "task", "run", "backward", "stream" and "spill" are set, "transform" (in halves) and "fetch" (AVX2) too:
#: they matter for how tasks are cut, or for few problems. So is `im2col`'s "line", 9 to 14 on the
#: Granite Rapids, and its "gather" there, 6 to 12 beside that. Its "piece" is known on the Zen 3 only, 5 to 15.
NANOSECONDS: dict[str, dict[str, dict[str, float]]] = {
    "avx512": {
        "reference": {"call": 3000.0, "output": 7.89, "product": 1.23, "prepare": 0.0, "weight": 0.0},
        "direct": {
            "call": 1280.0, "unit": 47.5, "tile": 0.94, "store": 4.05, "cycle": 0.235, "dense": 0.292,
            "straight": 0.309, "begin": 7.09, "lay_out": 3.0, "masked": 0.384, "gather": 4.2, "pair": 1.57,
            "index": 0.931, "byte": 0.0339, "far": 1.6, "prepare": 860.0, "weight": 0.679,
        },
        "im2col": {
            "call": 420.0, "task": 438.0, "store": 4.02, "piece": 0.0, "copy": 1.3, "run": 0.817, "gather": 13.0,
            "entry": 10.5, "line": 9.0, "index": 1.9, "stream": 0.0, "fma": 0.135, "prepare": 0.0, "weight": 0.602,
        },
        "fft": {
            "call": 6750.0, "task": 47.1, "butterfly": 0.0, "mix": 0.166, "move": 7.67, "element": 0.0,
            "spill": 0.0, "stream": 0.0, "prepare": 19300.0, "weight": 1.29,
        },
        "winograd": {
            "call": 17000.0, "task": 400.0, "line": 14.2, "run": 2.0, "fetch": 7.11, "forward": 0.8, "shuffle": 0.366,
            "fma": 0.155, "backward": 0.6, "row": 12.7, "store": 1.69, "transform": 15.8, "stream": 0.01,
            "spill": 0.05, "prepare": 20200.0, "weight": 2.26,
        },
        "amx": _AMX,
    },
    "avx512 on Intel": {
        "reference": {"call": 15600.0, "output": 10.9, "product": 1.97, "prepare": 0.0, "weight": 0.0},
        "direct": {
            "call": 1910.0, "unit": 39.9, "tile": 10.3, "store": 3.12, "cycle": 0.413, "dense": 0.501,
            "straight": 0.583, "begin": 2.12, "lay_out": 3.0, "masked": 0.451, "gather": 2.7, "pair": 1.34,
            "index": 1.6, "byte": 0.0465, "far": 1.6, "prepare": 3800.0, "weight": 1.38,
        },
        "im2col": {
            "call": 226.0, "task": 545.0, "store": 6.64, "piece": 0.0, "copy": 2.54, "run": 1.04, "gather": 9.0,
            "entry": 14.7, "line": 9.0, "index": 2.75, "stream": 0.0, "fma": 0.208, "prepare": 0.0, "weight": 1.13,
        },
        "fft": {
            "call": 23000.0, "task": 43.6, "butterfly": 1.45, "mix": 0.26, "move": 6.82, "element": 0.0,
            "spill": 3.38, "stream": 0.0, "prepare": 40400.0, "weight": 2.47,
        },
        "winograd": {
            "call": 40400.0, "task": 400.0, "line": 25.2, "run": 2.0, "fetch": 5.72, "forward": 2.14, "shuffle": 1.35,
            "fma": 0.27, "backward": 3.62, "row": 19.8, "store": 0.0, "transform": 83.8, "stream": 0.01,
            "spill": 0.05, "prepare": 20000.0, "weight": 5.89,
        },
        "amx": _AMX,
    },
    "avx512 in halves": {
        "reference": {"call": 3520.0, "output": 12.1, "product": 1.74, "prepare": 0, "weight": 0.0},
        "direct": {
            "call": 1680.0, "unit": 60.0, "tile": 33.0, "store": 0.6, "cycle": 0.255, "dense": 0.337,
            "straight": 0.359, "begin": 3.0, "lay_out": 2.0, "masked": 0.295, "gather": 5.0, "pair": 2.1,
            "index": 1.27, "byte": 0.0172, "far": 1.3, "prepare": 1700.0, "weight": 1.33,
        },
        "im2col": {
            "call": 500.0, "task": 820.0, "store": 5.1, "piece": 0.0, "copy": 1.7, "run": 1.2, "gather": 12.0,
            "entry": 13.1, "line": 14.0, "index": 3.3, "stream": 0.0, "fma": 0.321, "prepare": 0.0, "weight": 0.86,
        },
        "fft": {
            "call": 9060.0, "task": 71.1, "butterfly": 0.256, "mix": 0.356, "move": 10.5, "element": 0.0,
            "spill": 2.07, "stream": 0.0, "prepare": 43400.0, "weight": 1.83,
        },
        "winograd": {
            "call": 27600.0, "task": 400.0, "line": 25.0, "run": 2.0, "fetch": 2.5, "forward": 1.9, "shuffle": 0.8,
            "fma": 0.341, "backward": 1.8, "row": 12.0, "store": 3.0, "transform": 20.0, "stream": 0.01,
            "spill": 0.05, "prepare": 35600.0, "weight": 3.02,
        },
        "amx": _AMX,  # with the emulated unit only
    },
    "avx2": {
        "reference": {"call": 1800.0, "output": 15.8, "product": 2.4, "prepare": 0.0, "weight": 0.0},
        "direct": {
            "call": 4000.0, "unit": 80.0, "tile": 9.0, "store": 2.8, "cycle": 0.38, "dense": 0.555, "straight": 0.43,
            "begin": 0.0, "lay_out": 1.2, "masked": 0.3, "gather": 4.0, "pair": 3.2, "index": 1.8, "byte": 0.065,
            "far": 1.64, "prepare": 1800.0, "weight": 1.58,
        },
        "im2col": {
            "call": 3000.0, "task": 700.0, "store": 4.4, "piece": 14.0, "copy": 1.0, "run": 1.1, "gather": 9.0,
            "line": 17.0, "entry": 18.5, "index": 5.0, "stream": 0.06, "fma": 0.182, "prepare": 0.0, "weight": 1.8,
        },
        "fft": {
            "call": 56000.0, "task": 220.0, "butterfly": 0.0, "mix": 0.27, "move": 8.2, "element": 0.0, "spill": 1.5,
            "stream": 0.0, "prepare": 65200.0, "weight": 2.61,
        },
        "winograd": {
            "call": 46000.0, "task": 800.0, "line": 6.0, "run": 8.0, "fetch": 2.5, "forward": 0.9, "shuffle": 0.5,
            "fma": 0.218, "backward": 2.8, "row": 22.0, "store": 1.0, "transform": 30.0, "stream": 0.025,
            "spill": 0.065, "prepare": 57800.0, "weight": 4.1,
        },
        "amx": _AMX,  # with the emulated unit only
    },
}  # fmt: skip

#: What a vector multiply-add of integers takes in `im2col`, times that of floats; `direct` waits for its loads instead.
#: Pedigree: same machine and day, 64 -> 64 channels of 64 x 64, one thread, against float32 in turn.
INTEGER_FACTOR = {"i8": 1.8, "i16": 1.0, "i32": 1.75, "i64": 2.2}

#: Bytes of weights up to which a functional call remembers them: preparing takes longer than comparing them (64 KiB,
#: Zen 5: 2 us to copy and compare, 9 to pack for `im2col`, 28 for `winograd`, and other cores must then fetch them).
MOST_REMEMBERED = 1 << 18

#: Below this many multiply-accumulates the caller's thread does all the work: waking the pool costs up to 40 us.
SERIAL_MACS = 1 << 20

#: What a call costs that computes nothing.
CALL_SECONDS = 5e-6

#: Relative error that the lower precisions allow; the highest allows 8 eps.
_RELATIVE = {"high": 2.0**-14, "medium": 2.0**-6}


def table_name() -> str:
    """Which table of `NANOSECONDS` describes this machine."""
    here = machine()
    kind = " in halves" if here.has_halves else " on Intel" if "Intel" in here.cpu else ""
    return next(name for name in (here.isa + kind, here.isa, "avx2") if name in NANOSECONDS)


def weights_of(method: str) -> dict[str, float]:
    """Nanoseconds per unit of each feature of a method, and of a prepared weight, on this machine."""
    return NANOSECONDS[table_name()][method]


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
