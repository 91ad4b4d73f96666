"""Dilated convolution and the a trous transform of `dask.array`: larger than memory, on many threads or machines.

Each chunk of the result reads the chunks of the input that its taps touch, as many as these are, and pads only where
the whole array ends. Nothing is computed before `compute`, `store` or the like. Needs dask (``fastdil[dask]``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdil import partition, plans, wavelets
from fastdil.errors import bad_type, bad_value
from fastdil.overlap import overlapped
from fastdil.padding import MODES
from fastdil.partition import AxisPart
from fastdil.problem import ConvSpec, Problem, as_int, one_of, result_dtypes
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
    x = _as_dask("x", x)
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
    cuts = _Cuts.of(problem, x.chunks)
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
    x, taps = _as_dask("x", x), plans.as_array("taps", taps)
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
    if any(axis.size == 0 for axis in along):
        raise bad_value("x.shape", x.shape, "at least one sample along the axes of the taps")
    spec = ConvSpec.parse(
        (1, 1, *weights.shape),
        dilation=tuple(axis.dilation for axis in along),
        padding=tuple((axis.lo, axis.hi) for axis in along),
        padding_mode=boundary,
        precision=precision,
    )
    compute, result = result_dtypes(x.dtype, taps.dtype)
    moved = da.moveaxis(x, sorted(chosen), list(range(x.ndim - taps.ndim, x.ndim)))
    batch = moved.shape[: -taps.ndim]
    problem = spec.problem((int(np.prod(batch)), 1, *moved.shape[-taps.ndim :]), compute)
    workers = as_int("threads", threads, 1)
    names = partition.method_names(problem, method, workers)
    operation = _Convolution(weights[None, None], None, spec, names, workers, is_signal=True)
    cuts = _Cuts.of(problem, moved.chunks)
    chunks = (*moved.chunks[: -taps.ndim], *cuts.chunks)
    y = overlapped(name, moved, operation, cuts.parts, chunks, result, len(batch))
    return da.moveaxis(y, list(range(x.ndim - taps.ndim, x.ndim)), sorted(chosen))


def atrous_transform(
    x: Any,
    levels: int,
    *,
    scaling: Any = "b3",
    boundary: str = "symmetric",
    axes: int | tuple[int, ...] | None = None,
    threads: int = 1,
) -> Array:
    """`fastdil.atrous_transform` of a dask array, with the same bits.

    Parameters
    ----------
    x : dask.array.Array
    threads : int
        For each chunk; see `conv`.

    The other parameters are those of `fastdil.atrous_transform`; so are the errors, raised at once.

    Returns
    -------
    dask.array.Array
        ``(levels + 1, *x.shape)``, one plane per chunk of the first axis, the others chunked as `x`.

    Notes
    -----
    Level j reads ``(K - 1) * 2**j`` samples around each chunk of the plane before, so boundaries mean at each level
    what they mean in memory.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastdil.dask
    >>> planes = fastdil.dask.atrous_transform(da.ones((512, 512), chunks=100), 4)
    >>> planes.shape, float(abs(planes[:-1]).max().compute())
    ((5, 512, 512), 0.0)
    """
    x, levels, workers = _as_dask("x", x), as_int("levels", levels, 0), as_int("threads", threads, 1)
    import dask.array as da

    boundary = one_of("boundary", boundary, tuple(MODES))
    # In memory, so that the same words are raised for the same faults.
    dtype = wavelets.atrous_transform(np.zeros((1,) * x.ndim, x.dtype), 0, boundary=boundary, axes=axes).dtype
    taps = wavelets.parse_scaling(scaling, np.zeros(0, dtype).real.dtype)
    chosen = wavelets.parse_axes(axes, x.ndim)
    before, planes = x.astype(dtype), []
    for level in range(levels if x.size else 0):
        distances = tuple(wavelets.tap_distance(level, x.shape[axis], boundary) for axis in chosen)
        cuts = _Cuts.around(before, len(taps), dict(zip(chosen, distances, strict=True)), boundary)
        operation = _Level(taps, distances, chosen, boundary, workers)
        both = overlapped("atrous", before, operation, cuts.parts, ((2,), *before.chunks), dtype, 0)
        planes.append(both[0])
        before = both[1]
    planes += [before] * (levels + 1 - len(planes))
    return da.stack(planes)


def inverse_atrous_transform(coefficients: Any, *, threads: int = 1) -> Array:
    """`fastdil.inverse_atrous_transform` of a dask array: the sum of the planes, with the same bits.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastdil.dask
    >>> x = da.arange(1000, chunks=300).astype(float)
    >>> planes = fastdil.dask.atrous_transform(x, 3)
    >>> bool(da.allclose(fastdil.dask.inverse_atrous_transform(planes), x).compute())
    True
    """
    planes, workers = _as_dask("coefficients", coefficients), as_int("threads", threads, 1)
    if planes.ndim < 2 or planes.shape[0] == 0:
        raise bad_value("coefficients.shape", planes.shape, "(levels + 1, *shape) with at least one plane")
    dtype = wavelets.inverse_atrous_transform(np.zeros((1, 1), planes.dtype)).dtype
    whole = planes.rechunk({0: -1})
    return whole.map_blocks(
        _sum_of_planes, workers, drop_axis=0, dtype=dtype, meta=np.empty((0,) * (whole.ndim - 1), dtype)
    )


def _sum_of_planes(planes: np.ndarray, threads: int) -> np.ndarray:
    return wavelets.inverse_atrous_transform(planes, threads=threads)


def _as_dask(name: str, value: Any) -> Array:
    try:
        import dask.array as da
    except ImportError as error:
        raise ImportError("fastdil.dask needs dask: pip install 'fastdil[dask]'") from error
    if not isinstance(value, da.Array):
        raise bad_type(name, type(value).__name__, "a dask array; dask.array.from_array makes one")
    if any(np.isnan(size) for size in value.shape):
        raise bad_value(f"{name}.chunks", value.chunks, "chunks of known sizes; compute_chunk_sizes() finds them")
    return value


# ---------------------------------------------------------------------------------------------------------
# what runs on the workers
# ---------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class _Level:
    """One level of the a trous transform of boxes: detail and smoothed plane."""

    taps: np.ndarray
    distances: tuple[int, ...]
    axes: tuple[int, ...]
    boundary: str
    threads: int

    def __call__(self, samples: np.ndarray, parts: Sequence[AxisPart]) -> np.ndarray:
        zeros = [part.padding for part in parts]
        samples = np.pad(samples, zeros) if np.any(zeros) else samples
        planes = wavelets.one_level(
            samples, self.distances, scaling=self.taps, boundary=self.boundary, axes=self.axes, threads=self.threads
        )
        return np.ascontiguousarray(planes[(slice(None), *partition.trimmed(parts))])


# ---------------------------------------------------------------------------------------------------------
# where arrays are cut
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cuts:
    """The parts that each overlapping axis is cut into; these are the last axes of the array."""

    parts: tuple[tuple[AxisPart, ...], ...]

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the chunks of the result."""
        return tuple(tuple(part.size for part in parts) for parts in self.parts)

    @classmethod
    def of(cls, problem: Problem, chunks: Sequence[Sequence[int]]) -> _Cuts:
        """The spatial axes of a convolution."""
        parts = []
        for axis, sizes in zip(range(3 - problem.rank, 3), chunks[-problem.rank :], strict=True):
            bounds = _bounds(sizes)
            cuts = partition.output_bounds(problem, axis, bounds)
            pairs = itertools.pairwise(cuts)
            parts.append(tuple(partition.axis_part(problem, axis, pair, bounds) for pair in pairs))
        return cls(tuple(parts))

    @classmethod
    def around(cls, x: Array, taps: int, distances: dict[int, int], mode: str) -> _Cuts:
        """All axes of an array, with the neighbours of a level of the a trous transform along those of `distances`."""
        parts = []
        for axis, sizes in enumerate(x.chunks):
            # Distance 0: every tap stands on the same sample, because beyond the edges that one repeats.
            step = distances.get(axis, 0)
            count, centre = (taps, taps // 2 * step) if step else (1, 0)
            problem = Problem.create(
                (1, 1, x.shape[axis]),
                (2, 1, count),  # two outputs: nothing is shared, so boxes hold nothing but what is wanted
                dilation=max(step, 1),
                padding=((centre, (count - 1) * step - centre),),
                padding_mode=mode,
            )
            bounds = _bounds(sizes)
            pairs = itertools.pairwise(bounds)
            found = (partition.axis_part(problem, 2, pair, bounds) for pair in pairs)
            parts.append(tuple(_with_halo(part, centre, (count - 1) * step) for part in found))
        return cls(tuple(parts))


def _with_halo(part: AxisPart, before: int, reach: int) -> AxisPart:
    """The same samples, of which all are computed and those in the middle wanted."""
    return part._replace(skip=part.skip + before)


def _bounds(sizes: Iterable[int]) -> tuple[int, ...]:
    return (0, *itertools.accumulate(sizes))
