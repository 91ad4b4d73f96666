"""fastdil.cuda and its peers on one workload, for `benchmarks.compare_cuda` and the asv suite.

All of them get the same arrays, which lie on the GPU before the timed body begins: PyTorch's if it sees the GPU, else
Numba's. A timed body queues one call and waits for the GPU: without that, only the queueing would be timed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.workloads import Workload

#: Largest error that passes, in units of ``eps max A``: fastdil's contract by precision, and what catches a wrong
#: result of a peer in float32, and in TF32 with its 11 bits.
LIMITS = {"highest": 8.0, "high": 2.0**9, "medium": 2.0**17, "peer": 100.0, "tf32": 2.0**14}
#: name -> TF32 allowed, channels last in memory
CUDNN = {
    "cudnn": (False, False),
    "cudnn_nhwc": (False, True),
    "cudnn_tf32": (True, False),
    "cudnn_tf32_nhwc": (True, True),
}
CUPY = ("cupy_fftconvolve", "cupy_oaconvolve")
#: Predicted seconds beyond which a method is left out.
_TOO_SLOW = 0.5

Call = Callable[[], Any]


def missing() -> str | None:
    """None, or a sentence that says why nothing can be timed here."""
    from fastdil.cuda.availability import what_is_missing

    reason = what_is_missing()
    return None if reason is None else f"no GPU to time fastdil.cuda on: {reason}"


def ours() -> dict[str, tuple[str, str]]:
    """Name -> method and precision of fastdil's own rows."""
    import fastdil.cuda

    rows = {"auto": ("auto", "highest"), "auto_high": ("auto", "high"), "auto_medium": ("auto", "medium")}
    for method in fastdil.cuda.methods():
        tiers = ("high", "medium") if method == "tensor" else ("highest",)
        rows |= {method if tier == "highest" else f"{method}_{tier}": (method, tier) for tier in tiers}
    return rows


def names() -> list[str]:
    """Every implementation, fastdil's first."""
    return [*ours(), *CUDNN, *CUPY]


def limit(name: str) -> float:
    """Largest error of a right result, in units of ``eps max A``."""
    if name in ours():
        return LIMITS[ours()[name][1]]
    return LIMITS["tf32" if name in CUDNN and CUDNN[name][0] else "peer"]


def problem_of(workload: Workload, dtype: str, precision: str = "highest") -> Any:
    """The workload as `fastdil.problem.Problem`."""
    from fastdil.problem import Problem

    return Problem.create(workload.x_shape, workload.w_shape, dtype=dtype, precision=precision, **workload.spec)


def refusal(name: str, workload: Workload, dtype: str) -> str | None:
    """None, or the reason why this implementation is not run on this workload."""
    if name in CUDNN:
        return None if _torch() else "PyTorch with CUDA is not installed"
    if name in CUPY:
        if not workload.is_plane:
            return f"{name} knows no channels"
        return None if importlib.util.find_spec("cupy") else "CuPy is not installed"
    import fastdil.cuda
    from fastdil.cuda.device import current

    method, precision = ours()[name]
    if method == "auto":
        return None
    why = fastdil.cuda.explain(
        workload.x_shape, workload.w_shape, dtype=dtype, precision=precision, device=current(), **workload.spec
    )
    row = next(candidate for candidate in why.candidates if candidate.name == method)
    if row.verdict == "refused":
        return f"refused: {row.reason}"
    slow = row.verdict != "chosen" and row.seconds is not None and row.seconds > _TOO_SLOW
    return f"predicted to take more than {_TOO_SLOW} s a call" if slow else None


def prepare(name: str, workload: Workload, x: np.ndarray, w: np.ndarray) -> Call:
    """The timed body without its wait: a function that queues one call and returns the result on the device."""
    if name in CUDNN:
        return _cudnn(*CUDNN[name], workload, x, w)
    if name in CUPY:
        return _cupy(name, workload, x, w)
    import fastdil.cuda

    method, precision = ours()[name]
    words = {**workload.spec, "method": method, "precision": precision}
    return functools.partial(fastdil.cuda.conv, to_device(x), to_device(w), **words)


def waiting(call: Call) -> Call:
    """The timed body: the call, and the wait for its result."""
    from numba import cuda

    def timed() -> None:
        call()
        cuda.synchronize()

    return timed


def _cudnn(tf32: bool, channels_last: bool, workload: Workload, x: np.ndarray, w: np.ndarray) -> Call:
    torch = _torch()
    conv = getattr(torch.nn.functional, f"conv{workload.rank}d")
    arrays = [torch.from_numpy(array).cuda() for array in (x, w)]
    if channels_last and workload.rank > 1:
        layout = torch.channels_last if workload.rank == 2 else torch.channels_last_3d
        arrays = [array.contiguous(memory_format=layout) for array in arrays]

    def call() -> Any:
        # The switches belong to the process: each call sets its own. The fastest algorithm is searched in the first.
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = tf32
        with torch.inference_mode():
            return conv(*arrays, **workload.spec)

    return call


def _cupy(name: str, workload: Workload, x: np.ndarray, w: np.ndarray) -> Call:
    cupy, signal = peers.load("cupy"), peers.load("cupyx.scipy.signal")
    convolve = getattr(signal, name.removeprefix("cupy_"))
    taps = cupy.asarray(np.flip(peers.stuffed(w[0, 0], workload.dilation)).copy())
    plane, mode = cupy.asarray(x[0, 0]), "same" if workload.padding else "valid"
    return lambda: convolve(plane, taps, mode=mode)[None, None]


@functools.cache
def _torch() -> Any:
    """PyTorch, if it sees a GPU; else None."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch = peers.load("torch")
    return torch if torch.cuda.is_available() else None


def to_device(array: np.ndarray) -> Any:
    """A copy on the GPU: PyTorch's, if it sees the GPU, else Numba's."""
    torch = _torch()
    if torch is not None:
        return torch.from_numpy(array).cuda()
    from fastdil.cuda import arrays

    return arrays.fresh(array.shape, array.dtype, arrays.stream_for(None, array), array).owner


def to_host(array: Any) -> np.ndarray:
    """The result of any implementation as a NumPy array."""
    for method in ("copy_to_host", "get"):  # Numba, CuPy
        if hasattr(array, method):
            return getattr(array, method)()
    return array.cpu().numpy()
