"""Run one method over a list of cases with every array against an unmapped page.

Called as ``child_guard.py LIST METHOD DTYPE...``, with the name of a list in `LISTS`. Each case runs twice: once with
input, weights, bias and output ending at unmapped pages, on small integers, where results must be exact; once with
all of them beginning there, on random numbers or an integer type's whole range. The case in progress is printed first,
so that a crash names it.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import warnings

import checks
import grid
import naive
import numpy as np

import fastdil
from fastdil import hardware

# Vectors that the processor lacks are split by the compiler, so each width can be asked for everywhere.
if "FASTDIL_ISA" in os.environ:
    hardware._native_isa = lambda: "avx512"
    hardware._amx = lambda: "emulated"

PAGE = mmap.PAGESIZE
PROT_NONE = 0

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """Memory between two unmapped pages."""

    def __init__(self, size: int):
        self.inner = max(-(-size // PAGE), 1) * PAGE
        self.map = mmap.mmap(-1, self.inner + 2 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + PAGE
        for address in (self.start - PAGE, self.start + self.inner):
            if libc.mprotect(address, PAGE, PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect failed")

    def array(self, shape, dtype, at_end: bool) -> np.ndarray:
        """An array whose last (or first) byte touches the unmapped page."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = self.start + (self.inner - size if at_end else 0)
        return np.ndarray(shape, dtype, buffer=(ctypes.c_char * size).from_address(address))


LISTS = {
    "phases": grid.PHASES,
    "blocks": grid.BLOCKS,
    "sample": (*grid.SAMPLE, *(case for case in grid.CASES if case.group in ("width", "large"))),
    "tails": grid.TAILS,
    # One or two outputs per group have a register tile for each width: too many to compile for every element kind.
    "few": tuple(case for case in grid.TAILS if case.w_shape[0] // case.groups > 2),
}
#: Bytes of the largest array.
LARGEST = 1 << 22


def run(memory: list[Guarded], case: grid.Case, method: str, dtype: str, at_end: bool) -> bool:
    """One case at one end of its pages; False if its output is too large for them."""
    numbers = "normal" if np.dtype(dtype).kind in "fc" else "full"
    arrays = grid.data(case, dtype, "small" if at_end else numbers)
    truth = naive.conv(*arrays, **case.args)
    if truth.nbytes > LARGEST:
        return False
    guarded = []
    for pages, array in zip(memory, (*arrays, np.full(truth.shape, 7)), strict=True):
        view = pages.array(array.shape, dtype, at_end)
        view[...] = array
        guarded.append(view)
    print(case, dtype, "at the end" if at_end else "at the start", flush=True)
    x, w, bias, out = guarded
    fastdil.conv(x, w, bias, method=method, out=out, **case.args)
    if method in checks.ROUNDING or (numbers == "normal" and not at_end):
        checks.assert_within(out, truth, naive.bound(dtype, *arrays, **case.args))
    else:
        np.testing.assert_array_equal(out, truth)
    return True


def main(cases: str, method: str, *dtypes: str) -> None:
    """All cases of a list in every dtype, arrays at either end."""
    memory = [Guarded(LARGEST) for _ in range(4)]
    ran, taken = 0, 0
    for dtype in dtypes:
        for case in LISTS[cases]:
            problem = fastdil.explain(case.x_shape, case.w_shape, dtype=dtype, **case.args).problem
            if not checks.may_refuse(method, dtype, case.stride, problem):
                taken += 1
                ran += sum(run(memory, case, method, dtype, at_end) for at_end in (True, False))
    # Transforms refuse strides, and large outputs have no room.
    assert ran >= (taken if method in checks.NARROW else len(LISTS[cases]) * len(dtypes)) > 0


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(*sys.argv[1:])
