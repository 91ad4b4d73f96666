"""The space of hole-free schedules of one kernel, and the search for the most even of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from fastdil.theory.combs import box

#: Schedules of the fewest layers that are all looked at, so that the best is proven to be the best.
EXHAUSTIVE = 20_000
#: Samples of path counts that a search may add up: about a second.
WORK = 4 * 10**7


class Space(NamedTuple):
    """Hole-free schedules in ascending order: each d at most 1 + (k - 1) sum of those before, and at most `widest`."""

    kernel: int
    depth: int
    least: int  #: receptive field that is wanted
    most: int  #: receptive field that is still of interest; `least` where it must be exact
    widest: int

    def furthest(self, reached: int, layers: int) -> int:
        """The largest receptive field after `layers` more layers."""
        while layers and reached < self.widest:
            reached, layers = reached * self.kernel, layers - 1
        return reached + layers * (self.kernel - 1) * self.widest

    def steps(self, reached: int, last: int, layers: int) -> range:
        """Dilations of the next layer from which the wanted field can be reached, `layers` to go, widest first."""
        step = self.kernel - 1
        # Those that follow are no smaller.
        highest = min(reached, self.widest, (self.most - reached) // (step * layers))
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
        return self.least <= reached <= self.most

    @property
    def is_exact(self) -> bool:
        """Whether only one receptive field will do."""
        return self.least == self.most

    def work(self) -> int:
        """Samples of path counts that the widest schedule takes."""
        return self.depth * min(self.furthest(1, self.depth), self.most)


def fewest_layers(kernel: int, least: int, widest: int) -> int:
    """Layers without which no hole-free schedule reaches `least`."""
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

    def ranked(self, dilations: tuple[int, ...]) -> Ranked:
        """The schedule with its place."""
        energy = np.dot(self.values, self.values).item()
        return Ranked(len(self.values) * energy, len(self.values), dilations)


class Ranked(NamedTuple):
    """A schedule with what it is ranked by: evenness, then the narrower field."""

    spread: float | int
    size: int
    dilations: tuple[int, ...]


def every_schedule(space: Space) -> Iterator[Ranked]:
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


def _rank(space: Space, dilations: tuple[int, ...]) -> Ranked:
    counts = _Counts.none(space.kernel**space.depth)
    for dilation in dilations:
        counts = counts.through(space.kernel, dilation)
    return counts.ranked(dilations)


def is_small(space: Space) -> bool:
    """Whether all schedules of the space may be looked at."""
    limit = min(EXHAUSTIVE, WORK // space.work())
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


def _neighbours(space: Space, dilations: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Schedules in which one dilation differs, or two by powers of two; valid or not."""
    for up in range(space.depth):
        for down in range(space.depth) if space.is_exact else [*range(space.depth), None]:
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


def _starts(space: Space) -> Iterator[tuple[int, ...]]:
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


def best_found(space: Space, count: int) -> list[Ranked]:
    """Best-first search from the starts, as long as the work lasts."""
    known: dict[tuple[int, ...], Ranked] = {}
    queue: list[Ranked] = []
    budget = max(WORK // space.work(), 4 * count)

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
