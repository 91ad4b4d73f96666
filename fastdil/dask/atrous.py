"""The a trous transform of dask arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdil import partition
from fastdil.arguments import as_int, one_of
from fastdil.dask.cuts import Cuts, as_dask
from fastdil.dask.overlap import overlapped
from fastdil.errors import bad_value
from fastdil.padding import MODES
from fastdil.partition import AxisPart
from fastdil.wavelets import arguments, transform

if TYPE_CHECKING:
    from dask.array import Array


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
    x, levels, workers = as_dask("x", x), as_int("levels", levels, 0), as_int("threads", threads, 1)
    import dask.array as da

    boundary = one_of("boundary", boundary, tuple(MODES))
    # In memory, so that the same words are raised for the same faults.
    dtype = transform.atrous_transform(np.zeros((1,) * x.ndim, x.dtype), 0, boundary=boundary, axes=axes).dtype
    taps = arguments.parse_scaling(scaling, np.zeros(0, dtype).real.dtype)
    chosen = arguments.parse_axes(axes, x.ndim)
    before, planes = x.astype(dtype), []
    for level in range(levels if x.size else 0):
        distances = tuple(transform.tap_distance(level, x.shape[axis], boundary) for axis in chosen)
        cuts = Cuts.around(before, len(taps), dict(zip(chosen, distances, strict=True)), boundary)
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
    planes, workers = as_dask("coefficients", coefficients), as_int("threads", threads, 1)
    if planes.ndim < 2 or planes.shape[0] == 0:
        raise bad_value("coefficients.shape", planes.shape, "(levels + 1, *shape) with at least one plane")
    dtype = transform.inverse_atrous_transform(np.zeros((1, 1), planes.dtype)).dtype
    whole = planes.rechunk({0: -1})
    return whole.map_blocks(
        _sum_of_planes, workers, drop_axis=0, dtype=dtype, meta=np.empty((0,) * (whole.ndim - 1), dtype)
    )


def _sum_of_planes(planes: np.ndarray, threads: int) -> np.ndarray:
    return transform.inverse_atrous_transform(planes, threads=threads)


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
        planes = transform.one_level(
            samples, self.distances, scaling=self.taps, boundary=self.boundary, axes=self.axes, threads=self.threads
        )
        return np.ascontiguousarray(planes[(slice(None), *partition.trimmed(parts))])
