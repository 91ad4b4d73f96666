"""asv: the a trous transform and its inverse, beside SciPy and PyWavelets (see `benchmarks.atrous`)."""

from __future__ import annotations

import numpy as np

import fastdil
from benchmarks import atrous, timing


class Atrous:
    """All levels of the forward transform."""

    params = (list(atrous.ROWS), list(atrous.CANDIDATES))
    param_names = ("workload", "implementation")
    timeout = 120

    def setup(self, workload: str, implementation: str) -> None:
        """Prepare, compile and check."""
        row = atrous.ROWS[workload]
        x = row.data()
        self.call = atrous.prepare(implementation, row, x, atrous.oracle(x, row.levels), timing.granted_cores()).call
        timing.calm_heap()

    def time_transform(self, workload: str, implementation: str) -> None:
        """One call."""
        self.call()


class InverseAtrous:
    """The sum of the planes."""

    params = (list(atrous.ROWS),)
    param_names = ("workload",)

    def setup(self, workload: str) -> None:
        """Prepare, compile and check."""
        row = atrous.ROWS[workload]
        x = row.data()
        self.planes = fastdil.atrous_transform(x, row.levels)
        np.testing.assert_allclose(fastdil.inverse_atrous_transform(self.planes), x, atol=1e-5)
        timing.calm_heap()

    def time_inverse(self, workload: str) -> None:
        """One call."""
        fastdil.inverse_atrous_transform(self.planes)
