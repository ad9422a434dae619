"""Searches with several objectives, from the command line to the dashboard."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from searchae import data
from searchae.config.loader import load_study_file
from searchae.dashboard.server import ServerOptions, application
from searchae.errors import DivergedError
from searchae.report import collect_findings
from searchae.report.page import report_page
from searchae.retrain.plan import find_trial
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study, open_study
from searchae.study.summary import summarize
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from searchae.worker.options import WorkerOptions
from tests.conftest import RunCommand
from tests.integration.test_dashboard_reading import get
from tests.stored_trials import trials

OBJECTIVES = ["psnr", "sparsity", "parameters"]
BASELINE_DB = 11.5
LIMIT = 2300
"""Parameters; nets with more than 4 of the 2 to 16 latents have more."""


def make(url: str, folder: Path, **changes: Any) -> StoredStudy:
    keys = {
        "search.objectives": OBJECTIVES,
        "model.latent_dim": {"low": 2, "high": 16},
        "train.epochs": 2,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=keys)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    storage = connect(url)
    return open_study(storage, "tiny", spec=spec, data_hash=splits.hash, baseline_db=BASELINE_DB)[0]


def work(stored: StoredStudy, folder: Path, **more: Any) -> None:
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    Worker(stored, options, **more).run()


def test_a_search_finds_a_front_and_every_command_shows_it(
    searchae: RunCommand, database: str, folder: Path
) -> None:
    where = {"SEARCHAE_STORAGE": database}
    words = (
        *("tune", "-s", "tiny", "--workers", "2", "--set", "train.epochs=2", "--json"),
        *("--set", f"search.objectives={json.dumps(OBJECTIVES)}"),
        *("--set", "model.latent_dim={low = 2, high = 16}"),
    )
    first = searchae(*words, "--trials", "5", **where)
    assert first.returncode == 0, first.stderr
    assert (
        "objectives psnr (up), sparsity (up), parameters (down): nothing is pruned" in first.stderr
    )
    done = searchae(*words, "--trials", "8", **where)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"]["complete"] == len(trials(database)) == 8
    stored = load_study(connect(database), "tiny")
    study = stored.study
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["psnr_db", "sparsity", "parameters"]
    assert all(len(t.intermediate_values) == 2 for t in study.trials)
    assert all(t.values[0] == t.intermediate_values[2] for t in study.trials)
    stored.storage.engine.dispose()
    front = {
        t.number: t.values for t in study.best_trials if "searchae:outcome" not in t.user_attrs
    }
    assert {t["number"]: list(t["values"].values()) for t in found["front"]} == front
    assert found["best"]["psnr_db"] == max(v[0] for v in front.values())
    best = json.loads(searchae("best", "-s", "tiny", "--json", **where).stdout)
    assert best["front"] == found["front"]
    shown = searchae("best", "-s", "tiny", **where).stdout
    assert f"the front: {len(front)} trial" in shown
    assert "PSNR, dB  near zero  parameters" in shown
    status = searchae("status", "-s", "tiny", **where).stdout
    assert f"front      {len(front)} trial" in status
    written = searchae(*("report", "-s", "tiny", "--out", "r.html", "--csv", "t.csv"), **where)
    assert written.returncode == 0, written.stderr
    with (folder / "t.csv").open() as file:
        rows = {int(r["number"]): r for r in csv.DictReader(file)}
    assert {n: float(rows[n]["parameters"]) for n in front} == {n: v[2] for n, v in front.items()}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "gp"])
@pytest.mark.usefixtures("keeps_threads")
def test_each_sampler_learns_from_several_values(
    folder: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_OPTUNA", "public" if sampler == "nsga2" else "auto")
    url = f"sqlite:///{folder / 'searchae.db'}"
    changes: dict[str, Any] = {"search.sampler": sampler, "search.startup_trials": 3}
    stored = make(url, folder, **changes, search__trials=7, search__max_parameters=LIMIT)
    work(stored, folder)
    ended = stored.study.get_trials()
    assert max(t.values[2] for t in ended) <= LIMIT
    assert sum(t.user_attrs.get("searchae:refused", 0) for t in ended) > 0
    assert [t.state for t in ended] == [TrialState.COMPLETE] * 7
    assert all(len(t.values) == 3 for t in ended)
    if sampler == "nsga2":
        generations = [t.system_attrs.get("NSGAIISampler:generation") for t in ended]
        assert max(g or 0 for g in generations) >= 1, "it goes on from the random ones"


def mortal(url: str, folder: Path, *, dies: bool) -> None:
    """Works; ``dies``: until a trial after the first has been reported once."""
    stored = load_study(connect(url), "tiny")

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        trial: Any = job.trial
        report = trial.report

        def deadly(value: float, step: int) -> None:
            report(value, step)
            if dies and trial.number >= 1:
                os.kill(os.getpid(), signal.SIGKILL)

        trial.report = deadly
        return run_trial(job, hooks)

    work(stored, folder, train=train)


@pytest.mark.fleet
@pytest.mark.parametrize(
    ("setting", "database"), [("public", "sqlite"), ("auto", "postgresql")], indirect=["database"]
)
@pytest.mark.usefixtures("keeps_threads")
def test_a_killed_worker_s_trial_goes_on_and_the_budget_is_exact(
    database: str, folder: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_OPTUNA", setting)
    make(database, folder, search__trials=7).storage.engine.dispose()
    start = multiprocessing.get_context("spawn").Process
    one = start(target=mortal, args=(database, folder), kwargs={"dies": True})
    one.start()
    one.join(120)
    assert one.exitcode == -signal.SIGKILL
    two = [start(target=mortal, args=(database, folder), kwargs={"dies": False}) for _ in range(2)]
    for process in two:
        process.start()
    for process in two:
        process.join(120)
    assert [process.exitcode for process in two] == [0, 0]
    ended = trials(database)
    assert [t.state for t in ended] == [TrialState.COMPLETE] * 7
    assert all(sorted(t.intermediate_values) == [1, 2] and len(t.values) == 3 for t in ended)


def failing_once(job: TrialJob, hooks: TrialHooks) -> float:
    trial: Any = job.trial
    if trial.number == 0:
        raise DivergedError("the loss is nan")
    return run_trial(job, hooks)


@pytest.mark.usefixtures("keeps_threads")
def test_a_trial_that_ends_badly_is_the_worst_in_every_objective(folder: Path) -> None:
    stored = make(f"sqlite:///{folder / 'searchae.db'}", folder)
    work(stored, folder, train=failing_once)
    first, *rest = stored.study.get_trials()
    assert first.state == TrialState.COMPLETE
    assert first.values == [-math.inf, -math.inf, math.inf]
    assert all(math.isfinite(value) for trial in rest for value in trial.values)
    assert 0 not in [trial.number for trial in stored.study.best_trials]
    summary = summarize(stored, Coordinator(stored))
    assert 0 not in [row.number for row in summary.front]
    assert summary.best is not None
    assert find_trial(stored, "best").number == summary.best.number


@pytest.mark.parametrize("setting", ["auto", "public"])
def test_all_values_are_stored_with_the_lease_s_end_or_none(
    database: str, folder: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_OPTUNA", setting)
    stored = make(database, folder)
    ledger = Coordinator(stored)
    trial_id = ledger.claim()
    assert isinstance(trial_id, int)
    values = (21.5, 0.25, 4096.0)
    stored.storage.set_trial_state_values(trial_id, TrialState.WAITING)
    assert not ledger.finish(trial_id, TrialState.COMPLETE, values[0], values[1:])
    assert stored.storage.get_trial(trial_id).values is None
    assert ledger.holds(trial_id)
    ledger.release(trial_id)
    assert ledger.claim() == trial_id
    assert ledger.finish(trial_id, TrialState.COMPLETE, values[0], values[1:])
    assert ledger.finish(trial_id, TrialState.COMPLETE, values[0], values[1:]), "told again"
    assert stored.storage.get_trial(trial_id).values == list(values)
    (seen,) = optuna.load_study(study_name="tiny", storage=database).trials
    assert seen.values == list(values)
    stored.storage.engine.dispose()


@pytest.mark.usefixtures("keeps_threads")
def test_the_report_and_the_dashboard_show_the_front(folder: Path) -> None:
    stored = make(f"sqlite:///{folder / 'searchae.db'}", folder, search__trials=12)
    work(stored, folder)
    found = collect_findings(stored, artifacts=folder / "artifacts")
    assert found.front
    page = report_page(found)
    assert '<section id="front">' in page
    assert page.count('id="pareto-front"') == 1, "the plot's place"
    assert found.importances.shares, "they are about the PSNR"
    app = application(stored.storage, ServerOptions("127.0.0.1", 8080, folder / "artifacts"))
    status, _, body = get(app, f"/api/studies/{stored.id}", "after=0")
    assert status.startswith("200")
    told = json.loads(body)
    assert told["directions"] == ["maximize", "maximize", "minimize"]
    assert told["objective_names"] == ["psnr_db", "sparsity", "parameters"]
    assert all(len(t["values"]) == 3 for t in told["trials"])
    assert "On the front, which no other trial dominates" in told["note"]["body"]
    assert "Objectives: " in told["trials"][found.front[0].row.number]["note"]["body"]


def import_into(folder: Path, source: StoredStudy, name: str, **changes: Any) -> list[FrozenTrial]:
    keys = {"model.latent_dim": {"low": 2, "high": 16}, "train.epochs": 2, **changes}
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=keys)
    made, _ = open_study(
        source.storage,
        name,
        spec=spec,
        data_hash=source.data_hash,
        baseline_db=BASELINE_DB,
        warm_start=source,
    )
    return made.study.get_trials()


@pytest.mark.usefixtures("keeps_threads")
def test_a_warm_start_takes_what_was_measured_from_one_kind_of_study_to_the_other(
    folder: Path,
) -> None:
    url = f"sqlite:///{folder / 'searchae.db'}"
    single = make(url, folder, search__objectives=["psnr"], search__sampler="random")
    work(single, folder)
    complete = [t for t in single.study.get_trials() if t.state == TrialState.COMPLETE]
    assert 0 < len(complete) < 6, "others were pruned, whose sparsity is not known at the end"
    changes: dict[str, Any] = {"search.objectives": ["psnr", "sparsity"]}
    imported = import_into(folder, single, "several", **changes)
    assert [t.values[0] for t in imported] == [t.value for t in complete]
    sparsities = [t.user_attrs["searchae:history"]["sparsity"][-1] for t in complete]
    assert [t.values[1] for t in imported] == sparsities
    back = import_into(folder, load_study(single.storage, "several"), "back")
    assert [t.values for t in back] == [[t.value] for t in complete]


@pytest.mark.parametrize("objective", ["parameters", "latent_dim"])
def test_a_size_that_is_the_same_in_every_net_is_no_objective(
    searchae: RunCommand, folder: Path, objective: str
) -> None:
    refused = searchae(
        *("tune", "-s", "tiny", "--dry-run"),
        *("--set", f'search.objectives=["psnr", "{objective}"]'),
    )
    assert refused.returncode == 2
    assert f"search.objectives: {objective} is " in refused.stderr
    assert "in every net of this study" in refused.stderr
    assert not (folder / "searchae.db").exists()
