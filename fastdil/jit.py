"""The one wrapper around Numba's compiler, and the policy of its disk cache.

Facts behind the policy: Numba's cache key ignores compiler options and edits in other files, functions that share a
qualified name share one index file, and processes that raced on such a file have loaded the wrong kernel. So every
specialisation gets a qualified name that spells all its options, and closes over `source_stamp`, which changes with any
edit below `fastdil`'s compiled code. Where no cache directory can be written, compilation goes on without one.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from fastdil._version import __version__

#: Everything compiled so far, by name. Kept for good: callers hold bare addresses of the machine code.
_compiled: dict[str, Any] = {}

#: Reentrant: building one kernel may need another. Replaced in a forked child, where its owner may not exist.
_lock = threading.RLock()


def _replace_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_lock)


@lru_cache(maxsize=1)
def source_stamp() -> str:
    """A hash of the package's version and of the source of everything that is compiled."""
    digest = hashlib.sha256(__version__.encode())
    package = Path(__file__).parent
    for path in sorted(
        [
            Path(__file__),
            package / "helper_compiler.py",
            package / "padding.py",
            *package.glob("kernels/*.py"),
            *package.glob("algorithms/*.py"),
        ]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def named(function: Callable, name: str) -> Callable:
    """Give a specialisation the unique name under which it is cached."""
    function.__name__ = function.__qualname__ = name
    return function


def _compile(decorator: Callable[..., Any], function: Callable, name: str, signature: Any, **options: Any) -> Any:
    with _lock:
        if name not in _compiled:
            try:
                _compiled[name] = decorator(signature, cache=True, **options)(named(function, name))
            except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
                # No directory to write to, a full disk, a damaged file: caching is a convenience, the result is not.
                if isinstance(error, RuntimeError) and "cannot cache function" not in str(error):
                    raise
                _compiled[name] = decorator(signature, cache=False, **options)(named(function, name))
        return _compiled[name]


def _integers(count: int, result: Any = None) -> Any:
    from numba import types

    return (result or types.void)(*(types.int64,) * count)


def helper(function: Callable) -> Callable:
    """Let kernels call a Python function: it is compiled into them, specialised on literal arguments.

    Unlike a jitted function it can be given an element kind or a tile size, and kernels that call it are still cached.
    """
    from numba.extending import overload

    from fastdil.helper_compiler import HelperCompiler

    # Helpers inlined by Numba (`inline="always"`) were tried: `im2col` compiled in 25 seconds instead of 6, most of it
    # type inference.
    options = {"error_model": "numpy", "pipeline_class": HelperCompiler}
    overload(function, prefer_literal=True, strict=False, jit_options=options)(lambda *_: function)
    return function


def callback(function: Callable, name: str, arguments: int) -> Any:
    """Compile a serial kernel: a C function of `arguments` 64-bit integers that returns nothing.

    Without fastmath flags: Numba would put them on the vector code too, where "reassoc" undoes exact summation. Fused
    multiply-adds are asked for by name instead.
    """
    import numba

    return _compile(numba.cfunc, function, name, _integers(arguments), error_model="numpy")


def serial(function: Callable, name: str, arguments: int, *, has_result: bool = False) -> Any:
    """Compile a function of 64-bit integers, and perhaps to one, that Python calls; it lets go of the GIL."""
    from numba import types

    return typed(function, name, _integers(arguments, types.int64 if has_result else types.void))


def parallel(function: Callable, name: str, arguments: int) -> Any:
    """Compile the parallel driver; nothing else pays for Numba's parallel pass."""
    import numba

    return _compile(numba.njit, function, name, _integers(arguments), parallel=True, nogil=True)


def typed(function: Callable, name: str, signature: Any) -> Any:
    """Compile a plain function on arrays for one signature, without any relaxed arithmetic."""
    import numba

    return _compile(numba.njit, function, name, signature, nogil=True, error_model="numpy")
