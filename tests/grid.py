"""The systematic list of convolutions that every method must compute.

The cases are grouped by what they stress; sizes lie below, at and above the tiles that kernels are likely to
use. Every case is small, so the whole grid runs for every method and dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One convolution: shapes and the arguments that differ from their defaults."""

    group: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    stride: int | tuple = 1
    padding: int | str | tuple = 0
    dilation: int | tuple = 1
    groups: int = 1
    padding_mode: str = "zeros"

    @property
    def args(self) -> dict:
        """Keyword arguments of the convolution."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
        }

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.w_shape) - 2

    @property
    def strided(self) -> bool:
        """True if an axis has a stride above 1."""
        return np.max(self.stride) > 1

    def __str__(self) -> str:
        words = [self.group, "x".join(map(str, self.x_shape)), "x".join(map(str, self.w_shape))]
        for letter, value, default in (
            ("s", self.stride, 1),
            ("p", self.padding, 0),
            ("d", self.dilation, 1),
            ("g", self.groups, 1),
            ("", self.padding_mode, "zeros"),
        ):
            if value != default:
                words.append(letter + str(value).replace(" ", "").replace("(", "").replace(")", ""))
        return "-".join(words)


MODES = ("reflect", "replicate", "circular", "symmetric")


def _widths():
    """One row of every width near a multiple of the vector and tile widths."""
    edges = (
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        9,
        15,
        16,
        17,
        31,
        32,
        33,
        47,
        48,
        49,
        63,
        64,
        65,
        95,
        96,
        97,
        127,
        128,
        129,
        257,
    )
    for n in edges:
        yield Case("width", (1, 2, n), (3, 2, 3), padding="same", dilation=2)
    for n in (1, 3, 4, 5, 8, 15, 16, 17, 33, 48, 63, 64, 65, 128, 130):
        yield Case("width", (1, 1, 5, n), (1, 1, 3, 3), padding=1)
        yield Case("width", (1, 3, 4, n + 6), (5, 3, 2, 3), dilation=(1, 3))


def _channels():
    """Output and input channels around tiles of 1 to 4, 8 and 16."""
    for o in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 28, 33):
        yield Case("channels", (1, 3, 6, 19), (o, 3, 3, 3), padding=2, dilation=2)
    for c in (1, 2, 4, 5, 8, 15, 16, 17, 33):
        yield Case("channels", (1, c, 6, 19), (5, c, 3, 3), padding=2, dilation=2)
    for o, c in ((17, 33), (33, 17), (16, 16), (8, 64), (1, 33), (33, 1), (2, 16)):
        yield Case("channels", (2, c, 5, 23), (o, c, 2, 3), padding=(1, 3), dilation=3)
        yield Case("channels", (2, c, 70), (o, c, 2), padding="causal", dilation=8)


def _kernels():
    for k in (1, 2, 3, 5, 7):
        for d in (1, 2, 3, 7, 16):
            yield Case("kernel", (2, 2, 100), (3, 2, k), padding=(k - 1) * d // 2, dilation=d)
            yield Case("kernel", (1, 2, 19, 37), (3, 2, k, k), padding="same", dilation=d)
    for k in (41, 300):
        for d in (1, 2, 7):
            yield Case("kernel", (1, 1, 350), (1, 1, k), padding="causal", dilation=d)
            yield Case("kernel", (2, 3, 200), (2, 3, k), padding=((k - 1) * d,), dilation=d)
    yield Case("kernel", (1, 1, 3000), (1, 1, 300), dilation=4)
    for kernel in ((1, 7), (7, 1), (2, 3), (3, 1), (1, 1), (11, 15)):
        for d in (1, (2, 3), (3, 1)):
            yield Case("kernel", (1, 2, 34, 47), (2, 2, *kernel), dilation=d)


def _planes():
    """One output channel per group: rows that share lines, below and above the tiles' rows, sums and widths."""
    for heights in (2, 3, 4, 5, 6, 9):
        for d, n in ((1, 23), (2, 17), (5, 9), (7, 6)):
            yield Case("plane", (2, 1, n, 70), (1, 1, heights, 3), padding="same", dilation=(d, 2))
            yield Case("plane", (1, 3, n + 8 * d, 37), (1, 3, heights, 5), padding=(0, 4), dilation=d)
    yield Case("plane", (1, 2, 30, 130), (1, 2, 13, 15), padding="same", dilation=2)
    yield Case("plane", (1, 1, 20, 300), (1, 1, 3, 100), padding=(2, 70))
    yield Case("plane", (1, 1, 4, 9, 50), (1, 1, 3, 5, 3), padding=(2, 4, 3), dilation=2)
    yield Case("plane", (2, 5, 21, 33), (5, 1, 8, 8), padding=((20, 9), (3, 40)), dilation=3, groups=5)
    yield Case("plane", (1, 1, 40, 50), (1, 1, 3, 3), stride=(2, 1), padding=3, dilation=4)
    for mode in MODES:
        yield Case("plane", (1, 1, 11, 90), (1, 1, 5, 5), padding=6, dilation=3, padding_mode=mode)
        yield Case("plane", (1, 2, 7, 20), (1, 2, 7, 9), padding=((3, 9), (30, 2)), padding_mode=mode)


def _columns():
    """Depthwise layers with small kernels: phases of rows, strides and vectors, whole and ragged."""
    layers = ((1, 5), 1), ((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((7, 4), 1), ((2, 3), (3, 1)), ((4, 2), (3, 2))
    for kernel, stride in layers:
        across = stride if isinstance(stride, int) else stride[1]
        for n, d in ((5, 1), (20, 2), (70, 3)):
            yield Case("column", (2, 3, 11, n * across), (3, 1, *kernel), stride, (4, 5), dilation=d, groups=3)
            yield Case(
                "column", (1, 2, 8 + 6 * d, n * across + 4 * d), (2, 1, *kernel), stride, 0, dilation=d, groups=2
            )
    for stride in (1, 2):
        for mode in MODES:
            yield Case("column", (1, 2, 7, 19), (2, 1, 3, 3), stride, (3, 6), 2, groups=2, padding_mode=mode)
        yield Case("column", (1, 2, 9, 40), (2, 1, 3, 3), stride, ((-2, 5), (7, -3)), 3, groups=2)
        yield Case("column", (1, 2, 4, 9, 21), (2, 1, 1, 3, 3), stride, 2, 2, groups=2)


def _folds():
    """One output channel and many taps along a signal: whole and ragged last lines, short and long dilations."""
    for taps in (23, 24, 25, 48, 64, 97, 150):
        for d, n in ((1, 400), (3, 700), (8, 1500), (64, 9700), (100, 15100)):
            yield (
                Case("fold", (1, 1, n), (1, 1, taps), dilation=d)
                if n > (taps - 1) * d
                else Case("fold", (1, 1, n), (1, 1, taps), padding="same", dilation=d)
            )
    yield Case("fold", (2, 3, 1100), (3, 1, 30), padding="causal", dilation=5, groups=3)
    yield Case("fold", (2, 6, 800), (3, 2, 33), padding=((50, 7),), dilation=4, groups=3)
    yield Case("fold", (1, 1, 2500), (1, 1, 700), padding=((300, -40),), dilation=2)
    for mode in MODES:
        yield Case("fold", (1, 2, 900), (1, 2, 40), padding="same", dilation=8, padding_mode=mode)
        yield Case("fold", (1, 1, 70), (1, 1, 26), padding=((400, 90),), dilation=3, padding_mode=mode)


def _strides():
    for s in (1, 2, 3, 5):
        for k in (1, 2, 3):
            for d in (1, 2, 3, 7):
                yield Case("stride", (1, 2, 61), (3, 2, k), stride=s, padding=2, dilation=d)
    for s in (2, 3, (1, 2), (2, 1), (4, 3)):
        for d in (1, 2, 5, (1, 4)):
            yield Case("stride", (2, 3, 20, 41), (5, 3, 3, 3), stride=s, padding=4, dilation=d)
    yield Case("stride", (1, 17, 33, 33), (9, 17, 3, 3), stride=2, padding="same", dilation=2)
    for n in (31, 32, 70):  # below, at and above what pairs of vectors hold
        yield Case("stride", (1, 5, 9, n), (5, 1, 3, 3), stride=2, padding=1, dilation=n // 30, groups=5)
    yield Case("stride", (1, 2, 9, 10, 11), (3, 2, 2, 3, 3), stride=(2, 1, 3), padding=2, dilation=(1, 2, 2))
    yield Case("stride", (1, 2, 50), (2, 2, 3), stride=60, padding=5, dilation=2)


def _far_dilations():
    """Dilations beyond the input: all taps but one fall on padding, or the outer ones do."""
    for n, k, d, p in (
        (20, 3, 25, 25),
        (20, 3, 40, 45),
        (5, 2, 7, 9),
        (1, 3, 9, 9),
        (30, 5, 16, 32),
        (64, 3, 512, 512),
    ):
        yield Case("far", (2, 2, n), (3, 2, k), padding=p, dilation=d)
        yield Case("far", (1, 2, n), (2, 2, k), padding=(((k - 1) * d, 0),), dilation=d)
    for d in (9, 16, 31):
        yield Case("far", (1, 3, 9, 9), (4, 3, 3, 3), padding=d, dilation=d)
        yield Case("far", (1, 3, 9, 40), (4, 3, 3, 3), padding=(d, 2), dilation=(d, 2))
    yield Case("far", (1, 2, 4, 5, 6), (3, 2, 3, 3, 3), padding=7, dilation=7)
    for d in (6, 12, 18):  # ASPP's narrow map
        yield Case("aspp", (1, 5, 33, 33), (6, 5, 3, 3), padding=d, dilation=d)
        yield Case("aspp", (2, 1, 33, 33), (1, 1, 3, 3), padding=d, dilation=d)


def _groups():
    for g, c, o in (
        (2, 2, 2),
        (4, 1, 1),
        (4, 1, 2),
        (4, 1, 3),
        (17, 1, 1),
        (3, 2, 5),
        (2, 16, 8),
        (2, 9, 17),
        (16, 1, 1),
    ):
        yield Case("groups", (2, g * c, 50), (g * o, c, 3), padding=4, dilation=4, groups=g)
        yield Case("groups", (1, g * c, 11, 29), (g * o, c, 3, 3), padding=2, dilation=2, groups=g)
    yield Case("groups", (1, 6, 14, 14), (6, 1, 7, 7), padding=9, dilation=3, groups=6)
    yield Case("groups", (1, 6, 14, 15), (12, 1, 5, 5), stride=2, padding=4, dilation=2, groups=6)
    yield Case("groups", (1, 4, 5, 6, 7), (4, 1, 3, 3, 3), padding=2, dilation=2, groups=4)


def _padding_modes():
    for mode in MODES:
        for n, p, d in ((20, 1, 1), (20, 6, 3), (4, 11, 3), (3, 9, 2), (1, 3, 2), (2, 7, 1), (40, 39, 16)):
            yield Case("mode", (2, 2, n), (3, 2, 3), padding=p, dilation=d, padding_mode=mode)
        yield Case("mode", (1, 1, 30), (1, 1, 41), padding="same", padding_mode=mode)
        yield Case("mode", (1, 1, 60), (1, 1, 21), padding="causal", dilation=4, padding_mode=mode)
        yield Case("mode", (1, 3, 9, 20), (5, 3, 3, 3), padding=4, dilation=4, padding_mode=mode)
        yield Case("mode", (1, 3, 5, 18), (5, 3, 3, 3), padding=((9, 2), (0, 25)), dilation=(3, 5), padding_mode=mode)
        yield Case("mode", (2, 2, 9, 10), (3, 2, 3, 3), stride=2, padding=3, dilation=2, padding_mode=mode)
        yield Case("mode", (1, 4, 7, 33), (4, 1, 3, 3), padding=2, dilation=2, groups=4, padding_mode=mode)
        yield Case("mode", (1, 2, 3, 4, 5), (2, 2, 2, 3, 3), padding=4, dilation=2, padding_mode=mode)
        yield Case("mode", (1, 2, 12), (2, 2, 3), padding=((-3, 5),), dilation=2, padding_mode=mode)
        yield Case("mode", (1, 2, 12, 9), (2, 2, 3, 2), padding=((6, -2), (-8, 4)), padding_mode=mode)


def _crops():
    """Negative padding, alone and with padding on the other side."""
    pairs = (
        (-1, -1),
        (-2, 0),
        (0, -3),
        (2, -3),
        (-3, 2),
        (-5, 9),
        (7, -9),
        (0, -13),
        (-17, 30),
        (30, -25),
        (-20, 33),
    )
    for pair in pairs:
        yield Case("crop", (2, 2, 20), (3, 2, 3), padding=(pair,), dilation=2)
        yield Case("crop", (1, 2, 20), (2, 2, 3), stride=2, padding=(pair,))
    yield Case("crop", (1, 2, 9, 30), (3, 2, 3, 3), padding=((-1, -2), (-4, 3)), dilation=2)
    yield Case("crop", (1, 2, 9, 30), (3, 2, 3, 3), padding=(-1, -5), dilation=(1, 3))
    yield Case("crop", (1, 2, 9, 30), (3, 2, 1, 1), padding=((-10, 12), (0, -1)))
    yield Case("crop", (1, 2, 5, 6, 7), (2, 2, 2, 2, 2), padding=((-1, 1), (0, -2), (2, -3)), dilation=2)


def _paddings():
    """Padding beyond the input and beyond the kernel; kernels beyond the input; every name."""
    for p in (1, 9, 40):
        yield Case("pad", (1, 2, 7), (3, 2, 3), padding=p, dilation=3)
        yield Case("pad", (1, 2, 3, 5), (3, 2, 3, 2), padding=p)
        yield Case("pad", (2, 1, 3), (1, 1, 1), padding=p)
    yield Case("pad", (1, 2, 7), (3, 2, 9), padding=4)
    yield Case("pad", (1, 2, 3, 2), (3, 2, 5, 7), padding=(2, 3))
    yield Case("pad", (1, 1, 4), (1, 1, 41), padding=((40, 3),))
    yield Case("pad", (1, 2, 12, 20), (3, 2, 3, 3), padding=((0, 3), (5, 1)), dilation=2)
    for name in ("valid", "same", "same_lower", "causal", "anticausal"):
        for s in (1, 2, 3):
            yield Case("named", (1, 2, 22), (3, 2, 4), stride=s, padding=name, dilation=3)
    for name in ("valid", "same", "same_lower"):
        for s in (1, (2, 3)):
            yield Case("named", (1, 2, 13, 22), (3, 2, 4, 3), stride=s, padding=name, dilation=(2, 3))


def _volumes():
    yield Case("volume", (1, 3, 6, 7, 20), (4, 3, 3, 3, 3), padding=2, dilation=2)
    yield Case("volume", (2, 1, 5, 6, 17), (1, 1, 2, 3, 5), padding="same", dilation=(2, 1, 3))
    yield Case("volume", (1, 2, 9, 1, 16), (3, 2, 3, 1, 3), dilation=(4, 1, 5))
    yield Case("volume", (1, 8, 4, 5, 33), (9, 8, 1, 1, 1))
    yield Case("volume", (1, 2, 6, 7, 8), (3, 2, 3, 3, 3), padding=((3, -1), (0, 2), (-1, 4)), dilation=(2, 1, 3))


def _shapes():
    """Batches, slim and tall images, and empty extents."""
    for n in (0, 1, 3):
        yield Case("batch", (n, 2, 30), (3, 2, 3), padding=2, dilation=2)
        yield Case("batch", (n, 3, 8, 17), (4, 3, 3, 3), padding=1)
        yield Case("batch", (n, 1, 4, 5, 6), (1, 1, 3, 3, 3), padding=1)
    yield Case("empty", (2, 0, 9), (3, 0, 3), padding=1)
    yield Case("empty", (2, 0, 9, 9), (4, 0, 3, 3), groups=2)
    yield Case("empty", (2, 3, 9), (0, 3, 3), padding=1)
    yield Case("empty", (0, 0, 9, 9), (0, 0, 3, 3))
    yield Case("empty", (2, 2, 0), (3, 2, 3), padding=2)
    yield Case("empty", (1, 2, 0, 7), (3, 2, 2, 2), padding=1)
    yield Case("slim", (1, 3, 1, 300), (4, 3, 1, 3), padding=(0, 5), dilation=5)
    yield Case("slim", (1, 3, 300, 1), (4, 3, 3, 1), padding=(5, 0), dilation=5)
    yield Case("slim", (1, 3, 90, 2), (4, 3, 3, 3), padding=2, dilation=2)
    yield Case("slim", (1, 1, 70, 3), (1, 1, 5, 2), padding="same", dilation=(3, 1))


def _large():
    """Beyond one block of output pixels, of output channels, and of summed terms."""
    yield Case("large", (1, 1, 9000), (1, 1, 41), padding=80, dilation=4)
    yield Case("large", (1, 4, 5000), (6, 4, 3), padding=512, dilation=512)
    yield Case("large", (1, 1, 130, 300), (1, 1, 5, 5), padding=6, dilation=3)
    yield Case("large", (1, 2, 70, 150), (3, 2, 3, 3), padding=15, dilation=15)
    yield Case("large", (1, 150, 9, 11), (7, 150, 3, 3), padding=2, dilation=2)
    yield Case("large", (1, 700, 40), (5, 700, 3), padding=1)
    for taps in (1, 2):  # several parts of the channels fit into a block
        yield Case("large", (2, 130, 50), (5, 130, taps), padding=3, dilation=4)
        yield Case("large", (1, 300, 5, 7), (9, 300, taps, 1))
    yield Case("large", (1, 20, 12, 12), (130, 20, 3, 3), padding=3, dilation=3)
    yield Case("large", (2, 70, 100), (70, 70, 3), padding=8, dilation=8)
    yield Case("large", (1, 40, 60, 60), (40, 1, 3, 3), padding=2, dilation=2, groups=40)


CASES = tuple(
    dict.fromkeys(
        case
        for source in (
            _widths,
            _channels,
            _kernels,
            _planes,
            _columns,
            _folds,
            _strides,
            _far_dilations,
            _groups,
            _padding_modes,
            _crops,
            _paddings,
            _volumes,
            _shapes,
            _large,
        )
        for case in source()
    )
)

#: A sample of every group, for tests that are dear or that need a few cases only.
SAMPLE = tuple(
    case
    for i, case in enumerate(CASES)
    if i % 7 == 0 or case.group in ("volume", "aspp", "empty") or (case.group == "crop" and i % 2)
)


def _tails():
    """Outputs below, at and above multiples of every tile (16 to 128 samples wide), each way that a row can end."""
    for n in (1, 3, 4, 5, 8, 15, 16, 17, 33, 48, 63, 64, 65, 97, 129):
        yield Case("tail", (1, 2, n + 4), (n % 3 + 1, 2, 3), dilation=2)
        yield Case("tail", (1, 2, 2 * n + 1), (4 + n % 5, 2, 3), stride=2, padding=1)
        yield Case("tail", (1, 1, 7, n), (1, 1, 5, 3), padding=(2, 1))
    for mode in MODES:
        for n in (5, 16, 33):
            yield Case("tail", (1, 2, n), (9, 2, 3), padding=7, dilation=4, padding_mode=mode)
        yield Case("tail", (1, 1, 6, 31), (1, 1, 3, 3), padding=3, dilation=3, padding_mode=mode)
        yield Case("tail", (2, 3, 6, 17), (2, 3, 3, 3), stride=(1, 2), padding=2, dilation=2, padding_mode=mode)
    for d in (4, 8, 15, 16):  # bands of outputs that see one, two or three taps of an axis
        yield Case("tail", (1, 3, 16, 17), (9, 3, 3, 3), padding=d, dilation=d)
        yield Case("tail", (2, 1, 16, 17), (1, 1, 3, 3), padding=d, dilation=d)
        yield Case("tail", (1, 3, 7, 33), (3, 3, 2, 3), padding=(0, d), dilation=(3, d))
    for g in (3, 4):
        yield Case("tail", (1, g, 9, 33), (g, 1, 7, 7), padding=6, dilation=2, groups=g)
        yield Case("tail", (2, 2 * g, 33), (3 * g, 2, 3), stride=3, padding=4, groups=g)
    for n in (15, 16, 17, 33, 49):
        yield Case("tail", (2, 3, 8, n), (3, 1, 3, 3), padding=1, groups=3)
        yield Case("tail", (1, 3, 9, n + 4), (3, 1, 3, 3), dilation=2, groups=3)
        yield Case("tail", (2, 3, 8, 2 * n), (3, 1, 3, 3), stride=2, padding=1, groups=3)
    for n in (1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 260):  # a line of taps for each output
        yield Case("tail", (2, 3, n), (3, 1, 5), padding=4, dilation=2, groups=3)
        yield Case("tail", (1, 1, n + 6), (1, 1, 4), dilation=2)
        yield Case("tail", (1, 2, 3, n), (2, 1, 1, 3), padding=(1, 2), dilation=(2, 1), groups=2)
    for mode in MODES:
        yield Case("tail", (1, 2, 150), (2, 1, 7), padding=9, dilation=3, groups=2, padding_mode=mode)
        # Taps further apart than a tile is long.
        yield Case("tail", (1, 2, 9000), (2, 1, 9), padding=560, dilation=140, groups=2, padding_mode=mode)
        yield Case("tail", (1, 1, 900), (1, 1, 25), padding=1000, dilation=80, padding_mode=mode)
        yield Case("tail", (1, 1, 5, 9000), (1, 1, 2, 9), padding=(1, 560), dilation=(2, 140), padding_mode=mode)
    yield Case("tail", (1, 50, 17), (9, 50, 3), padding=1)
    yield Case("tail", (1, 2, 3, 4, 17), (9, 2, 3, 3, 3), padding=2, dilation=2)


def _phases():
    """Outputs a dilation apart, joined: runs shorter, as long as and longer than vectors, tiles whole and ragged."""
    for d in (1, 2, 3, 4, 7, 8, 12, 16):
        for n in (2 * d, 3 * d + 1, 4 * d - 1, 5 * d, 9 * d + 5):
            yield Case("phase", (1, 32, n), (5, 32, 3), padding=d, dilation=d)
        yield Case("phase", (1, 48, 11 * d + 3), (5, 48, 2), padding=((d, 0),), dilation=d)
        yield Case("phase", (1, 48, 11 * d), (5, 48, 2), dilation=d)
        yield Case("phase", (1, 48, 7 * d - 1), (5, 48, 4), dilation=d)
        yield Case("phase", (2, 64, 2 * d + 3, 5 * d + 2), (9, 64, 3, 3), padding=d, dilation=d)
        yield Case("phase", (1, 32, 4 * d + 1, 17), (3, 32, 3, 1), padding=0, dilation=(d, 1))
    for n in (7, 23, 24, 25, 47, 48, 49, 97):  # tiles of a line around the strips of all instruction sets
        yield Case("phase", (1, 64, 3, 4 * n), (4, 64, 3, 3), padding=1)
    for mode in MODES:
        yield Case("phase", (1, 70, 7, 21), (5, 70, 3, 3), padding=4, dilation=(3, 4), padding_mode=mode)
        yield Case("phase", (1, 32, 40), (3, 32, 3), padding=((50, -3),), dilation=9, padding_mode=mode)
        yield Case("phase", (1, 24, 9, 21), (5, 24, 3, 3), padding=4, dilation=(3, 4), padding_mode=mode)  # as lines
    yield Case("phase", (1, 32, 5000), (3, 32, 3), padding=700, dilation=700)  # runs longer than a task
    yield Case("phase", (1, 32, 4, 700), (3, 32, 3, 1), padding=(1, 0))
    yield Case("phase", (1, 35, 19, 22), (6, 35, 4, 5), padding=(3, 5), dilation=(1, 3))
    yield Case("phase", (1, 35, 12, 34), (6, 35, 4, 5), padding=(3, 5), dilation=(2, 8))
    yield Case("phase", (1, 20, 9, 30), (6, 20, 7, 3), padding=(3, 5), dilation=(2, 4))  # as lines
    yield Case("phase", (1, 130, 9, 11), (5, 130, 3, 3), padding=2, dilation=2)  # several blocks of channels
    yield Case("phase", (1, 300, 20), (5, 300, 3), padding=1)
    yield Case("phase", (1, 300, 9, 10), (5, 300, 3, 3), padding=1)
    yield Case("phase", (1, 64, 12, 12), (290, 64, 3, 3), padding=1)  # several chunks of outputs
    yield Case("phase", (2, 192, 9, 20), (27, 64, 3, 3), padding=2, dilation=2, groups=3)
    yield Case("phase", (2, 96, 60), (27, 32, 3), padding=2, dilation=2, groups=3)
    yield Case("phase", (1, 64, 21, 40), (5, 64, 3, 3), padding=(18, 25), dilation=(18, 25))  # few pairs of rows
    yield Case("phase", (1, 300, 21, 40), (5, 300, 3, 3), padding=(18, 25), dilation=(18, 25))
    yield Case("phase", (1, 64, 3, 21, 40), (5, 64, 3, 3, 3), padding=(1, 18, 25), dilation=(1, 18, 25))
    yield Case("phase", (1, 24, 5, 6, 20), (9, 24, 3, 3, 3), padding=2, dilation=2)
    yield Case("phase", (1, 70, 4, 5, 9), (9, 70, 2, 3, 3), padding=((1, 0), (-1, 2), (1, 1)))


def _blocks():
    """Many channels: outputs, pixels and terms below, at and above tiles of 16 and blocks of 32, whole and ragged."""
    sizes = (16, 1, 1), (17, 15, 15), (21, 16, 16), (31, 17, 31), (32, 32, 32), (33, 33, 33), (48, 48, 63), (65, 65, 70)
    for c, o, n in sizes:
        yield Case("block", (1, c, n + 4), (o, c, 3), padding=0, dilation=2)
        yield Case("block", (2, c, 3, n), (o, c, 1, 1))
    for s in (2, (1, 3), (2, 1)):
        yield Case("block", (1, 18, 9, 21), (33, 18, 3, 3), stride=s, padding=2, dilation=2)
    for d in (4, 8, 11):  # bands of outputs that see one, two or three taps of an axis
        yield Case("block", (2, 33, 11, 17), (20, 33, 3, 3), padding=d, dilation=d)
    for mode in MODES:
        yield Case("block", (1, 16, 6, 19), (17, 16, 3, 2), padding=((3, 1), (0, 14)), dilation=3, padding_mode=mode)
    yield Case("block", (1, 34, 5, 20), (40, 17, 3, 3), padding="same", groups=2)
    yield Case("block", (2, 48, 70), (3, 16, 4), padding="causal", dilation=16, groups=3)
    yield Case("block", (1, 17, 9, 30), (18, 17, 3, 3), padding=((-1, 4), (5, -3)), dilation=2)
    yield Case("block", (1, 16, 4, 5, 6), (17, 16, 2, 3, 3), padding=2, dilation=(1, 2, 2))
    yield Case("block", (1, 40, 3, 4, 9), (5, 40, 3, 1, 2), stride=(1, 2, 1), padding=((1, 0), (0, 0), (2, 2)))
    yield Case("block", (1, 1000, 20), (33, 1000, 3), padding=1)  # reductions of many blocks
    yield Case("block", (1, 16, 150), (5, 16, 100))
    yield Case("block", (1, 96, 5, 7), (290, 96, 3, 3), padding=1)  # several chunks of outputs
    yield Case("block", (3, 70, 12, 12), (36, 70, 5, 5), padding=2)


#: For `winograd`, under every instruction set.
PHASES = tuple(_phases())

#: For `amx`.
BLOCKS = tuple(_blocks())

#: Where tiles, rows and bands of taps end: for runs under every instruction set and element kind.
TAILS = tuple(_tails())


def data(case: Case, dtype, kind: str = "normal", seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weights and bias of a case.

    `kind` is ``"normal"`` (random, both signs), ``"small"`` (small integers, so that a sum of products is
    exact in every floating-point type) or ``"full"`` (an integer type's whole range).
    """
    dtype = np.dtype(dtype)
    rng = np.random.default_rng([seed, *map(ord, str(case))])
    bias_shape = (case.w_shape[0],)

    def draw(shape):
        if kind == "full":
            if dtype.kind == "b":
                return rng.integers(0, 2, shape).astype(bool)
            info = np.iinfo(dtype)
            return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        parts = [rng.integers(-4, 5, shape) if kind == "small" else rng.standard_normal(shape) for _ in range(2)]
        return (parts[0] + 1j * parts[1] if dtype.kind == "c" else parts[0]).astype(dtype)

    return draw(case.x_shape), draw(case.w_shape), draw(bias_shape)


def nominal_macs(case: Case, out_shape) -> int:
    """Multiply-accumulates of a case with this output."""
    return math.prod(out_shape) * math.prod(case.w_shape[1:])
