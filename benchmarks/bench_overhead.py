"""asv: what surrounds the multiplications: overhead of small calls, dilation, denormal numbers."""

from __future__ import annotations

import numpy as np

from benchmarks import flatness, ours, peers
from benchmarks.workloads import SMALL

_PEERS = [peer.name for peer in peers.installed() if peer.name in ("torch", "numpy")]


class SmallCalls:
    """Microseconds count here: validation, look-up of the plan, launch."""

    params = ([workload.name for workload in SMALL], [ours.AUTO, ours.PLAN, *_PEERS])
    param_names = ("workload", "implementation")

    def setup(self, workload: str, implementation: str) -> None:
        """Prepare, compile and check."""
        self.call = ours.checked_call(workload, implementation, "float32")

    def time_call(self, workload: str, implementation: str) -> None:
        """One call."""
        self.call()


class Flat:
    """Two layers of equal output size at two dilations; `benchmarks.flatness` has more of both, and prints ratios."""

    params = (["1d_64_k3_same", "2d_dw64_k3_same"], [1, 512], ["direct", "auto"])
    param_names = ("layer", "dilation", "method")

    def setup(self, name: str, dilation: int, method: str) -> None:
        """Prepare and compile."""
        layer = next(layer for layer in flatness.LAYERS if layer.name == name)
        self.call = flatness.prepared(layer, method, dilation, "float32", 1)
        if self.call is None:
            raise NotImplementedError("the input would not fit")
        self.call()

    def time_call(self, name: str, dilation: int, method: str) -> None:
        """One call of a plan."""
        self.call()


class Denormals:
    """Numbers below the smallest normal one: some processors compute with them many times slower."""

    params = (["normal", "denormal"], ["direct", "im2col"])
    param_names = ("numbers", "method")

    def setup(self, numbers: str, method: str) -> None:
        """Draw numbers and compile."""
        import fastdil

        rng = np.random.default_rng(0)
        self.spec = {"padding": 2, "dilation": 2}
        self.w = rng.uniform(-0.01, 0.01, (16, 16, 3)).astype(np.float32)
        x = rng.standard_normal((1, 16, 1024)).astype(np.float32)
        self.x = x if numbers == "normal" else (x * np.float32(2.0**-130)).astype(np.float32)
        self.plan = fastdil.plan(self.w, method=method, threads=1, **self.spec)
        self.out = self.plan(self.x)

    def time_call(self, numbers: str, method: str) -> None:
        """One call of a plan."""
        self.plan(self.x, self.out)
