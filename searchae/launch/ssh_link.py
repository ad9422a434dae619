"""Keeps the workers of one host in step with what the launcher wants, in a thread of its own.

The thread renews the host's lease, whatever the launcher's own thread is waiting for. All that it
tells the host is a state, not an event: it is told again after a connection was lost.
"""

from __future__ import annotations

import base64
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from searchae.launch.base import Exit, Job
from searchae.launch.logs import open_log
from searchae.launch.ssh_connection import Call, Connection, HostError
from searchae.launch.ssh_hosts import HostState

log = logging.getLogger(__name__)

ANSWER_S = 30.0
"""Seconds that a host that is connected gets to answer."""
RETRY_S = 2.0
"""Seconds between two attempts to connect."""


@dataclass
class Running:
    """A job on a host.

    Attributes:
        id: Unique among all jobs of a launcher, also those that had the same name before.
        job: The job.
        argv: The command on the host.
        environment: Its variables there.
        files: What it needs in the launcher's folder there.
        gpu: The host's GPU that it got; None for none.
        began: When it was handed over; of ``time.monotonic``.
        offset: How many bytes of its output have come.
        keeper: The keeper that runs it; empty until it is known to have started.
    """

    id: str
    job: Job
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    gpu: int | None = None
    began: float = field(default_factory=time.monotonic)
    offset: int = 0
    keeper: str = ""


class Link:
    """The workers on one host.

    Args:
        state: The host, which has passed its check.
        connection: The connection to it.
        run: The name of the launcher's folder there.
        lease_s: Seconds without a connection after which the host ends its workers.
        period_s: Seconds between two exchanges.
        on_connect: Called in the thread after each connection, as to open a tunnel; may raise
            ``HostError``.

    Attributes:
        name: The host's name.
        wanted: Files that workers there ask for, and wait for.
    """

    def __init__(
        self,
        state: HostState,
        connection: Connection,
        *,
        run: str,
        lease_s: float,
        period_s: float,
        on_connect: Callable[[Link], None] = lambda _: None,
    ) -> None:
        self.name = state.host.target
        self._thread = threading.Thread(target=self._run, name=f"ssh {self.name}", daemon=True)
        self.state, self.connection = state, connection
        self._request = {"do": "serve", "run": run, "lease_s": lease_s}
        self._lease_s, self._period_s, self._on_connect = lease_s, period_s, on_connect
        self._lock, self._wake = threading.RLock(), threading.Event()
        self._jobs: dict[str, Running] = {}
        self._ended: list[Exit] = []
        self._signal, self._over, self._is_over = 0, False, False
        self._heard, self._connected, self._lost = time.monotonic(), False, False
        self.wanted: tuple[str, ...] = ()
        self._served: set[str] = set()

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the host is heard of."""
        return self._connected

    @property
    def is_lost(self) -> bool:
        """Whether it has not been heard of for so long that its workers have been told to end."""
        return self._lost

    def running(self) -> list[Running]:
        """Returns the jobs that have not ended."""
        with self._lock:
            return list(self._jobs.values())

    def start_job(self, running: Running) -> None:
        """Has the host start a job."""
        with self._lock:
            self._jobs[running.id] = running
        self._wake.set()

    def take_ended(self) -> list[Exit]:
        """Returns the jobs that have ended since the last call."""
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def tell(self, number: int) -> None:
        """Has the host send a signal to all its jobs."""
        self._signal = number
        self._wake.set()

    def serve(self, name: str) -> None:
        """Says that a file that was wanted has been sent, or cannot be."""
        with self._lock:
            self._served.add(name)
        self._wake.set()

    def finish(self, timeout_s: float) -> bool:
        """Has the host end what is left, and remove its folder; returns whether it has."""
        self._over = True
        self._wake.set()
        self._thread.join(timeout_s)
        self._end_all()
        return self._is_over

    def _run(self) -> None:
        """Connects, again and again, until it is over."""
        while not self._is_over:
            try:
                with self.connection.calling(self._request, timeout_s=None) as call:
                    call.ready(ANSWER_S)
                    self._on_connect(self)
                    self._converse(call)
            except (HostError, ValueError) as e:
                self._note_disconnection(e)
            if self._over and not self._connected:
                return
            if not self._is_over:
                self._wake.wait(min(RETRY_S, self._lease_s / 4))

    def _converse(self, call: Call) -> None:
        while not self._is_over:
            self._wake.clear()
            with self._lock:
                over, request = self._over, self._next_request()
            call.write(json.dumps(request).encode() + b"\n")
            reply = json.loads(call.line(ANSWER_S))
            if not self._connected and self._lost:
                log.warning("%s: is back", self.name)
            self._heard, self._connected, self._lost = time.monotonic(), True, False
            is_behind = self._take(reply)
            if over:
                self._is_over = True
            elif not is_behind:
                self._wake.wait(self._period_s)

    def _next_request(self) -> dict[str, Any]:
        fresh = [r for r in self._jobs.values() if not r.keeper]
        return {
            "jobs": list(self._jobs),
            "start": [
                {
                    "id": r.id,
                    "argv": list(r.argv),
                    "environment": dict(r.environment),
                    "files": {n: base64.b64encode(c).decode() for n, c in r.files.items()},
                }
                for r in fresh
                if not self._signal
            ],
            "signal": self._signal,
            "offsets": {r.id: r.offset for r in self._jobs.values()},
            "served": sorted(self._served),
            "over": self._over,
        }

    def _take(self, reply: Mapping[str, Any]) -> bool:
        """Takes in what a host says; returns whether there is more output to come at once."""
        is_behind = False
        with self._lock:
            self._served &= set(reply["wanted"])
            self.wanted = tuple(reply["wanted"])
            for running in list(self._jobs.values()):
                told = reply["jobs"].get(running.id)
                if told is None:
                    # Another keeper than the one that ran it: the host was restarted, or the
                    # lease has expired meanwhile.
                    if running.keeper or self._signal:
                        self._end(running, -(self._signal or signal.SIGKILL))
                    continue
                running.keeper = reply["keeper"]
                self._append(running, base64.b64decode(told["output"]))
                if running.offset < told["size"]:
                    is_behind = True
                elif told["ended"] is not None:
                    code, alive_s = told["ended"]
                    self._end(running, code, alive_s)
        return is_behind

    def _append(self, running: Running, output: bytes) -> None:
        if output:
            try:
                with open_log(running.job.log) as file:
                    file.write(output)
            except OSError as e:
                log.warning("%s: %s", running.job.name, e)
        running.offset += len(output)

    def _end(self, running: Running, code: int, alive_s: float | None = None) -> None:
        del self._jobs[running.id]
        if alive_s is None:
            alive_s = time.monotonic() - running.began
        self._ended.append(Exit(running.job, code, alive_s))

    def _end_all(self) -> None:
        with self._lock:
            for running in list(self._jobs.values()):
                self._end(running, -signal.SIGKILL)

    def _note_disconnection(self, error: Exception) -> None:
        if self._connected:
            log.warning(
                "%s: the connection is lost (%s); its workers go on for %g s, in which it may come "
                "back",
                *(self.name, error, self._lease_s),
            )
        self._connected = False
        if not self._lost and time.monotonic() > self._heard + self._lease_s:
            self._lost = True
            if self._jobs:
                log.warning(
                    "%s: lost (%s); its workers have been ended by now, and their trials go on on "
                    "other hosts",
                    *(self.name, error),
                )
            self._end_all()
