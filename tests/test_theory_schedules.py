"""Designed and repaired schedules against exhaustive search, with holes and path counts found by brute force."""

import itertools
from collections import Counter

import numpy as np
import pytest

from fastdil.theory import design_schedule, repair_schedule


def count_paths(dilations, kernel):
    """Position -> paths, one path at a time."""
    taps = [[a * d for a in range(kernel)] for d in dilations]
    return Counter(sum(path) for path in itertools.product(*taps))


def has_no_hole(dilations, kernel):
    seen = set(count_paths(dilations, kernel))
    return seen == set(range(max(seen) + 1))


def variation(dilations, kernel):
    counts = np.array(list(count_paths(dilations, kernel).values()), float)
    return counts.std() / counts.mean()


def exhaustive(kernel, least, exact, widest, layers):
    """All ascending hole-free schedules of the fewest layers."""
    for depth in range(1, layers + 1):
        found = []
        for dilations in itertools.combinations_with_replacement(range(1, widest + 1), depth):
            size = 1 + (kernel - 1) * sum(dilations)
            if (size == least if exact else size >= least) and has_no_hole(dilations, kernel):
                found.append(dilations)
        if found:
            return found
    return []


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("widest", [1, 2, 4, 9])
@pytest.mark.parametrize(
    ("kernel", "least"), [(2, 2), (2, 9), (2, 13), (3, 3), (3, 9), (3, 15), (3, 21), (4, 16), (5, 21)]
)
def test_best_is_the_best_of_all(kernel, least, widest, exact):
    every = exhaustive(kernel, least, exact, widest, 5)
    if not every:
        with pytest.raises(ValueError, match="expected"):
            design_schedule(kernel, least, layers=5, max_dilation=widest, exact=exact)
        return
    found = design_schedule(kernel, least, max_dilation=widest, exact=exact, count=10**6)
    assert {schedule.dilations for schedule in found} == set(every)
    spreads = [variation(schedule.dilations, kernel) for schedule in found]
    assert spreads == pytest.approx(sorted(spreads), abs=1e-9)
    for schedule, spread in zip(found, spreads, strict=True):
        assert schedule.optimal
        assert schedule.receptive_field == 1 + (kernel - 1) * sum(schedule.dilations)
        assert schedule.coverage.cv == pytest.approx(spread, abs=1e-9)
        assert schedule.coverage.holes == ()


@pytest.mark.parametrize(
    ("kernel", "least", "best"),
    [
        (3, 9, (1, 3)),
        (3, 27, (1, 3, 9)),
        (2, 1024, tuple(2**i for i in range(10))),
        (3, 1000, tuple(3**i for i in range(7))),
    ],
)
def test_mixed_radix_wins(kernel, least, best):
    found = design_schedule(kernel, least)[0]
    assert (found.dilations, found.optimal, found.coverage.cv) == (best, True, 0)


@pytest.mark.parametrize(
    ("kernel", "least", "options", "depth"),
    [
        (3, 1001, {}, 7),
        (3, 2001, {"max_dilation": 200}, 10),
        (3, 201, {"max_dilation": 2}, 51),
        (3, 401, {"max_dilation": 1}, 200),
    ],
)
def test_large_spaces_keep_every_promise(kernel, least, options, depth):
    found = design_schedule(kernel, least, exact=True, **options)
    assert found
    for schedule in found:
        assert schedule.receptive_field == least == 1 + (kernel - 1) * sum(schedule.dilations)
        assert len(schedule.dilations) == depth
        assert max(schedule.dilations) <= options.get("max_dilation", least)
        assert schedule.coverage.holes == ()
    assert [s.coverage.cv for s in found] == sorted(s.coverage.cv for s in found)


def test_budgets_that_just_do():
    assert len(design_schedule(3, 1000, layers=7, count=2)) == 2
    assert design_schedule(3, 27, max_macs=300, macs_per_layer=100)[0].dilations == (1, 3, 9)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((3, 1000), {"layers": 6}, "layers=6: expected at least 7 layers: 6 of kernel 3 see at most 729"),
        ((3, 100), {"layers": 3, "max_dilation": 4}, "dilation at most 4 see at most 17 without holes"),
        ((3, 1000), {"exact": True}, "receptive_field=1000: expected 1 plus a multiple of 2 for kernel 3: 999 or 1001"),
        ((1, 9), {}, "kernel_size=1: expected an integer >= 2"),
        ((3, 1), {}, "receptive_field=1"),
        ((3, 2**25), {}, "receptive_field="),
        ((3, 9), {"max_dilation": 0}, "max_dilation=0"),
        ((3, 9), {"layers": 0}, "layers=0"),
        ((3, 9), {"count": 0}, "count=0"),
        ((3, 9), {"max_macs": 5}, "macs_per_layer"),
        ((3, 27), {"max_macs": 299, "macs_per_layer": 100}, "max_macs=299: expected at least 300: 3 layers are needed"),
        ((3, 9001), {"max_dilation": 1}, "1000 layers do, not 4500"),
    ],
)
def test_refusals(arguments, options, text):
    with pytest.raises(ValueError, match="expected") as refusal:
        design_schedule(*arguments, **options)
    assert text in str(refusal.value)


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_repair_is_the_smallest_change(kernel, depth):
    every = [d for d in itertools.product(range(1, 10), repeat=depth) if has_no_hole(d, kernel)]
    for given in itertools.product((1, 2, 3, 5, 8, 9), repeat=depth):
        found = repair_schedule(given, kernel).dilations

        def change(other, given=given):
            return sum(abs(a - b) for a, b in zip(given, other, strict=True)), -sum(other)

        assert has_no_hole(found, kernel)
        assert change(found) == min(map(change, every)), given


def test_repair_refusals():
    with pytest.raises(ValueError, match="at least one dilation"):
        repair_schedule([], 3)
    with pytest.raises(ValueError, match="dilations=0"):
        repair_schedule([1, 0], 3)
    with pytest.raises(TypeError, match="dilations='12'"):
        repair_schedule("12", 3)
