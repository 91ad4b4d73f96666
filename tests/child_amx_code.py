"""Compile the kernel for the real tile unit, as on a CPU that has one, and print what its machine code is made of.

Called with the names that Numba reads its target from in the environment. Nothing compiled here is run.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import llvmlite.binding as llvm

from fastdil.kernels.amx import amx_kernel


def main() -> None:
    """Count the unit's instructions."""
    kernel = amx_kernel("native")
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=os.environ["NUMBA_CPU_NAME"], features=os.environ["NUMBA_CPU_FEATURES"], opt=3
    )
    code = target.emit_assembly(llvm.parse_assembly(kernel.inspect_llvm()))
    found = Counter(
        re.findall(
            r"^\s+(ldtilecfg|tilerelease|tilezero|tileloaddt1|tileloadd|tdpbf16ps|tilestored)\b", code, re.MULTILINE
        )
    )
    print(*(f"{name}={count}" for name, count in sorted(found.items())))


if __name__ == "__main__":
    main()
