"""A stop that somebody asks for, seen by the workers and by what started them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from searchae.errors import StopAskedError
from searchae.storage.connection import connect
from searchae.study.budget import NoTrial
from searchae.study.coordination import Coordinator
from searchae.study.found_study import with_lists
from searchae.study.stored_study import load_study
from searchae.tuning import tune
from tests.conftest import RunCommand
from tests.integration import finished_studies
from tests.stored_trials import states, trials
from tests.thread_launcher import Recorder, ThreadLauncher, tiny_request

pytestmark = pytest.mark.usefixtures("keeps_threads")

LONG = {"SEARCHAE_TRAIN__EPOCHS": "2000", "SEARCHAE_SEARCH__PRUNER": "none"}


def ask(url: str, when: Callable[[], bool]) -> threading.Thread:
    """Asks for a stop in a thread, once something is the case."""

    def wait() -> None:
        while not when():
            time.sleep(0.1)
        Coordinator(load_study(connect(url), "tiny")).ask_to_stop("ann on far")

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def epochs(url: str) -> int:
    return sum(len(t.intermediate_values) for t in trials(url))


def test_a_search_ends_with_its_trial_put_back_and_goes_on(folder: Path, database: str) -> None:
    asking = ask(database, lambda: epochs(database) > 2)
    launcher, watcher = ThreadLauncher(), Recorder()
    request = tiny_request(folder, database, trials=1, environment=LONG)
    with pytest.raises(StopAskedError, match=r"stopped by ann on far .*0 of 1 trials") as caught:
        tune(request, watcher, launcher)
    asking.join()
    assert caught.value.exit_code == 130
    assert any("ann on far asked for a stop" in note for note in watcher.notes)
    assert states(database) == {"WAITING": 1}
    newest = max(p.name for p in (folder / "artifacts" / "tiny" / "checkpoints").iterdir())
    (trial,) = trials(database)
    left_after = max(trial.intermediate_values)
    assert newest.startswith(f"000000-{left_after:06d}-"), "of the epoch it ended"

    coordinator = Coordinator(load_study(connect(database), "tiny"))
    assert coordinator.claim() is NoTrial.ASKED, "no worker that comes later begins"
    again = ask(database, lambda: epochs(database) > left_after)
    with pytest.raises(StopAskedError):
        tune(request, Recorder(), ThreadLauncher())
    again.join()
    assert epochs(database) > left_after, "the next tune has forgotten the first stop"


def test_a_bug_is_told_of_where_a_stop_is_asked_for_too(folder: Path) -> None:
    stored = finished_studies.open_tiny(folder, {})
    coordinator = Coordinator(stored)
    coordinator.ask_to_stop("ann on far")
    assert coordinator.claim() is NoTrial.ASKED
    coordinator.stop("trial 7 met a bug")
    assert coordinator.claim() is NoTrial.STOPPED
    assert coordinator.stopped() == "trial 7 met a bug"
    coordinator.clear_stop()
    assert isinstance(coordinator.claim(), int)


def test_the_lists_of_a_study_are_stopped_with_it(folder: Path, command_line: RunCommand) -> None:
    assert command_line("tune", "-s", "tiny", "--trials", "2", "--workers", "1").returncode == 0
    url = f"sqlite:///{folder / 'searchae.db'}"
    asking = threading.Thread(target=_stop_all, args=(url,))
    asking.start()
    done = command_line(
        "train", "-s", "tiny", "--epochs", "3000", "--patience", "0", "--out", "best"
    )
    asking.join()
    assert done.returncode == 130, done.stderr
    assert "study 'tiny.trainings' was stopped by ann on far (searchae stop)" in done.stderr
    assert states(url, "tiny.trainings") == {"WAITING": 1}


def _stop_all(url: str) -> None:
    while not states(url, "tiny.trainings")["RUNNING"]:
        time.sleep(0.1)
    for stored in with_lists(load_study(connect(url), "tiny")):
        Coordinator(stored).ask_to_stop("ann on far")
