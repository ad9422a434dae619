"""Tunes the values that a choice may need for itself, by a compass search on a grid.

Choices are compared at equal tuning budgets: each gets the same number of tries in each base
(Sivaprasad et al. 2020, "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning"; Choi
et al. 2019, "On Empirical Comparisons of Optimizers for Deep Learning"), and more only as long as
its best value lies at the edge of what was tried. The first round has what the search knows and a
sweep over the whole range of the first value, the learning rate: from a rate at which nothing
learns, no small step says where to go. Where the sweep has found no rate that learns, those
beside the best are tried and no other value: there is nothing yet to tune. Each further round
goes one step away from the best point in each direction; when all of these are worse, the step is
halved (Kolda, Lewis and Torczon 2003, "Optimization by Direct Search", SIAM Review 45). The values
of all cells lie on one grid, so that cells that ask for the same training share it.

These tries are short, which favours high learning rates: they are soon good, and unstable or worse
in the end. So the best few are then trained for longer, and the one that is chosen has to train
with two seeds: see ``final_round``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from searchae.compare.bases import LEARNING_RATE
from searchae.config import Parameter, Value

TRIES = 7
"""Tries of each choice in each base, for one tuned value: where the search knows a good one, a
sweep in decades, and a step of half a decade to either side of the best."""
TRIES_PER_FURTHER_VALUE = 2
EDGE_FACTOR = 2
"""A choice gets at most this many times as many tries, while its best lies at the edge."""
_COARSE, _SWEEP = 2, 4
_PARTS = 12

FINALISTS = 3
"""Number of points in a final, if there are so many."""
LATE_FINALISTS = 2
"""Number of points in it where no try has learned anything."""
HOPELESS_DB = 3.0
"""A point that is so far behind in the tries, in dB, does not fill up the final."""
LOWER_FINALISTS = 2
"""Number of learning rates that may join it below the others."""
MOST_FINALISTS = FINALISTS + LOWER_FINALISTS
CLOSE_DB = 1.0
"""Where the second best point of a final is at most so far behind, it gets a second seed too."""
FINAL_TRAININGS = FINALISTS + 1
"""Number of trainings of a final, mostly."""

Point = tuple[int, ...]
"""One index into the grid of each tuned value."""


@dataclass(frozen=True)
class Grid:
    """The values of one parameter that may be tried.

    Attributes:
        parameter: The searched range.
        unit: Distance of two values: in decades if the range is logarithmic, else as a number.
    """

    parameter: Parameter
    unit: float

    @classmethod
    def of(cls, parameter: Parameter) -> Grid:
        """Returns the grid of a range: of quarter decades for a learning rate, half for others.

        Whole numbers are at least 1 apart, unless the range is logarithmic: nearer ones would be
        rounded to the same number, and tried twice.
        """
        p = parameter
        span = math.log10(p.high / p.low) if p.log else p.high - p.low
        usual = (0.25 if p.key == LEARNING_RATE else 0.5) if p.log else span / _PARTS
        unit = min(usual, span / 4) or 1.0
        return cls(p, max(unit, 1.0) if p.integer and not p.log else unit)

    def index(self, value: float) -> int:
        """Returns the index of the value nearest to a number."""
        number = math.log10(value) if self.parameter.log else value
        return min(max(round(number / self.unit), self.lowest), self.highest)

    def value(self, index: int) -> Value:
        """Returns the value of an index."""
        p = self.parameter
        value = 10 ** (index * self.unit) if p.log else index * self.unit
        if p.step is not None:
            value = p.low + round((value - p.low) / p.step) * p.step
        value = min(max(float(f"{value:.4g}"), p.low), p.high)
        return round(value) if p.integer else value

    @property
    def lowest(self) -> int:
        """The index of the range's lower end."""
        p = self.parameter
        return math.floor((math.log10(p.low) if p.log else p.low) / self.unit + 1e-9)

    @property
    def highest(self) -> int:
        """The index of the range's upper end."""
        p = self.parameter
        return math.ceil((math.log10(p.high) if p.log else p.high) / self.unit - 1e-9)


Score = tuple[bool, float]
"""Whether a try trained to its end, and its validation PSNR in dB: the larger the better."""


@dataclass(frozen=True)
class Tuned:
    """The state of a search for the best point.

    Attributes:
        wanted: The points that were tried or are to be tried now, in order.
        best: The best point; None before the end.
        at_edge: The places in the best point of the values at the end of their range, or of what
            was tried.
    """

    wanted: tuple[Point, ...]
    best: Point | None
    at_edge: frozenset[int] = frozenset()


def tune(
    grids: Sequence[Grid],
    start: Point,
    tries: int,
    score: Callable[[Point], Score | None],
    *,
    trains_db: float = -math.inf,
) -> Tuned:
    """Returns the points to try, given the results so far; depends on nothing else.

    Args:
        grids: The grid of each tuned value.
        start: The point to begin with.
        tries: How many points to try.
        score: Returns the result of a point; None while there is none.
        trains_db: Validation PSNR in dB from which on a try has learned something.
    """
    tried: dict[Point, Score] = {}
    while batch := _next_batch(grids, start, tries, tried, trains_db):
        scores = {point: score(point) for point in batch}
        if any(found is None for found in scores.values()):
            return Tuned((*tried, *batch), None)
        tried.update({p: found for p, found in scores.items() if found is not None})
    best = _best(tried, trains_db)
    if tried[best][1] < trains_db:
        return Tuned(tuple(tried), best)
    open_axes = (_axis(best, beyond) for beyond in _edges(grids, tried, best))
    return Tuned(tuple(tried), best, _at_end(grids, best).union(open_axes))


def _next_batch(
    grids: Sequence[Grid],
    start: Point,
    tries: int,
    tried: dict[Point, Score],
    trains_db: float,
) -> list[Point]:
    """Returns the points to try next, all at once; none if the search is over."""
    if not tried:
        return [start, *_sweep(grids, start)]
    best, left = _best(tried, trains_db), tries - len(tried)
    if tried[best][1] < trains_db:
        beside = _around(grids[:1], best, _COARSE)
        return [p for p in beside if p not in tried][: max(TRIES - len(tried), 0)]
    if left > 0:
        for step in (_COARSE, 1):
            new = [p for p in _around(grids, best, step) if p not in tried]
            if new:
                return new[:left]
    if len(tried) < EDGE_FACTOR * tries:
        return _edges(grids, tried, best)[: EDGE_FACTOR * tries - len(tried)]
    return []


def _sweep(grids: Sequence[Grid], start: Point) -> list[Point]:
    """Returns points over the whole range of the first value, away from where the tries begin."""
    first = grids[0]
    indices = [*range(first.lowest, first.highest, _SWEEP), first.highest]
    return [(i, *start[1:]) for i in indices if abs(i - start[0]) >= _COARSE]


def _best(tried: dict[Point, Score], trains_db: float) -> Point:
    """Returns the best point, the first of equal ones."""
    return max(tried, key=lambda point: _rank(tried[point], trains_db))


def _rank(score: Score, trains_db: float) -> tuple[bool, float]:
    """Returns the rank of a try, the larger the better.

    One that was stopped early is better only than those that learned nothing to their end.
    """
    is_complete, psnr_db = score
    return is_complete and psnr_db >= trains_db, psnr_db


def _around(grids: Sequence[Grid], point: Point, step: int) -> Iterator[Point]:
    """Yields the points one step away within the ranges, along one value at a time."""
    for axis, grid in enumerate(grids):
        for direction in (-step, step):
            moved = min(max(point[axis] + direction, grid.lowest), grid.highest)
            if moved != point[axis]:
                yield (*point[:axis], moved, *point[axis + 1 :])


def _edges(grids: Sequence[Grid], tried: dict[Point, Score], best: Point) -> list[Point]:
    """Returns the points beyond the best one in each direction in which nothing was tried."""
    found = []
    for beyond in _around(grids, best, _COARSE):
        axis = _axis(best, beyond)
        sign = 1 if beyond[axis] > best[axis] else -1
        if not any(sign * p[axis] > sign * best[axis] for p in tried):
            found.append(beyond)
    return found


def _axis(point: Point, beside: Point) -> int:
    """Returns the place of the one value in which two points differ."""
    return next(i for i, (a, b) in enumerate(zip(point, beside, strict=True)) if a != b)


@dataclass(frozen=True)
class Final:
    """The state of a final.

    Attributes:
        wanted: The points that were or are to be in the final now, in order.
        again: Those of them that get a second seed.
        scores: Mean PSNR in dB and number of seeds of each point; empty before the end.
        best: The best point; None before the end.
        at_edge: As of ``Tuned``.
    """

    wanted: tuple[Point, ...]
    again: tuple[Point, ...] = ()
    scores: Mapping[Point, tuple[float, int]] = field(default_factory=dict)
    best: Point | None = None
    at_edge: frozenset[int] = frozenset()


def final_round(
    grids: Sequence[Grid],
    start: Point,
    tried: Mapping[Point, Score],
    score: Callable[[Point, int], float | None],
    *,
    trains_db: float,
) -> Final:
    """Returns the points to train for longer, given the results so far; depends on nothing else.

    They are the best point of the tries, the best one with a lower learning rate, and the one that
    the tries began with, which a trial of the search has trained to its end; if these are not so
    many, further good ones. As long as the lowest rate wins, a lower one joins. The best gets a
    second seed, and so does the second best if it is close; the better mean wins. A rate may be so
    high that a net trains with one seed and not with another: where the second training has learned
    nothing, the next best point gets a second seed too, and after these lower rates join, until one
    has learned with both. They also join where tries have learned and the first trainings have not.
    Where no try has learned anything, two are trained all the same: a net may begin to learn late.
    If one does, rates beside it join: the tries have not been around it.

    Args:
        grids: The grid of each tuned value.
        start: The point that the tries began with.
        tried: The results of the tries.
        score: Returns the PSNR in dB of a point's training with the first (0) or the second (1) of
            two seeds; None while there is none.
        trains_db: Validation PSNR in dB from which on a training has learned something.
    """
    finals = _finalists(start, tried, trains_db)
    if len(finals) == 1:  # there is nothing to decide
        return Final((), best=finals[0], at_edge=_at_end(grids, finals[0]))
    has_learned = any(psnr_db >= trains_db for _, psnr_db in tried.values())
    return _FinalRound(grids, finals, score, trains_db).run(has_learned=has_learned)


class _FinalRound:
    """The steps of a final, from the results so far; see ``final_round``."""

    def __init__(
        self,
        grids: Sequence[Grid],
        points: Sequence[Point],
        score: Callable[[Point, int], float | None],
        trains_db: float,
    ) -> None:
        self._grids, self._score, self._trains_db = grids, score, trains_db
        self._points = list(points)
        self._most = len(points) + LOWER_FINALISTS

    def run(self, *, has_learned: bool) -> Final:
        """Returns the state of the final; ``has_learned`` is whether any try has."""
        while (ended := self._ended(self._points, 0)) is not None:
            best = max(self._points, key=ended.__getitem__)
            has_failed = ended[best] < self._trains_db
            joins = has_learned if has_failed else _is_lowest(self._grids, self._points, best)
            if joins and self._add_lower(best):
                continue
            if not has_learned and not has_failed and self._add_beside(best):
                continue
            if has_failed:
                scores = {p: (psnr_db, 1) for p, psnr_db in ended.items()}
                return Final(tuple(self._points), scores=scores, best=best)
            return self._with_second_seeds(ended)
        return Final(tuple(self._points))

    def _with_second_seeds(self, ended: dict[Point, float]) -> Final:
        """Returns the state once the best has learned with its first seed."""
        best, second, *others = sorted(ended, key=lambda p: -ended[p])
        is_close = ended[second] >= ended[best] - CLOSE_DB
        again = [best, second] if is_close else [best]
        left = [p for p in ([] if is_close else [second]) + others if ended[p] >= self._trains_db]
        while (found := self._ended(again, 1)) is not None:
            learned = [p for p in again if min(ended[p], found[p]) >= self._trains_db]
            if not learned and left:
                again.append(left.pop(0))
                continue
            if not learned and self._add_lower(best):
                lower = self._points[-1]
                if (psnr_db := self._score(lower, 0)) is None:
                    break
                ended[lower] = psnr_db
                left = [lower] if psnr_db >= self._trains_db else []
                continue
            scores = {p: (psnr_db, 1) for p, psnr_db in ended.items()}
            scores |= {p: ((ended[p] + found[p]) / 2, 2) for p in again}
            best = max(learned or again, key=lambda p: scores[p][0])
            at_edge = _at_end(self._grids, best)
            if _is_lowest(self._grids, self._points, best):
                at_edge |= {0}
            return Final(tuple(self._points), tuple(again), scores, best, at_edge)
        return Final(tuple(self._points), tuple(again))

    def _ended(self, points: Sequence[Point], seed: int) -> dict[Point, float] | None:
        """Returns the PSNR of each point with a seed; None while one is missing."""
        found = {p: self._score(p, seed) for p in points}
        ended = {p: psnr_db for p, psnr_db in found.items() if psnr_db is not None}
        return ended if len(ended) == len(points) else None

    def _add_beside(self, best: Point) -> bool:
        """Adds the best point with a rate one step of the grid away, if there may be one more."""
        beside = [p for p in _around(self._grids[:1], best, 1) if p not in self._points]
        if not beside or len(self._points) == self._most:
            return False
        self._points.append(beside[-1])
        return True

    def _add_lower(self, best: Point) -> bool:
        """Adds the best point with a learning rate below all others, if there may be one more."""
        lowest = min(self._points)[0]
        index = max(lowest - _COARSE, self._grids[0].lowest)
        is_rate = self._grids[0].parameter.key == LEARNING_RATE
        if not is_rate or index == lowest or len(self._points) == self._most:
            return False
        self._points.append((index, *best[1:]))
        return True


def _is_lowest(grids: Sequence[Grid], finals: Sequence[Point], best: Point) -> bool:
    """Returns whether a final's best learning rate is the lowest in it."""
    return grids[0].parameter.key == LEARNING_RATE and best[0] == min(finals)[0]


def _finalists(start: Point, tried: Mapping[Point, Score], trains_db: float) -> list[Point]:
    """Returns the points that a final begins with."""
    best, *others = sorted(tried, key=lambda p: _rank(tried[p], trains_db), reverse=True)
    lower = [p for p in others if p[0] < best[0]]
    if tried[best][1] < trains_db:
        return list(dict.fromkeys((best, *lower[:1], start, *others)))[:LATE_FINALISTS]
    good = [p for p in others if tried[p][1] >= tried[best][1] - HOPELESS_DB]
    differing = [p for p in good if p[0] != best[0]]
    wanted = dict.fromkeys((best, *lower[:1], start, *differing, *good))
    return list(wanted)[:FINALISTS]


def _at_end(grids: Sequence[Grid], point: Point) -> frozenset[int]:
    """Returns the places of a point's values that lie at an end of their range."""
    return frozenset(
        axis
        for axis, (grid, index) in enumerate(zip(grids, point, strict=True))
        if index in (grid.lowest, grid.highest)
    )
