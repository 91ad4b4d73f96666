"""asv: convolutions on a GPU, fastdil.cuda beside cuDNN and CuPy; skipped where there is none.

`time_convolution` waits for the GPU inside the timed body. Results are compared with exact sums before.
"""

from __future__ import annotations

from benchmarks import gpu, timing
from benchmarks.workloads import BY_NAME, asv_names, make_arrays, sampled_error

_IMPLEMENTATIONS = ["auto", "auto_high", "auto_medium", *gpu.CUDNN, *gpu.CUPY]


class Convolution:
    """One call on arrays that lie on the GPU, and the wait for its result."""

    param_names = ("workload", "implementation", "dtype")
    params = (asv_names(), _IMPLEMENTATIONS, ["float32", "float64"])
    timeout = 120

    def setup(self, name: str, implementation: str, dtype: str) -> None:
        """Copy, compile and check; asv skips what raises `NotImplementedError`."""
        workload = BY_NAME[name]
        tier = gpu.ours().get(implementation, ("", "highest"))[1] if gpu.missing() is None else "highest"
        reason = gpu.missing() or gpu.refusal(implementation, workload, dtype)
        if dtype != "float32" and (tier != "highest" or "tf32" in implementation):
            reason = reason or "lower precisions are for float32"
        if reason is not None:
            raise NotImplementedError(reason)
        x, w = make_arrays(workload, dtype)
        call = gpu.prepare(implementation, workload, x, w)
        error = sampled_error(workload, x, w, gpu.to_host(call()))
        assert error <= gpu.limit(implementation), f"wrong result: {error:.3g} eps max A"
        self.call = gpu.waiting(call)
        timing.calm_heap()

    def time_convolution(self, name: str, implementation: str, dtype: str) -> None:
        """One call."""
        self.call()
