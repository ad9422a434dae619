"""``searchae stop``, typed while a search runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.conftest import RunCommand
from tests.forked_commands import start_command
from tests.stored_trials import states, trials


def test_stop_ends_a_running_search_which_goes_on_when_typed_again(
    folder: Path, searchae: RunCommand
) -> None:
    url = f"sqlite:///{folder / 'searchae.db'}"
    words = ("tune", "-s", "tiny", "--trials", "2", "--workers", "2")
    long = {"SEARCHAE_TRAIN__EPOCHS": "3000", "SEARCHAE_SEARCH__PRUNER": "none"}
    search = start_command(
        *words,
        cwd=folder,
        env={**os.environ, **long},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while sum(len(t.intermediate_values) > 1 for t in trials(url)) < 2:
            assert search.poll() is None
            time.sleep(0.2)
        asked = searchae("stop", "-s", "tiny", "--json")
        _, err = search.communicate(timeout=60)
    finally:
        search.kill()
    assert asked.returncode == 0, asked.stderr
    assert "asked 2 workers to end the epoch, put the trial back and leave" in asked.stderr
    assert "waiting for " in asked.stderr
    (found,) = (answer := json.loads(asked.stdout))["studies"]
    assert answer["workers_asked"] == 2
    assert found == {
        "study": "tiny",
        "finished": 0,
        "budget": 2,
        "running": 0,
        "waiting": 2,
        "workers": 0,
    }
    assert search.wait() == 130
    assert err.splitlines()[-1].startswith("searchae: study 'tiny' was stopped by ")
    assert err.splitlines()[-1].endswith("run the same command again to go on")
    assert states(url) == {"WAITING": 2}

    shown = searchae("status", "-s", "tiny").stdout
    assert "(searchae stop): the same `searchae tune` command as before goes on" in shown
    worker = searchae("worker", "-s", "tiny")
    assert worker.returncode == 0
    assert "leaving: searchae stop asked the workers to" in worker.stderr
    again = searchae("stop", "-s", "tiny", "--no-wait")
    assert "no worker is at work on it" in again.stderr


def test_stop_of_a_study_that_is_not_there_is_a_mistake(searchae: RunCommand) -> None:
    done = searchae("stop", "-s", "nothing")
    assert done.returncode == 2
    assert "there is no database" in done.stderr
