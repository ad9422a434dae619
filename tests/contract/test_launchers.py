"""What every launcher keeps to. A new one joins by a class with a ``launcher`` fixture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from searchae.launch.base import Exit, Job, Launcher
from searchae.launch.local import LocalLauncher
from tests.fake_launcher import FakeLauncher

SECRET = "hunter2"


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def ends(launcher: Launcher, count: int = 1) -> list[Exit]:
    """The next so many exits."""
    found: list[Exit] = []

    def enough() -> bool:
        found.extend(launcher.poll())
        return len(found) >= count

    wait_for(enough)
    return found


class LauncherContract:
    """Holds for every launcher."""

    @pytest.fixture
    def launcher(self) -> Iterator[Launcher]:
        raise NotImplementedError("override with the launcher to be tested")

    @pytest.fixture
    def exiting(self) -> Callable[..., Job]:
        """Makes a job, given its exit code and ``name``, that ends soon."""
        raise NotImplementedError("override with jobs for this launcher")

    @pytest.fixture
    def running(self) -> Callable[..., Job]:
        """Makes a job, given its ``name``, that runs until it is asked to leave."""
        raise NotImplementedError("override with jobs for this launcher")

    def test_without_jobs_nothing_is_alive(self, launcher: Launcher) -> None:
        assert (launcher.alive(), launcher.poll()) == (0, [])
        launcher.stop(wait_s=0)

    @pytest.mark.parametrize("code", [0, 1, 2, 130])
    def test_the_exit_code_is_told_once(
        self, launcher: Launcher, exiting: Callable[..., Job], code: int
    ) -> None:
        started = exiting(code)
        launcher.start([started])
        (ended,) = ends(launcher)
        assert (ended.job, ended.code) == (started, code)
        assert 0 < ended.alive_s < 60
        assert (launcher.poll(), launcher.alive()) == ([], 0)

    def test_jobs_run_side_by_side_and_are_counted(
        self, launcher: Launcher, exiting: Callable[..., Job], running: Callable[..., Job]
    ) -> None:
        launcher.start([running(name="one")])
        launcher.start([running(name="two")])
        launcher.start([exiting(0, name="short")])
        assert [e.job.name for e in ends(launcher)] == ["short"]
        assert launcher.alive() == 2

    def test_a_name_may_be_used_again_once_its_job_has_ended(
        self, launcher: Launcher, exiting: Callable[..., Job]
    ) -> None:
        codes = []
        for code in (3, 4):
            launcher.start([exiting(code, name="same")])
            codes += [e.code for e in ends(launcher)]
        assert codes == [3, 4]

    def test_stop_leaves_none_and_tells_how_each_ended(
        self, launcher: Launcher, running: Callable[..., Job]
    ) -> None:
        for name in ("one", "two"):
            launcher.start([running(name=name)])
        launcher.stop(wait_s=5)
        assert launcher.alive() == 0
        ended = ends(launcher, 2)
        assert sorted(e.job.name for e in ended) == ["one", "two"]
        assert all(e.code != 0 for e in ended)
        launcher.stop(wait_s=5)
        assert launcher.poll() == []


class ProcessContract(LauncherContract):
    """Holds for every launcher whose jobs are programs on this machine."""

    @pytest.fixture
    def job(self, tmp_path: Path) -> Callable[..., Job]:
        def make(program: str, name: str = "job", **environment: str) -> Job:
            # Without site-packages Python starts faster; only searchae's own code needs them.
            fast = () if "searchae" in program else ("-S",)
            return Job(
                name=name,
                argv=(sys.executable, *fast, "-c", program),
                log=tmp_path / "logs" / f"{name}.log",
                environment=environment,
            )

        return make

    @pytest.fixture
    def exiting(self, job: Callable[..., Job]) -> Callable[..., Job]:
        return lambda code, name="job": job(f"raise SystemExit({code})", name)

    @pytest.fixture
    def running(self, job: Callable[..., Job]) -> Callable[..., Job]:
        return lambda name: job("import time; time.sleep(60)", name)

    def test_a_killed_job_s_code_names_the_signal(
        self, launcher: Launcher, job: Callable[..., Job]
    ) -> None:
        launcher.start([job("import os; os.kill(os.getpid(), 9)")])
        (ended,) = ends(launcher)
        assert ended.code == -signal.SIGKILL

    def test_output_and_errors_are_appended_to_the_log(
        self, launcher: Launcher, job: Callable[..., Job]
    ) -> None:
        program = "import sys; print('to out', flush=True); print('to err', file=sys.stderr)"
        for _ in range(2):
            launcher.start([job(program)])
            (ended,) = ends(launcher)
        assert ended.job.log.read_text().splitlines() == ["to out", "to err"] * 2

    def test_the_environment_arrives_on_top_and_not_in_the_argv(
        self, launcher: Launcher, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SEARCHAE_TEST_OURS", "ours")
        monkeypatch.setenv("SEARCHAE_TEST_BOTH", "ours")
        program = (
            "import os; print(*(os.environ[f'SEARCHAE_TEST_{n}'] for n in"
            " ('OURS', 'BOTH', 'STORAGE')));"
            "print(open('/proc/self/cmdline').read())"
        )
        started = job(program, SEARCHAE_TEST_BOTH="job's", SEARCHAE_TEST_STORAGE=SECRET)
        launcher.start([started])
        ends(launcher)
        first, *argv = started.log.read_text().splitlines()
        assert first == f"ours job's {SECRET}"
        assert SECRET not in "".join(argv)
        assert SECRET not in repr(started), "a job may be logged"
        assert SECRET not in os.environ.get("SEARCHAE_TEST_STORAGE", "")

    def test_stop_lets_a_job_leave_in_order(
        self, launcher: Launcher, job: Callable[..., Job]
    ) -> None:
        program = (
            "import signal, sys, time;"
            "signal.signal(signal.SIGTERM, lambda *_: (print('put back'), sys.exit(130)));"
            "print('ready', flush=True); time.sleep(60)"
        )
        started = job(program)
        launcher.start([started])
        wait_for(lambda: "ready" in started.log.read_text())
        began = time.monotonic()
        launcher.stop(wait_s=120)
        assert time.monotonic() - began < 60, "it does not wait for what has left"
        assert launcher.alive() == 0
        (ended,) = ends(launcher)
        assert ended.code == 130
        assert started.log.read_text() == "ready\nput back\n"

    def test_stop_ends_what_does_not_listen(
        self, launcher: Launcher, job: Callable[..., Job]
    ) -> None:
        program = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('ready', flush=True); time.sleep(60)"
        )
        started = job(program)
        launcher.start([started])
        wait_for(lambda: "ready" in started.log.read_text())
        began = time.monotonic()
        launcher.stop(wait_s=0.5)
        assert 0.5 <= time.monotonic() - began < 30, "the job would run for a minute"
        assert launcher.alive() == 0
        assert [e.code for e in ends(launcher)] == [-signal.SIGKILL]
        launcher.stop(wait_s=0.5)

    def test_stop_ends_a_job_that_is_suspended(
        self, launcher: Launcher, job: Callable[..., Job]
    ) -> None:
        started = job("import os; print('ready', flush=True); os.kill(os.getpid(), 19)")
        launcher.start([started])
        wait_for(lambda: "ready" in started.log.read_text())
        launcher.stop(wait_s=0.2)
        assert launcher.alive() == 0


class TestFakeLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self) -> Launcher:
        return FakeLauncher()

    @pytest.fixture
    def exiting(self) -> Callable[..., Job]:
        return lambda code, name="job": Job(name, ("exit", str(code)), Path("unused.log"))

    @pytest.fixture
    def running(self) -> Callable[..., Job]:
        return lambda name: Job(name, ("run",), Path("unused.log"))


# site.main(): jobs run with -S, and the package needs what is installed.
AHEAD = (
    "import os, site; site.main(); "
    "from searchae.launch import wait_until_wanted; wait_until_wanted(); "
    "print(os.getpid(), os.fstat(0).st_rdev, flush=True); raise SystemExit(3)"
)


def waiting(launcher: LocalLauncher) -> dict[str, subprocess.Popen[bytes]]:
    """The processes that were started ahead, by their job's name."""
    return {name: process for name, (_, process) in launcher._prestarted.items()}


class TestLocalLauncher(ProcessContract):
    @pytest.fixture
    def launcher(self) -> Iterator[LocalLauncher]:
        launcher = LocalLauncher()
        yield launcher
        launcher.stop(wait_s=0)

    def test_a_job_is_out_of_reach_of_the_terminal_s_ctrl_c(
        self, launcher: Launcher, job: Callable[..., Job]
    ) -> None:
        started = job("import os; print(os.getpid() == os.getsid(0), os.fstat(0).st_rdev)")
        launcher.start([started])
        ends(launcher)
        leads, stdin = started.log.read_text().split()
        assert leads == "True"
        assert int(stdin) == os.stat(os.devnull).st_rdev, "nor does it read from it"

    def test_a_prepared_job_begins_when_it_is_started(
        self, launcher: LocalLauncher, job: Callable[..., Job]
    ) -> None:
        wanted, spare = job(AHEAD, name="wanted"), job(AHEAD, name="spare")
        launcher.prepare([wanted, spare])
        prepared = waiting(launcher)
        assert launcher.alive() == 0
        assert not wanted.log.exists()
        launcher.start([wanted])
        (ended,) = ends(launcher)
        assert (ended.job, ended.code) == (wanted, 3)
        pid, stdin = wanted.log.read_text().split()
        assert int(pid) == prepared["wanted"].pid
        assert int(stdin) == os.stat(os.devnull).st_rdev
        assert prepared["spare"].poll() == -signal.SIGKILL, "nobody wants it"
        assert not spare.log.exists()

    def test_what_was_prepared_otherwise_or_has_died_is_started_anew(
        self, launcher: LocalLauncher, job: Callable[..., Job]
    ) -> None:
        killed, other = job(AHEAD, name="killed"), job(AHEAD, name="other")
        launcher.prepare([killed, other])
        prepared = waiting(launcher)
        prepared["killed"].kill()
        prepared["killed"].wait()
        changed = replace(other, environment={**other.environment, "CHANGED": "1"})
        launcher.start([killed, changed])
        assert sorted((e.job.name, e.code) for e in ends(launcher, 2)) == [
            ("killed", 3),
            ("other", 3),
        ]
        for name, started in (("killed", killed), ("other", changed)):
            assert int(started.log.read_text().split()[0]) != prepared[name].pid
        assert prepared["other"].poll() == -signal.SIGKILL

    def test_stopping_ends_what_was_prepared(
        self, launcher: LocalLauncher, job: Callable[..., Job]
    ) -> None:
        launcher.prepare([job(AHEAD)])
        (process,) = waiting(launcher).values()
        launcher.stop(wait_s=0)
        assert process.poll() == -signal.SIGKILL

    def test_a_prepared_job_leaves_when_whoever_prepared_it_is_killed(self, tmp_path: Path) -> None:
        program = (
            "import os, sys, signal\n"
            "from pathlib import Path\n"
            "from searchae.launch.base import Job\n"
            "from searchae.launch.local import LocalLauncher\n"
            "launcher = LocalLauncher()\n"
            f"launcher.prepare([Job('one', (sys.executable, '-c', {AHEAD!r}), Path('log'))])\n"
            "print(launcher._prestarted['one'][1].pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        wait_for(lambda: not Path(f"/proc/{int(killed.stdout)}/exe").exists())
        assert not (tmp_path / "log").exists()
