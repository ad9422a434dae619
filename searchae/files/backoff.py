"""Retries with exponential backoff."""

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
    """Exponential backoff with jitter, so that many workers do not retry at the same moment.

    Attributes:
        first_s: Upper bound of the first pause, in seconds.
        longest_s: Upper bound of any pause, in seconds.
        limit_s: After so many seconds the error is raised; None for never.
        least_calls: How often the function is called before that, however long a call takes.
        sleep: Waits for a number of seconds; replaced in tests.
        name: What is waited for, in the log.
        level: Level at which each pause is logged.
    """

    first_s: float = 0.1
    longest_s: float = 10.0
    limit_s: float | None = None
    least_calls: int = 1
    sleep: Callable[[float], object] = time.sleep
    name: str = "storage"
    level: int = logging.WARNING

    def call(
        self,
        function: Callable[[], T],
        *,
        again: Callable[[Exception], bool],
        explain: Callable[[Exception], str] = lambda e: type(e).__name__,
    ) -> T:
        """Calls ``function`` until it returns.

        Args:
            function: What to call; it must be safe to call more than once.
            again: Tells whether to retry after an exception; others are raised at once.
            explain: Describes an exception for the log, without secrets.

        Raises:
            Exception: The function's last one, if ``again`` refuses it or the time is up.
        """
        started, bound, calls = time.monotonic(), self.first_s, 0
        while True:
            calls += 1
            try:
                return function()
            except Exception as e:
                if not again(e):
                    raise
                is_late = self.limit_s is not None and time.monotonic() - started > self.limit_s
                if is_late and calls >= self.least_calls:
                    raise
                pause = random.uniform(bound / 2, bound)
                what = self.name, explain(e), pause
                log.log(self.level, "%s away (%s); trying again in %.1f s", *what)
                self.sleep(pause)
                bound = min(bound * 2, self.longest_s)
