"""The GPU path where it runs (the simulator, a GPU), where it cannot, and its kernels through the real compiler."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from checks import TESTS

import fastdil
import fastdil.cuda
from fastdil.cuda.availability import what_is_missing

HAS_GPU = os.environ.get("NUMBA_ENABLE_CUDASIM") != "1" and fastdil.cuda.is_available()


def run_suite(chosen: str, simulated: bool) -> None:
    """``tests/child_cuda*.py`` in a process of its own: the simulator must be asked for before Numba is loaded."""
    variables = {**os.environ, "NUMBA_ENABLE_CUDASIM": str(int(simulated)), "PYTHONPATH": str(TESTS.parent)}
    files = map(str, sorted(TESTS.glob("child_cuda*.py")))
    command = [sys.executable, "-m", "pytest", *files, "-q", "-k", chosen, "--no-header"]
    for message in (
        "overflow encountered",
        "invalid value encountered",
    ):  # Inf, NaN and wrapping integers are data here
        command += ["-W", f"ignore:{message}:RuntimeWarning"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=TESTS.parent, env=variables, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert not simulated or "skipped" not in done.stdout


@pytest.mark.parametrize("chosen", ["grid", "not grid"])
def test_simulated(chosen):
    run_suite(chosen, simulated=True)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason=f"no GPU: {what_is_missing()}")
def test_on_a_gpu():
    run_suite("", simulated=False)


# ---------------------------------------------------------------------------------------------------------
# without a GPU
# ---------------------------------------------------------------------------------------------------------


def python(code: str, **variables: str) -> str:
    """What a fresh interpreter prints."""
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0", **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, env=env, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CALL = """
import numpy as np, fastdil.cuda
assert not fastdil.cuda.is_available()
try:
    fastdil.cuda.conv1d(np.ones((1, 9)), np.ones((1, 1, 3)))
except fastdil.cuda.CudaUnavailableError as error:
    assert isinstance(error, RuntimeError)
    print(error)
"""


@pytest.mark.skipif(HAS_GPU, reason="a GPU is here")
def test_a_call_without_a_gpu_says_what_is_missing():
    assert re.search("cannot run here: .*(driver|GPU|toolkit)", python(CALL))


def test_a_call_without_the_package_says_so():
    hide = "import sys; sys.modules['numba.cuda'] = None\n"
    assert re.search("the package numba-cuda is missing", python(hide + CALL))
    code = hide + "import fastdil.cuda as c\ntry: c.methods()\nexcept c.CudaUnavailableError as e: print(e)"
    assert re.search("the package numba-cuda is missing", python(code))


def test_nothing_is_loaded_before_a_call():
    code = "import sys, fastdil.cuda; fastdil.cuda.conv, fastdil.cuda.is_available; print('numba' in sys.modules)"
    assert python(code) == "False"


# ---------------------------------------------------------------------------------------------------------
# the real compiler
# ---------------------------------------------------------------------------------------------------------

PTXAS = shutil.which("ptxas") or next(map(str, Path("/usr/local").glob("cuda*/bin/ptxas")), None)


def can_compile() -> bool:
    """Whether NVVM and an assembler are here; a GPU is not needed."""
    from numba.cuda.cudadrv import nvvm

    return PTXAS is not None and nvvm.is_available()


@pytest.mark.skipif(os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or not can_compile(), reason="no CUDA toolkit")
@pytest.mark.parametrize("name", fastdil.cuda.methods())
def test_kernels_assemble(name, tmp_path, monkeypatch):
    """Every kernel becomes machine code for compute capability 8.0 and 9.0, and keeps its sums in registers.

    They take 256 bytes of them; addresses may give way, in the largest kernels.
    """
    from fastdil.cuda.registry import METHODS

    # Numba asks the current device, which is not here, for which one to compile helper functions.
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: SimpleNamespace(compute_capability=(8, 0)))
    for number, kernel in enumerate(METHODS[name].kernels()):
        for capability in ((8, 0), (9, 0)) if number == 1 else ((9, 0),):
            source, target = tmp_path / "kernel.ptx", tmp_path / "kernel.cubin"
            source.write_text(kernel.ptx(capability))
            limit = [f"-maxrregcount={kernel.registers}"] if kernel.registers else []
            command = [PTXAS, "-v", f"-arch=sm_{capability[0]}{capability[1]}", *limit, str(source), "-o", str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{kernel.name}: {done.stderr}"
            assert target.stat().st_size > 1000
            spilled = int(re.search(r"(\d+) bytes spill stores", done.stderr)[1])
            assert spilled <= 96, f"{kernel.name} spills {spilled} bytes per thread"
            assert int(re.search(r"(\d+) bytes smem", done.stderr + "0 bytes smem")[1]) <= 48 * 1024


@pytest.mark.skipif(HAS_GPU, reason="a GPU is here")
def test_benchmarks_without_a_gpu_say_so():
    command = [sys.executable, "-m", "benchmarks.compare", "--device", "cuda"]
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, env=env, timeout=120, check=False)
    assert done.returncode == 2
    assert re.fullmatch("no GPU to time fastdil.cuda on: .*(driver|GPU|toolkit).*\n", done.stderr)
    assert not done.stdout
    code = "from benchmarks.bench_cuda import Convolution as C\ntry: C().setup('aspp_d6', 'auto', 'float32')\n"
    assert "no GPU" in python(code + "except NotImplementedError as error: print(error)")


def test_explain_needs_no_gpu():
    why = fastdil.cuda.explain((1, 2, 20), (2, 2, 3), device=fastdil.cuda.Device.standard())
    assert why.chosen in fastdil.cuda.methods()
    assert np.isfinite([row.seconds for row in why.candidates if row.seconds is not None]).all()
