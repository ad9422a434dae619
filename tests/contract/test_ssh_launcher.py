"""The ssh launcher keeps to the launchers' contract on real hosts, and on hosts that are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from searchae.errors import UserError
from searchae.launch.base import Job
from searchae.launch.ssh import SshLauncher, SshSettings
from searchae.launch.ssh_hosts import Host, HostState
from searchae.storage.url import parse_url
from tests.contract import test_launchers as contract
from tests.contract.test_launchers import SECRET, ends, wait_for
from tests.postgres_server import PostgresServer
from tests.ray_cluster import mentioning
from tests.ssh_hosts import SshHosts

pytestmark = pytest.mark.fleet

MakeJob = Callable[..., Job]
Launch = Callable[[SshSettings], SshLauncher]
LEASE_S = 4.0
# What the contract's test of the environment expects the machine of a job to have.
OURS = "SEARCHAE_TEST_OURS=ours SEARCHAE_TEST_BOTH=ours"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hosts() -> Iterator[SshHosts]:
    with SshHosts(["gpu1", "gpu2"], environment=f"{OURS} PYTHONPATH={ROOT}") as hosts:
        yield hosts


@pytest.fixture(scope="module")
def server(hosts: SshHosts) -> Iterator[PostgresServer]:
    with PostgresServer(listen=[hosts.address]) as server:
        yield server


@pytest.fixture
def settings(hosts: SshHosts, server: PostgresServer, tmp_path: Path) -> SshSettings:
    return SshSettings(
        hosts=[Host("gpu1", workers=2, python=sys.executable), Host("gpu2", workers=1)],
        storage=parse_url(server.url(hosts.address)),
        data_dir=tmp_path / "data",
        artifacts=tmp_path,
        lease_s=LEASE_S,
        period_s=0.05,
        carry_s=0.3,
    )


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Makes launchers, which are stopped after the test."""
    made: list[SshLauncher] = []

    def launch(settings: SshSettings) -> SshLauncher:
        made.append(SshLauncher(settings))
        return made[-1]

    yield launch
    for launcher in made:
        launcher.stop(wait_s=0)


@pytest.fixture
def launcher(settings: SshSettings, launch: Launch) -> SshLauncher:
    return launch(settings)


def started(job: Job) -> str:
    """The first line that a job writes."""
    wait_for(lambda: job.log.exists() and "\n" in job.log.read_text())
    return job.log.read_text().splitlines()[0]


def left_behind(hosts: SshHosts) -> list[str]:
    """What runs on the hosts, and the folders that launchers have left there."""
    found = []
    for name in hosts.names:
        found += [f"{name}: process {pid}" for pid in hosts.processes(name)]
        found += [f"{name}: {path}" for path in hosts.run(name, FOLDERS).split()]
    return found


def nothing_left(hosts: SshHosts, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while left := left_behind(hosts):
        assert time.monotonic() < deadline, left


FOLDERS = "find ~/.cache/searchae/ssh/* 2>/dev/null || true"


@pytest.fixture
def job(tmp_path: Path) -> MakeJob:
    def make(program: str, name: str = "job", **environment: str) -> Job:
        argv = (sys.executable, "-c", program)
        return Job(name, argv, tmp_path / "study" / "logs" / f"{name}.log", environment)

    return make


class TestSshLauncher(contract.ProcessContract):
    @pytest.fixture
    def launcher(self, launcher: SshLauncher) -> SshLauncher:
        return launcher

    def test_it_has_what_the_hosts_have_and_as_many_workers_as_were_asked_for(
        self, launcher: SshLauncher
    ) -> None:
        has = launcher.resources()
        assert (has.cpus, has.gpus) == (2 * len(os.sched_getaffinity(0)), 0)
        assert (has.machines, has.workers) == (2, 3)
        assert not launcher.is_local

    def test_jobs_go_where_most_room_is(
        self, launcher: SshLauncher, job: MakeJob, hosts: SshHosts
    ) -> None:
        program = "import socket, time; print(socket.gethostname(), flush=True); time.sleep(60)"
        jobs = [job(program, name=f"worker-{i}") for i in range(3)]
        launcher.start(jobs)
        assert sorted(map(started, jobs)) == ["gpu1", "gpu1", "gpu2"]
        launcher.stop(wait_s=5)
        nothing_left(hosts)

    def test_a_secret_is_in_no_command_line(self, launcher: SshLauncher, job: MakeJob) -> None:
        worker = job("print('here', flush=True); import time; time.sleep(60)", PASSWORD=SECRET)
        launcher.start([worker])
        started(worker)
        assert not mentioning(SECRET)

    def test_it_can_be_started_again_after_it_was_stopped(
        self, launcher: SshLauncher, exiting: MakeJob
    ) -> None:
        for code in (3, 4):
            launcher.start([exiting(code)])
            assert [e.code for e in ends(launcher)] == [code]
            launcher.stop(wait_s=1)


BEATS = """
import itertools, os, time
for i in itertools.count():
    print(os.uname().nodename, os.getpid(), i, flush=True)
    time.sleep(0.1)
"""


def lines(job: Job) -> list[list[str]]:
    return [line.split() for line in job.log.read_text().splitlines()]


def has_grown(job: Job, beyond: int) -> bool:
    return len(lines(job)) > beyond


def on_host(settings: SshSettings, *names: str, **changes: Any) -> SshSettings:
    chosen = [Host(name, workers=1, python=sys.executable) for name in names]
    return replace(settings, hosts=chosen, **changes)


class TestLostHosts:
    def test_a_connection_that_comes_back_within_the_lease_changes_nothing(
        self, settings: SshSettings, launch: Launch, hosts: SshHosts, job: MakeJob
    ) -> None:
        launcher, beating = launch(on_host(settings, "gpu1", lease_s=60)), job(BEATS)
        launcher.start([beating])
        first = started(beating)
        for _ in range(2):
            before = len(lines(beating))
            hosts.end_sessions("gpu1")
            wait_for(partial(has_grown, beating, before + 20))
        assert launcher.poll() == []
        launcher.stop(wait_s=5)
        told = lines(beating)
        assert {pid for _, pid, _ in told} == {first.split()[1]}, "the same process"
        assert [int(i) for *_, i in told] == list(range(len(told))), "all of it, once"
        nothing_left(hosts)

    def test_the_jobs_of_a_host_that_is_lost_end_and_run_elsewhere_or_once_it_is_back(
        self, settings: SshSettings, launch: Launch, hosts: SshHosts, job: MakeJob
    ) -> None:
        launcher = launch(on_host(settings, "gpu1", "gpu2"))
        jobs = {name: job(BEATS, name=name) for name in ("one", "two")}
        launcher.start(list(jobs.values()))
        where = {started(j).split()[0]: name for name, j in jobs.items()}
        assert where.keys() == {"gpu1", "gpu2"}
        hosts.cut_power("gpu1")
        (ended,) = ends(launcher)
        assert (ended.job.name, ended.code) == (where["gpu1"], -signal.SIGKILL)
        launcher.start([ended.job])
        time.sleep(2)
        assert (launcher.poll(), launcher.alive()) == ([], 2), "it waits: the other host is full"
        before = len(lines(ended.job))
        hosts.start("gpu1")
        wait_for(lambda: not launcher.poll() and len(lines(ended.job)) > before)
        launcher.stop(wait_s=5)
        nothing_left(hosts)

    def test_a_host_that_is_cut_off_ends_its_jobs_by_itself(
        self, settings: SshSettings, launch: Launch, hosts: SshHosts, job: MakeJob
    ) -> None:
        launcher, beating = launch(on_host(settings, "gpu1")), job(BEATS)
        launcher.start([beating])
        started(beating)
        hosts.plug("gpu1", into=False)
        try:
            wait_for(lambda: not hosts.processes("gpu1", "itertools"), 60)
            (ended,) = ends(launcher)
            assert ended.code == -signal.SIGKILL
        finally:
            hosts.plug("gpu1", into=True)
        launcher.stop(wait_s=0)
        nothing_left(hosts)

    def test_nothing_runs_on_after_the_launcher_was_killed(
        self, settings: SshSettings, launch: Launch, hosts: SshHosts, job: MakeJob, tmp_path: Path
    ) -> None:
        program = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from searchae.launch.base import Job\n"
            "from searchae.launch.ssh import SshLauncher, SshSettings\n"
            "from searchae.launch.ssh_hosts import parse_hosts\n"
            "from searchae.storage.url import parse_url\n"
            f"launcher = SshLauncher(SshSettings(hosts=parse_hosts('gpu1,gpu2'), lease_s={LEASE_S},"
            f"    storage=parse_url({settings.storage.render_as_string(hide_password=False)!r}),"
            f"    data_dir=Path('data'), artifacts=Path('a')))\n"
            f"argv = (sys.executable, '-c', {BEATS!r})\n"
            "jobs = [Job(n, argv, Path('a/s/logs') / n) for n in 'xy']\n"
            "launcher.start(jobs)\n"
            "while True: time.sleep(1)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
        logs = [tmp_path / "a" / "s" / "logs" / name for name in "xy"]
        wait_for(lambda: all(log.exists() and log.read_text().count("\n") > 5 for log in logs))
        assert all(hosts.processes(name, "itertools") for name in hosts.names)
        process.kill()
        process.wait()
        nothing_left(hosts, 60)
        wait_for(lambda: not mentioning("ControlPersist"), 90)


class TestChecks:
    @pytest.fixture
    def states(self) -> list[HostState]:
        return []

    def refusal(self, settings: SshSettings, launch: Launch, states: list[HostState]) -> str:
        launcher = launch(replace(settings, report=states.extend))
        with pytest.raises(UserError) as refused:
            launcher.resources()
        return str(refused.value)

    def test_every_host_that_does_not_fit_is_named_with_what_to_do(
        self, settings: SshSettings, launch: Launch, tmp_path: Path, states: list[HostState]
    ) -> None:
        (tmp_path / "old" / "searchae").mkdir(parents=True)
        (tmp_path / "old" / "searchae" / "__init__.py").write_text("__version__ = '0.0.9'")
        old = tmp_path / "old" / "python"
        old.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "old"} exec {sys.executable} "$@"\n')
        old.chmod(0o755)
        two = [Host("gpu1", python=str(old)), Host("gpu2"), Host("nosuchhost.invalid")]
        said = self.refusal(replace(settings, hosts=two), launch, states)
        first, version, unreachable = said.splitlines()
        assert first == (
            "--hosts: 2 of 3 hosts cannot run workers; --skip-unfit goes on without them"
        )
        assert version.startswith("gpu1: has searchae 0.0.9, this is ")
        assert "--install" in version
        assert unreachable.startswith("nosuchhost.invalid: ssh: Could not resolve hostname")
        assert [s.fits for s in states] == [False, True, False]

    def test_with_skip_unfit_the_others_are_used(
        self, settings: SshSettings, launch: Launch
    ) -> None:
        two = [Host("gpu1", python="/no/such/python"), Host("gpu2", workers=3)]
        launcher = launch(replace(settings, hosts=two, skip_unfit=True))
        has = launcher.resources()
        assert (has.machines, has.workers) == (1, 3)

    def test_a_database_of_this_machine_alone_needs_a_tunnel(
        self, settings: SshSettings, launch: Launch, server: PostgresServer, states: list[HostState]
    ) -> None:
        local = replace(on_host(settings, "gpu1"), storage=parse_url(server.url()))
        said = self.refusal(local, launch, states)
        assert "gpu1: cannot reach the database: it is on this machine; add --tunnel" in said

    def test_a_worker_reaches_the_database_through_a_tunnel_also_after_a_reconnection(
        self,
        settings: SshSettings,
        launch: Launch,
        server: PostgresServer,
        hosts: SshHosts,
        job: MakeJob,
    ) -> None:
        program = (
            "import os, time, sqlalchemy as sa\n"
            "from searchae.storage.url import parse_url\n"
            "url = parse_url(os.environ['SEARCHAE_STORAGE'])\n"
            "engine = sa.create_engine(url, poolclass=sa.pool.NullPool)\n"
            "while True:\n"
            "    try:\n"
            "        with engine.connect() as c:\n"
            "            print(c.scalar(sa.text('SELECT 41 + 1')), flush=True)\n"
            "    except sa.exc.OperationalError: pass\n"
            "    time.sleep(0.1)\n"
        )
        local = replace(on_host(settings, "gpu1"), storage=parse_url(server.url()), tunnel=True)
        launcher = launch(replace(local, lease_s=60))
        asking = job("import searchae\n" + program, SEARCHAE_STORAGE=server.url())
        launcher.start([asking])
        assert started(asking) == "42"
        hosts.end_sessions("gpu1")
        before = len(lines(asking))
        wait_for(lambda: len(lines(asking)) > before + 10)
        launcher.stop(wait_s=5)
        nothing_left(hosts)

    def test_sqlite_serves_one_machine(self, settings: SshSettings, launch: Launch) -> None:
        with pytest.raises(UserError, match="--storage managed"):
            SshLauncher(replace(settings, storage=parse_url("sqlite:///x.db")))
