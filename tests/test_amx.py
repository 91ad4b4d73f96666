"""The method `amx`: on an emulated tile unit everywhere, on the real one where there is one; its machine code."""

import dataclasses
import os
import platform
import re
import subprocess
import sys

import pytest
from checks import TESTS, run_child

import fastdil
from fastdil import hardware

HAS_AMX = fastdil.machine().amx == "native" and hardware.amx_refusal() is None


@pytest.mark.parametrize(
    "unit",
    ["emulated", pytest.param("native", marks=pytest.mark.skipif(not HAS_AMX, reason="this CPU or system has no AMX"))],
)
def test_on_the_unit(unit):
    """``tests/child_amx.py`` in a process of its own: choices and kernels are kept for the life of a process."""
    command = [sys.executable, "-m", "pytest", str(TESTS / "child_amx.py"), "-q", "--no-header"]
    env = {**os.environ, "AMX_UNIT": unit, "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


def test_nothing_is_touched_outside_the_arrays():
    run_child("child_guard.py", "blocks", "amx", "float32", env={"FASTDIL_ISA": "avx512"})


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="machine code of another CPU")
def test_the_code_for_a_cpu_with_tiles(tmp_path):
    """Compiled anew, because code from the cache cannot be looked at."""
    target = {"NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": "+amx-tile,+amx-bf16"}
    env = {"NUMBA_CACHE_DIR": str(tmp_path), **target}
    found = dict(pair.split("=") for pair in run_child("child_amx_code.py", env=env).stdout.split())
    assert set(found) == {
        *("ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tileloaddt1", "tdpbf16ps", "tilestored")
    }
    assert found["ldtilecfg"] == found["tilerelease"] == "1"
    # Two by two tiles; one, three and six products, in loops that may be unrolled.
    assert int(found["tdpbf16ps"]) >= 40
    assert all(int(found[name]) % 4 == 0 for name in ("tilezero", "tilestored", "tdpbf16ps"))


# ---------------------------------------------------------------------------------------------------------
# the machine
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cpu(monkeypatch):
    """A CPU with AMX, and nothing in the environment against it."""
    for name in ("FASTDIL_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hardware, "_cpuinfo", lambda field: {"flags": "fpu amx_bf16 avx512f amx_tile amx_int8"}[field])
    return monkeypatch


def test_amx_is_found(cpu):
    assert hardware._amx() == "native"
    cpu.setenv("FASTDIL_ISA", "amx")
    assert hardware._amx() == "native"
    assert hardware._isa() == hardware._native_isa()


@pytest.mark.parametrize("flags", ["", "fpu amx_tile", "amx_bf16 amx_int8"])
def test_a_cpu_without_it(cpu, flags):
    cpu.setattr(hardware, "_cpuinfo", lambda field: flags)
    assert hardware._amx() == ""


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
def test_the_environment_switches_it_off(cpu, isa):
    cpu.setenv("FASTDIL_ISA", isa)
    assert hardware._amx() == ""


@pytest.mark.parametrize(
    ("name", "features", "found"),
    [("generic", None, ""), ("sapphirerapids", "+amx-tile,+amx-bf16", "native"), (None, "+avx2", "")],
)
def test_what_numba_is_told_to_compile_for(cpu, name, features, found):
    for key, value in (("NAME", name), ("FEATURES", features)):
        if value is not None:
            cpu.setenv(f"NUMBA_CPU_{key}", value)
    assert hardware._amx() == found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_the_system_is_asked_once_and_its_refusal_is_a_sentence():
    answer = hardware.amx_refusal()
    assert answer is hardware.amx_refusal()
    assert answer is None or "does not let this process use AMX tiles (" in answer


def test_a_refusal_of_the_system_is_explained(cpu):
    from fastdil.algorithms import ALGORITHMS, amx

    cpu.setattr(amx, "amx_refusal", lambda: "the system says no")
    problem = fastdil.explain((1, 32, 50), (32, 32, 3)).problem
    for unit, reason in (("native", "the system says no"), ("", "AMX tiles"), ("emulated", None)):
        here = dataclasses.replace(fastdil.machine(), amx=unit)
        found = ALGORITHMS["amx"].supports(problem, here)
        assert found is None if reason is None else reason in found
