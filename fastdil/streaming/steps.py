"""Short chunks of a stream: packed weights, tables and scratch memory for `fastdil.kernels.stream`."""

from __future__ import annotations

import numpy as np

from fastdil.addresses import address_of
from fastdil.algorithms import chains
from fastdil.algorithms.compiled import activation_address, element_kind
from fastdil.hardware import machine
from fastdil.kernels import stream
from fastdil.kernels.driver import serial_driver
from fastdil.kernels.geometry import lanes_of
from fastdil.problem import Problem

#: Shorter chunks never go to the engine.
ENGINE_LEAST = 16


class Steps:
    """One convolution, prepared for short chunks."""

    def __init__(self, problem: Problem, method: str, w: np.ndarray, bias: np.ndarray | None):
        self._problem = problem
        kind, vector_bytes, unit = element_kind(problem), machine().vector_bytes, problem.unit
        lanes, self._real = lanes_of(kind, vector_bytes), np.dtype(f"{kind[0]}{int(kind[1:]) // 8}")
        rows = problem.group_out * unit
        self._width = stream.tile_width(rows, vector_bytes, unit, lanes)
        self._blocks = -(-rows // (self._width * lanes))
        listed = list(chains.ORDERS[method](problem.group_in, problem.taps))
        self._weights, self._shift = self._packed(w, bias, listed, self._width * lanes)
        self._params = np.zeros(stream.FIELDS, np.int64)
        self._kept = self._set_tables(listed)
        self._params_at = self._params.ctypes.data
        kernels = [stream.stream_kernel(kind, vector_bytes, unit, n, self._width) for n in (1, stream.CHUNK_PIXELS)]
        self._single, self._several = (kernel.address for kernel in kernels)
        self._drive = serial_driver()
        # Nanoseconds, rough: both ways give the same bits. Packing of a term, a multiply-add; one call of the engine.
        vectors = problem.groups * problem.terms * self._blocks * self._width
        self._step_cost = 50 + 0.4 * unit * problem.groups * problem.terms + 0.25 * unit * vectors
        self._engine_cost = 0.04 * unit * unit * problem.out_channels * problem.terms / (lanes / 16)

    def prefers_engine(self, count: int, batch: int, history: int) -> bool:
        """Whether a chunk of `ENGINE_LEAST` or more samples is better given to the engine, beside its history."""
        copied = batch * self._problem.in_channels * (2 * history + count)
        return batch * count * (self._step_cost - self._engine_cost) > 20_000 + copied

    def _packed(self, w: np.ndarray, bias: np.ndarray | None, listed: list, block: int) -> tuple:
        """Weights as ``[group][block][term][row]``, and the bias in the same blocks (complex: as it is).

        A block of complex outputs is its real parts, then its imaginary parts.
        """
        problem, unit = self._problem, self._problem.unit
        terms = np.array([term for chain in listed for term in chain.terms])
        ordered = w.reshape(problem.groups, problem.group_out, *w.shape[1:])[:, :, terms[:, 1], terms[:, 0]]
        outputs = self._blocks * block // unit
        padded = np.zeros((problem.groups, outputs, len(terms)), w.dtype)
        padded[:, : problem.group_out] = ordered
        blocks = padded.reshape(problem.groups, self._blocks, block // unit, len(terms)).swapaxes(2, 3)
        if unit == 2:
            shift = None if bias is None else bias.view(self._real)
            return np.concatenate((blocks.real, blocks.imag), axis=3).astype(self._real, order="C"), shift
        shift = np.zeros((problem.groups, outputs), self._real)
        if bias is not None:
            shift[:, : problem.group_out] = bias.view(self._real).reshape(problem.groups, problem.group_out)
        return np.ascontiguousarray(blocks).view(self._real), shift

    def _set_tables(self, listed: list) -> tuple[np.ndarray, ...]:
        """Fill in the parameters; returns the arrays whose addresses they hold."""
        problem, params, unit, size = self._problem, self._params, self._problem.unit, self._real.itemsize
        runs = chains.runs(listed)
        table = [(len(chain.terms), int(chain.resume), chain.merge) for chain in listed]
        chain_table = np.array(table, np.int64)
        rows, terms = stream.CHUNK_PIXELS * unit, sum(count for count, _, _ in table)
        tile = self._weights.shape[-1] * rows * size
        ones = np.ones(rows, self._real)
        panel, places = np.empty(terms * rows, self._real), np.empty(problem.taps, np.int64)
        sums, row = np.empty(3 * tile, np.uint8), np.empty(self._weights.shape[-1] * size, np.uint8)
        params[stream.TAPS], params[stream.DILATION] = problem.taps, problem.dilation[2]
        params[stream.GROUPS], params[stream.CHANNELS] = problem.groups, problem.in_channels
        params[stream.GROUP_IN], params[stream.GROUP_OUT] = problem.group_in, problem.group_out
        params[stream.TERMS], params[stream.RUNS], params[stream.CHAINS] = terms, len(runs), len(listed)
        params[stream.IS_LONG] = int(any(chain.merge >= 0 for chain in listed))
        params[stream.BLOCKS], params[stream.RELU] = self._blocks, int(problem.activation == "relu")
        params[stream.ACTIVATE] = activation_address(problem)
        arrays = (runs, chain_table, self._weights, ones, panel, places, sums, row)
        fields = (
            stream.RUN_TABLE, stream.CHAIN_TABLE, stream.WEIGHTS, stream.ONES, stream.PANEL, stream.PLACES,
            stream.TILE, stream.ROW,
        )  # fmt: skip
        for field, array in zip(fields, arrays, strict=True):
            params[field] = array.ctypes.data
        params[stream.BIAS] = 0 if self._shift is None else self._shift.ctypes.data
        return arrays

    def attach(self, ring: np.ndarray, history: int) -> None:
        """Work on this ring, ``(N, positions, C)``, from its start."""
        params = self._params
        params[stream.RING], params[stream.POSITION] = ring.ctypes.data, 0
        params[stream.BATCH], params[stream.RING_LENGTH] = ring.shape[:2]

    @property
    def position(self) -> int:
        """Where in the ring the next sample goes."""
        return int(self._params[stream.POSITION])

    @position.setter
    def position(self, value: int) -> None:
        self._params[stream.POSITION] = value

    def set_strides(self, x: tuple[int, ...], y: tuple[int, ...]) -> None:
        """Layout of the next chunks and results."""
        self._params[stream.XN : stream.XL + 1] = (0, *x)[-3:]
        self._params[stream.YN : stream.YL + 1] = (0, *y)[-3:]

    def run(self, x: np.ndarray, y: np.ndarray, count: int) -> None:
        """The chunk `x` into `y`, through the ring."""
        kernel = self._single if count == 1 else self._several
        pieces = -(-count // stream.PIECE)
        self._drive(kernel, self._params_at, address_of(x), count, 0, address_of(y), 0, pieces)
