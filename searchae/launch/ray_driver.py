"""The process that uses Ray on behalf of ``searchae.launch.ray``.

Requests and answers are JSON, one line each, on standard input and output. Ray needs a process of
its own: it ends the process when it loses its cluster, and takes over signals and standard output.
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
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from searchae import __version__
from searchae.launch.fleet_plan import available_cores
from searchae.launch.ray_address import check_listening

TERMINATE_S = 15.0
"""Seconds that a job gets to put its trial back when its actor or node is shut down."""
SHARED_FOLDER_S = 30.0
"""Seconds until a file that the driver has created must be visible on a node."""
OBJECT_STORE_BYTES = 80 * 1024**2
"""Object store of a cluster started here; hardly anything is stored in it."""


class Runner:
    """A Ray actor that runs one job on its node.

    As part of ``__main__`` it is pickled by value, so that it can report a node on which searchae
    is missing or has another version.
    """

    def __init__(self) -> None:
        self._raylet = os.getppid()
        self._process: subprocess.Popen[bytes] | None = None
        self._signal_number: int | None = None
        self._lock = threading.Lock()
        atexit.register(self._terminate)

    def ready(self) -> None:
        """Returns as soon as the actor is running."""

    def run(self, job: Mapping[str, Any], version: str) -> tuple[int, float, str]:
        """Runs a job to its end.

        Args:
            job: As ``ray._as_json`` makes it.
            version: The version of searchae that the node must have.

        Returns:
            The exit code, the run time in seconds, and why the job could not be started.
        """
        problem = self._start(job, version)
        if problem:
            return 2, 0.0, f"Ray node {socket.gethostname()}: {problem}"
        began = time.monotonic()
        if self._process is None:
            assert self._signal_number is not None
            return -self._signal_number, 0.0, ""
        while True:
            try:
                return self._process.wait(timeout=1), time.monotonic() - began, ""
            except subprocess.TimeoutExpired:
                if os.getppid() != self._raylet:  # the node has lost its cluster
                    self._terminate()
                    os._exit(1)

    def signal(self, number: int) -> None:
        """Sends the job a signal; a job that has not started yet will not start."""
        with self._lock:
            self._signal_number = number
            if self._process is not None:
                self._process.send_signal(number)

    def _start(self, job: Mapping[str, Any], version: str) -> str:
        """Starts the job's process; returns why that is not possible, else an empty text."""
        try:
            import searchae
        except ImportError:
            return f"searchae is not installed for {sys.executable}; every node needs it"
        if searchae.__version__ != version:
            return f"it has searchae {searchae.__version__}, this is {version}; install the same"
        from searchae.launch.logs import open_log  # not above: the class is pickled by value

        deadline = time.monotonic() + SHARED_FOLDER_S
        while not os.path.exists(job["log"]):
            if time.monotonic() > deadline:
                return f"no {job['log']}; --artifacts must be a folder that all nodes share"
            time.sleep(0.2)
        # A worker exits when the process named here, this actor, dies.
        environment = {**os.environ, **job["environment"], "SEARCHAE_PARENT": str(os.getpid())}
        try:
            with self._lock, open_log(Path(job["log"])) as log:
                if self._signal_number is None:
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

    def _terminate(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass
class Handle:
    """A job and its actor, on the driver's side.

    Attributes:
        name: The job's name.
        needs: The resources that it waits for, as text.
        actor: The handle of its ``Runner``.
        ready: Future of ``Runner.ready``.
        result: Future of ``Runner.run``.
        since: When it began to wait or, once ready, to run; of ``time.monotonic``.
        is_ready: Whether the actor runs.
        is_reported: Whether a note said that it waits.
    """

    name: str
    needs: str
    actor: Any
    ready: Any
    result: Any
    since: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    is_reported: bool = False


class Driver:
    """Answers requests, each by the method of that name."""

    def __init__(self) -> None:
        self._handles: dict[str, Handle] = {}
        self._actor = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=4)(Runner)

    def connect(self, address: str) -> bool:
        """Connects to the cluster at an address; returns False where ``auto`` finds none.

        Raises:
            ConnectionError: There is no cluster, or it refuses the connection.
        """
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options["num_cpus"] = available_cores()
            options["object_store_memory"] = OBJECT_STORE_BYTES
            options["include_dashboard"] = False
        elif address != "auto":
            check_listening(address)
        try:
            ray.init(address, **options)
        except (Exception, SystemExit) as e:  # noqa: BLE001  Ray documents no exceptions
            if address == "auto" and isinstance(e, ConnectionError):
                return False
            if "InvalidAuthToken" in f"{e} {e.__cause__}":
                e = ConnectionError("asks for a token; set RAY_AUTH_TOKEN or ~/.ray/auth_token")
            raise ConnectionError(" ".join(str(e).split())) from None
        return True

    def resources(self) -> dict[str, int]:
        """Returns the resources of the live nodes: ``cpus``, ``gpus`` and ``machines``."""
        nodes = [n for n in ray.nodes() if n["Alive"]]
        return {
            "cpus": int(sum(n["Resources"].get("CPU", 0) for n in nodes)),
            "gpus": int(sum(n["Resources"].get("GPU", 0) for n in nodes)),
            "machines": len({n["NodeManagerHostname"] for n in nodes}),
        }

    def start(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Starts one actor per job.

        Secrets of a job are passed as an argument, which Ray does not show anywhere.
        """
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
        """Returns the jobs that have ``ended`` since the last call, and ``notes`` for the log.

        A note names the jobs that have waited for resources for ``late_s`` seconds, once.
        """
        self._update_ready()
        ended = [self._collect(h) for h in self._finished(timeout_s=0)]
        return {"ended": ended, "notes": self._notes(late_s)}

    def stop(self, wait_s: float) -> dict[str, Any]:
        """Ends every job; see ``poll`` for the result.

        Args:
            wait_s: Seconds between SIGTERM and SIGKILL of running jobs.
        """
        self._update_ready()
        ended = [self._remove(h, -15) for h in list(self._handles.values()) if not h.is_ready]
        # A killed job ends at once, unless its node is lost.
        for number, patience_s in ((15, wait_s), (9, 10.0)):
            for handle in self._handles.values():
                handle.actor.signal.remote(number)
            ended += [self._collect(h) for h in self._finished(timeout_s=patience_s)]
        ended += [self._remove(h, -9) for h in list(self._handles.values())]
        return {"ended": ended, "notes": []}

    def _finished(self, *, timeout_s: float) -> list[Handle]:
        """Returns the jobs that have ended, waiting for all of them up to ``timeout_s`` seconds."""
        by_result = {h.result: h for h in self._handles.values()}
        if not by_result:
            return []
        done, _ = ray.wait(list(by_result), num_returns=len(by_result), timeout=timeout_s)
        return [by_result[result] for result in done]

    def _collect(self, handle: Handle) -> dict[str, Any]:
        """Removes a job that has ended; returns its exit for ``RayLauncher``."""
        try:
            code, seconds, problem = ray.get(handle.result)
        except RayError as e:
            return self._remove(handle, -9, lost=_failure(e))
        return {**self._remove(handle, code), "seconds": seconds, "problem": problem}

    def _remove(self, handle: Handle, code: int, lost: str = "") -> dict[str, Any]:
        del self._handles[handle.name]
        ray.kill(handle.actor)
        seconds = time.monotonic() - handle.since
        return {"name": handle.name, "code": code, "seconds": seconds, "problem": "", "lost": lost}

    def _update_ready(self) -> None:
        waiting = {h.ready: h for h in self._handles.values() if not h.is_ready}
        if waiting:
            for ready in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                waiting[ready].is_ready, waiting[ready].since = True, time.monotonic()

    def _notes(self, late_s: float) -> list[str]:
        late = time.monotonic() - late_s
        by_needs: dict[str, list[str]] = {}
        for handle in self._handles.values():
            if not handle.is_ready and not handle.is_reported and handle.since < late:
                handle.is_reported = True
                by_needs.setdefault(handle.needs, []).append(handle.name)
        if not by_needs:
            return []
        free = ray.available_resources()
        has = f"{free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU"
        return [
            f"{', '.join(names)}: waiting for {needs} on one Ray node; the cluster has {has} free"
            for needs, names in by_needs.items()
        ]


def _failure(error: RayError) -> str:
    """Returns the line of Ray's message that says why an actor died."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("The actor died because")]
    return (named or lines or [type(error).__name__])[0]


def main() -> None:
    """Answers requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # no option stops Ray from writing to standard output
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
