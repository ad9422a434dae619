"""Workers as tasks of Slurm's job arrays."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchae.errors import ArtifactsError, UserError
from searchae.launch import slurm_script
from searchae.launch.base import Exit, Job, Resources
from searchae.launch.slurm_queue import NO_SBATCH, Queue, Row
from searchae.launch.slurm_script import Files

log = logging.getLogger(__name__)

RESUBMIT_S = 30.0
"""Seconds between two tries to submit while the controller is away."""

ABANDONED_S = 3600.0
"""Age in seconds from which files are those of a launcher that was killed, if nothing in the
queue needs them: another launcher may just be about to submit younger ones."""

LAST_WAIT_S = 120.0
"""Seconds that ``stop`` waits for Slurm to clear away what it has killed."""

WAITING_AS_USUAL = {"None", "Priority", "Resources", "BeginTime", "Cleaning"}
"""Reasons to wait in the queue that are worth no word to the user."""


@dataclass
class Array:
    """Jobs that were submitted together.

    Attributes:
        files: Its files.
        jobs: By index; those that have ended are removed.
        id: Slurm's; empty as long as it is not known to be submitted.
        tried: When it was last submitted.
        running_since: When a task was first seen to run.
    """

    files: Files
    jobs: dict[int, Job]
    id: str = ""
    tried: float = 0.0
    running_since: dict[int, float] = field(default_factory=dict)


class SlurmLauncher:
    """An array a call of ``start``; Slurm requeues a preempted task, which stays the same job.

    A job gets whole GPUs. Its worker gets SIGTERM a minute before its time limit, and the exit
    that follows is told as any other.

    Args:
        folder: For scripts and exit codes, on the file system that the nodes share. Nobody else
            may look into it.
        options: Further options of sbatch: ``{"partition": "gpu", "exclusive": ""}``.
        label: Part of the name in the queue.
        poll_s: Seconds between two looks at the queue, at least.

    Raises:
        UserError: An option is not possible.
    """

    nearby = False

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str],
        *,
        label: str = "workers",
        poll_s: float = 5.0,
    ) -> None:
        slurm_script.check_options(options)
        self._folder = folder.resolve()
        self._options = dict(options)
        self._label = re.sub(r"[^A-Za-z0-9_.-]", "-", label)
        self._poll_s = poll_s
        self._arrays: list[Array] = []
        self._ended: list[Exit] = []
        self._looked = float("-inf")
        self._queue = Queue()
        self._reasons: set[str] = set()
        self._submitted = False

    def resources(self) -> Resources | None:
        """None: the queue decides.

        Raises:
            UserError: There is no sbatch here.
        """
        if shutil.which("sbatch") is None:
            raise UserError(NO_SBATCH)
        return None

    def start(self, jobs: Sequence[Job]) -> None:
        """Submits jobs; those that need the same cores and GPUs as one array.

        Raises:
            UserError: There is no sbatch here, or it refuses the options.
            ArtifactsError: The folder cannot be written.
        """
        shapes: dict[tuple[int, float], list[Job]] = {}
        for job in jobs:
            shapes.setdefault((job.cpus, job.gpus), []).append(job)
        for alike in shapes.values():
            array = self._write(alike)
            try:
                self._submit(array)
            except UserError as e:
                if not self._submitted:
                    _remove(array.files, range(len(alike)))
                    raise
                # The same options were fine before: the controller is away, or a limit is met.
                log.warning("%s; again in %g s", e, RESUBMIT_S)
            self._arrays.append(array)

    def poll(self) -> list[Exit]:
        """The tasks that have left the queue since the last call."""
        if self._arrays and time.monotonic() >= self._looked + self._poll_s:
            self._look()
        ended, self._ended = self._ended, []
        return ended

    def alive(self) -> int:
        """How many tasks wait, run or are being cleared away."""
        return sum(len(array.jobs) for array in self._arrays)

    def stop(self, *, wait_s: float) -> None:
        """Cancels what waits, SIGTERM to what runs; cancels what is left after ``wait_s``.

        The latter is again SIGTERM, and SIGKILL after the cluster's ``KillWait``.
        """
        if not all(array.id for array in self._arrays):
            self._look(submit=False)
        for array in [a for a in self._arrays if not a.id]:
            self._end(array, list(array.jobs))
        self._cancel("--state=PENDING")
        self._cancel("--state=RUNNING", "--signal=TERM", "--full")
        self._wait(wait_s)
        self._cancel()
        self._wait(LAST_WAIT_S)
        if self._arrays:
            ids = " ".join(a.id for a in self._arrays)
            log.warning("Slurm has not ended every worker; do it by hand: scancel %s", ids)
            for array in list(self._arrays):
                self._end(array, list(array.jobs))

    def _write(self, jobs: Sequence[Job]) -> Array:
        files = Files(self._folder, f"searchae-{self._label}-{secrets.token_hex(4)}")
        try:
            for folder in (self._folder, files.exit("").parent):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
            for job in jobs:
                job.log.parent.mkdir(parents=True, exist_ok=True)
                job.log.touch()
            self._clear_away()
            _create(files.environment, slurm_script.environment(jobs), 0o600)
            _create(files.script, slurm_script.script(jobs, files, self._options), 0o700)
        except OSError as e:
            raise ArtifactsError(f"--launcher slurm: {e}") from e
        return Array(files, dict(enumerate(jobs)))

    def _clear_away(self) -> None:
        """Removes files of arrays whose launcher was killed: they hold a secret."""
        known = {array.files.environment for array in self._arrays}
        old = time.time() - ABANDONED_S
        left = [
            path
            for path in self._folder.glob("searchae-*.env")
            if path not in known and path.stat().st_mtime < old
        ]
        rows = self._queue.rows() if left else None
        if rows is not None:
            queued = {row.name for row in rows}
            for path in left:
                if path.stem not in queued:
                    _remove(Files(self._folder, path.stem), ())

    def _submit(self, array: Array) -> None:
        array.tried = time.monotonic()
        secret = {name for job in array.jobs.values() for name in job.environment}
        array.id = self._queue.submit(
            array.files.script, leave_out=secret | slurm_script.overriding(self._options)
        )
        self._submitted = True

    def _look(self, *, submit: bool = True) -> None:
        """Compares the queue with what is known; ends what is no longer there."""
        rows = self._queue.rows()
        now = time.monotonic()
        if rows is None:
            self._looked = now
            return
        for array in list(self._arrays):
            mine = {row.task: row for row in rows if array.id and row.array == array.id}
            if not array.id:
                self._submit_again(array, rows, submit=submit)
                continue
            for index, row in mine.items():
                if row.state != "PENDING":
                    array.running_since.setdefault(index, now)
                elif index in array.running_since:
                    del array.running_since[index]  # requeued: its next life counts
            self._explain(mine.values())
            self._end(array, [i for i in array.jobs if i not in mine])
        self._looked = now

    def _submit_again(self, array: Array, rows: Sequence[Row], *, submit: bool) -> None:
        """Submits what the controller did not take, unless it did and only its answer was lost."""
        ids = [row.array for row in rows if row.name == array.files.name]
        if ids:
            array.id = ids[0]
        elif submit and time.monotonic() >= array.tried + RESUBMIT_S:
            try:
                self._submit(array)
            except UserError as e:
                log.warning("%s; again in %g s", e, RESUBMIT_S)

    def _explain(self, rows: Iterable[Row]) -> None:
        """Says, once each, why tasks wait for something that may never come."""
        reasons = {row.reason for row in rows if row.state == "PENDING"}
        for reason in reasons - WAITING_AS_USUAL - self._reasons:
            self._reasons.add(reason)
            log.warning("workers wait in Slurm's queue: %s", reason)

    def _end(self, array: Array, indices: Sequence[int]) -> None:
        now = time.monotonic()
        for index in indices:
            job = array.jobs.pop(index)
            code = _code(array.files.exit(index))
            if code < 0:
                _append(array.files.slurm_log(index), job.log)
            # One that came and went between two looks lived since the last at most.
            since = array.running_since.get(index, max(self._looked, array.tried))
            self._ended.append(Exit(job, code, now - since))
        _remove(array.files, indices, whole=not array.jobs)
        if not array.jobs:
            self._arrays.remove(array)

    def _cancel(self, *words: str) -> None:
        self._queue.cancel([array.id for array in self._arrays if array.id], *words)

    def _wait(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        pause = min(1.0, self._poll_s)
        while self._arrays:
            self._look()
            if not self._arrays or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        if self._arrays:
            time.sleep(max(0.0, deadline - time.monotonic()))


def _code(path: Path) -> int:
    """A worker's exit code; negative for a signal, by which it also went if it left none.

    Looked at only once the task is gone: a shared file system may go on saying for a minute
    that a file is not there, to one who has asked before.
    """
    try:
        code = int(path.read_text())
    except (FileNotFoundError, ValueError):
        return -signal.SIGKILL
    # 130 is what a worker that was asked to leave returns; Slurm sends no SIGINT.
    return 128 - code if 128 < code <= 128 + 64 and code != 130 else code


def _append(source: Path, target: Path) -> None:
    """Puts what Slurm said about a task that died where the user looks."""
    try:
        words = source.read_bytes()
    except FileNotFoundError:
        return
    with target.open("ab") as out:
        out.write(words)


def _create(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _remove(files: Files, indices: Iterable[int], *, whole: bool = True) -> None:
    paths = [path for i in indices for path in (files.exit(i), files.slurm_log(i))]
    if whole:
        paths += [files.script, files.environment]
    for path in paths:
        path.unlink(missing_ok=True)
