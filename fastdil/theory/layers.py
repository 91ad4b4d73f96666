"""Layers as the theory sees them: kernel, dilation, stride and padding per axis, no weights.

`Layer`, `Pool`, `Transposed` and `Upsample` are what users write, with one number for all axes or one per axis.
`stack_axes` turns a stack of them into one list of `AxisLayer` per axis, and all analysis works on those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from fastdil.arguments import Pair, as_int, parse_padding
from fastdil.errors import bad_type, bad_value
from fastdil.problem import effective_kernel_size as _span
from fastdil.problem import named_pair

#: One number for every axis, or one per axis.
Sizes = int | tuple[int, ...]

T = TypeVar("T")


class AxisLayer(NamedTuple):
    """One layer on one axis."""

    kernel: int
    dilation: int = 1
    stride: int = 1
    padding: str | Pair = (0, 0)
    transposed: bool = False

    @property
    def reach(self) -> int:
        """Distance from the first tap to the last: ``(k - 1) d``."""
        return (self.kernel - 1) * self.dilation

    @property
    def effective_kernel(self) -> int:
        """Samples that the dilated kernel spans: ``(k - 1) d + 1``."""
        return _span(self.kernel, self.dilation)

    def pair(self, n: int) -> Pair:
        """Explicit (lo, hi) padding for an input of `n` samples."""
        if isinstance(self.padding, str):
            return named_pair(self.padding, n, self.kernel, self.stride, self.dilation)
        return self.padding

    def pad_lo(self) -> int | None:
        """Padding before the first sample, or None where it depends on the input's size.

        ``"same"`` with stride s pads by an amount that depends on ``n % s``: most for 1, least for 0.
        """
        if not isinstance(self.padding, str):
            return self.padding[0]
        most, least = self.pair(self.stride + 1)[0], self.pair(self.stride)[0]
        return most if most == least else None

    def output_size(self, n: int) -> int:
        """Samples of the output for an input of `n`, as in `output_size`."""
        lo, hi = self.pair(n)
        if self.transposed:
            size = (n - 1) * self.stride + self.effective_kernel - lo - hi if n else 0
            if size < 0:
                raise bad_value("padding", (lo, hi), f"at most {size + lo + hi} samples cropped from the output")
            return size
        padded = n + lo + hi
        if padded < self.effective_kernel:
            if n == 0 and isinstance(self.padding, str) and self.padding != "valid":
                return 0  # a named padding keeps an axis without samples empty
            raise bad_value(
                "n",
                n,
                f"at least {self.effective_kernel} samples with padding for an effective kernel of "
                f"{self.effective_kernel} (kernel {self.kernel}, dilation {self.dilation}), but {n} + {lo} + {hi} = "
                f"{padded}",
            )
        return (padded - self.effective_kernel) // self.stride + 1


class _Window:
    """What all kinds of layers share: a window that slides along each axis."""

    kernel_size: Any
    dilation: Any
    stride: Any
    padding: Any
    transposed = False

    @cached_property
    def rank(self) -> int | None:
        """Number of spatial axes, or None where every number stands for all axes."""
        ranks = {
            name: len(value)
            for name, value in (("kernel_size", self.kernel_size), ("dilation", self.dilation), ("stride", self.stride))
            if isinstance(value, tuple)
        }
        if isinstance(self.padding, tuple):
            ranks["padding"] = len(self.padding)
        if len(set(ranks.values())) > 1:
            raise bad_value("layer", self, f"as many values for each axis everywhere, not {_words(ranks)}")
        return next(iter(ranks.values()), None)

    @property
    def is_per_axis(self) -> bool:
        """True if results are tuples, one entry per axis.

        A single (lo, hi) pair is how a 1-D layer says that its padding is one-sided, so it alone asks for no tuples.
        """
        only_pair = self.rank == 1 and not any(
            isinstance(value, tuple) for value in (self.kernel_size, self.dilation, self.stride)
        )
        return self.rank is not None and not (only_pair and isinstance(self.padding[0], tuple))

    def axes(self, rank: int) -> tuple[AxisLayer, ...]:
        """The layer on each of `rank` axes; kept, for deep stacks repeat their layers."""
        kept = self.__dict__.get("_kept_axes", ())
        if len(kept) != rank:
            kept = self.__dict__["_kept_axes"] = tuple(self._make_axes(rank))
        return kept

    def _make_axes(self, rank: int) -> Iterable[AxisLayer]:
        padding = parse_padding(self.padding, rank)
        pads: Sequence[str | Pair] = (padding,) * rank if isinstance(padding, str) else padding
        kernels, dilations, strides = (spread(n, rank) for n in (self.kernel_size, self.dilation, self.stride))
        rows = zip(kernels, dilations, strides, pads, strict=True)
        return (AxisLayer(k, d, s, p, self.transposed) for k, d, s, p in rows)

    def _normalise(self, *names: str) -> None:
        """Validate the fields `names`; make them hashable: ints, tuples of ints, a word."""
        for name in names:
            object.__setattr__(self, name, parse_sizes(name, getattr(self, name)))
        if not isinstance(self.padding, str):
            object.__setattr__(self, "padding", _plain_padding(self.padding))
        parse_padding(self.padding, self.rank or 1)


def _plain_padding(padding: object) -> Any:
    """`padding` in ints and tuples of them, wherever it is made of integers."""
    if is_series(padding):
        return tuple(map(_plain_padding, cast(Iterable, padding)))
    if isinstance(padding, Iterable) and not isinstance(padding, np.ndarray):
        raise bad_type("padding", padding, "an integer, one per axis, one (lo, hi) pair per axis, or a name")
    return as_int("padding", padding)


def is_series(value: object) -> bool:
    """True for values in an order: not for text, sets and mappings, nor for a number that NumPy wraps in an array."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, str | bytes | bytearray | Set | Mapping)
        and getattr(value, "ndim", 1) > 0
    )


def _words(ranks: dict[str, int]) -> str:
    return ", ".join(f"{count} in {name}" for name, count in ranks.items())


def spread(value: T | tuple[T, ...], rank: int) -> tuple[T, ...]:
    """One entry for each of `rank` axes."""
    return value if isinstance(value, tuple) else (value,) * rank


def parse_sizes(name: str, value: object, least: int = 1) -> Sizes:
    """`value` as an int >= `least`, or a tuple of them, one per axis."""
    if is_series(value):
        entries = tuple(as_int(name, entry, least) for entry in cast(Iterable, value))
        if not entries:
            raise bad_value(name, value, "an integer, or one per spatial axis")
        return entries
    return as_int(name, value, least)


@dataclass(frozen=True)
class Layer(_Window):
    """A convolution layer.

    Parameters
    ----------
    kernel_size, dilation, stride : int or tuple of int
        At least 1; one number for all axes or one per axis.
    padding : int, tuple or str
        As in `fastdil.conv`: an int, one per axis, one ``(lo, hi)`` pair per axis, or ``"valid"``, ``"same"``,
        ``"same_lower"``, in 1-D also ``"causal"`` and ``"anticausal"``.
    in_channels, out_channels : int, optional
        Needed for costs only.
    groups : int
        Channels are split into this many independent convolutions.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the text names it, its value and what was expected.

    Examples
    --------
    >>> Layer(3, dilation=2).axes(1)[0].effective_kernel
    5
    >>> Layer((3, 5), dilation=(1, 4), padding="same").rank
    2
    """

    kernel_size: Sizes
    dilation: Sizes = 1
    stride: Sizes = 1
    padding: Any = 0
    in_channels: int | None = None
    out_channels: int | None = None
    groups: int = 1

    def __post_init__(self) -> None:
        self._normalise("kernel_size", "dilation", "stride")
        _check_channels(self)


@dataclass(frozen=True)
class Pool(_Window):
    """Pooling: a window without weights; to the receptive field it is a convolution of that size and stride.

    Parameters
    ----------
    kernel_size : int or tuple of int
        Samples pooled, at least 1.
    stride : int or tuple of int, optional
        None takes `kernel_size`.
    padding : int, tuple or str
        As in `Layer`.

    Examples
    --------
    >>> Pool(2)
    Pool(kernel_size=2, stride=2, padding=0)
    """

    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Any = 0

    dilation = 1

    def __post_init__(self) -> None:
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel_size)
        self._normalise("kernel_size", "stride")


@dataclass(frozen=True)
class Transposed(_Window):
    """A transposed convolution: input i reaches output ``i * stride + a * dilation - padding``, a = 0..k-1.

    Parameters
    ----------
    kernel_size, dilation, stride : int or tuple of int
        At least 1; one number for all axes or one per axis. The output grows `stride`-fold.
    padding : int or tuple
        Samples cropped from the output: an int, one per axis, or one ``(lo, hi)`` pair per axis (PyTorch's
        ``output_padding`` is a smaller hi).
    in_channels, out_channels : int, optional
        Needed for costs only.
    groups : int
        Channels are split into this many independent convolutions.

    Examples
    --------
    >>> Transposed(4, stride=2, padding=1).axes(1)[0].output_size(8)
    16
    """

    kernel_size: Sizes
    dilation: Sizes = 1
    stride: Sizes = 1
    padding: Any = 0
    in_channels: int | None = None
    out_channels: int | None = None
    groups: int = 1

    transposed = True

    def __post_init__(self) -> None:
        self._normalise("kernel_size", "dilation", "stride")
        _check_channels(self)
        if isinstance(self.padding, str):
            raise bad_value("padding", self.padding, "integers: a transposed convolution crops by number, not by name")


@dataclass(frozen=True)
class Upsample(_Window):
    """Nearest-neighbour upsampling: every sample is repeated `scale` times.

    Parameters
    ----------
    scale : int or tuple of int
        At least 1; one number for all axes or one per axis.

    Examples
    --------
    >>> Upsample(2).axes(1)[0].output_size(8)
    16
    """

    scale: Sizes

    dilation = 1
    padding = 0
    transposed = True

    def __post_init__(self) -> None:
        self._normalise("scale")

    @property
    def kernel_size(self) -> Sizes:  # type: ignore[override]
        """A repeated sample is a transposed convolution whose kernel is as long as its stride."""
        return self.scale

    @property
    def stride(self) -> Sizes:  # type: ignore[override]
        """Outputs per input."""
        return self.scale


AnyLayer = Layer | Pool | Transposed | Upsample


def _check_channels(layer: Layer | Transposed) -> None:
    object.__setattr__(layer, "groups", as_int("groups", layer.groups, 1))
    for name in ("in_channels", "out_channels"):
        count = getattr(layer, name)
        if count is None:
            continue
        object.__setattr__(layer, name, as_int(name, count, 1))
        if count % layer.groups:
            raise bad_value("groups", layer.groups, f"a divisor of {name}={count}")


# ---------------------------------------------------------------------------------------------------------
# stacks
# ---------------------------------------------------------------------------------------------------------


def parse_dilations(dilations: object) -> list[int]:
    """Dilations of a stack, at least one."""
    if not is_series(dilations):
        raise bad_type("dilations", dilations, "a sequence of integers >= 1")
    rates = [as_int("dilations", rate, 1) for rate in cast(Iterable, dilations)]
    if not rates:
        raise bad_value("dilations", dilations, "at least one dilation")
    return rates


def as_flag(name: str, value: object) -> bool:
    """`value` as a bool."""
    if not isinstance(value, bool | np.bool_):
        raise bad_type(name, value, "True or False")
    return bool(value)


def parse_layers(layers: Iterable[AnyLayer]) -> tuple[AnyLayer, ...]:
    """A stack, first layer first: at least one layer, and nothing but layers."""
    expected = "a sequence of Layer, Pool, Transposed or Upsample"
    if not is_series(layers):
        raise bad_type("layers", layers, expected)
    stack = tuple(layers)
    for number, layer in enumerate(stack):
        if not isinstance(layer, AnyLayer):
            raise bad_type(f"layers[{number}]", layer, "a Layer, Pool, Transposed or Upsample")
    if not stack:
        raise bad_value("layers", layers, f"{expected}, at least one")
    return stack


def stack_rank(layers: Sequence[AnyLayer]) -> int | None:
    """Number of spatial axes that the layers name, or None where all their numbers stand for every axis."""
    rank = None
    for number, layer in enumerate(layers):
        if layer.rank is not None and rank is not None and layer.rank != rank:
            raise bad_value(f"layers[{number}]", layer, f"{rank} spatial axes as in the layers before")
        rank = layer.rank if rank is None else rank
    return rank


def stack_axes(layers: Sequence[AnyLayer], rank: int | None = None) -> list[list[AxisLayer]]:
    """For each axis, the stack on it; `rank` None takes what the layers name, or one axis."""
    named = stack_rank(layers)
    if rank is not None and named is not None and named != rank:
        raise bad_value("layers", layers, f"{rank} spatial axes, not {named}")
    rows = [layer.axes(rank or named or 1) for layer in layers]
    return [list(column) for column in zip(*rows, strict=True)]


def is_per_axis(layers: Sequence[AnyLayer]) -> bool:
    """True if results about these layers are tuples, one entry per axis."""
    return any(layer.is_per_axis for layer in layers)


def per_axis_result(values: Sequence[T], as_tuple: bool) -> T | tuple[T, ...]:
    """One value per axis as users get it: a tuple if they wrote one number per axis, else the number."""
    return tuple(values) if as_tuple else values[0]
