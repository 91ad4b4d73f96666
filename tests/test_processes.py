"""Places where compiled, threaded code goes wrong, each in a process of its own."""

import os
import stat
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from checks import TESTS, run_child

LAYERS = ("omp", "workqueue", "tbb")

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
    assert done.stdout == "ok\n"
    if (scene, layer) != ("fork_while_busy", "tbb"):  # Numba warns of such a fork itself
        assert done.stderr == ""


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


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
def test_narrower_vectors(isa):
    """The same kernels with the vectors of older machines."""
    assert run_child("child_calls.py", "plain", env={"FASTDIL_ISA": isa}).stdout == "ok\n"


@pytest.mark.parametrize("method", ["direct", "im2col"])
@pytest.mark.parametrize("isa", ["avx2", "generic"])
def test_narrower_vectors_stay_inside_their_arrays(isa, method):
    run_child("child_guard.py", method, env={"FASTDIL_ISA": isa})


def test_small_workspace():
    """One MiB of scratch memory is enough for any problem."""
    assert run_child("child_calls.py", "plain", env={"FASTDIL_WORKSPACE_MIB": "1"}).stdout == "ok\n"


# ---------------------------------------------------------------------------------------------------------
# the disk cache of compiled code
# ---------------------------------------------------------------------------------------------------------


def unwritable_places(tmp_path):
    """Cache directories that cannot be written, even by root."""
    file = tmp_path / "file"
    file.write_text("not a directory")
    yield "a file", str(file)
    yield "below a file", str(file / "cache")
    yield "the kernel's", "/proc/sys/numba"
    yield "a device", "/dev/null/cache"


@pytest.mark.parametrize("index", range(4), ids=["file", "below-a-file", "proc", "device"])
def test_no_writable_cache_directory(index, tmp_path):
    """A cache is a convenience: without one the results are right and nothing is said."""
    _, place = list(unwritable_places(tmp_path))[index]
    env = {"NUMBA_CACHE_DIR": place, "HOME": place, "XDG_CACHE_HOME": place, "IPYTHONDIR": place}
    done = run_child("child_calls.py", "plain", env=env)
    assert done.stdout == "ok\n"
    assert done.stderr == ""


def test_read_only_installation(tmp_path):
    """No cache directory named, and neither the package nor the home can be written.

    Root may write anywhere, so the child sees a copy of the package whose ``__pycache__`` are files.
    """
    import shutil

    package = tmp_path / "site" / "fastdil"
    shutil.copytree(TESTS.parent / "fastdil", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package, *(p for p in package.rglob("*") if p.is_dir())):
        (folder / "__pycache__").write_text("in the way")
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    env |= {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(package.parent)}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    code = "import fastdil, sys; assert fastdil.__file__.startswith(sys.argv[1]); sys.argv = ['x', 'plain']; "
    code += f"import runpy; sys.path.insert(0, {str(TESTS)!r}); "
    code += f"runpy.run_path({str(TESTS / 'child_calls.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(package.parent)],
        capture_output=True,
        text=True,
        timeout=240,
        env=env,
        check=False,
    )
    for folder in (package, *(p for p in package.rglob("*") if p.is_dir())):
        folder.chmod(stat.S_IRWXU)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_eight_cold_processes_share_one_cache(tmp_path):
    """They race to fill it; all of them, and a ninth that reads it, compute the truth."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, "-W", "error", str(TESTS / "child_calls.py"), "plain"]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for _ in range(8)
    ]
    try:
        ends = [(*child.communicate(timeout=400), child.returncode) for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
    assert ends == [("ok\n", "", 0)] * 8
    assert any(tmp_path.rglob("*.nbi"))
    run_child("child_calls.py", "plain", env={"NUMBA_CACHE_DIR": str(tmp_path)})


def test_a_damaged_cache_does_no_harm(tmp_path):
    """A cache cut short by a full disk or a killed process: the results are right."""
    run_child("child_calls.py", "plain", env={"NUMBA_CACHE_DIR": str(tmp_path)})
    files = [*tmp_path.rglob("*.nbc"), *tmp_path.rglob("*.nbi")]
    assert files
    for file in files[::2]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    run_child("child_calls.py", "plain", env={"NUMBA_CACHE_DIR": str(tmp_path)})
