"""asv: time and peak memory of whole convolutions, by workload and implementation.

The defaults are a few rows, so that ``asv run --python=same --quick`` takes minutes; ``FASTDIL_BENCH=all`` in
the environment takes them all. asv gives every combination a process of its own: no library disturbs another. Peers
that are not installed are not listed: each would be a process that finds out no more than that.
"""

from __future__ import annotations

from benchmarks import ours, peers, timing
from benchmarks.workloads import asv_names

_OURS = [ours.AUTO, ours.PLAN, *ours.methods()]
_PEERS = [peer.name for peer in peers.installed() if peer.name != "numpy"]
_RUNTIMES = [name for name in _PEERS if name in ("torch", "onnxruntime")]
_DOUBLE_PEERS = [name for name in _PEERS if "float64" in peers.BY_NAME[name].dtypes]


class _Convolution:
    param_names = ("workload", "implementation")
    timeout = 120
    dtype = "float32"

    def setup(self, workload: str, implementation: str) -> None:
        """Prepare, compile and check."""
        self.call = ours.checked_call(workload, implementation, self.dtype)
        timing.calm_heap()


class Float32(_Convolution):
    """Every implementation in float32."""

    params = (asv_names(), [*_OURS, *_PEERS])

    def time_convolution(self, workload: str, implementation: str) -> None:
        """One call."""
        self.call()


class Float64(_Convolution):
    """float64, without the peers that would compute in float32."""

    params = (asv_names()[-3:], [*_OURS, *_DOUBLE_PEERS])
    dtype = "float64"

    def time_convolution(self, workload: str, implementation: str) -> None:
        """One call."""
        self.call()


class Memory(_Convolution):
    """Peak resident memory of a process that imports one library and convolves."""

    params = (asv_names()[:2], [ours.AUTO, *ours.methods(), *_RUNTIMES])

    def peakmem_convolution(self, workload: str, implementation: str) -> None:
        """One call; the library and the arrays are part of it."""
        self.call()
