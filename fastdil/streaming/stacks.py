"""Stacks of streams: WaveNet's layers, sample by sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastdil.addresses import address_of
from fastdil.errors import bad_type, bad_value
from fastdil.kernels.activation import gate_kernel
from fastdil.kernels.driver import serial_driver
from fastdil.kernels.geometry import ELEMENT_KIND
from fastdil.plans import as_array
from fastdil.streaming.streams import Stream


class StreamBlock:
    """One layer of a `StreamStack`: a dilated causal convolution, a gate, 1 x 1 mixing, residual and skip outputs.

    With ``f = conv(x)`` and, if `gated`, ``z = tanh(f[:R]) * sigmoid(f[R:])`` of its two halves (else ``z = f``), the
    block passes on ``mix(z)``, plus ``x`` if `residual`, and adds ``skip(z)`` to the stack's output.

    Parameters
    ----------
    conv : Stream
        The dilated convolution.
    gated : bool
        Gate the two halves of its output channels: float32 and float64 only.
    mix, skip : Stream, optional
        Convolutions of z, usually 1 x 1. Without `mix`, z itself is passed on; without `skip`, the block adds nothing.
    residual : bool
        Add the block's input to what it passes on: both need the same number of channels.

    Raises
    ------
    TypeError, ValueError
        If the parts do not fit together.

    References
    ----------
    A. van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016, sections 2.3 and 2.4.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> conv = fastdil.Stream(np.ones((8, 4, 2), np.float32), dilation=16)
    >>> block = fastdil.StreamBlock(conv, gated=True, mix=fastdil.Stream(np.ones((4, 4, 1), np.float32)))
    >>> block.in_channels, block.out_channels
    (4, 4)
    """

    def __init__(
        self,
        conv: Stream,
        *,
        gated: bool = False,
        mix: Stream | None = None,
        skip: Stream | None = None,
        residual: bool = True,
    ):
        self.conv, self.mix, self.skip, self.gated, self.residual = conv, mix, skip, gated, residual
        for name, part in (("conv", conv), ("mix", mix), ("skip", skip)):
            if not isinstance(part, Stream) and (part is not None or name == "conv"):
                raise bad_type(name, type(part).__name__, "a Stream")
        if len({id(part) for part in self.streams}) < len(self.streams):
            raise bad_value("mix", mix, "a Stream of its own: conv, mix and skip each keep a history")
        channels = conv.out_channels
        if gated:
            if conv.dtype.name not in ("float32", "float64"):
                raise bad_type("conv.dtype", conv.dtype.name, "float32 or float64, for a gate")
            if channels % 2:
                raise bad_value("conv.out_channels", channels, "an even number, for a gate")
            channels //= 2
            self._gate_at, self._drive = gate_kernel(ELEMENT_KIND[conv.dtype.name]).address, serial_driver()
        for name, part in (("mix", mix), ("skip", skip)):
            if part is None:
                continue
            if part.in_channels != channels:
                raise bad_value(f"{name}.in_channels", part.in_channels, f"{channels}, the channels that it is given")
            if part.dtype != conv.dtype:
                raise bad_type(f"{name}.dtype", part.dtype.name, f"{conv.dtype.name}, that of conv")
        self.in_channels = conv.in_channels
        self.out_channels = channels if mix is None else mix.out_channels
        if residual and self.in_channels != self.out_channels:
            expected = f"{self.in_channels}, the channels of the input, or residual=False"
            raise bad_value("out_channels", self.out_channels, expected)
        self._both: tuple[Stream, Stream, Stream] | None = None
        if mix is not None and skip is not None and (both := mix.joined(skip)) is not None:
            self._both = both, mix, skip

    @property
    def streams(self) -> list[Stream]:
        """The streams of this block: conv, mix, skip."""
        return [part for part in (self.conv, self.mix, self.skip) if part is not None]

    def advance(self, x: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """What is passed on, and what is added to the stack's output (None without `skip`).

        `x` and `batch` are what `Stream.advance` takes.
        """
        z = self._gate(self.conv.advance(x, batch)) if self.gated else self.conv.advance(x, batch)
        skip: np.ndarray | None = None
        if self._both is not None:  # mix and skip read the same samples: one call instead of two
            joined, *parts = self._both
            for part in parts:
                part.begin(batch)
            both, channels = joined.advance(joined.converted(z), batch), self.out_channels
            passed, skip = (both[:channels], both[channels:]) if batch == -1 else np.split(both, [channels], axis=1)
        else:
            passed = z if self.mix is None else self.mix.advance(self.mix.converted(z), batch)
            if self.skip is not None:
                skip = self.skip.advance(self.skip.converted(z), batch)
        if self.residual:
            passed = np.add(passed, x, passed, dtype=passed.dtype)
        return passed, skip

    def _gate(self, f: np.ndarray) -> np.ndarray:
        # NumPy's own tanh may round differently at the end of a row than inside it; this kernel does not.
        *lead, channels, count = f.shape
        z = np.empty((*lead, channels // 2, count), f.dtype)
        signals = lead[0] if lead else 1
        self._drive(self._gate_at, 0, address_of(f), channels // 2 * count, 0, address_of(z), 0, signals)
        return z


class StreamStack:
    """Layers of streams, run sample by sample or chunk by chunk with the same bits.

    The cost of a sample does not depend on the dilations: each layer keeps its own queue of past samples.

    Parameters
    ----------
    blocks : sequence of StreamBlock or Stream
        First layer first. A `Stream` is a plain layer, without residual or skip.

    Raises
    ------
    TypeError, ValueError
        If the channels or dtypes of neighbours do not fit.

    Notes
    -----
    The result is the sum of the blocks' skip outputs, in their order; without any, it is what the last block passes
    on. One thread at a time may use a stack, and its streams must not be used elsewhere meanwhile.

    References
    ----------
    T. Le Paine et al., "Fast Wavenet Generation Algorithm", 2016.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> rng = np.random.default_rng(0)
    >>> def block(dilation):
    ...     conv = fastdil.Stream(rng.standard_normal((8, 4, 2)), dilation=dilation)
    ...     mix, skip = (fastdil.Stream(rng.standard_normal((n, 4, 1))) for n in (4, 3))
    ...     return fastdil.StreamBlock(conv, gated=True, mix=mix, skip=skip)
    >>> stack = fastdil.StreamStack([block(d) for d in (1, 2, 4, 8)])
    >>> x = rng.standard_normal((4, 20))
    >>> at_once = stack.process(x)
    >>> stack.reset()
    >>> one_by_one = np.concatenate([stack.process(x[:, i : i + 1]) for i in range(20)], axis=1)
    >>> at_once.shape, np.array_equal(at_once, one_by_one)
    ((3, 20), True)
    """

    def __init__(self, blocks: Iterable[StreamBlock | Stream]):
        self.blocks = [StreamBlock(b, residual=False) if isinstance(b, Stream) else b for b in blocks]
        for index, block in enumerate(self.blocks):
            if not isinstance(block, StreamBlock):
                raise bad_type(f"blocks[{index}]", type(block).__name__, "a StreamBlock or a Stream")
        if not self.blocks:
            raise bad_value("blocks", [], "at least one block")
        for index in range(1, len(self.blocks)):
            before, here = self.blocks[index - 1], self.blocks[index]
            name, expected = f"blocks[{index}]", before.out_channels
            if here.in_channels != expected:
                raise bad_value(f"{name}.in_channels", here.in_channels, f"{expected}, what the block before passes on")
            if here.conv.dtype != before.conv.dtype:
                raise bad_type(f"{name}.conv.dtype", here.conv.dtype.name, f"{before.conv.dtype.name}, as before it")
        widths = {block.skip.out_channels for block in self.blocks if block.skip is not None}
        if len(widths) > 1:
            raise bad_value(
                "blocks", f"skip outputs of {sorted(widths)} channels", "the same number, as they are added"
            )
        self._streams = [stream for block in self.blocks for stream in block.streams]
        if len({id(stream) for stream in self._streams}) < len(self._streams):
            raise bad_value("blocks", "a stream used twice", "streams of their own: each keeps a history")
        self._batch: int | None = None  # that all streams are known to take

    def process(self, chunk: Any) -> np.ndarray:
        """Run the next samples through all layers.

        Parameters
        ----------
        chunk : array_like
            ``(C, L)`` or ``(N, C, L)``, any ``L >= 0``.

        Returns
        -------
        ndarray
            The sum of all skip outputs, or what the last block passes on if there are none.

        Raises
        ------
        TypeError, ValueError
            If the chunk does not fit; no layer has advanced then.
        """
        first = self.blocks[0].conv
        x = first.converted(as_array("chunk", chunk))
        batch = first.check_chunk(x)
        if batch != self._batch:
            for stream in self._streams:
                stream.check_batch(batch)
            self._batch = batch
        total: np.ndarray | None = None
        for block in self.blocks:
            x, skip = block.advance(block.conv.converted(x), batch)
            if skip is not None:
                total = skip if total is None else np.add(total, skip, out=total)
        return np.ascontiguousarray(x if total is None else total)

    def reset(self) -> None:
        """Forget all samples of all layers."""
        self._batch = None
        for stream in self._streams:
            stream.reset()

    @property
    def state(self) -> list[np.ndarray]:
        """The states of all streams, block by block (conv, mix, skip); assigning such a list continues from there.

        Assigning raises ValueError or TypeError, changing nothing, if an array does not fit its stream.
        """
        return [stream.state for stream in self._streams]

    @state.setter
    def state(self, value: Sequence[Any]) -> None:
        states = list(value)
        if len(states) != len(self._streams):
            raise bad_value("len(state)", len(states), f"{len(self._streams)} arrays, one per stream")
        checked = [stream.checked_state(array) for stream, array in zip(self._streams, states, strict=True)]
        leads = {array.shape[:-2] for array in checked}
        if len(leads) > 1:
            raise bad_value("state", f"arrays with batches {sorted(leads)}", "the same batch in all of them")
        for stream, array in zip(self._streams, checked, strict=True):
            stream.restore(array)
        self._batch = None
