"""The ssh launcher keeps to the launchers' contract on real hosts, and on hosts that are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

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
def launcher(settings: SshSettings) -> Iterator[SshLauncher]:
    launcher = SshLauncher(settings)
    yield launcher
    launcher.stop(wait_s=0)


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
