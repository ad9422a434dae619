"""What SIGTERM, SIGINT and SIGHUP do while a command runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searchae.tuning import StopRequest

INTERRUPTED = 130
"""The exit code of a command that one of them ended, as a shell gives it for SIGINT."""


def handle_signals(action: Callable[[], None]) -> None:
    """Calls ``action`` on SIGTERM, on SIGINT (Ctrl-C), and on SIGHUP (the terminal has closed).

    SIGHUP stays ignored where it was, as under ``nohup``.
    """

    def handler(_number: int, _frame: FrameType | None) -> None:
        action()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def interrupt() -> None:
    """Raises KeyboardInterrupt, as Python does on SIGINT by default."""
    raise KeyboardInterrupt


def polled_stop() -> StopRequest:
    """Returns a request to stop that these signals set from now on.

    A second signal, or one while nobody looks at the request, interrupts at once.
    """
    from searchae.tuning import StopRequest

    stop = StopRequest()
    handle_signals(lambda: stop.set() if stop.is_polled and not stop.is_set() else interrupt())
    return stop
