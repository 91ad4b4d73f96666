"""The weights of `fft`: their spectra, place by place, and what its guard weighs samples with, against NumPy."""

import dataclasses

import numpy as np
import pytest
from checks import assert_within

import fastdil
from fastdil import hardware
from fastdil.addresses import address_of
from fastdil.algorithms import overlap_save, spectra
from fastdil.algorithms.spectra import Spectra, Transform
from fastdil.problem import Problem

#: Shape of the weights, groups: outputs and lines below, at and above tiles and vectors, all axes, depthwise.
SHAPES = (
    ((1, 1, 1, 1, 9), 1),
    ((1, 1, 1, 1, 1), 1),
    ((2, 3, 1, 1, 5), 1),
    ((3, 2, 1, 2, 7), 1),
    ((9, 5, 1, 1, 16), 1),
    ((10, 3, 2, 3, 4), 2),
    ((1, 2, 3, 4, 3), 1),
    ((3, 1, 1, 3, 3), 3),
    ((34, 1, 1, 1, 6), 17),
)
#: Points per transform, output rows per task.
CUTS = ((16, 1), (24, 4), (40, 2), (128, 8), (160, 1))


@pytest.fixture
def as_machine(monkeypatch):
    """Makes this a machine with other vectors or cores; the compiler splits vectors that the processor lacks."""

    def change(**fields):
        monkeypatch.setattr(hardware, "_machine", dataclasses.replace(hardware.machine(), **fields))

    return change


def random(shape, dtype):
    rng = np.random.default_rng(shape)
    parts = [rng.standard_normal(shape) for _ in range(2)]
    return (parts[0] + 1j * parts[1] if np.dtype(dtype).kind == "c" else parts[0]).astype(dtype)


def loudness(shape):
    """A power of ten for each sequence of weights."""
    return 10.0 ** np.random.default_rng(0).integers(-9, 10, (*shape[:-1], 1))


def cut_for(w, groups, length, rows, **spec):
    """The problem that has these weights and 7 x 9 x 300 samples, and one cut of it."""
    x_shape = (1, w.shape[1] * groups, 7, 9, 300)
    spec = {"padding": 0, "dilation": 1, "padding_mode": "zeros", **spec}
    problem = Problem.create(x_shape, w.shape, dtype=w.dtype.name, stride=1, groups=groups, **spec)
    return problem, overlap_save.Cut(overlap_save._trim(problem), hardware.machine().vector_bytes, length, rows)


def as_real(w, groups):
    """Real weights by group, output, channel, depth, row, tap: a complex channel is a real and an imaginary one."""
    real = w
    if w.dtype.kind == "c":
        real = np.zeros((2 * w.shape[0], 2 * w.shape[1], *w.shape[2:]), w.real.dtype)
        real[::2, ::2], real[::2, 1::2], real[1::2, ::2], real[1::2, 1::2] = w.real, -w.imag, w.imag, w.real
    return real.reshape(groups, -1, *real.shape[1:])


def expected(real, cut):
    """By group, frequency, tile, depth, line, channel, row of the tile, output of the tile."""
    groups, outputs, channels, depths, heights, _ = real.shape
    spectrum = np.fft.fft(real.astype(np.float64), cut.length)[..., : cut.length // 2 + 1].conj() / cut.length
    rows, width = cut.tile_rows, cut.tile_outputs
    tiles, lines = -(-outputs // width), heights + rows - 1
    result = np.zeros((groups, cut.length // 2 + 1, tiles, depths, lines, channels, rows, width), complex)
    for output in range(outputs):
        for row in range(rows):
            for height in range(heights):
                part = spectrum[:, output, :, :, height].transpose(0, 3, 2, 1)
                result[:, :, output // width, :, height + row, :, row, output % width] = part
    return result


@pytest.mark.parametrize("isa", hardware.VECTOR_BYTES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_spectra_equal_numpy(as_machine, isa, dtype):
    as_machine(isa=isa)
    tiles = set()
    for shape, groups in SHAPES:
        for length, rows in CUTS:
            w = random(shape, dtype) * loudness(shape).astype(dtype)
            problem, cut = cut_for(w, groups, length, rows)
            packed, truth = Spectra(problem, w).at(Transform(cut)), expected(as_real(w, groups), cut)
            assert packed.spectra.dtype == w.real.dtype
            got = (packed.spectra.reshape(-1, 2) @ [1, 1j]).reshape(truth.shape)
            # No sequence errs by the loudness of another; those that do not exist are zeros.
            limit = np.log2(length) * np.finfo(dtype).eps * np.abs(truth).max(axis=1, keepdims=True)
            assert np.all(np.abs(got - truth) <= limit)
            tiles.add((cut.tile_rows, cut.tile_outputs))
    rows_or_outputs = (2, 4) if isa == "avx512" else (2,)
    wide = {(1, n) for n in rows_or_outputs}
    assert tiles == (wide if w.dtype.kind == "c" else wide | {(1, 1)} | {(n, 1) for n in rows_or_outputs})


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_taps_that_only_meet_padding_are_left_out(dtype):
    w = random((5, 3, 2, 3, 6), dtype)
    spec = {"dilation": (1, 8, 150), "padding": ((0, 0), (8, 8), (450, 300))}
    problem, cut = cut_for(w, 1, 32, 1, **spec)
    (depths, heights, widths) = (slice(first, end) for first, end in cut.taps)
    assert cut.problem.kernel != problem.kernel
    packed = Spectra(problem, w).at(Transform(cut)).spectra
    truth = expected(as_real(w, 1)[..., depths, heights, widths], cut)
    assert_within(
        packed.reshape(-1, 2) @ [1, 1j], truth.ravel(), np.log2(32) * np.finfo(dtype).eps * np.abs(truth).max()
    )


@pytest.mark.parametrize("isa", hardware.VECTOR_BYTES)
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_nothing_else_is_written(as_machine, isa, shape, groups):
    as_machine(isa=isa)
    w = random(shape, "f")
    _, cut = cut_for(w, groups, 32, 4)
    numbers, edge = groups * cut.group_numbers, 64
    room = np.full(numbers + 2 * edge, 7, "f")
    Transform(cut).launch(0, address_of(w), 0, address_of(room) + edge * room.itemsize)
    assert np.all(room[:edge] == 7)
    assert np.all(room[-edge:] == 7)


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_bits_do_not_depend_on_threads(as_machine, monkeypatch, shape, groups):
    monkeypatch.setattr(spectra, "_SERIAL_POINTS", 0)
    w, packed = random(shape, "f"), []
    for cores in (1, 2, 2):
        as_machine(cores=cores)
        problem, cut = cut_for(w, groups, 40, 4)
        packed.append(Spectra(problem, w).at(Transform(cut)).spectra)
    np.testing.assert_array_equal(packed[1], packed[0])
    np.testing.assert_array_equal(packed[2], packed[0])


@pytest.mark.parametrize(
    ("dtype", "scale"), [("f", 1), ("D", 1), ("f", 1e-30), ("f", 1e30), ("d", 1e-250), ("d", 1e250)]
)
def test_what_the_guard_weighs_with(dtype, scale):
    w = random((6, 3, 2, 3, 4), dtype) * np.dtype(dtype).type(scale)
    problem, cut = cut_for(w, 2, 32, 1)
    packed = Spectra(problem, w).at(Transform(cut))
    sizes = np.abs(as_real(w, 2).astype(np.float64) / scale)
    largest, totals = sizes.max(), sizes.sum(axis=(2, 3, 4, 5))
    tolerance = {"rtol": 20 * float(np.finfo(dtype).eps)}
    np.testing.assert_allclose(packed.largest, largest * scale, **tolerance)
    np.testing.assert_allclose(packed.total, totals.max() * scale, **tolerance)
    if np.dtype(dtype).kind == "f":  # the real and the imaginary part of an output are as loud
        loudest = np.stack([group[i] for group, i in zip(sizes, totals.argmax(axis=1), strict=True)])
        np.testing.assert_allclose(packed.absolute, loudest.transpose(0, 2, 3, 1, 4) / largest, **tolerance)
    squares = (sizes**2).sum(axis=-1).transpose(0, 1, 3, 4, 2) / largest**2
    np.testing.assert_allclose(packed.squares, squares, **tolerance)
    assert all(part.flags.c_contiguous and part.dtype == w.real.dtype for part in packed[:3])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(dtype, value):
    x, w = random((1, 2, 200), dtype), random((3, 2, 9), dtype)
    w[1, 1, 8] = value
    with pytest.raises(ValueError, match=r"method='fft': expected finite weights"):
        fastdil.conv(x, w, method="fft")
    assert np.isfinite(fastdil.conv(x, w)[:, 0]).all()


def test_weights_of_zeros():
    x, w = random((1, 2, 200), "f"), np.zeros((3, 2, 9), "f")
    np.testing.assert_array_equal(fastdil.conv(x, w, method="fft"), np.zeros((1, 3, 192), "f"))
