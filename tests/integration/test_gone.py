"""The study, its file or its server goes away while a search runs."""

from __future__ import annotations

import io
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.dashboard.server import ServerOptions, application
from searchae.errors import NoStudyError, StorageError
from searchae.storage import engine_settings, parse_url
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.gallery import picture_owner, trials_with_picture
from searchae.study.stored_study import load_study
from searchae.study.summary import summarize
from searchae.tuning import StopRequest, tune
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from searchae.worker.options import WorkerOptions
from tests.integration.test_dashboard_reading import get
from tests.stored_trials import finished, states, trials
from tests.thread_launcher import Recorder, ThreadLauncher, tiny_request

pytestmark = pytest.mark.usefixtures("keeps_threads")
DELETED = "study 'tiny': the study was deleted or renamed meanwhile"


@pytest.fixture
def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'searchae.db'}"


def search(
    folder: Path, url: str, launcher: ThreadLauncher, *, trials: int = 50, **more: Any
) -> Any:
    request = tiny_request(folder, url, trials=trials)
    return tune(request, more.pop("watcher", Recorder()), launcher, **more)


@contextmanager
def once_begun(url: str, act: Callable[[], object]) -> Iterator[None]:
    """Acts in a thread once a trial has ended."""

    def wait() -> None:
        while finished(url) < 1:
            time.sleep(0.2)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def delete(url: str) -> None:
    storage = connect(url)
    optuna.delete_study(study_name="tiny", storage=storage)
    storage.engine.dispose()


def said_by_workers(folder: Path) -> str:
    return (folder / "artifacts" / "tiny" / "logs" / "worker-0.log").read_text()


def test_a_deleted_study_ends_its_search(folder: Path, database: str) -> None:
    launcher = ThreadLauncher()
    with (
        once_begun(database, lambda: delete(database)),
        pytest.raises(NoStudyError, match=DELETED),
    ):
        search(folder, database, launcher)
    assert launcher.alive() == 0
    assert said_by_workers(folder).startswith(DELETED)


@pytest.mark.parametrize("setting", ["auto", "public"])
def test_a_study_deleted_during_a_trial_ends_the_worker_and_is_no_bug(
    folder: Path, sqlite: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives the study's and the trial's numbers to the next ones, which are left alone."""
    monkeypatch.setenv("SEARCHAE_OPTUNA", setting)
    search(folder, sqlite, ThreadLauncher(), trials=1)
    stored = load_study(connect(sqlite), "tiny")
    Coordinator(stored).set_budget(5)

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        delete(sqlite)
        optuna.create_study(study_name="next", storage=connect(sqlite))
        return run_trial(job, hooks)

    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    with pytest.raises(NoStudyError, match=DELETED):
        Worker(stored, options, train=train).run()
    (left,) = optuna.get_all_study_summaries(sqlite)
    assert (left.study_name, left._study_id, left.n_trials) == ("next", stored.id, 0)


def test_a_new_trial_takes_no_lease_over_from_a_deleted_one(folder: Path, sqlite: str) -> None:
    search(folder, sqlite, ThreadLauncher(), trials=1)
    first = Coordinator(load_study(connect(sqlite), "tiny"))
    first.set_budget(5)
    trial_id = first.claim()
    with first.stored.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE searchae_leases SET losses = 2"))
    delete(sqlite)
    search(folder, sqlite, ThreadLauncher(), trials=1)
    again = Coordinator(load_study(connect(sqlite), "tiny"))
    again.set_budget(5)
    assert again.claim() == trial_id
    with again.stored.storage.engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT losses FROM searchae_leases")) == 0


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_no_longer_there_ends_the_search(
    folder: Path, sqlite: str, how: str
) -> None:
    file = folder / "searchae.db"

    def act() -> None:
        file.rename(folder / "elsewhere.db")
        if how == "removed":
            (folder / "elsewhere.db").unlink()
        if how == "replaced":
            connect(sqlite).engine.dispose()

    launcher = ThreadLauncher()
    with (
        once_begun(sqlite, act),
        pytest.raises(StorageError, match="removed, moved or replaced while it was in use"),
    ):
        search(folder, sqlite, launcher)
    assert launcher.alive() == 0
    assert file.exists() == (how == "replaced"), "no empty one is made in its place"


@pytest.mark.fleet
def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(
    folder: Path, postgres_url: str
) -> None:
    """As in a failover."""
    name = parse_url(postgres_url).database
    admin = sa.create_engine(
        parse_url(postgres_url).set(database="postgres"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.pool.NullPool,
    )

    def set_read_only(to: str) -> None:
        with admin.connect() as connection:
            connection.execute(
                sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = {to}")
            )
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    f"WHERE datname = '{name}'"
                )
            )

    def act() -> None:
        set_read_only("on")
        time.sleep(1)
        set_read_only("off")

    with once_begun(postgres_url, act):
        summary = search(folder, postgres_url, ThreadLauncher(), trials=6)
    assert summary.counts.finished == 6
    assert set(states(postgres_url)) <= {"COMPLETE", "PRUNED"}
    assert all("searchae:outcome" not in t.user_attrs for t in trials(postgres_url))


def test_a_dropped_database_ends_the_search(folder: Path, postgres_url: str) -> None:
    url = parse_url(postgres_url)
    admin = sa.create_engine(
        url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool
    )

    def act() -> None:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {url.database} WITH (FORCE)"))
            connection.execute(sa.text(f"CREATE DATABASE {url.database}"))

    launcher = ThreadLauncher()
    with once_begun(postgres_url, act), pytest.raises(StorageError, match="does not exist"):
        search(folder, postgres_url, launcher)
    assert launcher.alive() == 0


@pytest.mark.fleet
def test_a_stop_while_the_database_is_away_is_announced_and_soon_obeyed(
    folder: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the file. The thread that works on it has to be left behind."""
    monkeypatch.setattr(engine_settings, "BUSY_MS", 500)
    stop, watcher, launcher = StopRequest(), Recorder(), ThreadLauncher()
    asked: list[float] = []
    released = threading.Event()
    launcher.stop = lambda wait_s: released.set()  # type: ignore[method-assign, misc]

    def act() -> None:
        with sqlite3.connect(folder / "searchae.db", timeout=60, isolation_level=None) as file:
            file.execute("BEGIN IMMEDIATE")
            time.sleep(1)
            asked.append(time.monotonic())
            stop.set()
            time.sleep(0.5)
            assert any("stopping" in note for note in watcher.notes)
            released.wait(30)
            time.sleep(3)
            file.execute("COMMIT")
        file.close()

    with once_begun(sqlite, act):
        with pytest.raises(KeyboardInterrupt):
            search(folder, sqlite, launcher, watcher=watcher, stop=stop)
        assert time.monotonic() - asked[0] < 10
    assert "given to other workers 4 s after their last heartbeat" in watcher.notes[-1]
    ThreadLauncher.stop(launcher, wait_s=30)


def test_a_trial_that_ends_while_the_search_is_stopped_has_its_line(
    folder: Path, sqlite: str
) -> None:
    stop, watcher, launcher = StopRequest(), Recorder(), ThreadLauncher()

    def ends_one_more(wait_s: float) -> None:
        ThreadLauncher.stop(launcher, wait_s=wait_s)
        ledger = Coordinator(load_study(connect(sqlite), "tiny"))
        trial = ledger.claim()
        assert isinstance(trial, int)
        assert ledger.finish(trial, TrialState.PRUNED, 12.0)

    launcher.stop = ends_one_more  # type: ignore[method-assign]
    with once_begun(sqlite, stop.set), pytest.raises(KeyboardInterrupt):
        search(folder, sqlite, launcher, watcher=watcher, stop=stop)
    over = [t.number for t in trials(sqlite) if t.state.is_finished()]
    assert sorted(row.number for row in watcher.rows) == over


def test_status_warns_of_a_trial_whose_worker_is_gone(folder: Path, sqlite: str) -> None:
    search(folder, sqlite, ThreadLauncher(), trials=1)
    ledger = Coordinator(load_study(connect(sqlite), "tiny"))
    ledger.set_budget(2)
    ledger.claim()
    (told,) = summarize(ledger.stored, ledger).warnings
    assert told.startswith("1 trial running, and no worker is alive")

    assert trials(sqlite)[1].state == TrialState.RUNNING


def test_what_is_deleted_in_the_dashboard_takes_its_folder_along(folder: Path, sqlite: str) -> None:
    """And what is renamed keeps it."""
    search(folder, sqlite, ThreadLauncher(), trials=1)
    artifacts = folder / "artifacts"
    elsewhere = artifacts / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("of somebody else")
    (artifacts / "tiny" / "pictures" / "link").symlink_to(elsewhere)
    app = application(connect(sqlite), ServerOptions("127.0.0.1", 0, artifacts, writes=True))
    text = b'{"study_name": "renamed"}'
    told: dict[str, Any] = {
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(text)),
        "wsgi.input": io.BytesIO(text),
    }
    first = load_study(connect(sqlite), "tiny")
    status, _, body = get(app, f"/api/studies/{first.id}/rename", method="POST", **told)
    assert status == "201 Created", body
    renamed = load_study(connect(sqlite), "renamed")
    pictures = artifacts / renamed.folder / "pictures"
    assert trials_with_picture(
        pictures, {0: renamed.study.best_value}, owner=picture_owner(renamed)
    )
    assert get(app, f"/api/studies/{renamed.id}", method="DELETE")[0].startswith("20")
    assert not (artifacts / renamed.folder).exists()
    assert (elsewhere / "kept.txt").exists()
