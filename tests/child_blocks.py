"""A memmap of 124 MiB through `conv_blocks` with blocks of 8 MiB: the peak of this process's memory, pages included."""

import resource
import tempfile
from pathlib import Path

import numpy as np

import fastdil

MIB = 1 << 20
SHAPE = (1, 4096, 8192)


def peak() -> int:
    """Most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


w = np.ones((1, 1, 3, 3), np.float32)
small = np.ones((1, 512, 512), np.float32)
fastdil.conv_blocks(small, w, np.empty_like(small), padding=8, dilation=8, method="direct", block_bytes=MIB)
with tempfile.TemporaryDirectory() as folder:
    x, y = (np.memmap(Path(folder, name), np.float32, "w+", shape=SHAPE) for name in ("x", "y"))
    assert x.nbytes == 128 * MIB
    before = peak()
    fastdil.conv_blocks(x, w, y, padding=8, dilation=8, method="direct", block_bytes=8 * MIB)
    grown = peak() - before
    assert grown < 48 * MIB, f"{grown / MIB:.0f} MiB"
