"""Compiling and launching kernels, on a GPU or under Numba's simulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any

from numba import cuda, types

from fastdil.cuda.availability import is_simulated

#: The operations of `fastdil.cuda.intrinsics`, or their stand-ins under the simulator.
ops: Any = import_module(f"fastdil.cuda.{'simulated' if is_simulated() else 'intrinsics'}")
#: Those of `fastdil.cuda.tensor_cores`, likewise.
tensor_ops: Any = import_module(f"fastdil.cuda.{'simulated' if is_simulated() else 'tensor_cores'}")

__all__ = ["Kernel", "device_function", "flat", "integers", "ops", "tensor_ops"]


def device_function(function: Callable) -> Any:
    """A helper that kernels call. The simulator runs it as it is: it must not use `cuda` itself."""
    return function if is_simulated() else cuda.jit(device=True)(function)


def flat(element: types.Type) -> types.Array:
    """The type of a kernel's array argument: elements one after the other, indexed by arithmetic."""
    return types.Array(element, 1, "C")


def integers(count: int) -> types.UniTuple:
    """The type of a kernel's integers, passed by value."""
    return types.UniTuple(types.int64, count)


class Kernel:
    """One specialisation of a kernel: a function and the types of its arguments, compiled when first launched."""

    def __init__(self, function: Callable, name: str, *arguments: types.Type, registers: int | None = None):
        # The name spells the specialisation: it is what profilers and error messages show.
        function.__name__ = function.__qualname__ = name
        self.function, self.name, self.signature = function, name, types.void(*arguments)
        self.registers = registers  #: per thread at most, so that several blocks share a multiprocessor

    @cached_property
    def _dispatcher(self) -> Any:
        if is_simulated():
            return cuda.jit(self.signature)(self.function)
        return cuda.jit(self.signature, max_registers=self.registers)(self.function)

    def launch(self, blocks: int, threads: int, stream: Any, *args: Any, shared_bytes: int = 0) -> None:
        """Queue it on a stream; nothing is waited for."""
        if blocks:
            self._dispatcher[blocks, threads, stream, shared_bytes](*args)

    def ptx(self, capability: tuple[int, int]) -> str:
        """Its code for a compute capability; needs the toolkit's compiler, but no GPU."""
        return cuda.compile_ptx(self.function, self.signature, cc=capability)[0]
