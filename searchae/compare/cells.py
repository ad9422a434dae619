"""The cells of a matched experiment: each choice in each base, and their trainings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from searchae.compare.bases import (
    Factor,
    SearchedTrial,
    most_at_once,
    with_known_values,
)
from searchae.compare.tuning import (
    TRIES,
    TRIES_PER_FURTHER_VALUE,
    Grid,
    Point,
    Score,
    final_round,
    tune,
)
from searchae.config import StudySpec, TrainParams, TrialParams, middle_value, stored_value
from searchae.retrain import Results
from searchae.study import ListedTraining
from searchae.training import Precision

OPTIMIZER = "train.optimizer"
TRY_SHARE, FINAL_SHARE = 0.15, 0.6
"""Share of a measured training's epochs that a try has, and a training of the final. On SVHN's
digits, of rates trained for 100 epochs, the best after 60 came to 0.07 dB less than the best of
all, and the best after 25 to 1.1 dB less (benchmarks/references.md)."""
LEAST_EPOCHS, LEAST_STEPS = 5, 200
"""They have at least so many epochs, or so many training steps if these are fewer."""
FINAL_SEED = 1000
"""The final's first seed, counted from the first of the new seeds: never one that is measured."""


@dataclass(frozen=True)
class Schedule:
    """How the trainings of a comparison are done.

    Attributes:
        epochs: Epochs at most of a training that is measured; None for the search's.
        patience: Its epochs without improvement until early stopping; None for the search's.
        precision: Precision of all trainings.
        first_seed: The first of the new seeds, which count up from it.
        images: Number of training images; None if it is not known.
    """

    epochs: int | None
    patience: int | None
    precision: Precision
    first_seed: int
    images: int | None = None

    def shortened(self, train: TrainParams, share: float) -> int:
        """Returns the epochs of a training that has a share of a measured one's.

        Args:
            train: How the net is trained.
            share: The share.
        """
        whole, least = self.epochs or train.epochs, LEAST_EPOCHS
        if self.images is not None:
            least = min(least, math.ceil(LEAST_STEPS / math.ceil(self.images / train.batch_size)))
        return min(max(least, math.ceil(share * whole)), whole)


@dataclass(frozen=True)
class Tries:
    """The tries of a cell.

    Attributes:
        wanted: The tries that were made or are to be made now, in order.
        best: The best point; None before the end.
        at_edge: Names of its values at the end of their range, or of what was tried.
        finals: Mean validation PSNR in dB, and number of trainings, of each point of the final.
    """

    wanted: tuple[ListedTraining, ...]
    best: Point | None
    at_edge: tuple[str, ...] = ()
    finals: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Cell:
    """One choice in one base.

    Attributes:
        spec: The study.
        values: Searched key -> value, without the tuned ones.
        grids: The grid of each tuned value that is active here.
        start: The point to begin the tries with.
        tries: Number of tries, the same for all cells; 0 if nothing is tuned.
        schedule: How trainings are done.
        trains_db: Validation PSNR in dB from which on a try has learned something.
    """

    spec: StudySpec
    values: Mapping[str, Any]
    grids: tuple[Grid, ...]
    start: Point
    tries: int
    schedule: Schedule
    trains_db: float = -math.inf
    _ended: list[Tries] = field(default_factory=list, repr=False, compare=False)
    _attempts: dict[tuple[Point, int | None], ListedTraining] = field(
        default_factory=dict, repr=False, compare=False
    )

    def tuned(self, results: Results) -> Tries:
        """Returns how far the tries and the final have come."""
        if not self._ended:
            tries = self._tuned(results)
            if tries.best is None:
                return tries
            self._ended.append(tries)  # trials are never deleted, so nothing changes any more
        return self._ended[0]

    def _tuned(self, results: Results) -> Tries:
        if not self.grids:
            return Tries((), ())
        found = tune(
            self.grids,
            self.start,
            self.tries,
            partial(self._score, results),
            trains_db=self.trains_db,
        )
        tries = tuple(self.attempt(p) for p in found.wanted)
        if found.best is None:
            return Tries(tries, None)
        final = final_round(
            self.grids,
            self.start,
            {p: s for p in found.wanted if (s := self._score(results, p)) is not None},
            partial(self._final_db, results),
            trains_db=self.trains_db,
        )
        tries += tuple(self.final_attempt(p, 0) for p in final.wanted)
        tries += tuple(self.final_attempt(p, 1) for p in final.again)
        axes = final.at_edge | (found.at_edge if final.best == found.best else frozenset())
        at_edge = tuple(self.grids[axis].parameter.name for axis in sorted(axes))
        return Tries(tries, final.best, at_edge, tuple(final.scores.values()))

    def best_db(self, results: Results) -> float | None:
        """Returns the validation PSNR of the best try in dB; None before the tries have ended."""
        tuned = self.tuned(results)
        if tuned.best is None:
            return None
        found = (results[t.key].psnr_db for t in tuned.wanted)
        return max((db for db in found if db is not None), default=math.inf)

    def has_failed(self, results: Results) -> bool:
        """Returns whether the tries have ended and none has learned anything."""
        best_db = self.best_db(results)
        return best_db is not None and best_db < self.trains_db

    def _score(self, results: Results, point: Point) -> Score | None:
        found = results.get(self.attempt(point).key)
        if found is None or not found.is_finished or found.psnr_db is None:
            return None
        return not found.is_pruned, found.psnr_db

    def _final_db(self, results: Results, point: Point, number: int) -> float | None:
        """Returns the PSNR in dB of the epoch whose weights would be measured, once it is there."""
        found = results.get(self.final_attempt(point, number).key)
        if found is None or not found.is_finished or found.psnr_db is None:
            return None
        return found.psnr_db if found.outcome else max(found.curve.values(), default=found.psnr_db)

    def attempt(self, point: Point) -> ListedTraining:
        """Returns the training of a try: short, with the search's seed, and stopped where hopeless.

        Args:
            point: The point.
        """
        if (point, None) not in self._attempts:
            self._attempts[point, None] = self._attempt(self.values_at(point))
        return self._attempts[point, None]

    def final_attempt(self, point: Point, number: int) -> ListedTraining:
        """Returns a training of the final: as one that is measured, shorter, with another seed.

        Args:
            point: The point.
            number: Which of the final's seeds, from 0.
        """
        if (point, number) not in self._attempts:
            like = self.measured(point, FINAL_SEED + number)
            epochs = self.schedule.shortened(like.params.train, FINAL_SHARE)
            self._attempts[point, number] = replace(
                like,
                params=_with_epochs(like.params, epochs),
                is_tested=False,
                group=self.group,
            )
        return self._attempts[point, number]

    def _attempt(self, values: Mapping[str, Any]) -> ListedTraining:
        params = self.spec.resolve(values)
        epochs = self.schedule.shortened(params.train, TRY_SHARE)
        return ListedTraining(
            params=_with_epochs(params, epochs),
            seed=self.spec.seed,
            precision=self.schedule.precision,
            values=self._labels(values),
            is_tested=False,
            is_pruned=True,
            group=self.group,
        )

    def measured(self, point: Point, seed: int) -> ListedTraining:
        """Returns the training at the best point with one of the new seeds, counted from 0."""
        return self.measured_at(self.values_at(point), seed)

    def measured_at(self, values: Mapping[str, Any], seed: int) -> ListedTraining:
        """Returns the measured training with given values.

        Args:
            values: Searched key -> value, of all active parameters.
            seed: The number of the new seed, from 0.
        """
        schedule = self.schedule
        params = self.spec.resolve(values)
        changes = {"epochs": schedule.epochs, "patience": schedule.patience}
        given = {k: v for k, v in changes.items() if v is not None}
        return ListedTraining(
            params=replace(params, train=params.train.model_copy(update=given)),
            seed=schedule.first_seed + seed,
            precision=schedule.precision,
            values=self._labels(values),
        )

    def settings(self, point: Point) -> dict[str, Any]:
        """Returns the tuned values by name."""
        return {g.parameter.name: g.value(i) for g, i in zip(self.grids, point, strict=True)}

    def values_at(self, point: Point) -> dict[str, Any]:
        """Returns searched key -> value of all active parameters at a point."""
        tuned = {g.parameter.key: g.value(i) for g, i in zip(self.grids, point, strict=True)}
        return {**self.values, **tuned}

    def _labels(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {p.name: stored_value(p, values[p.key]) for p in self.spec.space if p.key in values}

    @cached_property
    def group(self) -> str:
        """16 hexadecimal digits that identify the cell's net: all values but the tuned ones."""
        text = json.dumps(dict(sorted(self.values.items())), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_epochs(params: TrialParams, epochs: int) -> TrialParams:
    """Returns the parameters of a shorter training, which goes through the whole schedule."""
    train = params.train
    share = epochs / train.epochs
    changes = {
        "epochs": epochs,
        "warmup_epochs": round(share * train.warmup_epochs),
        "beta_warmup_epochs": round(share * train.beta_warmup_epochs),
        "decay_epochs": max(round(share * train.decay_epochs), 1),
    }
    return replace(params, train=train.model_copy(update=changes))


class CellMaker:
    """Makes the cells of one parameter.

    Args:
        spec: The study.
        factor: The parameter and its bases.
        good: The study's good trials, the best first, for known values.
        schedule: How trainings are done.
        trains_db: See ``Cell``.
    """

    def __init__(
        self,
        spec: StudySpec,
        factor: Factor,
        good: Sequence[SearchedTrial],
        schedule: Schedule,
        *,
        trains_db: float = -math.inf,
    ) -> None:
        self._spec, self._factor, self._good, self._schedule = spec, factor, good, schedule
        self._trains_db = trains_db
        self._space = {p.key: p for p in spec.space}
        values = most_at_once(factor.tuned)
        self._tries = TRIES + TRIES_PER_FURTHER_VALUE * (values - 1) if values else 0

    @property
    def choices(self) -> tuple[Any, ...]:
        """The parameter's choices, in the study file's order."""
        return self._factor.parameter.choices

    def cell(self, base: SearchedTrial, choice: Any) -> Cell:
        """Returns the cell of a choice in a base."""
        values = {
            k: v
            for k, v in {**base.values, self._factor.parameter.key: choice}.items()
            if k not in self._factor.tuned
        }
        values = {k: v for k, v in values.items() if self._spec.is_active(k, values)}
        values = with_known_values(self._spec, values, self._good, leave_out=self._factor.tuned)
        active = [self._space[k] for k in self._factor.tuned if self._spec.is_active(k, values)]
        grids = tuple(Grid.of(p) for p in active)
        return Cell(
            spec=self._spec,
            values=values,
            grids=grids,
            start=self._start(values, grids),
            tries=self._tries,
            schedule=self._schedule,
            trains_db=self._trains_db,
        )

    def _start(self, values: Mapping[str, Any], grids: Sequence[Grid]) -> Point:
        """Returns the tuned values of the good trial that is most like a cell.

        That is one with the same optimizer, which the best learning rate depends on more than on
        anything else, then the one with the most choices in common, then the best.
        """
        choosing = [p.key for p in self._space.values() if p.choices]

        def likeness(trial: SearchedTrial) -> tuple[bool, int, float]:
            same = [trial.values.get(k) == values.get(k) for k in choosing]
            optimizer = trial.values.get(OPTIMIZER) == values.get(OPTIMIZER)
            return optimizer, sum(same), trial.psnr_db

        known = max(self._good, key=likeness).values
        return tuple(
            g.index(float(known.get(g.parameter.key, middle_value(g.parameter)))) for g in grids
        )
