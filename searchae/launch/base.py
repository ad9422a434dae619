"""What every launcher does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Job:
    """One worker to be started.

    Attributes:
        name: Unique among a launcher's jobs.
        argv: The command. It holds no secret: anybody on the machine can read it.
        environment: Variables on top of the launcher's own; secrets go here.
        log: The file that its standard output and error are appended to.
        cpus: CPU cores that it uses.
        gpus: GPUs that it uses; a fraction shares one.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Resources:
    """What a launcher has for workers.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs.
        machines: Over how many machines these are spread.
    """

    cpus: int
    gpus: int
    machines: int


@dataclass(frozen=True)
class Exit:
    """A job that has ended.

    Attributes:
        job: Which.
        code: Its exit code; negative for the signal that ended it.
        alive_s: How long it ran, in seconds.
    """

    job: Job
    code: int
    alive_s: float


class Launcher(Protocol):
    """Starts workers, tells which have ended, and stops the rest. Used by one thread.

    Attributes:
        nearby: Whether jobs are processes on this machine, started by this process.
    """

    nearby: bool

    def resources(self) -> Resources | None:
        """What there is for workers; None where a scheduler decides that."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts jobs and returns at once. A name may be used again once its job has ended."""

    def poll(self) -> list[Exit]:
        """The jobs that have ended since the last call, each once."""

    def alive(self) -> int:
        """How many jobs have not ended."""

    def stop(self, *, wait_s: float) -> None:
        """Asks every job to put its trial back and leave; ends those that have not in ``wait_s``.

        Returns when none is left. Safe to call again.
        """
