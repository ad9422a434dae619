"""Runs workers on hosts that the user reaches by ssh."""

from __future__ import annotations

import atexit
import logging
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sqlalchemy.engine import URL

from searchae.config import FACTORY_VARIABLE, find_factory
from searchae.errors import UserError
from searchae.files import ArtifactPath, RemotePath, files_here, library_of
from searchae.launch.base import Exit, Job, Resources
from searchae.launch.logs import created_log
from searchae.launch.ssh_checks import Checks
from searchae.launch.ssh_connection import Connection, HostError, control_folder, require_ssh
from searchae.launch.ssh_database import tunnel_target, tunnel_url
from searchae.launch.ssh_files import Carrier, send_images
from searchae.launch.ssh_hosts import Host, HostState
from searchae.launch.ssh_install import environment_name, install
from searchae.launch.ssh_link import Link, Running
from searchae.storage import is_sqlite

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds without a connection after which a host ends its workers."""
KILLED_S = 15.0
"""Seconds that ``stop`` waits for workers that were killed."""
WANTED_VARIABLE = "SEARCHAE_WANTED"
"""The environment variable with the folder in which a worker asks for a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class SshSettings:
    """How the ssh launcher runs workers.

    Attributes:
        hosts: The hosts.
        storage: The database.
        data_dir: The data folder on this machine.
        artifacts: The artifact folder: on this machine, or in an object store.
        workers_per_gpu: Workers that share a GPU of a host for which no number was given.
        tunnel: Whether hosts that cannot reach the database get a tunnel to it.
        install: Whether searchae is installed on hosts that do not have this version.
        skip_unfit: Whether hosts that do not fit are left out; they are an error otherwise.
        report: Shows the hosts after the check.
        note: Shows a line.
        lease_s: Seconds without a connection after which a host ends its workers.
        period_s: Seconds between two exchanges with a host.
        carry_s: Seconds between two copies of new checkpoints to this machine.
    """

    hosts: Sequence[Host]
    storage: URL
    data_dir: Path
    artifacts: ArtifactPath
    workers_per_gpu: int = 1
    tunnel: bool = False
    install: bool = False
    skip_unfit: bool = False
    report: Callable[[Sequence[HostState]], None] = field(default=lambda _: None, repr=False)
    note: Callable[[str], None] = field(default=lambda _: None, repr=False)
    lease_s: float = LEASE_S
    period_s: float = 1.0
    carry_s: float = 5.0


class SshLauncher:
    """Runs each job as a process on one of the hosts.

    On each host a keeper runs the jobs. It outlives the connection, and ends them when it has not
    heard of the launcher for ``lease_s`` seconds. A host that comes back before goes on; the jobs
    of one that does not end with code -9, and are run elsewhere if there is room, else when it is
    back. Output comes home into each job's log; folders need not be shared.

    Args:
        settings: How to run them.

    Raises:
        UserError: The database serves this machine only, or there is no ssh.
    """

    is_local = False

    def __init__(self, settings: SshSettings) -> None:
        if is_sqlite(settings.storage):
            raise UserError(
                "--storage: SQLite serves the workers of one machine; for hosts use "
                "--storage managed, or postgresql://user@host/database"
            )
        require_ssh()
        self._settings = settings
        self._data = settings.data_dir.resolve()
        self._artifacts = files_here(settings.artifacts).resolve()
        self._in_store = isinstance(settings.artifacts, RemotePath)
        self._run = f"run-{secrets.token_hex(8)}"
        self._control: Path | None = None
        self._connections: dict[str, Connection] = {}
        self._states: list[HostState] = []
        self._links: list[Link] = []
        self._carrier: Carrier | None = None
        self._room: dict[str, int] = {}
        self._ports: dict[str, int] = {}
        self._pending: list[Job] = []
        self._ended: list[Exit] = []
        self._count, self._has_warned = 0, False

    def resources(self) -> Resources:
        """Checks the hosts, once, and returns what they have.

        Raises:
            UserError: A host does not fit, or none does.
        """
        self._check()
        return Resources(
            cpus=sum(s.found["cores"] for s in self._states),
            gpus=sum(s.found["gpus"] for s in self._states),
            machines=len(self._states),
            workers=sum(self._workers(s) for s in self._states),
        )

    def send_images(self, folder: Path, note: Callable[[str], None]) -> None:
        """Sends decoded images to the hosts; see ``ssh_files.send_images``.

        Raises:
            UserError: A host does not fit, or has no room for them.
        """
        self._check()
        reached = [(s, self._connections[s.host.target]) for s in self._states]
        send_images(reached, folder, note)

    def collect_files(self) -> None:
        """Brings home what workers have written and has not come yet."""
        if self._carrier is not None:
            self._carrier.collect()

    def start(self, jobs: Sequence[Job]) -> None:
        """Starts jobs where there is most room; each waits if there is none.

        Raises:
            UserError: A host does not fit.
            ArtifactsError: A log cannot be written.
        """
        self._check()
        jobs = [created_log(job) for job in jobs]
        if not self._links:
            self._connect()
        assert self._carrier is not None
        self._carrier.studies |= {job.log.parent.parent.name for job in jobs}
        self._pending += jobs
        if not any(link.is_lost for link in self._links):
            self._make_room(self.alive())
        self._place_pending()

    def poll(self) -> list[Exit]:
        """Returns the jobs that have ended since the last call."""
        self._gather()
        self._place_pending()
        ended, self._ended = self._ended, []
        return ended

    def alive(self) -> int:
        """Returns the number of jobs that run or wait for a host."""
        return len(self._pending) + sum(len(link.running()) for link in self._links)

    def stop(self, *, wait_s: float) -> None:
        """Stops every job, brings its files home, and leaves nothing on the hosts.

        Jobs get SIGTERM, and SIGKILL if they are left after ``wait_s`` seconds. On hosts that
        cannot be reached they end by themselves.
        """
        self._ended += [Exit(job, -signal.SIGTERM, 0.0) for job in self._pending]
        self._pending.clear()
        for number, patience_s in ((signal.SIGTERM, wait_s), (signal.SIGKILL, KILLED_S)):
            if any(link.running() for link in self._links):
                self._tell(number, patience_s)
        if self._carrier is not None:
            self._carrier.finish()
        away = [link.name for link in self._links if not link.is_connected]
        for link in self._links:
            link.finish(KILLED_S)
        if away:
            log.warning(
                "%s cannot be reached: what runs there ends by itself within %g s",
                *(", ".join(away), self._settings.lease_s),
            )
        self._gather()
        self._links, self._carrier = [], None
        self._disconnect()

    # -- hosts

    def _check(self) -> None:
        if self._states:
            return
        self._open_control()
        needs = [module] if (module := library_of(self._settings.artifacts)) else []
        install_there = partial(install, note=self._settings.note, further=needs)
        checks = Checks(
            storage=self._settings.storage,
            folders={"data": self._data, "artifacts": self._artifacts},
            tunnel=self._settings.tunnel,
            venv=environment_name(),
            install=install_there if self._settings.install else None,
            needs=needs,
        )
        self._settings.note(f"checking {len(self._settings.hosts)} hosts ...")
        states = checks.run(self._settings.hosts, self._connections)
        self._settings.report(states)
        unfit = [s for s in states if not s.fits]
        lines = [f"{s.host.target}: {fault}" for s in unfit for fault in s.faults]
        if unfit and (len(unfit) == len(states) or not self._settings.skip_unfit):
            what = f"{len(unfit)} of {len(states)} hosts cannot run workers"
            rest = "" if len(unfit) == len(states) else "; --skip-unfit goes on without them"
            raise UserError(f"--hosts: {what}{rest}", *lines)
        for line in lines:
            self._settings.note(f"left out: {line}")
        self._states = [replace(s, uses_store=self._in_store) for s in states if s.fits]

    def _open_control(self) -> None:
        if self._control is None:
            self._control = control_folder()
            atexit.register(self._disconnect)
            self._connections = {
                h.target: Connection(h.target, self._control) for h in self._settings.hosts
            }

    def _disconnect(self) -> None:
        if self._control is not None:
            for connection in self._connections.values():
                connection.close()
            shutil.rmtree(self._control, ignore_errors=True)
            self._control = None
            atexit.unregister(self._disconnect)

    def _connect(self) -> None:
        """Opens a link to each host; a launcher that was stopped can be started again."""
        self._open_control()
        self._links = [self._link(state) for state in self._states]
        self._carrier = Carrier(
            self._links, self._artifacts, run=self._run, period_s=self._settings.carry_s
        )
        for link in self._links:
            link.start()
        self._carrier.start()

    def _link(self, state: HostState) -> Link:
        return Link(
            state,
            self._connections[state.host.target],
            run=self._run,
            lease_s=self._settings.lease_s,
            period_s=self._settings.period_s,
            on_connect=self._open_tunnel,
        )

    def _open_tunnel(self, link: Link) -> None:
        """Opens the tunnel that a host needs, after each connection."""
        port = self._ports.get(link.name, link.state.port)
        if not port:
            return
        target = tunnel_target(self._settings.storage)
        try:
            self._ports[link.name] = link.connection.forward(port, target)
        except HostError:
            # The port of a connection that was lost stays taken until the host notices; workers
            # that run there know no other one.
            if link.running():
                raise
            self._ports[link.name] = link.connection.forward(0, target)

    def _workers(self, state: HostState) -> int:
        is_shared = state.host.workers is None and state.found["gpus"]
        return state.workers * (self._settings.workers_per_gpu if is_shared else 1)

    # -- jobs

    def _make_room(self, jobs: int) -> None:
        """Shares out so many jobs, more than the hosts' numbers say if there are more."""
        self._room = self._room or {s.host.target: self._workers(s) for s in self._states}
        while sum(self._room.values()) < jobs:
            fullest = min(self._states, key=lambda s: self._room[s.host.target] / self._workers(s))
            self._room[fullest.host.target] += 1

    def _place_pending(self) -> None:
        """Hands waiting jobs to the hosts with most room."""
        while self._pending:
            free = {
                link.name: self._room[link.name] - len(link.running())
                for link in self._links
                if not link.is_lost
            }
            link = max(
                (li for li in self._links if free.get(li.name, 0) > 0),
                key=lambda li: (li.is_connected, free[li.name] / self._room[li.name]),
                default=None,
            )
            if link is None:
                if not self._has_warned and all(li.is_lost for li in self._links):
                    log.warning("no host can be reached; workers start when one is back")
                    self._has_warned = True
                return
            self._has_warned = False
            link.start_job(self._running(self._pending.pop(0), link))

    def _running(self, job: Job, link: Link) -> Running:
        self._count += 1
        state, environment = link.state, dict(job.environment)
        gpu = self._least_used_gpu(link) if job.gpus else None
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        if state.port and "SEARCHAE_STORAGE" in environment:
            port = self._ports.get(link.name, state.port)
            there = tunnel_url(self._settings.storage, port)
            environment["SEARCHAE_STORAGE"] = there.render_as_string(hide_password=False)
        run = f"{state.found['home']}/ssh/{self._run}"
        if not all(s.shares("artifacts") for s in self._states):
            environment[WANTED_VARIABLE] = f"{run}/wanted"
        files = _take_own_net(environment, run)
        places = {sys.executable: state.found["python"], str(self._data): state.found["data"]}
        if not state.shares("artifacts"):
            places[str(self._artifacts)] = f"{run}/artifacts"
        return Running(
            id=f"{job.name}-{self._count}",
            job=job,
            argv=[places.get(word, word) for word in job.argv],
            environment=environment,
            files=files,
            gpu=gpu,
        )

    def _least_used_gpu(self, link: Link) -> int | None:
        used = [running.gpu for running in link.running()]
        return min(range(link.state.found["gpus"]), key=used.count, default=None)

    def _gather(self) -> None:
        for link in self._links:
            self._ended += link.take_ended()

    def _tell(self, number: int, patience_s: float) -> None:
        for link in self._links:
            link.tell(number)
        deadline = time.monotonic() + patience_s
        while any(link.running() for link in self._links) and time.monotonic() < deadline:
            time.sleep(min(0.05, self._settings.period_s))


def _take_own_net(environment: dict[str, str], run: str) -> dict[str, bytes]:
    """Returns the file that builds a net of the user's own; the environment names it on the host.

    A module of an installed package has to be installed there.

    Args:
        environment: A worker's variables.
        run: The launcher's folder on the host.

    Raises:
        SpecError: There is no such file.
    """
    if not environment.get(FACTORY_VARIABLE):
        return {}
    factory = find_factory(environment[FACTORY_VARIABLE])
    if factory.module:
        return {}
    name = f"nets/{factory.sha256}/{factory.path.name}"
    environment[FACTORY_VARIABLE] = f"{run}/{name}:{factory.function}"
    return {name: factory.source}
