"""Runs Slurm's commands ``sbatch``, ``squeue`` and ``scancel``."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from searchae.errors import UserError

NO_SBATCH = "--launcher slurm: sbatch is not on this machine; run it where jobs are submitted"

log = logging.getLogger(__name__)

COMMAND_S = 30.0
"""Timeout of a Slurm command, in seconds."""


@dataclass(frozen=True)
class Row:
    """A task of a job array in the queue.

    Attributes:
        array: Slurm's job id of the array.
        task: The task's index in the array.
        state: Slurm's job state, such as ``PENDING``.
        name: The array's name.
        reason: Why the task is pending.
    """

    array: str
    task: int
    state: str
    name: str
    reason: str


class Queue:
    """The current user's tasks in the queue of the cluster that this machine belongs to."""

    def __init__(self) -> None:
        self._unreachable = False

    def submit(self, script: str, *, leave_out: Collection[str]) -> str:
        """Submits a job array; returns its id.

        sbatch reads the script from its standard input: a file in a shared folder might be replaced
        before it is read.

        Args:
            script: The text of the batch script.
            leave_out: Variables of this process that the tasks must not inherit.

        Raises:
            UserError: sbatch is not installed, times out, or refuses the script.
        """
        try:
            done = _run(("sbatch", "--parsable"), leave_out=leave_out, stdin=script)
        except FileNotFoundError:
            raise UserError(NO_SBATCH) from None
        except subprocess.TimeoutExpired:
            raise UserError("--launcher slurm: sbatch does not answer") from None
        if done.returncode:
            words = done.stderr.strip() or f"sbatch ended with exit code {done.returncode}"
            raise UserError(*f"--launcher slurm: {words}".splitlines())
        return done.stdout.strip().split(";")[0]

    def rows(self) -> list[Row] | None:
        """Returns the user's tasks; None if Slurm does not answer, which is logged once an outage.

        All tasks are listed, not those of given arrays: for an array that has ended, Slurm reports
        the same error as for a failure.
        """
        user = str(os.getuid())
        words = ("squeue", "--noheader", "--array", f"--user={user}", "--format=%F|%K|%T|%j|%r")
        try:
            done = _run(words)
            problem = done.stderr.strip() if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as e:
            problem = str(e)
        if problem:
            if not self._unreachable:
                log.warning("Slurm does not answer; its jobs are taken to live on: %s", problem)
            self._unreachable = True
            return None
        self._unreachable = False
        lines = (line.split("|", 4) for line in done.stdout.splitlines())
        return [
            Row(fields[0], int(fields[1]), *fields[2:])
            for fields in lines
            if len(fields) == 5 and fields[1].isdigit()  # N/A: not an array
        ]

    def cancel(self, ids: Sequence[str], *words: str) -> None:
        """Cancels or signals job arrays; ignores those that have ended.

        Args:
            ids: Slurm's job ids.
            *words: Further options of scancel.
        """
        if not ids:
            return
        try:
            done = _run(("scancel", "--quiet", *words, *ids))
        except (OSError, subprocess.TimeoutExpired) as e:
            log.warning("scancel: %s", e)
        else:
            if done.returncode:
                log.debug("scancel: %s", done.stderr.strip())


def _run(
    words: Sequence[str], *, leave_out: Collection[str] = (), stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    # squeue and scancel take filters from these variables, which would hide tasks.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in leave_out and not name.startswith(("SQUEUE_", "SCANCEL_"))
    }
    return subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        env=environment,
        check=False,
    )
