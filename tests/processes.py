"""Processes that tests start, and what they wait for."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_for(condition: Callable[[], Any], *, seconds: float = 60) -> None:
    """Waits until a condition holds; fails if it takes too long."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def worker_pids(tune: subprocess.Popen[str]) -> list[int]:
    """The workers that a ``tune`` in a new process has started."""
    mark = f"SEARCHAE_PARENT={tune.pid}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)
