"""Streams beside other ways to filter samples as they arrive: rows of `benchmarks.pipelines`.

One call takes one block and returns its outputs; every candidate keeps the past that it needs from block to block.

- ``fastdil``: `fastdil.Stream.process` with ``out=``, or `fastdil.StreamStack.process`.
- ``lfilter``: `scipy.signal.lfilter` with its state, on taps stuffed with zeros. One channel only.
- ``oaconvolve``: `scipy.signal.oaconvolve` of history and block side by side. One channel only.
- ``torch``: for blocks, `conv1d` of history and block side by side; for single samples, a queue of past samples per
  layer and matrix products ("Fast WaveNet", Le Paine et al. 2016).
- ``numpy``: the same queues in NumPy. Single samples only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import peers
from benchmarks.checked import Checked

Call = Callable[[np.ndarray], np.ndarray]
#: Blocks that every candidate must filter rightly before it is timed.
_CHECKED = 40
#: Rounding errors pass up to so many eps of the largest sum of ``|w| |x|``; wrong samples are off by far more.
_LIMIT = 100.0


@dataclass(frozen=True)
class Layer:
    """One causal convolution, fed with blocks of `samples`."""

    name: str
    channels: int
    outputs: int
    taps: int
    dilation: int
    samples: int

    @property
    def reach(self) -> int:
        """Samples of the past that a block needs."""
        return (self.taps - 1) * self.dilation


@dataclass(frozen=True)
class WaveNet:
    """Gated residual layers with dilations 1, 2, 4, ..., fed with single samples."""

    name: str
    layers: int
    channels: int
    gate: int
    skip: int
    samples: int = 1


ROWS: dict[str, Layer | WaveNet] = {
    row.name: row
    for row in (
        Layer("stream_fir_k64_d8", 1, 1, 64, 8, 480),  # 10 ms at 48 kHz
        Layer("stream_wavenet_10ms", 64, 128, 2, 16, 160),  # 10 ms at 16 kHz
        Layer("stream_wavenet_d1", 64, 128, 2, 1, 1),
        Layer("stream_wavenet_d512", 64, 128, 2, 512, 1),
        WaveNet("stack_wavenet_10", 10, 32, 32, 64),
    )
}


def calls(name: str, threads: int, dtype: str = "float32") -> dict[str, Checked]:
    """The candidates of a row that are installed, as functions without arguments; errors are in eps max A."""
    row = ROWS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((row.channels, _CHECKED * row.samples)).astype(dtype)
    if isinstance(row, WaveNet):
        made, expected, scale = _stacks(row, rng, dtype, threads, x)
    else:
        w = rng.standard_normal((row.outputs, row.channels, row.taps)).astype(dtype)
        made = {"fastdil": _stream(row, w, threads), **_layer_peers(row, w, threads)}
        expected, scale = _convolved(row, w, x), float(np.abs(_convolved(row, np.abs(w), np.abs(x))).max())
    blocks = [np.ascontiguousarray(block) for block in np.split(x, _CHECKED, axis=1)]
    result = {}
    for candidate, call in made.items():
        y = np.concatenate([call(block).copy() for block in blocks], axis=1)
        error = float(np.max(np.abs(y - expected))) / (float(np.finfo(dtype).eps) * scale)
        assert error <= _LIMIT, f"{name}: {candidate} is wrong, {error:.3g} eps max A"
        result[candidate] = Checked(lambda call=call: call(blocks[0]), f"{error:.2g}")
    return result


# ---------------------------------------------------------------------------------------------------------
# one layer
# ---------------------------------------------------------------------------------------------------------


def _convolved(row: Layer, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The whole signal at once, in double precision: one matrix product per tap."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (row.reach, 0)))
    count = x.shape[1]
    return sum(w[:, :, a].astype(np.float64) @ padded[:, a * row.dilation :][:, :count] for a in range(row.taps))


def _stream(row: Layer, w: np.ndarray, threads: int) -> Call:
    import fastdil

    stream = fastdil.Stream(w, dilation=row.dilation, threads=threads)
    out = np.empty((row.outputs, row.samples), w.dtype)
    return lambda block: stream.process(block, out=out)


def _layer_peers(row: Layer, w: np.ndarray, threads: int) -> dict[str, Call]:
    made: dict[str, Call] = {}
    if row.channels == row.outputs == 1:
        made |= {"lfilter": _lfilter(row, w), "oaconvolve": _oaconvolve(row, w)}
    if row.samples == 1:
        made["numpy"] = _queue(row, w, np)
    if peers.BY_NAME["torch"].available():
        made["torch"] = _torch_queue(row, w, threads) if row.samples == 1 else _torch_blocks(row, w, threads)
    return made


def _lfilter(row: Layer, w: np.ndarray) -> Call:
    from scipy.signal import lfilter

    taps = peers.stuffed(w[0, 0], row.dilation)[::-1].copy()
    state = np.zeros(row.reach, w.dtype)

    def call(block: np.ndarray) -> np.ndarray:
        nonlocal state
        y, state = lfilter(taps, np.ones(1, w.dtype), block[0], zi=state)
        return y[None]

    return call


def _oaconvolve(row: Layer, w: np.ndarray) -> Call:
    from scipy.signal import oaconvolve

    taps = peers.stuffed(w[0, 0], row.dilation)[::-1].copy()
    past = np.zeros(row.reach, w.dtype)

    def call(block: np.ndarray) -> np.ndarray:
        nonlocal past
        joined = np.concatenate((past, block[0]))
        past = joined[-row.reach :]
        return oaconvolve(joined, taps, "valid")[None]

    return call


def _torch(threads: int):
    torch = peers.load("torch")
    torch.set_num_threads(threads)
    return torch


def _torch_blocks(row: Layer, w: np.ndarray, threads: int) -> Call:
    torch = _torch(threads)
    weights, past = torch.from_numpy(w), torch.zeros(1, row.channels, row.reach, dtype=torch.from_numpy(w).dtype)

    def call(block: np.ndarray) -> np.ndarray:
        nonlocal past
        with torch.inference_mode():
            joined = torch.cat((past, torch.from_numpy(block)[None]), 2)
            past = joined[:, :, -row.reach :]
            return torch.nn.functional.conv1d(joined, weights, dilation=row.dilation)[0].numpy()

    return call


def _torch_queue(row: Layer, w: np.ndarray, threads: int) -> Call:
    torch = _torch(threads)
    step = _queue(row, torch.from_numpy(w), torch)

    def call(block: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return step(torch.from_numpy(block)).numpy()

    return call


def _queue(row: Layer, w, library) -> Call:
    """The last samples in a ring; a step multiplies those `dilation` apart with one matrix. NumPy and torch alike."""
    length = row.reach + 1
    matrix = w.swapaxes(1, 2).reshape(row.outputs, -1)
    ring = library.zeros((length, row.channels), dtype=w.dtype)
    places = [library.asarray([(at + 1 + a * row.dilation) % length for a in range(row.taps)]) for at in range(length)]
    time = 0

    def call(block):
        nonlocal time
        ring[time] = block[:, 0]
        y = matrix @ ring[places[time]].reshape(-1, 1)
        time = (time + 1) % length
        return y

    return call


# ---------------------------------------------------------------------------------------------------------
# a stack
# ---------------------------------------------------------------------------------------------------------

Weights = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _stacks(row: WaveNet, rng: np.random.Generator, dtype: str, threads: int, x: np.ndarray) -> tuple:
    """Candidates, the result of the whole signal in double precision, and its scale."""
    shapes = ((2 * row.gate, row.channels, 2), (row.channels, row.gate, 1), (row.skip, row.gate, 1))
    weights: Weights = [
        tuple((rng.standard_normal(s) / np.sqrt(s[1] * s[2])).astype(dtype) for s in shapes)  # type: ignore[misc]
        for _ in range(row.layers)
    ]
    made = {"fastdil": _stack(row, weights, threads), "numpy": _stack_queues(row, weights, np)}
    if peers.BY_NAME["torch"].available():
        torch = _torch(threads)
        step = _stack_queues(row, [tuple(map(torch.from_numpy, layer)) for layer in weights], torch)

        def call(block: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return step(torch.from_numpy(block)).numpy()

        made["torch"] = call
    expected = _stacked(row, weights, x.astype(np.float64))
    return made, expected, row.layers * float(np.abs(expected).max())


def _stacked(row: WaveNet, weights: Weights, x: np.ndarray) -> np.ndarray:
    """The whole signal, layer by layer."""
    total = np.zeros((row.skip, x.shape[1]))
    for layer, (w, mix, skip) in enumerate(weights):
        before = np.pad(x, ((0, 0), (2**layer, 0)))[:, : x.shape[1]]
        f = w[:, :, 0].astype(float) @ before + w[:, :, 1].astype(float) @ x
        z = np.tanh(f[: row.gate]) / (1 + np.exp(-f[row.gate :]))
        total, x = total + skip[:, :, 0].astype(float) @ z, x + mix[:, :, 0].astype(float) @ z
    return total


def _stack(row: WaveNet, weights: Weights, threads: int) -> Call:
    import fastdil

    def stream(w: np.ndarray, dilation: int = 1) -> fastdil.Stream:
        return fastdil.Stream(w, dilation=dilation, threads=threads)

    blocks = [
        fastdil.StreamBlock(stream(w, 2**layer), gated=True, mix=stream(mix), skip=stream(skip))
        for layer, (w, mix, skip) in enumerate(weights)
    ]
    return fastdil.StreamStack(blocks).process


def _stack_queues(row: WaveNet, weights, library) -> Call:
    """One queue per layer; NumPy and torch alike."""
    parts = [(w[:, :, 0], w[:, :, 1], mix[:, :, 0], skip[:, :, 0]) for w, mix, skip in weights]
    parts = [tuple(a + 0 for a in layer) for layer in parts]  # copies, contiguous
    queues = [library.zeros((2**layer, row.channels), dtype=parts[0][0].dtype) for layer in range(row.layers)]
    tanh, half, time = library.tanh, row.gate, 0

    def call(block):
        nonlocal time
        x, total = block[:, 0], 0
        for queue, (old, new, mix, skip) in zip(queues, parts, strict=True):
            at = time % len(queue)
            f = old @ queue[at] + new @ x
            queue[at] = x
            z = tanh(f[:half]) * (0.5 + 0.5 * tanh(0.5 * f[half:]))
            total, x = total + skip @ z, x + mix @ z
        time += 1
        return total[:, None]

    return call
