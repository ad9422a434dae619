"""Trains one trial: where the training of a model meets the search for its parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
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
        """Records the PSNR in dB after epoch ``step``."""

    def should_prune(self) -> bool:
        """Returns whether the pruner stops the trial."""

    def should_pause(self) -> bool:
        """Returns whether the pruner pauses the trial after its last reported epoch."""


@dataclass(frozen=True)
class TrialJob:
    """One trial to train.

    Attributes:
        trial: Gets the validation PSNR of every epoch, and decides on pruning.
        params: The parameters to train with.
        images: Training and validation images, uint8 or uint16 (N, C, H, W).
        seed: Seed of initialization, shuffling and noise.
        device: The device to train on.
        checkpoints: The trial's checkpoints.
        reported: Epochs that an earlier worker has already reported.
        precision: Precision of the training steps.
        writer: The thread that writes checkpoints, see ``BackgroundCheckpoints``.
        best: Gets the best epoch, which is then part of each checkpoint; None to keep none.
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


@dataclass(frozen=True)
class TrialHooks:
    """What the training of a trial calls.

    Attributes:
        on_repeat: Called with the number of reported epochs that no checkpoint holds, if there are
            any: they are trained again.
        on_start: Called with the trainer before the first epoch.
        on_epoch: Called after each epoch, before the pruner is asked; may raise.
        on_end: Called with the trainer when the training has come to its end or was pruned.
        should_leave: Asked after each epoch but the last; True ends the training with
            ``Interrupted`` once the epoch's checkpoint is written.
        should_stop: Asked between steps; True ends the training with ``Interrupted`` at once.
    """

    on_repeat: Callable[[int], None] = lambda _epochs: None
    on_start: Callable[[Trainer], None] = lambda _trainer: None
    on_epoch: Callable[[EpochResult], None] = lambda _result: None
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
    done = len(trainer.history)
    if repeated := sum(epoch > done for epoch in job.reported):
        hooks.on_repeat(repeated)
    hooks.on_start(trainer)
    # A worker killed between writing a checkpoint and reporting its epoch leaves a gap.
    for result in trainer.history:
        _report(job, result)
    with BackgroundCheckpoints(job.checkpoints, job.writer) as background:
        for result in trainer.epochs():
            state = trainer.state()
            if job.best is not None:
                state = job.best.update(state, result)
            background.save(state, result.epoch)
            _report(job, result)
            hooks.on_epoch(result)
            if trainer.done:  # the trial has its result, whoever asks to leave
                break
            if hooks.should_leave():
                background.wait()
                raise Interrupted(f"left after epoch {result.epoch}")
            if job.trial.should_prune():
                hooks.on_end(trainer)
                raise PrunedError
            if job.trial.should_pause():
                background.wait()
                hooks.on_end(trainer)
                raise PausedError
            background.begin()
    hooks.on_end(trainer)
    return trainer.history[-1].psnr_db


def _report(job: TrialJob, result: EpochResult) -> None:
    if result.epoch not in job.reported:
        job.trial.report(result.psnr_db, result.epoch)


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
    log.info("trial %d: goes on after epoch %d", checkpoints.number, len(trainer.history))
    return True
