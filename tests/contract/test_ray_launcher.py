"""The Ray launcher keeps to the launchers' contract on a real cluster, and says what it lacks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from searchae.errors import SearchaeError, UserError
from searchae.launch.base import Job
from searchae.launch.ray import RayLauncher
from tests.contract import test_launchers
from tests.contract.test_launchers import SECRET, ends, wait_for
from tests.ray_cluster import RayCluster, mentioning

pytestmark = pytest.mark.fleet

MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    # What the contract's test of the environment expects the machine of a job to have.
    ours = {"SEARCHAE_TEST_OURS": "ours", "SEARCHAE_TEST_BOTH": "ours"}
    cluster = RayCluster(cpus=4, environment=ours)
    yield cluster
    cluster.shut_down()


def started(job: Job) -> str:
    """The first line that a job writes."""
    wait_for(lambda: job.log.exists() and "\n" in job.log.read_text())
    return job.log.read_text().splitlines()[0]


class TestRayLauncher(test_launchers.ProcessContract):
    @pytest.fixture
    def launcher(self, cluster: RayCluster) -> Iterator[RayLauncher]:
        launcher = RayLauncher(cluster.address, late_s=0.5)
        yield launcher
        launcher.stop(wait_s=0)

    def test_it_has_what_the_cluster_has(self, launcher: RayLauncher) -> None:
        has = launcher.resources()
        assert (has.cpus, has.gpus, has.machines) == (4, 0, 1)

    def test_a_job_without_room_is_alive_waits_and_is_spoken_of_once(
        self, launcher: RayLauncher, running: MakeJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        job = running(name="large")
        launcher.start([Job(job.name, job.argv, job.log, cpus=5, gpus=0.5)])
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert launcher.poll() == []
            assert launcher.alive() == 1
            time.sleep(0.1)
        assert [r.getMessage() for r in caplog.records] == [
            "large: waiting for 5 CPU, 0.5 GPU on one Ray node; the cluster has 4 CPU, 0 GPU free"
        ]
        launcher.stop(wait_s=30)
        assert [e.code for e in launcher.poll()] == [-signal.SIGTERM]

    def test_a_job_whose_actor_dies_has_died_too(
        self, launcher: RayLauncher, job: MakeJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        worker = job("import os, time; print(os.getppid(), flush=True); time.sleep(60)")
        launcher.start([worker])
        os.kill(int(started(worker)), signal.SIGKILL)
        (ended,) = ends(launcher)
        assert (ended.job, ended.code) == (worker, -signal.SIGKILL)
        assert "job: lost: The actor died" in caplog.text

    def test_a_job_s_parent_is_its_actor_and_it_is_told_so(
        self, launcher: RayLauncher, job: MakeJob
    ) -> None:
        program = "import os; print(os.getppid() == int(os.environ['SEARCHAE_PARENT']))"
        worker = job(program, SEARCHAE_PARENT="1")
        launcher.start([worker])
        ends(launcher)
        assert worker.log.read_text() == "True\n"

    def test_a_secret_is_in_no_command_line_and_in_none_of_ray_s_files(
        self, launcher: RayLauncher, cluster: RayCluster, job: MakeJob
    ) -> None:
        worker = job("print('here', flush=True); import time; time.sleep(60)", PASSWORD=SECRET)
        launcher.start([worker])
        started(worker)
        assert not mentioning(SECRET)
        launcher.stop(wait_s=0)
        files = [p for p in (cluster.folder / "r").rglob("*") if p.is_file()]
        assert len(files) > 10
        assert not [p for p in files if SECRET.encode() in p.read_bytes()]

    def test_nodes_run_jobs_with_a_python_of_their_own(
        self, launcher: RayLauncher, job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = job("import sys; print(sys.executable)")
        launcher.resources()  # connects, which needs this machine's Python
        real = sys.executable
        monkeypatch.setattr(sys, "executable", "/only/on/the/driver/python")
        launcher.start([Job(worker.name, (sys.executable, *worker.argv[1:]), worker.log)])
        ends(launcher)
        assert worker.log.read_text().strip() == real

    def test_a_command_that_cannot_run_says_so_in_the_job_s_log(
        self, launcher: RayLauncher, job: MakeJob
    ) -> None:
        missing = Job("missing", ("/no/such/program",), job("").log)
        launcher.start([missing])
        (ended,) = ends(launcher)
        assert ended.code == 2
        assert "No such file or directory: '/no/such/program'" in missing.log.read_text()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nonsense", "not an address: use HOST:PORT, auto, or local"),
        ("127.0.0.1:1", "nobody listens there"),
        ("nosuchhost.invalid:6379", "nobody listens there"),
        ("http://[::1", "not an address"),
    ],
)
def test_an_address_without_a_cluster_is_the_user_s_mistake(address: str, told: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=told) as refused:
        RayLauncher(address).resources()
    assert str(refused.value).startswith(f"--ray-address {address}: ")
    assert time.monotonic() - began < 30


def test_ray_address_names_the_cluster_of_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nosuchhost.invalid:6379")
    with pytest.raises(UserError, match=r"^--ray-address nosuchhost\.invalid:6379: "):
        RayLauncher().resources()


def test_without_ray_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from searchae.errors import UserError\n"
        "from searchae.launch.ray import RayLauncher\n"
        "try: RayLauncher()\n"
        "except UserError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        "--launcher ray: needs Ray: pip install '.[ray]' in searchae's source folder\n"
    ), done.stderr


def test_a_cluster_of_our_own_lets_nobody_else_in_and_ends_with_the_search(
    tmp_path: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(cluster.folder / "own"))
    (cluster.folder / "own").mkdir()
    launcher = RayLauncher("local")
    try:
        assert launcher.resources().cpus == len(os.sched_getaffinity(0))
        job = Job("job", (sys.executable, "-S", "-c", "print('ran')"), tmp_path / "job.log")
        launcher.start([job])
        assert [e.code for e in ends(launcher)] == [0]
        raylets = [c for c in mentioning(str(cluster.folder / "own")) if "/raylet " in c]
        assert len(raylets) == 1
        (head,) = set(re.findall(r"--gcs-address=(\S+)", raylets[0]))
        monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "1")  # Ray would try 20 times
        with pytest.raises(UserError, match="asks for a token; set RAY_AUTH_TOKEN or"):
            RayLauncher(head).resources()
    finally:
        launcher.stop(wait_s=5)
    assert job.log.read_text() == "ran\n"
    assert not mentioning(str(cluster.folder / "own"))


def test_a_cluster_whose_head_dies_is_told_and_its_jobs_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3")  # for nodes and driver
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    cluster = RayCluster(cpus=0, environment={"RAY_AUTH_TOKEN": "0123456789abcdef" * 4})
    launcher = RayLauncher(cluster.address)
    try:
        cluster.add(cpus=1)
        program = "import time; print('here', flush=True); time.sleep(60)"
        job = Job("job", (sys.executable, "-S", "-c", program), tmp_path / "job.log")
        launcher.start([job])
        started(job)
        cluster.kill(0)

        with pytest.raises(SearchaeError, match=r"Ray cluster at .* is gone: run the same"):
            wait_for(launcher.poll)
        assert launcher.alive() == 0
        assert [(e.job, e.code) for e in launcher.poll()] == [(job, -signal.SIGKILL)]
        launcher.stop(wait_s=30)
        assert launcher.poll() == []
    finally:
        cluster.shut_down()


class TestRunner:
    """What an actor does on a node that is not fit for the job."""

    @pytest.fixture
    def asked(self, tmp_path: Path) -> dict[str, object]:
        (tmp_path / "job.log").touch()
        return {"argv": ["", "-c", ""], "environment": {}, "log": str(tmp_path / "job.log")}

    def test_another_version_is_refused(self, asked: dict[str, object]) -> None:
        from searchae.launch.ray_driver import Runner

        code, _, said = Runner().run(asked, "0.0.7")
        assert code == 2
        assert "it has searchae " in said
        assert "this is 0.0.7; install the same" in said

    def test_a_folder_that_is_not_shared_is_named(
        self, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from searchae.launch import ray_driver

        monkeypatch.setattr(ray_driver, "SHARED_FOLDER_S", 0.1)
        code, _, said = ray_driver.Runner().run({**asked, "log": "/no/such/job.log"}, "0.1.0")
        assert code == 2
        assert "no /no/such/job.log; --artifacts must be a folder that all nodes share" in said

    def test_a_job_that_is_stopped_before_it_starts_never_does(
        self, asked: dict[str, object]
    ) -> None:
        from searchae import __version__
        from searchae.launch.ray_driver import Runner

        runner = Runner()
        runner.signal(signal.SIGTERM)
        assert runner.run(asked, __version__) == (-signal.SIGTERM, 0.0, "")
