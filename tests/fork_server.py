"""Runs the command line in processes forked from one that has imported everything.

Importing torch and Optuna takes a process two to three seconds of CPU time. The server, a process
of its own that runs one thread and no operation of torch, imports them once; each command is then
a fork of it. The workers that a forked ``tune`` starts are forks as well: of a second server, a
child of that ``tune``, which ends with it as its workers do.

What forks cannot show (what is imported when, the command line in /proc, the environment's effect
on the C library) is tested with ``subprocess``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Never

COMMAND = ("-m", "searchae")
PARENT = "SEARCHAE_PARENT"
LARGEST_REQUEST = 1 << 17
NUMBER = 8  # bytes of a process id or an exit code

Stream = int | IO[Any] | None


# -- the side of the tests


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


# -- the side of the server


@dataclass
class Command:
    """What a forked process is to run."""

    words: list[str]
    cwd: str
    environment: dict[str, str]
    start_new_session: bool
    streams: list[int]

    def run(self, workers: ForkServer) -> None:
        """Runs it in this process, which has the same standing as a new one.

        Args:
            workers: Who forks the workers that it starts.
        """
        for target, fd in enumerate(self.streams):
            os.dup2(fd, target)
            os.close(fd)
        if self.start_new_session:
            os.setsid()
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["searchae", *self.words]

        import numpy as np

        from searchae.__main__ import main
        from searchae.launch import local

        np.random.seed()  # Python's own generator seeds itself after a fork
        vars(local)["subprocess"] = forking_subprocess(lambda: workers)
        code: object = 1
        try:
            main()
        except SystemExit as e:
            code = e.code
        except BaseException:
            traceback.print_exc()
        _exit(code if isinstance(code, int) else 0)


def _exit(code: int) -> Never:
    """Ends this process as Python does, but for freeing all objects: most of half a second."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(connection: socket.socket) -> Command | None:
    """Forks a process for each request until the other end is closed.

    Returns:
        In a forked process the command that it is to run; None in the server itself, at the end.
    """
    running: dict[int, tuple[int, int]] = {}  # process file descriptor -> (pid, status)
    with selectors.DefaultSelector() as selector, connection:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != connection.fileno():
                    selector.unregister(key.fd)
                    _report_end(key.fd, *running.pop(key.fd))
                    continue
                message, fds, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 4)
                if not message:
                    return None
                *streams, status = fds
                pid = os.fork()
                if pid == 0:
                    for fd in (status, *running, *(status for _, status in running.values())):
                        os.close(fd)
                    return Command(**json.loads(message), streams=streams)
                for fd in streams:
                    os.close(fd)
                process = os.pidfd_open(pid)
                running[process] = (pid, status)
                selector.register(process, selectors.EVENT_READ)
                _write_number(status, pid)


def _report_end(process: int, pid: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _write_number(status, code)
    os.close(status)
    os.close(process)


def _write_number(status: int, number: int) -> None:
    # Whoever started the process may have ended.
    with contextlib.suppress(BrokenPipeError):
        os.write(status, number.to_bytes(NUMBER, "little", signed=True))


def import_everything() -> None:
    """Imports all that commands import, without starting a thread."""
    import searchae

    for module in pkgutil.walk_packages(searchae.__path__, "searchae."):
        if not module.name.endswith((".__main__", ".ray_driver")):
            importlib.import_module(module.name)
    for name in (
        *("alembic.command", "alembic.migration", "sqlalchemy.dialects.sqlite"),
        *("psycopg", "sqlalchemy.dialects.postgresql.psycopg", "PIL.PngImagePlugin"),
        *("scipy.stats", "torchmetrics", "torchvision", "plotly.graph_objects"),
    ):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"importing has started {len(threads) - 1} threads"


def main() -> None:
    """Serves, and in a forked process runs its command."""
    import_everything()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever runs the tests
    connection = socket.socket(fileno=int(sys.argv[1]))
    while command := serve(connection):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = os.fork()
        if server:
            theirs.close()
            command.run(ForkServer(ours, server))
        ours.close()
        for fd in command.streams:
            os.close(fd)
        connection = theirs
    os._exit(0)


if __name__ == "__main__":
    main()
