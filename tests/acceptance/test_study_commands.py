"""``searchae mv``, ``rm``, ``copy`` and ``studies``, as they are typed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from searchae.storage.connection import connect
from searchae.study.attributes import FOLDER
from searchae.study.stored_study import load_study
from searchae.study.training_list import open_training_list
from tests.conftest import CompletedCommand
from tests.forked_commands import run_command, start_command
from tests.reported_study import make_study


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a study, a list of its trainings, and files of both."""
    stored = make_study(tmp_path, 9)
    stored.study.set_user_attr(FOLDER, "s")
    open_training_list(
        stored, data=stored.spec.data, data_hash=stored.data_hash, baseline_db=stored.baseline_db
    )
    for folder in ("s", "s.trainings"):
        logs = tmp_path / "artifacts" / folder / "logs"
        logs.mkdir(parents=True)
        (logs / "worker-0.log").write_bytes(b"x" * 1_500_000)
    return tmp_path


def run(folder: Path, *words: str, **environment: str) -> CompletedCommand:
    return run_command(*words, cwd=folder, env={**os.environ, **environment})


def answer(folder: Path, *words: str, **environment: str) -> Any:
    done = run(folder, *words, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_studies_tells_how_large_and_how_old_they_are(made: Path) -> None:
    shown = run(made, "studies").stdout.splitlines()
    assert re.fullmatch(
        r"  s            9 of 30 trials, best [\d.]+ dB \(6 complete, 3 pruned; "
        r"\d{4}-\d\d-\d\d to 2026-01-01; 1\.5 MB of files\)",
        shown[-2],
    )
    study, listed = answer(made, "studies")["studies"]
    assert (study["complete"], study["pruned"], study["artifact_bytes"]) == (6, 3, 1_500_000)
    assert study["last_trial"].startswith("2026-01-01T")
    assert (listed["trainings_of"], listed["last_trial"]) == ("s", "")
    (study, _) = answer(made, "studies", "--artifacts", "elsewhere")["studies"]
    assert study["artifact_bytes"] is None


def test_a_study_is_renamed_and_then_deleted(made: Path) -> None:
    done = run(made, "mv", "s", "t")
    assert done.stdout.splitlines() == ["s is now t", "s.trainings is now t.trainings"]
    assert run(made, "best", "-s", "t").returncode == 0
    assert answer(made, "mv", "t", "u") == {"renamed": {"t": "u", "t.trainings": "u.trainings"}}

    refused = run(made, "rm")
    assert (refused.returncode, "say which" in refused.stderr) == (2, True)
    refused = run(made, "rm", "-s", "u")
    assert refused.returncode == 2
    assert "there is no terminal to ask on: --yes deletes without asking" in refused.stderr
    assert "u: 9 trials, 1.5 MB of files in artifacts/s" in refused.stderr
    refused = run(made, "rm", "--yes", "u", "-s", "nothing")
    assert refused.returncode == 2, "nothing is deleted where one is not there"
    assert run(made, "best", "-s", "u").returncode == 0

    (listed, study) = answer(made, "rm", "--yes", "u", "u.trainings")["deleted"]
    assert (listed["study"], study["study"], study["bytes"]) == ("u.trainings", "u", 1_500_000)
    assert answer(made, "studies")["studies"] == []
    assert list((made / "artifacts").iterdir()) == []


@pytest.mark.parametrize(("typed", "left"), [("y", 0), ("n", 2), ("", 2)])
def test_on_a_terminal_rm_asks_first(made: Path, typed: str, left: int) -> None:
    ours, theirs = pty.openpty()
    process = start_command(
        "rm", "s", cwd=made, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(ours, f"{typed}\n".encode())
    out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "To be deleted for good:\n  s.trainings: 0 trials" in err
    assert process.wait() == (0 if typed == "y" else 1)
    assert (err.endswith("nothing was deleted\n")) == (typed != "y")
    assert len(answer(made, "studies")["studies"]) == left
    assert out.count("deleted ") == 2 - left


def report(folder: Path, *words: str) -> str:
    """A study's report without what depends on when and where it is made."""
    done = run(folder, "report", "-s", "s", "--out", "report.html", *words)
    assert done.returncode == 0, done.stderr
    text = (folder / "report.html").read_text()
    text = re.sub(r"sqlite:///[\w.]+|postgresql\+psycopg://[^\s<&]+[^<]*", "DATABASE", text)
    return re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", "DATE", text)


def test_the_report_of_a_copy_is_the_same_to_the_byte(made: Path, postgres_url: str) -> None:
    before = report(made)
    sqlite = "sqlite:///searchae.db"
    done = run(made, "copy", "-s", "s", "--from", sqlite, "--to", postgres_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("s: 9 trials copied to postgresql+psycopg://")
    assert "The files stay in artifacts/s, for both studies" in done.stdout
    assert report(made, "--storage", postgres_url) == before

    variables = {"SEARCHAE_STORAGE_FROM": postgres_url, "SEARCHAE_STORAGE": "sqlite:///back.db"}
    copied = answer(made, "copy", "-s", "s", "--artifacts-to", "kept", **variables)
    assert copied["to"] == "sqlite:///back.db"
    assert [one["study"] for one in copied["studies"]] == ["s", "s.trainings"]
    assert report(made, "--storage", "sqlite:///back.db") == before
    assert (made / "kept" / "s" / "logs" / "worker-0.log").stat().st_size == 1_500_000

    again = run(made, "copy", "-s", "s", **variables)
    assert again.returncode == 2
    assert "study 's' exists in sqlite:///back.db" in again.stderr
    assert answer(made, "rm", "--yes", "s")["deleted"][1]["kept"].startswith("a copy of the study")
    assert (made / "artifacts" / "s" / "logs" / "worker-0.log").exists()
    assert len(load_study(connect(f"sqlite:///{made / 'back.db'}"), "s").study.trials) == 9


def test_copy_without_a_database_is_a_mistake(tmp_path: Path) -> None:
    done = run(tmp_path, "copy", "-s", "s", "--from", "sqlite:///no.db", "--to", "sqlite:///b.db")
    assert done.returncode == 2
    assert "there is no database" in done.stderr
    assert list(tmp_path.iterdir()) == []
