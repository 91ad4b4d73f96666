"""Stride with dilation: phases, period and frequency against real strided dilated convolutions and their spectra."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import fastdil
from fastdil.theory import checkerboard_frequency, checkerboard_period, input_read_fraction, phase_sequence

PAIRS = list(itertools.product(range(1, 7), range(1, 9)))


@pytest.mark.parametrize("padding", [0, 1, 5, -3])
def test_phase_sequence_and_least_period(padding):
    for stride, dilation in PAIRS:
        sequence = phase_sequence(48, stride, dilation, padding)
        assert sequence.dtype == np.int64
        assert sequence.tolist() == [(i * stride - padding) % dilation for i in range(48)]
        period = checkerboard_period(stride, dilation)
        least = next(p for p in range(1, 48) if (sequence[p:] == sequence[:-p]).all())
        assert period == least
        assert checkerboard_frequency(stride, dilation) == Fraction(math.gcd(stride, dilation), dilation)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 4), (2, 3), (3, 6), (4, 6), (2, 2), (4, 2), (5, 7)])
def test_spectrum_of_a_real_strided_dilated_convolution(stride, dilation):
    """A signal whose phases differ comes out with lines at multiples of the frequency, the first of them included."""
    outputs, taps, padding = 240 * 7, 3, 2
    levels = np.random.default_rng(dilation).standard_normal(dilation)
    n = (outputs - 1) * stride + (taps - 1) * dilation + 1
    x = levels[(np.arange(n + padding) - padding) % dilation]  # begins in the padding, so that no output is cut
    y = fastdil.conv1d(x[None], np.full((1, 1, taps), 1 / taps), stride=stride, dilation=dilation)[0, :outputs]
    np.testing.assert_allclose(y, levels[phase_sequence(outputs, stride, dilation, padding)], atol=1e-12)
    lines = np.flatnonzero(np.abs(np.fft.rfft(y - y.mean())) > 1e-6 * outputs)
    frequency = checkerboard_frequency(stride, dilation)
    if frequency == 1:  # dilation divides stride: one phase, no pattern
        assert len(lines) == 0
    else:
        assert Fraction(int(lines[0]), outputs) == frequency
        assert all(Fraction(int(line), outputs) % frequency == 0 for line in lines)
        assert (frequency == Fraction(1, 2)) == (dilation == 2 * math.gcd(stride, dilation))


def test_share_of_the_input_that_is_read():
    """Counted by impulses through the engine, on whole periods away from the borders."""
    for kernel in (1, 2, 3, 5):
        for stride, dilation in PAIRS:
            margin = kernel * dilation
            middle = stride * dilation
            n = middle + 2 * margin
            impulses = np.eye(n, dtype=np.int64)[:, None]
            weights = np.ones((1, 1, kernel), np.int64)
            y = fastdil.conv1d(impulses, weights, stride=stride, dilation=dilation, padding=margin)
            read = y[:, 0].any(axis=1)[margin : margin + middle]
            assert Fraction(int(read.sum()), middle) == input_read_fraction(kernel, stride, dilation)


def test_per_axis():
    assert checkerboard_period((1, 2), 4) == (4, 2)
    assert checkerboard_frequency(2, (2, 3)) == (Fraction(1), Fraction(1, 3))
    assert input_read_fraction((3, 1), 2, (2, 1)) == (Fraction(1, 2), Fraction(1, 2))
    assert input_read_fraction(3, 2, 2) == Fraction(1, 2)


def test_huge_numbers_do_not_overflow():
    stride, dilation = 2**59 + 1, 2**59 - 1
    assert phase_sequence(9, stride, dilation).tolist() == [i * stride % dilation for i in range(9)]
    assert phase_sequence(0, 1, 3).tolist() == []


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: phase_sequence(-1, 1, 1), ValueError, "n=-1"),
        (lambda: phase_sequence(3, 0, 1), ValueError, "stride=0"),
        (lambda: phase_sequence(3, 1, 0), ValueError, "dilation=0"),
        (lambda: phase_sequence(3, 1, 1, "same"), TypeError, "padding='same'"),
        (lambda: phase_sequence(3, (1, 2), 1), TypeError, "stride"),
        (lambda: checkerboard_period(0, 1), ValueError, "stride=0"),
        (lambda: checkerboard_frequency(1, 0), ValueError, "dilation=0"),
        (lambda: checkerboard_period((1, 2), (1, 2, 3)), ValueError, "3 in dilation, 2 in stride"),
        (lambda: input_read_fraction(0, 1, 1), ValueError, "kernel_size=0"),
        (lambda: input_read_fraction(3, 1.0, 1), TypeError, "stride=1.0"),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call()
