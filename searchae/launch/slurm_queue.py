"""Slurm's commands: submit, look, cancel."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from searchae.errors import UserError

NO_SBATCH = "--launcher slurm: sbatch is not on this machine; run it where jobs are submitted"

log = logging.getLogger(__name__)

COMMAND_S = 30.0
"""Seconds that one command of Slurm may take."""


@dataclass(frozen=True)
class Row:
    """A task of an array in the queue.

    Attributes:
        array: Slurm's id of the array.
        task: Its index in the array.
        state: For instance ``PENDING``.
        name: The array's name.
        reason: Why it waits.
    """

    array: str
    task: int
    state: str
    name: str
    reason: str


class Queue:
    """What this user has in the queue of the cluster that this machine belongs to."""

    def __init__(self) -> None:
        self._away = False

    def submit(self, script: Path, *, leave_out: Collection[str]) -> str:
        """Submits a script of an array; returns the array's id.

        Args:
            script: A batch script.
            leave_out: Variables of this process that the tasks shall not inherit.

        Raises:
            UserError: There is no sbatch here, it does not answer, or it refuses.
        """
        try:
            done = _run(("sbatch", "--parsable", str(script)), leave_out=leave_out)
        except FileNotFoundError:
            raise UserError(NO_SBATCH) from None
        except subprocess.TimeoutExpired:
            raise UserError("--launcher slurm: sbatch does not answer") from None
        if done.returncode:
            words = done.stderr.strip() or f"sbatch ended with exit code {done.returncode}"
            raise UserError(f"--launcher slurm: {words}")
        return done.stdout.strip().split(";")[0]

    def rows(self) -> list[Row] | None:
        """This user's tasks; None, with one warning an outage, if Slurm does not answer.

        Not by the arrays' ids: Slurm answers with the same error when it has forgotten an array
        that has ended and when something is wrong.
        """
        user = str(os.getuid())
        words = ("squeue", "--noheader", "--array", f"--user={user}", "--format=%F|%K|%T|%j|%r")
        try:
            done = _run(words)
            problem = done.stderr.strip() if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as e:
            problem = str(e)
        if problem:
            if not self._away:
                log.warning("Slurm does not answer; its jobs are taken to live on: %s", problem)
            self._away = True
            return None
        self._away = False
        lines = (line.split("|", 4) for line in done.stdout.splitlines())
        return [
            Row(fields[0], int(fields[1]), *fields[2:])
            for fields in lines
            if len(fields) == 5 and fields[1].isdigit()  # N/A: a job that is no array
        ]

    def cancel(self, ids: Sequence[str], *words: str) -> None:
        """Cancels or signals arrays. Those that have left meanwhile are no error."""
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
    words: Sequence[str], *, leave_out: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    # squeue and scancel take filters from these variables, which would hide tasks from us.
    ours = {
        name: value
        for name, value in os.environ.items()
        if name not in leave_out and not name.startswith(("SQUEUE_", "SCANCEL_"))
    }
    return subprocess.run(
        words, capture_output=True, text=True, timeout=COMMAND_S, env=ours, check=False
    )
