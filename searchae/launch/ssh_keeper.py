"""Runs on a host of the ssh launcher: keeps its workers. It is sent there over ssh, as it is.

It needs nothing but Python 3.8. The first line of standard input, after this source, is a request
in JSON. ``serve`` starts a keeper, unless there is one, which leaves the session and runs the
workers, and passes lines between ssh and the keeper's socket. Its first line is ``READY``, since a
login script may have written something before.

The keeper ends its workers and itself when it has not heard of the launcher for ``lease_s``
seconds. Nothing that is secret stands in an argument of any process.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any, cast

READY = "searchae-host 1"
CHUNK = 2**18
"""Bytes of a log in one answer."""
TICK_S = 0.1
KILL_S = 20.0
"""Seconds that workers get to put their trials back once the lease has expired."""
OLD_S = 7 * 86400


def home() -> str:
    """Returns searchae's folder in the user's home, as the launcher names it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "searchae")


def run_folder(run: str) -> str:
    """Returns the folder of one launcher's workers, for the user alone."""
    folder = os.path.join(home(), "ssh", os.path.basename(run))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    return folder


def inside(root: str, name: str) -> str:
    """Returns a path below a folder for a name that came with a file."""
    path = os.path.normpath(os.path.join(root, name))
    if not path.startswith(os.path.normpath(root) + os.sep):
        raise ValueError(f"{name!r} leads out of {root}")
    return path


class Process:
    """A worker; its output goes to a file in the launcher's folder on this host."""

    def __init__(self, spec: dict[str, Any], folder: str) -> None:
        self.began, self.told = time.monotonic(), 0
        self.ended: tuple[int, float] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.log = inside(folder, spec["id"] + ".log")
        for name, text in spec["files"].items():  # the code of a net of the user's own
            path = inside(folder, name)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "wb") as file:
                file.write(base64.b64decode(text))
        # A worker leaves when the process that is named here has died.
        environment = dict(os.environ, **spec["environment"], SEARCHAE_PARENT=str(os.getpid()))
        with open(self.log, "ab") as log:
            try:
                self.process = subprocess.Popen(
                    spec["argv"],
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as e:
                log.write(f"{e}\n".encode())
                self.ended = (2, 0.0)

    def signal(self, number: int) -> None:
        """Sends a signal once; SIGKILL to all that the worker has started, too."""
        if self.ended or self.process is None or self.told in (number, signal.SIGKILL):
            return
        self.told = number
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                os.kill(self.process.pid, number)

    def look(self) -> None:
        """Notes the end of the worker, and ends what it has left behind."""
        if self.ended or self.process is None:
            return
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, self.process.pid, flags):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
            self.ended = (code, time.monotonic() - self.began)

    def output(self, offset: int) -> tuple[str, int]:
        """Returns what follows in the log, and the log's length."""
        with open(self.log, "rb") as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(offset)
            return base64.b64encode(log.read(CHUNK)).decode(), size


class Keeper:
    """Runs the workers of one launcher until it says that it is over, or is not heard of."""

    def __init__(self, folder: str, lease_s: float) -> None:
        self.folder, self.lease_s = folder, lease_s
        self.uid = f"{os.getpid()}-{time.time_ns()}"
        self.jobs: dict[str, Process] = {}
        self.strays: list[Process] = []  # which the launcher does not know any more
        self.heard, self.over = time.monotonic(), False
        self.expired: float | None = None
        self.server = socket.socket(socket.AF_UNIX)
        os.chdir(folder)  # a socket's whole path may be no longer than 107 bytes
        with suppress(FileNotFoundError):
            os.unlink("socket")
        self.server.bind("socket")
        self.server.listen(4)
        os.makedirs("wanted", exist_ok=True)
        with open("keeper", "w") as file:
            file.write(self.uid)
        self.client: socket.socket | None = None
        self.buffer = b""

    def run(self) -> None:
        """Answers until it is over, then leaves nothing behind."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.expire())
        while not self.over:
            sockets = [self.server] + ([self.client] if self.client else [])
            ready, _, _ = select.select(sockets, [], [], TICK_S)
            if self.client is not None and self.client in ready:
                self.read(self.client)
            if self.server in ready:  # the launcher has connected again
                self.drop()
                self.client, _ = self.server.accept()
                self.client.settimeout(30)
            self.look()
        self.end()

    def look(self) -> None:
        """Looks which workers have ended, and whether the lease has expired."""
        now = time.monotonic()
        for process in [*self.jobs.values(), *self.strays]:
            process.look()
        self.strays = [p for p in self.strays if not p.ended]
        if self.expired is None and now > self.heard + self.lease_s:
            self.expire()
        if self.expired is not None:
            alive = [p for p in self.jobs.values() if not p.ended]
            if not alive and not self.strays:
                self.over = True
            elif now > self.expired + KILL_S:
                for process in alive:
                    process.signal(signal.SIGKILL)

    def expire(self) -> None:
        """Tells the workers to put their trials back."""
        if self.expired is None:
            self.expired = time.monotonic()
            for process in self.jobs.values():
                process.signal(signal.SIGTERM)

    def end(self) -> None:
        """Ends every worker, and removes the folder."""
        for process in [*self.jobs.values(), *self.strays]:
            process.signal(signal.SIGKILL)
        for process in [*self.jobs.values(), *self.strays]:
            while not process.ended:
                process.look()
                time.sleep(0.02)
        os.chdir("/")
        shutil.rmtree(self.folder, ignore_errors=True)

    def drop(self) -> None:
        """Forgets a connection that has ended."""
        if self.client:
            self.client.close()
        self.client, self.buffer = None, b""

    def read(self, client: socket.socket) -> None:
        """Answers each whole line that has come."""
        try:
            part = client.recv(2**16)
            if not part:
                self.drop()
            self.buffer += part
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                answer = self.answer(json.loads(line.decode()))
                client.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self.drop()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what a request asks for; all of it may be asked for again.

        ``jobs``: the ids that the launcher knows; others are ended. ``start``: their specs.
        ``signal``: the last signal that they shall have got. ``offsets``: how much of each log
        has come home. ``served``: the files that were wanted and have come. ``over``: to end.
        """
        self.heard = time.monotonic()
        known = set(request["jobs"])
        for name in [n for n in self.jobs if n not in known]:
            process = self.jobs.pop(name)
            process.signal(signal.SIGKILL)
            self.strays.append(process)
        for spec in request["start"]:
            if spec["id"] not in self.jobs and self.expired is None:
                self.jobs[spec["id"]] = Process(spec, self.folder)
        for process in self.jobs.values():
            if request["signal"]:
                process.signal(request["signal"])
            process.look()
        for name in request["served"]:
            with suppress(FileNotFoundError):
                os.unlink(inside(self.folder, os.path.join("wanted", name)))
        if request["over"]:
            self.over = True
        told = {}
        for name, process in self.jobs.items():
            text, size = process.output(request["offsets"].get(name, 0))
            told[name] = {"output": text, "size": size, "ended": process.ended}
        wanted = os.path.join(self.folder, "wanted")
        return {
            "keeper": self.uid,
            "jobs": told,
            "expired": self.expired is not None,
            "wanted": sorted(os.listdir(wanted)) if os.path.isdir(wanted) else [],
        }


def connect(folder: str) -> socket.socket | None:
    """Returns a connection to the folder's keeper; None if there is none."""
    os.chdir(folder)
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect("socket")
    except OSError:
        client.close()
        return None
    return client


def start_keeper(folder: str, lease_s: float, lock: IO[bytes]) -> None:
    """Starts a keeper that outlives this session."""
    if os.fork():
        os.wait()
        return
    lock.close()  # a lock is held for as long as any process has its file open
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(os.path.join(folder, "errors"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        Keeper(folder, lease_s).run()
    finally:
        os._exit(0)


def serve(request: dict[str, Any]) -> None:
    """Passes lines between ssh and the keeper, which is started if there is none."""
    remove_old()
    folder = run_folder(request["run"])
    with open(os.path.join(folder, "lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = connect(folder)
        if client is None:
            start_keeper(folder, request["lease_s"], lock)
        deadline = time.monotonic() + 20
        while client is None and time.monotonic() < deadline:
            time.sleep(0.02)
            client = connect(folder)
    if client is None:
        raise SystemExit(f"no keeper starts in {folder}")
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()

    stdin = cast("io.BufferedReader", sys.stdin.buffer)

    def send() -> None:
        while True:
            part = stdin.read1(2**16)
            if not part:  # the connection is gone: this process too
                os._exit(0)
            client.sendall(part)

    threading.Thread(target=send, daemon=True).start()
    while True:
        part = client.recv(2**16)
        if not part:
            os._exit(0)
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def remove_old() -> None:
    """Removes what keepers that were killed have left, after a week."""
    root = os.path.join(home(), "ssh")
    names = os.listdir(root) if os.path.isdir(root) else []
    for name in names:
        folder = os.path.join(root, name)
        with suppress(OSError):
            is_old = os.stat(folder).st_mtime < time.time() - OLD_S
            if is_old and connect(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
    os.chdir("/")


if __name__ == "__main__":
    serve(json.loads(sys.stdin.buffer.readline().decode()))
