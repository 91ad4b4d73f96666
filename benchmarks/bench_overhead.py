"""asv: calls so small that their overhead is the time: functional calls, prepared plans, PyTorch, NumPy."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.workloads import SMALL


class SmallCalls:
    """Microseconds count here: validation, look-up of the plan, launch."""

    params = ([workload.name for workload in SMALL], [ours.AUTO, ours.PLAN, "torch", "numpy"])
    param_names = ("workload", "implementation")

    def setup(self, workload: str, implementation: str) -> None:
        """Prepare, compile and check."""
        self.call = ours.checked_call(workload, implementation, "float32")

    def time_call(self, workload: str, implementation: str) -> None:
        """One call."""
        self.call()
