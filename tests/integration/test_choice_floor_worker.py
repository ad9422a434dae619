"""Workers keep the floor of trials per choice on a real database, also where one leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

from searchae import data
from searchae.config.loader import load_study_file
from searchae.errors import DivergedError
from searchae.storage.connection import connect
from searchae.study.stored_study import StoredStudy, open_study
from searchae.training.trainer import Interrupted
from searchae.worker import TrialJob, Worker, WorkerOptions

pytestmark = pytest.mark.usefixtures("keeps_threads")

BUDGET, STARTUP, FLOOR = 24, 6, 5


def made(folder: Path, name: str) -> StoredStudy:
    changes = {
        "search.trials": BUDGET,
        "search.startup_trials": STARTUP,
        "search.min_trials_per_choice": FLOOR,
    }
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    storage = connect(f"sqlite:///{folder / f'{name}.db'}")
    # One name for all: a study's name decides about what some pruners do.
    return open_study(storage, "tiny", spec=spec, data_hash=splits.hash, baseline_db=11.5)[0]


def work(
    stored: StoredStudy, folder: Path, artifacts: Path, *, leaves_in: int | None = None
) -> list[FrozenTrial]:
    """Works on a study, and leaves in a trial; tanh diverges where the others are best."""

    def train(job: TrialJob, *_: Any) -> float:
        trial: Any = job.trial
        if trial.number == leaves_in:
            worker.stop.set()
            raise Interrupted("told to leave")
        params = job.params
        if params.model.activation == "tanh":
            raise DivergedError("it diverged")
        psnr_db = 20.0 + 1000 * min(params.train.learning_rate, 0.005)
        trial.report(psnr_db, 1)
        return psnr_db

    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=artifacts)
    worker = Worker(stored, options, train=train)
    worker.run()
    return stored.study.get_trials(deepcopy=False)


def test_a_choice_that_diverges_gets_its_trials_and_no_more(folder: Path) -> None:
    whole = work(made(folder, "whole"), folder, folder / "artifacts-whole")
    of_tanh = [t for t in whole if t.params["activation"] == "tanh"]
    assert len(of_tanh) >= FLOOR
    tries = [t.number for t in whole[STARTUP:] if "fixed_params" in t.system_attrs]
    assert any(t.number in tries for t in of_tanh[:FLOOR])
    assert not any(t.number in tries for t in of_tanh[FLOOR:])
    left, artifacts = made(folder, "left"), folder / "artifacts-left"
    leaves_in = tries[1]
    waiting = work(left, folder, artifacts, leaves_in=leaves_in)[-1]
    assert (waiting.number, waiting.state.name) == (leaves_in, "WAITING")
    resumed = work(left, folder, artifacts)
    assert [t.params for t in resumed] == [t.params for t in whole]
