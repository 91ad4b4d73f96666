"""Designed and repaired schedules against exhaustive search, with holes and path counts found by brute force."""

import itertools
import operator
from functools import cache, reduce
from itertools import combinations_with_replacement

import numpy as np
import pytest

from fastdil.theory import design_schedule, repair_schedule

DEEPEST, WIDEST = 5, 16


def seen_bits(dilations, kernel) -> int:
    """The positions that are seen, as the bits of a number."""
    bits = 1
    for d in dilations:
        bits = sum_of_bits(bits << a * d for a in range(kernel))
    return bits


def sum_of_bits(terms) -> int:
    return reduce(operator.or_, terms)


def has_no_hole(dilations, kernel) -> bool:
    return (seen_bits(dilations, kernel) + 1).bit_count() == 1


@cache
def variation(dilations, kernel) -> float:
    """Coefficient of variation of the path counts, by polynomials with one coefficient per position."""
    counts = np.ones(1)
    for d in dilations:
        comb = np.zeros((kernel - 1) * d + 1)
        comb[::d] = 1
        counts = np.convolve(counts, comb)
    return counts.std() / counts.mean()


@cache
def every_schedule(kernel) -> list[list[tuple[int, tuple[int, ...]]]]:
    """(receptive field, dilations) of all ascending schedules without holes of 1, 2, ... layers, by trying them all."""
    dilations = range(1, WIDEST + 1)
    return [
        [
            (1 + (kernel - 1) * sum(ds), ds)
            for ds in combinations_with_replacement(dilations, depth)
            if has_no_hole(ds, kernel)
        ]
        for depth in range(1, DEEPEST + 1)
    ]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_best_is_the_best_of_all(kernel, exact):
    """Every field up to 24 and every limit of the dilations: all schedules of the fewest layers, in the right order."""
    unreachable = 0
    for least, widest in itertools.product(range(2, 25), (1, 2, 3, 4, 6, 9, WIDEST)):
        fits = (
            [ds for size, ds in row if max(ds) <= widest and (size == least if exact else size >= least)]
            for row in every_schedule(kernel)
        )
        expected = next((row for row in fits if row), None)
        if expected is None:
            unreachable += 1
            with pytest.raises(ValueError, match=r"expected (at least|1 plus)"):
                design_schedule(kernel, least, layers=DEEPEST, max_dilation=widest, exact=exact)
            continue
        found = design_schedule(kernel, least, layers=DEEPEST, max_dilation=widest, exact=exact, count=10**6)
        assert {schedule.dilations for schedule in found} == set(expected)
        spreads = [variation(schedule.dilations, kernel) for schedule in found]
        assert all(b > a - 1e-9 for a, b in itertools.pairwise(spreads))
        for schedule, spread in zip(found, spreads, strict=True):
            assert schedule.optimal
            assert schedule.receptive_field == 1 + (kernel - 1) * sum(schedule.dilations)
            assert abs(schedule.coverage.cv - spread) < 1e-9
            assert schedule.coverage.holes == ()
    assert unreachable


@pytest.mark.parametrize("exact", [False, True])
def test_a_limited_list_is_the_head_of_the_whole_one(exact):
    whole = design_schedule(3, 41, exact=exact, count=10**6)
    assert len(whole) > 10
    for count in (1, 4):
        assert design_schedule(3, 41, exact=exact, count=count) == whole[:count]


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
        ((2**25, 9), {}, "kernel_size=33554432: expected at most 16777216"),
        ((3, 9), {"max_macs": 5}, "macs_per_layer"),
        ((3, 27), {"max_macs": 299, "macs_per_layer": 100}, "max_macs=299: expected at least 300: 3 layers are needed"),
        ((3, 9001), {"max_dilation": 1}, "1000 layers do, not 4500"),
    ],
)
def test_refusals(arguments, options, text):
    with pytest.raises(ValueError, match="expected") as refusal:
        design_schedule(*arguments, **options)
    assert text in str(refusal.value)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_repair_is_the_smallest_change(kernel, depth):
    """All schedules of up to three layers with dilations up to 9, against every schedule without holes up to 12."""
    every = [ds for ds in itertools.product(range(1, 13), repeat=depth) if has_no_hole(ds, kernel)]
    table = np.array(every)
    for given in itertools.product(range(1, 10), repeat=depth):
        found = repair_schedule(given, kernel)
        assert has_no_hole(found.dilations, kernel)
        changes = np.abs(table - given).sum(axis=1)
        change = sum(abs(a - b) for a, b in zip(given, found.dilations, strict=True))
        assert change == changes.min(), given
        assert sum(found.dilations) == table[changes == change].sum(axis=1).max()
        assert found.receptive_field == 1 + (kernel - 1) * sum(found.dilations)


def test_repair_of_deeper_schedules():
    rng = np.random.default_rng(4)
    every = np.array([ds for ds in itertools.product(range(1, 9), repeat=5) if has_no_hole(ds, 2)])
    for given in rng.integers(1, 9, (40, 5)):
        found = np.array(repair_schedule(given, 2).dilations)
        assert np.abs(found - given).sum() == np.abs(every - given).sum(axis=1).min()


def test_wrong_types():
    for arguments, options in (
        ((3.0, 9), {}),
        ((3, True), {}),
        ((3, 9), {"exact": 1}),
        ((3, 9), {"layers": 2.0}),
        ((3, 9), {"max_dilation": "4"}),
    ):
        with pytest.raises(TypeError, match="expected"):
            design_schedule(*arguments, **options)
    assert design_schedule(np.int64(3), np.int32(9), exact=np.True_)[0].dilations == (1, 3)


@pytest.mark.parametrize(("kernel", "least"), [(100, 10_001), (1000, 30_000), (3000, 3500), (2**24, 9)])
def test_long_kernels(kernel, least):
    """Fields that are much wider than asked for need not be listed, and what is found suffices."""
    for schedule in design_schedule(kernel, least, count=2):
        assert least <= schedule.receptive_field <= 2**24
        assert schedule.coverage.holes == ()


def test_repair_refusals():
    with pytest.raises(ValueError, match="at least one dilation"):
        repair_schedule([], 3)
    with pytest.raises(ValueError, match="dilations=0"):
        repair_schedule([1, 0], 3)
    for wrong in ("12", b"12", {1, 2}, np.array(3), 3, [1.0]):
        with pytest.raises(TypeError, match="dilations="):
            repair_schedule(wrong, 3)
