"""Arrays on a GPU, whoever owns them: described, allocated, copied.

Every array becomes a `View`: what the rest of the library knows of it is an ndarray with its shape, strides, dtype and
*device* address, which nobody reads, so the checks of `fastdil.arrays` (overlaps included) hold on the device.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from fastdil.arrays import as_array, is_on_device
from fastdil.cuda.availability import is_simulated
from fastdil.errors import bad_type, bad_value

#: Stream numbers with a meaning of their own in the CUDA array interface: the legacy and the per-thread default stream.
_LEGACY, _PER_THREAD = 1, 2


class View(NamedTuple):
    """An array on the device."""

    outline: np.ndarray  #: shape, strides, dtype and device address; its elements must not be touched
    owner: Any  #: keeps the memory alive
    stream: int | None = None  #: on which the owner's pending work is queued, if it says so


def view(name: str, value: Any) -> View:
    """The view of an array that offers ``__cuda_array_interface__``."""
    try:
        interface = value.__cuda_array_interface__
    except Exception as error:  # libraries refuse in many ways
        raise bad_type(name, type(value).__name__, f"an array that shows its memory ({error})") from None
    if interface.get("mask") is not None:
        raise bad_type(name, "masked array", "an array without a mask")
    stream = interface.get("stream")
    outline = _outline(interface)
    if outline.dtype.kind not in "biufc" or not outline.dtype.isnative:
        raise bad_type(name, f"device array of dtype {outline.dtype}", "numbers in this machine's byte order")
    size = outline.dtype.itemsize
    if outline.size and (outline.ctypes.data % size or any(stride % size for stride in outline.strides)):
        raise bad_value(
            f"{name}.strides", outline.strides, f"an address and strides that are multiples of {size} bytes"
        )
    return View(outline, value, stream)


def _outline(interface: dict[str, Any]) -> np.ndarray:
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    pointer, is_read_only = interface["data"]
    if 0 in shape:
        return np.empty(shape, dtype)
    described = {
        "shape": shape,
        "typestr": dtype.str,
        "data": (int(pointer), is_read_only),
        "strides": interface.get("strides"),
        "version": 3,
    }
    return np.asarray(SimpleNamespace(__array_interface__=described))


def described(name: str, value: Any) -> View:
    """The view of an array on the device; of one on the host, the array itself, until it is `uploaded`."""
    return view(name, value) if is_on_device(value) else View(as_array(name, value), None)


def uploaded(seen: View, stream: Any) -> View:
    """The same array on the device."""
    if seen.owner is not None:
        return seen
    array = seen.outline
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return fresh(array.shape, array.dtype, stream, np.require(array, requirements=["C", "A"]))


def fresh(shape: tuple[int, ...], dtype: np.dtype, stream: Any, content: np.ndarray | None = None) -> View:
    """A new array of Numba's, with this content if there is one."""
    if is_simulated():
        from fastdil.cuda.simulated import DeviceArray

        return view("new array", DeviceArray(np.empty(shape, dtype) if content is None else content.copy()))
    if content is not None and content.size:
        return view("new array", cuda.to_device(content, stream=stream))
    return view("new array", cuda.device_array(shape, dtype, stream=stream))


def downloaded(seen: View, stream: Any) -> np.ndarray:
    """An array of Numba's on the host: here the host waits for the stream."""
    host = seen.owner.copy_to_host(stream=stream)
    stream.synchronize()
    return host


def flat(seen: View) -> tuple[Any, tuple[int, ...], int]:
    """What kernels get: the memory that an array spans, flat; strides in elements; the index of its first element."""
    outline = seen.outline
    size = outline.dtype.itemsize
    if not outline.size:  # kernels never read it
        return flat(fresh((1,), outline.dtype, 0))[0], (0,) * outline.ndim, 0
    strides = tuple(stride // size for stride in outline.strides)
    reach = [(n - 1) * stride for n, stride in zip(outline.shape, strides, strict=True)]
    lowest, highest = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    interface = {
        "shape": (highest - lowest + 1,),
        "typestr": outline.dtype.str,
        "data": (outline.ctypes.data + lowest * size, False),
        "strides": None,
        "version": 3,
    }
    if is_simulated():
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        memory = FakeCUDAArray(np.asarray(SimpleNamespace(__array_interface__=interface, owner=seen.owner)))
    else:
        memory = cuda.from_cuda_array_interface(interface, owner=seen.owner, sync=False)
    return memory, strides, -lowest


# ---------------------------------------------------------------------------------------------------------
# libraries
# ---------------------------------------------------------------------------------------------------------


def library_of(value: Any) -> str:
    """The library that an array belongs to, if its own way of allocating is known here: "torch", "cupy" or ""."""
    root = type(value).__module__.partition(".")[0]
    return root if root in ("torch", "cupy") and root in sys.modules else ""


def allocated_like(value: Any, shape: tuple[int, ...], dtype: np.dtype, stream: Any) -> Any:
    """A new array of the same kind, for use on `stream`: from PyTorch's or CuPy's memory pool, or one of Numba's."""
    library, handle = library_of(value), _handle(stream)
    if library == "torch":
        torch = sys.modules["torch"]
        is_current = torch.cuda.current_stream(value.device).cuda_stream == handle
        # A pool hands memory out again in the order of the stream on which it was asked for.
        with nullcontext() if is_current else torch.cuda.stream(torch.cuda.ExternalStream(handle, device=value.device)):
            return torch.empty(shape, dtype=getattr(torch, dtype.name), device=value.device)
    if library == "cupy":
        cupy = sys.modules["cupy"]
        is_current = cupy.cuda.get_current_stream().ptr == handle
        with nullcontext() if is_current else cupy.cuda.ExternalStream(handle):
            return cupy.empty(shape, dtype)
    return fresh(shape, dtype, stream).owner


def device_of(value: Any) -> AbstractContextManager:
    """Makes the GPU that an array lives on the current one, where its library says which it is."""
    attribute = {"torch": "index", "cupy": "id"}.get(library_of(value))
    return nullcontext() if attribute is None or is_simulated() else cuda.gpus[getattr(value.device, attribute)]


# ---------------------------------------------------------------------------------------------------------
# streams
# ---------------------------------------------------------------------------------------------------------


def stream_for(stream: Any, x: Any) -> Any:
    """The stream to queue work on: the one given, else the current one of the library that `x` belongs to.

    `stream` is a Numba stream, a handle, or an object that has one as ``cuda_stream`` (PyTorch) or ``ptr`` (CuPy).
    """
    if stream is None:
        if library_of(x) == "torch":
            stream = sys.modules["torch"].cuda.current_stream(x.device).cuda_stream
        elif is_on_device(x):
            stream = x.__cuda_array_interface__.get("stream")
    for attribute in ("cuda_stream", "ptr"):
        stream = getattr(stream, attribute, stream)
    if stream is None:
        return cuda.default_stream() if not is_simulated() else cuda.stream()
    if isinstance(stream, bool) or not (isinstance(stream, int) or hasattr(stream, "synchronize")):
        raise bad_type("stream", stream, "a CUDA stream, its handle or None")
    if not isinstance(stream, int):
        return stream
    if stream < 0:
        raise bad_value("stream", stream, "a CUDA stream, its handle or None")
    if is_simulated():
        return cuda.stream()
    named = {0: cuda.default_stream, _LEGACY: cuda.legacy_default_stream, _PER_THREAD: cuda.per_thread_default_stream}
    return named[stream]() if stream in named else cuda.external_stream(stream)


def wait_for(views: list[View], stream: Any) -> None:
    """Order `stream` after the pending work of arrays that name another one, on the device: the host does not wait."""
    for number in {seen.stream for seen in views} - {None}:
        producer = stream_for(number, None)
        if is_simulated() or _handle(producer) == _handle(stream):
            continue
        event = cuda.event(timing=False)
        event.record(producer)
        event.wait(stream)


def _handle(stream: Any) -> int:
    handle = getattr(stream, "handle", None)
    number = int(getattr(handle, "value", handle) or 0)
    return 0 if number == _LEGACY else number  # two names of one stream
