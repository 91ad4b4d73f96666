"""Predicted seconds: every tuned constant of the dispatcher, with its pedigree.

An algorithm describes a problem by *features*, amounts of work such as vector multiply-adds or gathered vectors,
already divided by the threads that share them. The prediction is their sum weighted by `NANOSECONDS`; so the weights
can be fitted by non-negative least squares, and each has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: Method -> feature -> nanoseconds per unit. Pedigree: two-core Xeon with AVX-512, 2026-11-23,
#: ``python -m benchmarks.calibrate --problems 180``: random float32 and float64 problems on one and two threads.
#: Predictions are off by 1.2 times (median); choices are within 15 % of the best on 92 % of the problems and never
#: beyond 1.61 times. The optimum is flat: fits of other problems move most weights by less than a tenth, and a fit on a
#: machine busy with other programs doubled every weight and still chose within 15 % on 82 %.
NANOSECONDS: dict[str, dict[str, float]] = {
    "reference": {"call": 59900.0, "product": 3.49},
    "direct": {
        "call": 23400.0, "unit": 28.7, "tile": 15.9, "cycle": 0.458, "masked": 0.393, "gather": 7.34, "byte": 0.11,
    },
    "im2col": {
        "call": 12300.0, "task": 4040.0, "store": 8.89, "fma": 0.255, "copy": 2.56, "gather": 5.22, "entry": 10.5,
        "stream": 0.0282,
    },
    "fft": {"call": 0.0, "block": 272000.0, "butterfly": 0.0695, "mix": 0.144, "point": 5.71},
}  # fmt: skip

#: What a vector multiply-add of integers takes in `im2col`, times that of floats; `direct` waits for its loads instead.
#: Pedigree: same machine and day, 64 -> 64 channels of 64 x 64, one thread, against float32 in turn.
INTEGER_FACTOR = {"i8": 1.8, "i16": 1.0, "i32": 1.75, "i64": 2.2}

#: Below this many multiply-accumulates the caller's thread does all the work: waking the pool costs up to 40 us.
SERIAL_MACS = 1 << 20

#: What a call costs that computes nothing.
CALL_SECONDS = 5e-6

#: Relative error that the lower precisions allow; the highest allows 8 eps.
_RELATIVE = {"high": 2.0**-14, "medium": 2.0**-6}


def predict(method: str, features: Mapping[str, float]) -> float:
    """Seconds that `method` is predicted to take for this much work."""
    weights = NANOSECONDS[method]
    return 1e-9 * sum(weights[name] * amount for name, amount in features.items())


def error_limit(precision: str, dtype: np.dtype) -> float:
    """Error that a precision allows, in eps of the dtype times the largest ``conv(|x|, |w|)``."""
    return max(8.0, _RELATIVE.get(precision, 0.0) / float(np.finfo(dtype).eps))


def chain_error(chain: int, terms: int) -> float:
    """Error bound in eps for sums of `terms` products in chains of `chain`, which then are added exactly.

    The worst measured over 20,000 products, each summed n times: n / 7.8 eps. Longer sums add at most 1.5 eps more.
    """
    return 0.5 + min(chain, terms) / 7.8 + (1.5 if terms > chain else 0.0)
