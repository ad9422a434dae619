"""A launcher without processes. It keeps to the launchers' contract, which a test checks."""

from __future__ import annotations

from collections.abc import Sequence

from searchae.launch.base import Exit, Job, Resources


class FakeLauncher:
    """A job runs until the test ends it; one whose argv is ``exit CODE`` has ended at once."""

    is_local = True

    def __init__(self) -> None:
        self.started: list[str] = []
        self._running: dict[str, Job] = {}
        self._ended: list[Exit] = []

    def resources(self) -> Resources:
        return Resources(cpus=4, gpus=0, machines=1)

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._start(job)

    def _start(self, job: Job) -> None:
        assert job.name not in self._running, f"{job.name} runs already"
        self.started.append(job.name)
        self._running[job.name] = job
        if job.argv[0] == "exit":
            self.end(job.name, int(job.argv[1]))

    def poll(self) -> list[Exit]:
        ended, self._ended = self._ended, []
        return ended

    def alive(self) -> int:
        return len(self._running)

    def stop(self, *, wait_s: float) -> None:
        assert wait_s >= 0
        for name in list(self._running):
            self.end(name, 130)

    def end(self, name: str, code: int, alive_s: float = 1.0) -> None:
        """Ends a job."""
        self._ended.append(Exit(self._running.pop(name), code, alive_s))
