"""Trains a list of trainings with the workers of a launcher."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState

from searchae.errors import ArtifactsError, OutOfMemoryError
from searchae.files import ArtifactPath
from searchae.launch import (
    CarriesFiles,
    FleetRequest,
    Launcher,
    Supervisor,
    sized_fleet,
    study_jobs,
)
from searchae.study import ERROR, MEASURED, OUTCOME, ListedTraining, TrainingList
from searchae.tuning import StopRequest, Watcher, follow_workers, running_fleet, set_time_limit
from searchae.worker import (
    OUT_OF_MEMORY,
    RecordError,
    TrainingRecord,
    read_content,
    read_record,
    record_path,
)

log = logging.getLogger(__name__)

OPEN_S = 60.0
"""Seconds that workers without work wait for this process to decide on more."""


@dataclass(frozen=True)
class TrainingResult:
    """What a listed training has come to so far.

    Attributes:
        number: Its trial's number.
        is_finished: Whether it has ended, complete or pruned, with a result that can be used.
        is_pruned: Whether it was stopped early.
        outcome: How it ended badly, or empty.
        curve: Validation PSNR in dB by epoch.
        psnr_db: The last validation PSNR in dB, minus infinity if it ended badly; None before the
            first epoch.
    """

    number: int
    is_finished: bool
    is_pruned: bool
    outcome: str
    curve: Mapping[int, float]
    psnr_db: float | None

    @classmethod
    def of(cls, trial: FrozenTrial, *, is_usable: bool = True) -> TrainingResult:
        """Returns the result of a listed trial.

        Args:
            trial: The trial.
            is_usable: Whether its result can be used if it has ended.
        """
        curve = trial.intermediate_values
        value = trial.values[0] if trial.values else None
        if value is None and curve:
            value = curve[max(curve)]
        return cls(
            number=trial.number,
            is_finished=is_usable and trial.state in (TrialState.COMPLETE, TrialState.PRUNED),
            is_pruned=trial.state == TrialState.PRUNED,
            outcome=str(trial.user_attrs.get(OUTCOME, "")),
            curve=curve,
            psnr_db=value,
        )


Results = Mapping[str, TrainingResult]
"""Results by the training's key."""

Plan = Callable[[Results], Sequence[ListedTraining]]
"""Returns every training that is wanted in the light of the results so far, the first ones first.

It depends on nothing else, so that any process, at any time, comes to the same list.
"""


@dataclass
class ListRun:
    """Trains a list of trainings until its plan wants no more.

    Args:
        listed: The list.
        plan: What is wanted.
        request: The workers.
        launcher: Where they run.
        watcher: Shows the progress.
        stop: Setting it ends the run like an interrupt, while it ``is_polled``.
    """

    listed: TrainingList
    plan: Plan
    request: FleetRequest
    launcher: Launcher
    watcher: Watcher
    stop: StopRequest = field(default_factory=StopRequest)

    def __post_init__(self) -> None:
        self._finished: set[str] | None = None
        self._more, self._kept_open_at = True, -OPEN_S
        self._with_record: set[str] = set()
        ended = (t for t in self.listed.trials().values() if t.state.is_finished())
        self._ended_before = {t.number for t in ended}

    def run(self) -> dict[str, TrainingResult]:
        """Trains what is missing. What was trained before is not trained again.

        Returns:
            The result of each training on the list.

        Raises:
            ArtifactsError: A training's measurements are missing in the shared folder.
            OutOfMemoryError: A training does not fit on its device.
            StudyStoppedError: A training met a bug.
            SearchaeError: The workers died.
            KeyboardInterrupt: The run was interrupted; running trials are kept, to be continued.
        """
        coordinator = self.listed.coordinator
        coordinator.reap(trust_silence=False)
        self.listed.withdraw({t.key for t in self.plan(self.results())})
        self._add_wanted()
        if self._more:
            set_time_limit(coordinator, self.request.max_hours, self.watcher.note)
            coordinator.clear_stop()
            self._train()
        return self.results()

    def results(self) -> dict[str, TrainingResult]:
        """Returns the result of each training on the list, by key.

        One without a result that can be used, see ``_is_usable``, counts as not finished.
        """
        return {
            key: TrainingResult.of(t, is_usable=self._is_usable(key, t))
            for key, t in self.listed.trials().items()
        }

    def _train(self) -> None:
        fleet = sized_fleet(self.request, self.launcher)
        name, coordinator = self.listed.stored.name, self.listed.coordinator
        folder = self.listed.stored.folder
        jobs = study_jobs(fleet, self.request, name, at_most=fleet.workers, folder=folder)
        supervisor, artifacts = Supervisor(self.launcher, jobs), self.request.artifacts
        fleet_run = running_fleet(self.launcher, coordinator, self.stop, self.watcher, artifacts)
        with fleet_run as ended:
            try:
                follow_workers(
                    self.listed.stored,
                    coordinator,
                    supervisor,
                    self.watcher,
                    ended,
                    self.stop,
                    add_work=self._add_wanted,
                )
            finally:
                coordinator.keep_open(0)

    def _add_wanted(self) -> bool:
        """Adds the trainings that the plan wants now; returns whether it may want more."""
        results = self.results()
        finished = {key for key, result in results.items() if result.is_finished}
        if finished != self._finished:
            self._finished = finished
            wanted = self.plan(results)
            self._add_again({t.key for t in wanted})
            self.listed.add(wanted)
            self._more = any(t.key not in finished for t in wanted)
        self._keep_open()
        return self._more

    def _add_again(self, wanted: set[str]) -> None:
        """Adds wanted trainings again that ended before this run, but whose results are of no use.

        Raises:
            ArtifactsError: One that ended since then left no measurements in the shared folder.
            OutOfMemoryError: It does not fit on its device.
        """
        ended = {
            key: trial
            for key, trial in self.listed.trials().items()
            if key in wanted
            and trial.state == TrialState.COMPLETE
            and not self._is_usable(key, trial)
        }
        for trial in ended.values():
            if trial.number in self._ended_before:
                continue
            name = self.listed.stored.name
            if trial.user_attrs.get(OUTCOME) == OUT_OF_MEMORY:
                raise OutOfMemoryError(
                    f"trial {trial.number} of {name} does not fit into the device's memory: "
                    f"{trial.user_attrs.get(ERROR, '')}"
                )
            raise ArtifactsError(
                f"--artifacts {self.request.artifacts}: holds no measurements of trial "
                f"{trial.number} of {name}: every worker needs the same folder"
            )
        self.listed.add_again(ended)

    def _is_usable(self, key: str, trial: FrozenTrial) -> bool:
        """Returns whether a training that has ended fitted into memory and has its measurements."""
        if trial.user_attrs.get(OUTCOME) == OUT_OF_MEMORY:
            return False
        if not self.listed.is_tested(trial) or key in self._with_record:
            return True
        path = record_path(self.request.artifacts, self.listed.stored.folder, key)
        try:
            try:
                read_content(path, checksum := _checksum(self.listed, trial))
            except RecordError:
                if not isinstance(self.launcher, CarriesFiles):
                    raise
                self.launcher.collect_files()
                read_content(path, checksum)
        except RecordError as e:
            log.info("trial %d: %s", trial.number, e)
            return False
        self._with_record.add(key)
        return True

    def _keep_open(self) -> None:
        """Makes idle workers wait while more trainings may be wanted, and leave after that."""
        now, coordinator = time.monotonic(), self.listed.coordinator
        if self._more and now - self._kept_open_at > OPEN_S / 3:
            coordinator.keep_open(OPEN_S)
            self._kept_open_at = now
        elif not self._more and self._kept_open_at > 0:
            coordinator.keep_open(0)
            self._kept_open_at = 0.0


def _checksum(listed: TrainingList, trial: FrozenTrial) -> str | None:
    """Returns the SHA-256 of a listed trial's measurements; None if its study has none yet."""
    measured = trial.user_attrs.get(MEASURED)
    sha256 = measured.get("sha256") if isinstance(measured, dict) else None
    return None if sha256 is None and not listed.stored.identity else str(sha256 or "")


@dataclass(frozen=True)
class RecordFolder:
    """The measurements of a list's trainings.

    Attributes:
        artifacts: The folder that all workers share.
        listed: The list, which has the checksums of the files.
    """

    artifacts: ArtifactPath
    listed: TrainingList
    _checksums: dict[str, str | None] = field(default_factory=dict, init=False, repr=False)

    def read(self, key: str) -> TrainingRecord:
        """Reads the measurements of a training.

        Raises:
            ArtifactsError: They are missing or damaged.
        """
        try:
            return self._read(key)
        except RecordError:  # or trained again since the checksums were read
            self._checksums.clear()
        try:
            return self._read(key)
        except RecordError as e:
            raise ArtifactsError(f"{e}; the same command again trains it anew") from e

    def _read(self, key: str) -> TrainingRecord:
        if key not in self._checksums:  # of all at once: a list may have thousands
            trials = self.listed.trials()
            self._checksums.update({k: _checksum(self.listed, t) for k, t in trials.items()})
        path = record_path(self.artifacts, self.listed.stored.folder, key)
        return read_record(path, key, self._checksums.get(key, ""))
