"""Runs workers as tasks of Slurm job arrays."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchae.errors import ArtifactsError, UserError
from searchae.launch import slurm_script
from searchae.launch.base import Exit, Job, Resources
from searchae.launch.logs import created_log
from searchae.launch.slurm_files import Files, environments, own_folder
from searchae.launch.slurm_queue import NO_SBATCH, Queue, Row

log = logging.getLogger(__name__)

RESUBMIT_S = 30.0
"""Seconds between two attempts to submit while the controller does not answer."""

ABANDONED_S = 3600.0
"""Age in seconds from which files that no job in the queue needs are removed, as left by a killed
launcher. Younger ones may belong to a launcher that is about to submit them."""

LAST_WAIT_S = 120.0
"""Seconds that ``stop`` waits for killed tasks to leave the queue."""

USUAL_REASONS = {"None", "Priority", "Resources", "BeginTime", "Cleaning"}
"""Reasons for a pending task that are not logged."""


@dataclass
class Array:
    """A job array.

    Attributes:
        files: Its files.
        script: The batch script.
        jobs: The jobs that have not ended, by task index.
        id: Slurm's job id; empty until it is known to be submitted.
        tried: When it was last submitted; of ``time.monotonic``.
        running_since: When each task was first seen running; of ``time.monotonic``.
    """

    files: Files
    script: str
    jobs: dict[int, Job]
    id: str = ""
    tried: float = 0.0
    running_since: dict[int, float] = field(default_factory=dict)


class SlurmLauncher:
    """Submits one job array per call of ``start``, for each number of cores and GPUs.

    A task that Slurm preempts and requeues stays the same job. Each job gets whole GPUs. Its worker
    gets SIGTERM a minute before the time limit, and its exit is reported like any other.

    Args:
        folder: For exit codes and environments, on the file system that the nodes share. Only the
            user gets access to it.
        options: Further options of sbatch, such as ``{"partition": "gpu", "exclusive": ""}``.
        label: Part of the array's name in the queue.
        poll_s: Minimum seconds between two calls of squeue.

    Raises:
        UserError: An option is not allowed, or Slurm cannot write into the folder.
    """

    is_local = False

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str],
        *,
        label: str = "workers",
        poll_s: float = 5.0,
    ) -> None:
        slurm_script.check_options(options)
        self._folder = folder.parent.resolve() / folder.name
        slurm_script.check_folder(self._folder)
        self._options = dict(options)
        self._label = re.sub(r"[^A-Za-z0-9_.-]", "-", label)[:100]
        self._poll_s = poll_s
        self._arrays: list[Array] = []
        self._ended: list[Exit] = []
        self._polled_at = float("-inf")
        self._queue = Queue()
        self._logged_reasons: set[str] = set()
        self._submitted = False

    def resources(self) -> Resources | None:
        """Returns None: the queue decides.

        Raises:
            UserError: sbatch is not installed.
        """
        if shutil.which("sbatch") is None:
            raise UserError(NO_SBATCH)
        return None

    def start(self, jobs: Sequence[Job]) -> None:
        """Submits jobs; those with the same number of cores and GPUs as one array.

        Raises:
            UserError: sbatch is not installed or refuses the options.
            ArtifactsError: The folder cannot be written.
        """
        shapes: dict[tuple[int, float], list[Job]] = {}
        for job in jobs:
            shapes.setdefault((job.cpus, job.gpus), []).append(job)
        for same_shape in shapes.values():
            array = self._write_files(same_shape)
            try:
                self._submit(array)
            except UserError as e:
                if not self._submitted:
                    array.files.remove(range(len(same_shape)))
                    raise
                # These options were accepted before: the controller is down, or a limit is reached.
                log.warning("%s; again in %g s", e, RESUBMIT_S)
            self._arrays.append(array)

    def poll(self) -> list[Exit]:
        """Returns the tasks that have left the queue since the last call."""
        if self._arrays and time.monotonic() >= self._polled_at + self._poll_s:
            self._poll_queue()
        ended, self._ended = self._ended, []
        return ended

    def alive(self) -> int:
        """Returns the number of tasks in the queue."""
        return sum(len(array.jobs) for array in self._arrays)

    def stop(self, *, wait_s: float) -> None:
        """Cancels pending tasks and sends SIGTERM to running ones.

        Tasks that are left after ``wait_s`` seconds are cancelled: Slurm sends SIGTERM again, and
        SIGKILL after the cluster's ``KillWait``.
        """
        if not all(array.id for array in self._arrays):
            self._poll_queue(submit=False)
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

    def _write_files(self, jobs: Sequence[Job]) -> Array:
        self._folder = own_folder(self._folder)
        files = Files(self._folder, f"searchae-{self._label}-{secrets.token_hex(4)}")
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            files.create(slurm_script.environment(jobs))
            self._remove_abandoned()
            jobs = [created_log(job) for job in jobs]
        except OSError as e:
            raise ArtifactsError(f"--launcher slurm: {e}") from e
        script = slurm_script.script(jobs, files, self._options)
        return Array(files, script, dict(enumerate(jobs)))

    def _remove_abandoned(self) -> None:
        """Removes the environment files, which hold secrets, of launchers that were killed."""
        known = {array.files.name for array in self._arrays}
        left = set(environments(self._folder, older_s=ABANDONED_S)) - known
        rows = self._queue.rows() if left else None
        if rows is not None:
            for name in left - {row.name for row in rows}:
                Files(self._folder, name).remove(())

    def _submit(self, array: Array) -> None:
        array.tried = time.monotonic()
        secret = {name for job in array.jobs.values() for name in job.environment}
        array.id = self._queue.submit(
            array.script, leave_out=secret | slurm_script.overriding_variables(self._options)
        )
        self._submitted = True

    def _poll_queue(self, *, submit: bool = True) -> None:
        """Updates the arrays from the queue; tasks that are no longer in it have ended."""
        rows = self._queue.rows()
        now = time.monotonic()
        if rows is None:
            self._polled_at = now
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
                    del array.running_since[index]  # requeued: the next run counts
            self._log_reasons(mine.values())
            self._end(array, [i for i in array.jobs if i not in mine])
        self._polled_at = now

    def _submit_again(self, array: Array, rows: Sequence[Row], *, submit: bool) -> None:
        """Submits an array again, unless it was accepted and only the answer was lost."""
        ids = [row.array for row in rows if row.name == array.files.name]
        if ids:
            array.id = ids[0]
        elif submit and time.monotonic() >= array.tried + RESUBMIT_S:
            try:
                self._submit(array)
            except UserError as e:
                log.warning("%s; again in %g s", e, RESUBMIT_S)

    def _log_reasons(self, rows: Iterable[Row]) -> None:
        """Logs each unusual reason for which tasks are pending once."""
        reasons = {row.reason for row in rows if row.state == "PENDING"}
        for reason in reasons - USUAL_REASONS - self._logged_reasons:
            self._logged_reasons.add(reason)
            log.warning("workers wait in Slurm's queue: %s", reason)

    def _end(self, array: Array, indices: Sequence[int]) -> None:
        now = time.monotonic()
        for index in indices:
            job = array.jobs.pop(index)
            code = array.files.exit_code(index)
            if code < 0:
                array.files.append_messages(index, job.log)
            # A task that started and ended between two polls ran since the last one at most.
            since = array.running_since.get(index, max(self._polled_at, array.tried))
            self._ended.append(Exit(job, code, now - since))
        array.files.remove(indices, shared=not array.jobs)
        if not array.jobs:
            self._arrays.remove(array)

    def _cancel(self, *words: str) -> None:
        self._queue.cancel([array.id for array in self._arrays if array.id], *words)

    def _wait(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        pause = min(1.0, self._poll_s)
        while self._arrays:
            self._poll_queue()
            if not self._arrays or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        if self._arrays:
            time.sleep(max(0.0, deadline - time.monotonic()))
