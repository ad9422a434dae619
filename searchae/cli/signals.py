"""What SIGTERM and SIGINT do while a command runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searchae.tune import StopRequest

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


def polled_stop() -> StopRequest:
    """Returns a request to stop that both signals set from now on.

    A second signal, or one while nobody looks at the request, interrupts at once.
    """
    from searchae.tune import StopRequest

    stop = StopRequest()
    handle_signals(lambda: stop.set() if stop.is_polled and not stop.is_set() else interrupt())
    return stop
