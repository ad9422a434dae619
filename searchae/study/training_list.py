"""Lists of trainings: studies whose trials are given instead of sampled.

A list is a study like any other: its trials are claimed, leased, put back, checkpointed and shown
in the same way, by the same workers on any machine. Two things differ. A worker takes the
parameters and the seed from the trial, and it never adds a trial of its own. And a list may be
open: then workers that find nothing to claim wait, since more trainings may follow from the results
of the present ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config import DataSpec, Parameter, StudySpec
from searchae.errors import StudyMismatchError, UserError
from searchae.search import to_distribution
from searchae.storage import exclusive_lock
from searchae.study.attributes import (
    BUDGET,
    FOLDER,
    OUTCOME,
    SPLITS,
    TRAINING,
    TRAININGS_OF,
    WITHDRAWN,
)
from searchae.study.coordination import Coordinator
from searchae.study.listed_training import ListedTraining, training_key
from searchae.study.stored_study import StoredStudy, find_study, open_study

SUFFIX = ".trainings"
"""What is added to a study's name for the name of its list of trainings."""


def list_name(stored: StoredStudy, *, data_hash: str = "") -> str:
    """Returns the name of the list of a study's trainings.

    Args:
        stored: The study.
        data_hash: Hash of the trainings' images, if they are not the study's own.
    """
    other = data_hash and data_hash != stored.data_hash
    return f"{stored.name}{SUFFIX}" + (f"-{data_hash[:8]}" if other else "")


def require_searched(stored: StoredStudy) -> None:
    """Checks that a study is a search and not a list of trainings.

    Raises:
        UserError: It is a list.
    """
    source = stored.study.user_attrs.get(TRAININGS_OF)
    if source:
        raise UserError(
            f"study {stored.name!r} lists trainings of study {source!r}: name that one instead"
        )


def find_training_list(stored: StoredStudy) -> TrainingList | None:
    """Returns the list of a study's trainings on its own images; None if there is none yet.

    Raises:
        UserError: Another study has the list's name.
    """
    found = find_study(stored.storage, list_name(stored))
    return None if found is None else TrainingList(_checked(found, stored))


def open_training_list(
    stored: StoredStudy, *, data: DataSpec, data_hash: str, baseline_db: float
) -> TrainingList:
    """Opens the list of a study's trainings, and creates it if there is none.

    Args:
        stored: The study.
        data: The images; the study's own, or another number of them.
        data_hash: Their hash.
        baseline_db: PSNR in dB of the mean training image on the validation split.

    Raises:
        UserError: Another study has the list's name, or the list belongs to an earlier study of
            the same name.
    """
    name = list_name(stored, data_hash=data_hash)
    existing = find_study(stored.storage, name)
    if existing is not None:
        _checked(existing, stored)
    attributes = {
        TRAININGS_OF: stored.name,
        FOLDER: stored.folder + name.removeprefix(stored.name),
        BUDGET: 0,
        SPLITS: stored.study.user_attrs.get(SPLITS, {}),
    }
    try:
        listed, _ = open_study(
            stored.storage,
            name,
            spec=_list_spec(stored.spec, data),
            data_hash=data_hash,
            baseline_db=baseline_db,
            attributes=attributes,
        )
    except StudyMismatchError:
        raise UserError(
            f"study {name!r} lists trainings of an earlier study named {stored.name!r}, which had "
            f"another spec or other images; delete it with `searchae rm {name}`"
        ) from None
    return TrainingList(listed)


def _list_spec(spec: StudySpec, data: DataSpec) -> StudySpec:
    """Returns the spec of a list: nothing is sampled, and PSNR is the only value of a trial."""
    changes: dict[str, Any] = {
        "objectives": ("psnr",),
        "sampler": "random",
        "max_parameters": None,
        "first": (),
        "first_report": 1.0,
    }
    search = spec.search.model_copy(update=changes)
    description = f"Trainings of: {spec.description}"
    return replace(spec, data=data, search=search, description=description)


def _checked(found: StoredStudy, stored: StoredStudy) -> StoredStudy:
    if found.study.user_attrs.get(TRAININGS_OF) != stored.name:
        raise UserError(
            f"study {found.name!r} is in the way: its name is that of the list of {stored.name}'s "
            f"trainings; `searchae mv {found.name} NEW` renames it, `searchae rm` deletes it"
        )
    return found


class TrainingList:
    """The trainings of one study.

    Args:
        stored: The study that lists them.
    """

    def __init__(self, stored: StoredStudy) -> None:
        self.stored = stored
        self.coordinator = Coordinator(stored)

    def trials(self) -> dict[str, FrozenTrial]:
        """Returns the trial of each training by key: of several, the latest that did not fail."""
        found: dict[str, FrozenTrial] = {}
        with self.coordinator.existing():
            trials = self.stored.study.get_trials(deepcopy=False)
        for trial in trials:
            key = training_key(trial)
            if trial.state != TrialState.FAIL or key not in found:
                found[key] = trial
        return found

    @staticmethod
    def is_tested(trial: FrozenTrial) -> bool:
        """Returns whether a listed trial is measured on the test split."""
        return bool(trial.user_attrs[TRAINING]["is_tested"])

    def add(self, trainings: Iterable[ListedTraining]) -> int:
        """Adds trainings to the list, unless they are on it; those that failed are added again.

        Args:
            trainings: The trainings, in the order in which workers take them.

        Returns:
            How many were added.
        """
        wanted = {t.key: t for t in trainings}

        def missing() -> list[FrozenTrial]:
            done = {k for k, t in self.trials().items() if t.state != TrialState.FAIL}
            return [self._trial(t) for k, t in wanted.items() if k not in done]

        return self._create(missing)

    def add_again(self, trials: Mapping[str, FrozenTrial]) -> int:
        """Adds trainings once more that have ended, because their results are gone.

        Args:
            trials: The trials by key; one that another process has added again is left out.

        Returns:
            How many were added.
        """

        def missing() -> list[FrozenTrial]:
            listed = self.trials()
            same = (t for k, t in trials.items() if listed[k].number == t.number)
            return [_copy(t) for t in same]

        return self._create(missing) if trials else 0

    def withdraw(self, wanted: Collection[str]) -> int:
        """Ends waiting trainings that nobody wants any more, so that workers do not train them.

        Nothing is withdrawn while another process decides on trainings of this list. A withdrawn
        training is listed again when it is wanted again.

        Args:
            wanted: Keys of the trainings to keep.

        Returns:
            How many were withdrawn.
        """
        storage = self.stored.storage

        def withdraw() -> int:
            with exclusive_lock(storage.engine, self.stored.id) as check_lock:
                if self.coordinator.is_open():
                    return 0
                waiting = [
                    trial
                    for key, trial in self.trials().items()
                    if trial.state == TrialState.WAITING and key not in wanted
                ]
                ids = storage.get_trial_id_from_study_id_trial_number
                for trial in waiting:
                    check_lock()
                    trial_id = ids(self.stored.id, trial.number)
                    storage.set_trial_user_attr(trial_id, OUTCOME, WITHDRAWN)
                    storage.set_trial_state_values(trial_id, TrialState.FAIL)
                if waiting:
                    self._set_budget()
                return len(waiting)

        count: int = storage.retried(withdraw)
        return count

    def _create(self, missing: Callable[[], list[FrozenTrial]]) -> int:
        storage = self.stored.storage

        def create() -> int:
            # Under the lock of the study, as claims are: two processes add nothing twice.
            with exclusive_lock(storage.engine, self.stored.id) as check_lock:
                created = missing()
                for trial in created:
                    check_lock()
                    storage.create_new_trial(self.stored.id, template_trial=trial)
                if created:
                    self._set_budget()
                return len(created)

        count: int = storage.retried(create)
        return count

    def _set_budget(self) -> None:
        states = Counter(t.state for t in self.stored.study.get_trials(deepcopy=False))
        self.coordinator.set_budget(states.total() - states[TrialState.FAIL])

    def _trial(self, training: ListedTraining) -> FrozenTrial:
        space = {p.name: p for p in self.stored.spec.space}
        values = {name: v for name, v in training.values.items() if name in space}
        return create_trial(
            state=TrialState.WAITING,
            params=values,
            distributions={name: _distribution(space[name], v) for name, v in values.items()},
            user_attrs={TRAINING: training.document()},
        )


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """Returns a trial to be trained from the start with what another one trained."""
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={TRAINING: trial.user_attrs[TRAINING]},
    )


def _distribution(parameter: Parameter, value: object) -> BaseDistribution:
    """Returns a parameter's distribution, widened if need be so that it holds the value."""
    if parameter.choices or not isinstance(value, int | float):
        return to_distribution(parameter)
    if parameter.low <= value <= parameter.high:
        return to_distribution(parameter)
    low, high = min(parameter.low, value), max(parameter.high, value)
    return to_distribution(replace(parameter, low=low, high=high, step=None))
