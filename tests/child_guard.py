"""Run one method over the grid with every array against an unmapped page.

Called as ``child_guard.py METHOD DTYPE...``. The case in progress is printed first, so that a crash names it.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
import warnings

import checks
import grid
import naive
import numpy as np

import fastdil

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


def main(method: str, *dtypes: str) -> None:
    """All cases of the sample in every dtype, arrays at either end."""
    largest = 1 << 22
    memory = [Guarded(largest) for _ in range(4)]
    ran = 0
    for dtype in dtypes:
        for case in (*grid.SAMPLE, *(c for c in grid.CASES if c.group in ("width", "large"))):
            arrays = grid.data(case, dtype, "small")
            truth = naive.conv(*arrays, **case.args)
            if checks.may_refuse(method, dtype, case.stride) or truth.nbytes > largest:
                continue
            for at_end in (True, False):
                guarded = []
                for pages, array in zip(memory, (*arrays, truth.astype(dtype)), strict=True):
                    view = pages.array(array.shape, dtype, at_end)
                    view[...] = array
                    guarded.append(view)
                print(case, dtype, "at the end" if at_end else "at the start", flush=True)
                x, w, bias, out = guarded
                out[...] = 7
                fastdil.conv(x, w, bias, method=method, out=out, **case.args)
                if method in checks.TRANSFORMS:
                    checks.assert_within(out, truth, naive.bound(dtype, *arrays, **case.args))
                else:
                    np.testing.assert_array_equal(out, truth)
                ran += 1
    assert ran > 100


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(*sys.argv[1:])
