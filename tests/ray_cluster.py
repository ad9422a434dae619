"""A real Ray cluster for tests: every node a ``ray start`` on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.free_port import free_port


def family(root: int) -> list[int]:
    """A process and all that descend from it, whatever their session."""
    shown = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    children: dict[int, list[int]] = {}
    for line in shown.stdout.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def command(pid: int) -> str:
    """A process's command line; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def mentioning(text: str) -> list[str]:
    """The command lines on this machine that hold a text."""
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    return [line for line in map(command, pids) if text in line]


@dataclass
class RayCluster:
    """A head and more nodes, with ports and folders of their own.

    Args:
        cpus: Of the head.
        environment: Variables of every node on top of this process's.
    """

    cpus: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A short path: it holds sockets, whose names are limited to 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.nodes: list[subprocess.Popen[bytes]] = []
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self._start(
            *("--head", f"--port={port}", f"--num-cpus={self.cpus}"),
            *("--include-dashboard=false", f"--temp-dir={self.folder / 'r'}"),
        )

    def add(self, *, cpus: int) -> None:
        """Starts one more node, and waits until it has."""
        self._start(f"--address={self.address}", f"--num-cpus={cpus}")

    def _start(self, *words: str) -> None:
        """Ray gives up on a busy machine now and then; so would a user type it again."""
        for attempt in range(3):
            log = self.folder / f"start-{len(self.nodes)}-{attempt}.log"
            node = self._launch(log, *words)
            deadline = time.monotonic() + 120
            while node.poll() is None and time.monotonic() < deadline:
                if "Ray runtime started" in log.read_text():
                    self.nodes.append(node)
                    return
                time.sleep(0.1)
            for pid in family(node.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait()
        raise AssertionError(f"Ray does not start: {log.read_text()}")

    def _launch(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "RAY_TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token" if "RAY_AUTH_TOKEN" in self.environment else "disabled",
            # A dead node is noticed in seconds. A slow one is not taken for dead: it answers.
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "500",
            **self.environment,
        }
        (self.folder / "ray").mkdir(exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                    *("--disable-usage-stats", "--num-gpus=0", "--object-store-memory=83886080"),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    *words,
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def workers(self, node: int) -> list[int]:
        """The processes of searchae's workers on a node, 0 being the head."""
        return [p for p in family(self.nodes[node].pid) if "-m searchae worker" in command(p)]

    def kill(self, node: int) -> None:
        """Ends a node as a power cut does: everything on it at once."""
        pids = family(self.nodes[node].pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped, none can start another
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
        self.nodes[node].wait()

    def shut_down(self) -> None:
        """Ends every node, and looks that nothing is left."""
        for node, process in reversed(list(enumerate(self.nodes))):
            if process.poll() is None:
                self.kill(node)
        deadline = time.monotonic() + 20
        while left := mentioning(str(self.folder)):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)
