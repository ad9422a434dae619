"""What an earlier version left on the disk: the present code goes on with it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.forked_commands import run_command

FILES = Path(__file__).resolve().parents[1] / "data" / "version-0.1.0"


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """A user's folder as version 0.1.0 left it in the middle of a search."""
    connection = sqlite3.connect(tmp_path / "searchae.db")
    connection.executescript((FILES / "study.sql").read_text())
    connection.close()
    checkpoints = tmp_path / "artifacts" / "tiny" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for checkpoint in FILES.glob("*.pt"):
        shutil.copy(checkpoint, checkpoints)
    for name in ("tiny.toml", "images.npz"):
        shutil.copy(FILES / name, tmp_path)
    return tmp_path


def searchae(folder: Path, *arguments: str) -> Any:
    """Runs a command with ``--json`` and returns the object that it prints."""
    environment = {**os.environ, "SEARCHAE_KERNELS": "off"}
    done = run_command(*arguments, "--json", cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stored_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'searchae.db'}")
    return study.get_trials()


def test_a_search_that_an_earlier_version_began_is_finished(old_folder: Path) -> None:
    before = stored_trials(old_folder)
    assert [t.state.is_finished() for t in before] == [True] * 6 + [False]
    summary = searchae(
        *(old_folder, "tune", "-s", "tiny.toml", "--data-dir", "."),
        *("--workers", "1", "--threads", "1", "--device", "cpu"),
    )
    assert summary["budget"] == 12
    assert summary["trials"]["complete"] + summary["trials"]["pruned"] == 12
    after = stored_trials(old_folder)
    assert len(after) == 12
    for old, new in zip(before[:6], after, strict=False):
        assert (new.state, new.values, new.params) == (old.state, old.values, old.params)
    resumed = after[6]
    assert resumed.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert resumed.params == before[6].params
    assert resumed.intermediate_values[2] == before[6].intermediate_values[2]
    # Version 0.1.0 went on to these two; another processor may round differently.
    assert resumed.intermediate_values[3] == pytest.approx(10.2127, abs=0.05)
    assert resumed.intermediate_values[4] == pytest.approx(10.5667, abs=0.05)
    log = (old_folder / "artifacts" / "tiny" / "logs" / "worker-0.log").read_text()
    assert "goes on after epoch 2" in log


def test_a_bundle_of_an_earlier_version_has_the_same_metrics(old_folder: Path) -> None:
    stored = json.loads((FILES / "bundle" / "metrics.json").read_text())
    shutil.copytree(FILES / "bundle", old_folder / "best")
    metrics = searchae(old_folder, "evaluate", "best", "--data-dir", ".")
    for name in ("psnr_db", "ssim", "mse", "baseline_db"):
        assert metrics[name] == pytest.approx(stored[name], rel=1e-4)
