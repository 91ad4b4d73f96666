"""Arrays of the GPU path: whose they are, how they lie, which stream they wait for; a pytest file as `child_cuda`."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from types import ModuleType, SimpleNamespace

import naive
import numpy as np
import pytest
from checks import assert_within
from child_cuda import LIMITS, METHODS, data
from grid import Case

import fastdil
import fastdil.cuda
from fastdil.cuda import arrays
from fastdil.cuda.availability import is_simulated
from fastdil.dtypes import as_dtype


class OnDevice:
    """An array of a library that fastdil does not know: all it offers is the CUDA array interface."""

    def __init__(self, array: np.ndarray, stream: int | None = None, is_read_only: bool = False):
        if is_simulated():
            self.owner, where = array, array.ctypes.data
        else:
            from numba import cuda

            lowest, highest = np.lib.array_utils.byte_bounds(array)
            self.owner = cuda.to_device(np.frombuffer(ctypes.string_at(lowest, highest - lowest), np.uint8))
            where = self.owner.__cuda_array_interface__["data"][0] + array.ctypes.data - lowest
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "strides": array.strides,
            "data": (where, is_read_only),
            "version": 3,
            "stream": stream,
        }


# ---------------------------------------------------------------------------------------------------------
# arrays
# ---------------------------------------------------------------------------------------------------------


def layouts(array: np.ndarray) -> list[np.ndarray]:
    """The same elements, laid out differently."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1] + 3), array.dtype)
    wide[..., 3::2] = array
    last = np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return [array, wide[..., 3::2], np.moveaxis(last, -1, 1), np.ascontiguousarray(array[..., ::-1])[..., ::-1]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", range(4))
def test_strides(layout, method):
    case = Case("strides", (2, 3, 5, 8), (3, 3, 2, 3), padding=2, dilation=2)
    x, w, bias = data(case, np.float32)
    words = {**case.args, "precision": "high" if method == "tensor" else "highest", "method": method}
    y = fastdil.cuda.conv2d(OnDevice(layouts(x)[layout]), OnDevice(layouts(w)[layout]), bias, **words)
    limit = LIMITS["high"] * naive.magnitude(x, w, bias, **case.args)
    limit = limit if method == "tensor" else naive.bound(np.float32, x, w, bias, **case.args)
    assert_within(y.copy_to_host(), naive.conv(x, w, bias, **case.args), limit)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_out(dtype):
    case = Case("out", (2, 2, 5, 8), (3, 2, 2, 3), padding=2, dilation=2)
    x, w, _ = data(case, dtype)
    truth = fastdil.cuda.conv(x, w, **case.args)
    host = np.zeros((*truth.shape, 2), dtype)[..., 1]
    assert fastdil.cuda.conv(x, w, out=host, **case.args) is host
    np.testing.assert_array_equal(host, truth)
    if is_simulated():  # this stand-in for a library's array has no way back from a GPU
        frame = np.full((truth.shape[0], truth.shape[2], truth.shape[3], truth.shape[1] + 1), 7, dtype)
        target = OnDevice(np.moveaxis(frame[..., 1:], -1, 1))
        assert fastdil.cuda.conv(OnDevice(x), w, out=target, **case.args) is target
        np.testing.assert_array_equal(target.array, truth)
        assert (frame[..., 0] == 7).all()


def test_bad_input_is_refused_before_anything_is_written():
    x, w = np.ones((1, 2, 9), np.float32), np.ones((3, 2, 3), np.float32)
    out = np.full((1, 3, 7), 5, np.float32)
    conv1d, big = fastdil.cuda.conv1d, np.ones((1, 3, 7), np.float64)
    for error, words, args in (
        (ValueError, "w.shape", (x, np.ones((3, 2)))),
        (ValueError, "x.shape", (np.ones((1, 3, 9), np.float32), w)),
        (ValueError, "bias.shape", (x, w, np.ones(2))),
        (TypeError, "dtype", (x, w.astype(object))),
        (TypeError, "dtype='bfloat16': expected another dtype", (x, w.astype(as_dtype("bfloat16")))),
        (TypeError, "dtype", (OnDevice(x.astype(">f4")), w)),
    ):
        with pytest.raises(error, match=re.escape(words)):
            conv1d(*args, out=out)
    for error, words, settings in (
        (ValueError, "stride=0", {"stride": 0}),
        (ValueError, "method='fft'", {"method": "fft"}),
        (ValueError, "threads=0", {"threads": 0}),
        (TypeError, "stream='a'", {"stream": "a"}),
        (ValueError, "stream=-3", {"stream": -3}),
        (ValueError, "padding_mode", {"padding_mode": "odd"}),
    ):
        with pytest.raises(error, match=words):
            conv1d(x, w, out=out, **settings)
    assert (out == 5).all()
    given = OnDevice(x)
    for error, words, target in (
        (ValueError, "out.shape", OnDevice(out[..., :6].copy())),
        (TypeError, "out.dtype", OnDevice(big)),
        (TypeError, "a device array", out),
        (ValueError, "writeable", OnDevice(out, is_read_only=True)),
    ):
        with pytest.raises(error, match=re.escape(words)):
            conv1d(given, w, out=target)
    with pytest.raises(TypeError, match="a NumPy array, as x is on the host"):
        conv1d(x, w, out=given)
    packed = np.zeros(9, [("a", "u1"), ("b", "f4")])["b"][None, None]
    with pytest.raises(ValueError, match=r"x\.strides.*multiples of 4 bytes"):
        conv1d(OnDevice(packed), w[:, :1])


def test_out_may_not_overlap_on_the_device():
    memory = np.ones((1, 1, 40), np.float32)
    x, w = OnDevice(memory[..., :20]), np.ones((1, 1, 3), np.float32)
    if is_simulated():  # on a GPU the two would be copied to different places
        with pytest.raises(ValueError, match="overlaps"):
            fastdil.cuda.conv1d(x, w, out=OnDevice(memory[..., 10:28]))
        fastdil.cuda.conv1d(x, w, out=OnDevice(memory[..., 20:38]))
        assert (memory[..., 20:38] == 3).all()


# ---------------------------------------------------------------------------------------------------------
# libraries and streams: stand-ins for PyTorch and CuPy, which the simulator cannot run
# ---------------------------------------------------------------------------------------------------------

only_simulated = pytest.mark.skipif(not is_simulated(), reason="the stand-ins live in the host's memory")


class Library:
    """A fake of the parts of PyTorch or CuPy that are used: arrays, a memory pool, a current stream."""

    def __init__(self, name: str, current: int = 0):
        self.allocated: list[tuple[tuple[int, ...], int]] = []  #: shapes, and the stream that was current
        self.current = current
        self.module = ModuleType(name)
        library, handle_name = self, {"torch": "cuda_stream", "cupy": "ptr"}[name]

        class Array(OnDevice):
            __module__ = name
            device = SimpleNamespace(index=0, id=0)

            def __init__(self, array):
                super().__init__(array, library.current if name == "cupy" else None)

        @contextlib.contextmanager
        def switched(stream):
            before, library.current = library.current, getattr(stream, handle_name)
            yield
            library.current = before

        def external(handle, device=None):
            stream = type("Stream", (), {handle_name: handle, "__enter__": None, "__exit__": None})()
            context = switched(stream)
            type(stream).__enter__ = lambda self: context.__enter__()
            type(stream).__exit__ = lambda self, *error: context.__exit__(*error)
            return stream

        def empty(shape, dtype, device=None):
            library.allocated.append((tuple(shape), library.current))
            return Array(np.empty(shape, dtype))

        def current_stream(device=None):
            return SimpleNamespace(**{handle_name: library.current})

        self.Array, self.module.empty = Array, empty
        self.module.cuda = SimpleNamespace(ExternalStream=external, get_current_stream=current_stream)
        self.module.cuda.current_stream = current_stream
        self.module.cuda.stream = switched
        for dtype in ("float16", "float32", "float64", "int8", "int32"):
            setattr(self.module, dtype, np.dtype(dtype))


@pytest.fixture(params=["torch", "cupy"])
def library(request, monkeypatch):
    fake = Library(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake.module)
    return fake


@only_simulated
@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_of_the_inputs_kind_and_from_its_pool(library, method):
    case = Case("pool", (1, 3, 12), (4, 3, 3), padding=2, dilation=2)
    x, w, bias = data(case, np.float32)
    words = {"precision": "high" if method == "tensor" else "highest", "method": method}
    y = fastdil.cuda.conv(library.Array(x), library.Array(w), library.Array(bias), **words, **case.args)
    assert type(y) is library.Array
    limit = LIMITS["high"] * naive.magnitude(x, w, bias, **case.args)
    assert_within(y.array, naive.conv(x, w, bias, **case.args), limit)
    shapes = [shape for shape, _ in library.allocated]
    assert shapes[0] == y.array.shape
    assert len(shapes) == (3 if method in ("gemm", "tensor") else 1)  # packed weights and their marks


@only_simulated
def test_conversions_use_the_pool_too(library):
    x, w = np.ones((1, 2, 9), np.float16), np.ones((3, 2, 3), np.float16)
    y = fastdil.cuda.conv1d(library.Array(x), w, method="reference")
    assert type(y) is library.Array
    assert y.array.dtype == np.float16
    assert (y.array == 6).all()
    assert len(library.allocated) == 4  # the result, and x, w and the result in float32


@pytest.fixture
def numbered_streams(monkeypatch):
    """Numba's ways to make a stream, which the simulator lacks."""
    monkeypatch.setattr(arrays, "is_simulated", lambda: False)
    named = {"default_stream": 0, "legacy_default_stream": 1, "per_thread_default_stream": 2, "external_stream": None}
    for name, own in named.items():

        def made(number=None, own=own):
            return SimpleNamespace(handle=number if own is None else own, synchronize=None)

        monkeypatch.setattr(arrays.cuda, name, made, raising=False)


@only_simulated
def test_work_is_queued_on_the_stream_that_was_asked_for(library, numbered_streams):
    """The given one; else the library's current one. Numbers become Numba streams, and memory comes from their pool."""
    library.current = 70
    x = library.Array(np.ones((1, 1, 9), np.float32))
    assert arrays.stream_for(None, x).handle == 70
    assert arrays.stream_for(80, x).handle == 80
    assert arrays.stream_for(library.module.cuda.current_stream(), x).handle == 70
    assert [arrays.stream_for(number, x).handle for number in (0, 1, 2)] == [0, 1, 2]
    mine = SimpleNamespace(handle=ctypes.c_void_p(90), synchronize=None)
    assert arrays.stream_for(mine, x) is mine
    for number in (70, 80, 90):
        stream = mine if number == 90 else arrays.stream_for(number, x)
        arrays.allocated_like(x, (3,), np.dtype(np.float32), stream)
        assert library.allocated[-1] == ((3,), number)
        assert library.current == 70


@only_simulated
def test_every_kernel_goes_to_the_stream_and_nothing_waits(monkeypatch):
    """One stream object reaches the conversions, the packing and the product; the host never synchronises."""
    from fastdil.cuda.compiled import Kernel

    seen, launch = [], Kernel.launch

    def spy(self, blocks, threads, stream, *args, **words):
        seen.append(stream)
        launch(self, blocks, threads, stream, *args, **words)

    class Stream:
        waits = 0

        def synchronize(self):
            Stream.waits += 1

    monkeypatch.setattr(Kernel, "launch", spy)
    stream, x, w = Stream(), np.ones((1, 9, 20), np.float16), np.ones((9, 9, 3), np.float16)
    y = fastdil.cuda.conv1d(OnDevice(x), OnDevice(w), method="gemm", stream=stream)
    assert (y.copy_to_host() == 27).all()
    assert len(seen) == 5  # two conversions, packing, product, rounding
    assert set(map(id, seen)) == {id(stream)}
    assert Stream.waits == 0
    fastdil.cuda.conv1d(x, w, stream=stream)  # a NumPy result is there when the call returns
    assert Stream.waits == 1


@only_simulated
def test_pending_work_of_other_streams_is_waited_for_on_the_device(monkeypatch, numbered_streams):
    """An event recorded on the producer's stream, for which ours waits: nothing for streams that are the same."""
    log = []

    class Event:
        def record(self, stream):
            log.append(("record", stream.handle))

        def wait(self, stream):
            log.append(("wait", stream.handle))

    monkeypatch.setattr(arrays.cuda, "event", lambda timing: Event())
    views = [arrays.View(np.empty(0), None, number) for number in (None, 5, 7, 5, 1)]
    arrays.wait_for(views, SimpleNamespace(handle=5))
    assert sorted(log) == [("record", 1), ("record", 7), ("wait", 5), ("wait", 5)]
    log.clear()
    arrays.wait_for(views[:1] + views[4:], SimpleNamespace(handle=0))  # 1 and 0 both name the legacy default stream
    assert log == []


@only_simulated
def test_arrays_that_refuse_to_show_their_memory(library):
    """A PyTorch tensor that requires a gradient raises when it is asked for the interface."""

    class Refusing:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("use detach()")

    for function in (fastdil.conv1d, fastdil.cuda.conv1d):
        with pytest.raises(TypeError, match=r"x='Refusing'.*use detach\(\)"):
            function(Refusing(), np.ones((1, 1, 3), np.float32))
    masked = OnDevice(np.ones((1, 1, 9), np.float32))
    masked.__cuda_array_interface__["mask"] = masked
    with pytest.raises(TypeError, match=r"x=.*without a mask"):
        fastdil.cuda.conv1d(masked, np.ones((1, 1, 3), np.float32))


# ---------------------------------------------------------------------------------------------------------
# the functions of fastdil itself
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 1, 2, 3])
def test_fastdil_hands_device_input_over(rank):
    axes = rank or 2
    case = Case("handed", (1, 2, *(4,) * axes), (2, 2, *(2,) * axes), padding=1, dilation=2)
    x, w, bias = data(case, np.float32)
    function = getattr(fastdil, "conv" if rank is None else f"conv{rank}d")
    y = function(OnDevice(x), w, bias, activation="relu", method="direct", **case.args)
    limit = naive.bound(np.float32, x, w, bias, **case.args)
    assert_within(y.copy_to_host(), naive.conv(x, w, bias, activation="relu", **case.args), limit)
    assert function(OnDevice(x), w, out=y, **case.args) is y
    with pytest.raises(ValueError, match=r"method='im2col'.*gemm"):
        function(OnDevice(x), w, method="im2col")
