"""What SIGTERM and SIGINT do while a command runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130
"""The exit code of a command that one of the two ended, as in shells."""


def handle_signals(action: Callable[[], None]) -> None:
    """Calls ``action`` on SIGTERM and on SIGINT (Ctrl-C)."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        action()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def interrupt() -> None:
    """Raises KeyboardInterrupt, as Python does on SIGINT by default."""
    raise KeyboardInterrupt
