"""asv: a stream's step of one sample and its chunks, beside the multiplications alone (NumPy's matrix product)."""

from __future__ import annotations

import numpy as np

import fastdil

#: channels, outputs, taps, dilation
_LAYERS = {
    "filter_k16": (1, 1, 16, 1),
    "wavenet_64_128_d1": (64, 128, 2, 1),
    "wavenet_64_128_d512": (64, 128, 2, 512),
    "tcn_256_k3": (256, 256, 3, 1),
}


class Steps:
    """One call with so many samples; `matmul` multiplies matrices of the same sizes and keeps no state."""

    params = (list(_LAYERS), [1, 16, 1024], ["stream", "matmul"])
    param_names = ("layer", "samples", "implementation")

    def setup(self, layer: str, samples: int, implementation: str) -> None:
        """Prepare, compile and check."""
        channels, outputs, taps, dilation = _LAYERS[layer]
        rng = np.random.default_rng(0)
        w = rng.standard_normal((outputs, channels, taps)).astype(np.float32)
        x = rng.standard_normal((channels, samples)).astype(np.float32)
        out = np.empty((outputs, samples), np.float32)
        if implementation == "matmul":
            matrix, columns = w.reshape(outputs, -1), np.repeat(x, taps, axis=0)
            self.call = lambda: np.matmul(matrix, columns, out=out)
            return
        stream = fastdil.Stream(w, dilation=dilation)
        expected = fastdil.conv1d(x, w, dilation=dilation, padding="causal", method=stream.method)
        if not np.array_equal(stream.process(x), expected):
            raise AssertionError(f"{layer}: the stream differs from one call")
        self.call = lambda: stream.process(x, out=out)

    def time_call(self, layer: str, samples: int, implementation: str) -> None:
        """One call."""
        self.call()


class Stack:
    """One sample through ten gated residual layers, dilations 1 to 512."""

    def setup(self) -> None:
        """Build the stack and compile."""
        rng = np.random.default_rng(0)

        def stream(outputs: int, channels: int, taps: int, dilation: int = 1) -> fastdil.Stream:
            w = rng.standard_normal((outputs, channels, taps)) / np.sqrt(channels * taps)
            return fastdil.Stream(w.astype(np.float32), dilation=dilation)

        blocks = [
            fastdil.StreamBlock(stream(64, 32, 2, 2**i), gated=True, mix=stream(32, 32, 1), skip=stream(64, 32, 1))
            for i in range(10)
        ]
        self.stack, self.x = fastdil.StreamStack(blocks), rng.standard_normal((32, 1)).astype(np.float32)
        self.stack.process(self.x)

    def time_sample(self) -> None:
        """One sample."""
        self.stack.process(self.x)
