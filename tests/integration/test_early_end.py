"""A search that ends by itself (``search.stop_when_stable``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from searchae.cli import console
from searchae.errors import UserError
from searchae.study.budget import NoTrial
from searchae.study.coordination import Coordinator
from searchae.study.early_end import trials_without_gain
from searchae.study.stored_study import StoredStudy
from searchae.study.summary import Summary, summarize
from searchae.training import PrunedError
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob
from searchae.worker.options import WorkerOptions
from tests.integration import finished_studies

pytestmark = pytest.mark.usefixtures("keeps_threads")

PRUNED = 0.0


@pytest.mark.parametrize(
    ("results", "count"),
    [
        ([], 0),
        ([None, None], 2),
        ([20.0], 0),
        ([20.0, 21.0, None, 19.0], 2),
        ([20.0, 20.04, 20.04], 2),  # no gain that is worth a name
        ([20.0, 20.04, 20.06], 0),
        ([None, 20.0, None], 1),
    ],
)
def test_trials_after_the_best_are_counted(results: list[float | None], count: int) -> None:
    assert trials_without_gain(results) == count


@pytest.fixture
def opened(folder: Path) -> Callable[..., StoredStudy]:
    def make(**changes: Any) -> StoredStudy:
        keys = {"search.sampler": "random", "search.pruner": "none"}
        keys |= {k.replace("__", "."): v for k, v in changes.items()}
        stored = finished_studies.open_tiny(folder, keys)
        Coordinator(stored).set_budget(stored.spec.search.trials)  # as ``tune`` does
        return stored

    return make


def run(stored: StoredStudy, folder: Path, psnr_db: Sequence[float]) -> Summary:
    """Runs a worker whose trials come to these values, in order of their numbers."""

    def train(job: TrialJob, _hooks: TrialHooks) -> float:
        value = psnr_db[len(stored.study.trials) - 1]
        job.trial.report(value, 1)
        if value == PRUNED:
            raise PrunedError
        return value

    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    Worker(stored, options, train=train).run()
    return summarize(stored, Coordinator(stored))


def test_a_search_ends_when_nothing_improves_and_says_what_it_saved(
    opened: Callable[..., StoredStudy], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = opened(search__trials=10, search__stop_when_stable=3)
    values = [20.0, 21.0, PRUNED, 21.03, 19.0, 25.0]
    found = run(stored, folder, values)
    assert found.counts.finished == found.counts.budget == 5
    assert found.counts.pruned == 1
    said = "after 5 of 10 trials: none of the last 3 beat the best one before by 0.05 dB"
    assert found.early_end is not None
    assert said in found.early_end.text
    assert "about 5 epochs saved" in found.early_end.text, "one epoch each"
    assert found.document()["early_end"]["budget"] == 10
    console.print_summary(found)
    assert "by itself after 5 of 10 trials" in capsys.readouterr().out.replace("\n", " ")

    # The same again: nothing is trained.
    stored = opened(search__trials=10, search__stop_when_stable=3)
    again = run(stored, folder, values)
    assert again.counts.finished == again.counts.budget == 5
    assert again.early_end == found.early_end

    # A larger number goes on, to a better trial.
    stored = opened(search__trials=10, search__stop_when_stable=5)
    more = run(stored, folder, [*values, *(5 * [24.0])])
    assert more.counts.finished == more.counts.budget == 10
    assert more.early_end is None, "the budget was spent"
    assert more.best is not None
    assert more.best.number == 5


def test_the_last_running_trial_is_waited_for(opened: Callable[..., StoredStudy]) -> None:
    stored = opened(search__trials=10, search__stop_when_stable=2)
    other = Coordinator(stored)
    slow = other.claim()
    assert isinstance(slow, int)
    own = Coordinator(stored)
    for _ in range(3):
        trial = own.claim()
        assert isinstance(trial, int)
        own.finish(trial, TrialState.COMPLETE, 20.0)
    assert own.claim() is NoTrial.WAIT, "it may be better"
    other.finish(slow, TrialState.COMPLETE, 22.0)
    assert isinstance(own.claim(), int), "it was"


def test_what_is_paused_ends_with_the_search(opened: Callable[..., StoredStudy]) -> None:
    stored = opened(search__trials=10, search__stop_when_stable=2, search__pruner="asha")
    own = Coordinator(stored)
    for number in range(4):
        trial = own.claim()
        assert isinstance(trial, int)
        if number == 0:
            own.pause(trial, step=1)
        else:
            own.finish(trial, TrialState.COMPLETE, 20.0)
    assert own.claim() is NoTrial.DONE
    counts = own.counts()
    assert (counts.complete, counts.pruned, counts.paused, counts.budget) == (3, 1, 0, 4)


def test_several_objectives_have_no_single_best(opened: Callable[..., StoredStudy]) -> None:
    with pytest.raises(UserError, match="stop_when_stable: needs a single objective"):
        opened(search__stop_when_stable=2, search__objectives=["psnr", "sparsity"])
