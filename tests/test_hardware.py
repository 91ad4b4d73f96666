"""What a process is told about its machine, and the memory it borrows."""

import dataclasses
import os

import checks
import pytest

from fastdil import costmodel, hardware, workspace


def test_machine_is_read_once_and_frozen():
    m = hardware.machine()
    assert m is hardware.machine()
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.cores = 99
    assert hash(m) == hash(dataclasses.replace(m))


def test_cores_are_those_granted():
    if hasattr(os, "sched_getaffinity"):
        assert 1 <= hardware.machine().cores <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense\n"}, None),
        ({"cpu.max": "100000 0\n"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota(files, cores, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert hardware._cgroup_cores(tmp_path) == cores


def test_caches_from_the_system(tmp_path):
    for i, (level, kind, size) in enumerate(
        [(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2048K"), (3, "Unified", "1G")]
    ):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert hardware._caches(tmp_path) == (48 << 10, 2 << 20, 1 << 30)
    assert hardware._caches(tmp_path / "nothing") == hardware._DEFAULT_CACHES
    (tmp_path / "index0" / "size").write_text("strange\n")
    assert hardware._caches(tmp_path)[0] == hardware._DEFAULT_CACHES[0]


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
@pytest.mark.parametrize("name", ["FASTDIL_NUM_THREADS", "FASTDIL_WORKSPACE_MIB"])
def test_environment_numbers(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=rf"^{name}='{value}': expected an integer >= 1"):
        hardware.positive_from_environment(name)
    monkeypatch.setenv(name, "3")
    assert hardware.positive_from_environment(name) == 3
    monkeypatch.setenv(name, "")
    assert hardware.positive_from_environment(name) is None


def test_environment_isa(monkeypatch):
    native = hardware._native_isa()
    for isa, vector in hardware.VECTOR_BYTES.items():
        monkeypatch.setenv("FASTDIL_ISA", isa)
        found = hardware._isa()
        assert hardware.VECTOR_BYTES[found] == min(vector, hardware.VECTOR_BYTES[native])
    monkeypatch.setenv("FASTDIL_ISA", "sse")
    with pytest.raises(ValueError, match=r"^FASTDIL_ISA='sse': expected"):
        hardware._isa()
    monkeypatch.delenv("FASTDIL_ISA")
    assert hardware._isa() == native


@pytest.mark.parametrize(
    ("isa", "vendor", "family", "halves"),
    [
        ("avx512", "AuthenticAMD", "25", True),
        ("avx512", "AuthenticAMD", "26", False),
        ("avx512", "GenuineIntel", "25", False),
        ("avx2", "AuthenticAMD", "25", False),
        ("avx512", "", "", False),
    ],
)
def test_vectors_in_halves(monkeypatch, isa, vendor, family, halves):
    monkeypatch.setattr(hardware, "_isa", lambda: isa)
    monkeypatch.setattr(hardware, "_cpuinfo", {"vendor_id": vendor, "cpu family": family}.get)
    assert hardware._has_halves() is halves
    here = dataclasses.replace(hardware.machine(), isa=isa, has_halves=halves)
    monkeypatch.setattr(costmodel, "machine", lambda: here)
    assert costmodel.table_name() in costmodel.NANOSECONDS
    assert ("in halves" in costmodel.table_name()) == ("in halves" in str(here)) == halves


def test_environment_reaches_the_machine():
    checks.run_child("child_calls.py", "one_thread", env={"FASTDIL_NUM_THREADS": "1", "FASTDIL_ISA": "generic"})


def test_workspace_is_aligned_and_reused():
    workspace.release()
    with workspace.borrowed(5000) as first:
        assert first % workspace.ALIGNMENT == 0
        with workspace.borrowed(5000) as second:
            assert abs(second - first) >= 5000
    with workspace.borrowed(4000) as again:
        assert again in (first, second)
    workspace.release()


def test_workspace_keeps_no_more_than_its_limit(monkeypatch):
    monkeypatch.setattr(workspace, "limit_bytes", lambda: 1 << 20)
    workspace.release()
    with workspace.borrowed(700_000), workspace.borrowed(700_000), workspace.borrowed(2 << 20):
        pass
    assert sum(buffer.size for buffer in workspace._idle) <= 1 << 20
    with workspace.borrowed(3 << 20) as address:  # larger than the limit: served, not kept
        assert address % workspace.ALIGNMENT == 0
    assert all(buffer.size <= 1 << 20 for buffer in workspace._idle)
    workspace.release()
    assert not workspace._idle


def test_workspace_survives_errors():
    workspace.release()

    class Oops(Exception):
        pass

    with pytest.raises(Oops), workspace.borrowed(100):
        raise Oops
    assert len(workspace._idle) == 1
    assert isinstance(workspace._idle[0], workspace.Buffer)
    workspace.release()
