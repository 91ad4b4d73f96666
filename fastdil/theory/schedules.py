"""Schedules of dilations: designed for a receptive field under budgets, and repaired where they have holes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from fastdil.errors import bad_type, bad_value
from fastdil.problem import as_int
from fastdil.theory.gridding import Coverage, coverage
from fastdil.theory.layers import Layer
from fastdil.theory.paths import box

#: Schedules of the fewest layers that are all looked at, so that the best is proven to be the best.
EXHAUSTIVE = 20_000
#: Samples of path counts that a search may add up: about a second.
WORK = 4 * 10**7
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


# ---------------------------------------------------------------------------------------------------------
# the space of hole-free schedules
# ---------------------------------------------------------------------------------------------------------


class _Space(NamedTuple):
    """Hole-free schedules in ascending order: each d at most 1 + (k - 1) sum of those before, and at most `widest`."""

    kernel: int
    depth: int
    least: int  #: receptive field that is wanted
    exact: bool
    widest: int

    def furthest(self, reached: int, layers: int) -> int:
        """The largest receptive field after `layers` more layers."""
        while layers and reached < self.widest:
            reached, layers = reached * self.kernel, layers - 1
        return reached + layers * (self.kernel - 1) * self.widest

    def steps(self, reached: int, last: int, layers: int) -> range:
        """Dilations of the next layer from which the wanted field can be reached, `layers` to go, widest first."""
        step = self.kernel - 1
        highest = min(reached, self.widest)
        if self.exact:  # those that follow are no smaller
            highest = min(highest, (self.least - reached) // (step * layers))
        low, high = last, highest + 1
        while low < high:  # furthest() grows with the dilation
            middle = (low + high) // 2
            if self.furthest(reached + step * middle, layers - 1) >= self.least:
                high = middle
            else:
                low = middle + 1
        return range(highest, low - 1, -1)

    def contains(self, dilations: Sequence[int]) -> bool:
        """Whether ascending `dilations` are in the space."""
        reached = 1
        for dilation in dilations:
            if not 1 <= dilation <= min(reached, self.widest):
                return False
            reached += (self.kernel - 1) * dilation
        return reached == self.least if self.exact else reached >= self.least


def _fewest_layers(kernel: int, least: int, widest: int) -> int:
    reached, layers = 1, 0
    while reached < least and reached < widest:
        reached, layers = reached * kernel, layers + 1
    return layers + max(-((reached - least) // ((kernel - 1) * widest)), 0)


class _Counts(NamedTuple):
    """Path counts as a search carries them along: whole numbers, or shares where their squares would not fit."""

    values: np.ndarray
    is_exact: bool

    @classmethod
    def none(cls, paths: int) -> _Counts:
        """Of no layer yet, for stacks of so many `paths`."""
        is_exact = paths**2 < 2**63
        return cls(np.ones(1, np.int64 if is_exact else float), is_exact)

    def through(self, kernel: int, dilation: int) -> _Counts:
        """Behind one more layer."""
        values = box(self.values, (kernel, dilation))
        return _Counts(values if self.is_exact else values / kernel, self.is_exact)

    def ranked(self, dilations: tuple[int, ...]) -> _Ranked:
        """The schedule with its place."""
        energy = np.dot(self.values, self.values).item()
        return _Ranked(len(self.values) * energy, len(self.values), dilations)


class _Ranked(NamedTuple):
    """A schedule with what it is ranked by: evenness, then the narrower field."""

    spread: float | int
    size: int
    dilations: tuple[int, ...]


def _every(space: _Space) -> Iterator[_Ranked]:
    """All schedules of the space."""
    waiting: list[tuple[_Counts, tuple[int, ...]]] = [(_Counts.none(space.kernel**space.depth), ())]
    while waiting:
        counts, chosen = waiting.pop()
        layers = space.depth - len(chosen)
        if not layers:
            yield counts.ranked(chosen)
            continue
        for dilation in space.steps(len(counts.values), chosen[-1] if chosen else 1, layers):
            waiting.append((counts.through(space.kernel, dilation), (*chosen, dilation)))


def _rank(space: _Space, dilations: tuple[int, ...]) -> _Ranked:
    counts = _Counts.none(space.kernel**space.depth)
    for dilation in dilations:
        counts = counts.through(space.kernel, dilation)
    return counts.ranked(dilations)


def _is_small(space: _Space) -> bool:
    """Whether all schedules of the space may be looked at."""
    limit = min(EXHAUSTIVE, WORK // (space.depth * space.furthest(1, space.depth)))
    seen, waiting = 0, [(1, 1, space.depth)]
    while waiting and seen <= limit:
        reached, last, layers = waiting.pop()
        options = space.steps(reached, last, layers)
        if layers == 1:
            seen += len(options)
        else:
            step = space.kernel - 1
            waiting += [(reached + step * d, d, layers - 1) for d in options[: limit - seen + 1]]
            seen += len(options) > limit - seen and limit
    return seen <= limit


def _neighbours(space: _Space, dilations: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Schedules in which one dilation differs, or two by powers of two; valid or not."""
    for up in range(space.depth):
        for down in range(space.depth) if space.exact else [*range(space.depth), None]:
            if up == down:
                continue
            for change in (1 << bit for bit in range(space.widest.bit_length())):
                for sign in (1, -1):
                    moved = list(dilations)
                    moved[up] += sign * change
                    if down is not None:
                        moved[down] -= sign * change
                    moved.sort()
                    yield tuple(moved)


def _starts(space: _Space) -> Iterator[tuple[int, ...]]:
    """Schedules to improve on: the widest steps first, and steps of one ratio."""
    for ratio in np.linspace(1.0, space.kernel, 8)[::-1]:
        reached = 1
        chosen: list[int] = []
        for layers in range(space.depth, 0, -1):
            options = space.steps(reached, chosen[-1] if chosen else 1, layers)
            wanted = round(chosen[-1] * ratio) if chosen else 1
            if not options:  # an exact field that ascending steps from here do not meet
                break
            chosen.append(min(max(wanted, options[-1]), options[0]))
            reached += (space.kernel - 1) * chosen[-1]
        if space.contains(chosen) and len(chosen) == space.depth:
            yield tuple(chosen)


def _search(space: _Space, count: int) -> list[_Ranked]:
    """Best-first search from the starts, as long as the work lasts."""
    known: dict[tuple[int, ...], _Ranked] = {}
    queue: list[_Ranked] = []
    budget = max(WORK // (space.depth * space.furthest(1, space.depth)), 4 * count)

    def meet(dilations: tuple[int, ...]) -> None:
        if dilations not in known and space.contains(dilations) and len(known) < min(budget, EXHAUSTIVE):
            known[dilations] = _rank(space, dilations)
            heapq.heappush(queue, known[dilations])

    for start in _starts(space):
        meet(start)
    tries = 20 * EXHAUSTIVE
    while queue and tries > 0 and len(known) < min(budget, EXHAUSTIVE):
        for dilations in islice(_neighbours(space, heapq.heappop(queue).dilations), tries):
            meet(dilations)
            tries -= 1
    return heapq.nsmallest(count, known.values())


# ---------------------------------------------------------------------------------------------------------
# public
# ---------------------------------------------------------------------------------------------------------


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
        At least 2, the same in all layers.
    receptive_field : int
        Samples to reach, 2 to 2**24.
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
    if exact and (least - 1) % (kernel - 1):
        lower = least - (least - 1) % (kernel - 1)
        near = f"{lower} or {lower + kernel - 1}" if lower > 1 else str(kernel)
        raise bad_value("receptive_field", least, f"1 plus a multiple of {kernel - 1} for kernel {kernel}: {near}")
    widest = least if max_dilation is None else as_int("max_dilation", max_dilation, 1)
    wanted = as_int("count", count, 1)
    depth = _fewest_layers(kernel, least, widest)
    _check_budgets(_Space(kernel, depth, least, exact, widest), layers, max_dilation, max_macs, macs_per_layer)
    if depth > DEEPEST:
        raise bad_value("max_dilation", max_dilation, f"a dilation with which {DEEPEST} layers do, not {depth}")
    space = _Space(kernel, depth, least, bool(exact), min(widest, kernel**depth))
    if _is_small(space):
        found = heapq.nsmallest(wanted, _every(space))
        return [_schedule(row.dilations, kernel, True) for row in found]
    designs = [_schedule(row.dilations, kernel, False) for row in _search(space, wanted)]
    return [designs[0]._replace(optimal=designs[0].coverage.cv == 0), *designs[1:]]


def _check_budgets(
    space: _Space, layers: int | None, max_dilation: int | None, max_macs: int | None, macs_per_layer: int | None
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
    if isinstance(dilations, str) or not isinstance(dilations, Iterable):
        raise bad_type("dilations", dilations, "a sequence of integers >= 1")
    given = [as_int("dilations", dilation, 1) for dilation in dilations]
    if not given:
        raise bad_value("dilations", dilations, "at least one dilation")
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
