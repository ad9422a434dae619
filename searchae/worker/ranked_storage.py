"""A study's trials as its sampler and its pruner are to see them."""
# ruff: noqa: D102 (BaseStorage documents the overridden methods)

from __future__ import annotations

import copy
from collections.abc import Container

from optuna.trial import FrozenTrial, TrialState

from searchae.config import OBJECTIVES
from searchae.search import INCREMENTAL_FROM, FinishedTrialCursor, is_paused
from searchae.storage import ResilientStorage
from searchae.study import INVALID, StoredStudy, outcome_of

MARGIN = 1.0
"""By how much a trial that ended badly is worse than the worst trained one, in each objective."""


class RankedStorage(ResilientStorage):
    """A study's storage that ranks trials that ended badly below every trained one.

    Such a trial is stored as complete with infinitely bad values. TPE puts any complete trial
    before every pruned one, and the Gaussian process takes finite values only. So TPE is shown a
    pruned trial without reports, which it puts last of all, and every other sampler (and TPE with
    several objectives, where nothing is pruned) values that are just worse than the worst ones.

    Paused trials are shown as pruned, so that a sampler learns from them. The incremental sampler
    of large studies reads a finished trial once; it does not see the few that are paused.

    Args:
        stored: The study.
    """

    def __init__(self, stored: StoredStudy) -> None:
        storage, search = stored.storage, stored.spec.search
        super().__init__(
            storage.backend, storage.rdb, batching=storage.batching, backoff=storage.backoff
        )
        self._objectives = [OBJECTIVES[name] for name in search.objectives]
        self._as_pruned = search.sampler == "tpe" and not search.has_several_objectives
        self._lowest_db = stored.baseline_db
        self._cursor = FinishedTrialCursor()
        self._worst: list[float] | None = None  # scores of trained trials: the larger the better
        self._bad: dict[int, FrozenTrial] = {}
        self._left_out: dict[int, FrozenTrial] = {}  # of other programs, outside the space
        self._spec = stored.spec

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        found = super().get_all_trials(study_id, deepcopy=False)
        self._read(found)
        for number, trial in {**self._bad, **self._left_out}.items():
            found[number] = trial
        if self._spec.search.pauses and len(found) < INCREMENTAL_FROM:
            found = [_as_pruned(t) if is_paused(t) else t for t in found]
        found = [t for t in found if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _read(self, trials: list[FrozenTrial]) -> None:
        """Takes the trials into account that have ended since the last call."""
        ended, _ = self._cursor.read(trials)
        for number in ended:
            trial = trials[number]
            outcome = outcome_of(self._spec, trial)
            if outcome == INVALID:
                self._left_out[number] = copy.copy(trial)
                self._left_out[number].state = TrialState.FAIL
            elif outcome and trial.state == TrialState.COMPLETE:
                self._bad[number] = copy.copy(trial)
            elif trial.state == TrialState.COMPLETE:
                scores = [o.score(v) for o, v in zip(self._objectives, trial.values, strict=True)]
                self._worst = list(map(min, scores, self._worst or scores))
        if ended:
            self._rank()

    def _rank(self) -> None:
        worst = self._worst or [self._lowest_db, *(0.0 for _ in self._objectives[1:])]
        values = [o.score(s - MARGIN) for o, s in zip(self._objectives, worst, strict=True)]
        for trial in self._bad.values():
            if self._as_pruned:
                trial.values, trial.intermediate_values = None, {}
                trial.state = TrialState.PRUNED
            else:
                trial.values = values


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.state = TrialState.PRUNED
    return shown
