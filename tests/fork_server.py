"""The process that ``forked_commands`` has its commands forked from.

It has imported everything, runs one thread and has run no operation of torch, so that a fork of it
is as good as a new process.
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
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Never

from tests.forked_commands import LARGEST_REQUEST, NUMBER, ForkServer, forking_subprocess


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
