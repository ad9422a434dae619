"""A process that is started before it is known whether it is wanted: it imports, then waits.

What it is told comes through its standard input: a line with the file for its output. Where the
other end is closed instead, nobody wants it any more, and it leaves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PRESTART_VARIABLE = "SEARCHAE_HELD"
"""A worker that has it in its environment waits before it begins."""


def wait_until_wanted() -> None:
    """Returns once the process is wanted; at once in one that was not started ahead.

    Raises:
        SystemExit: It is not wanted.
    """
    if not os.environ.pop(PRESTART_VARIABLE, ""):
        return
    log = sys.stdin.buffer.readline().rstrip(b"\n")
    if not log:
        raise SystemExit(0)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)


def run_held_worker(process: subprocess.Popen[bytes], *, log: Path) -> bool:
    """Lets a process begin that waits, or will.

    Args:
        process: Started with ``VARIABLE`` and a pipe as its standard input.
        log: What its output is appended to.

    Returns:
        Whether it lives, and has been told.
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
