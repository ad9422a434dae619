"""Samples the parameters of claimed trials with Optuna."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from searchae.config import TrialParams, initial_params, sample_params, sampler_seed
from searchae.search import (
    PAUSED,
    ChoiceFloor,
    Rungs,
    SizeLimit,
    SizeLimitedSampler,
    TrialHistory,
    is_paused,
    make_pruner,
    make_sampler,
)
from searchae.storage import ResilientStorage
from searchae.study import (
    BUDGET,
    IMPORTED,
    REFUSED,
    RUNTIME,
    STARTING,
    WARM_START,
    StoredStudy,
    has_result,
    misfit,
)
from searchae.worker.ranked_storage import RankedStorage


class InvalidTrialError(Exception):
    """A trial of another program has parameters outside the study's space."""


class RecordedTrial:
    """An Optuna trial that remembers its reports; Optuna's own only reads them from the database.

    Args:
        trial: The trial.
        number: Its number.
        reports: Step -> PSNR in dB, as reported by earlier workers.
    """

    def __init__(self, trial: optuna.Trial, number: int, reports: Mapping[int, float]) -> None:
        self.number = number
        self._trial, self._reports = trial, dict(reports)

    def report(self, value: float, step: int) -> None:
        """Records a PSNR in dB; ``SearchSpec.reports_per_epoch`` steps are an epoch."""
        self._trial.report(value, step)
        self._reports.setdefault(step, value)

    def should_prune(self) -> bool:
        """Returns whether the pruner stops the trial."""
        return self._trial.should_prune()

    def should_pause(self) -> bool:
        """Returns False."""
        return False

    @property
    def last_value(self) -> float | None:
        """The PSNR in dB that was reported last; None before the first report."""
        return self._reports[max(self._reports)] if self._reports else None


class UnprunedTrial(RecordedTrial):
    """A trial of a study with several objectives, for which Optuna takes no reports.

    Args:
        storage: Where the reports are written.
        trial_id: The trial's id in the database.
    """

    def __init__(self, *recorded: Any, storage: ResilientStorage, trial_id: int) -> None:
        super().__init__(*recorded)
        self._storage, self._trial_id = storage, trial_id

    def report(self, value: float, step: int) -> None:
        """Records a PSNR in dB; ``SearchSpec.reports_per_epoch`` steps are an epoch."""
        self._storage.set_trial_intermediate_value(self._trial_id, step, value)
        self._reports.setdefault(step, value)

    def should_prune(self) -> bool:
        """Returns False."""
        return False


class PausableTrial(RecordedTrial):
    """A trial that is paused where it is not among the best of its rung.

    Args:
        stored: The study.
        rungs: Its rungs.
    """

    def __init__(self, *recorded: Any, stored: StoredStudy, rungs: Rungs) -> None:
        super().__init__(*recorded)
        self._stored, self._rungs = stored, rungs

    def should_pause(self) -> bool:
        """Returns whether the trial is on a rung and not among the best there.

        The last one to run goes on all the same if no other has come to its end.
        """
        step = max(self._reports)
        if step not in self._rungs.steps:
            return False
        trials = self._stored.study.get_trials(deepcopy=False)
        psnr_db = self._reports[step]
        if self._rungs.goes_on(trials, self.number, step=step, psnr_db=psnr_db):
            return False
        return not self._is_leader(trials, step)

    def _is_leader(self, trials: Sequence[FrozenTrial], step: int) -> bool:
        """Returns whether this is the trial that ``Rungs.leader`` returned, or would return."""
        own = [t for t in trials if WARM_START not in t.user_attrs]
        budget = self._stored.study.user_attrs.get(BUDGET, self._stored.spec.search.trials)
        if len(own) < budget or any(map(has_result, own)):
            return False
        others = [t for t in own if t.number != self.number and not t.state.is_finished()]
        if not all(is_paused(t) and t.user_attrs[PAUSED] < step for t in others):
            return False
        return not self._rungs.promotable(trials)


class TrialSampler:
    """Samples the parameters of one study's trials.

    Args:
        stored: The study.
        image_shape: (C, H, W) of its images.
    """

    def __init__(self, stored: StoredStudy, image_shape: tuple[int, int, int]) -> None:
        self._stored = stored
        self._limit = SizeLimit(stored.spec, image_shape)
        self._study = optuna.load_study(
            study_name=stored.name,
            storage=RankedStorage(stored),
            # Replaced for each trial; without these Optuna would create its defaults.
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
        )
        self._pruner = make_pruner(stored.spec, self._study)
        self._history = TrialHistory()
        self._floor = ChoiceFloor(stored.spec)
        self._rungs = Rungs(stored.spec)
        attributes = stored.study.user_attrs
        self._taken_over = sum(attributes.get(IMPORTED, {}).values()) + attributes.get(STARTING, 0)

    def sample(
        self, trial_id: int, claimed: FrozenTrial, runtime: dict[str, Any]
    ) -> tuple[RecordedTrial, TrialParams]:
        """Samples a trial's parameters and stores them with its runtime, in one transaction.

        A trial that was sampled before keeps its parameters.

        Args:
            trial_id: The trial's id in the database.
            claimed: The trial as it was claimed.
            runtime: The value of its attribute ``RUNTIME``.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial has ended meanwhile.
            InvalidTrialError: Another program has enqueued it with parameters outside the space.
        """
        spec, storage = self._stored.spec, self._stored.storage
        given = claimed.system_attrs.get("fixed_params", {})
        if why := misfit(spec, {**given, **claimed.params}, complete=False):
            raise InvalidTrialError(f"enqueued by another program: {why}")
        with storage.batched_writes():
            # A copy for each trial: a study caches the trials that its sampler has read.
            study = copy.copy(self._study)
            sampler = self._limited(
                make_sampler(spec, number=claimed.number, history=self._history), claimed.number
            )
            study.sampler, study.pruner = sampler, self._pruner
            if not given and (fixed := self._limit.possible(self._fixed(study, claimed))):
                storage.set_trial_system_attr(trial_id, "fixed_params", fixed)
            trial = optuna.Trial(study, trial_id)
            params = sample_params(spec, trial)
            storage.set_trial_user_attr(trial_id, RUNTIME, runtime)
            if isinstance(sampler, SizeLimitedSampler) and sampler.refused:
                storage.set_trial_user_attr(trial_id, REFUSED, sampler.refused)
        recorded = (trial, claimed.number, claimed.intermediate_values)
        if spec.search.has_several_objectives:
            return UnprunedTrial(*recorded, storage=storage, trial_id=trial_id), params
        if spec.search.pauses:
            return PausableTrial(*recorded, stored=self._stored, rungs=self._rungs), params
        return RecordedTrial(*recorded), params

    def promotable(self, *, settling: bool = False) -> list[int]:
        """Returns the ids of the paused trials that may go on now, the most promising first.

        Args:
            settling: Whether nothing else is left to do; see ``Rungs.leader``.
        """
        stored = self._stored
        if not stored.spec.search.pauses:
            return []
        trials = stored.study.get_trials(deepcopy=False)
        numbers = self._rungs.promotable(trials)
        if settling and not numbers:
            numbers = [] if any(map(has_result, trials)) else self._rungs.leader(trials)
        ids = stored.storage.get_trial_id_from_study_id_trial_number
        return [ids(stored.id, number) for number in numbers]

    def _fixed(self, study: optuna.Study, claimed: FrozenTrial) -> Mapping[str, Any]:
        """Returns the parameters of one of the search's first trials, or to try a rare choice."""
        others = self._taken_over
        fixed = initial_params(self._stored.spec, claimed.number - others, warm=others > 0)
        if fixed or claimed.params:
            return fixed
        return self._floor.params(study, claimed.number)

    def _limited(self, sampler: BaseSampler, number: int) -> BaseSampler:
        """Returns a sampler that proposes only nets within ``search.max_parameters``."""
        spec = self._stored.spec
        if spec.search.max_parameters is None:
            return sampler
        return SizeLimitedSampler(sampler, self._limit, seed=sampler_seed(spec.seed, number))
