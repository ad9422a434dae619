"""Runs workers on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import secrets
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from searchae.errors import SearchaeError, UserError, install_text
from searchae.launch.base import Exit, Job, Resources
from searchae.launch.logs import created_log, open_log

log = logging.getLogger(__name__)

CONNECT_S = 60.0
"""Seconds to connect to a cluster, or to start one."""
ANSWER_S = 90.0
"""Seconds without an answer after which the cluster counts as lost. Longer than the 60 after which
Ray itself gives up on a head that does not come back."""
TRACEBACK = "Traceback (most recent call last)"


class RayLauncher:
    """Starts one Ray actor per job, which runs the job as a process on its node.

    Nodes need the same version of searchae in the Python that Ray runs there, and the artifact
    folder and the data under the same paths as here; the database must be reachable from them.
    A job that waits for free resources counts as alive. A job whose node died ends with code -9.

    Args:
        address: ``HOST:PORT`` of a cluster's head; ``auto`` for the cluster that runs on this
            machine or that ``RAY_ADDRESS`` names, and a new one if there is none; ``local`` for a
            new one.
        late_s: Seconds after which a job that still waits for resources is logged.

    Raises:
        UserError: Ray is not installed.
    """

    is_local = False

    def __init__(self, address: str = "auto", *, late_s: float = 20.0) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError(f"--launcher ray: needs Ray: {install_text('ray')}")
        self._address = address
        if address == "auto":
            self._address = os.environ.get("RAY_ADDRESS") or "auto"
        self._late_s = late_s
        self._driver: _Driver | None = None
        self._running: dict[str, Job] = {}
        self._ended: list[Exit] = []

    def resources(self) -> Resources:
        """Returns the resources of the cluster's live nodes, in use or not.

        Raises:
            UserError: There is no cluster at the address.
            SearchaeError: The connection to the cluster is lost.
        """
        return Resources(**self._ask("resources"))

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts one actor per job; Ray queues those for which no resources are free.

        Raises:
            UserError: There is no cluster at the address.
            SearchaeError: The connection to the cluster is lost.
        """
        jobs = [created_log(job) for job in jobs]  # by this a node checks that it shares the folder
        self._ask("start", jobs=[_as_json(job) for job in jobs])
        self._running.update({job.name: job for job in jobs})

    def poll(self) -> list[Exit]:
        """Returns the jobs that have ended since the last call.

        Raises:
            SearchaeError: The connection to the cluster is lost.
        """
        if self._running:
            self._record(self._ask("poll", late_s=self._late_s))
        ended, self._ended = self._ended, []
        return ended

    def alive(self) -> int:
        """Returns the number of jobs that run or wait for resources."""
        return len(self._running)

    def stop(self, *, wait_s: float) -> None:
        """Stops every job and disconnects; a cluster that this launcher started ends.

        Jobs get SIGTERM, and SIGKILL if they are left after ``wait_s`` seconds. If the cluster is
        lost, its jobs end with code -9.
        """
        if self._driver is None:
            return
        try:
            if self._running:
                self._record(self._ask("stop", answer_s=wait_s + ANSWER_S, wait_s=wait_s))
        except SearchaeError as e:
            log.warning("%s", e)
        finally:
            driver, self._driver = self._driver, None
            if driver is not None:
                driver.close()
            self._ended += [Exit(job, -9, 0.0) for job in self._running.values()]
            self._running.clear()

    def _record(self, reply: dict[str, Any]) -> None:
        for note in reply["notes"]:
            log.warning("%s", note)
        for end in reply["ended"]:
            job = self._running.pop(end["name"])
            if end["lost"]:
                log.warning("%s: lost: %s", job.name, end["lost"])
            if end["problem"]:  # the user is pointed to the log of a job that failed
                log.warning("%s: %s", job.name, end["problem"])
                with open_log(job.log) as file:
                    file.write(f"{end['problem']}\n".encode())
            self._ended.append(Exit(job, end["code"], end["seconds"]))

    def _ask(self, what: str, *, answer_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Sends a request to the driver, which is started if necessary; returns the answer."""
        if self._driver is None:
            self._driver = self._start_driver()
        try:
            return self._driver.ask(what, answer_s=answer_s, **arguments)
        except EOFError:
            driver, self._driver = self._driver, None
            self._ended += [Exit(job, -9, 0.0) for job in self._running.values()]
            self._running.clear()
            traceback = driver.close(patience_s=1)
            raise SearchaeError(
                f"the Ray cluster at {self._address} is gone: run the same command again"
                + ("; Ray said:" if traceback else ""),
                *traceback.splitlines(),
            ) from None

    def _start_driver(self) -> _Driver:
        """Connects to a cluster, or starts one."""
        if self._address != "local":
            joined = self._join()
            if joined is not None:
                return joined
        # Ray listens on every network interface and runs the code that it is sent: a cluster that
        # is started here requires a token.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        own = self._connect("local", token)
        assert own is not None
        return own

    def _join(self) -> _Driver | None:
        """Connects to a cluster; None where ``auto`` finds none.

        A token is sent only if the cluster asks for it: with an unnecessary one, Ray's actors
        cannot be reached.
        """
        if "RAY_AUTH_MODE" in os.environ or not _has_token(os.environ):
            return self._connect(self._address, {})
        try:
            return self._connect(self._address, {"RAY_NUM_REDIS_GET_RETRIES": "3"})
        except UserError as e:
            if "asks for a token" not in str(e):
                raise
            return self._connect(self._address, {"RAY_AUTH_MODE": "token"})

    def _connect(self, address: str, environment: Mapping[str, str]) -> _Driver | None:
        """Starts a driver and connects it; None where ``auto`` finds no cluster."""
        driver = _Driver(environment)
        connected = False
        try:
            connected = driver.ask("connect", answer_s=CONNECT_S, address=address)
        except (EOFError, ConnectionRefusedError) as e:
            why = str(e) or driver.close(patience_s=1) or "no answer; is it a Ray head's port?"
            raise UserError(f"--ray-address {address}: {why}") from None
        finally:
            if not connected:
                driver.close(patience_s=1)
        return driver if connected else None


def _has_token(environment: Mapping[str, str]) -> bool:
    """Returns whether a token is where Ray looks for it."""
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environment.keys()
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


def _as_json(job: Job) -> dict[str, Any]:
    program, *arguments = job.argv
    return {
        "name": job.name,
        # Empty for this Python: a node's actor fills in the path of its own.
        "argv": ["" if program == sys.executable else program, *arguments],
        "log": str(job.log.resolve()),
        "environment": dict(job.environment),
        "cpus": job.cpus,
        "gpus": job.gpus,
    }


class _Driver:
    """The process that uses Ray; see ``ray_driver``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "searchae.launch.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment},
            start_new_session=True,  # no Ctrl-C: workers first put their trials back
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._replies, selectors.EVENT_READ)

    def ask(self, what: str, *, answer_s: float, **arguments: Any) -> Any:
        """Sends a request and returns the answer.

        Args:
            what: Name of a method of ``ray_driver.Driver``.
            answer_s: Seconds to wait for the answer.
            **arguments: The method's arguments.

        Raises:
            EOFError: The driver has ended, or has not answered in time.
            ConnectionRefusedError: The driver cannot connect to the cluster.
        """
        try:
            self._requests.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
            self._requests.flush()
        except OSError:
            raise EOFError from None
        reply = json.loads(self._read_line(answer_s))
        if "refused" in reply:
            raise ConnectionRefusedError(reply["refused"])
        return reply["answer"]

    def _read_line(self, answer_s: float) -> bytes:
        deadline = time.monotonic() + answer_s
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            part = os.read(self._replies.fileno(), 65536) if self._selector.select(left) else b""
            if not part:
                raise EOFError
            line += part
        return line

    def close(self, *, patience_s: float = 20.0) -> str:
        """Ends the process; returns the traceback on its standard error, if any."""
        if self._errors.closed:
            return ""
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._selector.close()
        with self._errors as errors:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        return text[text.index(TRACEBACK) :] if TRACEBACK in text else ""
