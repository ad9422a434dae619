"""A real Slurm on this machine: one controller and one node, in a folder of their own."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
SYSTEM = "/usr/sbin:/sbin"

# config_overrides: the node may say that it has more cores than the machine, so that several
# jobs run side by side anywhere.
CONFIGURATION = """
ClusterName=searchae-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """Runs while in its ``with`` block; ``SLURM_CONF`` names it then."""

    def __init__(self) -> None:
        self.path = f"{os.environ['PATH']}:{SYSTEM}"
        missing = [program for program in NEEDED if not shutil.which(program, path=self.path)]
        if missing:
            pytest.skip(f"install slurm-wlm and munge to run: {', '.join(missing)} not found")
        # A short path: it holds a socket, whose name is limited to 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm"))
        self.folder.chmod(0o711)  # munged asks that everybody can reach its socket
        self._patch = pytest.MonkeyPatch()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> SlurmCluster:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o400)
        self._patch.setenv("SLURM_CONF", str(self.folder / "slurm.conf"))
        try:
            self._configure()
            self._start_all()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "slurmctld" in self._daemons:
            subprocess.run(("scancel", "--quiet", f"--user={os.getuid()}"), timeout=30, check=False)
            self._wait(lambda: not self.command("squeue", "--noheader"), "jobs that do not end")
        for name in ("slurmd", "slurmctld", "munged"):
            self._end(name)
        self._patch.undo()
        shutil.rmtree(self.folder)

    def command(self, *words: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def requeue(self, task: str) -> None:
        """Has Slurm end a running task and queue it again, as when it is preempted."""
        self.command("scontrol", "requeue", task)
        self._wait(lambda: self._state(task) == "PENDING", f"{task} is not requeued")

    def start_soon(self, task: str) -> None:
        """Spares a requeued task the two minutes that Slurm has it wait.

        Not at once: a node refuses a task that comes back within the second it was requeued in.
        """
        self.command("scontrol", "update", f"JobId={task}", "StartTime=now+2seconds")

    def stop_controller(self) -> None:
        """Running jobs go on."""
        self._end("slurmctld")

    def start_controller(self) -> None:
        """Starts it, with what it remembers, and waits until it answers."""
        self._start("slurmctld", "-D")
        self._wait(self._answers, "the controller does not answer")

    def _state(self, task: str) -> str:
        return self.command("squeue", "--noheader", "--array", f"--job={task}", "--format=%T")

    def _answers(self) -> bool:
        return (
            subprocess.run(("scontrol", "ping"), capture_output=True, check=False).returncode == 0
        )

    def _configure(self) -> None:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            text = CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0],
                controller_port=one.getsockname()[1],
                node_port=two.getsockname()[1],
                user=getpass.getuser(),
                folder=self.folder,
            )
        (self.folder / "slurm.conf").write_text(text)

    def _start_all(self) -> None:
        files = [f"--{k}-file={self.folder}/munge.{k}" for k in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", f"--socket={self.folder}/munge.socket", *files)
        self._wait((self.folder / "munge.socket").exists, "munged does not start")
        self.start_controller()
        self._start("slurmd", "-D")
        self._wait(
            lambda: self.command("sinfo", "--noheader", "--format=%T") == "idle", "no node is idle"
        )

    def _start(self, name: str, *words: str) -> None:
        program = shutil.which(name, path=self.path)
        assert program
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen((program, *words), stdout=out, stderr=out)

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon:
            daemon.terminate()
            daemon.wait(timeout=30)

    def _wait(self, condition: Callable[[], object], otherwise: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline:
                logs = [
                    p.read_text()[-2000:]
                    for k in ("out", "log")
                    for p in self.folder.glob(f"*.{k}")
                ]
                raise AssertionError("\n".join([otherwise, *logs]))
            time.sleep(0.05)
