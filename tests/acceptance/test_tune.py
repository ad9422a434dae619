"""The main job as a user runs it: processes, a database, a terminal's signals."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import pytest

from searchae.cli.signals import handle_signals, interrupt
from searchae.storage.connection import connect
from searchae.storage.url import parse_url
from searchae.study.attributes import CREATING
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import load_study
from tests.conftest import RunCommand, fork_workers, make_folder, smooth_images
from tests.forked_commands import ForkedProcess, run_command, start_command
from tests.postgres_server import PostgresServer
from tests.processes import wait_for, worker_pids
from tests.stored_trials import finished, states, trials


@pytest.fixture
def url(folder: Path) -> str:
    """Where most is shown; what depends on the database is shown on both."""
    return f"sqlite:///{folder / 'searchae.db'}"


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which a search of six trials has ended, and what it printed."""
    folder = make_folder(tmp_path_factory.mktemp("searched"))
    done = run_command("tune", "-s", "tiny", "--workers", "1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not [*folder.glob("*-wal")], "the one file holds the whole study"
    return folder, json.loads(done.stdout)


@pytest.fixture
def told(searched: tuple[Path, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Puts a copy of that search into this test's folder; returns what it printed."""
    shutil.copytree(searched[0], folder, dirs_exist_ok=True)
    return searched[1]


class Quiet:
    """A watcher that shows nothing."""

    def note(self, text: str) -> None: ...
    def trial(self, row: Any, *, best_db: float | None) -> None: ...
    def progress(self, summary: Any) -> None: ...


def start(folder: Path, *words: str, url: str) -> subprocess.Popen[str]:
    """Starts the command line as a user does: in a new process."""
    return subprocess.Popen(
        [sys.executable, "-m", "searchae", *words],
        cwd=folder,
        env={**os.environ, "SEARCHAE_STORAGE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def fork(folder: Path, *words: str, url: str) -> ForkedProcess:
    """Starts the command line in a forked process."""
    return start_command(
        *words,
        cwd=folder,
        env={**os.environ, "SEARCHAE_STORAGE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def forked_worker_pids(tune: ForkedProcess) -> list[int]:
    """The workers that a forked ``tune`` has started: the children of its own fork server."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    servers = children.get(tune.pid, [])
    return sorted(pid for server in servers for pid in children.get(server, []))


@pytest.fixture
def slow_folder(folder: Path) -> Path:
    """Trials that take about a second, so that a signal meets them at work."""
    images = smooth_images(800)
    np.savez(folder / "data" / "tiny.npz", x_train=images, x_test=images[:16])
    text = (folder / "studies" / "tiny.toml").read_text()
    text = text.replace("channels = [4, 8]", "channels = [16, 32]").replace(
        "epochs = 3", "epochs = 5"
    )
    (folder / "studies" / "tiny.toml").write_text(text)
    return folder


def test_a_search_runs_its_budget_and_says_what_it_found(
    searchae: RunCommand, database: str
) -> None:
    url = database
    done = searchae("tune", "--study", "tiny", "--workers", "2", "--json", SEARCHAE_STORAGE=url)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["study"] == "tiny"
    assert found["budget"] == 6
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 6
    assert found["trials"]["running"] == found["trials"]["failed"] == 0
    rows = trials(url)
    best = max((t for t in rows if t.state.name == "COMPLETE"), key=lambda t: t.values[0])
    assert found["best"]["number"] == best.number
    assert found["best"]["psnr_db"] == best.value
    assert found["best"]["params"].keys() >= {"activation", "optimizer", "learning_rate"}
    assert found["epochs"]["run"] == sum(len(t.intermediate_values) for t in rows)
    assert found["epochs"]["full"] == 18
    assert found["epochs"]["saved"] == 18 - found["epochs"]["run"]
    assert found["wall_s"] > 0
    assert "trial   0" in done.stderr
    assert "created" in done.stderr


def test_a_search_of_few_steps_an_epoch_says_so_and_names_no_command_that_is_refused(
    command_line: RunCommand, folder: Path
) -> None:
    """``compare`` takes no study whose nets are all worse than the mean training image."""
    file = folder / "studies" / "tiny.toml"
    file.write_text(file.read_text().replace("epochs = 3", "epochs = 1"))
    few = ("--set", "train.batch_size=96", "--set", "train.learning_rate=1e-6", "--trials", "2")
    done = command_line("tune", "--study", "tiny", "--workers", "1", *few)
    assert done.returncode == 0, done.stderr
    assert "are 1 step an epoch, too few to tell good trials from bad ones" in done.stderr
    assert "nothing is pruned" in done.stderr
    assert "no trial came above the mean training image" in done.stdout
    assert "searchae compare" not in done.stderr
    report = done.stderr[done.stderr.index("next: searchae ") :].splitlines()[0]
    words = shlex.split(report.removeprefix("next: searchae ").split("   ")[0])
    assert command_line(*words).returncode == 0


@pytest.mark.usefixtures("told")
def test_the_same_command_again_starts_nothing_and_a_larger_budget_goes_on(
    searchae: RunCommand, command_line: RunCommand, folder: Path, url: str
) -> None:
    words = ("tune", "--study", "tiny", "--workers", "1", "--json")
    again = command_line(*words)
    assert again.returncode == 0, again.stderr
    assert "nothing to run" in again.stderr
    assert "is few for" not in again.stderr, "it was said when the search began"
    assert len(trials(url)) == 6
    elsewhere = command_line(*words, "--artifacts", "else where", "--data-dir", f"{folder}/data")
    assert elsewhere.returncode == 0, elsewhere.stderr
    report, compare, train = elsewhere.stderr.splitlines()[-3:]
    assert "--artifacts 'else where'" in report
    shown = command_line(*shlex.split(report.removeprefix("next: searchae ").split("   ")[0]))
    assert shown.returncode == 0, shown.stderr
    assert (folder / "report.html").is_file()
    planned = shlex.split(compare.removeprefix("      searchae ").split("   ")[0])
    assert command_line(*planned, "--dry-run").returncode == 0
    best = shlex.split(train.removeprefix("      searchae ").split("   ")[0])
    trained = command_line(*best, "--epochs", "1", "--seeds", "1")
    assert trained.returncode == 0, trained.stderr
    assert (folder / "best").is_dir()
    fewer = command_line(*words, "--trials", "4")
    assert fewer.returncode == 0, fewer.stderr
    assert "6 trials are done, more than the 4 asked for" in fewer.stderr
    assert json.loads(fewer.stdout)["budget"] == 6
    more = searchae(*words, "--trials", "8")
    assert more.returncode == 0, more.stderr
    assert finished(url) == len(trials(url)) == 8


def test_two_runs_with_one_seed_and_one_worker_agree_to_the_bit(
    searchae: RunCommand, new_process: RunCommand, folder: Path
) -> None:
    """Two processes, each with hashes and addresses of its own."""
    results = []
    for name, run in (("one", searchae), ("two", new_process)):
        done = run(
            "tune",
            "--study",
            "tiny",
            "--workers",
            "1",
            "--seed",
            "7",
            SEARCHAE_STORAGE=f"sqlite:///{folder / name}.db",
        )
        assert done.returncode == 0, done.stderr
        rows = trials(f"sqlite:///{folder / name}.db")
        results.append([(t.state, t.params, t.value, t.intermediate_values) for t in rows])
    assert results[0] == results[1]
    assert len({value for _, _, value, _ in results[0]}) > 1


def test_killed_workers_and_the_same_command_again_end_exact(
    slow_folder: Path, database: str
) -> None:
    """kill -9 of two of three workers and of tune in the middle of 15 trials."""
    url = database
    words = ("tune", "--study", "tiny", "--trials", "15", "--workers", "3")
    first = fork(slow_folder, *words, url=url)
    wait_for(lambda: finished(url) >= 3 and len(forked_worker_pids(first)) == 3)
    victims = forked_worker_pids(first)[:2]
    first.kill()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    done_before = finished(url)
    assert done_before < 15
    again = fork(slow_folder, *words, url=url)
    _, progress = again.communicate(timeout=200)
    assert again.returncode == 0, progress
    assert " of them begun already" in progress
    assert states(url).get("RUNNING", 0) == 0
    assert finished(url) == len(trials(url)) == 15
    assert all(
        sorted(t.intermediate_values) == list(range(1, len(t.intermediate_values) + 1))
        for t in trials(url)
    ), "a trial that went on reports each epoch once"


@pytest.mark.fleet
def test_workers_leave_once_tune_is_killed_even_while_the_database_is_away(
    slow_folder: Path,
) -> None:
    def are_gone(pids: list[int]) -> bool:
        stats = [Path(f"/proc/{pid}/stat") for pid in pids]
        with contextlib.suppress(OSError):
            return all(s.read_text().rpartition(")")[2].split()[0] == "Z" for s in stats)
        return not any(s.exists() for s in stats)

    with PostgresServer() as server:
        url = server.url()
        tune = start(slow_folder, "tune", "-s", "tiny", "--trials", "50", "--workers", "2", url=url)
        wait_for(lambda: finished(url) >= 1, seconds=120)
        workers = worker_pids(tune)
        assert workers
        server.stop()
        time.sleep(3)  # by then the workers' calls wait for the database
        tune.kill()
        wait_for(lambda: are_gone(workers))
        tune.communicate()
        server.start()


def test_a_wish_to_stop_within_a_database_call_waits_for_its_end(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception there leaves a transaction open, for which putting back would wait for ever."""
    from searchae.launch.request import Request
    from searchae.study import summary
    from searchae.tuning import monitor
    from searchae.tuning.run import tune
    from tests.fake_launcher import FakeLauncher

    looks: list[bool] = []
    ended: list[int] = []
    stop = monitor.StopRequest()
    look = summary.summarize

    def summarize(stored: Any, ledger: Any) -> Any:
        looks.append(stop.is_polled)
        if len(looks) == 3:
            stop.set()  # as the handler does
        found = look(stored, ledger)
        ended.append(len(looks))
        return found

    monkeypatch.chdir(folder)
    monkeypatch.setattr(monitor, "summarize", summarize)
    request = Request(study="tiny", storage=parse_url(url), device="cpu", workers=1)
    with pytest.raises(KeyboardInterrupt):
        tune(request, Quiet(), FakeLauncher(), stop)
    assert looks[2] is True
    assert ended == [1, 2, 3, 4], "the last shows what ended while the workers were stopped"
    assert not stop.is_polled


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_workers_that_are_started_ahead_are_those_that_are_wanted(
    kind: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searchae.launch.base import Job
    from searchae.launch.local import LocalLauncher
    from searchae.launch.request import Request, prestarted_workers
    from searchae.tuning.run import tune

    monkeypatch.setattr("searchae.launch.request._GPU_FILES", ())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    spawned: list[str] = []

    class Counting(LocalLauncher):
        def _spawn(self, job: Job, *rest: Any, **more: Any) -> Any:
            spawned.append(job.name)
            return super()._spawn(job, *rest, **more)

    monkeypatch.chdir(folder)
    fork_workers(monkeypatch)
    sqlite = "sqlite:///elsewhere.db"
    storage = parse_url(sqlite if kind == "sqlite" else request.getfixturevalue("postgres_url"))
    asked, launcher = Request(study="tiny", storage=storage, trials=2, workers=2), Counting()
    with prestarted_workers(asked, launcher) as imported:
        assert spawned == ["worker-0"], "a core is left to the one who asks"
        imported()
        assert spawned == ["worker-0", "worker-1"]
        done = tune(asked, Quiet(), launcher)
    assert done.counts.finished == 2
    assert spawned == ["worker-0", "worker-1"], "no other was started"


def test_a_search_that_cannot_start_leaves_no_worker(slow_folder: Path, url: str) -> None:
    (slow_folder / "data" / "tiny.npz").write_bytes(b"no images")
    running = fork(slow_folder, "tune", "--study", "tiny", "--workers", "2", url=url)
    workers: list[int] = []

    def started() -> bool:
        workers.extend(forked_worker_pids(running))
        return bool(workers) or running.poll() is not None

    wait_for(started)
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 2, told
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_running(
    slow_folder: Path, tmp_path: Path, request: pytest.FixtureRequest, number: int
) -> None:
    on_sqlite = number == signal.SIGINT
    url = f"sqlite:///{tmp_path}/s.db" if on_sqlite else request.getfixturevalue("postgres_url")
    words = ("tune", "--study", "tiny", "--trials", "20", "--workers", "2")
    running = (start if on_sqlite else fork)(slow_folder, *words, url=url)
    wait_for(lambda: finished(url) >= 1)
    running.send_signal(number)
    _, progress = running.communicate(timeout=60)
    assert running.returncode == 130, progress
    assert "interrupted" in progress
    assert "Traceback" not in progress
    found = states(url)
    assert found.get("RUNNING", 0) == 0
    assert found.get("FAIL", 0) == 0


@pytest.mark.fleet
def test_a_worker_killed_while_the_database_is_away_is_replaced_soon_after(
    slow_folder: Path,
) -> None:
    """``tune`` waits for the database then, and must not take that for its own work."""
    with PostgresServer() as server:
        url = server.url()
        words = ("tune", "-s", "tiny", "--trials", "50", "--workers", "1")
        tune = start(slow_folder, *words, url=url)
        wait_for(lambda: finished(url) >= 1, seconds=120)
        (first,) = worker_pids(tune)
        server.stop()
        os.kill(first, signal.SIGKILL)
        time.sleep(3)
        server.start()
        wait_for(lambda: [pid for pid in worker_pids(tune) if pid != first], seconds=15)
        tune.send_signal(signal.SIGINT)
        _, progress = tune.communicate(timeout=60)
    assert tune.returncode == 130, progress
    assert "Traceback" not in progress


@pytest.mark.fleet
def test_a_killed_worker_is_replaced(slow_folder: Path, url: str) -> None:
    running = fork(
        slow_folder, "tune", "--study", "tiny", "--trials", "5", "--workers", "1", url=url
    )
    wait_for(lambda: finished(url) >= 1)
    os.kill(forked_worker_pids(running)[0], signal.SIGKILL)
    _, progress = running.communicate(timeout=120)
    assert running.returncode == 0, progress
    assert finished(url) == len(trials(url)) == 5


def test_no_worker_is_left_when_tune_is_killed(slow_folder: Path, url: str) -> None:
    running = start(
        slow_folder, "tune", "--study", "tiny", "--trials", "50", "--workers", "2", url=url
    )
    wait_for(lambda: finished(url) >= 1)
    assert len(worker_pids(running)) == 2
    running.kill()
    running.communicate()
    wait_for(lambda: not worker_pids(running), seconds=30)


@pytest.mark.usefixtures("told")
def test_a_worker_joins_with_the_storage_alone(
    searchae: RunCommand, folder: Path, url: str
) -> None:
    (folder / "studies" / "tiny.toml").unlink()
    Coordinator(load_study(connect(url), "tiny")).set_budget(8)
    done = searchae("worker", "--study", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["complete"] + counts["pruned"] == 2
    assert finished(url) == 8


def test_the_best_of_an_unfinished_search_is_said_to_be_that(
    command_line: RunCommand, told: dict[str, Any], url: str
) -> None:
    Coordinator(load_study(connect(url), "tiny")).set_budget(8)
    done = command_line("best", "-s", "tiny", "--json")
    assert json.loads(done.stdout) == told["best"]
    assert "the best of 6 of 8 trials: the search is not finished" in done.stderr


@pytest.mark.usefixtures("told")
def test_a_worker_with_other_data_is_refused(command_line: RunCommand, folder: Path) -> None:
    images = smooth_images(128, seed=9)
    elsewhere = folder / "another-machine"
    elsewhere.mkdir()
    np.savez(elsewhere / "tiny.npz", x_train=images, x_test=smooth_images(16))
    done = command_line("worker", "--study", "tiny", "--data-dir", str(elsewhere))
    assert done.returncode == 2
    assert "differs from what the study was made with" in done.stderr


def test_status_best_and_studies_tell_what_tune_told(
    command_line: RunCommand, told: dict[str, Any]
) -> None:
    status = json.loads(command_line("status", "--study", "tiny", "--json").stdout)
    assert status.pop("workers") == []
    told["storage"] = status["storage"]
    assert status == told
    best = json.loads(command_line("best", "--study", "tiny", "--json").stdout)
    assert best == told["best"]
    studies = json.loads(command_line("studies", "--json").stdout)
    assert studies["stored"] == ["tiny"]
    assert {"svhn", "tiny", "quickstart"} <= studies["files"].keys()
    assert studies["files"]["tiny"].endswith("studies/tiny.toml")
    shown = command_line("best", "-s", "tiny")
    assert f"trial {best['number']}:" in shown.stdout
    assert not shown.stderr
    assert "6 of 6" in command_line("status", "-s", "tiny", "--watch").stdout


@pytest.mark.usefixtures("told")
def test_a_study_whose_file_is_not_here_says_how_to_write_it(
    command_line: RunCommand, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    monkeypatch.setenv("SEARCHAE_STORAGE", f"sqlite:///{folder / 'searchae.db'}")
    monkeypatch.setenv("SEARCHAE_ARTIFACTS", str(folder / "artifacts"))
    monkeypatch.setenv("SEARCHAE_DATA_DIR", str(folder / "data"))
    refused = command_line("tune", "-s", "tiny", "--trials", "6")
    assert refused.returncode == 2
    assert "study 'tiny' is in sqlite:///" in refused.stderr
    assert (
        "`searchae studies --show tiny > tiny.toml` and type --study ./tiny.toml" in refused.stderr
    )
    Path("tiny.toml").write_text(command_line("studies", "--show", "tiny").stdout)
    again = command_line("tune", "-s", "./tiny.toml")
    assert again.returncode == 0, again.stderr
    assert "6 of 6" in again.stdout


@pytest.mark.usefixtures("told")
def test_a_changed_spec_is_refused_and_a_new_name_learns_from_the_old(
    searchae: RunCommand, command_line: RunCommand, folder: Path, url: str
) -> None:
    path = folder / "studies" / "tiny.toml"
    path.write_text(path.read_text().replace('["relu", "tanh"]', '["relu", "tanh", "elu"]'))
    refused = command_line("tune", "--study", "tiny")
    assert refused.returncode == 2
    assert '["relu", "tanh"]' in refused.stderr
    assert '["relu", "tanh", "elu"]' in refused.stderr
    assert "--warm-start tiny" in refused.stderr
    dry = command_line("tune", "--study", "tiny", "--dry-run")
    assert (dry.returncode, dry.stdout) == (2, "")
    assert dry.stderr == refused.stderr
    words = ("--name", "wider", "--warm-start", "tiny", "--trials", "3", "--workers", "1")
    planned = command_line("tune", "--study", "tiny", *words, "--dry-run", "--json")
    assert json.loads(planned.stdout)["begins"] == {}, "a warm start knows more than the midpoint"
    warm = searchae("tune", "--study", "tiny", *words, "--json")
    assert warm.returncode == 0, warm.stderr
    rows = trials(url, "wider")
    assert len([t for t in rows if "searchae:warm_start" in t.user_attrs]) == 6
    assert len(rows) == 9, "the imported ones do not count"
    counts = json.loads(warm.stdout)["trials"]
    assert counts["complete"] + counts["pruned"] == 3
    words = ("--name", "other", "--warm-start", "tiny", "--seed", "9", "--trials", "1")
    other = searchae("tune", "--study", "tiny", *words, "--workers", "1", "--json")
    assert other.returncode == 0, other.stderr
    best = json.loads(command_line("best", "-s", "tiny", "--json").stdout)
    said = f"begins by training its best trial again (trial {best['number']} there)"
    assert said in other.stderr
    (first,) = trials(url, "other")
    assert first.user_attrs["searchae:started_from"] == f"tiny #{best['number']}"


def test_a_dry_run_says_what_would_run_and_trains_nothing(
    command_line: RunCommand, folder: Path
) -> None:
    done = command_line("tune", "--study", "tiny", "--dry-run")
    assert done.returncode == 0, done.stderr
    for word in (
        "96 images",
        "32 images",
        "learning_rate",
        "0.0001 to 0.1 (log)",
        "parameters",
        "6 trials",
        "begins     with activation=relu optimizer=adam learning_rate=0.00316 regularizer=clip\n",
    ):
        assert word in done.stdout
    refused = command_line("tune", "--study", "tiny", "--dry-run", "--warm-start", "nope")
    assert refused.returncode == 2
    assert "--warm-start nope: there is no database sqlite:///searchae.db" in refused.stderr
    assert not (folder / "searchae.db").exists()
    assert not (folder / "artifacts").exists()
    document = json.loads(command_line("tune", "--study", "tiny", "--dry-run", "--json").stdout)
    assert document["spec"]["train"]["epochs"] == 3
    assert document["step_s"] > 0
    assert document["parameters"][0] == document["parameters"][1] > 0


def test_a_dry_run_prices_each_regularizer_that_is_searched(command_line: RunCommand) -> None:
    choices = ["none", "clip+l1", "contractive"]
    searched = f"train.regularizer={{ choices = {json.dumps(choices)} }}"
    done = command_line("tune", "-s", "tiny", "--set", searched, "--dry-run", "--json")
    document = json.loads(done.stdout)
    assert list(document["step_s_by_regularizer"]) == choices
    assert document["step_s"] == pytest.approx(fmean(document["step_s_by_regularizer"].values()))
    one = ("--set", "train.regularizer=clip")
    fixed = command_line("tune", "-s", "tiny", *one, "--dry-run", "--json")
    assert json.loads(fixed.stdout)["step_s_by_regularizer"] == {}


def test_few_trials_for_many_choices_are_said_before_the_search(command_line: RunCommand) -> None:
    few = "note: search.trials: 6 is few for the 2 choices of activation"
    assert few in command_line("tune", "-s", "tiny", "--dry-run").stderr
    assert few not in command_line("tune", "-s", "tiny", "--trials", "12", "--dry-run").stderr


def test_a_study_file_in_this_folder_is_found_by_its_name(
    command_line: RunCommand, folder: Path
) -> None:
    (folder / "mine.toml").write_bytes((folder / "studies" / "tiny.toml").read_bytes())
    planned = command_line("tune", "-s", "mine", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "study 'mine': read from ./mine.toml\n" in planned.stderr
    assert "study      mine:" in planned.stdout
    shown = command_line("data", "mine")
    assert "study 'mine': read from ./mine.toml\n" in shown.stderr
    assert command_line("data", "./mine.toml").stdout == shown.stdout


@pytest.mark.usefixtures("told")
def test_a_dry_run_counts_what_is_done(command_line: RunCommand) -> None:
    words = ("tune", "--study", "tiny", "--trials", "9", "--dry-run")
    assert "done       6 trials already, 3 to run\n" in command_line(*words).stdout
    document = json.loads(command_line(*words, "--json").stdout)
    assert document["done"] == 6
    assert document["begins"] == {}, "it has begun"


def test_a_dry_run_of_more_workers_than_cores_or_trials(command_line: RunCommand) -> None:
    words = ("tune", "--study", "tiny", "--device", "cpu", "--threads", "1", "--dry-run", "--json")
    cores = len(os.sched_getaffinity(0))
    many = str(100 * cores)
    done = command_line(*words, "--workers", many, "--trials", many)
    assert f"{many} workers of 1 thread on" in done.stderr
    plan = json.loads(done.stdout)
    assert plan["at_most_s"] == pytest.approx(
        100 * plan["epoch_s"] * plan["spec"]["train"]["epochs"]
    )
    done = command_line(*words, "--workers", many, "--trials", "1")
    assert "slower" not in done.stderr, "there are no more workers than trials"
    plan = json.loads(done.stdout)
    assert plan["at_most_s"] == pytest.approx(plan["epoch_s"] * plan["spec"]["train"]["epochs"])


def test_a_study_whose_making_was_cut_off_is_made_again(command_line: RunCommand, url: str) -> None:
    begun = optuna.create_study(study_name="tiny", storage=connect(url), direction="maximize")
    begun.set_user_attr(CREATING, True)
    dry = command_line("tune", "--study", "tiny", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "begins     with activation=relu" in dry.stdout
    done = command_line("tune", "--study", "tiny", "--trials", "1", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert finished(url) == 1


def test_a_dry_run_measures_a_step_at_any_learning_rate(command_line: RunCommand) -> None:
    words = ("tune", "--study", "tiny", "--set", "train.learning_rate=1e9", "--dry-run")
    done = command_line(*words)
    assert done.returncode == 0, done.stderr


def test_overrides_come_from_the_command_line_then_the_environment(
    command_line: RunCommand,
) -> None:
    words = ("tune", "--study", "tiny", "--dry-run", "--json")
    variable = {"SEARCHAE_TRAIN__EPOCHS": "9"}
    assert json.loads(command_line(*words, **variable).stdout)["spec"]["train"]["epochs"] == 9
    both = command_line(*words, "--set", "train.epochs=4", **variable)
    assert json.loads(both.stdout)["spec"]["train"]["epochs"] == 4


def test_what_helps_nobody_is_said(
    command_line: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("tune", "--study", "tiny", "--dry-run", "--device", "cpu")
    monkeypatch.setattr("searchae.training.precision._has_amx", lambda: False)
    told = command_line(*words, "--precision", "bf16", "--workers-per-device", "2").stderr
    assert "--precision bf16: this CPU has no units for it (AMX)" in told
    assert "--workers-per-device: no GPU is used" in told
    monkeypatch.setattr("searchae.training.precision._has_amx", lambda: True)
    told = command_line(*words, "--precision", "bf16").stderr
    assert "AMX" not in told
    assert "--workers-per-device" not in told


def test_how_it_computes_comes_from_the_environment_too(
    command_line: RunCommand, folder: Path
) -> None:
    words = ("tune", "--study", "tiny", "--dry-run", "--json")
    told = json.loads(command_line(*words, SEARCHAE_PRECISION="bf16").stdout)
    assert (told["precision"], told["kernels"]) == ("bf16", "torch")
    told = json.loads(command_line(*words, "--precision", "fp32", SEARCHAE_KERNELS="off").stdout)
    assert (told["precision"], told["kernels"]) == ("fp32", "torch")
    on_cpu = (*words, "--precision", "fp32", "--device", "cpu")
    told = json.loads(command_line(*on_cpu).stdout)
    assert (told["kernels"], told["kernels_fit"]) == ("winograd", False), "they fit no strided net"
    told = json.loads(command_line(*on_cpu, "--set", "model.downsample=pool").stdout)
    assert (told["kernels"], told["kernels_fit"]) == ("winograd", True)


def test_a_dry_run_names_the_convolutions_as_the_report_does(
    command_line: RunCommand, folder: Path
) -> None:
    words = ("tune", "--study", "tiny", "--dry-run", "--precision", "fp32", "--device", "cpu")
    printed = " ".join(command_line(*words).stdout.split())
    assert "convolutions by winograd where it fits (no layer of these nets) baseline" in printed
    printed = " ".join(command_line(*words, "--set", "model.downsample=pool").stdout.split())
    assert "convolutions by winograd where it fits baseline" in printed
    printed = " ".join(command_line(*words, SEARCHAE_KERNELS="off").stdout.split())
    assert "convolutions by torch baseline" in printed


def test_an_unknown_precision_of_the_environment_is_refused(
    command_line: RunCommand, folder: Path
) -> None:
    words = ("tune", "--study", "tiny", "--dry-run", "--json")
    refused = command_line(*words, SEARCHAE_PRECISION="fp8")
    assert refused.returncode == 2
    assert "--precision fp8: use auto, fp32, bf16" in refused.stderr
    for dry in (("--dry-run",), ()):
        again = ("tune", "--study", "tiny", "--precision", "fp32", *dry)
        refused = command_line(*again, SEARCHAE_KERNELS="fast")
        assert refused.returncode == 2
        assert "SEARCHAE_KERNELS=fast: use auto or off" in refused.stderr
    assert not (folder / "searchae.db").exists(), "no trial is spent on a wrong word"


def test_workers_per_device_is_a_number_or_auto(command_line: RunCommand) -> None:
    words = ("tune", "--study", "tiny", "--dry-run")
    for wrong in ("0", "-1", "two", "1.5"):
        refused = command_line(*words, "--workers-per-device", wrong)
        assert refused.returncode == 2
        told = f"--workers-per-device {wrong}: give a number of 1 or more, or auto"
        assert told in refused.stderr
    # Without a GPU there is nothing to measure.
    assert command_line(*words, "--device", "cpu", "--workers-per-device", "auto").returncode == 0
    elsewhere = ("--launcher", "slurm", "--storage", "postgresql://nobody@localhost:1/x")
    refused = command_line("tune", "--study", "tiny", *elsewhere, "--workers-per-device", "auto")
    assert refused.returncode == 2
    assert "--workers-per-device auto: measured on this machine's GPUs only" in refused.stderr


def test_data_shows_the_splits(command_line: RunCommand) -> None:
    found = json.loads(command_line("data", "tiny", "--json").stdout)
    assert (found["train"], found["validation"], found["test"]) == (96, 32, 16)
    assert len(found["hash"]) == 64


def test_no_secret_shows_in_a_worker_s_arguments(slow_folder: Path, postgres_url: str) -> None:
    secret = postgres_url.replace("postgres@", "postgres:hunter%7B2@")
    assert secret != postgres_url
    words = ("tune", "--study", "tiny", "--workers", "1", "--trials", "2")
    running = start(slow_folder, *words, url=secret)
    wait_for(lambda: worker_pids(running) or running.poll() is not None)
    assert running.poll() is None, running.communicate()[1]
    arguments = Path(f"/proc/{worker_pids(running)[0]}/cmdline").read_text()
    _, progress = running.communicate(timeout=120)
    assert running.returncode == 0, progress
    assert "hunter" not in arguments + progress
    logs = (slow_folder / "artifacts" / "tiny" / "logs").glob("*.log")
    assert not any("hunter" in log.read_text() for log in logs)


def test_hours_end_the_whole_fleet_and_another_run_goes_on(
    searchae: RunCommand, folder: Path, postgres_url: str
) -> None:
    """Two workers of tune's and one that joined by itself."""
    words = ("tune", "-s", "tiny", "--workers", "2")
    joined = fork(folder, "worker", "-s", "tiny", "--wait", url=postgres_url)
    hours = ("--trials", "2000", "--max-hours", "1", "--json")
    tune = fork(folder, *words, *hours, url=postgres_url)
    wait_for(lambda: finished(postgres_url) >= 3)
    ledger = Coordinator(load_study(connect(postgres_url), "tiny"))
    assert 3500 < (ledger.seconds_left() or 0) < 3600
    ledger.set_time_limit(0)
    out, err = tune.communicate(timeout=60)
    assert tune.returncode == 0, err
    assert "the time is up" in err
    told = json.loads(out)
    done = told["trials"]["complete"] + told["trials"]["pruned"]
    assert told["seconds_left"] < 0
    assert 3 <= done < 2000
    assert told["trials"]["running"] <= 1, "of the worker that joined"
    _, err = joined.communicate(timeout=30)
    assert joined.returncode == 0, err
    begun = len(trials(postgres_url))
    assert done <= begun <= done + 3, "each worker had one trial under way"
    again = searchae(*words, "--trials", str(begun), "--storage", postgres_url)
    assert again.returncode == 0, again.stderr
    assert f"{begun} of {begun}" in again.stdout
    assert len(trials(postgres_url)) == begun


def test_a_worker_whose_terminal_closes_puts_its_trial_back(slow_folder: Path, url: str) -> None:
    tune = fork(slow_folder, "tune", "-s", "tiny", "--trials", "1", "--workers", "1", url=url)
    tune.communicate(timeout=60)
    ledger = Coordinator(load_study(connect(url), "tiny"))
    ledger.set_budget(200)  # so that it still works when the signal comes
    running = fork(slow_folder, "worker", "-s", "tiny", url=url)
    wait_for(lambda: states(url).get("RUNNING", 0) == 1)
    running.send_signal(signal.SIGHUP)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "stopping: a running trial is kept, to be continued" in said
    assert states(url).get("RUNNING", 0) == 0
    assert states(url)["WAITING"] == 1


def test_nohup_stays_in_force() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        handle_signals(interrupt)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        handle_signals(interrupt)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
