"""Runs the system's ``ssh``, with the keys, agents and jump hosts of the user's own configuration.

One connection per host is kept open in the background (ControlMaster); everything else goes through
it. ssh never asks for anything: what it would ask for has to work without, or is an error.
"""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, NoReturn

from searchae.errors import UserError
from searchae.launch.ssh_keeper import READY

CONNECT_S = 10
"""Seconds to connect to a host."""
ALIVE_S, ALIVE_COUNT = 5, 3
"""ssh gives a connection up after so many unanswered requests, each after so many seconds."""
PERSIST_S = 30
"""Seconds that a connection stays open without use, also when the launcher was killed."""
LOST = 255
"""ssh's own exit code when it cannot connect."""

_BOOTSTRAP = "import sys;exec(compile(sys.stdin.buffer.read({size}),'searchae','exec'))"


class HostError(Exception):
    """A host did not do what it was asked for; the message says why."""


class UnreachableError(HostError):
    """There is no connection to the host."""


@cache
def _source(program: str) -> bytes:
    return files("searchae.launch").joinpath(f"{program}.py").read_bytes()


def probe_source() -> str:
    """Returns the source of ``ssh_probe``."""
    return _source("ssh_probe").decode()


def require_ssh() -> None:
    """Checks that there is an ssh.

    Raises:
        UserError: It is not installed.
    """
    if shutil.which("ssh") is None:
        raise UserError("--launcher ssh: there is no `ssh` on this machine; install openssh-client")


def control_folder() -> Path:
    """Returns a new folder for the sockets of connections, for the user alone.

    Its path is short: a socket's is limited to 107 characters.
    """
    return Path(tempfile.mkdtemp(prefix="searchae-ssh-", dir="/tmp"))


class Connection:
    """The connection to one host, opened when it is first used and again when it was lost.

    Args:
        target: The host as for ``ssh``: a name of the user's configuration, or ``user@host``.
        folder: For the connection's socket; see ``control_folder``.
    """

    def __init__(self, target: str, folder: Path) -> None:
        self.target = target
        self._socket = folder / "%C"
        self._forwarded = ("", 0)

    def _command(self, *words: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_S,
            "ServerAliveInterval": ALIVE_S,
            "ServerAliveCountMax": ALIVE_COUNT,
            "ControlMaster": "auto",
            "ControlPath": self._socket,
            "ControlPersist": PERSIST_S,
            "RequestTTY": "no",
            "ForwardX11": "no",
            "ForwardAgent": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "LogLevel": "ERROR",
        }
        flags = [f"-o{key}={value}" for key, value in options.items()]
        return ["ssh", *flags, *words]

    @contextmanager
    def calling(self, request: dict[str, Any], *, timeout_s: float | None) -> Iterator[Call]:
        """Makes a call during the block, at whose end it has ended.

        Args:
            request: What to do.
            timeout_s: Seconds after which it is given up; None for no limit.

        Raises:
            HostError: It failed, or took too long.
        """
        source = _source("ssh_keeper" if request["do"] == "serve" else "ssh_host")
        python = f'exec python3 -c "{_BOOTSTRAP.format(size=len(source))}"'
        # A file: a connection that stays in the background would keep a pipe open.
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self._command("-T", "--", self.target, python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,  # no Ctrl-C: workers first put their trials back
            )
            call = Call(self.target, process, errors, timeout_s)
            try:
                call.write(source + json.dumps(request).encode() + b"\n")
                yield call
                call.finish()
            finally:
                call.close()

    def call(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Makes a call and returns its answer.

        Args:
            request: What to do; see ``ssh_keeper`` and ``ssh_host``.
            timeout_s: Seconds after which it is given up.

        Raises:
            HostError: It failed, or took too long.
        """
        with self.calling(request, timeout_s=timeout_s) as call:
            answer: dict[str, Any] = call.answer()
            return answer

    def forward(self, port: int, target: str) -> int:
        """Has a port on the host lead to an address as seen from here, while the connection lives.

        Args:
            port: The port on the host's loopback interface; 0 for any that is free. One that leads
                there already stays as it is.
            target: ``HOST:PORT`` or the path of a socket.

        Returns:
            The port.

        Raises:
            HostError: The host does not allow it, or the port is taken.
        """
        master = self._control("-O", "check", "--", self.target).stderr.strip()  # names its pid
        if (master, port) == self._forwarded:
            return port
        words = ("-O", "forward", "-R", f"127.0.0.1:{port}:{target}", "--", self.target)
        done = self._control(*words)
        if done.returncode:
            raise HostError((done.stderr.splitlines() or ["no port can be forwarded"])[0])
        port = port or int(done.stdout.split()[-1])
        self._forwarded = (master, port)
        return port

    def close(self) -> None:
        """Ends the connection."""
        with suppress(HostError):
            self._control("-O", "exit", "--", self.target)

    def _control(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self._command(*words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=2 * CONNECT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnreachableError("ssh does not answer") from None


class Call:
    """A call on a host that is being made."""

    def __init__(
        self,
        target: str,
        process: subprocess.Popen[bytes],
        errors: IO[bytes],
        timeout_s: float | None,
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.target, self._stdout = target, process.stdout
        self.stdin = io.BufferedWriter(process.stdin)
        self._buffer = b""
        self._process, self._errors, self._timed_out = process, errors, False
        self._timer = threading.Timer(timeout_s or 0, self._give_up)
        self._timer.daemon = True
        if timeout_s is not None:
            self._timer.start()

    def write(self, content: bytes) -> None:
        """Sends bytes.

        Raises:
            HostError: The call has ended.
        """
        try:
            self.stdin.write(content)
            self.stdin.flush()
        except OSError:
            self.fail()

    def answer(self, timeout_s: float | None = None) -> Any:
        """Returns the first line, decoded; what login scripts have written before it is skipped.

        Raises:
            HostError: The call has ended without one, or does not answer in time.
        """
        self.ready(timeout_s)
        return json.loads(self.line(timeout_s))

    def ready(self, timeout_s: float | None = None) -> None:
        """Waits until the host answers.

        Raises:
            HostError: The call has ended without an answer, or does not answer in time.
        """
        while self.line(timeout_s).strip() != READY.encode():
            pass

    def line(self, timeout_s: float | None = None) -> bytes:
        """Returns the next line.

        Args:
            timeout_s: Seconds to wait for each part of it; None for no limit.

        Raises:
            HostError: The call has ended without one, or it does not come in time.
        """
        while b"\n" not in self._buffer:
            if not select.select([self._stdout], [], [], timeout_s)[0]:
                self._timed_out = True
                self.fail()
            part = os.read(self._stdout.fileno(), 2**16)
            if not part:
                self.fail()
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def read(self, size: int) -> bytes:
        """Returns bytes that follow; fewer than ``size`` at the end only."""
        found = self._buffer[:size]
        self._buffer = self._buffer[size:]
        while len(found) < size and (part := self._stdout.read(size - len(found))):
            found += part
        return found

    def finish(self) -> None:
        """Waits until the call has ended.

        Raises:
            HostError: It failed.
        """
        with suppress(OSError):
            self.stdin.close()
        while self.read(2**16):
            pass
        if self._process.wait():
            self.fail()

    def fail(self) -> NoReturn:
        """Ends the call, and raises the error that says why it failed.

        Raises:
            HostError: Always.
        """
        self.close()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if self._timed_out:
            raise UnreachableError("it does not answer in time")
        if self._process.returncode == LOST:
            raise UnreachableError(lines[-1] if lines else "the connection was closed")
        raise HostError(lines[-1] if lines else f"exit code {self._process.returncode}")

    def close(self) -> None:
        """Ends the call, if it has not ended."""
        self._timer.cancel()
        with suppress(OSError):
            self.stdin.close()
        if self._process.poll() is None:
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._stdout.close()

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()
