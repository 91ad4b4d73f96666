"""asv: what a fresh process pays: imports, and its first convolution with an empty or a filled disk cache."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.workloads import BY_NAME

_MODULES = ["fastdil", "numpy", "numba", "scipy.signal", "torch", "jax"]

#: All ones, so that an output far from the border is the number of taps times channels, but for rounding.
_FIRST_CALL = """
import time
import numpy as np
x, w = np.ones({x_shape}, "float32"), np.ones({w_shape}, "float32")
start = time.perf_counter()
import fastdil
y = fastdil.conv(x, w, **{spec})
seconds = time.perf_counter() - start
assert y.shape == {out_shape} and abs(y.max() - w[0].size) < 1e-5 * w[0].size
print(seconds)
"""


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module.split(".")[0]) is not None


def _search_path() -> str:
    """A ``PYTHONPATH`` with which a child finds the fastdil that this process has, installed or not."""
    origin = importlib.util.find_spec("fastdil").origin
    return os.pathsep.join([str(Path(origin).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def first_call(workload_name: str, cache: str) -> float:
    """Seconds from before ``import fastdil`` to the first result, in a new process with this cache."""
    workload = BY_NAME[workload_name]
    code = _FIRST_CALL.format(
        x_shape=workload.x_shape,
        w_shape=workload.w_shape,
        out_shape=workload.out_shape,
        spec=workload.spec,
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": _search_path()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


class Imports:
    """Time of an import in a fresh process, beside others for scale."""

    params = (_MODULES,)
    param_names = ("module",)

    def setup(self, module: str) -> None:
        """Skip what is not installed."""
        if not _installed(module):
            raise NotImplementedError(f"{module} is not installed")
        os.environ["PYTHONPATH"] = _search_path()  # the code below runs in a child that inherits it

    def timeraw_import(self, module: str) -> str:
        """Code that asv times in a new interpreter."""
        return f"import {module}"


class FirstCall:
    """Import plus first convolution of a process: a layer with many channels and an image with one."""

    params = (["seed_32_64_d15", "img_15x15_d4"],)
    param_names = ("workload",)
    unit = "seconds"
    timeout = 120

    def track_empty_cache(self, workload: str) -> float:
        """Everything is compiled and written to the cache."""
        with tempfile.TemporaryDirectory() as cache:
            return first_call(workload, cache)

    def track_filled_cache(self, workload: str) -> float:
        """Everything is loaded from the cache: median of three processes after one that fills it."""
        with tempfile.TemporaryDirectory() as cache:
            first_call(workload, cache)
            return statistics.median(first_call(workload, cache) for _ in range(3))
