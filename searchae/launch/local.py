"""Workers as processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from searchae.launch import prestart
from searchae.launch.base import Exit, Job, Resources


class LocalLauncher:
    """One process a job, in a session of its own: Ctrl-C reaches them through ``stop`` only.

    Args:
        gpus: This machine's; torch is asked if unset.
    """

    nearby = True

    def __init__(self, gpus: int | None = None) -> None:
        self._gpus = gpus
        self._running: dict[str, tuple[Job, subprocess.Popen[bytes], float]] = {}
        self._ahead: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}

    def resources(self) -> Resources:
        """This machine's, as far as this process may use it."""
        cores = len(os.sched_getaffinity(0))
        if self._gpus is None:
            import torch

            self._gpus = torch.cuda.device_count()
        return Resources(cpus=cores, gpus=self._gpus, machines=1)

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Starts processes for jobs that will be wanted, which import and then wait.

        ``start`` lets those go whose job is the same in all, and ends the others.
        """
        for job in jobs:
            process = self._spawn(job, subprocess.DEVNULL, ahead=True)
            self._ahead[job.name] = (job, process)

    def discard(self) -> None:
        """Ends the processes that still wait."""
        for _, process in self._ahead.values():
            _end(process)
        self._ahead.clear()

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts a process a job; its output goes to the job's log."""
        for job in jobs:
            self._start(job)
        self.discard()

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            process = self._let_go(job) or self._spawn(job, log)
        self._running[job.name] = (job, process, time.monotonic())

    def _let_go(self, job: Job) -> subprocess.Popen[bytes] | None:
        prepared, process = self._ahead.pop(job.name, (None, None))
        if process is None:
            return None
        if prepared == job and prestart.run_held_worker(process, log=job.log):
            return process
        _end(process)
        return None

    def _spawn(
        self, job: Job, log: IO[bytes] | int, *, ahead: bool = False
    ) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **job.environment}
        environment.pop(prestart.PRESTART_VARIABLE, None)
        return subprocess.Popen(
            job.argv,
            env={**environment, **({prestart.PRESTART_VARIABLE: "1"} if ahead else {})},
            stdin=subprocess.PIPE if ahead else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

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
        self.discard()
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


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    if process.stdin is not None:
        process.stdin.close()
    process.wait()
