"""The public face of the GPU path: the functions of `fastdil.functional`, for arrays that live on a GPU."""

from __future__ import annotations

from typing import Any

from fastdil.cuda.availability import is_available, require, require_package
from fastdil.cuda.device import Device
from fastdil.explanation import Explanation
from fastdil.problem import Problem


def conv(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    threads: int | None = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Dilated convolution on a GPU in 1, 2 or 3 dimensions (the rank of `w` decides).

    The parameters, the result's shape and dtype, the error bounds and the errors are those of `fastdil.conv`.

    Parameters
    ----------
    x : array
        Anything with ``__cuda_array_interface__`` (CuPy, PyTorch, Numba): read where it lies, in any strides. Or a
        NumPy array, which is copied to the device, and the result back.
    w, bias : array
        On the device or on the host.
    method : str
        ``"auto"``, or a name from `fastdil.cuda.methods`.
    threads : int, optional
        Checked, and without effect: so calls can be moved between the CPU and a GPU.
    out : array, optional
        Where to write; on the device where `x` is there.
    stream : optional
        A Numba stream, a handle, or an object with ``cuda_stream`` (PyTorch) or ``ptr`` (CuPy). None: the current
        stream of the library that `x` belongs to, or the default stream. The host does not wait, except for NumPy
        input, whose result it copies back.

    Returns
    -------
    array
        A PyTorch tensor for one, a CuPy array for one, a NumPy array for one; for other device arrays one of Numba's.
        Or `out`.

    Raises
    ------
    CudaUnavailableError
        Without a GPU; the text says what is missing.
    TypeError, ValueError
        If an argument does not fit: the text names it, its value and what was expected. Nothing is written then.

    Examples
    --------
    >>> import numpy as np, fastdil.cuda
    >>> if fastdil.cuda.is_available():
    ...     y = fastdil.cuda.conv(np.ones((1, 8)), np.ones((1, 1, 3)), dilation=2)
    """
    return convolve(
        None, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out,
        stream,
    )  # fmt: skip


def conv1d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    threads: int | None = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Dilated convolution of a signal on a GPU: `x` is ``(N, C, L)`` or unbatched, `w` is ``(O, C // groups, K)``.

    Parameters, result and errors are those of `fastdil.cuda.conv`.

    Examples
    --------
    >>> import numpy as np, fastdil.cuda
    >>> if fastdil.cuda.is_available():
    ...     y = fastdil.cuda.conv1d(np.ones((3, 16,)), np.ones((4, 3, 3,)), padding="same")
    """
    return convolve(
        1, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out,
        stream,
    )  # fmt: skip


def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    threads: int | None = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Dilated convolution of an image on a GPU: `x` ``(N, C, H, W)`` or unbatched, `w` ``(O, C // groups, KH, KW)``.

    Parameters, result and errors are those of `fastdil.cuda.conv`.

    Examples
    --------
    >>> import numpy as np, fastdil.cuda
    >>> if fastdil.cuda.is_available():
    ...     y = fastdil.cuda.conv2d(np.ones((3, 16, 16,)), np.ones((4, 3, 3, 3,)), padding="same")
    """
    return convolve(
        2, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out,
        stream,
    )  # fmt: skip


def conv3d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    threads: int | None = None,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """Dilated convolution of a volume on a GPU: `x` ``(N, C, D, H, W)`` or unbatched, `w` has three axes of taps.

    Parameters, result and errors are those of `fastdil.cuda.conv`.

    Examples
    --------
    >>> import numpy as np, fastdil.cuda
    >>> if fastdil.cuda.is_available():
    ...     y = fastdil.cuda.conv3d(np.ones((3, 16, 16, 16,)), np.ones((4, 3, 3, 3, 3,)), padding="same")
    """
    return convolve(
        3, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out,
        stream,
    )  # fmt: skip


def convolve(
    rank,
    x,
    w,
    bias,
    stride,
    padding,
    dilation,
    groups,
    padding_mode,
    activation,
    precision,
    method,
    threads,
    out,
    stream,
):
    """All of the functions above, `rank` None for `conv`; `fastdil.conv` and its kin hand device input over to it."""
    require()
    from fastdil.cuda import engine

    words = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    words |= {"padding_mode": padding_mode, "activation": activation, "precision": precision}
    return engine.convolve(rank, x, w, bias, words, method, threads, out, stream)


def explain(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    dtype: Any = "float32",
    stride: int | tuple[int, ...] = 1,
    padding: int | str | tuple = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    activation: str | None = None,
    precision: str | None = None,
    method: str = "auto",
    has_bias: bool = False,
    device: Device | None = None,
) -> Explanation:
    """Which method `fastdil.cuda.conv` would use for these shapes, and why; no arrays needed.

    Parameters
    ----------
    x_shape, w_shape : tuple of int
        Shapes as for `conv`.
    dtype : dtype
        Of both arrays.
    has_bias : bool
        Whether a bias is added.
    device : Device, optional
        A description of a GPU. None is the current one; where there is none, `Device.standard`.

    The other parameters are those of `conv`.

    Returns
    -------
    Explanation
        As from `fastdil.explain`. The predicted times are not calibrated: they rank methods, no more.

    Examples
    --------
    >>> import fastdil.cuda
    >>> why = fastdil.cuda.explain((1, 64, 16384), (128, 64, 2), dtype="int16", dilation=512)
    >>> [(row.name, row.verdict) for row in why.candidates if row.verdict == "chosen"]
    [('reference', 'chosen')]
    """
    require_package()
    from fastdil.cuda import engine
    from fastdil.cuda.device import current

    problem = Problem.create(
        x_shape,
        w_shape,
        dtype=dtype,
        has_bias=has_bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        activation=activation,
        precision=precision,
    )
    return engine.explain(problem, method, device or (current() if is_available() else Device.standard()))


def methods() -> tuple[str, ...]:
    """Names of the methods that can be forced on a GPU, in registry order.

    Examples
    --------
    >>> import fastdil.cuda
    >>> fastdil.cuda.methods()
    ('reference', 'direct', 'gemm', 'tensor')
    """
    require_package()
    from fastdil.cuda.registry import METHODS

    return tuple(METHODS)
