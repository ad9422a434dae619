"""The seam between training and search: train an epoch, checkpoint, report, prune."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch

from searchae.errors import ArtifactsError, DivergedError
from searchae.spec import TrialParams
from searchae.training import CheckpointError, EpochResult, Interrupted, Trainer, checkpoint
from searchae.training.precision import Precision

log = logging.getLogger(__name__)


def check_artifacts(folder: Path) -> None:
    """Makes the folder that all workers share, and sees whether it can be written.

    Raises:
        ArtifactsError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        reason = e.strerror or str(e)
        raise ArtifactsError(
            f"--artifacts {folder}: cannot be written: {reason}; choose another folder"
        ) from e


class Reports(Protocol):
    """The part of a trial that training reports to; an Optuna trial is one."""

    def report(self, value: float, step: int) -> None:
        """Records the PSNR in dB after epoch ``step``."""

    def should_prune(self) -> bool:
        """Whether the pruner gives the trial up."""


class PrunedError(Exception):
    """The pruner gave the trial up; its reports stand."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one trial, in a folder that all workers share.

    A file's name says its epoch and its content's hash, so that no database has to be asked,
    a torn file is passed over, and a worker that was taken for dead overwrites nobody's.

    Attributes:
        folder: The study's checkpoints.
        number: The trial's.
    """

    folder: Path
    number: int

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Writes a checkpoint and removes all but it and the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f"{self.number:06d}-{epoch:06d}.{_process_name()}.draft"
        sha256 = checkpoint.save(draft, state)
        draft.replace(self.folder / f"{self.number:06d}-{epoch:06d}-{sha256}.pt")
        for _, _, path in self._found()[2:]:
            path.unlink(missing_ok=True)

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; None without one."""
        for epoch, sha256, path in self._found():
            try:
                return checkpoint.load(path, sha256)
            except CheckpointError as e:
                log.warning("trial %d: checkpoint of epoch %d: %s", self.number, epoch, e)
        return None

    def clear(self) -> None:
        """Removes every checkpoint of the trial, drafts of dead workers too."""
        for pattern in (f"{self.number:06d}-*", f".{self.number:06d}-*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _found(self) -> list[tuple[int, str, Path]]:
        """Epoch, hash and file of each checkpoint, the newest first."""
        pattern = re.compile(rf"{self.number:06d}-(\d+)-([0-9a-f]{{64}})\.pt")
        matches = ((pattern.fullmatch(p.name), p) for p in self.folder.glob("*.pt"))
        return sorted(((int(m[1]), m[2], p) for m, p in matches if m), reverse=True)


HELD_S = 1.0
"""So long at most a checkpoint waits for the report of its epoch: the database may be away."""


class Behind:
    """Writes checkpoints while the training goes on, one at a time. Use it in a ``with`` block.

    The next epoch does not wait for the disk. A worker that is killed before the file is there
    loses that epoch too: it is trained again. A trial that has ended is not waited for either,
    where the thread is the caller's, who will clear its checkpoints away in the same thread; one
    that others go on with is. A checkpoint is begun when ``begin`` says that the trial goes on, so
    that most trials end without a last one that nobody reads.

    Args:
        checkpoints: Where they go.
        thread: With one worker; one of its own, until the end of the block, if unset.
    """

    def __init__(self, checkpoints: Checkpoints, thread: ThreadPoolExecutor | None = None) -> None:
        self._checkpoints, self._is_own = checkpoints, thread is None
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._begun, self._has_ended = threading.Event(), False

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Gets ready to write; first waits for the one before.

        Args:
            state: Nobody else's: it is read later.
            epoch: The last that it knows.

        Raises:
            CheckpointError: The one before could not be written.
            OSError: The same.
        """
        self.wait()
        self._begun = threading.Event()
        self._writing = self._thread.submit(self._write, state, epoch, self._begun)

    def begin(self) -> None:
        """Begins to write what is ready."""
        self._begun.set()

    def wait(self) -> None:
        """Returns once everything is on the disk; raises as ``save`` does."""
        self.begin()
        if self._writing is not None:
            self._writing.result()

    def _write(self, state: dict[str, Any], epoch: int, begun: threading.Event) -> None:
        begun.wait(HELD_S)
        if not self._has_ended:
            self._checkpoints.save(state, epoch)

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._writing is not None:
            self._writing.add_done_callback(self._say_if_failed)
        self._has_ended = _has_ended(kind) and not self._is_own  # if not begun, it never is
        self.begin()
        if self._is_own:
            self._thread.shutdown()
        elif self._writing is not None and not self._has_ended:
            self._writing.exception()  # waits

    def _say_if_failed(self, writing: Future[None]) -> None:
        if failed := writing.exception():
            log.warning("trial %d: no checkpoint: %s", self._checkpoints.number, failed)


def _has_ended(kind: type[BaseException] | None) -> bool:
    """Whether a trial whose training ended so is nobody's to go on with."""
    return kind is None or issubclass(kind, PrunedError | DivergedError)


_CHECKPOINT = re.compile(r"\.?(\d+)-\d+[-.].*")


def sweep(folder: Path, study: optuna.Study) -> int:
    """Removes checkpoints of trials that have ended; returns how many files.

    A worker removes those of the trials that it ends. Left over are those of trials given up
    after their workers died, and of workers killed on the way.
    """
    # Files first: a trial that starts after this look is in no danger.
    files = list(folder.glob("*")) if folder.is_dir() else []
    ended = {t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()}
    matches = [(_CHECKPOINT.fullmatch(p.name), p) for p in files]
    found = [p for m, p in matches if m and int(m[1]) in ended]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def run(
    trial: Reports,
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
    with Behind(checkpoints, thread) as behind:
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


def _process_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
