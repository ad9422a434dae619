"""Runs one claimed trial: samples its parameters, trains it, and ends it or puts it back."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from searchae.errors import (
    ArtifactsError,
    DeadError,
    DeviceError,
    DivergedError,
    LeaseLostError,
    OutOfMemoryError,
    StorageError,
    StudyStoppedError,
)
from searchae.formatting import format_count
from searchae.study import (
    ERROR,
    HISTORY,
    INVALID,
    OUTCOME,
    REPEATED,
    RUNTIME,
    Coordinator,
    compact_history,
    training_of,
    worst_values,
)
from searchae.training import (
    CheckpointError,
    Checkpoints,
    EpochResult,
    Interrupted,
    Owner,
    PausedError,
    Precision,
    PrunedError,
    Trainer,
    checkpoint_folder,
)
from searchae.worker.carried_checkpoint import ask_for_checkpoint
from searchae.worker.further_objectives import further_values
from searchae.worker.gpu_memory import CrowdedError, SharedGpu
from searchae.worker.hardware import Machine
from searchae.worker.heartbeat import Heartbeat
from searchae.worker.listed_trial import ListedTrial
from searchae.worker.measured_training import MeasuredTraining
from searchae.worker.objective import TrainFunction, TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions, WorkerResults
from searchae.worker.pictures import BestPictures
from searchae.worker.trial_sampling import InvalidTrialError, RecordedTrial, TrialSampler

log = logging.getLogger(__name__)

DIVERGED, DEAD, OUT_OF_MEMORY, BUG = "diverged", "dead", "out-of-memory", "bug"
"""Values of the attribute ``OUTCOME``; ``study.leases.LOST`` is one more."""


@dataclass
class TrialRunner:
    """Runs the trials that one worker claims, one after the other.

    Args:
        coordinator: Releases and ends trials.
        heartbeat: Renews the lease of the running trial; says when to leave.
        options: What the worker was started with.
        machine: What the worker trains on.
        train: Trains a trial.
        results: Counts the trials by how they ended.
    """

    coordinator: Coordinator
    heartbeat: Heartbeat
    options: WorkerOptions
    machine: Machine
    train: TrainFunction
    results: WorkerResults
    gpu: SharedGpu = field(init=False)

    def __post_init__(self) -> None:
        stored = self._stored = self.coordinator.stored
        self.gpu = SharedGpu(self.options.shares, self.machine.device)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        images, artifacts = self.machine.images, self.options.artifacts
        self._pictures = BestPictures(stored, artifacts, images[1], self._writer.submit)
        channels, height, width = self.machine.images[0].shape[1:]
        self._sampler = TrialSampler(stored, (channels, height, width))

    def close(self) -> None:
        """Waits for checkpoints that are still being written or removed."""
        self._writer.shutdown()

    def run(self, trial_id: int) -> None:
        """Trains a claimed trial and ends it; puts it back if the worker has to leave.

        Args:
            trial_id: A trial that this process has claimed.

        Raises:
            ArtifactsError: A checkpoint could not be written; the trial was put back.
            CrowdedError: Other workers hold the GPU's memory; the trial was put back.
            DeviceError: The device failed; the trial was put back.
            StudyStoppedError: The trial met a bug; the study was stopped.
        """
        storage = self._stored.storage
        with (
            storage.exclusive_trial(trial_id) as claimed,
            self.heartbeat.holding(trial_id, claimed.number),
        ):
            number = claimed.number
            try:
                self._train_and_finish(trial_id, claimed)
            except Interrupted:
                self.coordinator.release(trial_id)
                self.results.put_back += 1
                log.info("trial %d: left for another worker to continue", number)
            except PausedError as e:
                self._pause(trial_id, number, step=e.step)
            except (LeaseLostError, UpdateFinishedTrialError):
                self.results.taken_away += 1
                log.info("trial %d: taken over by another worker", number)
            else:
                # In the thread that writes checkpoints: after what is still being written.
                self._writer.submit(self._clear_checkpoints, number)
                ended = storage.get_trial(trial_id)
                value = "-" if not ended.values else f"{ended.values[0]:.2f} dB"
                log.info("trial %d: %s, %s", number, ended.state.name.lower(), value)

    def promotable(self, *, settling: bool = False) -> list[int]:
        """Returns the ids of the paused trials that may go on; see ``TrialSampler``."""
        return self._sampler.promotable(settling=settling)

    # -- training

    def _train_and_finish(self, trial_id: int, claimed: FrozenTrial) -> None:
        number, trainers = claimed.number, list[Trainer]()
        # A trial that is continued here keeps the precision that it was started with.
        started_with = claimed.user_attrs.get(RUNTIME, {}).get("precision")
        listed = training_of(claimed)
        own_precision = self.machine.precision if listed is None else listed.precision
        precision: Precision = started_with or own_precision
        runtime, train = self._runtime(precision), self.train
        trial: RecordedTrial | ListedTrial
        with self._failures_handled(trial_id, number):
            if listed is None:
                try:
                    trial, params = self._sampler.sample(trial_id, claimed, runtime)
                except InvalidTrialError as e:
                    log.warning("trial %d: left alone: %s", number, e)
                    self.coordinator.fail(trial_id, INVALID, str(e))
                    return
            else:
                trial, params = ListedTrial(self._stored, trial_id, claimed, listed), listed.params
                trial.store_runtime(runtime)
        if listed is not None and listed.is_tested:
            train = MeasuredTraining(
                stored=self._stored,
                trial_id=trial_id,
                listed=listed,
                machine=self.machine,
                runtime=runtime,
                artifacts=self.options.artifacts,
                train=self.train,
                holds=partial(self.coordinator.holds, trial_id),
            )
        search = self._stored.spec.search
        job = TrialJob(
            trial=trial,
            params=params,
            images=self.machine.images,
            seed=self._stored.spec.seed if listed is None else listed.seed,
            device=self.machine.device,
            checkpoints=self._checkpoints(number),
            reported=claimed.intermediate_values,
            precision=precision,
            writer=self._writer,
            reports_per_epoch=search.reports_per_epoch,
            shares=search.report_shares,
        )
        try:
            with self._failures_handled(trial_id, number):
                self._bring_checkpoint(claimed)
                psnr_db = train(job, self._hooks(trial_id, claimed, trainers))
        except PrunedError:
            self._finish(trial_id, TrialState.PRUNED, trial.last_value)
            self.results.pruned += 1
        except DivergedError as e:
            self._finish_badly(trial_id, number, DEAD if isinstance(e, DeadError) else DIVERGED, e)
            self.results.diverged += 1
        except OutOfMemoryError as e:
            self._finish_out_of_memory(trial_id, number, e)
        else:
            trainer = trainers[0] if trainers else None
            further = further_values(self._stored.spec, trainer)
            self._finish(trial_id, TrialState.COMPLETE, psnr_db, further)
            self.results.complete += 1
            self._pictures.update(number, params, trainer)

    def _runtime(self, precision: Precision) -> dict[str, object]:
        identity = self.coordinator.identity
        where = {"worker": identity.worker, "host": identity.host}
        return where | self.machine.runtime(precision)

    def _hooks(self, trial_id: int, claimed: FrozenTrial, trainers: list[Trainer]) -> TrialHooks:
        """Returns the hooks for one training; its trainer is appended to ``trainers``."""
        heartbeat = self.heartbeat

        def on_repeat(epochs: int) -> None:
            log.warning(
                "trial %d: %s trained again: no checkpoint in --artifacts %s holds them",
                *(claimed.number, format_count(epochs, "epoch"), self.options.artifacts),
            )
            before = claimed.user_attrs.get(REPEATED, 0)
            self._stored.storage.set_trial_user_attr(trial_id, REPEATED, before + epochs)

        def on_result(result: EpochResult) -> None:
            heartbeat.epoch = math.floor(result.epochs)
            if heartbeat.lost.is_set():
                raise LeaseLostError

        def on_end(trainer: Trainer) -> None:
            history = compact_history(trainer.history, within_s=trainer.unfinished_s)
            self._stored.storage.set_trial_user_attr(trial_id, HISTORY, history)
            trainers.append(trainer)

        return TrialHooks(
            on_repeat=on_repeat,
            on_result=on_result,
            on_end=on_end,
            should_leave=lambda: (
                heartbeat.stop.is_set() or heartbeat.time_up or heartbeat.is_asked_to_leave
            ),
            should_stop=lambda: (
                heartbeat.stop.is_set() or heartbeat.lost.is_set() or heartbeat.ended is not None
            ),
        )

    @contextmanager
    def _failures_handled(self, trial_id: int, number: int) -> Iterator[None]:
        """Puts back the trial if this machine fails; stops the study if the trial meets a bug."""
        try:
            yield
        except Interrupted:
            if self.heartbeat.ended is not None:
                raise self.heartbeat.ended from None
            if self.heartbeat.lost.is_set():
                raise LeaseLostError from None
            raise
        except (
            PrunedError,
            PausedError,
            DivergedError,
            OutOfMemoryError,
            LeaseLostError,
            UpdateFinishedTrialError,
            StorageError,
        ):
            raise
        except DeviceError:
            self.coordinator.release(trial_id)
            raise
        except (OSError, CheckpointError) as e:
            # A worker that took the trial over may have ended it and removed its checkpoints.
            if self.heartbeat.lost.is_set() or not self.coordinator.holds(trial_id):
                raise LeaseLostError from e
            self.coordinator.release(trial_id)
            raise ArtifactsError(f"--artifacts {self.options.artifacts}: {e}") from e
        except Exception as e:
            self.coordinator.stopped()  # raises if the study has been deleted
            self._stop_study(trial_id, number, e)
            raise StudyStoppedError(*self.coordinator.stopped().splitlines()) from e

    # -- ends

    def _pause(self, trial_id: int, number: int, *, step: int) -> None:
        size = self._checkpoints(number).size()
        ended = self.coordinator.pause(trial_id, step=step, size=size)
        self.results.paused += 1
        epochs = self._stored.spec.search.epochs_at(step)
        log.info("trial %d: paused after epoch %g", number, epochs)
        for other in ended:
            log.info("trial %d: pruned: search.max_paused or max_paused_gb was exceeded", other)
            self._writer.submit(self._clear_checkpoints, other)

    def _finish(
        self,
        trial_id: int,
        state: TrialState,
        psnr_db: float | None,
        further: tuple[float, ...] = (),
    ) -> None:
        if psnr_db is not None and math.isnan(psnr_db):
            psnr_db = None
        if not self.coordinator.finish(trial_id, state, psnr_db, further):
            raise LeaseLostError

    def _finish_badly(self, trial_id: int, number: int, outcome: str, error: Exception) -> None:
        """Ends a trial that has no result of its own as complete, with infinitely bad values.

        Then no trained trial is worse, whoever reads the study; see also ``RankedStorage``.
        """
        log.warning("trial %d: %s: %s", number, outcome, error)
        storage = self._stored.storage
        storage.set_trial_user_attr(trial_id, OUTCOME, outcome)
        storage.set_trial_user_attr(trial_id, ERROR, str(error))
        psnr_db, *further = worst_values(self._stored.spec)
        self._finish(trial_id, TrialState.COMPLETE, psnr_db, tuple(further))

    def _finish_out_of_memory(self, trial_id: int, number: int, error: OutOfMemoryError) -> None:
        """Puts back a trial if others hold the memory; otherwise ends it as too large."""
        if self.gpu.is_crowded():
            self.coordinator.release(trial_id)
            self.results.put_back += 1
            raise CrowdedError(f"trial {number} is left for later: {error}") from error
        self._finish_badly(trial_id, number, OUT_OF_MEMORY, error)
        self.results.out_of_memory += 1

    def _stop_study(self, trial_id: int, number: int, error: Exception) -> None:
        """Fails the trial and stops the study: other trials would meet the same bug."""
        text = "".join(traceback.format_exception(error))
        self.coordinator.stop(f"trial {number} met a bug:\n{text}")
        self.coordinator.fail(trial_id, BUG, text)

    # -- checkpoints

    def _clear_checkpoints(self, number: int) -> None:
        """Removes the checkpoints of a trial that has ended; ``tune`` removes what is left."""
        try:
            self._checkpoints(number).clear()
        except OSError as e:
            log.warning("trial %d: its checkpoints are left: %s", number, e)

    def _bring_checkpoint(self, claimed: FrozenTrial) -> None:
        """Has a checkpoint brought that lies on another machine."""
        reported, wanted = claimed.intermediate_values, self.options.wanted
        if wanted is None or not reported:
            return
        if self._checkpoints(claimed.number).newest_epoch() < max(reported):
            folder, stop = self._stored.folder, self.heartbeat.stop
            ask_for_checkpoint(wanted, folder, claimed.number, should_leave=stop.is_set)

    def _checkpoints(self, number: int) -> Checkpoints:
        stored = self._stored
        folder = checkpoint_folder(self.options.artifacts, stored.folder)
        return Checkpoints(folder, number, Owner(stored.identity, stored.data_hash))
