"""Predicted seconds of each method: every tuned constant of the dispatcher, with its pedigree.

placeholder
"""

from __future__ import annotations

import math


def chain_error(block: int, terms: int) -> float:
    return 1.0


def im2col_seconds(problem, machine, threads, work, tasks):
    return 1e-5 + work * problem.batch * problem.out_channels * problem.group_in / 2e11


def direct_seconds(problem, machine, threads, rows, strip):
    return 1e-5 + problem.macs / 1e11


ERROR_LIMIT = {"highest": 8.0, "high": 1e3, "medium": 1e5}


def reference_seconds(problem):
    return 1e-5 + problem.macs * 2e-9


def fft_seconds(problem, machine, threads, blocks, points, transform):
    return (
        1e-4
        + problem.batch
        * (problem.in_channels + problem.out_channels)
        * blocks
        * points
        * math.log2(transform + 1)
        * 1e-9
    )


SERIAL_MACS = 1 << 20


def peak_gflops(dtype, machine, threads):
    return None
CALL_SECONDS = 5e-6
