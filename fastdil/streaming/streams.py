"""Streams: a causal convolution fed chunk by chunk, with the bits of one call on the whole signal."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdil import plans
from fastdil.algorithms import chains
from fastdil.arguments import as_int
from fastdil.dispatch import choose, parse_method, parse_threads
from fastdil.dtypes import as_dtype, result_dtypes
from fastdil.errors import bad_type, bad_value
from fastdil.kernels.stream import PIECE
from fastdil.problem import ConvSpec, Problem
from fastdil.streaming.steps import ENGINE_LEAST, Steps

#: Length of signal for which the method is chosen.
_TYPICAL_LENGTH = 512
#: Terms of one chain: longer sums are made of several, which no two methods cut alike.
_MOST_ALIKE = 48


class Stream:
    """A causal convolution (stride 1) that takes its input in chunks of any length.

    The results of successive chunks, side by side, are bit for bit ``fastdil.conv1d(x, w, bias, dilation=dilation,
    padding="causal", groups=groups, activation=activation, method=stream.method)`` of the whole signal, however it
    is cut. The time of a step does not depend on the dilation.

    Parameters
    ----------
    w : array_like
        Weights ``(O, C // groups, K)``. They are copied.
    bias : array_like, optional
        One number per output channel, ``(O,)``.
    dilation, groups : int
        As for `fastdil.conv1d`.
    activation : {None, "relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu"}
        Applied after the bias.
    dtype : dtype, optional
        Of the samples, if not that of the weights. The two together (`numpy.result_type`) are the dtype of results
        and state; chunks must convert to it without loss.
    method : {"auto", "direct", "im2col"}
        Whose bits to reproduce. "auto" decides once, for a signal of 512 samples; see the attribute. Other methods
        (``fft``), and ``direct`` for 24 or more taps with one real output per group, sum in an order that depends on
        the length of the signal, and are refused.
    batch : int, optional
        Number of signals fed in parallel. Unless given, the first chunk or the first restored state decides, also
        whether there is a batch axis at all, until `reset`.
    threads : int, optional
        At most so many for long chunks; short ones run on the caller's thread. None: what the machine grants.

    Attributes
    ----------
    method : str
        The method with whose results this stream agrees bit for bit.
    dtype : dtype
        Of results and state.
    history : int
        Samples that the stream remembers: ``(K - 1) * dilation``.
    in_channels, out_channels : int
        Channels of a chunk and of a result.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the text names it, its value and what was expected.

    See Also
    --------
    fastdil.StreamStack : layers of streams.
    fastdil.plan : the same convolution for whole signals.

    Notes
    -----
    One thread at a time may use a stream. Streams can be copied (`copy.deepcopy`) and pickled, with their state.

    A few samples are computed with vectors that run over output channels, long chunks by the engine of
    `fastdil.conv1d` on history and chunk together; both sum in the same order. Before its first sample a stream has
    seen zeros, as ``padding="causal"`` says: a restored state of zeros is the start of a signal. (Where a weight is
    not finite, Inf times such a zero is NaN, here as there.)

    References
    ----------
    T. Le Paine et al., "Fast Wavenet Generation Algorithm", 2016, section 2: one queue per dilated layer.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x, w = np.arange(10.0)[None], np.array([[[1.0, -1.0]]])
    >>> s = fastdil.Stream(w, dilation=3)
    >>> np.concatenate([s.process(x[:, :4]), s.process(x[:, 4:5]), s.process(x[:, 5:])], axis=1)
    array([[ 0., -1., -2., -3., -3., -3., -3., -3., -3., -3.]])
    >>> s.state                                   # the last (K - 1) * dilation samples
    array([[7., 8., 9.]])
    """

    def __init__(
        self,
        w: Any,
        bias: Any = None,
        dilation: int = 1,
        groups: int = 1,
        *,
        activation: str | None = None,
        dtype: Any = None,
        method: str = "auto",
        batch: int | None = None,
        threads: int | None = None,
    ):
        weights = plans.as_array("w", w)
        spec = ConvSpec.parse(
            weights.shape, rank=1, padding="causal", dilation=dilation, groups=groups, activation=activation
        )
        shift = plans.check_bias(bias, spec.out_channels)
        dtypes = [array.dtype for array in (weights, shift) if array is not None]
        both = result_dtypes(*dtypes, *(() if dtype is None else (as_dtype(dtype),)))
        # NumPy's own instances, which arrays usually carry: comparing by identity saves a step 3 microseconds.
        self._compute, self.dtype = (np.dtype(each.type) for each in both)
        self._w = np.array(weights, self._compute, order="C")
        self._bias = None if shift is None else np.array(shift, self._compute, order="C")
        self._threads, self._batch_given = parse_threads(threads), None if batch is None else as_int("batch", batch, 0)
        self.out_channels, group_in, taps = self._w.shape
        self.in_channels = group_in * spec.groups
        self._arguments = (as_int("dilation", dilation, 1), spec.groups, activation)
        self.history = (taps - 1) * self._arguments[0]
        shape = (1, self.in_channels, _TYPICAL_LENGTH)
        problem = spec.problem(shape, self._compute, self._bias is not None)
        self.method = _method(problem, method, self._threads)
        self._plan = plans.plan(
            self._w, self._bias, dilation=dilation, groups=groups, activation=activation, method=self.method,
            threads=threads,
        )  # fmt: skip
        self._steps = None if problem.is_empty else Steps(problem, self.method, self._w, self._bias)
        self._work = np.empty(0, self._compute)
        self._batch: int | None = None  # -1: chunks have no batch axis
        self._strides: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.reset()

    def __repr__(self) -> str:
        dilation, groups, activation = self._arguments
        return (
            f"Stream(w_shape={self._w.shape}, dilation={dilation}, groups={groups}, activation={activation!r}, "
            f"dtype={self.dtype.name}, method={self.method!r})"
        )

    def __reduce__(self):
        # The compiled part is told addresses, so a copy builds its own.
        state = self.state if self._batch is not None else None
        # In the stream's own dtype, where float16 is computed in float32: the copy would take that for its dtype.
        given = (array if array is None else array.astype(self.dtype, copy=False) for array in (self._w, self._bias))
        arguments = (*given, *self._arguments, self.dtype, self.method, self._batch_given, self._threads)
        return _rebuilt, (*arguments, state)

    def reset(self) -> None:
        """Forget all samples: the next one is the first of a signal, and may have another batch size."""
        self._batch = self._batch_given
        if self._batch is not None:
            self._open(self._batch)

    def begin(self, batch: int) -> None:
        """Start with zeros for so many signals (-1: one, without a batch axis), unless it has done so."""
        if batch != self._batch:
            self._open(batch)

    def joined(self, other: Stream) -> Stream | None:
        """One stream with the outputs of this one and, after them, of `other`, bit for bit; None where it would differ.

        Only for streams that remember nothing.
        """
        parts = (self, other)
        words = {(each.history, each._arguments, each.method, each.dtype, each._threads) for each in parts}
        is_plain = self._w.shape[1:] == other._w.shape[1:] and self._arguments[1:] == (1, None) and not self.history
        if len(words) > 1 or not is_plain or (self._bias is None) != (other._bias is None):
            return None
        # In the streams' own dtype, as for a copy.
        bias = None if self._bias is None else np.concatenate([each._bias for each in parts]).astype(self.dtype)
        w = np.concatenate([each._w for each in parts]).astype(self.dtype)
        return Stream(w, bias, dtype=self.dtype, method=self.method, threads=self._threads)

    def _open(self, batch: int) -> None:
        """Start with zeros for so many signals (-1: one, without a batch axis)."""
        self._batch = batch
        self._ring = np.zeros((abs(batch), self.history + PIECE, self.in_channels), self._compute)
        self._position, self._strides = 0, None
        if self._steps is not None:
            self._steps.attach(self._ring, self.history)

    # -----------------------------------------------------------------------------------------------------
    # state
    # -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> np.ndarray:
        """The last ``(K - 1) * dilation`` samples, oldest first: ``(C, history)``, or ``(N, C, history)`` with a batch.

        Reading gives a copy; assigning an array continues from there, and raises ValueError or TypeError, changing
        nothing, if it does not fit. Before the first chunk, and unless `batch` was given, there is no batch axis.
        """
        if self._batch is None:
            return np.zeros((self.in_channels, self.history), self.dtype)
        past = np.empty((len(self._ring), self.in_channels, self.history), self.dtype)
        self._copy_past(past)
        return past[0] if self._batch == -1 else past

    @state.setter
    def state(self, value: Any) -> None:
        self.restore(self.checked_state(value))

    def _copy_past(self, target: np.ndarray) -> None:
        """Write the history, in order of time, to an array ``(N, C, history)``."""
        ring, position = self._ring.transpose(0, 2, 1), self._at()
        old = max(self.history - position, 0)  # samples that stand at the end of the ring
        target[:, :, :old] = ring[:, :, ring.shape[2] - old :]
        target[:, :, old:] = ring[:, :, position - self.history + old : position]

    def checked_state(self, value: Any) -> np.ndarray:
        """`value` as a state that fits, for `restore`; raises what assigning `state` raises."""
        state = self.converted(plans.as_array("state", value), "state")
        tail = (self.in_channels, self.history)
        if self._batch is None:
            expected, fits = f"{tail} or (N, {tail[0]}, {tail[1]})", state.shape[-2:] == tail and state.ndim in (2, 3)
        else:
            shape = tail if self._batch == -1 else (self._batch, *tail)
            expected, fits = f"{shape}", state.shape == shape
        if not fits:
            raise bad_value("state.shape", state.shape, f"{expected}: channels, then (K - 1) * dilation samples")
        return state

    def restore(self, state: np.ndarray) -> None:
        """Continue from what `checked_state` returned."""
        self._open(-1 if state.ndim == 2 else len(state))
        self._ring[:, : self.history] = (state[None] if state.ndim == 2 else state).transpose(0, 2, 1)
        self._move_to(self.history)

    def _at(self) -> int:
        return self._position if self._steps is None else self._steps.position

    def _move_to(self, position: int) -> None:
        self._position = position % self._ring.shape[1]
        if self._steps is not None:
            self._steps.position = self._position

    # -----------------------------------------------------------------------------------------------------
    # chunks
    # -----------------------------------------------------------------------------------------------------

    def process(self, chunk: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Convolve the next samples.

        Parameters
        ----------
        chunk : array_like
            ``(C, L)`` or ``(N, C, L)``, any ``L >= 0``, any strides; of a dtype that converts to the stream's without
            loss.
        out : ndarray, optional
            Where to write: shape and dtype of the result, any strides, no memory shared with `chunk`. Then nothing is
            allocated but, for long chunks, room for history and chunk, which is kept.

        Returns
        -------
        ndarray
            ``(O, L)`` or ``(N, O, L)``: as many samples as went in.

        Raises
        ------
        TypeError, ValueError
            If `chunk` or `out` does not fit. The stream goes on as if the call had not been made.
        """
        given = chunk if type(chunk) is np.ndarray else plans.as_array("chunk", chunk)
        x = self.converted(given)
        batch = self.check_chunk(x)
        count = x.shape[-1]
        shape = (self.out_channels, count) if batch == -1 else (batch, self.out_channels, count)
        is_direct = _is_plain(out, shape, self._compute, given) and self.dtype == self._compute
        if out is not None and not is_direct:
            plans.check_out(out, shape, self.dtype, (given,))
            is_direct = out.dtype == self._compute and out.dtype.isnative and out.flags.aligned
        if is_direct and out is not None:
            self._advance(x, out, batch)
            return out
        y = self.advance(x, batch)
        if out is None:
            return y
        out[...] = y
        return out

    def advance(self, x: np.ndarray, batch: int) -> np.ndarray:
        """`process` without a check: `x` is what `converted` returned, `batch` what `check_chunk` returned for it."""
        shape = (self.out_channels, x.shape[1]) if batch == -1 else (batch, self.out_channels, x.shape[2])
        y = np.empty(shape, self._compute)
        self._advance(x, y, batch)
        if self.dtype is self._compute:
            return y
        with np.errstate(over="ignore"):  # float16: beyond its range is inf, as everywhere in NumPy
            return y.astype(self.dtype)

    def converted(self, array: np.ndarray, name: str = "chunk") -> np.ndarray:
        """`array` in the dtype of computation, as kernels can read it."""
        if array.dtype is self._compute and array.flags.aligned:
            return array
        if not np.can_cast(array.dtype, self.dtype):
            raise bad_type(
                f"{name}.dtype", array.dtype.name, f"one that converts to {self.dtype.name} without loss (see dtype=)"
            )
        return plans.readable(array, self._compute)

    def check_chunk(self, x: np.ndarray) -> int:
        """The batch size of a chunk that fits (-1: it has no batch axis)."""
        batch = -1 if x.ndim == 2 else len(x) if x.ndim == 3 else None
        if batch is None or x.shape[-2] != self.in_channels or self._batch not in (None, batch):
            lead = {None: "[N, ]", -1: ""}.get(self._batch, f"{self._batch}, ")
            raise bad_value("chunk.shape", x.shape, f"({lead}{self.in_channels}, L): this stream's channels and batch")
        return batch

    def check_batch(self, batch: int) -> None:
        """Refuse a batch size (-1: no batch axis) other than the one that this stream has begun with."""
        if self._batch not in (None, batch):
            names = {-1: "no batch axis"}
            shown = (names.get(number, f"batches of {number}") for number in (batch, self._batch))
            raise bad_value("chunk", next(shown), f"{next(shown)}, as {self} has begun with")

    def _advance(self, x: np.ndarray, y: np.ndarray, batch: int) -> None:
        self.begin(batch)
        steps, count = self._steps, x.shape[-1]
        if not (y.size or x.size):
            return
        if steps is None or (count >= ENGINE_LEAST and steps.prefers_engine(count, abs(batch), self.history)):
            self._run_engine(x, y, count)
            return
        if self._strides != (x.strides, y.strides):
            steps.set_strides(x.strides, y.strides)
            self._strides = (x.strides, y.strides)
        steps.run(x, y, count)

    def _run_engine(self, x: np.ndarray, y: np.ndarray, count: int) -> None:
        """History and chunk side by side, convolved by the plan; the end of the chunk goes to the ring."""
        batched, result = (x, y) if x.ndim == 3 else (x[None], y[None])
        shape = (len(batched), self.in_channels, self.history + count)
        size = shape[0] * shape[1] * shape[2]
        if self._work.size < size:
            self._work = np.empty(size, self._compute)
        work = self._work[:size].reshape(shape)
        self._copy_past(work[:, :, : self.history])
        work[:, :, self.history :] = batched
        if result.size:
            self._plan(work, out=result)
        self._ring[:, : self.history] = work[:, :, count:].transpose(0, 2, 1)
        self._move_to(self.history)


def _is_plain(out: Any, shape: tuple[int, ...], dtype: np.dtype, x: np.ndarray) -> bool:
    """Whether an `out` fits at first glance, which takes half the time of `plans.check_out`."""
    return (
        type(out) is np.ndarray
        and out.shape == shape
        and out.dtype is dtype
        and out.flags.carray
        and not np.may_share_memory(out, x)
    )


def _rebuilt(w, bias, dilation, groups, activation, dtype, method, batch, threads, state) -> Stream:
    words = {"activation": activation, "dtype": dtype, "method": method, "batch": batch, "threads": threads}
    result = Stream(w, bias, dilation, groups, **words)
    if state is not None:
        result.state = state
    return result


def _method(problem: Problem, method: str, threads: int) -> str:
    """The method whose order of summation a stream follows."""
    if parse_method(method) != "auto":
        reason = chains.refusal(method)
        if reason is not None:
            raise bad_value("method", method, f"one that a stream can follow: {reason}")
        return method if problem.is_empty else choose(problem, method, threads)[0].name
    names = [] if problem.is_empty else [algorithm.name for algorithm in choose(problem, "auto", threads)]
    # Where both orders are the same, `direct` is the quicker one on long chunks.
    if 0 < problem.terms <= _MOST_ALIKE:
        orders = [list(chains.ORDERS[name](problem.group_in, problem.taps)) for name in ("direct", "im2col")]
        if orders[0] == orders[1]:
            names.append("direct")
    names = [name for name in names if chains.refusal(name) is None]
    return names[-1] if names else "im2col"
