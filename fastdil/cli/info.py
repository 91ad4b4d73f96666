"""`fastdil info`: what fastdil found on this machine, and what changes it."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata

import fastdil
from fastdil.cli.terminal import CliError, kibibytes

#: Environment variables that fastdil honours, and what each does.
VARIABLES = {
    "FASTDIL_ISA": "most to use of the CPU: amx, avx512, avx2 or generic",
    "FASTDIL_NUM_THREADS": "most threads of a call that names none",
    "FASTDIL_WORKSPACE_MIB": "most scratch memory of a call, in MiB (64)",
    "NUMBA_CACHE_DIR": "where compiled kernels are kept",
    "NUMBA_THREADING_LAYER": "thread pool: tbb, omp or workqueue",
    "NUMBA_NUM_THREADS": "size of Numba's thread pool",
}


def cache_directory() -> str:
    """Where Numba keeps the compiled kernels of this installation, by Numba's own rules."""
    from numba.core.caching import CompileResultCacheImpl

    from fastdil.kernels import driver

    try:
        return f"{CompileResultCacheImpl(driver.execute).locator.get_cache_path()} (writable)"
    except (OSError, RuntimeError):
        return "none is writable: every process compiles anew (set NUMBA_CACHE_DIR)"


def threading_layers() -> str:
    """Thread pools that Numba can load here, in its order of preference."""
    found = []
    for layer, module in (("tbb", "tbbpool"), ("omp", "omppool"), ("workqueue", "workqueue")):
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        found.append(layer)
    return ", ".join(found) or "none"


def run() -> None:
    """Print the report."""
    try:
        fastdil.machine()
    except ValueError as error:  # a malformed environment variable
        raise CliError(str(error)) from None
    from fastdil.kernels.peak import peak_gflops
    from fastdil.workspace import limit_bytes

    for kind in ("f32", "f64"):  # some milliseconds each
        peak_gflops(kind)
    machine = fastdil.machine()

    rows = [
        ("fastdil", f"{fastdil.__version__} in {os.path.dirname(fastdil.__file__)}"),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("libraries", ", ".join(f"{name} {metadata.version(name)}" for name in ("numba", "numpy", "scipy"))),
    ]
    print("\n".join(f"{name:<13}{text}" for name, text in rows))
    print(machine)
    rows = [
        ("threads", f"{machine.cores} unless a call says otherwise"),
        ("thread pools", f"{threading_layers()} (Numba takes the first that works)"),
        ("cache", cache_directory()),
        ("workspace", f"at most {kibibytes(limit_bytes())} a call"),
        ("methods", ", ".join(fastdil.methods())),
    ]
    print("\n".join(f"{name:<13}{text}" for name, text in rows))
    print("\nenvironment variables")
    for name, meaning in VARIABLES.items():
        print(f"  {name:<22} {os.environ.get(name) or 'not set':<12} {meaning}")
