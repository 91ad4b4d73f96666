"""Channels-last views: what is copied to rows, and that results are those of contiguous input, bit for bit."""

from __future__ import annotations

import naive
import numpy as np
import pytest

import fastdil
from fastdil.addresses import address_of
from fastdil.algorithms import channels_first
from fastdil.problem import Problem

RNG = np.random.default_rng(5)


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same array, channels side by side in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def copied(x: np.ndarray, threads: int) -> np.ndarray:
    """`x` as the kernel copies it, beside two guards."""
    problem = Problem.create(x.shape, (1, x.shape[1], *(1,) * (x.ndim - 2)), dtype=x.dtype)
    strides = (*x.strides[:2], *(0,) * (5 - x.ndim), *x.strides[2:])
    room = np.full(x.size + 16, 7, x.dtype)
    channels_first._copier(problem, strides, threads)(address_of(x), 0, 0, address_of(room[8:]))
    assert (room[:8] == 7).all()
    assert (room[-8:] == 7).all()
    return room[8:-8].reshape(x.shape)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 1),
        (2, 16, 15),
        (1, 17, 16),
        (3, 5, 4097),
        (1, 64, 33, 31),
        (2, 70, 3, 200),
        (1, 2, 4, 5, 7),
        (2, 33, 3, 1, 18),
    ],
    ids=str,
)
def test_copies(shape, dtype):
    x = RNG.standard_normal(shape).astype(dtype)
    for threads in (1, 3):
        np.testing.assert_array_equal(copied(channels_last(x), threads), x)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_copies_of_odd_views(dtype):
    whole = channels_last(RNG.standard_normal((4, 20, 9, 50)).astype(dtype))
    for view in (
        whole[::2, :, 1:7, 3:40],
        whole[:, 2:15],
        whole[..., ::-1],
        whole[::-1, :, ::-2, ::3],
        whole.transpose(0, 1, 3, 2),
        np.asfortranarray(RNG.standard_normal((1, 20, 9, 50)).astype(dtype)),
        np.broadcast_to(whole[:1], whole.shape),
    ):
        np.testing.assert_array_equal(copied(view, 2), view)


CASES = [
    ("winograd", "f4", (5, 64, 20, 33), (30, 64, 3, 3), {"dilation": 2, "padding": 2}),
    ("winograd", "f8", (3, 32, 400), (17, 32, 3), {"dilation": 16, "padding": 16}),
    (
        "winograd",
        "f4",
        (2, 48, 9, 10, 21),
        (20, 48, 2, 3, 3),
        {"padding": ((0, 0), (-1, 2), (1, 1)), "padding_mode": "reflect"},
    ),
    ("fft", "f4", (4, 6, 700), (5, 6, 41), {"dilation": 5}),
    ("fft", "f8", (2, 8, 12, 90), (8, 4, 3, 21), {"groups": 2, "padding": (1, 10)}),
    ("fft", "c8", (3, 3, 300), (4, 3, 30), {"dilation": 2}),
    ("fft", "c16", (2, 3, 300), (4, 3, 30), {"dilation": 2}),
]


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    x = RNG.standard_normal(shape)
    return (x + 1j * RNG.standard_normal(shape) if dtype.startswith("c") else x).astype(dtype)


@pytest.mark.parametrize("at_once", [1, 2, 64])
@pytest.mark.parametrize(("method", "dtype", "x_shape", "w_shape", "args"), CASES, ids=str)
def test_bits_are_those_of_rows(method, dtype, x_shape, w_shape, args, at_once, monkeypatch):
    """Whole batches, and few samples at a time."""
    x, w, bias = numbers(x_shape, dtype), numbers(w_shape, dtype), numbers(w_shape[:1], dtype)
    real = channels_first.samples_at_once
    monkeypatch.setattr("fastdil.algorithms.channels_first.samples_at_once", lambda *given: min(real(*given), at_once))
    rows = fastdil.plan(w, bias, method=method, **args)(x)
    plan = fastdil.plan(w, bias, method=method, **args)
    for view in (channels_last(x), channels_last(x)[:, :, ..., ::-1][..., ::-1]):
        for threads in (1, 2):
            np.testing.assert_array_equal(fastdil.conv(view, w, bias, method=method, threads=threads, **args), rows)
        np.testing.assert_array_equal(plan(view), rows)
    truth = naive.conv(x, w, bias, **args)
    assert np.abs(rows - truth).max() < 1e-3


def test_copies_stay_within_the_workspace():
    """An input that does not fit is read where it lies."""
    limit = channels_first.limit_bytes()
    small, large = (Problem.create((3, 64, 1, size), (8, 64, 1, 3)) for size in (1000, limit // 256))
    assert channels_first.samples_at_once(small, (256000, 4, 0, 0, 256)) == 3
    assert channels_first.samples_at_once(small, (256000, 4, 0, 0, 256), limit - 600_000) == 2
    assert channels_first.samples_at_once(large, (limit, 4, 0, 0, 256)) == 0
    assert channels_first.samples_at_once(small, (256000, 4000, 0, 0, 4)) == 0


@pytest.mark.parametrize(("size", "padding"), [((4, 0), 2), ((0, 5), 3)])
def test_nothing_but_padding(size, padding):
    x, w = np.zeros((2, 3, *size), np.float32), RNG.standard_normal((4, 3, 3, 3), np.float32)
    y = fastdil.conv2d(channels_last(x), w, np.ones(4, np.float32), padding=padding, method="fft")
    assert y.size > 0
    assert (y == 1).all()
