"""Trains a listed training and measures it on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from searchae.errors import DeadError, DivergedError, LeaseLostError
from searchae.files import ArtifactPath
from searchae.study import MEASURED, ListedTraining, StoredStudy
from searchae.training import Trainer, device_errors
from searchae.worker.best_epoch import BestEpoch
from searchae.worker.hardware import Machine
from searchae.worker.measurement import mean_image_record, measure_training
from searchae.worker.objective import TrainFunction, TrialHooks, TrialJob
from searchae.worker.training_record import TrainingRecord, record_path, write_record


@dataclass
class MeasuredTraining:
    """Trains as ``train`` does, then measures the best epoch's weights on the test split.

    A training that diverges or dies is measured too: by the best epoch before, or as the mean
    training image if there is none.

    Args:
        stored: The study that lists the training.
        trial_id: Its trial's id in the database.
        listed: The training.
        machine: What it is trained on.
        runtime: The same as stored with the trial.
        artifacts: The folder that all workers share.
        train: Trains.
        holds: Whether this worker still has the trial's lease.
    """

    stored: StoredStudy
    trial_id: int
    listed: ListedTraining
    machine: Machine
    runtime: Mapping[str, Any]
    artifacts: ArtifactPath
    train: TrainFunction
    holds: Callable[[], bool]
    _trainers: list[Trainer] = field(default_factory=list)

    def __call__(self, job: TrialJob, hooks: TrialHooks) -> float:
        """Trains and measures; returns and raises what ``train`` does.

        Raises:
            LeaseLostError: Another worker has taken over the trial.
            OSError: The measurements cannot be written.
        """
        job = replace(job, best=BestEpoch())
        hooks = replace(hooks, on_start=self._trainers.append)
        try:
            psnr_db = self.train(job, hooks)
        except DivergedError as e:
            self._store(self._measure(job, "dead" if isinstance(e, DeadError) else "diverged"))
            raise
        full = len(self._trainers[0].history) == job.params.train.epochs
        self._store(self._measure(job, "epochs" if full else "plateau"))
        return psnr_db

    def _measure(self, job: TrialJob, ended: str) -> TrainingRecord:
        test, best = self.machine.load_test(), job.best
        with device_errors("measuring on the test split"):
            if best is None or not best.epoch:
                return mean_image_record(
                    job.images[0], test, seed=job.seed, ended=ended, runtime=self.runtime
                )
            return measure_training(
                job.params,
                best,
                test,
                seed=job.seed,
                ended=ended,
                history=self._trainers[0].history,
                device=job.device,
                keep_weights=self.listed.keeps_weights,
                runtime=self.runtime,
            )

    def _store(self, record: TrainingRecord) -> None:
        """Writes the measurements to the shared folder, and their means to the trial.

        Raises:
            LeaseLostError: Another worker has taken over the trial, whose file this would replace.
        """
        if not self.holds():
            raise LeaseLostError
        path = record_path(self.artifacts, self.stored.folder, self.listed.key)
        sha256 = write_record(path, record, self.listed.key)
        measured = {**record.summary(), "sha256": sha256}
        self.stored.storage.set_trial_user_attr(self.trial_id, MEASURED, measured)
