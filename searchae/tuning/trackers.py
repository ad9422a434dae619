"""Mirrors a search to an experiment tracker, MLflow or W&B, while it runs.

One thread of the process that follows the workers reads the study from the database and sends what
is new. Workers know nothing of it, and nothing waits for the tracker but the end, for a bounded
time. What the tracker holds is asked of it, so that the same command again adds what is missing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from searchae.errors import SearchaeError, StopAskedError, UserError, install_text, nearest
from searchae.files import ArtifactPath
from searchae.formatting import format_count, one_line
from searchae.storage import Backoff, ReaderStorage, connect
from searchae.study import StoredStudy, gallery_folder, load_study, picture_owner, read_picture
from searchae.tuning.mlflow_tracker import MlflowTracker
from searchae.tuning.monitor import Watcher
from searchae.tuning.wandb_tracker import WandbTracker

if TYPE_CHECKING:
    from sqlalchemy import URL

    from searchae.report import TrialRun
    from searchae.study import Summary, TrialRow

log = logging.getLogger(__name__)

SYNC_S = 5.0
"""Seconds between two looks at the study."""
CLOSE_S = 30.0
"""Seconds that the tracker gets at the end for what it lacks."""
PICTURES = 5
"""How many of the best trials get their picture."""
ENDED = ("complete", "pruned", "failed")
"""States of trials that do not change any more."""


@dataclass(frozen=True)
class TrackedStudy:
    """What a tracker is told of a study.

    Attributes:
        id: What its runs are found by; stays the same when the study is renamed.
        name: Its name.
        document: The study file after all overrides.
        facts: Further facts, by name.
    """

    id: str
    name: str
    document: dict[str, Any]
    facts: dict[str, str]

    @classmethod
    def of(cls, stored: StoredStudy) -> TrackedStudy:
        """Describes a study."""
        # The identity itself stays in the database: it also seals checkpoints.
        about = f"tracker {stored.identity or stored.name} {stored.data_hash}".encode()
        return cls(
            id=hashlib.sha256(about).hexdigest()[:24],
            name=stored.name,
            document=stored.spec.document(),
            facts={"data_hash": stored.data_hash, "baseline_db": f"{stored.baseline_db:.4f}"},
        )


class Tracker(Protocol):
    """A tracker's own library. Its calls may raise anything; after an error it is opened again."""

    variable: str
    """The environment variable to check when it does not answer."""
    defaults: Mapping[str, str]
    """Environment variables of its library, for where the user has not set them."""

    @property
    def address(self) -> str:
        """Where it sends to; may hold a password."""

    def open(self, study: TrackedStudy) -> set[int]:
        """Connects, and returns the numbers of the trials that it holds to their end."""

    def send(self, run: TrialRun, *, is_ended: bool) -> None:
        """Adds a trial, or what is new in it."""

    def mark_best(self, run: TrialRun) -> None:
        """Marks the best trial, and no other."""

    def close(self, pictures: Mapping[int, bytes], *, end: str) -> None:
        """Ends the study's run.

        Args:
            pictures: Trial number -> PNG, of the best trials.
            end: ``finished``, ``stopped`` or ``failed``.
        """

    def send_bundle(self, folder: Path, *, trial: int, metrics: Mapping[str, Any]) -> str:
        """Adds a bundle as a model, once.

        Args:
            folder: The bundle.
            trial: The number of the trial that was trained anew.
            metrics: The content of its ``metrics.json``.

        Returns:
            What it is called there.
        """


TRACKERS: dict[str, Callable[[], Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


def make_tracker(name: str) -> Tracker:
    """Returns a tracker.

    Args:
        name: ``mlflow`` or ``wandb``.

    Raises:
        UserError: There is no such tracker, its library is missing, or its address is not set.
    """
    if name not in TRACKERS:
        raise UserError(f"--track {name}: {nearest(name, TRACKERS)}")
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # a folder of that name, such as wandb's own, is none
        raise UserError(f"--track {name}: needs the package {name}: {install_text(name)}")
    return TRACKERS[name]()


@dataclass
class Mirror:
    """Keeps a tracker up to date with a study, from a thread of its own.

    Args:
        tracker: Where the trials go.
        url: The study's database.
        name: The study's name.
        artifacts: The folder that all workers share.
    """

    tracker: Tracker
    url: URL | str
    name: str
    artifacts: ArtifactPath
    held: set[int] = field(default_factory=set, init=False)
    """Numbers of the trials that the tracker is known to hold to their end."""
    ended: set[int] = field(default_factory=set, init=False)
    """Numbers of the trials that had ended at the last look."""
    end: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._closing = threading.Event()
        self._is_open = self._has_warned = False
        self._stored: StoredStudy | None = None
        self._sent: dict[int, tuple[object, ...]] = {}
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    @property
    def has_begun(self) -> bool:
        """Whether it has been started."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begins; does nothing the second time."""
        if not self.has_begun:
            self._thread.start()

    def close(self, end: str) -> None:
        """Sends what is left, for ``CLOSE_S`` at most.

        Args:
            end: How the search ended; see ``Tracker.close``.
        """
        self.end = end
        self.start()
        self._closing.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        is_last = gave_up = False
        while not is_last:
            is_last, began = self._closing.is_set(), time.monotonic()
            has_sent = self._look(is_last=is_last, sends=not gave_up)
            gave_up = not has_sent and self._closing.is_set()  # the end waits for one timeout only
            if not is_last:
                self._closing.wait(max(SYNC_S, 10 * (time.monotonic() - began)))

    def _look(self, *, is_last: bool, sends: bool) -> bool:
        """Sends what is new; returns False if the tracker did not take it."""
        from searchae.report import read_trial_runs  # loads plotly

        try:
            stored = self._study()
            runs = read_trial_runs(stored)
        except SearchaeError as e:  # whoever follows the workers says so
            log.debug("tracking: %s", e)
            self._stored = None
            return True
        self.ended = {run.row.number for run in runs if run.row.state in ENDED}
        if not sends:
            return False
        try:
            self._send(stored, runs, is_last=is_last)
        except Exception as e:  # noqa: BLE001 (whatever a library makes of an outage)
            self._is_open = False
            self._warn(e)
            return False
        return True

    def _study(self) -> StoredStudy:
        if self._stored is None:
            # The thread looks again anyway; and who follows the workers tells of an outage.
            storage = connect(self.url, backoff=Backoff(limit_s=0.0), writes=False)
            self._stored = load_study(ReaderStorage(storage), self.name)
        return self._stored

    def _send(self, stored: StoredStudy, runs: tuple[TrialRun, ...], *, is_last: bool) -> None:
        if not self._is_open:
            self._sent = {}
            self.held = self.tracker.open(TrackedStudy.of(stored))
            self._is_open = True
        for run in runs:
            self._send_trial(run)
        ranked = sorted((r for r in runs if r.is_good), key=lambda r: (-r.psnr_db, r.row.number))
        if ranked:
            self.tracker.mark_best(ranked[0])
        if is_last:
            pictures = self._pictures(stored, ranked[:PICTURES])
            self.tracker.close(pictures, end=self.end)

    def _send_trial(self, run: TrialRun) -> None:
        number, is_ended = run.row.number, run.row.state in ENDED
        now = (run.row.state, run.row.worker, len(run.reports))
        has_begun = run.started is not None and (is_ended or bool(run.reports))
        if number in self.held or not has_begun or self._sent.get(number) == now:
            return
        self.tracker.send(run, is_ended=is_ended)
        self._sent[number] = now
        if is_ended:
            self.held.add(number)

    def _pictures(self, stored: StoredStudy, best: list[TrialRun]) -> dict[int, bytes]:
        folder, owner = gallery_folder(self.artifacts, stored.folder), picture_owner(stored)
        found = {
            r.row.number: read_picture(folder, r.row.number, psnr_db=r.psnr_db, owner=owner)
            for r in best
        }
        return {number: png for number, png in found.items() if png is not None}

    def _warn(self, error: Exception) -> None:
        log.debug("tracking", exc_info=error)
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s", outage_text(self.tracker, error))


def outage_text(tracker: Tracker, error: Exception) -> str:
    """Returns the warning of a tracker that failed; an error's text may hold a password."""
    code = getattr(error, "error_code", "")
    reason = type(error).__name__ + (f", {code}" if isinstance(code, str) and code else "")
    return (
        f"--track: not sent to {_shown_address(tracker.address)} ({reason}): "
        f"check {tracker.variable}; the work goes on"
    )


def _shown_address(url: str) -> str:
    """Returns an address on one line, without what may be secret in it: a login, a query."""
    scheme, separator, rest = one_line(url).partition("://")
    if not separator:
        scheme, rest = "", scheme
    _, at, rest = rest.rpartition("@")  # the last one: a password may hold any character
    plain = rest.partition("?")[0].partition("#")[0]
    return f"{scheme}{separator}{'***@' if at else ''}{plain}"


@dataclass
class TrackingWatcher:
    """A watcher that passes everything on, and starts the mirror once the study is there."""

    watcher: Watcher
    mirror: Mirror
    ended: set[int] = field(default_factory=set, init=False)
    """Numbers of the trials that were shown; the mirror may hang and not know of them."""

    def note(self, text: str) -> None:
        """Shows a line."""
        self.watcher.note(text)

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Shows a trial that has ended."""
        self.ended.add(row.number)
        self.watcher.trial(row, best_db=best_db)

    def progress(self, summary: Summary) -> None:
        """Shows the state of the study."""
        self.mirror.start()
        self.watcher.progress(summary)


@contextmanager
def _defaults(tracker: Tracker) -> Iterator[None]:
    """Sets what the user has not set for the tracker's library, within the block."""
    added = {k: v for k, v in tracker.defaults.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def tracking(
    tracker: Tracker | None, url: URL | str, name: str, artifacts: ArtifactPath, watcher: Watcher
) -> Iterator[Watcher]:
    """Mirrors a study to a tracker while the block searches it.

    Args:
        tracker: Where the trials go; None for nowhere.
        url: The study's database.
        name: The study's name.
        artifacts: The folder that all workers share.
        watcher: Shows the progress.

    Yields:
        A watcher, for what runs.
    """
    if tracker is None:
        yield watcher
        return
    mirror = Mirror(tracker, url, name, artifacts)
    watching = TrackingWatcher(watcher, mirror)
    end = "failed"
    with _defaults(tracker):
        try:
            yield watching
            end = "finished"
        except (KeyboardInterrupt, StopAskedError):
            end = "stopped"
            raise
        finally:
            if mirror.has_begun or end == "finished":  # otherwise nothing had begun
                mirror.close(end)
            ended = mirror.ended | watching.ended
            if missing := ended - mirror.held:
                watcher.note(
                    f"--track: {format_count(len(missing), 'trial')} of {len(ended)} not "
                    "known to be sent; the same command again sends what is missing"
                )


def track_bundle(
    tracker: Tracker | None,
    stored: StoredStudy,
    metrics: Mapping[str, Any],
    note: Callable[[str], None],
) -> None:
    """Adds a trained bundle to a tracker, as a model; waits ``CLOSE_S`` at most.

    Args:
        tracker: Where it goes; None for nowhere.
        stored: The study that was searched.
        metrics: What ``train_bundle`` returned.
        note: Shows a line.
    """
    if tracker is None:
        return
    study, said = TrackedStudy.of(stored), list[str]()

    def send() -> None:
        try:
            tracker.open(study)
            folder = Path(metrics["bundle"])
            said.append(tracker.send_bundle(folder, trial=metrics["trial"], metrics=metrics))
        except Exception as e:
            log.debug("tracking", exc_info=e)
            said.append(outage_text(tracker, e))

    thread = threading.Thread(target=send, name="tracking", daemon=True)
    with _defaults(tracker):
        thread.start()
        thread.join(CLOSE_S)
    note(said[0] if said else f"--track: the bundle was not sent within {CLOSE_S:g} s")
