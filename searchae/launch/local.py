"""Workers as processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence

from searchae.launch.base import Exit, Job, Resources


class LocalLauncher:
    """One process a job, in a session of its own: Ctrl-C reaches them through ``stop`` only."""

    nearby = True

    def __init__(self) -> None:
        self._running: dict[str, tuple[Job, subprocess.Popen[bytes], float]] = {}

    def resources(self) -> Resources:
        """This machine's, as far as this process may use it."""
        import torch

        cores = len(os.sched_getaffinity(0))
        return Resources(cpus=cores, gpus=torch.cuda.device_count(), machines=1)

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts a process a job; its output goes to the job's log."""
        for job in jobs:
            self._start(job)

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            process = subprocess.Popen(
                job.argv,
                env={**os.environ, **job.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[job.name] = (job, process, time.monotonic())

    def poll(self) -> list[Exit]:
        """The processes that have ended since the last call."""
        ended = []
        for name, (job, process, started) in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                ended.append(Exit(job, code, time.monotonic() - started))
        return ended

    def alive(self) -> int:
        """How many processes run."""
        return sum(process.poll() is None for _, process, _ in self._running.values())

    def stop(self, *, wait_s: float) -> None:
        """SIGTERM to all, SIGKILL to those left after ``wait_s`` seconds."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + wait_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        for _, process, _ in self._running.values():
            process.wait()

    def _signal(self, number: int) -> None:
        for _, process, _ in self._running.values():
            if process.poll() is None:
                process.send_signal(number)
