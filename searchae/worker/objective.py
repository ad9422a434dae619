"""Trains one trial: where the training of a model meets the search for its parameters."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch

from searchae.config import TrialParams
from searchae.training import (
    BackgroundCheckpoints,
    CheckpointError,
    Checkpoints,
    EpochResult,
    Interrupted,
    PausedError,
    Precision,
    PrunedError,
    Trainer,
)
from searchae.worker.best_epoch import BestEpoch

log = logging.getLogger(__name__)


class ReportingTrial(Protocol):
    """The part of an Optuna trial that training needs."""

    def report(self, value: float, step: int) -> None:
        """Records a PSNR in dB; ``TrialJob.reports_per_epoch`` steps are an epoch."""

    def should_prune(self) -> bool:
        """Returns whether the pruner stops the trial."""

    def should_pause(self) -> bool:
        """Returns whether the pruner pauses the trial after its last report."""


@dataclass(frozen=True)
class TrialJob:
    """One trial to train.

    Attributes:
        trial: Gets the validation PSNR of every epoch and of the shares of the first one, and
            decides on pruning.
        params: The parameters to train with.
        images: Training and validation images, uint8 or uint16 (N, C, H, W).
        seed: Seed of initialization, shuffling and noise.
        device: The device to train on.
        checkpoints: The trial's checkpoints.
        reported: Steps that an earlier worker has already reported.
        precision: Precision of the training steps.
        writer: The thread that writes checkpoints, see ``BackgroundCheckpoints``.
        best: Gets the best epoch, which is then part of each checkpoint; None to keep none.
        reports_per_epoch: See ``SearchSpec``.
        shares: Shares of the first epoch after which the trial reports as well.
    """

    trial: ReportingTrial
    params: TrialParams
    images: tuple[torch.Tensor, torch.Tensor]
    seed: int
    device: torch.device
    checkpoints: Checkpoints
    reported: Collection[int] = ()
    precision: Precision = "fp32"
    writer: ThreadPoolExecutor | None = None
    best: BestEpoch | None = None
    reports_per_epoch: int = 1
    shares: Sequence[float] = ()

    def step(self, result: EpochResult) -> int:
        """Returns the step under which a result is reported."""
        return round(result.epochs * self.reports_per_epoch)


@dataclass(frozen=True)
class TrialHooks:
    """What the training of a trial calls.

    Attributes:
        on_repeat: Called with the number of epochs whose reports no checkpoint holds, if there are
            any: they are trained again. A part of an epoch counts as one.
        on_start: Called with the trainer before the first epoch.
        on_result: Called after each report, before the pruner is asked; may raise.
        on_end: Called with the trainer when the training has come to its end or was pruned.
        should_leave: Asked after each report but the last; True ends the training with
            ``Interrupted`` once the checkpoint is written.
        should_stop: Asked between steps; True ends the training with ``Interrupted`` at once.
    """

    on_repeat: Callable[[int], None] = lambda _epochs: None
    on_start: Callable[[Trainer], None] = lambda _trainer: None
    on_result: Callable[[EpochResult], None] = lambda _result: None
    on_end: Callable[[Trainer], None] = lambda _trainer: None
    should_leave: Callable[[], bool] = lambda: False
    should_stop: Callable[[], bool] = lambda: False


TrainFunction = Callable[[TrialJob, TrialHooks], float]
"""Trains a trial and returns its PSNR in dB; see ``run_trial``."""


def run_trial(job: TrialJob, hooks: TrialHooks) -> float:
    """Trains one trial, from its last checkpoint if it has one.

    Args:
        job: The trial.
        hooks: What is called during the training.

    Returns:
        The validation PSNR after the last epoch, in dB.

    Raises:
        PrunedError: The pruner stopped the trial.
        PausedError: The pruner paused the trial; its checkpoint is written.
        Interrupted: A hook asked to leave or to stop.
        TrainingError: The training diverged or ran out of memory.
        CheckpointError: A checkpoint could not be written.
        OSError: The same.
    """
    trainer = _new_trainer(job, hooks)
    if not _restore(trainer, job.checkpoints, job.best):
        del trainer  # and the memory of its device
        trainer = _new_trainer(job, hooks)
    done = max(map(job.step, trainer.reported), default=0)
    repeated = max(job.reported, default=0) - done
    if repeated > 0:
        hooks.on_repeat(math.ceil(repeated / job.reports_per_epoch))
    hooks.on_start(trainer)
    # A worker killed between writing a checkpoint and its report leaves a gap.
    for result in trainer.reported:
        _report(job, result)
    with BackgroundCheckpoints(job.checkpoints, job.writer) as background:
        for result in trainer.results():
            state = trainer.state()
            if job.best is not None:
                state = job.best.update(state, result)
            background.save(state, job.step(result))
            _report(job, result)
            hooks.on_result(result)
            if trainer.done:  # the trial has its result, whoever asks to leave
                break
            if hooks.should_leave():
                background.wait()
                raise Interrupted(f"left after {result.epochs:g} epochs")
            if job.trial.should_prune():
                hooks.on_end(trainer)
                raise PrunedError
            if job.trial.should_pause():
                background.wait()
                hooks.on_end(trainer)
                raise PausedError(job.step(result))
            background.begin()
    hooks.on_end(trainer)
    return trainer.history[-1].psnr_db


def _report(job: TrialJob, result: EpochResult) -> None:
    if (step := job.step(result)) not in job.reported:
        job.trial.report(result.psnr_db, step)


def _new_trainer(job: TrialJob, hooks: TrialHooks) -> Trainer:
    train, validation = job.images
    return Trainer(
        job.params,
        train=train,
        validation=validation,
        seed=job.seed,
        device=job.device,
        precision=job.precision,
        stop=hooks.should_stop,
        shares=job.shares,
    )


def _restore(trainer: Trainer, checkpoints: Checkpoints, best: BestEpoch | None) -> bool:
    """Continues from the last checkpoint if there is one.

    Returns:
        Whether the trainer can be used; not if the checkpoint belongs to another training.
    """
    state = checkpoints.latest()
    if state is None:
        return True
    try:
        trainer.restore(state)
        if best is not None:
            best.restore(state)
    except CheckpointError as e:
        log.warning("trial %d starts over: %s", checkpoints.number, e)
        return False
    done = max((result.epochs for result in trainer.reported), default=0)
    log.info("trial %d: goes on after epoch %g", checkpoints.number, done)
    return True
