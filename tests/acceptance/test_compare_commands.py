"""What wins, and which trial, as typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
import sqlalchemy as sa

from tests.integration import finished_studies
from tests.integration.test_compare_study import ONE_IS_WORSE

pytestmark = pytest.mark.usefixtures("keeps_threads")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WORDS = ("compare", "-s", "tiny", "--until", "3", "--workers", "1", "--device", "cpu")
TRAIN = ("train", "-s", "tiny", "--out", "best", "--workers", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder in which a search has ended."""
    folder = tmp_path_factory.mktemp("done") / "home"
    folder.mkdir()
    finished_studies.search(folder, **ONE_IS_WORSE)
    return folder


@pytest.fixture
def home(done: Path, folder: Path) -> Path:
    """A copy of it, in this test's folder."""
    shutil.copytree(done, folder, dirs_exist_ok=True)
    return folder


def test_a_comparison_is_planned_run_and_read_again(home: Path, command_line: Run) -> None:
    early = command_line(*TRAIN, "--trial", "compared")
    assert early.returncode == 2
    assert "`searchae compare --study tiny` begins one" in early.stderr
    planned = command_line(*WORDS, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "first look" in planned.stdout
    assert "optimizer    adam, sgd" in planned.stdout
    assert not (home / "artifacts" / "tiny.trainings").exists(), "nothing was trained"

    told = command_line(*WORDS)
    assert told.returncode == 0, told.stderr
    assert "optimizer: adam beats sgd by " in told.stdout
    planned = command_line(*WORDS, "--dry-run", "--json")
    plan = json.loads(planned.stdout)
    assert plan["done"] >= plan["trainings"] / 2, "what was trained is not planned again"
    line = r"^training +\d+  complete .* seed=1 \(measured\)$"
    assert re.search(line, told.stderr, re.M), "a line a training"
    assert "not compared: l1_target (to compare instead: --by l1_target)\n" in told.stderr
    assert re.search(r"^expected: about .* until the first answers \(about \d+", told.stderr, re.M)
    assert "adam" in told.stdout.splitlines()[1], "the better one stands first"
    assert (home / "artifacts" / "tiny" / "compare" / "compare.html").is_file()

    status = command_line("status", "-s", "tiny.trainings", "--json")
    found = json.loads(status.stdout)
    assert found["trials"]["complete"] == found["budget"] > 0
    assert found["trainings_of"] == "tiny"
    assert found["best"] is None, "a list of trainings has no best one"
    for words in (["best"], ["report", "--out", "report.html"]):
        refused = command_line(*words, "-s", "tiny.trainings")
        assert refused.returncode == 2
        assert "lists trainings of study 'tiny': name that one instead" in refused.stderr

    again = command_line(*WORDS, "--json", "--out", "mine.html")
    assert again.returncode == 0, again.stderr
    assert "seed=" not in again.stderr, "nothing is trained again"
    assert "expected" not in again.stderr, "and there is no time to speak of"
    found = json.loads(again.stdout)
    assert found["html"] == "mine.html"
    assert (home / "mine.html").is_file()
    (optimizer,) = found["comparisons"]
    assert optimizer["sentence"] in told.stdout
    assert optimizer["difference_shown"]
    assert optimizer["pairs"][0]["first"] == "adam"

    report = command_line("report", "-s", "tiny", "--out", "report.html")
    assert report.returncode == 0, report.stderr
    assert "adam beats sgd by " in (home / "report.html").read_text()

    trained = command_line(*TRAIN, "--trial", "compared", "--epochs", "search", "--json")
    assert trained.returncode == 0, trained.stderr
    assert "of tiny.trainings: up to " in trained.stderr
    bundle = json.loads(trained.stdout)
    assert bundle["study"] == "tiny.trainings"
    assert bundle["params"]["optimizer"] == "adam"
    assert (
        "searchae train -s tiny --trial compared --device cpu --out tiny-compared " in told.stderr
    )


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "options"),
    [
        (WORDS, "--until 3 --max-hours 1e-07 --workers 1 --device cpu --json"),
        (
            ("compare", "-s", "tiny", "--top", "2", "--no-l1-curve", "--workers", "1"),
            "--no-l1-curve --max-hours 1e-07 --top 2 --workers 1 --json",
        ),
    ],
)
def test_too_little_time_is_no_mistake_and_the_hint_has_all_options(
    words: tuple[str, ...], options: str, command_line: Run
) -> None:
    told = command_line(*words, "--max-hours", "1e-07", "--json")
    assert told.returncode == 130, told.stderr
    assert told.stdout == ""
    assert "the time was up (--max-hours) before" in told.stderr
    assert "done and kept; the same command again continues" in told.stderr
    assert f"next: searchae compare --study tiny {options}   goes on" in told.stderr


def test_ctrl_c_shows_what_is_known_so_far_and_how_to_go_on(home: Path) -> None:
    url = f"sqlite:///{home / 'searchae.db'}"
    words = (*WORDS, "--epochs", "30", "--patience", "0")
    with (home / "said").open("w") as err, started(words, home, subprocess.PIPE, err) as going:
        wait_for(lambda: len(listed(url, "COMPLETE")) >= 1)
        going.send_signal(signal.SIGINT)
        out, _ = going.communicate(timeout=60)
    assert (going.returncode, out) == (130, ""), "there is no result yet"
    said = (home / "said").read_text()
    found = re.search(r"unfinished after (\d+) of about (\d+) trainings; known so far:\n", said)
    assert found
    assert 1 <= int(found[1]) < int(found[2])
    assert f"(about {found[2]} trainings)" in said, "as many as were expected at the start"
    known, *others = said[found.end() :].splitlines()
    assert re.match(r"  optimizer: nothing known yet: \d+ of about \d+ trainings done", known)
    assert others[0].startswith("next: searchae compare --study tiny --until 3 --epochs 30 ")
    assert said.endswith("interrupted; run the same command again to go on\n")


@pytest.mark.fleet
def test_another_worker_shares_a_comparison(home: Path, command_line: Run) -> None:
    """A worker started by hand, as on another machine, takes trainings off the list."""
    words = (*WORDS, "--by", "optimizer", "--threads", "1", "--epochs", "40", "--patience", "0")
    url = f"sqlite:///{home / 'searchae.db'}"
    worker = ("worker", "-s", "tiny.trainings", "--wait", "--threads", "1", "--json")
    with started(words, home) as first:
        wait_for(lambda: len(listed(url, "COMPLETE")) >= 1)
        # However slow the machine is, there is work left when the other worker comes.
        own = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        for pid in own:
            os.kill(int(pid), signal.SIGSTOP)
        done = len(listed(url, "COMPLETE"))
        with started(worker, home, stdout=subprocess.PIPE) as joined:
            wait_for(lambda: len(listed(url, "COMPLETE")) > done)
            for pid in own:
                os.kill(int(pid), signal.SIGCONT)
            assert first.wait(timeout=200) == 0
            mine = json.loads(joined.communicate(timeout=100)[0])["complete"]
            assert joined.returncode == 0
    status = json.loads(command_line("status", "-s", "tiny.trainings", "--json").stdout)
    assert 0 < mine < status["trials"]["complete"], "each did a part"


def started(
    words: Sequence[str],
    home: Path,
    stdout: int | None = None,
    stderr: int | IO[str] = subprocess.DEVNULL,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "searchae", *words],
        cwd=home,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


@pytest.mark.fleet
def test_a_comparison_that_was_killed_trains_only_what_is_missing(
    home: Path, command_line: Run
) -> None:
    words = (*WORDS, "--epochs", "40", "--patience", "0")
    url = f"sqlite:///{home / 'searchae.db'}"
    with started(words, home) as killed:
        wait_for(lambda: len(listed(url, "COMPLETE")) >= 2)
        killed.send_signal(signal.SIGKILL)
    done = listed(url, "COMPLETE")
    again = command_line(*words)
    assert again.returncode == 0, again.stderr
    every = listed(url)
    assert {state for _, state in every} == {"COMPLETE"}
    assert len({key for key, _ in every}) == len(every), "no training was listed twice"
    trained = sum("seed=" in line for line in again.stderr.splitlines())
    assert len(every) - len(done) - 1 <= trained <= len(every) - len(done)
    assert trained < len(every)


def listed(url: str, state: str = "") -> list[tuple[str, str]]:
    """Returns key and state of the trials on the list, or of those in one state."""
    engine = sa.create_engine(url)
    query = (
        "SELECT a.value_json, t.state FROM trials t JOIN trial_user_attributes a "
        "ON a.trial_id = t.trial_id WHERE a.key = 'searchae:training'"
    )
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text(query)).all()
    except sa.exc.OperationalError:  # locked for a moment
        return []
    finally:
        engine.dispose()
    return [(json.loads(value)["key"], s) for value, s in rows if s == (state or s)]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.usefixtures("home")
def test_a_winner_over_seeds_is_named_and_trained(command_line: Run) -> None:
    nothing = command_line("train", "-s", "tiny", "--trial", "winner", "--out", "w")
    assert nothing.returncode == 2
    assert "has none yet; `searchae compare --study tiny --top 10` finds it" in nothing.stderr
    told = command_line("compare", "-s", "tiny", "--top", "3", "--seeds", "2", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert len(found["rows"]) == 3
    text = command_line("compare", "-s", "tiny", "--top", "3", "--seeds", "2")
    assert found["sentence"] in text.stdout
    assert "seed=" not in text.stderr
    words = ("--trial", "winner", "--epochs", "1", "--out", "w", "--json")
    trained = command_line("train", "-s", "tiny", *words)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["trial"] == found["winner"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "optimiser"], "--by optimiser: is not searched here; did you mean 'optimizer'"),
        (["--by", "regularizer"], "--by regularizer: "),
        (["--top", "3", "--by", "optimizer"], "--top: ranks trials"),
        (["--top", "3", "--seeds", "1"], "--seeds"),
        (["--seeds", "3"], "--seeds: only with --top"),
        (["--until", "0"], "--until 0: give a number of dB above 0"),
        (["--max-trainings", "0"], "--max-trainings"),
    ],
)
def test_a_mistake_is_explained_in_a_line(command_line: Run, words: list[str], said: str) -> None:
    told = command_line("compare", "-s", "tiny", *words)
    assert told.returncode == 2
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""
