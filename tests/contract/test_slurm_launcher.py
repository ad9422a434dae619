"""The launcher on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from searchae.errors import UserError
from searchae.launch import slurm
from searchae.launch.base import Exit, Job
from searchae.launch.request import Request
from searchae.launch.slurm import SlurmLauncher
from searchae.launch.slurm_queue import Queue
from searchae.storage.url import parse_url
from searchae.study.summary import Summary, TrialRow
from searchae.tuning.run import tune
from tests.contract import test_launchers as contract
from tests.contract.test_launchers import SECRET, ends, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.fleet, pytest.mark.usefixtures("cluster")]

TRIALS = 5

LIVES_TWICE = """
import pathlib, sys, time
marker = pathlib.Path(sys.argv[1])
if marker.exists():
    print('second life')
    raise SystemExit(7)
marker.touch()
print('first life', flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster() as cluster:
        yield cluster


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[SlurmLauncher]:
    launcher = SlurmLauncher(tmp_path / "my slurm", {}, poll_s=0.2)
    yield launcher
    launcher.stop(wait_s=0)


def task(index: int = 0) -> str:
    """Slurm's name for a task of the one array that is queued."""
    rows = Queue().rows()
    assert rows
    assert len({row.array for row in rows}) == 1
    return f"{rows[0].array}_{index}"


def secrets(folder: Path) -> list[Path]:
    return list(folder.rglob("*.env"))


class TestSlurmLauncher(contract.ProcessContract):
    @pytest.fixture
    def launcher(self, launcher: SlurmLauncher) -> SlurmLauncher:
        return launcher

    def test_it_leaves_the_number_of_workers_to_the_queue(self, launcher: SlurmLauncher) -> None:
        assert launcher.resources() is None
        assert not launcher.is_local

    def test_jobs_of_one_call_are_one_array_each_with_its_own_log_and_code(
        self, launcher: SlurmLauncher, job: Callable[..., Job]
    ) -> None:
        jobs = [job(f"print('I am {i}'); raise SystemExit({i})", f"job-{i}") for i in range(3)]
        launcher.start(jobs)
        task()
        found = {e.job.name: e.code for e in ends(launcher, 3)}
        assert found == {"job-0": 0, "job-1": 1, "job-2": 2}
        assert [j.log.read_text() for j in jobs] == [f"I am {i}\n" for i in range(3)]

    def test_a_requeued_task_is_the_same_job_and_ends_once(
        self, launcher: SlurmLauncher, cluster: SlurmCluster, tmp_path: Path
    ) -> None:
        log = tmp_path / "job.log"
        program = (sys.executable, "-S", "-c", LIVES_TWICE, str(tmp_path / "marker"))
        launcher.start([Job("job", program, log)])
        wait_for(lambda: "first life" in log.read_text())
        cluster.requeue(task())
        time.sleep(0.3)
        assert (launcher.poll(), launcher.alive()) == ([], 1)
        cluster.start_soon(task())
        (ended,) = ends(launcher)
        assert ended.code == 7, "not the code of its first life"
        assert log.read_text() == "first life\nsecond life\n"
        assert (launcher.poll(), launcher.alive()) == ([], 0)

    def test_a_job_cancelled_by_another_hand_is_told_with_slurm_s_words_in_its_log(
        self, launcher: SlurmLauncher, cluster: SlurmCluster, running: Callable[..., Job]
    ) -> None:
        started = running(name="job")
        launcher.start([started])
        wait_for(lambda: "RUNNING" in cluster.command("squeue", "--format=%T"))
        cluster.command("scancel", "--signal=KILL", "--full", task())
        (ended,) = ends(launcher)
        assert ended.code < 0
        assert "CANCELLED" in started.log.read_text()

    def test_slurm_s_words_are_found_in_a_folder_of_any_name(
        self, cluster: SlurmCluster, tmp_path: Path, running: Callable[..., Job]
    ) -> None:
        folder = tmp_path / "50% of %a, 'one' \"two\" #3"
        folder.mkdir()
        launcher = SlurmLauncher(folder / "slurm", {}, poll_s=0.2)
        started = running(name="job")
        launcher.start([started])
        wait_for(lambda: "RUNNING" in cluster.command("squeue", "--format=%T"))
        cluster.command("scancel", "--signal=KILL", "--full", task())
        ends(launcher)
        assert "CANCELLED" in started.log.read_text()

    def test_a_job_that_waits_is_alive_and_stop_cancels_it(
        self, cluster: SlurmCluster, tmp_path: Path, running: Callable[..., Job]
    ) -> None:
        launcher = SlurmLauncher(tmp_path, {"begin": "now+1hour"}, poll_s=0.2)
        launcher.start([running(name="job")])
        assert (launcher.poll(), launcher.alive()) == ([], 1)
        launcher.stop(wait_s=5)
        assert (launcher.alive(), cluster.command("squeue", "--noheader")) == (0, "")
        assert [e.job.name for e in launcher.poll()] == ["job"]

    def test_a_worker_is_told_once_to_leave_when_its_task_is_cancelled(
        self, launcher: SlurmLauncher, cluster: SlurmCluster, job: Callable[..., Job]
    ) -> None:
        """The second time it would not wait for its trial to be put back."""
        program = (
            "import signal, sys, time; told = [];"
            "signal.signal(signal.SIGTERM, lambda *_: told.append(1));"
            "print('ready', flush=True)\n"
            "while not told: time.sleep(.01)\n"
            "time.sleep(1); print(len(told)); sys.exit(130)"
        )
        started = job(program)
        launcher.start([started])
        wait_for(lambda: "ready" in started.log.read_text())
        cluster.command("scancel", task())
        (ended,) = ends(launcher)
        assert (ended.code, started.log.read_text()) == (130, "ready\n1\n")

    def test_the_warning_before_the_time_limit_reaches_the_worker(
        self, launcher: SlurmLauncher, cluster: SlurmCluster, job: Callable[..., Job]
    ) -> None:
        program = (
            "import signal, sys, time;"
            "signal.signal(signal.SIGTERM, lambda *_: (print('put back'), sys.exit(130)));"
            "print('ready', flush=True); time.sleep(60)"
        )
        started = job(program)
        launcher.start([started])
        wait_for(lambda: "ready" in started.log.read_text())
        # What Slurm does then, without the minutes until it does.
        cluster.command("scancel", "--signal=USR1", "--batch", task())
        (ended,) = ends(launcher)
        assert (ended.code, started.log.read_text()) == (130, "ready\nput back\n")

    def test_a_secret_is_nowhere_but_in_one_file_and_that_goes_with_the_job(
        self,
        launcher: SlurmLauncher,
        cluster: SlurmCluster,
        job: Callable[..., Job],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SEARCHAE_STORAGE", SECRET)
        program = (
            "import os, time; print(os.environ['SEARCHAE_STORAGE'], flush=True); time.sleep(9)"
        )
        started = job(program, SEARCHAE_STORAGE=SECRET)
        launcher.start([started])
        wait_for(lambda: SECRET in started.log.read_text())
        found = subprocess.run(
            ("grep", "--recursive", "--files-with-matches", SECRET, cluster.folder, tmp_path),
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()
        assert sorted(found) == sorted([str(started.log), *map(str, secrets(tmp_path))])
        assert SECRET not in cluster.command("scontrol", "show", "job", task())
        launcher.stop(wait_s=5)
        assert not secrets(tmp_path)

    def test_defaults_in_the_environment_change_nothing(
        self, exiting: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "SBATCH_ARRAY_INX": "5-9",
            "SBATCH_PARTITION": "nosuch",
            "SBATCH_EXPORT": "NONE",
            "SQUEUE_STATES": "COMPLETED",
            "SQUEUE_FORMAT": "%u",
        }.items():
            monkeypatch.setenv(name, value)
        launcher = SlurmLauncher(tmp_path / "other", {"partition": "main"}, poll_s=0.2)
        launcher.start([exiting(3)])
        assert [e.code for e in ends(launcher)] == [3]

    def test_sbatch_s_refusal_is_told_in_its_words(
        self, exiting: Callable[..., Job], tmp_path: Path
    ) -> None:
        launcher = SlurmLauncher(tmp_path, {"partition": "nosuch"})
        with pytest.raises(UserError, match=r"(?i)--launcher slurm: .*invalid partition"):
            launcher.start([exiting(0)])
        assert (launcher.alive(), secrets(tmp_path)) == (0, [])


def test_jobs_outlive_an_absent_controller_and_one_started_meanwhile_is_submitted_later(
    launcher: SlurmLauncher,
    cluster: SlurmCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(slurm, "RESUBMIT_S", 0.5)
    wait = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(.1)"
    go_on = tmp_path / "go-on"
    program = (sys.executable, "-S", "-c", wait, str(go_on))
    launcher.start([Job("first", program, tmp_path / "first.log")])
    wait_for(lambda: "RUNNING" in cluster.command("squeue", "--format=%T"))
    cluster.stop_controller()
    try:
        launcher.start([Job("second", program, tmp_path / "second.log")])
        assert launcher.poll() == []
        assert launcher.alive() == 2
        go_on.touch()
    finally:
        cluster.start_controller()
    assert sorted((e.job.name, e.code) for e in ends_within(launcher, 2, 60)) == [
        ("first", 0),
        ("second", 0),
    ]
    assert sum("taken to live on" in r.message for r in caplog.records) == 1


def ends_within(launcher: SlurmLauncher, count: int, timeout_s: float) -> list[Exit]:
    found: list[Exit] = []

    def enough() -> bool:
        found.extend(launcher.poll())
        return len(found) >= count

    wait_for(enough, timeout_s)
    return found


class RequeueOne:
    """Watches a search; once both workers run a trial, has Slurm requeue one."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster
        self.left_then = 0
        self.requeued = ""

    def note(self, text: str) -> None:
        """Nobody reads it."""

    def trial(self, row: TrialRow, *, best_db: float | None) -> None:
        """Nobody reads it."""

    def progress(self, summary: Summary) -> None:
        running = [row for row in summary.rows if row.state == "running"]
        done = sum(row.state in ("complete", "pruned") for row in summary.rows)
        if not self.left_then and len(running) == 2:
            self.left_then = TRIALS - done
            self.requeued = task(1)
            self.cluster.requeue(self.requeued)
            self.cluster.start_soon(self.requeued)


def test_a_search_keeps_its_exact_budget_when_a_worker_is_requeued(
    cluster: SlurmCluster, folder: Path, postgres_url: str, launcher: SlurmLauncher
) -> None:
    request = Request(
        study=str(folder / "studies" / "tiny.toml"),
        storage=parse_url(postgres_url),
        trials=TRIALS,
        workers=2,
        threads=1,
        device="cpu",
        data_dir=folder / "data",
        artifacts=folder / "artifacts",
        overrides=("train.epochs=40", "search.pruner=none", "train.patience=0"),
        environment={},
    )
    watcher = RequeueOne(cluster)
    summary = tune(request, watcher, launcher)
    assert watcher.left_then > 2, "it was requeued in the middle"
    states = [row.state for row in summary.rows]
    assert states == ["complete"] * TRIALS
    assert "Restarts=1" in cluster.command("scontrol", "show", "job", watcher.requeued)
    assert cluster.command("squeue", "--noheader") == ""
