"""Reports within the first epoch (``search.first_report``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from searchae.dashboard.trial_json import trial_document, trial_json
from searchae.report import trials as trial_table
from searchae.report.findings import trial_run
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, open_study
from searchae.study.summary import summarize
from searchae.training.epoch import EpochResult
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from tests.integration.tiny_search import make_study, trials, worker

pytestmark = pytest.mark.usefixtures("keeps_threads")

MakeStudy = Callable[..., StoredStudy]


class Killed(BaseException):
    """Ends a worker as SIGKILL does: nothing is put back."""


@pytest.fixture
def study(folder: Path) -> MakeStudy:
    def make(name: str = "tiny", **changes: Any) -> StoredStudy:
        keys = {
            "search__pruner": "asha",
            "search__first_report": 0.25,
            "search__trials": 8,
            "search__reduction_factor": 2,
            "train__epochs": 4,
            "train__batch_size": 8,  # 12 steps an epoch
        }
        return make_study(folder, name, **(keys | changes))

    return make


def last_step(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values)


def test_trials_are_paused_and_promoted_within_the_first_epoch(
    study: MakeStudy, folder: Path
) -> None:
    stored = study()
    assert worker(stored, folder).run().paused > 0
    found = trials(stored)
    counts = Coordinator(stored).counts()
    assert (counts.finished, counts.paused, counts.waiting, counts.running) == (8, 0, 0, 0)
    # Steps are quarters of an epoch: 4 of 8 pass the first, 2 the half, 1 the first epoch. No
    # second one comes so far: it goes on to its end, since no trial is complete otherwise.
    assert sorted(map(last_step, found)) == [1, 1, 1, 1, 2, 2, 4, 16]
    (best,) = [t for t in found if t.state == TrialState.COMPLETE]
    assert sorted(best.intermediate_values) == [1, 2, 4, 8, 12, 16]
    summary = summarize(stored, Coordinator(stored))
    assert summary.epochs_run == 4 * 0.25 + 2 * 0.5 + 1 + 4
    assert summary.epochs_saved == 8 * 4 - summary.epochs_run
    assert all(r.seconds is not None and r.seconds > 0 for r in summary.rows)


def test_a_trial_paused_within_the_epoch_comes_to_the_same_result_to_the_bit(
    study: MakeStudy, folder: Path
) -> None:
    stored = study()
    worker(stored, folder).run()
    (best,) = [t for t in trials(stored) if t.state == TrialState.COMPLETE]
    plain = study("plain", search__pruner="none", search__first_report=1, search__trials=1)
    plain.study.enqueue_trial(best.params)
    worker(plain, folder).run()
    reports = trials(plain)[0].intermediate_values
    assert {e: v for e, v in best.intermediate_values.items() if e % 4 == 0} == {
        4 * e: v for e, v in reports.items()
    }


@pytest.mark.parametrize("reports", [1, 2, 3])
def test_a_trial_whose_worker_is_killed_goes_on_from_its_last_report(
    study: MakeStudy, folder: Path, reports: int
) -> None:
    stored = study(search__pruner="none", search__trials=1)
    trained: list[float] = []

    def killed(job: TrialJob, hooks: TrialHooks) -> float:
        def on_result(result: EpochResult) -> None:
            hooks.on_result(result)
            trained.append(result.epochs)
            if len(trained) == reports + 1:
                raise Killed

        return run_trial(job, replace(hooks, on_result=on_result))

    with pytest.raises(Killed):
        worker(stored, folder, train=killed).run()
    again: list[float] = []

    def watched(job: TrialJob, hooks: TrialHooks) -> float:
        def on_result(result: EpochResult) -> None:
            hooks.on_result(result)
            again.append(result.epochs)

        return run_trial(job, replace(hooks, on_result=on_result))

    Coordinator(stored).reap(trust_silence=True)
    worker(stored, folder, train=watched).run()
    (trial,) = trials(stored)
    assert trial.state == TrialState.COMPLETE
    assert trained + again == [0.25, 0.5, 1, 2, 3, 4]
    undisturbed = study("undisturbed", search__pruner="none", search__trials=1)
    undisturbed.study.enqueue_trial(trial.params)
    worker(undisturbed, folder).run()
    assert trials(undisturbed)[0].intermediate_values == trial.intermediate_values


def test_successive_halving_prunes_within_the_first_epoch(study: MakeStudy, folder: Path) -> None:
    stored = study(search__pruner="successive-halving", search__trials=10)
    worker(stored, folder).run()
    pruned = [t for t in trials(stored) if t.state == TrialState.PRUNED]
    assert min(map(last_step, pruned)) == 1
    assert Coordinator(stored).counts().finished == 10


def test_curves_and_tables_count_in_epochs(study: MakeStudy, folder: Path) -> None:
    stored = study()
    worker(stored, folder).run()
    best = max(trials(stored), key=last_step)
    run = trial_run(stored.spec, best)
    assert list(run.reports) == [0.25, 0.5, 1, 2, 3, 4]
    assert run.row.epochs == 4
    rows = trial_table("tiny", storage=f"sqlite:///{folder / 'tiny.db'}")
    assert sorted(row["epochs"] for row in rows) == [0.25] * 4 + [0.5] * 2 + [1, 4]
    document = trial_document(best, trial_id=1, study_id=1, study_attributes={})
    shown = json.loads(trial_json(document, run.reports))["intermediate_values"]
    assert [value["step"] for value in shown] == [0.25, 0.5, 1, 2, 3, 4]


def test_a_warm_start_takes_over_the_reports_that_the_new_study_has_steps_for(
    study: MakeStudy, folder: Path
) -> None:
    stored = study()
    worker(stored, folder).run()
    search = stored.spec.search.model_copy(update={"first_report": 1.0})
    spec = replace(stored.spec, search=search)
    new, _ = open_study(
        stored.storage,
        "new",
        spec=spec,
        data_hash=stored.data_hash,
        baseline_db=11.5,
        warm_start=stored,
    )
    taken = [sorted(t.intermediate_values) for t in trials(new)]
    assert sorted(taken) == [[1], [1, 2, 3, 4]], "those that were pruned within the epoch are not"
