"""Keeps jobs running: restarts those that were killed, with increasing pauses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from searchae.launch.base import Exit, Job, Launcher

log = logging.getLogger(__name__)

STABLE_AFTER_S = 60.0
"""Seconds after which a running job's count of consecutive failures is reset."""


@dataclass
class Supervisor:
    """Starts jobs and restarts those that were killed; call ``poll`` regularly.

    Args:
        launcher: Starts the jobs.
        jobs: The jobs.
        max_failures: Consecutive failures, each within ``STABLE_AFTER_S``, after which a job is
            not restarted.
        clock: Returns seconds; replaced in tests.

    Attributes:
        given_up: The last exits of the jobs that are not restarted.
    """

    launcher: Launcher
    jobs: Sequence[Job]
    max_failures: int = 5
    clock: Callable[[], float] = time.monotonic
    given_up: list[Exit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._failures = {job.name: 0 for job in self.jobs}
        self._restarts: dict[str, tuple[float, Job]] = {}  # name -> when, job

    def start(self) -> None:
        """Starts every job."""
        self.launcher.start(self.jobs)

    def poll(self) -> bool:
        """Restarts the jobs that are due.

        Returns:
            Whether any job runs or will be restarted.
        """
        for ended in self.launcher.poll():
            self._handle_exit(ended)
        now = self.clock()
        for name, (when, job) in list(self._restarts.items()):
            if when <= now:
                del self._restarts[name]
                self.launcher.start([job])
        return bool(self._restarts) or self.launcher.alive() > 0

    def _handle_exit(self, ended: Exit) -> None:
        if ended.code == 0:
            return
        name = ended.job.name
        self._failures[name] = 1 if ended.alive_s > STABLE_AFTER_S else self._failures[name] + 1
        # 1 to 127: the job itself reported an error, which would happen again. Negative, or a
        # shell's 128 + signal: it was killed, and may succeed the next time.
        reported_error = 0 < ended.code < 128
        if reported_error or self._failures[name] >= self.max_failures:
            self.given_up.append(ended)
            return
        pause = min(30.0, 0.5 * 2 ** (self._failures[name] - 1))
        log.warning("%s died (exit code %d); starting it again in %.1f s", name, ended.code, pause)
        self._restarts[name] = (self.clock() + pause, ended.job)
