"""Searchers that ``benchmarks.defaults`` replays: searchae's own, plain Optuna and Ray Tune."""

from __future__ import annotations

import copy
from collections.abc import Container
from types import SimpleNamespace
from typing import Protocol

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from benchmarks.defaults_table import Params
from searchae.config import space
from searchae.config.study_spec import StudySpec
from searchae.search import PAUSED, Rungs, choice_floor, distributions, pruners, samplers


class Searcher(Protocol):
    """What decides on the trials of a replayed search.

    Attributes:
        pauses: Whether a trial that is stopped may go on later.
    """

    pauses: bool

    def __init__(self, spec: StudySpec) -> None: ...

    def ask(self, worker: int) -> Params:
        """Returns the next trial's configuration."""

    def stops(self, number: int, step: int, psnr_db: float) -> bool:
        """Reports a PSNR; returns whether the trial is stopped after it.

        ``SearchSpec.reports_per_epoch`` steps are an epoch.
        """

    def end(self, number: int, step: int, psnr_db: float, *, pruned: bool) -> None:
        """Tells how a trial ended."""

    def promotable(self) -> int | None:
        """Returns the number of the paused trial that goes on next; None without one."""

    def resume(self, number: int) -> None:
        """Takes up a paused trial."""


class EndsForGood:
    """The part of a searcher that pauses nothing."""

    pauses = False

    def promotable(self) -> int | None:
        """Returns None."""
        return None

    def resume(self, number: int) -> None:
        """Does nothing."""


class Ours(EndsForGood):
    """searchae's sampler and pruner, as a worker asks them.

    Args:
        spec: The study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._study = optuna.create_study(direction="maximize", study_name=f"replay-{spec.seed}")
        self._study.pruner = pruners.make_pruner(spec, self._study)
        self._trials: list[Trial] = []
        self._floor = choice_floor.ChoiceFloor(spec)

    def ask(self, _worker: int) -> Params:  # workers share what is known
        """The next trial's configuration."""
        number = len(self._trials)
        self._study.sampler = samplers.make_sampler(self._spec, number=number)
        fixed = space.initial_params(self._spec, number) or self._floor.params(self._study, number)
        if fixed:
            self._study.enqueue_trial(fixed)
        return self._asked()

    def _asked(self) -> Params:
        self._trials.append(self._study.ask())
        space.sample_params(self._spec, self._trials[-1])
        return self._trials[-1].params

    def stops(self, number: int, step: int, psnr_db: float) -> bool:
        """Reports a PSNR; whether the trial is pruned after it."""
        self._trials[number].report(psnr_db, step)
        steps = self._spec.epochs * self._spec.search.reports_per_epoch
        return step < steps and self._trials[number].should_prune()

    def end(self, number: int, _step: int, psnr_db: float, *, pruned: bool) -> None:
        """Tells how a trial ended."""
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        self._study.tell(self._trials[number], None if pruned else psnr_db, state=state)


class PausedStorage(InMemoryStorage):
    """A study in memory whose paused trials look pruned, as ``RankedStorage`` shows them.

    Attributes:
        paused: Number -> the step after which a trial was paused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paused: dict[int, int] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 (Optuna's signature)
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns the trials as a sampler is to see them."""
        del deepcopy  # nothing changes them
        found = self.shown(study_id, TrialState.PRUNED)
        return [t for t in found if states is None or t.state in states]

    def shown(self, study_id: int, state: TrialState) -> list[FrozenTrial]:
        """Returns all trials, the paused ones with a state and the attribute ``PAUSED``."""
        found = super().get_all_trials(study_id, deepcopy=False)
        for number, step in self.paused.items():
            found[number] = copy.copy(found[number])
            found[number].state = state
            found[number].user_attrs = {PAUSED: step}
        return found


class Asha(Ours):
    """searchae's sampler with ``pruner = "asha"``."""

    pauses = True

    def __init__(self, spec: StudySpec) -> None:
        super().__init__(spec)
        self._storage = PausedStorage()
        self._study = optuna.create_study(
            direction="maximize", study_name=f"replay-{spec.seed}", storage=self._storage
        )
        self._rungs = Rungs(spec)

    def stops(self, number: int, step: int, psnr_db: float) -> bool:
        """Reports a PSNR; whether the trial is paused after it."""
        self._trials[number].report(psnr_db, step)
        if step not in self._rungs.steps:
            return False
        if self._rungs.goes_on(self._all(), number, step=step, psnr_db=psnr_db):
            return False
        self._storage.paused[number] = step
        return True

    def promotable(self) -> int | None:
        """The number of the paused trial that goes on next; None without one."""
        return next(iter(self._rungs.promotable(self._all())), None)

    def resume(self, number: int) -> None:
        """Takes up a paused trial."""
        del self._storage.paused[number]

    def _all(self) -> list[FrozenTrial]:
        return self._storage.shown(self._study._study_id, TrialState.WAITING)


class PlainOptuna(Ours):
    """What Optuna does by default, with a sampler in each process as in ``speed_search``."""

    def __init__(self, spec: StudySpec) -> None:
        super().__init__(spec)
        self._study.pruner = optuna.pruners.MedianPruner()
        self._seed = spec.seed
        self._samplers: dict[int, optuna.samplers.TPESampler] = {}

    def ask(self, worker: int) -> Params:
        """The next trial's configuration."""
        if worker not in self._samplers:
            self._samplers[worker] = optuna.samplers.TPESampler(seed=100 * self._seed + worker)
        self._study.sampler = self._samplers[worker]
        return self._asked()


class RayTune(EndsForGood):
    """Ray Tune's own searcher and scheduler without a cluster, called as its controller calls them.

    Args:
        spec: The study.
    """

    def __init__(self, spec: StudySpec) -> None:
        from ray.tune.schedulers import ASHAScheduler, TrialScheduler
        from ray.tune.search.optuna import OptunaSearch

        found = {p.name: distributions.to_distribution(p) for p in spec.space}
        self._searcher = OptunaSearch(found, metric="psnr_db", mode="max", seed=spec.seed)
        self._scheduler = ASHAScheduler(max_t=spec.epochs, metric="psnr_db", mode="max")
        self._continue = TrialScheduler.CONTINUE
        self._trials: list[SimpleNamespace] = []

    def ask(self, _worker: int) -> Params:  # one searcher for all
        """The next trial's configuration."""
        trial = SimpleNamespace(trial_id=str(len(self._trials)))
        self._trials.append(trial)
        self._scheduler.on_trial_add(None, trial)
        return dict(self._searcher.suggest(trial.trial_id))

    def stops(self, number: int, step: int, psnr_db: float) -> bool:
        """Reports an epoch; whether the trial is stopped after it."""
        trial, result = self._trials[number], {"training_iteration": step, "psnr_db": psnr_db}
        if self._scheduler.on_trial_result(None, trial, result) != self._continue:
            return True
        self._searcher.on_trial_result(trial.trial_id, result)
        return False

    def end(self, number: int, step: int, psnr_db: float, *, pruned: bool) -> None:
        """Tells how a trial ended."""
        del pruned  # the scheduler has decided it
        trial, result = self._trials[number], {"training_iteration": step, "psnr_db": psnr_db}
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result)
