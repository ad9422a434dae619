"""The limits of a search, shared by all who run it: how many trials, and until when."""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from searchae.launch.request import Request
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import load_study
from searchae.study.summary import Summary
from searchae.tuning import plan_search, set_time_limit, tune
from tests.stored_trials import finished
from tests.thread_launcher import ThreadLauncher, tiny_request

pytestmark = pytest.mark.usefixtures("keeps_threads")


@dataclass
class Notes:
    """A watcher that keeps what it is told."""

    told: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.told.append(text)

    def trial(self, row: Any, *, best_db: float | None) -> None: ...
    def progress(self, summary: Any) -> None: ...


@pytest.fixture
def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'searchae.db'}"


def request(folder: Path, url: str, **more: Any) -> Request:
    return tiny_request(folder, url, **{"overrides": ("train.epochs=1",), **more})


def run(folder: Path, url: str, **more: Any) -> tuple[Summary, list[str]]:
    watcher = Notes()
    return tune(request(folder, url, **more), watcher, ThreadLauncher()), watcher.told


def coordinator(url: str) -> Coordinator:
    return Coordinator(load_study(connect(url), "tiny"))


def test_a_plain_tune_keeps_the_trials_that_were_asked_for(folder: Path, url: str) -> None:
    """The study file names six."""
    run(folder, url, trials=2)
    summary, told = run(folder, url)
    assert (summary.counts.budget, summary.counts.finished) == (2, 2)
    assert any("2 trials, as asked for with --trials before (study file: 6)" in t for t in told)
    plan = plan_search(request(folder, url), told.append, ThreadLauncher())
    assert (plan.done, plan.spec.search.trials) == (2, 2)
    overridden, _ = run(folder, url, overrides=("train.epochs=1", "search.trials=3"))
    assert overridden.counts.budget == 3
    assert run(folder, url)[0].counts.finished == 3
    by_variable, _ = run(folder, url, environment={"SEARCHAE_SEARCH__TRIALS": "4"})
    assert by_variable.counts.finished == 4


def test_the_study_file_decides_while_nobody_has_asked(folder: Path, url: str) -> None:
    file = folder / "studies" / "tiny.toml"
    file.write_text(file.read_text().replace("trials = 6", "trials = 2"))
    assert run(folder, url)[0].counts.budget == 2
    file.write_text(file.read_text().replace("trials = 2", "trials = 3"))
    summary, told = run(folder, url)
    assert summary.counts.finished == summary.counts.budget == 3
    assert not any("--trials" in line for line in told)


def test_a_terminal_says_what_another_one_has_changed(folder: Path, url: str) -> None:
    def ask() -> None:
        while finished(url) < 1:
            time.sleep(0.02)
        ledger = coordinator(url)
        ledger.set_budget(9, asked=9)
        ledger.set_time_limit(3600)

    asking = threading.Thread(target=ask)
    asking.start()
    summary, told = run(folder, url, trials=6)
    asking.join()
    assert (summary.counts.budget, summary.counts.finished) == (9, 9)
    assert "the budget is 9 trials now, no longer 6" in "\n".join(told)
    (line,) = (text for text in told if text.startswith("work ends in "))
    assert line.endswith(": somebody has asked for it with --max-hours")


def test_a_time_limit_stays_until_it_has_passed(folder: Path, url: str) -> None:
    run(folder, url, trials=1, max_hours=2.0)
    ledger, told = coordinator(url), list[str]()
    set_time_limit(ledger, None, told.append)
    assert 7000 < (ledger.seconds_left() or 0) <= 7200
    assert "--max-hours before; --max-hours N changes it" in told[0]
    set_time_limit(ledger, 1.0, told.append)
    assert 3500 < (ledger.seconds_left() or 0) <= 3600
    ledger.set_time_limit(-1)
    set_time_limit(ledger, None, told.append)
    assert ledger.seconds_left() is None
    assert len(told) == 1


@pytest.mark.fleet
def test_the_end_is_seen_soon_after_the_database_was_away(folder: Path, url: str) -> None:
    """It used to be looked for only after twenty times as long as it had been away."""
    back_at: list[float] = []

    def lock() -> None:
        while finished(url) < 2:
            time.sleep(0.02)
        with sqlite3.connect(folder / "searchae.db", timeout=60, isolation_level=None) as file:
            file.execute("BEGIN IMMEDIATE")
            time.sleep(2)
            file.execute("COMMIT")
        file.close()
        back_at.append(time.monotonic())

    locking = threading.Thread(target=lock)
    locking.start()
    summary, _ = run(folder, url, trials=6)
    locking.join()
    assert summary.counts.finished == 6
    assert time.monotonic() - back_at[0] < 15
