"""The checkpoints of a study's trials, in the folder that all workers share."""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchae.errors import ArtifactsError, DivergedError
from searchae.training import checkpoint
from searchae.training.checkpoint import CheckpointError

log = logging.getLogger(__name__)


def check_artifact_folder(folder: Path) -> None:
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
        stem = f"{self.number:06d}-{epoch:06d}"
        checkpoint.save_checkpoint(self.folder, state, stem=stem)
        for _, _, path in self._found()[2:]:
            path.unlink(missing_ok=True)

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole; None without one."""
        for epoch, sha256, path in self._found():
            try:
                return checkpoint.load_checkpoint(path, sha256)
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


class BackgroundCheckpoints:
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

    def __enter__(self) -> BackgroundCheckpoints:
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


def remove_old_checkpoints(folder: Path, ended: Collection[int]) -> int:
    """Removes the checkpoints of trials that have ended.

    Args:
        folder: The study's checkpoints.
        ended: The numbers of the trials that have ended.

    Returns:
        How many files were removed.

    A worker removes those of the trials that it ends. Left over are those of trials given up
    after their workers died, and of workers killed on the way.
    """
    files = list(folder.glob("*")) if folder.is_dir() else []
    matches = [(_CHECKPOINT.fullmatch(p.name), p) for p in files]
    found = [p for m, p in matches if m and int(m[1]) in ended]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def checkpoint_folder(artifacts: Path, study: str) -> Path:
    """Where a study's checkpoints are kept."""
    return artifacts / study / "checkpoints"
