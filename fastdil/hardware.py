"""What this process may use: instruction set, cores, caches."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import platform
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np

from fastdil.errors import bad_value

#: Instruction set -> bytes in a vector register. "generic" is the 16 bytes that every 64-bit machine has.
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "generic": 16}
#: What ``FASTDIL_ISA`` may be: the last of them that is used. AMX comes on top of AVX-512.
_CAPS = ("amx", *VECTOR_BYTES)
_DEFAULT_CACHES = (32 << 10, 1 << 20, 8 << 20)


@dataclass(frozen=True)
class Machine:
    """The machine as fastdil uses it.

    Attributes
    ----------
    isa : str
        ``"avx512"``, ``"avx2"`` or ``"generic"``; capped by the environment variable ``FASTDIL_ISA``.
    amx : str
        ``"native"`` where the CPU has AMX tiles for bfloat16 and ``FASTDIL_ISA`` does not leave them out, else ``""``;
        ``"emulated"`` in tests.
    has_halves : bool
        Whether 512-bit instructions run as two halves, so that products take twice as long (AMD's Zen 4).
    cores : int
        Cores granted to this process: CPU affinity, cgroup quota and ``FASTDIL_NUM_THREADS`` are honoured.
    l1, l2, l3 : int
        Data cache sizes in bytes.
    peak_gflops : dict or None
        Multiply-add peak by dtype over all granted cores, once `fastdil.explain` has measured it.
    """

    isa: str
    cores: int
    l1: int
    l2: int
    l3: int
    cpu: str
    amx: str = ""
    has_halves: bool = False
    peak_gflops: dict[str, float] | None = field(default=None, compare=False)

    @property
    def vector_bytes(self) -> int:
        """Bytes in one vector register."""
        return VECTOR_BYTES[self.isa]

    def __str__(self) -> str:
        peak = "not measured"
        if self.peak_gflops:
            peak = ", ".join(f"{dtype} {value:.0f} GFLOP/s" for dtype, value in self.peak_gflops.items())
        vectors = f"{8 * self.vector_bytes}-bit vectors{', in halves' if self.has_halves else ''}"
        return "\n".join(
            (
                f"CPU          {self.cpu}",
                f"ISA          {self.isa} ({vectors}){', AMX tiles' if self.amx else ''}",
                f"cores        {self.cores}",
                f"caches       L1 {self.l1 >> 10} KiB, L2 {self.l2 >> 10} KiB, L3 {self.l3 >> 20} MiB",
                f"peak         {peak}",
            )
        )


_machine: Machine | None = None


def machine() -> Machine:
    """The machine this process runs on, as fastdil uses it.

    Read once per process; environment variables changed later have no effect.

    Examples
    --------
    >>> machine().cores >= 1
    True
    """
    global _machine
    if _machine is None:
        l1, l2, l3 = _caches()
        _machine = Machine(
            isa=_isa(), cores=_cores(), l1=l1, l2=l2, l3=l3, cpu=_cpu_name(), amx=_amx(), has_halves=_has_halves()
        )
    return _machine


def record_peak(dtype: str, gflops: float) -> None:
    """Remember a measured peak over all granted cores."""
    global _machine
    _machine = replace(machine(), peak_gflops={**(machine().peak_gflops or {}), dtype: gflops})


def positive_from_environment(name: str) -> int | None:
    """The value of an environment variable that must be an integer >= 1; None where it is unset or empty."""
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise bad_value(name, text, "an integer >= 1 in this environment variable")
    return int(text)


def _cap() -> str:
    cap = os.environ.get("FASTDIL_ISA", "")
    if cap and cap not in _CAPS:
        raise bad_value("FASTDIL_ISA", cap, "one of " + ", ".join(map(repr, _CAPS)) + " in this environment variable")
    return cap or _CAPS[0]


def _isa() -> str:
    order = list(VECTOR_BYTES)
    cap, best = _cap(), _native_isa()
    return best if cap not in order else order[max(order.index(cap), order.index(best))]


def _has_halves() -> bool:
    """Whether vectors of 64 bytes run as two halves: on AMD's family 25 (Zen 4), as far as is known."""
    return _isa() == "avx512" and (_cpuinfo("vendor_id"), _cpuinfo("cpu family")) == ("AuthenticAMD", "25")


def _amx() -> str:
    return "native" if _cap() == "amx" and _cpu_has_amx() and _compiler_may_use_amx() else ""


def _cpu_has_amx() -> bool:
    """Whether the CPU and the system's kernel know the tiles and their products of bfloat16."""
    return {"amx_tile", "amx_bf16"} <= set(_cpuinfo("flags").split())


def _compiler_may_use_amx() -> bool:
    """False where Numba is told to compile for another CPU: it would end the process at an AMX instruction."""
    chosen = [os.environ.get(f"NUMBA_CPU_{name}") for name in ("NAME", "FEATURES")]
    return chosen == [None, None] or "+amx-bf16" in (chosen[1] or "")


#: Linux's system call arch_prctl on x86-64, its request for the right to use a state component, and the tiles' number.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@lru_cache(maxsize=1)
def amx_refusal() -> str | None:
    """Ask the system, once per process, for the right to use AMX tiles; None, or why it does not grant it.

    Only for machines that have them. Without this right the first tile instruction ends the process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    numbers = (_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA)
    if libc.syscall(*map(ctypes.c_long, numbers)) == 0:
        return None
    return f"the system does not let this process use AMX tiles ({os.strerror(ctypes.get_errno())})"


def _native_isa() -> str:
    core = "_core" if hasattr(np, "_core") else "core"  # renamed in NumPy 2
    features = import_module(f"numpy.{core}._multiarray_umath").__cpu_features__
    if features.get("AVX512_SKX"):
        return "avx512"
    return "avx2" if features.get("AVX2") and features.get("FMA3") else "generic"


def _cores() -> int:
    try:
        granted = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        granted = os.cpu_count() or 1
    limits = [granted, _cgroup_cores(), positive_from_environment("FASTDIL_NUM_THREADS")]
    return max(1, min(limit for limit in limits if limit is not None))


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The CPU quota of the control group, rounded up; None where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:  # "max" or -1: no quota
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def _caches(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[int, int, int]:
    sizes = dict(zip((1, 2, 3), _DEFAULT_CACHES, strict=True))
    units = {"K": 10, "M": 20, "G": 30}
    for entry in sorted(root.glob("index*")):
        try:
            if (entry / "type").read_text().strip() == "Instruction":
                continue
            level, text = int((entry / "level").read_text()), (entry / "size").read_text().strip()
            sizes[level] = int(text[:-1]) << units[text[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return sizes[1], sizes[2], sizes[3]


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """What Linux says of the first CPU under this name; empty elsewhere."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            # Not the whole file: the kernel writes a part for each CPU while it is read.
            for line in itertools.takewhile(str.strip, lines):
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""
