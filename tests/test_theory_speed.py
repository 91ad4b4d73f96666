"""Large stacks are analysed quickly, and what is quick agrees with what is plain."""

from collections import Counter
from time import perf_counter

import numpy as np

from fastdil import theory
from fastdil.theory import Layer
from fastdil.theory.paths import axis_profile, box

DEEP = [Layer(3, dilation=1 + i % 8, padding="same") for i in range(10_000)]
WIDE = [Layer(3, dilation=2**i) for i in range(19)]  # a million samples
LIMIT = 5.0  #: seconds; about 0.2 on a shared machine of two cores


def seconds(call):
    start = perf_counter()
    call()
    return perf_counter() - start


def test_deep_and_wide():
    for stack in (DEEP, WIDE):
        for analyse in (theory.coverage, theory.receptive_fields, theory.effective_receptive_field, theory.is_uniform):
            assert seconds(lambda analyse=analyse, stack=stack: analyse(stack)) < LIMIT
    assert seconds(lambda: theory.path_counts(WIDE)) < LIMIT
    assert seconds(lambda: theory.cost(DEEP, (4, 32))) < LIMIT


def test_repair_of_a_wide_schedule():
    assert seconds(lambda: theory.repair_schedule([2**i for i in range(1, 19)], 3)) < LIMIT


def test_shares_by_spectrum_are_those_by_sums():
    layers = [Layer(k, dilation=d) for k, d in ((3, 2), (2, 3))] * 200
    share = np.ones(1)
    for (k, d), number in Counter((layer.kernel_size, layer.dilation) for layer in layers).items():
        for _ in range(number):
            share = box(share, (k, d)) / k
    found = axis_profile([layer.axes(1)[0] for layer in layers])
    assert np.allclose(found, share, rtol=0, atol=1e-12 * share.max())
