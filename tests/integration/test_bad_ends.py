"""Trials that ended badly rank below every trained trial, whoever reads the study."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from searchae import data
from searchae.config.loader import load_study_file
from searchae.dashboard.server import ServerOptions, application
from searchae.errors import DivergedError
from searchae.report.findings import collect_findings
from searchae.report.importances import parameter_importances
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study, open_study
from searchae.study.summary import summarize
from searchae.training import PrunedError
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions
from searchae.worker.ranked_storage import RankedStorage
from tests.integration.test_dashboard_reading import get

pytestmark = pytest.mark.usefixtures("keeps_threads")

BASELINE_DB = 11.5
DIVERGES_FROM = 1e-2
"""Learning rate; the range goes from 1e-4 to 1e-1."""


def make(url: str, folder: Path, **changes: Any) -> StoredStudy:
    keys = {"search.pruner": "none", **{k.replace("__", "."): v for k, v in changes.items()}}
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=keys)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    stored, _ = open_study(
        connect(url), "tiny", spec=spec, data_hash=splits.hash, baseline_db=BASELINE_DB
    )
    return stored


def work(stored: StoredStudy, folder: Path, train: Any) -> None:
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    Worker(stored, options, train=train).run()


def below_the_baseline(job: TrialJob, _hooks: TrialHooks) -> float:
    """Ends below the baseline, the better the lower the learning rate, or diverges."""
    rate = job.params.train.learning_rate
    if rate >= DIVERGES_FROM:
        raise DivergedError("the loss is nan")
    return BASELINE_DB - 8 - math.log10(rate)


def is_bad(trial: optuna.trial.FrozenTrial) -> bool:
    return "searchae:outcome" in trial.user_attrs


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_leaves_the_place_where_trainings_diverge(folder: Path, sampler: str) -> None:
    stored = make(
        f"sqlite:///{folder / 'searchae.db'}",
        folder,
        search__sampler=sampler,
        search__trials=30,
        search__startup_trials=12,
        search__min_trials_per_choice=0,
    )
    work(stored, folder, below_the_baseline)
    trials = stored.study.get_trials()
    assert sum(map(is_bad, trials[:12])) >= 3
    assert sum(map(is_bad, trials[-12:])) <= 2
    assert not is_bad(stored.study.best_trial)


def test_tpe_is_shown_them_behind_pruned_trials_too(folder: Path) -> None:
    stored = make(f"sqlite:///{folder / 'searchae.db'}", folder)
    ends = iter((DivergedError("the loss is nan"), PrunedError, 7.0, PrunedError, 8.0, 9.0))

    def train(job: TrialJob, _hooks: TrialHooks) -> float:
        job.trial.report(5.0, 1)
        end = next(ends)
        if isinstance(end, float):
            return end
        raise end

    work(stored, folder, train)
    shown = RankedStorage(stored).get_all_trials(stored.id)
    assert [t.state.name for t in shown] == ["PRUNED"] * 2 + ["COMPLETE", "PRUNED"] + [
        "COMPLETE"
    ] * 2
    assert [len(t.intermediate_values) for t in shown] == [0, 1, 1, 1, 1, 1]
    assert stored.study.get_trials()[0].state == TrialState.COMPLETE, "it counts as before"


def test_other_samplers_are_shown_finite_values_below_all_others(folder: Path) -> None:
    stored = make(
        f"sqlite:///{folder / 'searchae.db'}",
        folder,
        search__sampler="nsga2",
        search__objectives=["psnr", "parameters"],
    )
    storage, study = stored.storage, stored.study
    for values in ([20.0, 4000.0], [3.0, 900.0], [-math.inf, math.inf]):
        trial = study.ask()
        storage.set_trial_user_attr(trial._trial_id, "searchae:runtime", {})
        if math.isinf(values[0]):
            storage.set_trial_user_attr(trial._trial_id, "searchae:outcome", "dead")
        study.tell(trial, values)
    assert RankedStorage(stored).get_all_trials(stored.id)[2].values == [2.0, 4001.0]


def test_a_study_of_an_earlier_version_ranks_them_anew(folder: Path, database: str) -> None:
    """It stored the baseline's PSNR."""
    stored = make(database, folder)
    work(stored, folder, below_the_baseline)
    bad = [t.number for t in stored.study.get_trials() if is_bad(t)]
    assert bad
    earlier = sa.text(
        f"UPDATE trial_values SET value = {BASELINE_DB}, value_type = 'FINITE' WHERE value IS NULL"
    )
    with stored.storage.engine.begin() as connection:
        connection.execute(earlier)
    before = load_study(connect(database), "tiny")
    assert before.study.best_trial.number in bad
    assert summarize(before, Coordinator(before)).best.number not in bad  # type: ignore[union-attr]
    make(database, folder)
    after = load_study(connect(database), "tiny").study
    assert after.best_trial.number not in bad
    assert {after.trials[number].value for number in bad} == {-math.inf}


def test_tables_and_pages_show_what_they_came_to_before(folder: Path) -> None:
    url = f"sqlite:///{folder / 'searchae.db'}"
    stored = make(url, folder, search__trials=12)

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        job.trial.report(6.25, 1)
        return below_the_baseline(job, hooks)

    work(stored, folder, train)
    (first, *_) = bad = [t.number for t in stored.study.get_trials() if is_bad(t)]
    app = application(stored.storage, ServerOptions("127.0.0.1", 0, folder / "artifacts"))
    _, _, body = get(app, f"/api/studies/{stored.id}", "after=0")
    shown = {t["number"]: t["values"] for t in json.loads(body)["trials"]}
    assert {str(shown[number]) for number in bad} == {"['-inf']"}
    found = summarize(stored, Coordinator(stored))
    assert found.rows[first].psnr_db == 6.25
    assert found.outcomes == {"diverged": len(bad)}
    assert parameter_importances(stored.study.trials).shares
    json.dumps(collect_findings(stored, artifacts=folder).document(), allow_nan=False)
