"""Identifies worker processes, and tells whether a process on this machine has ended."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class ProcessIdentity:
    """Identifies one worker process among those of all machines.

    Attributes:
        worker: A unique name.
        host: The machine's name, for people.
        pid: The process id there, for people.
        place: The machine, its boot and the process namespace, in which ``process`` is unique.
        process: Process id and start time, so that a reused process id is another process.
    """

    worker: str
    host: str
    pid: int
    place: str
    process: str

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """Returns an identity of the calling process, with a new name each time."""
        host, pid = socket.gethostname(), os.getpid()
        return cls(
            worker=f"{host[:24]}-{pid}-{uuid4().hex[:8]}",
            host=host,
            pid=pid,
            place=_place(),
            process=f"{pid}:{_start_time(pid)}",
        )


@cache
def _place() -> str:
    """Returns the machine, its boot and the process namespace; a random text if unknown."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if not boot.exists() or not namespace.exists():
        return f"unknown-{uuid4().hex}"
    return f"{socket.gethostname()}|{boot.read_text().strip()}|{os.readlink(namespace)}"


def _start_time(pid: int) -> str | None:
    """Returns when a process started, in clock ticks since boot; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name may contain spaces and brackets: count fields from the last bracket.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def process_is_gone(place: str | None, process: str | None) -> bool:
    """Returns whether a process is known to have ended; never True for another machine's.

    Args:
        place: See ``ProcessIdentity``.
        process: See ``ProcessIdentity``.
    """
    if process is None or place != _place():
        return False
    pid, _, started = process.partition(":")
    return _start_time(int(pid)) != started
