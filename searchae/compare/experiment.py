"""The matched experiment on one parameter: which trainings it wants, and what they came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.compare.bases import Factor, choice_text
from searchae.compare.cells import Cell, CellMaker
from searchae.compare.matched_design import (
    Design,
    Limits,
    Step,
    first_design,
    next_design,
)
from searchae.compare.matched_results import MatchedResults
from searchae.compare.tuning import FINAL_TRAININGS, MOST_FINALISTS
from searchae.retrain import Results
from searchae.study import ListedTraining
from searchae.worker import TrainingRecord

GIVE_UP_BASES = 3
"""A choice that comes to nothing in the tries of so many bases is not tried in further ones."""
FAILED_SEEDS = 1
"""Seeds with which a choice is measured in a base where its tries have learned nothing."""
Choice = tuple[str, Any]
"""A parameter's key, and one of its choices."""

ReadRecord = Callable[[str], TrainingRecord]
"""Returns the measurements of a training by its key."""


@dataclass(frozen=True)
class Wanted:
    """What an experiment wants, given the results so far.

    Attributes:
        trainings: All trainings, those that have ended included, in order.
        design: The bases and seeds that they are for; None once the experiment is over.
        looks: The designs that were complete, the newest last.
        step: What the newest look said; None before the first.
        is_short: Whether it ended because of the limit of trainings.
    """

    trainings: tuple[ListedTraining, ...]
    design: Design | None
    looks: tuple[Design, ...]
    step: Step | None
    is_short: bool = False


class Experiment:
    """The matched experiment on one parameter.

    Args:
        factor: The parameter and its bases.
        cells: Makes the cells.
        limits: How far the experiment may grow.
        baseline_db: PSNR of the mean training image on each test image, in dB: float64 (N,).
        read: Reads measurements.
        base_names: The bases as texts.
        least_db: Validation PSNR in dB that a choice must reach in a base by its tries to come to
            something there.
    """

    def __init__(
        self,
        factor: Factor,
        cells: CellMaker,
        limits: Limits,
        *,
        baseline_db: npt.NDArray[np.float64],
        read: ReadRecord,
        base_names: Sequence[str],
        least_db: float,
    ) -> None:
        self.factor, self.limits = factor, limits
        self.choices = tuple(map(choice_text, cells.choices))
        self.bases = tuple(base_names)
        self.cells: list[list[Cell]] = [
            [cells.cell(base, choice) for base in factor.bases] for choice in cells.choices
        ]
        self.baseline_db, self._read, self._least_db = baseline_db, read, least_db
        self._skipped: frozenset[Choice] = frozenset()
        self._steps: dict[tuple[Design, Limits, frozenset[Choice], int | None], Step] = {}

    @property
    def parameter(self) -> str:
        """The parameter's name."""
        return self.factor.parameter.name

    @property
    def tries(self) -> int:
        """Number of tries of each cell in which something learns, at least."""
        tries = self.cells[0][0].tries
        return tries + FINAL_TRAININGS if tries else 0

    def given_up(self, results: Results) -> set[Choice]:
        """Returns the choices that came to nothing in the first bases."""
        key, choices = self.factor.parameter.key, self.factor.parameter.choices
        return {(key, choices[i]) for i in self._given_up(results, frozenset())}

    def _given_up(self, results: Results, skipped: AbstractSet[Choice]) -> list[int]:
        first = self._used_bases(GIVE_UP_BASES, results, skipped)
        return [c for c in range(len(self.choices)) if self._is_given_up(c, first, results)]

    def skip(self, choices: AbstractSet[Choice]) -> None:
        """Leaves out the bases with choices of other parameters that have been given up.

        Args:
            choices: The choices.
        """
        key = self.factor.parameter.key
        self._skipped = frozenset(c for c in choices if c[0] != key)

    def first_look(self) -> Design:
        """Returns the first design."""
        return first_design(self.limits, self.factor.population)

    def wanted(
        self, results: Results, *, others: AbstractSet[str] = frozenset(), limit: float = math.inf
    ) -> Wanted:
        """Returns the trainings that are wanted; depends on nothing but the results.

        Args:
            results: The results so far.
            others: Keys of the trainings that are wanted anyway.
            limit: The largest number of trainings, ``others`` included; a further look that would
                need more is not begun.
        """
        design: Design | None = self.first_look()
        trainings: dict[str, ListedTraining] = {}
        looks: list[Design] = []
        step, limits = None, self.limits
        while design is not None:
            found, unnamed = self._trainings(design, results)
            is_complete = not unnamed and all(has_ended(results, t) for t in found)
            keys = {*others, *trainings, *(t.key for t in found)}
            if looks and not is_complete and len(keys) + unnamed > limit:
                return Wanted(tuple(trainings.values()), None, tuple(looks), step, is_short=True)
            trainings.update({t.key: t for t in found})
            if not is_complete:
                break
            used = len(self.used_bases(design.bases, results))
            if used < design.bases:  # no further base is of use
                limits = replace(limits, bases=used)
                least = first_design(limits, self.population(results)).seeds if used else 0
                design = Design(used, max(design.seeds, least)) if used else None
                continue
            if design not in looks:
                looks.append(design)
            step = self._step(design, limits, results)
            design = step.next
        return Wanted(tuple(trainings.values()), design, tuple(looks), step)

    def used_bases(self, count: int, results: Results) -> list[int]:
        """Returns the first bases in which the tries of at least one choice came to something.

        A base whose tries have not ended counts as one of them.

        Args:
            count: How many bases.
            results: The results so far.

        Returns:
            The bases' indices.
        """
        return self._used_bases(count, results, self._skipped)

    def _used_bases(self, count: int, results: Results, skipped: AbstractSet[Choice]) -> list[int]:
        used: list[int] = []
        for b, base in enumerate(self.factor.bases):
            if len(used) == count:
                break
            if any(base.values.get(key) == choice for key, choice in skipped):
                continue
            if self._is_of_use(b, used, results):
                used.append(b)
        return used

    def cells_of(self, design: Design, results: Results) -> dict[tuple[int, int], Cell]:
        """Returns the cells of a design by the indices of their choice and base, base by base."""
        used = self.used_bases(design.bases, results)
        return {
            (c, base): row[base]
            for place, base in enumerate(used)
            for c, row in enumerate(self.cells)
            if not self._is_put_off(c, used[:place], results)
        }

    def _is_of_use(self, base: int, before: Sequence[int], results: Results) -> bool:
        """Returns whether a choice came to something in a base, or may still do so."""
        best = [
            None if self._is_put_off(c, before, results) else row[base].best_db(results)
            for c, row in enumerate(self.cells)
            if not self._is_given_up(c, before, results)
        ]
        return not best or any(db is None or db >= self._least_db for db in best)

    def _comes_to_something(self, cell: Cell, results: Results) -> bool | None:
        """Returns whether a choice came to something in a base; None before the tries' end."""
        best_db = cell.best_db(results)
        return None if best_db is None else best_db >= self._least_db

    def _is_put_off(self, choice: int, before: Sequence[int], results: Results) -> bool:
        """Returns whether a choice is not tried in a base after ``before``, or not yet."""
        first = self._first(choice, before)
        return len(first) == GIVE_UP_BASES and not any(
            self._comes_to_something(c, results) for c in first
        )

    def _is_given_up(self, choice: int, before: Sequence[int], results: Results) -> bool:
        """Returns whether a choice will never be tried in a base after ``before``."""
        first = self._first(choice, before)
        came = [self._comes_to_something(c, results) for c in first]
        return len(first) == GIVE_UP_BASES and all(found is False for found in came)

    def _first(self, choice: int, before: Sequence[int]) -> list[Cell]:
        return [self.cells[choice][base] for base in before[:GIVE_UP_BASES]]

    def population(self, results: Results) -> int | None:
        """Returns how many bases there are at all, without those known to be of no use."""
        if self.factor.population is None:
            return None
        listed = len(self.factor.bases)
        return self.factor.population - (listed - len(self.used_bases(listed, results)))

    def measured(self, cell: Cell, design: Design, results: Results) -> list[ListedTraining]:
        """Returns a cell's measured trainings; none before its tries have ended.

        One whose tries have learned nothing is measured with ``FAILED_SEEDS``.
        """
        best = cell.tuned(results).best
        if best is None:
            return []
        seeds = min(design.seeds, FAILED_SEEDS) if cell.has_failed(results) else design.seeds
        return [cell.measured(best, s) for s in range(seeds)]

    def matched(self, design: Design, results: Results) -> MatchedResults:
        """Reads the measurements of a complete design."""
        bases = self.used_bases(design.bases, results)
        shape = (len(self.choices), len(bases), design.seeds)
        psnr_db = np.full((*shape, len(self.baseline_db)), np.nan)
        failed = np.zeros(shape, dtype=bool)
        finals_db = np.full((*shape[:2], MOST_FINALISTS), np.nan)
        finals_seeds = np.ones_like(finals_db)
        for (c, b), cell in self.cells_of(design, results).items():
            for s, training in enumerate(self.measured(cell, design, results)):
                record, at = self._read(training.key), (c, bases.index(b), s)
                psnr_db[at], failed[at] = record.psnr_db, record.has_failed
            for i, (mean_db, seeds) in enumerate(cell.tuned(results).finals):
                at = (c, bases.index(b), i)
                finals_db[at], finals_seeds[at] = mean_db, seeds
        return MatchedResults(
            choices=self.choices,
            psnr_db=psnr_db,
            failed=failed,
            baseline_db=self.baseline_db,
            population=self.population(results),
            finals_db=finals_db,
            finals_seeds=finals_seeds,
        )

    def _step(self, design: Design, limits: Limits, results: Results) -> Step:
        at = (design, limits, self._skipped, self.population(results))
        if at not in self._steps:
            given_up = self._given_up(results, self._skipped)
            matched = self.matched(design, results)
            self._steps[at] = next_design(matched, limits, given_up=given_up)
        return self._steps[at]

    def _trainings(self, design: Design, results: Results) -> tuple[list[ListedTraining], int]:
        """Returns the trainings of a design that can be named now, and about how many cannot."""
        found: list[ListedTraining] = []
        unnamed = 0
        for cell in self.cells_of(design, results).values():
            tries = cell.tuned(results)
            found += tries.wanted
            if tries.best is None:
                unnamed += max(cell.tries - len(tries.wanted), 0) + FINAL_TRAININGS + design.seeds
            found += self.measured(cell, design, results)
        return found + self._of_unused_bases(design, results), unnamed

    def _of_unused_bases(self, design: Design, results: Results) -> list[ListedTraining]:
        """Returns the trainings that were made in bases that turned out to be of no use."""
        used = self.used_bases(design.bases, results)
        seen = used[-1] + 1 if len(used) == design.bases else len(self.factor.bases)
        made: list[ListedTraining] = []
        for base in sorted(set(range(seen)) - set(used)):
            for cell in (row[base] for row in self.cells):
                made += cell.tuned(results).wanted
                made += self.measured(cell, design, results)
        return [t for t in made if has_ended(results, t)]


def has_ended(results: Results, training: ListedTraining) -> bool:
    """Returns whether a training has ended with a result that can be used."""
    found = results.get(training.key)
    return found is not None and found.is_finished
