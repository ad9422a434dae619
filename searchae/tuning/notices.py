"""Notices of what happens in a search to whoever is away: its end, faults, a new best trial.

The library apprise sends them, to a URL for each of about a hundred services. A URL may hold a
secret, so that none is ever shown: neither here nor by apprise, whose own log is silenced.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from searchae.errors import (
    SearchaeError,
    StopAskedError,
    StudyStoppedError,
    UserError,
    install_text,
)
from searchae.formatting import format_assignments, format_duration
from searchae.tuning.monitor import Watcher

if TYPE_CHECKING:
    from searchae.study import Summary, TrialRow

log = logging.getLogger(__name__)

BEST_EVERY_S = 600.0
"""Seconds between two notices of a new best trial."""
CLOSE_S = 20.0
"""Seconds that the last notices get at the end."""
LONGEST_TEXT = 1500
"""Characters of a notice: a traceback is cut, at its beginning."""


class Notices:
    """Sends notices from a thread of its own, so that nothing waits for a service.

    A notice that cannot be sent is a warning, once; the work goes on.

    Args:
        urls: Where they go, as apprise's URLs.

    Raises:
        UserError: apprise is missing, or does not know a URL; the message does not repeat it.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._services = [_service(url, number) for number, url in enumerate(urls, 1)]
        self._waiting: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def send(self, title: str, text: str) -> None:
        """Sends a notice, later."""
        self._waiting.put((title, text))

    def close(self) -> None:
        """Waits until everything is sent, for ``CLOSE_S`` at most."""
        self._waiting.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._warn(f"a notice was not sent within {CLOSE_S:g} s")

    def _run(self) -> None:
        while (notice := self._waiting.get()) is not None:
            title, text = notice
            for service in self._services:
                try:
                    is_sent = service.notify(title=title, body=text)
                except Exception as e:  # noqa: BLE001 (a hundred services, each with its own)
                    log.debug("a notice met %s", type(e).__name__)
                    is_sent = False
                if not is_sent:
                    self._warn(f"a notice could not be sent ({service.service_name})")

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s: check --notify or SEARCHAE_NOTIFY; the work goes on", text)


def _service(url: str, number: int) -> Any:
    try:
        import apprise
    except ImportError:
        raise UserError(f"--notify: needs the package apprise: {install_text('notify')}") from None
    logging.getLogger("apprise").disabled = True  # it logs URLs
    found = apprise.Apprise.instantiate(url)
    if not found:
        raise UserError(
            f"--notify: the {number}. URL is not one that apprise knows, such as ntfy://TOPIC or "
            "mailto://USER:PASSWORD@HOST (it is not shown here, since it may hold a secret)"
        )
    return found


@dataclass
class NoticeWatcher:
    """A watcher that passes everything on, and sends notices of some of it.

    Args:
        watcher: Shows the progress.
        send: Sends a notice: a title and a text.
        name: The study's name.
        clock: Returns seconds; replaced in tests.
    """

    watcher: Watcher
    send: Callable[[str, str], object]
    name: str
    clock: Callable[[], float] = time.monotonic
    last: Summary | None = field(default=None, init=False)
    _told: set[str] = field(default_factory=set, init=False)
    _told_db: float | None = field(default=None, init=False)
    _told_at: float | None = field(default=None, init=False)

    def note(self, text: str) -> None:
        """Shows a line."""
        self.watcher.note(text)

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Shows a trial that has ended."""
        self.watcher.trial(row, best_db=best_db)

    def progress(self, summary: Summary) -> None:
        """Shows the state of the study, and sends what is new in it."""
        self.watcher.progress(summary)
        for reason in summary.quarantined:
            if reason not in self._told:
                self._told.add(reason)
                self.send(f"{self.name}: a worker left", reason)
        self._tell_best(summary, is_first=self.last is None)
        self.last = summary

    def _tell_best(self, summary: Summary, *, is_first: bool) -> None:
        best = summary.best
        if best is None or best.psnr_db is None:
            return
        if is_first:  # of an earlier run
            self._told_db = best.psnr_db
        if self._told_db is not None and best.psnr_db <= self._told_db:
            return
        is_early = summary.counts.finished * 10 < summary.counts.budget
        now = self.clock()
        if is_early or (self._told_at is not None and now - self._told_at < BEST_EVERY_S):
            return
        self._told_db, self._told_at = best.psnr_db, now
        self.send(f"{self.name}: a new best, {best.psnr_db:.2f} dB", _text(summary))


@contextmanager
def notifying(urls: Sequence[str], command: str, name: str, watcher: Watcher) -> Iterator[Watcher]:
    """Sends notices of what happens within the block.

    Args:
        urls: Where they go; none for no notices.
        command: What runs, for their titles.
        name: The study's name, for the same.
        watcher: Shows the progress.

    Yields:
        A watcher, for what runs.

    Raises:
        UserError: A URL is wrong, or apprise is missing.
    """
    if not urls:
        yield watcher
        return
    notices = Notices(urls)
    watching = NoticeWatcher(watcher, notices.send, name)
    try:
        yield watching
    except Exception as e:
        if watching.last is not None:  # otherwise nothing had begun: whoever typed it sees it
            notices.send(f"{name}: {command} {_fault(e)}", str(e)[-LONGEST_TEXT:])
        raise
    else:
        if watching.last is not None:
            notices.send(f"{name}: {command} has ended", _text(watching.last))
    finally:
        notices.close()


def _fault(error: Exception) -> str:
    if isinstance(error, StopAskedError):
        return "was stopped"
    if isinstance(error, StudyStoppedError) or not isinstance(error, SearchaeError):
        return "was ended by a bug"
    return "failed"


def _text(summary: Summary) -> str:
    counts, best = summary.counts, summary.best
    text = f"{counts.finished} of {counts.budget} trials after {format_duration(summary.wall_s)}"
    if best is None or best.psnr_db is None:
        return text
    params = format_assignments(best.params)
    return f"{text}; best {best.psnr_db:.2f} dB, trial {best.number}: {params}"
