"""Schedules of dilations: designed for a receptive field under budgets, and repaired where they have holes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastdil.arguments import as_int
from fastdil.errors import bad_value
from fastdil.theory.gridding import Coverage, coverage
from fastdil.theory.layers import Layer, as_flag, parse_dilations
from fastdil.theory.search import Space, best_found, every_schedule, fewest_layers, is_small

#: Widest field that is designed for; its path counts are held in memory.
WIDEST = 2**24
#: Most layers that are designed.
DEEPEST = 1000


class Schedule(NamedTuple):
    """Dilations of a stack of equal kernels, stride 1.

    Attributes
    ----------
    dilations : tuple of int
        First layer first.
    receptive_field : int
        ``1 + (k - 1) sum d``.
    coverage : Coverage
        Of the stack, on one axis.
    optimal : bool
        True if this place in the ranking is proven: every schedule that could be better has been ruled out.
    """

    dilations: tuple[int, ...]
    receptive_field: int
    coverage: Coverage
    optimal: bool


def _schedule(dilations: Sequence[int], kernel: int, optimal: bool) -> Schedule:
    found = coverage([Layer(kernel, dilation=d) for d in dilations])
    return Schedule(tuple(dilations), found.size, found, optimal)


def design_schedule(
    kernel_size: int,
    receptive_field: int,
    *,
    layers: int | None = None,
    max_dilation: int | None = None,
    exact: bool = False,
    count: int = 5,
    max_macs: int | None = None,
    macs_per_layer: int | None = None,
) -> list[Schedule]:
    """Dilations with which a stack of equal kernels reaches a receptive field without holes.

    Ranked by the number of layers, which is what costs; then by evenness, the smallest variation of the path counts;
    then by the narrower field. All that are returned have the fewest layers possible.

    Parameters
    ----------
    kernel_size : int
        2 to 2**24, the same in all layers.
    receptive_field : int
        Samples to reach, 2 to 2**24. Schedules that see far more than 2**24 are not considered.
    layers : int, optional
        Budget: at most this many layers.
    max_dilation : int, optional
        Budget: no dilation above this.
    exact : bool
        Whether the field must be `receptive_field` to the sample, rather than at least.
    count : int
        How many schedules are returned at most.
    max_macs, macs_per_layer : int, optional
        Budget of multiply-accumulates, and those of one layer (`cost`), which do not depend on its dilation.

    Returns
    -------
    list of Schedule
        Best first, dilations ascending; their order changes neither field nor coverage.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or no schedule keeps the budgets: the text says which bound stands against it.

    Notes
    -----
    A hole-free stack has at least one path to each position, so R is at most k**layers; and ``R - 1`` is a multiple of
    ``k - 1``. Path counts that are all equal are the mixed radix schedules (`is_uniform`), so ``1, k, k**2, ...``
    cannot be improved on. Spaces of up to 20,000 schedules are searched completely (fewer where the field is wide); in
    larger ones the best found by local search are returned, with `optimal` False unless their counts are all equal.

    Examples
    --------
    >>> [schedule.dilations for schedule in design_schedule(3, 27, exact=True, count=1)]
    [(1, 3, 9)]
    >>> best = design_schedule(3, 21, exact=True)[0]
    >>> best.dilations, best.receptive_field, best.optimal
    ((1, 2, 7), 21, True)
    >>> design_schedule(3, 1000, layers=6)
    Traceback (most recent call last):
    ...
    ValueError: layers=6: expected at least 7 layers: 6 of kernel 3 see at most 729 without holes, not 1000
    """
    kernel = as_int("kernel_size", kernel_size, 2)
    least = as_int("receptive_field", receptive_field, 2)
    if least > WIDEST:
        raise bad_value("receptive_field", receptive_field, f"at most {WIDEST}")
    if kernel > WIDEST:
        raise bad_value("kernel_size", kernel_size, f"at most {WIDEST}")
    if as_flag("exact", exact) and (least - 1) % (kernel - 1):
        lower = least - (least - 1) % (kernel - 1)
        near = f"{lower} or {lower + kernel - 1}" if lower > 1 else str(kernel)
        raise bad_value("receptive_field", least, f"1 plus a multiple of {kernel - 1} for kernel {kernel}: {near}")
    widest = least if max_dilation is None else as_int("max_dilation", max_dilation, 1)
    wanted = as_int("count", count, 1)
    depth = fewest_layers(kernel, least, widest)
    # The narrowest field that suffices may exceed WIDEST, but not by more than a kernel.
    most = least if exact else max(WIDEST, 1 - (1 - least) // (kernel - 1) * (kernel - 1))
    _check_budgets(Space(kernel, depth, least, most, widest), layers, max_dilation, max_macs, macs_per_layer)
    if depth > DEEPEST:
        raise bad_value("max_dilation", max_dilation, f"a dilation with which {DEEPEST} layers do, not {depth}")
    space = Space(kernel, depth, least, most, min(widest, kernel**depth))
    if is_small(space):
        found = heapq.nsmallest(wanted, every_schedule(space))
        return [_schedule(row.dilations, kernel, True) for row in found]
    designs = [_schedule(row.dilations, kernel, False) for row in best_found(space, wanted)]
    return [designs[0]._replace(optimal=designs[0].coverage.cv == 0), *designs[1:]]


def _check_budgets(
    space: Space, layers: int | None, max_dilation: int | None, max_macs: int | None, macs_per_layer: int | None
) -> None:
    """Refuse budgets that the space's depth exceeds; its number of layers is a lower bound that is attained."""
    kernel, depth, least = space.kernel, space.depth, space.least
    limit = "" if max_dilation is None else f" and dilation at most {max_dilation}"
    if layers is not None and as_int("layers", layers, 1) < depth:
        most = space.furthest(1, layers)
        reason = f"{layers} of kernel {kernel}{limit} see at most {most} without holes, not {least}"
        raise bad_value("layers", layers, f"at least {depth} layers: {reason}")
    if (max_macs is None) != (macs_per_layer is None):
        raise bad_value("max_macs", max_macs, f"a budget together with macs_per_layer={macs_per_layer}")
    if max_macs is not None:
        needed = depth * as_int("macs_per_layer", macs_per_layer, 1)
        if as_int("max_macs", max_macs, 1) < needed:
            raise bad_value("max_macs", max_macs, f"at least {needed}: {depth} layers are needed{limit}")


def repair_schedule(dilations: Iterable[int], kernel_size: int) -> Schedule:
    """The hole-free schedule nearest to a given one: same layers, same kernel, dilations changed as little as possible.

    Parameters
    ----------
    dilations : iterable of int
        Of a stride-1 stack, in any order, each at least 1, at least one of them.
    kernel_size : int
        At least 2.

    Returns
    -------
    Schedule
        In the order of `dilations`. The sum of all changes is the smallest possible, and among such schedules the
        field is the widest. A schedule without holes comes back as it is.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Notes
    -----
    Matching sorted dilations to sorted dilations costs least, so layer after layer, smallest first, the reach so far is
    all that matters (a dynamic programme). Lowering a dilation below what the reach allows never helps.

    Examples
    --------
    >>> tuple(repair_schedule(dilations, 3).dilations for dilations in ([2, 4], [1, 2, 9], [8, 1, 2]))
    ((1, 3), (1, 3, 9), (8, 1, 3))
    """
    given = parse_dilations(dilations)
    kernel = as_int("kernel_size", kernel_size, 2)
    nearest = _nearest(sorted(given), kernel)
    spare = Counter(nearest)
    repaired = [0] * len(given)
    for index, dilation in enumerate(given):  # a layer whose dilation is still in use keeps it
        if spare[dilation]:
            spare[dilation] -= 1
            repaired[index] = dilation
    moved = sorted((index for index, dilation in enumerate(repaired) if not dilation), key=given.__getitem__)
    for index, dilation in zip(moved, sorted(spare.elements()), strict=True):
        repaired[index] = dilation
    return _schedule(repaired, kernel, True)


def _nearest(given: Sequence[int], kernel: int) -> tuple[int, ...]:
    """The hole-free schedule nearest to ascending dilations, the widest of them."""
    widest = given[-1]
    bound, reach = 0, 1  # the change if every dilation is lowered to the reach: a better schedule changes no more
    for wanted in given:
        bound += max(wanted - reach, 0)
        reach += (kernel - 1) * min(wanted, reach)
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {1: (0, 0, ())}  # reach -> change, - sum, schedule
    for wanted in given:
        further: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for reached, (change, negative, chosen) in best.items():
            highest = min(reached, widest)
            for dilation in range(min(wanted, highest), min(highest, max(wanted + bound - change, 0)) + 1):
                row = change + abs(dilation - wanted), negative - dilation, (*chosen, dilation)
                reach = min(reached + (kernel - 1) * dilation, widest)  # beyond it, nothing is out of reach
                if reach not in further or row[:2] < further[reach][:2]:
                    further[reach] = row
        best, least = {}, bound + 1
        for reach in sorted(further, reverse=True):  # a smaller reach is worth keeping for a smaller change only
            if further[reach][0] < least:
                best[reach], least = further[reach], further[reach][0]
    return min(best.values())[2]
