"""Convolution of dask arrays, with channels and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdil import partition, plans
from fastdil.arguments import as_int, one_of
from fastdil.dask.cuts import Cuts, as_dask
from fastdil.dask.overlap import overlapped
from fastdil.dispatch import parse_method
from fastdil.dtypes import result_dtypes
from fastdil.errors import bad_value
from fastdil.padding import MODES
from fastdil.partition import AxisPart
from fastdil.problem import ConvSpec
from fastdil.signal_layout import SIGNAL_MODES, describe, parse_axes

if TYPE_CHECKING:
    from dask.array import Array


def conv(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    threads: int = 1,
) -> Array:
    """`fastdil.conv` of a dask array.

    Parameters
    ----------
    x : dask.array.Array
        Input ``(N, C, *spatial)``, or ``(C, *spatial)``; chunks of known sizes, of any size along any axis.
    w, bias : array_like
        In memory; they travel with the graph.
    method : str
        ``"auto"`` chooses once, for the whole array on `threads` threads, so that all chunks are computed alike.
    threads : int
        For each chunk. dask runs one chunk per worker thread already, so more than 1 helps only where the workers have
        fewer threads than the machine has cores.

    The other parameters are those of `fastdil.conv`.

    Returns
    -------
    dask.array.Array
        ``(N, O, *spatial)``, one chunk of channels; spatial chunks are cut where those of `x` are.

    Raises
    ------
    TypeError, ValueError
        At once, if an argument does not fit: the text names it, its value and what was expected.

    See Also
    --------
    fastdil.conv_blocks : memmaps, without dask.

    Notes
    -----
    A chunk of the result needs ``(k - 1) * dilation`` more samples than the chunk of `x` it stands for. They are
    cut out of as many neighbours as hold them, so chunks may be shorter than the kernel spans; but then each sample is
    read several times, and chunks several times as long as the kernel's span are faster.

    With ``method="direct"`` or "reference" the bits are those of `fastdil.conv` in memory; see
    ``docs/larger_than_memory.md`` for the exceptions of "direct". "im2col" and "fft" agree within `precision`.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> import fastdil.dask
    >>> x = da.ones((1, 1000, 1000), chunks=(1, 256, 256), dtype=np.float32)
    >>> y = fastdil.dask.conv(x, np.ones((2, 1, 3, 3), np.float32), padding="same", dilation=16)
    >>> y
    dask.array<conv, shape=(2, 1000, 1000), dtype=float32, chunksize=(2, 256, 256), chunktype=numpy.ndarray>
    >>> float(y[0, 0, 0].compute())
    4.0
    """
    x = as_dask("x", x)
    import dask.array as da

    w = plans.as_array("w", w)
    spec = ConvSpec.parse(
        w.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        activation=activation,
        precision=precision,
    )
    bias = plans.check_bias(bias, spec.out_channels)
    if x.ndim not in (spec.rank + 1, spec.rank + 2):
        raise bad_value(
            "x.shape", x.shape, f"{spec.rank + 2} dimensions (N, C, *spatial), or {spec.rank + 1} without N"
        )
    compute, result = result_dtypes(*(a.dtype for a in (x, w, bias) if a is not None))
    problem = spec.problem(x.shape if x.ndim == spec.rank + 2 else (1, *x.shape), compute, bias is not None)
    workers = as_int("threads", threads, 1)
    names = partition.method_names(problem, method, workers)
    operation = _Convolution(w, bias, spec, names, workers)
    if problem.out_pixels == 0:
        return da.empty(problem.out_shape[-x.ndim :], dtype=result)
    cuts = Cuts.of(problem, x.chunks)
    shape = problem.out_shape[-x.ndim :]
    chunks = (*x.chunks[: x.ndim - spec.rank - 1], (shape[-spec.rank - 1],), *cuts.chunks)
    return overlapped("conv", x, operation, cuts.parts, chunks, result, x.ndim - spec.rank - 1)


def correlate(
    x: Any,
    taps: Any,
    dilation: int | tuple[int, ...] = 1,
    mode: str = "full",
    *,
    axes: int | tuple[int, ...] | None = None,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    threads: int = 1,
) -> Array:
    """`fastdil.correlate` of a dask array, with taps along up to three axes.

    Parameters
    ----------
    x : dask.array.Array
        Signals, chunks of any size.
    taps : array_like
        In memory; one to three dimensions.
    threads : int
        For each chunk; see `conv`.

    The other parameters are those of `fastdil.correlate`; so are the errors, raised at once.

    Returns
    -------
    dask.array.Array

    Examples
    --------
    >>> import dask.array as da
    >>> import fastdil.dask
    >>> x = da.arange(10, chunks=3)
    >>> fastdil.dask.correlate(x, [1, -1], dilation=4, mode="valid").compute()
    array([-4, -4, -4, -4, -4, -4])
    """
    return _filtered("correlate", x, taps, dilation, mode, axes, boundary, method, precision, threads)


def convolve(
    x: Any,
    taps: Any,
    dilation: int | tuple[int, ...] = 1,
    mode: str = "full",
    *,
    axes: int | tuple[int, ...] | None = None,
    boundary: str = "zeros",
    method: str = "auto",
    precision: str | None = None,
    threads: int = 1,
) -> Array:
    """`fastdil.convolve` of a dask array: `correlate` with the taps flipped and not conjugated.

    Parameters, result and errors are those of `correlate`.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastdil.dask
    >>> impulse = da.from_array([1, 0, 0, 0, 0, 0], chunks=2)
    >>> fastdil.dask.convolve(impulse, [1, 2, 3], dilation=2, mode="causal").compute()
    array([1, 0, 2, 0, 3, 0])
    """
    return _filtered("convolve", x, taps, dilation, mode, axes, boundary, method, precision, threads)


def _filtered(name, x, taps, dilation, mode, axes, boundary, method, precision, threads) -> Array:
    x, taps = as_dask("x", x), plans.as_array("taps", taps)
    import dask.array as da

    mode, boundary = one_of("mode", mode, SIGNAL_MODES), one_of("boundary", boundary, tuple(MODES))
    if not 1 <= taps.ndim <= 3:
        raise bad_value("taps.ndim", taps.ndim, "one to three dimensions for dask arrays")
    chosen = parse_axes(axes, taps.ndim, x.shape)
    described = describe(x.shape, taps.shape, chosen, dilation, mode)
    order = np.argsort(chosen)
    weights = taps.transpose(order)
    weights = np.flip(weights) if name == "convolve" else weights.conj() if weights.dtype.kind == "c" else weights
    along = [described[axis] for axis in sorted(chosen)]
    spec = ConvSpec.parse(
        (1, 1, *weights.shape),
        dilation=tuple(axis.dilation for axis in along),
        padding=tuple((axis.lo, axis.hi) for axis in along),
        padding_mode=boundary,
        precision=precision,
    )
    compute, result = result_dtypes(x.dtype, taps.dtype)
    workers = as_int("threads", threads, 1)
    if any(axis.size == 0 for axis in described):
        parse_method(method)
        return da.empty([axis.outputs for axis in described], dtype=result)
    moved = da.moveaxis(x, sorted(chosen), list(range(x.ndim - taps.ndim, x.ndim)))
    batch = moved.shape[: -taps.ndim]
    problem = spec.problem((int(np.prod(batch)), 1, *moved.shape[-taps.ndim :]), compute)
    names = partition.method_names(problem, method, workers)
    operation = _Convolution(weights[None, None], None, spec, names, workers, is_signal=True)
    cuts = Cuts.of(problem, moved.chunks)
    chunks = (*moved.chunks[: -taps.ndim], *cuts.chunks)
    y = overlapped(name, moved, operation, cuts.parts, chunks, result, len(batch))
    return da.moveaxis(y, list(range(x.ndim - taps.ndim, x.ndim)), sorted(chosen))


@dataclass(frozen=True)
class _Convolution:
    """A convolution of boxes; one per graph, sent to each worker once."""

    w: np.ndarray
    bias: np.ndarray | None
    spec: ConvSpec
    names: tuple[str, ...]
    threads: int
    is_signal: bool = False  #: all axes but those of the taps are batch, and there are no channels

    def __call__(self, samples: np.ndarray, parts: Sequence[AxisPart]) -> np.ndarray:
        shape, rank = samples.shape, self.spec.rank
        if self.is_signal:
            samples = samples.reshape(int(np.prod(shape[:-rank])), 1, *shape[-rank:])
        y = partition.run(samples, self.w, self.bias, self.names, self.threads, partition.box_spec(self.spec, parts))
        if self.is_signal:
            y = y.reshape(*shape[:-rank], *y.shape[2:])
        return np.ascontiguousarray(y[(..., *partition.trimmed(parts))])
