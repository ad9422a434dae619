"""Runs workers as processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

from searchae.launch import prestart
from searchae.launch.base import Exit, Job, Resources
from searchae.launch.fleet_plan import available_cores
from searchae.launch.logs import opened_log


class LocalLauncher:
    """Starts one process per job, each in its own session so that Ctrl-C does not reach it.

    Args:
        gpus: Number of GPUs of this machine; asked of torch if unset.
    """

    is_local = True

    def __init__(self, gpus: int | None = None) -> None:
        self._gpus = gpus
        self._running: dict[str, tuple[Job, subprocess.Popen[bytes], float]] = {}
        self._prestarted: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}

    def resources(self) -> Resources:
        """Returns the cores and GPUs that this process may use."""
        if self._gpus is None:
            import torch

            self._gpus = torch.cuda.device_count()
        return Resources(cpus=available_cores(), gpus=self._gpus, machines=1)

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Starts a process for each job that does its imports and then waits.

        ``start`` uses the process of a job that is equal in every field but its log, and ends the
        others.

        Raises:
            OSError: A process could not be started.
        """
        for job in jobs:
            process = self._spawn(job, subprocess.DEVNULL, prestarted=True)
            self._prestarted[job.name] = (job, process)

    def discard(self) -> None:
        """Ends the prestarted processes that are still waiting."""
        for _, process in self._prestarted.values():
            _kill(process)
        self._prestarted.clear()

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts one process per job, its output appended to the job's log.

        Raises:
            ArtifactsError: A log cannot be written.
        """
        for wanted in jobs:
            job, log = opened_log(wanted)
            with log:
                process = self._use_prestarted(job) or self._spawn(job, log)
            self._running[job.name] = (job, process, time.monotonic())
        self.discard()

    def _use_prestarted(self, job: Job) -> subprocess.Popen[bytes] | None:
        prepared, process = self._prestarted.pop(job.name, (None, None))
        if prepared is None or process is None:
            return None
        # Where the log lies, only the study tells, which is opened after the process was started.
        if replace(prepared, log=job.log) == job and prestart.release_worker(process, log=job.log):
            return process
        _kill(process)
        return None

    def _spawn(
        self, job: Job, log: IO[bytes] | int, *, prestarted: bool = False
    ) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **job.environment}
        environment.pop(prestart.PRESTART_VARIABLE, None)
        if prestarted:
            environment[prestart.PRESTART_VARIABLE] = "1"
        return subprocess.Popen(
            job.argv,
            env=environment,
            stdin=subprocess.PIPE if prestarted else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def poll(self) -> list[Exit]:
        """Returns the processes that have ended since the last call."""
        ended = []
        for name, (job, process, started) in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                ended.append(Exit(job, code, time.monotonic() - started))
        return ended

    def alive(self) -> int:
        """Returns the number of running processes."""
        return sum(process.poll() is None for _, process, _ in self._running.values())

    def stop(self, *, wait_s: float) -> None:
        """Sends SIGTERM to every process, and SIGKILL to those left after ``wait_s`` seconds."""
        self.discard()
        self._send_signal(signal.SIGTERM)
        deadline = time.monotonic() + wait_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._send_signal(signal.SIGKILL)
        for _, process, _ in self._running.values():
            process.wait()

    def _send_signal(self, number: int) -> None:
        for _, process, _ in self._running.values():
            if process.poll() is None:
                process.send_signal(number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    if process.stdin is not None:
        process.stdin.close()
    process.wait()
