"""Convolution of arrays larger than memory, block by block: `numpy.memmap` in, `numpy.memmap` out."""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdil import partition, plans
from fastdil.arguments import as_int
from fastdil.dispatch import parse_threads
from fastdil.dtypes import result_dtypes
from fastdil.errors import bad_type, bad_value
from fastdil.partition import AxisPart
from fastdil.problem import ConvSpec, Problem

#: Modes in which a memmap is a view of its file, so that pages can be dropped and read again.
_SHARED_MODES = ("r", "r+", "w+")
#: Samples read, relative to the best way to cut, that whole rows are worth: pages are mapped 64 KiB at a time.
_TOLERATED_WASTE = 1.25


def conv_blocks(
    x: Any,
    w: Any,
    out: Any,
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
    threads: int | None = None,
    block_bytes: int = 1 << 26,
    progress: Callable[[int, int], object] | None = None,
) -> Any:
    """`fastdil.conv` of an array that does not fit into memory, into another one, block by block.

    Parameters
    ----------
    x : array_like
        Input ``(N, C, *spatial)``, or ``(C, *spatial)`` without a batch: a `numpy.memmap`, or anything with `shape` and
        `dtype` that gives an array when indexed by a tuple of slices with step 1.
    w : array_like
        Weights ``(O, C // groups, *kernel)``.
    out : array_like
        Where to write: a writeable array or memmap, or anything with `shape` and `dtype` that can be assigned to by a
        tuple of slices. Shape and dtype of the result; no memory or part of a file shared with `x`.
    bias, stride, padding, dilation, groups, padding_mode, activation, precision, threads
        As for `fastdil.conv`.
    method : str
        ``"auto"`` chooses once, for the whole array, or a name from `fastdil.methods`.
    block_bytes : int
        Samples read and outputs written at a time take at most so many bytes, down to a box that cannot be cut because
        it is a single output of all channels (or the few rows that `direct` computes together). A method's own scratch
        memory, at most 64 MiB, comes on top.
    progress : callable, optional
        Called as ``progress(done, total)`` after each block, with numbers of blocks. What it raises is passed on and
        ends the work; blocks that are done stay in `out`.

    Returns
    -------
    array_like
        `out`. Pages of a memmap are handed to the system to write; call its ``flush`` to wait for the disk.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit: the text names it, its value and what was expected. Nothing is written then.

    See Also
    --------
    fastdil.dask : on many threads, processes or machines.

    Notes
    -----
    Blocks overlap by what the kernel spans, and only the edges of the whole are padded. With ``method="direct"`` or
    "reference" the results have the bits of `fastdil.conv` on the whole array in memory; two exceptions of "direct" are
    listed in ``docs/larger_than_memory.md``. "im2col" and "fft" cut their sums to the size of the problem, so there
    results agree within the precision asked for.

    Along the batch, then along the outermost spatial axis where blocks read little twice, work is halved until it fits.
    Pages of a memmap that were read or written are released after each block.

    Examples
    --------
    >>> import numpy as np, fastdil, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> x = np.lib.format.open_memmap(pathlib.Path(folder.name, "x.npy"), "w+", np.float32, (1, 512, 512))
    >>> x[:] = 1
    >>> y = np.lib.format.open_memmap(pathlib.Path(folder.name, "y.npy"), "w+", np.float32, (1, 512, 512))
    >>> w, count = np.ones((1, 1, 3, 3), np.float32), []
    >>> y = fastdil.conv_blocks(x, w, y, padding=8, dilation=8, block_bytes=1 << 18,
    ...                         progress=lambda done, total: count.append((done, total)))
    >>> count[-1], float(y[0, 0, 0]), float(y[0, 256, 256])
    ((16, 16), 4.0, 9.0)
    >>> folder.cleanup()
    """
    source, target = _indexable("x", x), _indexable("out", out)
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
    shape = tuple(source.shape)
    if len(shape) not in (spec.rank + 1, spec.rank + 2):
        raise bad_value("x.shape", shape, f"{spec.rank + 2} dimensions (N, C, *spatial), or {spec.rank + 1} without N")
    batched = shape if len(shape) == spec.rank + 2 else (1, *shape)
    dtypes = [np.dtype(a.dtype) for a in (source, w, bias) if a is not None]
    compute, result = result_dtypes(*dtypes)
    problem = spec.problem(batched, compute, bias is not None)
    _check_target(target, problem, shape, result, (source, w, bias))
    workers, limit = parse_threads(threads), as_int("block_bytes", block_bytes, 1)
    if progress is not None and not callable(progress):
        raise bad_type("progress", progress, "a function of (done, total), or None")
    names = partition.method_names(problem, method, workers)
    boxes = _cut(problem, limit, dtypes[0].itemsize, result.itemsize)
    total = math.prod(len(pieces) for pieces in boxes)
    for done, (samples, *parts) in enumerate(itertools.product(*boxes), start=1):
        where = (slice(*samples),) if len(shape) == spec.rank + 2 else ()
        block = _gather(source, (*where, slice(None)), parts)
        y = partition.run(block, w, bias, names, workers, partition.box_spec(spec, parts))
        kept = y[(..., *partition.trimmed(parts))]
        target[(*where, slice(None), *(slice(part.first, part.last) for part in parts))] = kept
        _release(source)
        _release(target)
        if progress is not None:
            progress(done, total)
    return out


def _indexable(name: str, value: Any) -> Any:
    """`value` if it has a shape and a dtype, else as an array."""
    return value if hasattr(value, "shape") and hasattr(value, "dtype") else plans.as_array(name, value)


def _check_target(out: Any, problem: Problem, x_shape: tuple[int, ...], result: np.dtype, inputs: tuple) -> None:
    shape = problem.out_shape if len(x_shape) == problem.rank + 2 else problem.out_shape[1:]
    if isinstance(out, np.ndarray):
        arrays = tuple(a for a in inputs if isinstance(a, np.ndarray))
        plans.check_out(out, shape, result, arrays)
        if any(_share_file(out, array) for array in arrays):
            raise bad_value("out", "memmap of a file that x is read from", "a file, or a part of one, of its own")
        return
    if tuple(out.shape) != shape:
        raise bad_value("out.shape", tuple(out.shape), f"{shape}, the shape of the result")
    if np.dtype(out.dtype).newbyteorder("=") != result:
        raise bad_type("out.dtype", str(out.dtype), f"{result.name}, the dtype of the result")


def _share_file(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two memmaps map the same bytes of a file; NumPy takes two mappings of it for different memory."""
    one, other = _root(a), _root(b)
    if one is None or other is None or one is other:
        return False
    if not (os.path.exists(one.filename or "") and os.path.exists(other.filename or "")):
        return False
    first, last = max(one.offset, other.offset), min(one.offset + one.nbytes, other.offset + other.nbytes)
    return first < last and os.path.samefile(one.filename, other.filename)  # type: ignore[arg-type]


def _root(array: Any) -> np.memmap | None:
    """The memmap that maps a file, of which `array` is a view."""
    while isinstance(array, np.ndarray) and not isinstance(array.base, mmap.mmap):
        array = array.base
    return array if isinstance(array, np.memmap) else None


def _release(array: Any) -> None:
    """Drop the pages of a memmap from this process; the system keeps what is not yet on disk."""
    root = _root(array)
    if root is not None and root.mode in _SHARED_MODES and hasattr(mmap, "MADV_DONTNEED"):
        root.base.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]


def _cut(problem: Problem, limit: int, in_bytes: int, out_bytes: int) -> list[list]:
    """Ranges of samples, and the parts of each spatial axis: boxes that fit the limit where they can."""
    axes = range(3 - problem.rank, 3)
    batch, outputs = problem.batch, [problem.out_size[axis] for axis in axes]
    least = [partition.least_outputs(problem, axis) for axis in axes]
    converted = in_bytes + (problem.dtype.itemsize if problem.dtype.itemsize != in_bytes else 0)

    def read(sizes: Sequence[int]) -> int:
        return math.prod(partition.samples_read(problem, axis, n) for axis, n in zip(axes, sizes, strict=True))

    def needed(batch: int, sizes: Sequence[int]) -> int:
        samples = problem.in_channels * read(sizes) * converted
        return batch * (samples + problem.out_channels * math.prod(sizes) * out_bytes)

    def halved(place: int) -> list[int]:
        return [-(-n // 2) if at == place else n for at, n in enumerate(outputs)]

    def waste(place: int) -> float:
        """Samples read per output."""
        return read(halved(place)) / math.prod(halved(place))

    while batch * math.prod(outputs) and needed(batch, outputs) > limit:
        choices = [p for p, n in enumerate(outputs) if n > least[p] and needed(1, halved(p)) < needed(1, outputs)]
        if batch > 1:
            batch = -(-batch // 2)
        elif choices:
            # Of those that read little twice, the outermost: its boxes are long runs in memory and in files.
            fewest = min(map(waste, choices))
            outputs = halved(next(p for p in choices if waste(p) <= _TOLERATED_WASTE * fewest))
        else:
            break
    boxes: list[list] = [_ranges(problem.batch, batch)]
    for axis, size in zip(axes, outputs, strict=True):
        whole = (0, problem.size[axis])
        boxes.append(
            [partition.axis_part(problem, axis, pair, whole) for pair in _ranges(problem.out_size[axis], size)]
        )
    return boxes


def _ranges(total: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, total)) for start in range(0, total, max(step, 1))]


def _gather(source: Any, lead: tuple[slice, ...], parts: Sequence[AxisPart]) -> np.ndarray:
    """The samples of a box, read by slices with step 1 only."""

    def along(axis: int, where: tuple[slice, ...]) -> np.ndarray:
        if axis == len(parts):
            return np.asarray(source[(*lead, *where)])
        pieces = []
        for segment in parts[axis].segments:
            piece = along(axis + 1, (*where, slice(segment.start, segment.stop)))
            at = len(lead) + axis
            pieces.append(piece if segment.order is None else piece.take(segment.order, at))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, len(lead) + axis)

    return np.ascontiguousarray(along(0, ()))
