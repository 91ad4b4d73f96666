"""Adapters to other libraries: one small class each, listed in `PEERS`. None of them has to be installed.

Every adapter does the same: `prepare` makes sessions, models and zero-stuffed kernels outside the timed body
and returns a function without arguments. One call of it starts from the given input and ends with a result
that NumPy can read. Weights are known in advance to every library that can make use of that.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.workloads import Workload

Run = Callable[[], np.ndarray]


def load(name: str) -> ModuleType:
    """Import a peer, without the warnings about its own dependencies: tests would take them for errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


class Peer:
    """What the adapters share. `name` is what users type, `modules` what has to be importable."""

    name: str
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    dtypes: tuple[str, ...] = ("float32", "float64")
    #: Has been seen to end the process instead of raising, so a child tries each workload first.
    fragile: bool = False

    @staticmethod
    def reads(result: np.ndarray) -> np.ndarray:
        """The result as numbers, where its memory holds something else; not timed."""
        return result

    def available(self) -> bool:
        """True if it is installed. Imports nothing."""
        return all(importlib.util.find_spec(module) is not None for module in self.modules)

    def version(self) -> str:
        """Version of the first of its distributions that is installed."""
        for distribution in self.distributions:
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return "unknown"

    def supports(self, workload: Workload, dtype: str) -> str | None:
        """None, or the reason why it cannot be asked."""
        if self.name not in workload.peers:
            return f"{self.name} has no such operation"
        if dtype not in self.dtypes:
            return f"{self.name} computes in {' or '.join(self.dtypes)}"
        return None

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        """The timed body for this workload."""
        raise NotImplementedError


class Torch(Peer):
    """PyTorch on CPU: oneDNN for float32, its own code for float64."""

    name = "torch"
    modules = ("torch",)
    distributions = ("torch",)

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        torch = load("torch")
        torch.set_num_threads(threads)
        conv = getattr(torch.nn.functional, f"conv{workload.rank}d")
        x_tensor, w_tensor = torch.from_numpy(x), torch.from_numpy(w)
        call = functools.partial(conv, x_tensor, w_tensor, None, **workload.spec)

        def run() -> np.ndarray:
            with torch.inference_mode():
                return call().numpy()

        return run


class OnnxRuntime(Peer):
    """ONNX Runtime's CPU provider: a model of one Conv node with constant weights."""

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")
    distributions = ("onnxruntime",)
    dtypes = ("float32",)

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        onnxruntime = load("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(self._model(workload, w), options, providers=["CPUExecutionProvider"])
        feed = {"x": x}
        return lambda: session.run(None, feed)[0]

    def _model(self, workload: Workload, w: np.ndarray) -> bytes:
        onnx = load("onnx")
        helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
        rank = workload.rank
        node = helper.make_node(
            "Conv",
            ["x", "w"],
            ["y"],
            pads=[workload.padding] * (2 * rank),
            dilations=[workload.dilation] * rank,
            strides=[workload.stride] * rank,
            group=workload.groups,
        )
        graph = helper.make_graph(
            [node],
            workload.name,
            [helper.make_tensor_value_info("x", float32, workload.x_shape)],
            [helper.make_tensor_value_info("y", float32, workload.out_shape)],
            [onnx.numpy_helper.from_array(w, "w")],
        )
        # Old enough for every runtime of the last years, and all that Conv needs.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return model.SerializeToString()


class OpenVino(Peer):
    """OpenVINO's CPU plugin, held to float32 (it would use bfloat16 where the machine has it)."""

    name = "openvino"
    modules = ("openvino",)
    distributions = ("openvino",)
    dtypes = ("float32",)
    hint = "f32"

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        openvino, opset = load("openvino"), load("openvino.opset13")
        rank, pads = workload.rank, [workload.padding] * workload.rank
        data = opset.parameter(list(workload.x_shape), np.float32)
        shared = ([workload.stride] * rank, pads, pads, [workload.dilation] * rank)
        if workload.groups == 1:
            node = opset.convolution(data, opset.constant(w), *shared)
        else:
            grouped = w.reshape(workload.groups, -1, *w.shape[1:])
            node = opset.group_convolution(data, opset.constant(grouped), *shared)
        settings = {
            "INFERENCE_PRECISION_HINT": self.hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned threads would inherit or pass on a mask that the other candidates do not have.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = openvino.Core().compile_model(openvino.Model([node], [data]), "CPU", settings)
        request = compiled.create_infer_request()
        return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


class Jax(Peer):
    """JAX on CPU: `jax.lax.conv_general_dilated`, compiled. Its pool has one thread per granted core."""

    name = "jax"
    modules = ("jax",)
    distributions = ("jax",)
    fragile = True  # jaxlib 0.10.2: segmentation fault on one float64 channel of 2048 x 2048, with any dilation

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        jax = load("jax")
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        rank = workload.rank
        call = functools.partial(
            jax.lax.conv_general_dilated,
            window_strides=(workload.stride,) * rank,
            padding=[(workload.padding, workload.padding)] * rank,
            rhs_dilation=(workload.dilation,) * rank,
            feature_group_count=workload.groups,
        )
        compiled = jax.jit(call)
        x_array, w_array = jax.device_put(x), jax.device_put(w)
        return lambda: np.asarray(compiled(x_array, w_array).block_until_ready())


def stuffed(taps: np.ndarray, dilation: int) -> np.ndarray:
    """Taps with zeros between them: what a library without dilation has to be given.

    >>> stuffed(np.array([1, 2, 3]), 2)
    array([1, 0, 2, 0, 3])
    """
    dense = np.zeros([(k - 1) * dilation + 1 for k in taps.shape], taps.dtype)
    dense[(slice(None, None, dilation),) * taps.ndim] = taps
    return dense


class OpenCv(Peer):
    """OpenCV's `filter2D` (correlation; direct sums for small kernels, a DFT for large ones)."""

    name = "cv2"
    modules = ("cv2",)
    distributions = ("opencv-python-headless", "opencv-python", "opencv-contrib-python")

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        cv2 = load("cv2")
        cv2.setNumThreads(threads)
        image, kernel = x[0, 0], stuffed(w[0, 0], workload.dilation)
        centre = (-1, -1)
        return lambda: cv2.filter2D(image, -1, kernel, None, centre, 0, cv2.BORDER_CONSTANT)[None, None]


class _SciPy(Peer):
    """SciPy convolves, so the taps are flipped beforehand. "same" for images, "valid" for signals."""

    modules = ("scipy",)
    distributions = ("scipy",)

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        signal, fft = load("scipy.signal"), load("scipy.fft")
        call = getattr(signal, self.name)
        samples, kernel = x[0, 0], np.flip(stuffed(w[0, 0], workload.dilation)).copy()
        mode = "same" if workload.padding else "valid"

        def run() -> np.ndarray:
            with fft.set_workers(threads):
                return call(samples, kernel, mode)[None, None]

        return run


class FftConvolve(_SciPy):
    """One transform of the whole input."""

    name = "fftconvolve"


class OaConvolve(_SciPy):
    """Overlap-add in blocks."""

    name = "oaconvolve"


class NumPy(Peer):
    """`np.convolve`: one thread, one axis; asked for small signals only."""

    name = "numpy"
    modules = ("numpy",)
    distributions = ("numpy",)

    def supports(self, workload: Workload, dtype: str) -> str | None:
        if not (workload.is_plane and workload.rank == 1):
            return "numpy convolves single signals only"
        return super().supports(workload, dtype)

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        samples, kernel = x[0, 0], stuffed(w[0, 0], workload.dilation)[::-1].copy()
        return lambda: np.convolve(samples, kernel, "valid")[None, None]


#: Registered once: the comparison, the asv suite and the tests take their peers from here.
PEERS: tuple[Peer, ...] = (
    Torch(),
    OnnxRuntime(),
    OpenVino(),
    Jax(),
    OpenCv(),
    FftConvolve(),
    OaConvolve(),
    NumPy(),
)
BY_NAME = {peer.name: peer for peer in PEERS}


def crashes(peer: Peer, workload: Workload, dtype: str, threads: int) -> bool:
    """Whether a child that runs this once is ended by a signal. An exception is no crash: it can be caught."""
    code = f"""
from benchmarks.peers import BY_NAME
from benchmarks.workloads import Workload, make_arrays
workload = {workload!r}
BY_NAME[{peer.name!r}].prepare(workload, *make_arrays(workload, {dtype!r}), {threads})()
"""
    root = Path(__file__).resolve().parents[1]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True).returncode < 0


def installed() -> list[Peer]:
    """The peers that can be imported here."""
    return [peer for peer in PEERS if peer.available()]
