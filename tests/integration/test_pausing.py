"""Pausing and promoting trials (``search.pruner = "asha"``)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from searchae.search import PAUSED, is_paused
from searchae.study.budget import NoTrial
from searchae.study.coordination import Coordinator
from searchae.study.epoch_history import history_columns
from searchae.study.stored_study import StoredStudy
from searchae.study.summary import summarize
from searchae.training.epoch import EpochResult
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from tests.integration.tiny_search import make_study, trials, worker

pytestmark = pytest.mark.usefixtures("keeps_threads")

MakeStudy = Callable[..., StoredStudy]


@pytest.fixture
def study(folder: Path) -> MakeStudy:
    def make(name: str = "tiny", **changes: Any) -> StoredStudy:
        keys = {
            "search__pruner": "asha",
            "train__epochs": 6,
            "search__min_epochs": 1,
        }
        return make_study(folder, name, **(keys | changes))

    return make


def epochs(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values)


def checkpoints(stored: StoredStudy, folder: Path) -> set[int]:
    place = folder / f"artifacts-{stored.name}" / stored.folder / "checkpoints"
    return {int(p.name[:6]) for p in place.iterdir()}


def test_trials_are_paused_and_the_best_go_on_until_the_budget_is_met(
    study: MakeStudy, folder: Path
) -> None:
    stored = study(search__trials=8)
    results = worker(stored, folder).run()
    found = trials(stored)
    assert len(found) == 8
    assert {t.state for t in found} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert results.paused > 0
    counts = Coordinator(stored).counts()
    assert (counts.finished, counts.paused, counts.waiting, counts.running) == (8, 0, 0, 0)
    # Of 8 trials 4 pass the first rung, 2 the second and 1 the third: not more, and not fewer.
    assert sorted(map(epochs, found)) == [1, 1, 1, 1, 2, 2, 4, 6]
    for rung in (1, 2, 4):
        reached = [t for t in found if epochs(t) >= rung]
        ranks = sorted(reached, key=lambda t: t.intermediate_values[rung], reverse=True)
        # The order in which they came decides too; but the best of all is never held back.
        assert epochs(ranks[0]) > rung
    pruned = [t for t in found if t.state == TrialState.PRUNED]
    assert all(t.value == t.intermediate_values[epochs(t)] for t in pruned)
    assert all(len(history_columns(t.user_attrs)["seconds"]) == epochs(t) for t in found)


def test_a_paused_trial_comes_to_the_same_result_to_the_bit(study: MakeStudy, folder: Path) -> None:
    stored = study(search__trials=8)
    worker(stored, folder).run()
    (best,) = [t for t in trials(stored) if t.state == TrialState.COMPLETE]
    plain = study("plain", search__trials=8, search__pruner="none", search__sampler="random")
    plain.study.enqueue_trial(best.params)
    run = worker(plain, folder)

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        run.stop.set()  # after this trial
        stays = replace(hooks, should_stop=lambda: False, should_leave=lambda: False)
        return run_trial(job, stays)

    run.train = train
    run.run()
    assert trials(plain)[0].intermediate_values == best.intermediate_values


def test_above_their_greatest_number_the_least_promising_are_pruned(
    study: MakeStudy, folder: Path
) -> None:
    stored = study(search__trials=10, search__max_paused=2, train__epochs=4)
    most: list[int] = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        paused = [t for t in trials(stored) if is_paused(t)]
        most.append(len(paused))
        return run_trial(job, hooks)

    worker(stored, folder, train=train).run()
    assert max(most) == 2
    assert Coordinator(stored).counts().finished == 10
    assert checkpoints(stored, folder) <= {t.number for t in trials(stored) if epochs(t) > 1}


def most_bytes_of_paused_trials(stored: StoredStudy, folder: Path) -> int:
    """Runs a search; returns the most bytes that the checkpoints of its paused trials took."""
    most = 0

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        nonlocal most
        paused = {t.number for t in trials(stored) if is_paused(t)}
        files = (folder / f"artifacts-{stored.name}" / stored.folder / "checkpoints").glob("*.pt")
        sizes = [p.stat().st_size for p in files if int(p.name[:6]) in paused]
        most = max(most, sum(sizes))
        return run_trial(job, hooks)

    worker(stored, folder, train=train).run()
    assert Coordinator(stored).counts().finished == 10
    return most


def test_the_checkpoints_of_paused_trials_never_take_more_than_their_bound(
    study: MakeStudy, folder: Path
) -> None:
    keys: dict[str, float] = {"search__trials": 10, "train__epochs": 4}
    without = most_bytes_of_paused_trials(study("unbounded", **keys), folder)
    bound = without * 0.6
    keys["search__max_paused_gb"] = bound / 1e9
    assert 0 < most_bytes_of_paused_trials(study("bounded", **keys), folder) <= bound


def test_a_worker_that_leaves_keeps_the_paused_trials_for_the_next(
    study: MakeStudy, folder: Path
) -> None:
    stored = study(search__trials=6)
    stop = threading.Event()
    begun: list[int] = []

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        begun.append(1)
        if len(begun) == 4:
            stop.set()
        return run_trial(job, hooks)

    worker(stored, folder, train=train, stop=stop).run()
    counts = Coordinator(stored).counts()
    assert counts.paused >= 1
    assert counts.finished < 6
    summary = summarize(stored, Coordinator(stored))
    assert summary.counts.paused == counts.paused
    assert any("paused, and no worker is alive" in w for w in summary.warnings)
    assert {r.state for r in summary.rows} >= {"paused"}
    worker(stored, folder).run()
    assert Coordinator(stored).counts().finished == 6
    assert not [t for t in trials(stored) if t.user_attrs.get(PAUSED) and not t.state.is_finished()]


def test_nothing_is_settled_while_a_trial_is_running(study: MakeStudy, folder: Path) -> None:
    stored = study(search__trials=2)
    one, other = Coordinator(stored), Coordinator(stored)
    other.identity = replace(other.identity, worker="other")
    first = one.claim()
    assert isinstance(first, int)
    stored.storage.set_trial_intermediate_value(first, 1, 20.0)
    assert one.pause(first, step=1) == []
    second = other.claim()
    assert isinstance(second, int)
    assert second != first, "a paused trial is not taken up unasked"
    assert one.claim() is NoTrial.WAIT
    assert one.claim(settle=True) is NoTrial.WAIT
    stored.storage.set_trial_intermediate_value(second, 1, 10.0)
    other.pause(second, step=1)
    assert one.claim() is NoTrial.SETTLE
    assert other.claim(promotable=[first, second]) == first, "the one that is named first"
    assert one.claim(promotable=[first]) is NoTrial.WAIT, "it is running already"
    assert other.finish(first, TrialState.COMPLETE, 25.0)
    assert one.claim(settle=True) is NoTrial.DONE
    assert [t.state for t in trials(stored)] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert trials(stored)[1].value == 10.0


def test_a_pause_after_the_lease_was_lost_changes_nothing(study: MakeStudy) -> None:
    stored = study(search__trials=2)
    one, other = Coordinator(stored), Coordinator(stored)
    other.identity = replace(other.identity, worker="other")
    claimed = one.claim()
    assert isinstance(claimed, int)
    other.pause(claimed, step=1)
    assert trials(stored)[0].state == TrialState.RUNNING
    assert one.holds(claimed)


def test_it_is_trained_from_its_checkpoint_on(study: MakeStudy, folder: Path) -> None:
    stored = study(search__trials=8)
    trained: dict[int, list[int]] = {}

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: EpochResult) -> None:
            trained.setdefault(job.checkpoints.number, []).append(result.epoch)
            hooks.on_result(result)

        return run_trial(job, replace(hooks, on_result=on_epoch))

    worker(stored, folder, train=train).run()
    for trial in trials(stored):
        assert trained[trial.number] == list(range(1, epochs(trial) + 1)), "each epoch once"
