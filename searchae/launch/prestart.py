"""Worker processes that are started early, so that their imports run during the caller's checks.

A prestarted worker imports torch and then waits on its standard input. One line, the path of its
log, lets it begin. If the pipe is closed instead, the worker is not needed and exits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from searchae.launch.logs import open_log

PRESTART_VARIABLE = "SEARCHAE_HELD"
"""The environment variable that makes a worker wait before it begins."""


def wait_until_wanted() -> None:
    """Waits, in a prestarted process, until ``release_worker`` lets it begin.

    Returns at once in any other process.

    Raises:
        SystemExit: The worker is not needed.
    """
    if not os.environ.pop(PRESTART_VARIABLE, ""):
        return
    log = sys.stdin.buffer.readline().rstrip(b"\n")
    if not log:
        raise SystemExit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    with open_log(Path(os.fsdecode(log))) as output:
        for source, target in ((null, 0), (output.fileno(), 1), (output.fileno(), 2)):
            os.dup2(source, target)
    os.close(null)


def release_worker(process: subprocess.Popen[bytes], *, log: Path) -> bool:
    """Lets a prestarted process begin, which may still be importing.

    Args:
        process: Started with ``PRESTART_VARIABLE`` set and a pipe as its standard input.
        log: The file that its output is appended to.

    Returns:
        Whether the process is alive and will begin.
    """
    assert process.stdin is not None
    name = os.fsencode(log)
    if b"\n" in name:
        return False
    try:
        process.stdin.write(name + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        return False
    return process.poll() is None
