"""`fastdil.cuda.intrinsics` and `tensor_cores` in plain Python, for Numba's CUDA simulator: same names and meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.cuda.simulator.kernel import _get_kernel_context


def _memory(array: Any) -> np.ndarray:
    """The NumPy array behind a kernel's argument; shared and local arrays are plain ones."""
    return array if type(array) is np.ndarray else array._item._ary


class DeviceArray:
    """Stands for an array on the device: the simulator's own ones do not offer the CUDA array interface."""

    def __init__(self, memory: np.ndarray, stream: int | None = None):
        self.memory = memory
        self.__cuda_array_interface__ = {**memory.__array_interface__, "stream": stream}

    def copy_to_host(self, stream: Any = None) -> np.ndarray:
        return self.memory.copy()


def load(array, index):
    assert index >= 0
    return _memory(array)[index]


def store(array, index, value):
    assert index >= 0
    memory = _memory(array)
    memory[index] = np.asarray(value).astype(memory.dtype)


def store_many(array, index, values):
    _memory(array)[index : index + len(values)] = values


def fill(value, count):
    return (value,) * count


def add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))


def add_exactly(total, error, part):
    sums, errors = [], []
    for s, e, p in zip(total, error, part, strict=True):
        summed = s + p
        added = summed - s
        sums.append(summed)
        errors.append(e + ((s - (summed - added)) + (p - added)))
    return tuple(sums), tuple(errors)


def accumulate(array, index, values):
    _memory(array)[index : index + len(values)] += values


def load_chunks(array, index, step, count):
    memory = _memory(array)
    lanes = 16 // memory.itemsize
    assert index >= 0
    assert index % lanes == step % lanes == 0
    return tuple(memory[index + i * step + lane] for i in range(count) for lane in range(lanes))


def store_chunks(array, index, step, values):
    memory = _memory(array)
    lanes = 16 // memory.itemsize
    assert index % lanes == step % lanes == 0
    for i in range(0, len(values), lanes):
        memory[index : index + lanes] = values[i : i + lanes]
        index += step


def gather(array, index, step, count, limit):
    memory = _memory(array)
    assert limit <= 0 or min(index, index + (min(count, limit) - 1) * step) >= 0
    return tuple(memory[index + i * step] if i < limit else memory.dtype.type(0) for i in range(count))


def scatter(array, index, step, values):
    for i, value in enumerate(values):
        _memory(array)[index + i * step] = value


def shared_array(name: str, count: int, dtype: str) -> Callable:
    def shared():
        memory = _get_kernel_context().shared
        if not count:
            return memory.array(0, np.dtype(dtype))
        fresh = np.full(count, np.nan if dtype.startswith("float") else 0x7F7F, dtype)
        return memory._allocations.setdefault(name, fresh)

    return shared


def _chunks(count: int, jump: int, lanes: int) -> np.ndarray:
    """Positions of `count` elements in chunks of `lanes`, which are `jump` apart."""
    return np.add.outer(jump * np.arange(count // lanes), np.arange(lanes)).ravel()


def tile_product(
    rows: int, columns: int, row_jump: int, column_jump: int, pitch_a: int, pitch_b: int, depth: int
) -> Callable:
    def multiply(sums, a, at_a, b, at_b):
        lanes = 16 // a.itemsize
        assert at_a % lanes == at_b % lanes == pitch_a % lanes == pitch_b % lanes == 0
        left, right = at_a + _chunks(rows, row_jump, lanes), at_b + _chunks(columns, column_jump, lanes)
        results = np.array(sums).reshape(rows, columns)
        for line in range(depth):
            results += np.outer(a[left + line * pitch_a], b[right + line * pitch_b])
        return tuple(results.ravel())

    return multiply


def correlation(outputs: int, rows: int, taps: int, stride: int, weight_pitch: int) -> Callable:
    def multiply(sums, samples, at, step, weights, at_w):
        lanes = 16 // weights.itemsize
        assert at_w % lanes == weight_pitch % lanes == 0
        results = np.array(sums).reshape(outputs, rows)
        w = weights[at_w + np.add.outer(weight_pitch * np.arange(outputs), np.arange(taps))]
        for a in range(taps):
            results += np.outer(w[:, a], samples[at + (stride * np.arange(rows) + a) * step])
        return tuple(results.ravel())

    return multiply


def _rounded(value: np.float32) -> np.float32:
    """To the nearest bfloat16, finite numbers to finite ones."""
    bits = int(np.float32(value).view(np.uint32))
    if np.isfinite(value) and abs(value) <= 3.3895e38:
        bits += 0x7FFF + (bits >> 16 & 1)
    return np.uint32(bits & 0xFFFF0000).view(np.float32)


def to_bfloat16(is_split: bool, group: int) -> Callable:
    def convert(values):
        rounded = []
        for first in range(0, len(values), group):
            some = values[first : first + group]
            tame = [np.sign(value) if is_split and np.isinf(value) else value for value in some]
            near = [_rounded(value) for value in tame]
            rounded += near
            if is_split:
                rounded += [_rounded(value - n) for value, n in zip(some, near, strict=True)]
        halves = np.array(rounded, np.float32).view(np.uint32) >> 16
        return tuple((halves[::2] | halves[1::2] << 16).view(np.int32))

    return convert


def gather_at(offsets: tuple[int, ...]) -> Callable:
    def gather_these(array, index, step, limit):
        memory = _memory(array)
        inside = [offset < limit for offset in offsets]
        places = [index + offset * step if known else 0 for offset, known in zip(offsets, inside, strict=True)]
        assert min(places) >= 0
        return tuple(memory[place] * known for place, known in zip(places, inside, strict=True))

    return gather_these


def store_slots(array, line, first, mask, values):
    for i in range(0, len(values), 4):
        at = line + 4 * (first + i // 4 ^ mask)
        _memory(array)[at : at + 4] = values[i : i + 4]


def _halves(registers: np.ndarray) -> np.ndarray:
    """int32 registers as pairs of bfloat16 numbers, widened to float32: a last axis of 2, low half first."""
    wide = registers.astype(np.int64)
    return np.stack([wide << 16 & 0xFFFF0000, wide & 0xFFFF0000], axis=-1).astype(np.uint32).view(np.float32)


def warp_product(
    tiles_a: int, tiles_b: int, pitch_a: int, pitch_b: int, passes: tuple[tuple[int, int], ...]
) -> Callable:
    def multiply(sums, a, at_a, b, at_b):
        """All threads of the block meet here, show their registers, and each takes its sums from those of its warp."""
        assert at_a % 4 == at_b % 4 == pitch_a % 4 == pitch_b % 4 == 0
        block, me = _get_kernel_context(), _get_kernel_context().threadIdx.x
        shown = block.shared._allocations.setdefault("shown", {})
        shown[me] = a[at_a + _chunks(8 * tiles_a, pitch_a, 4)], b[at_b + _chunks(4 * tiles_b, pitch_b, 4)]
        block.syncthreads()
        threads = [shown[index] for index in range(me // 32 * 32, me // 32 * 32 + 32)]
        block.syncthreads()
        # (group, quad, tile, part, register, half)
        left = _halves(np.array([thread[0] for thread in threads]).reshape(8, 4, tiles_a, 2, 4))
        right = _halves(np.array([thread[1] for thread in threads]).reshape(8, 4, tiles_b, 2, 2))
        group, quad = me % 32 // 4, me % 4
        results = np.array(sums).reshape(tiles_a, tiles_b, 2, 2)
        for part_a, part_b in passes:
            for high in (0, 1):
                # Terms 2q, 2q + 1 lie in the first two registers of quad q, terms 2q + 8, 2q + 9 in the last two.
                x = left[group, :, :, part_a, high::2]
                for column in (0, 1):
                    y = right[2 * quad + column, :, :, part_b]
                    results[:, :, high, column] += np.einsum("qirh,qjrh->ij", x, y)
        return tuple(results.ravel())

    return multiply


def copy_16_bytes(shared, at, source, index):
    memory = _memory(source)
    count = 16 // memory.itemsize
    assert index * memory.itemsize % 16 == 0
    assert at * memory.itemsize % 16 == 0
    _memory(shared)[at : at + count] = memory[index : index + count]


def wait_for_copies():
    pass
