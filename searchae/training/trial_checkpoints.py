"""Checkpoints of a study's trials, in the folder that all workers share."""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from searchae.errors import ArtifactsError, DivergedError
from searchae.files import (
    PATIENT_S,
    AnyPath,
    ArtifactFolder,
    ArtifactPath,
    RemoteFolder,
    RemotePath,
    artifact_folder,
    below,
)
from searchae.training import checkpoint
from searchae.training.checkpoint import CheckpointError, Owner

log = logging.getLogger(__name__)


def check_artifact_folder(folder: ArtifactPath) -> None:
    """Creates the folder that all workers share, and checks that it can be written.

    Raises:
        ArtifactsError: It cannot be created or written.
    """
    if isinstance(folder, RemotePath):
        try:
            RemoteFolder(folder).check()
        except OSError as e:
            raise ArtifactsError(
                f"--artifacts {folder}: cannot be written: {e.strerror}; check the bucket's name, "
                "the environment variables with its credentials, and the network"
            ) from e
        return
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
    """The pruner stopped the trial; its reports are kept."""


class PausedError(Exception):
    """The pruner paused the trial; its reports and its newest checkpoint are kept.

    Attributes:
        step: The step of its last report.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one trial, in a folder that all workers share.

    A file's name holds the step of its report and the seal of its content. So the newest is found
    without the database, an incomplete file is detected, and a worker that was wrongly thought dead
    does not overwrite the files of the worker that took its trial over. What another study left
    under the same name, and whatever else lies in the folder, is passed over with a warning.

    Attributes:
        folder: The folder of the study's checkpoints.
        number: The trial's number.
        owner: The study and the images that they belong to.
    """

    folder: ArtifactPath
    number: int
    owner: Owner = field(default_factory=Owner, repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether they are in an object store, which may be slow, or away for a while."""
        return isinstance(self.folder, RemotePath)

    def save(self, state: dict[str, Any], step: int) -> None:
        """Writes a checkpoint, and removes all others but the newest.

        Args:
            state: The trainer's state.
            step: The step of the report that it belongs to.

        Raises:
            CheckpointError: The state cannot be written.
            OSError: An old checkpoint cannot be removed.
        """
        stem = f"{self.number:06d}-{step:06d}"
        written = checkpoint.save_checkpoint(self.folder, state, stem=stem, owner=self.owner)
        others = [path for _, path in self._found() if path != written]
        for path in others[1:]:
            artifact_folder(self.folder).remove(path.name)

    def latest(self) -> dict[str, Any] | None:
        """Returns the state of the newest complete checkpoint; None without one."""
        try:
            found = self._found(patience_s=PATIENT_S)
        except OSError as e:
            log.warning("trial %d: no checkpoint can be read: %s", self.number, e)
            return None
        for _, path in found:
            try:
                return checkpoint.load_checkpoint(path, owner=self.owner)
            except CheckpointError as e:
                log.warning("trial %d: a checkpoint is passed over: %s", self.number, e)
        return None

    def newest_epoch(self) -> int:
        """Returns the epoch of the newest checkpoint, which may be damaged; -1 without one.

        Raises:
            OSError: The folder cannot be read.
        """
        return max((epoch for epoch, _ in self._found()), default=-1)

    def size(self) -> int:
        """Returns the bytes that the trial's checkpoints take; 0 where that cannot be read."""
        try:
            sizes = artifact_folder(self.folder).sizes()
        except OSError as e:
            log.warning("trial %d: the size of its checkpoints is not known: %s", self.number, e)
            return 0
        return sum(size for name, size in sizes.items() if self._step(name) is not None)

    def clear(self) -> None:
        """Removes all checkpoints of the trial, and unfinished files of dead workers.

        Raises:
            OSError: A file cannot be removed.
        """
        _remove(self.folder, {self.number})

    def _found(self, patience_s: float | None = None) -> list[tuple[int, ArtifactPath]]:
        """Returns step and path of each checkpoint, the newest first."""
        names = artifact_folder(self.folder, patience_s=patience_s).names()
        steps = ((self._step(name), name) for name in names)
        found = sorted(((step, name) for step, name in steps if step is not None), reverse=True)
        return [(step, self.folder / name) for step, name in found]

    def _step(self, name: str) -> int | None:
        """Returns the step that a file's name tells; None if it is no checkpoint of the trial."""
        match = re.fullmatch(rf"{self.number:06d}-(\d+)-[0-9a-f]{{64}}\.pt", name)
        return int(match[1]) if match else None


LONGEST_DELAY_S = 1.0
"""How long a checkpoint waits at most for ``begin``; the report of its epoch may be waiting for the
database."""


class BackgroundCheckpoints:
    """Writes checkpoints in a background thread, one at a time. Use it in a ``with`` block.

    The next epoch does not wait for the disk. A worker that is killed before the file is complete
    loses that epoch, which is trained again.

    Nor does training wait for an object store: a checkpoint that comes while another one is still
    being sent is kept for ``wait``, and a newer one takes its place. What cannot be sent costs a
    warning, and those epochs if the trial has to be resumed.

    ``save`` only prepares a checkpoint; ``begin``, called once it is known that the trial
    continues, starts to write it. So the last checkpoint of a trial that has ended is usually never
    written.

    At the end of the block, checkpoints of a trial that others will continue are waited for. Those
    of a trial that has ended are not if ``thread`` is given: the caller removes them in that same
    thread.

    Args:
        checkpoints: Writes the files.
        thread: An executor with one thread; None for an own one that ends with the block.
    """

    def __init__(self, checkpoints: Checkpoints, thread: ThreadPoolExecutor | None = None) -> None:
        self._checkpoints, self._is_own = checkpoints, thread is None
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._begun, self._has_ended = threading.Event(), False
        self._late: tuple[dict[str, Any], int] | None = None

    def save(self, state: dict[str, Any], step: int) -> None:
        """Prepares a checkpoint; first waits until the one before is written, if on a disk.

        Args:
            state: The trainer's state. It is read later: the caller must not change it.
            step: The step of the report that it belongs to.

        Raises:
            CheckpointError: The checkpoint before could not be written.
            OSError: The same.
        """
        is_busy = self._writing is not None and not self._writing.done()
        if is_busy and self._checkpoints.is_remote:
            self._late = state, step
            return
        self._wait_for_one()
        self._prepare(state, step)

    def _prepare(self, state: dict[str, Any], step: int) -> None:
        self._late, self._begun = None, threading.Event()
        self._writing = self._thread.submit(self._write, state, step, self._begun)

    def begin(self) -> None:
        """Starts to write the prepared checkpoint."""
        self._begun.set()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
            CheckpointError: A checkpoint could not be written.
            OSError: The same.
        """
        self._wait_for_one()
        if self._late is not None:
            self._prepare(*self._late)
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        self.begin()
        if self._writing is not None:
            self._writing.result()

    def _write(self, state: dict[str, Any], step: int, begun: threading.Event) -> None:
        begun.wait(LONGEST_DELAY_S)
        if self._has_ended:
            return
        try:
            self._checkpoints.save(state, step)
        except (OSError, CheckpointError) as e:
            if not self._checkpoints.is_remote:
                raise
            log.warning("trial %d: no checkpoint: %s", self._checkpoints.number, e)

    def __enter__(self) -> BackgroundCheckpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._writing is not None:
            self._writing.add_done_callback(self._log_failure)
        # From here on ``_write`` skips a checkpoint that has not been begun.
        self._has_ended = _has_ended(kind) and not self._is_own
        self.begin()
        if self._is_own:
            self._thread.shutdown()
        elif self._writing is not None and not self._has_ended:
            self._writing.exception()  # waits until it is written

    def _log_failure(self, writing: Future[None]) -> None:
        if failed := writing.exception():
            log.warning("trial %d: no checkpoint: %s", self._checkpoints.number, failed)


def _has_ended(kind: type[BaseException] | None) -> bool:
    """Returns whether the exception that ended a training, or None, also ended its trial."""
    return kind is None or issubclass(kind, PrunedError | DivergedError)


_CHECKPOINT = re.compile(r"\.?(\d+)-\d+[-.].*")


def remove_old_checkpoints(folder: ArtifactPath, ended: Collection[int]) -> int:
    """Removes checkpoints of trials that have ended.

    A worker removes those of the trials that it ends. Left are those of trials that were given up
    after their workers died, and of trials whose worker was killed just after ending them.

    Args:
        folder: The folder of the study's checkpoints.
        ended: The numbers of the trials that have ended.

    Returns:
        How many files were removed.
    """
    try:
        return _remove(folder, ended)
    except OSError as e:
        log.warning("checkpoints of ended trials are left: %s", e)
        return 0


def _remove(folder: ArtifactPath, numbers: Collection[int]) -> int:
    """Removes the checkpoints of some trials; returns how many.

    Raises:
        OSError: One cannot be removed.
    """
    files: ArtifactFolder = artifact_folder(folder)
    matches = [(_CHECKPOINT.fullmatch(name), name) for name in files.names()]
    found = [name for m, name in matches if m and int(m[1]) in numbers]
    for name in found:
        files.remove(name)
    return len(found)


def checkpoint_folder(artifacts: AnyPath, study: str) -> AnyPath:
    """Returns the folder of a study's checkpoints.

    Args:
        artifacts: The folder that all workers share.
        study: The name of the study's folder in it.
    """
    return below(artifacts, study, "checkpoints")
