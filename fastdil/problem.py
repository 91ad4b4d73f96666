"""One convolution, described and validated: all shape arithmetic lives here.

`ConvSpec` is what a caller asked for before an input is known (a plan keeps one). `Problem` adds the input's
shape and dtype. Both hold three spatial axes; the axes that a 1-D or 2-D problem lacks come first and have
size 1, kernel 1, stride 1, dilation 1, no padding. So every kernel is written once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastdil.arguments import LARGEST, Pair, as_int, one_of, parse_padding, per_axis
from fastdil.dtypes import as_dtype, result_dtypes
from fastdil.errors import bad_type, bad_value
from fastdil.padding import MODES

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu")
PRECISIONS = ("highest", "high", "medium")

Triple = tuple[int, int, int]


class Window(NamedTuple):
    """One axis of the input as kernels see it: crop first, then pad with non-negative widths."""

    crop: int  #: samples dropped at the start
    size: int  #: samples left
    lo: int  #: padding before them
    hi: int  #: padding after them


def effective_kernel_size(kernel: int, dilation: int) -> int:
    """Samples that a dilated kernel spans: ``(k - 1) d + 1``.

    >>> effective_kernel_size(3, 15)
    31
    """
    return (kernel - 1) * dilation + 1


def named_pair(name: str, n: int, kernel: int, stride: int, dilation: int) -> Pair:
    """The explicit (lo, hi) that a named padding means on an axis of `n` samples."""
    reach = (kernel - 1) * dilation
    if name == "valid":
        return 0, 0
    if name == "causal":
        return reach, 0
    if name == "anticausal":
        return 0, reach
    # An axis without samples gets one position less than the kernel spans, so that it stays without outputs.
    total = max((-(-n // stride) - 1) * stride + reach + 1 - n, 0) if n else reach
    small, large = total // 2, total - total // 2
    return (small, large) if name == "same" else (large, small)


@dataclass(frozen=True)
class ConvSpec:
    """A convolution before its input is known: validated arguments, three spatial axes.

    Build it with `ConvSpec.parse`. `padding` is a name or one (lo, hi) pair per axis.
    """

    rank: int
    out_channels: int
    group_channels: int
    groups: int
    kernel: Triple
    stride: Triple
    dilation: Triple
    padding: str | tuple[Pair, ...]
    padding_mode: str
    activation: str | None
    precision: str

    @classmethod
    def parse(
        cls,
        w_shape: Sequence[int],
        *,
        rank: int | None = None,
        stride: object = 1,
        padding: object = 0,
        dilation: object = 1,
        groups: object = 1,
        padding_mode: str = "zeros",
        activation: str | None = None,
        precision: str | None = None,
    ) -> ConvSpec:
        """Validate the arguments of a convolution with weights of shape ``(O, C // groups, *kernel)``."""
        w_shape = tuple(as_int("w.shape", n, 0) for n in w_shape)
        expected_ndim = "3, 4 or 5 dimensions" if rank is None else f"{rank + 2} dimensions"
        if len(w_shape) not in ((3, 4, 5) if rank is None else (rank + 2,)):
            raise bad_value("w.shape", w_shape, f"{expected_ndim} (O, C // groups, *kernel)")
        rank = len(w_shape) - 2
        kernel = w_shape[2:]
        if 0 in kernel:
            raise bad_value("w.shape", w_shape, "a kernel of at least one tap on each axis")
        group_count = as_int("groups", groups, 1)
        if w_shape[0] % group_count:
            raise bad_value("groups", groups, f"a divisor of w's {w_shape[0]} output channels")
        lead = (1,) * (3 - rank)
        parsed_padding = parse_padding(padding, rank)
        if not isinstance(parsed_padding, str):
            parsed_padding = ((0, 0),) * (3 - rank) + parsed_padding
        return cls(
            rank=rank,
            out_channels=w_shape[0],
            group_channels=w_shape[1],
            groups=group_count,
            kernel=lead + kernel,  # type: ignore[arg-type]
            stride=lead + per_axis("stride", stride, rank),  # type: ignore[arg-type]
            dilation=lead + per_axis("dilation", dilation, rank),  # type: ignore[arg-type]
            padding=parsed_padding,
            padding_mode=one_of("padding_mode", padding_mode, tuple(MODES)),
            activation=None if activation is None else one_of("activation", activation, ACTIVATIONS),
            precision="highest" if precision is None else one_of("precision", precision, PRECISIONS),
        )

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weights, with the user's number of axes."""
        return (self.out_channels, self.group_channels, *self.kernel[3 - self.rank :])

    def problem(
        self, x_shape: Sequence[int], dtype: np.dtype, has_bias: bool = False, is_bfloat16: bool = False
    ) -> Problem:
        """The problem of applying this to a batched input of shape ``(N, C, *spatial)``.

        `dtype` is the one computed in (`result_dtypes`).
        """
        x_shape = tuple(as_int("x.shape", n, 0) for n in x_shape)
        if len(x_shape) != self.rank + 2:
            raise bad_value("x.shape", x_shape, f"{self.rank + 2} dimensions (N, C, *spatial)")
        channels = self.group_channels * self.groups
        if x_shape[1] != channels:
            raise bad_value(
                "x.shape",
                x_shape,
                f"{channels} channels (w has {self.group_channels} per group, groups={self.groups})",
            )
        if self.activation is not None and (dtype.kind == "c" or (dtype.kind in "iu" and self.activation != "relu")):
            raise bad_type("activation", self.activation, f"no activation or a real floating dtype, not {dtype.name}")
        size: Triple = (1,) * (3 - self.rank) + x_shape[2:]  # type: ignore[assignment]
        padding = self._explicit_padding(size)
        is_padded = any(count > 0 for pair in padding for count in pair)
        return Problem(
            rank=self.rank,
            batch=x_shape[0],
            in_channels=channels,
            out_channels=self.out_channels,
            groups=self.groups,
            size=size,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            padding=padding,
            padding_mode=self.padding_mode if is_padded else "zeros",  # zeros are the faster path
            dtype=np.dtype(dtype),
            has_bias=has_bias,
            activation=self.activation,
            precision=self.precision,
            is_bfloat16=is_bfloat16,
        )

    def _explicit_padding(self, size: Triple) -> tuple[Pair, Pair, Pair]:
        name = self.padding
        pairs = []
        for axis, n, k, s, d in zip(range(3), size, self.kernel, self.stride, self.dilation, strict=True):
            lo, hi = named_pair(name, n, k, s, d) if isinstance(name, str) else name[axis]
            padded, reach = n + lo + hi, effective_kernel_size(k, d)
            # A named padding keeps an axis without samples empty; everything else must hold the whole kernel.
            empty = n == 0 and padded == reach - 1 and isinstance(name, str) and name != "valid"
            if padded < reach and not empty:
                raise bad_value(
                    "x.shape",
                    size[3 - self.rank :],
                    f"at least {reach} samples with padding on spatial axis {axis - 3 + self.rank} for an effective "
                    f"kernel of {reach} (kernel {k}, dilation {d}), but {n} + {lo} + {hi} = {padded}",
                )
            if padded >= LARGEST:
                raise bad_value("padding", (lo, hi), "a padded axis below 2**60 samples")
            if self.padding_mode != "zeros" and n + min(lo, 0) + min(hi, 0) < 1 and (lo > 0 or hi > 0):
                raise bad_value(
                    "padding_mode",
                    self.padding_mode,
                    f"at least one sample to continue on spatial axis {axis - 3 + self.rank}, which has none",
                )
            pairs.append((lo, hi))
        return tuple(pairs)  # type: ignore[return-value]


@dataclass(frozen=True)
class Problem:
    """A validated convolution on a batched input; build it with `ConvSpec.problem` or `Problem.create`.

    Examples
    --------
    >>> p = Problem.create((1, 32, 128, 128), (64, 32, 3, 3), dilation=15, padding=15)
    >>> p.out_size, p.effective_kernel, p.macs
    ((1, 128, 128), (1, 31, 31), 301989888)
    """

    rank: int
    batch: int
    in_channels: int
    out_channels: int
    groups: int
    size: Triple
    kernel: Triple
    stride: Triple
    dilation: Triple
    padding: tuple[Pair, Pair, Pair]
    padding_mode: str
    dtype: np.dtype
    has_bias: bool = False
    activation: str | None = None
    precision: str = "highest"
    #: Samples and weights are bfloat16 numbers, which `dtype` holds exactly.
    is_bfloat16: bool = False

    @classmethod
    def create(
        cls,
        x_shape: Sequence[int],
        w_shape: Sequence[int],
        *,
        dtype: object = "float32",
        has_bias: bool = False,
        **spec,
    ) -> Problem:
        """Parse and validate in one step, from shapes alone; `spec` as in `ConvSpec.parse`.

        `x_shape` may be unbatched; `dtype` is that of both arrays.
        """
        parsed = ConvSpec.parse(w_shape, **spec)
        x_shape = tuple(x_shape)
        if len(x_shape) == parsed.rank + 1:
            x_shape = (1, *x_shape)
        compute, result = result_dtypes(as_dtype(dtype))
        return parsed.problem(x_shape, compute, has_bias, result.name == "bfloat16")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Worked out once: problems are looked up on every call."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def effective_kernel(self) -> Triple:
        """Samples spanned by the dilated kernel, per axis."""
        return tuple(map(effective_kernel_size, self.kernel, self.dilation))  # type: ignore[return-value]

    @cached_property
    def out_size(self) -> Triple:
        """Output samples per axis: ``(n + lo + hi - k_eff) // stride + 1``."""
        return tuple(
            max((n + lo + hi - reach) // s + 1, 0)
            for n, (lo, hi), reach, s in zip(self.size, self.padding, self.effective_kernel, self.stride, strict=True)
        )  # type: ignore[return-value]

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the batched result, with the user's number of axes."""
        return (self.batch, self.out_channels, *self.out_size[3 - self.rank :])

    @cached_property
    def windows(self) -> tuple[Window, Window, Window]:
        """Each axis as crop, size and non-negative padding: negative padding drops samples first."""
        windows = []
        for n, (lo, hi) in zip(self.size, self.padding, strict=True):
            crop = min(max(-lo, 0), n)
            left = n - crop - max(-hi, 0)
            if left > 0:
                windows.append(Window(crop, left, max(lo, 0), max(hi, 0)))
            else:  # cropped away entirely: what remains, if anything, is padding
                windows.append(Window(0, 0, 0, max(n + lo + hi, 0)))
        return tuple(windows)  # type: ignore[return-value]

    @property
    def unit(self) -> int:
        """Real numbers in one sample: 2 if complex."""
        return 2 if self.dtype.kind == "c" else 1

    @property
    def group_in(self) -> int:
        """Input channels per group."""
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        """Output channels per group."""
        return self.out_channels // self.groups

    @property
    def taps(self) -> int:
        """Taps of the kernel, all axes together."""
        return math.prod(self.kernel)

    @property
    def out_pixels(self) -> int:
        """Output samples of one channel."""
        return math.prod(self.out_size)

    @property
    def is_empty(self) -> bool:
        """True if the result holds no elements or no input contributes to it."""
        return self.batch * self.out_channels * self.out_pixels * self.in_channels == 0

    @property
    def terms(self) -> int:
        """Products summed into one output: input channels per group times taps."""
        return self.group_in * self.taps

    @property
    def weights(self) -> int:
        """Weights, all groups together."""
        return self.out_channels * self.terms

    @property
    def macs(self) -> int:
        """Nominal multiply-accumulates, padding zeros included."""
        return self.batch * self.out_channels * self.out_pixels * self.terms

    @property
    def flops(self) -> int:
        """Nominal floating-point operations: 2 per real, 8 per complex multiply-accumulate."""
        return self.macs * (8 if self.dtype.kind == "c" else 2)

    def valid_outputs(self, axis: int, tap: int) -> Pair:
        """Half-open range of outputs whose tap number `tap` falls on a sample, not on padding."""
        window, s = self.windows[axis], self.stride[axis]
        first = window.lo - tap * self.dilation[axis]  # an output i reads sample i * s - first
        lo = max(-(-first // s), 0)
        hi = min((first + window.size - 1) // s + 1, self.out_size[axis])
        return (lo, hi) if lo < hi else (0, 0)

    def met_taps(self, axis: int) -> Pair:
        """Half-open range of taps, at least one, outside which each tap falls on padding for every output."""
        window, s, d = self.windows[axis], self.stride[axis], self.dilation[axis]
        last_output = max(self.out_size[axis] - 1, 0)
        first = max(-(-(window.lo - last_output * s) // d), 0)
        last = min((window.lo + window.size - 1) // d, self.kernel[axis] - 1)
        return (first, last + 1) if first <= last else (0, 1)

    def with_taps(self, taps: Sequence[Pair]) -> Problem:
        """The same outputs from some taps only: a half-open range of them per axis."""
        padding = tuple(
            (lo - first * d, hi - (k - end) * d)
            for (lo, hi), k, d, (first, end) in zip(self.padding, self.kernel, self.dilation, taps, strict=True)
        )
        kernel = tuple(end - first for first, end in taps)
        return replace(self, kernel=kernel, padding=padding)  # type: ignore[arg-type]

    @cached_property
    def useful_macs(self) -> int:
        """Multiply-accumulates whose sample lies inside the input."""
        inside = math.prod(
            sum(hi - lo for lo, hi in (self.valid_outputs(axis, tap) for tap in range(self.kernel[axis])))
            for axis in range(3)
        )
        return self.batch * self.out_channels * self.group_in * inside
