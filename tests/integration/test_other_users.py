"""Several users of one machine: who may look, who may write, whose files are believed."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import searchae.cli.console
import searchae.report
from searchae.cli import run
from searchae.dashboard.server import ServerOptions, application
from searchae.files import SharedFolder, UnsafeFileError
from searchae.launch.base import Job
from searchae.launch.logs import opened_log
from searchae.storage.connection import connect
from searchae.storage.locks import file_lock
from searchae.study.coordination import Coordinator
from searchae.training.kernels import build
from tests.integration.test_dashboard_reading import get
from tests.reported_study import make_study

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def as_nobody(function: Callable[[], object]) -> str:
    """Calls a function in a forked process of another user; its result or error as a text.

    Forked, since that user need not be able to read this Python.
    """
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            text = str(function())
        except BaseException as e:
            text = f"{type(e).__name__}: {e}"
        os.write(theirs, text.encode()[:60_000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


def command(folder: Path, *words: str) -> str:
    """Runs a command as another user; its exit code and what it printed."""

    def call() -> str:
        os.chdir(folder)
        shown = io.StringIO()
        with redirect_stdout(shown), redirect_stderr(shown):
            code = run(words)
        return f"{code} {shown.getvalue()}"

    return as_nobody(call)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users reach; pytest closes its own to them."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize("is_open", [True, False])
def test_looking_needs_no_right_to_write(folder: Path, is_open: bool) -> None:
    """Neither while nobody else has the database open, nor while somebody writes to it."""
    stored = make_study(folder, 4)
    Coordinator(stored)  # makes searchae's tables, as ``tune`` does
    storage = stored.storage
    searchae.report.trials("s", str(storage.engine.url))  # imports all that the commands need
    if not is_open:
        storage.engine.dispose()
    before = sorted(p.name for p in folder.iterdir())
    assert ("searchae.db-shm" in before) == is_open
    for words in (("studies",), ("status", "-s", "s"), ("best", "-s", "s")):
        assert command(folder, *words)[:2] == "0 ", command(folder, *words)
    table = command(folder, "report", "-s", "s", "--csv", "/dev/null", "--json")
    assert table[:2] == "0 ", table
    assert sorted(p.name for p in folder.iterdir()) == before
    refused = as_nobody(lambda: connect(storage.engine.url))
    assert refused.startswith("StorageError")
    assert f"the folder {folder} cannot be written" in refused


def test_the_dashboard_shows_what_it_cannot_write(folder: Path) -> None:
    stored = make_study(folder, 4)
    url = stored.storage.engine.url
    stored.storage.engine.dispose()

    def shown() -> str:
        storage = connect(url, writes=False)
        app = application(storage, ServerOptions("127.0.0.1", 0, folder / "artifacts"))
        answers = [get(app, path)[0] for path in ("/api/studies", f"/api/studies/{stored.id}")]
        storage.engine.dispose()
        return " ".join(answers)

    assert shown() == "200 OK 200 OK"  # imports all that it needs
    before = sorted(p.name for p in folder.iterdir())
    assert as_nobody(shown) == "200 OK 200 OK"
    assert sorted(p.name for p in folder.iterdir()) == before


def test_what_is_written_meanwhile_is_seen(folder: Path) -> None:
    stored = make_study(folder, 1)
    stored.storage.engine.dispose()
    url = stored.storage.engine.url

    def look() -> str:
        reader = connect(url, writes=False)
        counts = [len(reader.get_all_trials(stored.id))]
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        return str([*counts, len(reader.get_all_trials(stored.id))])

    ready, done = os.pipe(), os.pipe()
    if not (writer := os.fork()):
        os.read(ready[0], 1)
        make_more = connect(url)
        make_more.create_new_trial(stored.id)
        os.write(done[1], b"x")
        os._exit(0)
    assert as_nobody(look) == "[1, 2]"
    os.waitpid(writer, 0)


def test_a_lock_that_another_user_made_is_no_obstacle(folder: Path) -> None:
    storage = make_study(folder, 1).storage
    storage.engine.dispose()
    folder.chmod(0o777)
    (folder / "searchae.db").chmod(0o666)
    (folder / "searchae.db.lock").chmod(0o644)

    def lock() -> str:
        with file_lock(storage.engine.url):
            return "held"

    assert as_nobody(lock) == "held"
    (folder / "searchae.db.lock").unlink()
    with file_lock(storage.engine.url):
        pass
    assert (folder / "searchae.db.lock").stat().st_mode & 0o777 == 0o666, "as the database's"


def test_two_users_of_an_artifact_folder_have_a_log_each(folder: Path) -> None:
    """Where all may write the folders, and each user's files are only his own."""
    job = Job("worker-0", (), folder / "s" / "logs" / "worker-0.log")
    _, log = opened_log(job)
    log.close()
    for path in (folder, folder / "s", job.log.parent):
        path.chmod(0o777)
    expected = job.log.with_name(f"worker-0-user{NOBODY}.log")
    assert as_nobody(lambda: opened_log(job)[0].log) == str(expected)
    assert expected.exists()


def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path / "s" / "records")
    with folder.writing("a") as file:
        file.write(b"ours")
    os.chown(folder.path / "a", NOBODY, NOBODY)
    with pytest.raises(UnsafeFileError, match="is somebody else's"):
        folder.reading("a", limit=100)
    os.chown(folder.path, NOBODY, NOBODY)
    with folder.reading("a", limit=100) as file:
        assert file.read() == b"ours", "the folder's owner is trusted: it is his"
    with pytest.raises(UnsafeFileError, match="has 4 bytes, more than searchae writes"):
        folder.reading("a", limit=3)


@pytest.mark.fleet
def test_a_library_of_another_user_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was put into the folder before that became the user's alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        build.load()
    except build.BuildError:
        pytest.skip("no compiler")
    (library,) = (tmp_path / "searchae").glob("*.so")
    os.chown(library, NOBODY, NOBODY)
    build.load()
    assert f"{library} is no file of this user's: it is not run" in caplog.text
    assert library.stat().st_uid == os.geteuid(), "built again"


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_a_log_does_not_reach_another_file(tmp_path: Path, kind: str) -> None:
    """Such as the start-up file of a shell."""
    victim = tmp_path / "profile"
    victim.write_text("export A=1\n")
    job = Job("worker-0", (), tmp_path / "s" / "logs" / "worker-0.log")
    job.log.parent.mkdir(parents=True)
    if kind == "link":
        job.log.symlink_to(victim)
    elif kind == "second name":
        os.link(victim, job.log)
    else:
        os.mkfifo(job.log)
    made, log = opened_log(job)
    with log:
        log.write(b"a line\n")
    assert made.log.read_text() == "a line\n"
    assert victim.read_text() == "export A=1\n"
