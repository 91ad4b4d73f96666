"""Places where compiled, threaded code goes wrong, each in a process of its own."""

import itertools
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from checks import TESTS, TRANSFORMS, run_child

import fastdil
from fastdil.hardware import VECTOR_BYTES

LAYERS = ("omp", "workqueue", "tbb")
#: One dtype for each integer element kind: signed and unsigned ones share their kernels.
INTEGERS = ("int8", "uint16", "int32", "uint64")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def layer_env(layer: str) -> dict[str, str]:
    """Environment that asks for a threading layer; TBB's wheel puts its library where no loader looks."""
    libraries = os.pathsep.join([str(Path(sys.prefix, "lib")), os.environ.get("LD_LIBRARY_PATH", "")]).strip(os.pathsep)
    return {"NUMBA_THREADING_LAYER": layer, **({"LD_LIBRARY_PATH": libraries} if layer == "tbb" else {})}


@lru_cache
def why_absent(layer: str) -> str | None:
    """Why a threading layer cannot be used here; None if it can."""
    done = run_child("child_calls.py", "layer_or_absent", env=layer_env(layer))
    if f"layer: {layer}" in done.stdout:
        return None
    return done.stdout.splitlines()[0]


def on_layer(scene: str, layer: str) -> None:
    """Run a scene on a threading layer."""
    if reason := why_absent(layer):
        pytest.skip(f"{layer}: {reason}")
    done = run_child("child_calls.py", scene, env=layer_env(layer))
    if (scene, layer) == ("fork_while_busy", "tbb"):  # Numba prints a warning of such a fork
        assert done.stdout.endswith("ok\n")
    else:
        assert (done.stdout, done.stderr) == ("ok\n", "")


def test_a_layer_is_here():
    assert any(why_absent(layer) is None for layer in LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_eight_threads_at_once(layer):
    on_layer("concurrent", layer)


@needs_fork
@pytest.mark.parametrize("layer", LAYERS)
def test_use_after_fork(layer):
    on_layer("fork", layer)


@needs_fork
@pytest.mark.parametrize("layer", LAYERS)
def test_fork_while_other_threads_compute(layer):
    on_layer("fork_while_busy", layer)


@needs_fork
def test_fork_before_the_first_call():
    assert run_child("child_calls.py", "cold_fork").stderr == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_one_core_of_many():
    assert run_child("child_calls.py", "limited").stdout == "ok\n"


@pytest.mark.parametrize("isa", [isa for isa, size in VECTOR_BYTES.items() if size <= fastdil.machine().vector_bytes])
def test_narrower_vectors(isa):
    """The same kernels with the vectors of this machine and of older ones."""
    assert run_child("child_calls.py", "plain", env={"FASTDIL_ISA": isa}).stdout == "ok\n"


@pytest.mark.parametrize(
    ("method", "cases"),
    [*itertools.product(("direct", "im2col", "fft"), ("tails", "few")), ("winograd", "phases")],
)
@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
def test_every_instruction_set_and_element_kind(isa, method, cases):
    """Right results, and nothing touched outside the arrays, where tiles, rows and tap bands end."""
    integers = () if method in TRANSFORMS else INTEGERS
    dtypes = {
        "tails": ("float32",),
        "few": ("float64", "complex64", "complex128", *integers),
        "phases": ("float32", "float64"),
    }[cases]
    run_child("child_guard.py", cases, method, *dtypes, env={"FASTDIL_ISA": isa}, timeout=500)


def test_small_workspace():
    """One MiB of scratch memory is enough for any problem."""
    assert run_child("child_calls.py", "plain", env={"FASTDIL_WORKSPACE_MIB": "1"}).stdout == "ok\n"


# ---------------------------------------------------------------------------------------------------------
# the disk cache of compiled code
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [None, "file", "below-a-file", "proc"])
def test_no_writable_cache_directory(named, tmp_path):
    """A cache is a convenience: without one the results are right and nothing is said.

    Root may write anywhere, so permissions do not help: the child runs a copy of the package whose
    ``__pycache__`` folders are files, with a home that is a device, and a cache directory that is not named, or
    cannot be made.
    """
    file = tmp_path / "file"
    file.write_text("not a directory")
    package = tmp_path / "site" / "fastdil"
    shutil.copytree(TESTS.parent / "fastdil", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (folder / "__pycache__").write_text("in the way")
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    env |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "IPYTHONDIR"), "/dev/null")
    env |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    if named:
        env["NUMBA_CACHE_DIR"] = {"file": str(file), "below-a-file": str(file / "x"), "proc": "/proc/sys/x"}[named]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TESTS / "child_calls.py"), "one_method", str(package)],
        capture_output=True,
        text=True,
        timeout=240,
        env=env,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    assert not [*tmp_path.rglob("*.nbi")]


def test_four_cold_processes_share_one_cache(tmp_path):
    """They race to fill it; all of them, and a fifth that reads it, compute the truth."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, "-W", "error", str(TESTS / "child_calls.py"), "every_method"]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for _ in range(4)
    ]
    try:
        ends = [(*child.communicate(timeout=400), child.returncode) for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
    assert ends == [("ok\n", "", 0)] * 4
    assert any(tmp_path.rglob("*.nbi"))
    run_child("child_calls.py", "every_method", env={"NUMBA_CACHE_DIR": str(tmp_path)})
