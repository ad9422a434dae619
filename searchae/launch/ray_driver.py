"""Ray's own process, driven by ``searchae.launch.ray`` through a pipe: JSON, a line each way.

Ray ends the whole process in which it runs once it has lost its cluster, takes over its signals
and writes to its standard output. So it gets a process of its own, and this is all of it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayError

from searchae import __version__

LEAVE_S = 15.0
"""Seconds that a job gets to put its trial back when its actor or node goes away."""
SHARED_S = 30.0
"""Seconds that a network file system may take to show a node what the driver has written."""
OBJECT_STORE_BYTES = 80 * 1024**2
"""Of a cluster of our own: next to nothing goes through it."""


class Runner:
    """Runs one job on its node; a Ray actor.

    It is sent to the nodes by value, being part of a ``__main__``: a node whose searchae is
    missing or of another version can say so.
    """

    def __init__(self) -> None:
        self._raylet = os.getppid()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: int | None = None
        self._lock = threading.Lock()
        atexit.register(self._leave)

    def ready(self) -> None:
        """Answers once the actor is there."""

    def run(self, job: Mapping[str, Any], version: str) -> tuple[int, float, str]:
        """The job's exit code, how long it ran in seconds, and what kept it from running."""
        problem = self._start(job, version)
        if problem:
            return 2, 0.0, f"Ray node {socket.gethostname()}: {problem}"
        began = time.monotonic()
        if self._process is None:
            assert self._asked is not None
            return -self._asked, 0.0, ""
        while True:
            try:
                return self._process.wait(timeout=1), time.monotonic() - began, ""
            except subprocess.TimeoutExpired:
                if os.getppid() != self._raylet:  # nobody will hear of this job any more
                    self._leave()
                    os._exit(1)

    def signal(self, number: int) -> None:
        """Sends the job a signal; one that has not started will not."""
        with self._lock:
            self._asked = number
            if self._process is not None:
                self._process.send_signal(number)

    def _start(self, job: Mapping[str, Any], version: str) -> str:
        try:
            import searchae
        except ImportError:
            return f"searchae is not installed for {sys.executable}; every node needs it"
        if searchae.__version__ != version:
            return f"it has searchae {searchae.__version__}, this is {version}; install the same"
        deadline = time.monotonic() + SHARED_S
        while not os.path.exists(job["log"]):
            if time.monotonic() > deadline:
                return f"no {job['log']}; --artifacts must be a folder that all nodes share"
            time.sleep(0.2)
        # Its parent is this actor: when that dies, the worker leaves.
        environment = {**os.environ, **job["environment"], "SEARCHAE_PARENT": str(os.getpid())}
        try:
            with self._lock, open(job["log"], "ab") as log:
                if self._asked is None:
                    self._process = subprocess.Popen(
                        [job["argv"][0] or sys.executable, *job["argv"][1:]],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
        except OSError as e:
            return str(e)
        return ""

    def _leave(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass
class Handle:
    """A job and its actor, as the driver sees them."""

    name: str
    needs: str
    actor: Any
    ready: Any
    result: Any
    since: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    told: bool = False


class Driver:
    """Answers requests; one method each."""

    def __init__(self) -> None:
        self._handles: dict[str, Handle] = {}
        self._actor = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=4)(Runner)

    def connect(self, address: str) -> bool:
        """Joins the cluster at that address; False where ``auto`` finds none to join.

        Raises:
            ConnectionError: There is none, or it will not have us.
        """
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options["num_cpus"] = len(os.sched_getaffinity(0))
            options["object_store_memory"] = OBJECT_STORE_BYTES
            options["include_dashboard"] = False
        elif address != "auto":
            _knock(address)
        try:
            ray.init(address, **options)
        except (Exception, SystemExit) as e:  # noqa: BLE001  Ray raises whatever it likes
            if address == "auto" and isinstance(e, ConnectionError):
                return False
            if "InvalidAuthToken" in f"{e} {e.__cause__}":
                e = ConnectionError("asks for a token; set RAY_AUTH_TOKEN or ~/.ray/auth_token")
            raise ConnectionError(" ".join(str(e).split())) from None
        return True

    def resources(self) -> dict[str, int]:
        """What the nodes have that are alive now."""
        nodes = [n for n in ray.nodes() if n["Alive"]]
        return {
            "cpus": int(sum(n["Resources"].get("CPU", 0) for n in nodes)),
            "gpus": int(sum(n["Resources"].get("GPU", 0) for n in nodes)),
            "machines": len({n["NodeManagerHostname"] for n in nodes}),
        }

    def start(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """An actor a job. What is secret in a job is an argument, which Ray shows nowhere."""
        for job in jobs:
            cpus, gpus = job["cpus"], job["gpus"]
            actor = self._actor.options(num_cpus=cpus, num_gpus=gpus).remote()
            self._handles[job["name"]] = Handle(
                name=job["name"],
                needs=f"{cpus} CPU" + (f", {gpus:g} GPU" if gpus else ""),
                actor=actor,
                ready=actor.ready.remote(),
                result=actor.run.remote(job, __version__),
            )

    def poll(self, late_s: float) -> dict[str, Any]:
        """The jobs that have ended, and a line on those without room for that many seconds."""
        self._look_for_ready()
        ended = [self._end(h) for h in self._done(timeout_s=0)]
        return {"ended": ended, "notes": self._notes(late_s)}

    def stop(self, wait_s: float) -> dict[str, Any]:
        """Ends every job: those that run by SIGTERM, then SIGKILL; those that wait at once."""
        self._look_for_ready()
        ended = [self._drop(h, -15) for h in list(self._handles.values()) if not h.is_ready]
        # A job that has been killed is gone in no time, unless its node is.
        for number, patience_s in ((15, wait_s), (9, 10.0)):
            for handle in self._handles.values():
                handle.actor.signal.remote(number)
            ended += [self._end(h) for h in self._done(timeout_s=patience_s)]
        ended += [self._drop(h, -9) for h in list(self._handles.values())]
        return {"ended": ended, "notes": []}

    def _done(self, *, timeout_s: float) -> list[Handle]:
        by_result = {h.result: h for h in self._handles.values()}
        if not by_result:
            return []
        done, _ = ray.wait(list(by_result), num_returns=len(by_result), timeout=timeout_s)
        return [by_result[result] for result in done]

    def _end(self, handle: Handle) -> dict[str, Any]:
        try:
            code, seconds, said = ray.get(handle.result)
        except RayError as e:
            return self._drop(handle, -9, lost=_reason(e))
        return {**self._drop(handle, code), "seconds": seconds, "said": said}

    def _drop(self, handle: Handle, code: int, lost: str = "") -> dict[str, Any]:
        del self._handles[handle.name]
        ray.kill(handle.actor)
        seconds = time.monotonic() - handle.since
        return {"name": handle.name, "code": code, "seconds": seconds, "said": "", "lost": lost}

    def _look_for_ready(self) -> None:
        waiting = {h.ready: h for h in self._handles.values() if not h.is_ready}
        if waiting:
            for ready in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                waiting[ready].is_ready, waiting[ready].since = True, time.monotonic()

    def _notes(self, late_s: float) -> list[str]:
        late = time.monotonic() - late_s
        by_needs: dict[str, list[str]] = {}
        for handle in self._handles.values():
            if not handle.is_ready and not handle.told and handle.since < late:
                handle.told = True
                by_needs.setdefault(handle.needs, []).append(handle.name)
        if not by_needs:
            return []
        free = ray.available_resources()
        has = f"{free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU"
        return [
            f"{', '.join(names)}: waiting for {needs} on one Ray node; the cluster has {has} free"
            for needs, names in by_needs.items()
        ]


def _knock(address: str) -> None:
    """Raises ConnectionError where nobody listens; Ray itself would try for minutes."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else None)
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ConnectionError("not an address: use HOST:PORT, auto, or local for a new cluster")
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as e:
        raise ConnectionError(f"nobody listens there ({e.strerror or e})") from e


def _reason(error: RayError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("The actor died because")]
    return (named or lines or [type(error).__name__])[0]


def main() -> None:
    """Answers requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray writes there what no option turns off
    driver = Driver()
    for line in sys.stdin:
        request = json.loads(line)
        reply: dict[str, Any]
        try:
            reply = {"answer": getattr(driver, request.pop("do"))(**request)}
        except ConnectionError as e:
            reply = {"refused": str(e)}
        print(json.dumps(reply), file=replies)
    ray.shutdown()


if __name__ == "__main__":
    main()
