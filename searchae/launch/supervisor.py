"""Keeps a number of jobs running: starts again, with pauses, those that died."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from searchae.launch.base import Exit, Job, Launcher

log = logging.getLogger(__name__)

QUICK_S = 60.0
"""A job that lived longer than this, in seconds, starts afresh in its count of deaths."""


@dataclass
class Supervisor:
    """Looks after jobs; poll it.

    Args:
        launcher: Starts them.
        jobs: Which.
        most_deaths: A job that died this often in a row, each time quickly, is given up.
        clock: Seconds; a port for tests.
    """

    launcher: Launcher
    jobs: Sequence[Job]
    most_deaths: int = 5
    clock: Callable[[], float] = time.monotonic
    given_up: list[Exit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deaths = {job.name: 0 for job in self.jobs}
        self._due: dict[str, tuple[float, Job]] = {}

    def start(self) -> None:
        """Starts every job."""
        self.launcher.start(self.jobs)

    def poll(self) -> bool:
        """Starts again what is due; returns whether any job runs or will run again."""
        for ended in self.launcher.poll():
            self._consider(ended)
        now = self.clock()
        for name, (when, job) in list(self._due.items()):
            if when <= now:
                del self._due[name]
                self.launcher.start([job])
        return bool(self._due) or self.launcher.alive() > 0

    def _consider(self, ended: Exit) -> None:
        if ended.code == 0:
            return
        name = ended.job.name
        self._deaths[name] = 1 if ended.alive_s > QUICK_S else self._deaths[name] + 1
        # 1 to 127: it left by itself and said why. A signal, or a shell's 128 + signal: it was
        # killed, and another one may live.
        by_itself = 0 < ended.code < 128
        if by_itself or self._deaths[name] >= self.most_deaths:
            self.given_up.append(ended)
            return
        pause = min(30.0, 0.5 * 2 ** (self._deaths[name] - 1))
        log.warning("%s died (exit code %d); starting it again in %.1f s", name, ended.code, pause)
        self._due[name] = (self.clock() + pause, ended.job)
