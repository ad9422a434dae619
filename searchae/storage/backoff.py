"""Calling again what failed because something was away for a while."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter, so that a fleet does not come back in step.

    Attributes:
        first_s: Upper bound of the first pause, in seconds.
        longest_s: Upper bound of any pause, in seconds.
        limit_s: Give up and raise after this many seconds; never, if unset.
        sleep: The clock's port, for tests.
    """

    first_s: float = 0.1
    longest_s: float = 10.0
    limit_s: float | None = None
    sleep: Callable[[float], object] = time.sleep

    def call(
        self,
        function: Callable[[], T],
        *,
        again: Callable[[Exception], bool],
        explain: Callable[[Exception], str] = lambda e: type(e).__name__,
    ) -> T:
        """Calls ``function`` until it returns.

        Args:
            function: Safe to call twice.
            again: Whether an exception is worth another try; others are raised at once.
            explain: An exception in words for the log, without secrets.
        """
        started, bound = time.monotonic(), self.first_s
        while True:
            try:
                return function()
            except Exception as e:
                if not again(e):
                    raise
                if self.limit_s is not None and time.monotonic() - started > self.limit_s:
                    raise
                pause = random.uniform(bound / 2, bound)
                log.warning("storage away (%s); trying again in %.1f s", explain(e), pause)
                self.sleep(pause)
                bound = min(bound * 2, self.longest_s)
