"""What every launcher does."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


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
    """Starts workers, tells which have ended, and stops the rest. Used by one thread."""

    def start(self, job: Job) -> None:
        """Starts a job and returns at once. A name may be used again once its job has ended."""

    def poll(self) -> list[Exit]:
        """The jobs that have ended since the last call, each once."""

    def alive(self) -> int:
        """How many jobs have not ended."""

    def stop(self, *, wait_s: float) -> None:
        """Asks every job to put its trial back and leave; ends those that have not in ``wait_s``.

        Returns when none is left. Safe to call again.
        """
