"""The seam between training and search: train an epoch, checkpoint, report, prune."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from searchae.config import TrialParams
from searchae.training import (
    BackgroundCheckpoints,
    CheckpointError,
    Checkpoints,
    EpochResult,
    Interrupted,
    Precision,
    PrunedError,
    Trainer,
)

log = logging.getLogger(__name__)


class ReportingTrial(Protocol):
    """The part of a trial that training reports to; an Optuna trial is one."""

    def report(self, value: float, step: int) -> None:
        """Records the PSNR in dB after epoch ``step``."""

    def should_prune(self) -> bool:
        """Whether the pruner gives the trial up."""


def run_trial(
    trial: ReportingTrial,
    params: TrialParams,
    *,
    images: tuple[torch.Tensor, torch.Tensor],
    seed: int,
    device: torch.device,
    precision: Precision = "fp32",
    checkpoints: Checkpoints,
    reported: Container[int],
    on_epoch: Callable[[EpochResult], None],
    leave: Callable[[], bool],
    stop: Callable[[], bool],
    on_end: Callable[[Trainer], None] = lambda trainer: None,
    thread: ThreadPoolExecutor | None = None,
) -> float:
    """Trains one trial, from its last checkpoint if it has one.

    Args:
        trial: Gets the validation PSNR of every epoch.
        params: What to train.
        images: Training and validation images, uint8 (N, C, H, W).
        seed: Decides initialisation, shuffling and noise.
        device: Where to train.
        precision: Of the training steps.
        checkpoints: Where the trial's are kept.
        reported: Epochs that an earlier worker has reported already.
        on_epoch: Called after each epoch, before the pruner is asked; may raise.
        leave: Asked after each epoch but the last; True raises ``training.Interrupted``.
        stop: Asked between steps; True ends the training with ``training.Interrupted``.
        on_end: Called with the trainer, its model and history, once its training is over: it has
            come to its end, or the pruner gave it up.
        thread: Writes checkpoints: see ``Behind``.

    Returns:
        The validation PSNR after the last epoch, in dB.

    Raises:
        PrunedError: The pruner gave it up.
        TrainingError: It diverged or ran out of memory.
    """
    train, validation = images
    trainer = Trainer(
        params,
        train=train,
        validation=validation,
        seed=seed,
        device=device,
        precision=precision,
        stop=stop,
    )
    _restore(trainer, checkpoints)
    # Killed between writing a checkpoint and reporting it: a report may be missing.
    for result in trainer.history:
        if result.epoch not in reported:
            trial.report(result.psnr_db, result.epoch)
    with BackgroundCheckpoints(checkpoints, thread) as behind:
        for result in trainer.epochs():
            behind.save(trainer.state(), result.epoch)
            if result.epoch not in reported:
                trial.report(result.psnr_db, result.epoch)
            on_epoch(result)
            if trainer.done:  # whatever would end it now, it has its result
                break
            if leave():
                behind.wait()
                raise Interrupted(f"left after epoch {result.epoch}")
            if trial.should_prune():
                on_end(trainer)
                raise PrunedError
            behind.begin()
    on_end(trainer)
    return trainer.history[-1].psnr_db


def _restore(trainer: Trainer, checkpoints: Checkpoints) -> None:
    """Goes on from the last checkpoint; one of another searchae is as good as none."""
    state = checkpoints.latest()
    if state is None:
        return
    try:
        trainer.restore(state)
    except CheckpointError as e:
        log.warning("trial %d starts over: %s", checkpoints.number, e)
    else:
        log.info("trial %d: goes on after epoch %d", checkpoints.number, len(trainer.history))
