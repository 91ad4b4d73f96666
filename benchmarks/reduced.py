"""Peers that compute in bfloat16: for `python -m benchmarks.compare --precision`, beside the float32 ones.

Samples and weights are bfloat16 before the clock starts, as in a network that is bfloat16 from end to end. OpenVINO
takes and returns float32, and is only told that it may.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import OpenVino, Peer, Run, Torch, load
from benchmarks.workloads import Workload

#: Precision -> products of bfloat16 parts that `amx` computes for each product of the definition.
PRODUCTS = {"medium": 1, "high": 3, "highest": 6}


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16 numbers, given as 16-bit integers, as float32.

    >>> widened(np.array([0x3F80, 0xC040], np.uint16)).tolist()
    [1.0, -3.0]
    """
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


class _Reduced(Peer):
    """A peer that is asked for every float32 workload."""

    dtypes = ("float32",)

    def supports(self, workload: Workload, dtype: str) -> str | None:
        return None if dtype in self.dtypes else f"{self.name} is compared with float32"


class TorchBfloat16(_Reduced, Torch):
    """PyTorch on bfloat16 tensors, channels first."""

    name = "torch_bf16"

    @staticmethod
    def reads(result: np.ndarray) -> np.ndarray:
        return widened(result)

    def prepare(self, workload: Workload, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
        torch = load("torch")
        torch.set_num_threads(threads)
        conv = getattr(torch.nn.functional, f"conv{workload.rank}d")
        samples, weights = (self._tensor(torch, torch.from_numpy(array)) for array in (x, w))

        def run() -> np.ndarray:
            with torch.inference_mode():
                return conv(samples, weights, None, **workload.spec).view(torch.int16).numpy()

        return run

    def _tensor(self, torch: ModuleType, tensor: Any) -> Any:
        return tensor.bfloat16()


class TorchBfloat16Last(TorchBfloat16):
    """PyTorch on bfloat16 tensors, channels last."""

    name = "torch_bf16_last"

    def supports(self, workload: Workload, dtype: str) -> str | None:
        if workload.rank == 1:
            return "PyTorch has no channels-last layout for signals"
        return super().supports(workload, dtype)

    def _tensor(self, torch: ModuleType, tensor: Any) -> Any:
        layout = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
        return tensor.bfloat16().contiguous(memory_format=layout)


class OpenVinoBfloat16(_Reduced, OpenVino):
    """OpenVINO with its hint for bfloat16, which it follows where the machine has it."""

    name = "openvino_bf16"
    hint = "bf16"


#: In the order of their columns.
PEERS = (TorchBfloat16(), TorchBfloat16Last(), OpenVinoBfloat16())
#: Every peer, of both kinds.
BY_NAME = peers.BY_NAME | {peer.name: peer for peer in PEERS}


def installed() -> list[str]:
    """Names of those that can be imported here."""
    return [peer.name for peer in PEERS if peer.available()]
