"""A worker's heartbeat: a thread that renews the lease of its trial and looks for time limits."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from searchae.errors import StorageError
from searchae.study import Coordinator

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks whether somebody has asked for a stop."""


@dataclass
class Heartbeat:
    """Records that a worker is alive, in a thread that outlives outages of the database.

    Args:
        coordinator: Records the heartbeats.
        stop: Set when the worker has to leave.

    Attributes:
        lost: Set once another worker has taken over the trial held.
        ended: Why there is nothing more to work on: the study or its database is gone for good.
        epoch: The last epoch of the trial held; None before the first.
        is_asked_to_leave: Whether somebody has asked for a stop, see ``searchae stop``.
    """

    coordinator: Coordinator
    stop: threading.Event
    lost: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self.ended: StorageError | None = None
        self._time_ends_at = math.inf
        self._beats_in_a_row = 0
        self.is_asked_to_leave = False
        self._trial: tuple[int, int] | None = None
        self.epoch: int | None = None
        self._interval_s = self.coordinator.stored.spec.search.heartbeat_s

    @property
    def steady(self) -> bool:
        """Whether other workers have had time to record a heartbeat since the last outage."""
        return self._beats_in_a_row >= 3

    @property
    def time_up(self) -> bool:
        """Whether the study's time limit is over; known even while the database is away."""
        return time.monotonic() >= self._time_ends_at

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Records heartbeats while the block runs."""
        thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(timeout=10)

    @contextmanager
    def holding(self, trial_id: int, number: int) -> Iterator[None]:
        """Renews the lease of a trial while the block runs.

        Args:
            trial_id: The trial's id in the database.
            number: The trial's number.
        """
        self.lost.clear()
        self.epoch, self._trial = None, (trial_id, number)
        try:
            yield
        finally:
            self._trial = None

    def _run(self) -> None:
        next_beat = next_look = 0.0
        tick = min(1.0, self._interval_s / 2)
        while self.ended is None and not self._end.wait(tick):
            self.coordinator.stored.storage.dispose_idle_connections()
            next_beat -= tick
            if next_beat <= 0:
                self._beat()
                next_beat = self._interval_s
            next_look -= tick
            if next_look <= 0:
                self._look()
                next_look = min(LOOK_S, self._interval_s)

    def _look(self) -> None:
        try:
            self.is_asked_to_leave = self.coordinator.is_asked_to_stop()
        except SQLAlchemyError:
            return  # the heartbeats tell of it
        except StorageError as e:
            self.ended = e

    def _beat(self) -> None:
        trial = self._trial
        trial_id, number = trial or (None, None)
        try:
            held = self.coordinator.beat(trial_id, number=number, epoch=self.epoch)
            left = self.coordinator.seconds_left()
        except SQLAlchemyError as e:
            log.warning("no heartbeat: the database is away (%s)", type(e).__name__)
            self._beats_in_a_row = 0
            return
        except StorageError as e:
            self.ended = e
            return
        self._beats_in_a_row += 1
        self._time_ends_at = math.inf if left is None else time.monotonic() + left
        # The lease is also gone if the trial has ended since it was looked at above.
        if not held and self._trial == trial:
            self.lost.set()
