"""The workloads, their data and two float64 oracles that share no code with fastdil.

One table, `WORKLOADS`, drives the comparison, the asv suite and the tests: add a row and it is timed and
tested. Its suites:

dense
    layers of published networks, many channels in and out;
few
    depthwise layers: one input channel for each output;
image
    one channel, zero padding to the same size (kernels are odd, so it is symmetric);
signal
    one channel of 2**20 samples, no padding: with an even number of taps, libraries disagree on where
    "same" begins.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

SUITES = ("dense", "few", "image", "signal")

_FRAMEWORKS = ("torch", "onnxruntime", "openvino", "jax")
_TRANSFORMS = ("fftconvolve", "oaconvolve")
#: Which peers can be asked, by suite. OpenCV filters images; SciPy's functions know no channels.
PEERS_OF_SUITE = {
    "dense": _FRAMEWORKS,
    "few": _FRAMEWORKS,
    "image": (*_FRAMEWORKS, "cv2", *_TRANSFORMS),
    "signal": (*_FRAMEWORKS, *_TRANSFORMS),
    "small": ("torch", "numpy"),
}


@dataclass(frozen=True)
class Workload:
    """One convolution, without data and dtype: zero padding, the same on both sides of every axis."""

    name: str
    suite: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    dilation: int = 1
    padding: int = 0
    stride: int = 1
    groups: int = 1

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.w_shape) - 2

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return self.w_shape[2:]

    @property
    def reach(self) -> tuple[int, ...]:
        """Samples between the first and the last tap, per axis."""
        return tuple((k - 1) * self.dilation for k in self.kernel)

    @property
    def out_size(self) -> tuple[int, ...]:
        """Output samples per axis."""
        sizes = zip(self.x_shape[2:], self.reach, strict=True)
        return tuple((n + 2 * self.padding - reach - 1) // self.stride + 1 for n, reach in sizes)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (self.x_shape[0], self.w_shape[0], *self.out_size)

    @property
    def gflop(self) -> float:
        """Nominal work: two operations per multiply-accumulate, padding zeros included, in units of 1e9."""
        return 2e-9 * math.prod(self.out_shape) * math.prod(self.w_shape[1:])

    @property
    def is_plane(self) -> bool:
        """True for one channel in and out."""
        return self.x_shape[:2] == (1, 1) and self.w_shape[:2] == (1, 1)

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the peers that may be asked, installed or not."""
        return PEERS_OF_SUITE[self.suite]

    @property
    def spec(self) -> dict[str, int]:
        """Keyword arguments of `fastdil.conv` and `fastdil.explain`."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def shrunken(self) -> Workload:
        """The same kernel and dilation on few channels and a small map: for tests, not for timing."""
        channels = min(self.x_shape[1], 8)
        outputs = min(self.w_shape[0], 8 if self.groups > 1 else 6)
        room = {1: 200, 2: 40, 3: 12}[self.rank]
        sizes = zip(self.x_shape[2:], self.reach, strict=True)
        size = (min(n, room + max(reach - 2 * self.padding, 0)) for n, reach in sizes)
        groups = channels if self.groups > 1 else 1
        return replace(
            self,
            x_shape=(min(self.x_shape[0], 2), channels, *size),
            w_shape=(outputs, channels // groups, *self.kernel),
            groups=groups,
        )


def _image(name: str, n: int, k: int, dilation: int) -> Workload:
    return Workload(name, "image", (1, 1, n, n), (1, 1, k, k), dilation, padding=(k - 1) * dilation // 2)


def _signal(name: str, k: int, dilation: int) -> Workload:
    return Workload(name, "signal", (1, 1, 2**20), (1, 1, k), dilation)


WORKLOADS = (
    # Chen et al. 2017 (DeepLab): atrous spatial pyramid pooling, output stride 16.
    Workload("aspp_d6", "dense", (1, 2048, 33, 33), (256, 2048, 3, 3), 6, 6),
    Workload("aspp_d12", "dense", (1, 2048, 33, 33), (256, 2048, 3, 3), 12, 12),
    Workload("aspp_d18", "dense", (1, 2048, 33, 33), (256, 2048, 3, 3), 18, 18),
    # Yu et al. 2017: dilated residual networks.
    Workload("drn_256_d2", "dense", (1, 256, 65, 65), (256, 256, 3, 3), 2, 2),
    Workload("drn_512_d4", "dense", (1, 512, 65, 65), (512, 512, 3, 3), 4, 4),
    # Yu and Koltun 2016: context module.
    Workload("ctx_64_d8", "dense", (1, 64, 128, 128), (64, 64, 3, 3), 8, 8),
    # The textbook layer: effective kernel 31 x 31 from 3 x 3 taps.
    Workload("seed_32_64_d15", "dense", (1, 32, 128, 128), (64, 32, 3, 3), 15, 15),
    # van den Oord et al. 2016: filter and gate of a WaveNet layer.
    Workload("wavenet_d16", "dense", (1, 64, 16384), (128, 64, 2), 16),
    Workload("wavenet_d512", "dense", (1, 64, 16384), (128, 64, 2), 512),
    # Bai et al. 2018: temporal convolutional network.
    Workload("tcn_128_d8", "dense", (16, 128, 1024), (128, 128, 3), 8, 8),
    # Avsec et al. 2021: BPNet.
    Workload("bpnet_64_d64", "dense", (8, 64, 2114), (64, 64, 3), 64, 64),
    # Jaganathan et al. 2019: SpliceAI.
    Workload("splice_k11_d4", "dense", (4, 32, 15000), (32, 32, 11), 4, 20),
    Workload("splice_k41_d25", "dense", (4, 32, 15000), (32, 32, 41), 25, 500),
    Workload("vol_32_d2", "dense", (1, 32, 48, 48, 48), (32, 32, 3, 3, 3), 2, 2),
    Workload("dw_256_3x3_d2", "few", (1, 256, 64, 64), (256, 1, 3, 3), 2, 2, groups=256),
    # Guo et al. 2023: visual attention network, the dilated depthwise part.
    Workload("van_dw_7x7_d3", "few", (1, 64, 56, 56), (64, 1, 7, 7), 3, 9, groups=64),
    _image("img_3x3_d15", 2048, 3, 15),
    _image("img_5x5_d1", 2048, 5, 1),
    _image("img_15x15_d4", 1024, 15, 4),
    _image("img_31x31_d1", 1024, 31, 1),
    _signal("sig_k16_d1", 16, 1),
    _signal("sig_k64_d8", 64, 8),
    _signal("sig_k1024_d4", 1024, 4),
)

#: Calls so small that their overhead is what is measured (`bench_overhead`).
SMALL = (
    Workload("conv1d_8_256", "small", (1, 8, 256), (8, 8, 3)),
    Workload("conv2d_8_16x16", "small", (1, 8, 16, 16), (8, 8, 3, 3)),
    Workload("conv1d_64_512", "small", (1, 64, 512), (64, 64, 3)),
    Workload("signal_1024_k16", "small", (1, 1, 1024), (1, 1, 16)),
)

BY_NAME = {workload.name: workload for workload in (*WORKLOADS, *SMALL)}

#: One row of each kind, so that a quick asv pass stays short.
ASV_SUBSET = ("seed_32_64_d15", "splice_k41_d25", "dw_256_3x3_d2", "img_15x15_d4", "sig_k64_d8")


def asv_names() -> list[str]:
    """Workloads of the asv suite: a subset, or every row where ``FASTDIL_BENCH=all`` is set."""
    everything = os.environ.get("FASTDIL_BENCH") == "all"
    return [workload.name for workload in WORKLOADS] if everything else list(ASV_SUBSET)


def make_arrays(workload: Workload, dtype: str = "float32", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normally distributed ``x`` and ``w``, the same for every implementation."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(workload.x_shape, dtype=np.float32).astype(dtype, copy=False)
    w = rng.standard_normal(workload.w_shape, dtype=np.float32).astype(dtype, copy=False)
    return x, w


# ---------------------------------------------------------------------------------------------------------
# oracle of the whole result
# ---------------------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """What a correct implementation returns, and the yardstick of its rounding errors."""

    y: np.ndarray  #: float64 result
    scale: float  #: largest value of ``A = conv(|x|, |w|)``

    def error(self, y: np.ndarray, dtype: str) -> float:
        """``max|y - expected| / (eps max A)``, eps that of `dtype`; infinite for a wrong shape or a NaN."""
        if y.shape != self.y.shape:
            return math.inf
        largest = float(np.max(np.abs(y - self.y)))
        return largest / (float(np.finfo(dtype).eps) * self.scale) if math.isfinite(largest) else math.inf


def expected(workload: Workload, x: np.ndarray, w: np.ndarray) -> Expected:
    """Result and error yardstick in float64, by matrix products and without fastdil.

    Its own rounding stays below one ``eps max A`` of float64: invisible beside float32 results,
    part of the figure beside float64 results.
    """
    x, w = x.astype(np.float64), w.astype(np.float64)
    convolve = _by_bands if workload.is_plane and workload.stride == 1 and workload.rank <= 2 else _by_taps
    return Expected(convolve(workload, x, w), float(convolve(workload, np.abs(x), np.abs(w)).max()))


def _padded(workload: Workload, x: np.ndarray) -> np.ndarray:
    width = workload.padding
    return np.pad(x, [(0, 0), (0, 0)] + [(width, width)] * workload.rank)


def _by_taps(workload: Workload, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Sum over the taps of (weights of this tap) @ (input shifted to this tap)."""
    batch, groups = workload.x_shape[0], workload.groups
    padded = _padded(workload, x)
    y = np.zeros((batch, groups, workload.w_shape[0] // groups, math.prod(workload.out_size)))
    for tap in itertools.product(*map(range, workload.kernel)):
        starts = [a * workload.dilation for a in tap]
        spans = [(size - 1) * workload.stride + 1 for size in workload.out_size]
        window = tuple(slice(b, b + n, workload.stride) for b, n in zip(starts, spans, strict=True))
        shifted = padded[(slice(None), slice(None), *window)].reshape(batch, groups, w.shape[1], -1)
        y += w[(..., *tap)].reshape(groups, -1, w.shape[1]) @ shifted
    return y.reshape(workload.out_shape)


def _by_bands(workload: Workload, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One channel: each kernel row is a banded (Toeplitz) matrix from blocks of samples to blocks of outputs.

    The products run at BLAS speed, where the sum over the taps would read the image once per tap.
    """
    rows = _padded(workload, x)[0, 0]
    rows = rows[None] if workload.rank == 1 else rows
    taps = w[0, 0][None] if workload.rank == 1 else w[0, 0]
    height, width = (1, *workload.out_size)[-2:]
    reach = workload.reach[-1]
    block = min(max(32, reach // 4), width)
    blocks = -(-width // block)
    rows = np.pad(rows, [(0, 0), (0, blocks * block + reach - rows.shape[1])])
    pieces = np.lib.stride_tricks.sliding_window_view(rows, block + reach, axis=1)[:, ::block]
    y = np.zeros((height * blocks, block))
    for a, row_taps in enumerate(taps):
        band = np.zeros((block + reach, block))
        for b, tap in enumerate(row_taps):
            column = np.arange(block)
            band[column + b * workload.dilation, column] = tap
        first = a * workload.dilation
        # A contiguous copy: overlapping windows are no layout that BLAS accepts.
        y += pieces[first : first + height].reshape(height * blocks, block + reach) @ band
    return y.reshape(height, blocks * block)[:, :width].reshape(workload.out_shape)


# ---------------------------------------------------------------------------------------------------------
# oracle of a few outputs
# ---------------------------------------------------------------------------------------------------------


def sampled_error(workload: Workload, x: np.ndarray, w: np.ndarray, y: np.ndarray, count: int = 24) -> float:
    """`Expected.error` at the corners of the result and at `count` random outputs, each summed exactly.

    Needs next to no memory or time, so the asv suite can check a result without spoiling what it measures.
    """
    if y.shape != workload.out_shape:
        return math.inf
    rng = np.random.default_rng(1)
    corners = [tuple(end * (n - 1) for n in workload.out_shape) for end in (0, 1)]
    randoms = [tuple(int(rng.integers(n)) for n in workload.out_shape) for _ in range(count)]
    largest = scale = 0.0
    for position in corners + randoms:
        products = _products(workload, x, w, position)
        difference = abs(float(y[position]) - math.fsum(products))
        largest = max(largest, difference if math.isfinite(difference) else math.inf)
        scale = max(scale, math.fsum(np.abs(products)))
    return largest / (float(np.finfo(y.dtype).eps) * scale)


def _products(workload: Workload, x: np.ndarray, w: np.ndarray, position: tuple[int, ...]) -> np.ndarray:
    """Every product that is summed into the output at `position` ``(n, o, *pixel)``, in float64."""
    sample, output, *pixel = position
    group = output // (workload.w_shape[0] // workload.groups)
    first = group * w.shape[1]
    patch, taps = x[sample, first : first + w.shape[1]], w[output]
    for axis, i in enumerate(pixel, start=1):
        read = i * workload.stride - workload.padding + np.arange(taps.shape[axis]) * workload.dilation
        inside = np.flatnonzero((read >= 0) & (read < x.shape[axis + 1]))
        patch, taps = patch.take(read[inside], axis), taps.take(inside, axis)
    return (patch.astype(np.float64) * taps).ravel()
