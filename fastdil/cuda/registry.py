"""The registry, one line per method: `auto`, `explain`, tests and benchmarks take their lists from it."""

from __future__ import annotations

from fastdil.cuda.base import Method
from fastdil.cuda.direct import Direct
from fastdil.cuda.gemm import Gemm
from fastdil.cuda.reference import Reference
from fastdil.cuda.tensor import Tensor

#: Every method, in registry order.
METHODS: dict[str, Method] = {method.name: method for method in (Reference(), Direct(), Gemm(), Tensor())}
