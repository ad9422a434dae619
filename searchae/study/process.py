"""Which process a worker is, and whether a process of this machine is still there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class ProcessIdentity:
    """One worker process, told apart from any other on any machine.

    Attributes:
        worker: A unique name.
        host: The machine's name, for people.
        pid: The process id there, for people.
        place: Where ``process`` means something: machine, boot and process namespace.
        process: Process id and start time: unique in its place, also after ids come round.
    """

    worker: str
    host: str
    pid: int
    place: str
    process: str

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """The identity of the calling process; a new one each time."""
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
    """Where process ids mean the same: the machine's boot and its process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if not boot.exists() or not namespace.exists():
        return f"unknown-{uuid4().hex}"
    return f"{socket.gethostname()}|{boot.read_text().strip()}|{os.readlink(namespace)}"


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name may hold spaces and brackets; fields are counted from the last bracket.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def process_is_gone(place: str | None, process: str | None) -> bool:
    """Whether a process is known to be gone; one on another machine is never known to be."""
    if process is None or place != _place():
        return False
    pid, _, started = process.partition(":")
    return _start_time(int(pid)) != started
