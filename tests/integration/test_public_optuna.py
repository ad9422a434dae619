"""A search on an Optuna whose private names are not as expected, by its public names alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from searchae import data
from searchae.config.loader import load_study_file
from searchae.config.study_spec import StudySpec
from searchae.errors import UserError
from searchae.search import pruners, samplers
from searchae.storage import optuna_compatibility
from searchae.storage.connection import connect
from searchae.storage.trial_batching import NoBatching
from searchae.study.stored_study import load_study, open_study
from searchae.training.trial_checkpoints import PrunedError
from searchae.worker import TrialJob, Worker, WorkerOptions
from tests.conftest import RunCommand

BUDGET = 24
EPOCHS = 3


@pytest.fixture
def unknown_optuna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives private methods of Optuna's other parameters, as a new release may."""
    cached = optuna.storages._cached_storage._CachedStorage
    for owner, name in (
        (cached, "_get_cached_trial"),
        (TPESampler, "_sample"),
        (HyperbandPruner, "_get_bracket_id"),
    ):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *words, of=original, **more: of(*words, **more))
    monkeypatch.setattr(optuna_compatibility, "_warned", set())
    monkeypatch.setattr(samplers, "INCREMENTAL_FROM", 0)
    optuna_compatibility.failure_of.cache_clear()
    yield
    optuna_compatibility.failure_of.cache_clear()


def spec_of(folder: Path) -> StudySpec:
    changes = {
        "search.trials": BUDGET,
        "search.pruner": "hyperband",
        "search.min_epochs": 1,
        "train.epochs": EPOCHS,
    }
    return load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)


def train(job: TrialJob, died: Event, *, dies: bool) -> float:
    """The first worker dies in one of the later trials, which the others leave one of to it."""
    trial: Any = job.trial
    if not dies and trial.number > 3:
        died.wait(30)
    for epoch in range(1, EPOCHS + 1):
        psnr_db = 10.0 + epoch + trial.number % 7
        trial.report(psnr_db, epoch)
        if dies and trial.number > 3 and epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch < EPOCHS and trial.should_prune():
            raise PrunedError
    return float(psnr_db)


def work(url: str, folder: Path, died: Event, *, dies: bool) -> None:
    stored = load_study(connect(url), "tiny")
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    Worker(stored, options, train=lambda job, _hooks: train(job, died, dies=dies)).run()


@pytest.mark.usefixtures("unknown_optuna", "keeps_threads")
def test_three_workers_of_which_one_is_killed_run_exactly_the_budget(
    database: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(folder)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    with caplog.at_level(logging.WARNING):
        storage = connect(database)
        open_study(storage, "tiny", spec=spec, data_hash=splits.hash, baseline_db=1.0)
        connect(database).engine.dispose()
    assert isinstance(storage.batching, NoBatching)
    (warning,) = caplog.messages
    assert f"Optuna {optuna.__version__} is used through its own storage" in warning
    storage.engine.dispose()
    context = multiprocessing.get_context("fork")
    died = context.Event()
    workers = [
        context.Process(target=work, args=(database, folder, died), kwargs={"dies": number == 0})
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    workers[0].join(60)
    died.set()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [-signal.SIGKILL, 0, 0]
    plain = RDBStorage(database)
    trials = plain.get_all_trials(plain.get_study_id_from_name("tiny"))
    plain.engine.dispose()
    assert [t.number for t in trials] == list(range(BUDGET))
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all("learning_rate" in t.params and t.value is not None for t in trials)


@pytest.mark.usefixtures("unknown_optuna")
def test_optuna_s_own_classes_are_used_and_one_warning_each_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(folder)
    study = optuna.create_study(direction="maximize")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            assert type(samplers.make_sampler(spec, number=number)) is TPESampler
            assert type(pruners.make_pruner(spec, study)) is HyperbandPruner
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    said = [m.split(", which")[0] for m in warnings]
    assert said == [
        f"Optuna {optuna.__version__} is used through its own {part}"
        for part in ("TPE sampler", "pruners")
    ]


def test_public_names_alone_can_be_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{folder / 'searchae.db'}"
    monkeypatch.setenv("SEARCHAE_OPTUNA", "public")
    assert isinstance(connect(url).batching, NoBatching)
    assert type(samplers.make_sampler(spec_of(folder), number=10**4)) is TPESampler
    monkeypatch.setenv("SEARCHAE_OPTUNA", "private")
    with pytest.raises(UserError, match="SEARCHAE_OPTUNA=private: use auto or public"):
        connect(url)


def test_a_wrong_setting_is_refused_before_a_database_is_created(
    searchae: RunCommand, folder: Path
) -> None:
    refused = searchae("tune", "-s", "tiny", SEARCHAE_OPTUNA="private")
    assert refused.returncode == 2
    assert "SEARCHAE_OPTUNA=private: use auto or public" in refused.stderr
    assert not [*folder.glob("searchae.db*")]
