"""Runs the command line in processes forked from one that has imported everything.

Importing torch and Optuna takes a process two to three seconds of CPU time. The server (see
``fork_server``) imports them once; each command is then a fork of it. The workers that a forked
``tune`` starts are forks as well: of a second server, a child of that ``tune``, which ends with it
as its workers do.

What forks cannot show (what is imported when, the command line in /proc, the environment's effect
on the C library) is tested with ``subprocess``.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

COMMAND = ("-m", "searchae")
PARENT = "SEARCHAE_PARENT"
LARGEST_REQUEST = 1 << 17
NUMBER = 8  # bytes of a process id or an exit code

Stream = int | IO[Any] | None


class ForkedProcess:
    """A forked command; has what the tests and ``LocalLauncher`` use of ``subprocess.Popen``.

    Args:
        args: The command.
        status: Where the server writes the process id, and later the exit code.
        pipes: Our ends of its standard input, output and error; None where they are no pipes.
        text: Whether they carry text rather than bytes.
    """

    def __init__(
        self, args: Sequence[str], status: int, pipes: Sequence[int | None], *, text: bool
    ) -> None:
        self.args, self._status = list(args), status
        self.pid = self._read()
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = (
            None if fd is None else os.fdopen(fd, mode if text else mode + "b")
            for fd, mode in zip(pipes, "wrr", strict=True)
        )

    def _read(self) -> int:
        number = os.read(self._status, NUMBER)
        return int.from_bytes(number, "little", signed=True) if number else -signal.SIGKILL

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end, and returns the exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs after ``timeout`` seconds.
        """
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = self._read()
                    os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Reads standard output and error to their end, and waits for the process's.

        Raises:
            subprocess.TimeoutExpired: It still runs after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        read: dict[int, Any] = {}

        def drain(number: int, stream: IO[Any]) -> None:
            read[number] = stream.read()

        if self.stdin is not None:
            self.stdin.close()
        readers = [
            threading.Thread(target=drain, args=(number, stream), daemon=True)
            for number, stream in enumerate((self.stdout, self.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return read.get(0), read.get(1)


class ForkServer:
    """The connection to a server; closing it ends the server.

    Args:
        connection: One end of a pair of sockets; ``serve`` has the other.
        pid: The server's process id.
    """

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection, self._pid = connection, pid

    def popen(
        self,
        args: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        text: bool = False,
        start_new_session: bool = False,
    ) -> ForkedProcess:
        """Starts a command; the arguments are those of ``subprocess.Popen``.

        Args:
            args: ``PYTHON -m searchae``, then the command's words.
        """
        assert tuple(args[1:3]) == COMMAND, args
        environment = dict(os.environ if env is None else env)
        if environment.get(PARENT) == str(os.getpid()):
            environment[PARENT] = str(self._pid)  # whose child it is
        theirs, ours = _streams(stdin, stdout, stderr)
        status, their_status = os.pipe()
        request = {
            "words": args[3:],
            "cwd": str(cwd or Path.cwd()),
            "environment": environment,
            "start_new_session": start_new_session,
        }
        message = json.dumps(request).encode()
        assert len(message) < LARGEST_REQUEST
        socket.send_fds(self._connection, [message], [*theirs, their_status])
        for fd in (*theirs, their_status):
            os.close(fd)
        return ForkedProcess(args, status, ours, text=text)


def forking_subprocess(server: Callable[[], ForkServer]) -> SimpleNamespace:
    """A ``subprocess`` whose ``Popen`` forks what is a command of searchae."""

    def popen(args: Sequence[str], **how: Any) -> Any:
        forks = tuple(args[1:3]) == COMMAND
        return server().popen(args, **how) if forks else subprocess.Popen(args, **how)

    return SimpleNamespace(**{**vars(subprocess), "Popen": popen})


def _streams(*streams: Stream) -> tuple[list[int], list[int | None]]:
    """The other side's standard streams, and our ends of those that are pipes."""
    theirs: list[int] = []
    ours: list[int | None] = []
    for number, stream in enumerate(streams):
        end = None
        if stream == subprocess.PIPE:
            reads, writes = os.pipe()
            fd, end = (reads, writes) if number == 0 else (writes, reads)
        elif stream == subprocess.DEVNULL:
            fd = os.open(os.devnull, os.O_RDWR)
        elif stream == subprocess.STDOUT:
            fd = os.dup(theirs[1])
        else:
            fd = os.dup(number if stream is None else _descriptor(stream))
        theirs.append(fd)
        ours.append(end)
    return theirs, ours


def _descriptor(stream: int | IO[Any]) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


@cache
def fork_server() -> ForkServer:
    """This process's server, started by the first call."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed at the end of this process
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()
        log.seek(0)
        sys.stderr.write(log.read())
        log.close()

    return ForkServer(ours, process.pid)


def start_command(*words: str, **how: Any) -> ForkedProcess:
    """Starts ``searchae WORDS``; ``how`` is that of ``ForkServer.popen``."""
    return fork_server().popen([sys.executable, *COMMAND, *words], **how)


def run_command(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs ``searchae WORDS`` to its end, and returns what it wrote."""
    process = start_command(
        *words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(words, process.wait(), out, err)
