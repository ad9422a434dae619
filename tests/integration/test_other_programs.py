"""Trials that another program adds to a study or enqueues in it, through Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.errors import UserError
from searchae.report.findings import collect_findings
from searchae.retrain.plan import find_trial
from searchae.search.distributions import to_distribution
from searchae.storage import fetch_trials
from searchae.storage.connection import connect
from searchae.study import foreign_trials
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study
from searchae.study.summary import Summary, summarize
from searchae.tuning import tune
from tests.thread_launcher import Recorder, ThreadLauncher, tiny_request

pytestmark = pytest.mark.usefixtures("keeps_threads")
VALID = {"activation": "tanh", "optimizer": "sgd", "learning_rate": 0.003, "regularizer": "clip"}


@pytest.fixture
def run(folder: Path) -> Callable[[int], tuple[Summary, list[str]]]:
    def run(trials: int, **more: Any) -> tuple[Summary, list[str]]:
        watcher = Recorder()
        overrides = ("train.epochs=1", *more.get("overrides", ()))
        url = f"sqlite:///{folder / 'searchae.db'}"
        request = tiny_request(folder, url, trials=trials, overrides=overrides)
        return tune(request, watcher, ThreadLauncher()), watcher.notes

    return run


def stored_in(folder: Path) -> StoredStudy:
    return load_study(connect(f"sqlite:///{folder / 'searchae.db'}"), "tiny")


def optuna_study(folder: Path) -> optuna.Study:
    """As another program opens it."""
    url = f"sqlite:///{folder / 'searchae.db'}"
    return optuna.load_study(study_name="tiny", storage=url)


def add(folder: Path, params: dict[str, Any], **more: Any) -> None:
    space = {p.name: to_distribution(p) for p in stored_in(folder).spec.space}
    described: dict[str, BaseDistribution] = {
        name: space.get(name, FloatDistribution(0, 1)) for name in params
    }
    made = create_trial(params=params, distributions=described, **{"value": 99.0, **more})
    optuna_study(folder).add_trial(made)


@pytest.mark.parametrize("params", [VALID, {"activation": "tanh"}, {**VALID, "l1_weight": 1e-4}])
def test_an_enqueued_trial_is_trained_as_it_is(
    folder: Path, run: Callable[[int], Any], params: dict[str, Any]
) -> None:
    run(1)
    optuna_study(folder).enqueue_trial(params)
    summary, _ = run(2)
    trial = stored_in(folder).study.trials[1]
    assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert {k: v for k, v in params.items() if k in trial.params} == {
        k: v for k, v in params.items() if k != "l1_weight"
    }
    assert summary.counts.finished == 2


def test_an_enqueued_trial_is_not_one_of_the_search_s_first(
    folder: Path, run: Callable[..., Any]
) -> None:
    """They have numbers that are taken from the trial's own."""
    first = {"overrides": ('search.first=[{activation="relu"}, {activation="relu"}]',)}
    run(1, **first)
    optuna_study(folder).enqueue_trial({"activation": "tanh"})
    run(2, **first)
    assert stored_in(folder).study.trials[1].params["activation"] == "tanh"


OUTSIDE = [
    ({**VALID, "activation": "swish"}, "activation = 'swish' is not in the space (relu, tanh)"),
    ({**VALID, "learning_rate": 0.5}, "learning_rate = 0.5 is not in the space (0.0001 to 0.1)"),
    ({**VALID, "learning_rate": "fast"}, "learning_rate = 'fast' is not in the space"),
    ({**VALID, "learning_rate": math.nan}, "learning_rate = nan is not in the space"),
    ({**VALID, "dropout": 0.5}, "dropout is not searched (searched: activation, optimizer,"),
]


def test_an_enqueued_trial_outside_the_space_is_marked_and_left_alone(
    folder: Path, run: Callable[[int], Any]
) -> None:
    run(1)
    for params, _ in OUTSIDE:
        optuna_study(folder).enqueue_trial(params)
    summary, _ = run(3)
    assert (summary.counts.finished, summary.counts.failed) == (3, len(OUTSIDE))
    assert summary.outcomes == {"invalid": len(OUTSIDE)}
    assert not Coordinator(stored_in(folder)).stopped()
    for marked, (_, why) in zip(stored_in(folder).study.trials[1:], OUTSIDE, strict=False):
        assert marked.state == TrialState.FAIL
        assert f"enqueued by another program: {why}" in marked.user_attrs["searchae:error"]


def test_an_added_trial_within_the_space_is_one_of_the_study(
    folder: Path, run: Callable[[int], Any]
) -> None:
    run(1)
    add(folder, VALID)
    summary, _ = run(3)
    assert summary.counts.complete + summary.counts.pruned == 3
    assert len(stored_in(folder).study.trials) == 3
    assert summary.best.number == find_trial(stored_in(folder), "best").number == 1


ADDED: list[dict[str, Any]] = [
    {"params": {"x": 1.0}},
    {"params": {**VALID, "x": 1.0}},
    {"params": {"activation": "tanh"}},
    {"params": {}},
    {"params": VALID, "value": math.inf},
    {"params": {"x": 1.0}, "value": None, "state": TrialState.PRUNED},
]


def test_an_added_trial_that_fits_is_looked_at_once(
    folder: Path, run: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else 20,000 of them are read again, under the lock, whenever a worker asks for more."""
    run(1)
    add(folder, VALID)
    coordinator = Coordinator(stored_in(folder))
    looked_at: list[int] = []

    def fetch(connection: sa.Connection, ids: list[int]) -> dict[int, FrozenTrial]:
        looked_at.extend(ids)
        return fetch_trials(connection, ids)

    monkeypatch.setattr(foreign_trials, "fetch_trials", fetch)
    assert [coordinator.mark_invalid() for _ in range(3)] == [0, 0, 0]
    assert len(looked_at) == 1
    add(folder, {"x": 1.0})
    assert [coordinator.mark_invalid() for _ in range(3)] == [1, 0, 0]
    assert len(looked_at) == 2


def test_an_added_trial_outside_the_space_is_marked_and_left_alone(
    folder: Path, run: Callable[[int], Any]
) -> None:
    run(1)
    for trial in ADDED:
        add(folder, **trial)
    before = summarize(stored_in(folder), Coordinator(stored_in(folder)))
    assert before.best is None or before.best.number == 0
    for number in range(1, len(ADDED) + 1):
        with pytest.raises(UserError, match=f"--trial {number}: ended badly"):
            find_trial(stored_in(folder), str(number))
    summary, notes = run(3)
    assert "6 trials of another program left alone" in "\n".join(notes)
    assert summary.counts.finished == 3
    assert summary.outcomes == {"invalid": len(ADDED)}
    trials = stored_in(folder).study.trials
    assert len(trials) == 3 + len(ADDED)
    left = trials[1 : 1 + len(ADDED)]
    assert [t.params for t in left] == [trial["params"] for trial in ADDED]
    assert [t.values for t in left] == [[99.0]] * 4 + [[math.inf], None]
    best = find_trial(stored_in(folder), "best").number
    assert summary.best.number == best
    assert best not in range(1, len(ADDED) + 1)
    named = stored_in(folder).study.best_trial.number
    assert named in range(1, len(ADDED) + 1), "which Optuna cannot know"
    told = f"Optuna's own best_trial names trial {named} (inf dB), which is invalid here and left "
    for looked_at in (before, summary):
        assert [w for w in looked_at.warnings if w.startswith(told)]


def test_one_that_is_added_as_the_last_one_does_not_end_the_search_early(
    folder: Path, run: Callable[[int], Any]
) -> None:
    """Nobody has marked it when the last worker asks for a trial."""
    run(1)
    ledger = Coordinator(stored_in(folder))
    ledger.set_budget(2)
    add(folder, {"x": 1.0})
    assert isinstance(ledger.claim(), int)


def test_nothing_is_saved_by_a_trial_that_another_program_trained(
    folder: Path, run: Callable[[int], Any]
) -> None:
    run(1)
    before = summarize(stored_in(folder), Coordinator(stored_in(folder)))
    add(folder, VALID)
    after = summarize(stored_in(folder), Coordinator(stored_in(folder)))
    assert after.counts.complete == before.counts.complete + 1
    assert (after.epochs_full, after.epochs_saved) == (before.epochs_full, before.epochs_saved)


def test_no_figure_counts_what_another_program_added_outside_the_space(
    folder: Path, run: Callable[[int], Any]
) -> None:
    run(12)
    before = collect_findings(stored_in(folder), artifacts=folder)
    add(folder, {"x": 1.0}, value=99.0)
    add(folder, VALID, state=TrialState.PRUNED, value=None, intermediate_values={500: 11.0})
    with warnings.catch_warnings(action="error"):
        after = collect_findings(stored_in(folder), artifacts=folder)
    assert before.importances.shares
    assert set(after.importances.shares) == set(before.importances.shares)
    assert after.importances.trials == before.importances.trials + 1
    assert after.summary.epochs_run <= before.summary.epochs_run + stored_in(folder).spec.epochs


def test_what_is_enqueued_beyond_the_budget_is_said(
    folder: Path, run: Callable[[int], Any]
) -> None:
    run(1)
    optuna_study(folder).enqueue_trial(VALID)
    said = summarize(stored_in(folder), Coordinator(stored_in(folder))).warnings
    (told,) = (line for line in said if "waiting" in line)
    assert told == "1 trial waiting beyond the budget of 1: --trials 2 runs them too"
