"""The functional face: one call, one convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdil import dispatch, plans
from fastdil.arrays import is_on_device
from fastdil.cache import BoundedCache
from fastdil.dispatch import Explanation, explain_problem, parse_method, parse_threads
from fastdil.dtypes import as_dtype
from fastdil.problem import ConvSpec, Problem

#: Runners of recent calls, so that a repeated call pays neither for validation nor for choosing.
_runners = BoundedCache(256)
#: Types of arguments whose equal values mean the same.
_PLAIN = frozenset((int, str, type(None)))


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
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Dilated convolution in 1, 2 or 3 dimensions (the rank of `w` decides).

    The neural-network convention, a cross-correlation, channels first. Per axis,
    ``y[n, o, i] = bias[o] + sum over c, a of w[o, c, a] * x[n, c, i * stride + a * dilation - pad_lo]``.

    Parameters
    ----------
    x : array_like
        Input ``(N, C, *spatial)``, or ``(C, *spatial)`` without a batch. Any strides and byte order. An array on a GPU
        (``__cuda_array_interface__``) is handed to `fastdil.cuda.conv`: computed there, with a result of its kind.
    w : array_like
        Weights ``(O, C // groups, *kernel)``.
    bias : array_like, optional
        One number per output channel, ``(O,)``.
    stride, dilation : int or tuple of int
        At least 1, one for all axes or one per axis. Dilation 1 is dense.
    padding : int, tuple or str
        An int; one int per axis; one ``(lo, hi)`` pair per axis, negative to crop; or ``"valid"``, ``"same"`` (output
        ``ceil(n / stride)``, odd excess at the end), ``"same_lower"`` (at the start), in 1-D also ``"causal"`` and
        ``"anticausal"``.
    groups : int
        Channels are split into this many independent convolutions.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        What stands beyond the edges, as in `numpy.pad`.
    activation : {None, "relu", "leaky_relu", "tanh", "sigmoid", "silu", "gelu"}
        Applied after the bias. Integers know ``"relu"`` only, complex numbers none.
    precision : {None, "highest", "high", "medium"}
        Error allowed: ``8 eps``, ``2**-14`` or ``2**-6`` times the largest ``conv(|x|, |w|)``. None is "highest".
    method : str
        ``"auto"``, or a name from `fastdil.methods`.
    threads : int, optional
        At most this many; None takes what the machine grants this process.
    out : ndarray, optional
        Where to write: shape and dtype of the result, any strides, no memory shared with an input.

    Returns
    -------
    ndarray
        A new C-contiguous array ``(N, O, *spatial)`` (or without N), or `out`. Mixed dtypes follow
        `numpy.result_type`; integers are exact and wrap; bool counts as uint8; float16 and `ml_dtypes.bfloat16`
        are computed in float32 and rounded once.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit: the text names it, its value and what was expected. Nothing is written then.

    See Also
    --------
    fastdil.plan : the same with the weights prepared once.
    fastdil.explain : which method is chosen, and why.

    References
    ----------
    F. Yu and V. Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016, section 2.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.arange(8.0)[None]
    >>> w = np.array([[[1.0, 0.0, -1.0]]])
    >>> fastdil.conv(x, w, dilation=2)
    array([[-4., -4., -4., -4.]])
    """
    return _convolve(
        None, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out
    )


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
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Dilated convolution of a signal: `x` is ``(N, C, L)`` or unbatched, `w` is ``(O, C // groups, K)``.

    Parameters, result and errors are those of `conv`.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.ones((1, 2, 100), np.float32)
    >>> fastdil.conv1d(x, np.ones((4, 2, 3), np.float32), dilation=16, padding="causal").shape
    (1, 4, 100)
    """
    return _convolve(
        1, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out
    )


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
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Dilated convolution of an image: `x` is ``(N, C, H, W)`` or unbatched, `w` is ``(O, C // groups, KH, KW)``.

    Parameters, result and errors are those of `conv`.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.ones((1, 3, 64, 64), np.float32)
    >>> fastdil.conv2d(x, np.ones((8, 3, 3, 3), np.float32), dilation=15, padding=15).shape
    (1, 8, 64, 64)
    """
    return _convolve(
        2, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out
    )


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
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Dilated convolution of a volume: `x` is ``(N, C, D, H, W)`` or unbatched, `w` ``(O, C // groups, KD, KH, KW)``.

    Parameters, result and errors are those of `conv`.

    Examples
    --------
    >>> import numpy as np, fastdil
    >>> x = np.ones((2, 8, 16, 16), np.float32)
    >>> fastdil.conv3d(x, np.ones((4, 2, 3, 3, 3), np.float32), dilation=(1, 2, 2)).shape
    (4, 6, 12, 12)
    """
    return _convolve(
        3, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out
    )


def _convolve(
    rank, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method, threads, out
):
    if type(x) is not np.ndarray:
        if is_on_device(x):
            from fastdil.cuda.functional import convolve

            return convolve(
                rank, x, w, bias, stride, padding, dilation, groups, padding_mode, activation, precision, method,
                threads, out, None,
            )  # fmt: skip
        x = plans.as_array("x", x)
    given = x
    w = w if type(w) is np.ndarray else plans.as_array("w", w)
    if bias is not None and type(bias) is not np.ndarray:
        bias = plans.as_array("bias", bias)
    arrays = (x.shape, x.strides, x.dtype, w.shape, w.dtype, None if bias is None else (bias.shape, bias.dtype))
    settings = (stride, padding, dilation, groups, threads, padding_mode, activation, precision, method)
    if not _PLAIN.issuperset(map(type, settings)):
        settings = tuple(map(_key, settings))
    key = (rank, arrays, settings)
    runner = _runners.get(key)
    if runner is None or not x.flags.aligned:
        words = {"padding_mode": padding_mode, "activation": activation, "precision": precision}
        spec = ConvSpec.parse(
            w.shape, rank=rank, stride=stride, padding=padding, dilation=dilation, groups=groups, **words
        )
        x, runner = _new_runner(spec, key, x, w, bias, parse_method(method), parse_threads(threads))
    elif x.dtype is not runner.dtype:
        x = plans.native(x, runner.dtype)
    problem = runner.problem
    shape = problem.out_shape if x.ndim == problem.rank + 2 else problem.out_shape[1:]
    if out is not None:
        plans.check_out(out, shape, runner.result_dtype, (given, w, bias))
    weights = plans.packable(w, runner.dtype)
    if bias is not None:
        bias = plans.packable(bias, runner.dtype)
    return plans.apply(runner, x, lambda algorithm: runner.prepared(algorithm, weights), bias, shape, out)


def _key(value):
    """A hashable stand-in in which 1, 1.0 and True differ."""
    return value if type(value) in _PLAIN else (repr(value),)


def _new_runner(spec, key, x, w, bias, method, threads):
    """The input as kernels can read it, and a runner for its layout, remembered under `key`."""
    w, bias = plans.as_array("w", w), plans.check_bias(bias, spec.out_channels)
    x, runner, is_lasting = plans.new_runner(spec, plans.as_array("x", x), w, bias, method, threads, False)
    if is_lasting:
        _runners.put(key, runner)
    return x, runner


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
    threads: int | None = None,
    has_bias: bool = False,
) -> Explanation:
    """Which method `conv` would use for these shapes, and why; no arrays needed.

    Parameters
    ----------
    x_shape, w_shape : tuple of int
        Shapes as for `conv`.
    dtype : dtype
        Of both arrays.
    has_bias : bool
        Whether a bias is added.

    The other parameters are those of `conv`.

    Returns
    -------
    Explanation
        ``.chosen`` is the method's name, ``.candidates`` one row per method; ``str()`` prints a table.

    Examples
    --------
    >>> import fastdil
    >>> why = fastdil.explain((1, 64, 16384), (128, 64, 2), dtype="int16", dilation=512)
    >>> [row.name for row in why.candidates if row.verdict == "refused"]
    ['fft', 'winograd', 'amx']
    """
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
    return explain_problem(problem, parse_method(method), parse_threads(threads), prepared=False)


#: Layers, input and weights, that need all kernels between them: `direct` has some for few outputs, `winograd` some
#: for taps along one axis, and `winograd` and `amx` take no layer of few channels.
_WARM_UPS = (
    *(((1, 1, 64, 256), (outputs, 1, 3, 3)) for outputs in (1, 2, 4, 8)),
    ((1, 64, 16, 64), (64, 64, 3, 3)),
    ((1, 64, 256), (64, 64, 3)),
)


def warmup(dtypes: tuple[str, ...] = ("float32",), methods: tuple[str, ...] | None = None) -> None:
    """Compile and load the kernels of some dtypes ahead of time.

    Parameters
    ----------
    dtypes : tuple of dtype
    methods : tuple of str, optional
        Names from `fastdil.methods`; all unless given.

    Examples
    --------
    >>> import fastdil
    >>> fastdil.warmup(methods=("direct",))
    """
    names = tuple(dispatch.methods()) if methods is None else tuple(map(parse_method, methods))
    for dtype in map(as_dtype, dtypes):
        for x_shape, w_shape in _WARM_UPS:
            x, w = np.zeros(x_shape, dtype), np.zeros(w_shape, dtype)
            rows = explain(x_shape, w_shape, dtype=dtype).candidates
            refused = [row.name for row in rows if row.verdict == "refused"]
            for name in names:
                if name not in refused:
                    conv(x, w, method=name)
