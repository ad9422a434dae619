"""The interface of a launcher, and the values that it exchanges with its caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Job:
    """One worker to start.

    Attributes:
        name: Unique among the jobs of a launcher.
        argv: The command. It must hold no secret: every user of the machine can read it.
        log: The file that standard output and standard error are appended to.
        environment: Variables in addition to those of the launcher's process; secrets go here.
        cpus: CPU cores that it uses.
        gpus: GPUs that it uses; a fraction where several jobs share one.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Resources:
    """What a launcher can use for workers.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs.
        machines: Number of machines that have them.
        workers: Workers at once by default, where the user said so; None where it follows from
            cores and GPUs.
    """

    cpus: int
    gpus: int
    machines: int
    workers: int | None = None


@dataclass(frozen=True)
class Exit:
    """A job that has ended.

    Attributes:
        job: The job.
        code: Its exit code; negative for the signal that ended it.
        alive_s: How long it ran, in seconds.
    """

    job: Job
    code: int
    alive_s: float


@runtime_checkable
class CarriesFiles(Protocol):
    """A launcher whose workers need share no folder with this machine."""

    def send_images(self, folder: Path, note: Callable[[str], None]) -> None:
        """Sends decoded images, ``DATA/decoded/HASH``, to the machines that do not have them."""

    def collect_files(self) -> None:
        """Brings home what workers have written to their artifact folders."""


class Launcher(Protocol):
    """Starts jobs, reports which have ended, and stops the others. Not thread-safe.

    Attributes:
        is_local: Whether jobs are child processes on this machine.
    """

    is_local: bool

    def resources(self) -> Resources | None:
        """Returns what is available for workers; None where a scheduler decides that."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts jobs without waiting. A name can be used again once its job has ended."""

    def poll(self) -> list[Exit]:
        """Returns the jobs that have ended since the last call."""

    def alive(self) -> int:
        """Returns the number of jobs that have not ended."""

    def stop(self, *, wait_s: float) -> None:
        """Stops every job, and returns when none is left. Can be called more than once.

        Args:
            wait_s: Seconds that a worker gets to put its trial back and exit; it is killed after
                that.
        """
