"""How long a search takes: before it starts, and while it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from searchae.config import StudySpec, spec_from_document
from searchae.search import expected_epochs
from searchae.study.budget import TrialCounts
from searchae.study.time_to_go import RunningTrials, time_to_go_s
from searchae.tuning.duration import Duration

COUNTS = TrialCounts(budget=12, complete=2, pruned=0, failed=0, running=2, waiting=0)
NONE = RunningTrials()


def searched(epochs: int, **search: Any) -> StudySpec:
    document = {
        "data": {"name": "mnist"},
        "train": {"epochs": epochs, "learning_rate": {"low": 1e-4, "high": 1e-2}},
        "search": {"min_epochs": 1, **search},
    }
    return spec_from_document(document, source="test")


@pytest.mark.parametrize(
    ("pruner", "factor", "shares"),
    [  # of the epochs without a pruner, in the replays of benchmarks/defaults.md
        ("successive-halving", 2, {6: 0.524, 12: 0.379, 30: 0.287}),
        ("successive-halving", 3, {6: 0.48, 12: 0.337, 30: 0.235}),
        ("hyperband", 3, {6: 0.59, 12: 0.52, 30: 0.41}),
        ("median", 2, {6: 0.61, 12: 0.51, 30: 0.46}),
        ("none", 2, {6: 1.0, 30: 1.0}),
    ],
)
def test_the_expected_epochs_are_near_those_of_replayed_searches(
    pruner: str, factor: int, shares: dict[int, float]
) -> None:
    for epochs, share in shares.items():
        spec = searched(epochs, pruner=pruner, reduction_factor=factor)
        assert expected_epochs(spec) / epochs == pytest.approx(share, rel=0.2)


def test_no_trial_takes_more_epochs_than_a_full_training_nor_less_than_its_first_rung() -> None:
    for pruner in ("successive-halving", "hyperband", "median", "asha", "none"):
        for epochs in (1, 2, 9, 100):
            for first in {1, min(4, epochs), epochs}:
                found = expected_epochs(searched(epochs, pruner=pruner, min_epochs=first))
                assert first <= found + 1e-9
                assert found <= epochs + 1e-9


def test_asha_promotes_one_in_two() -> None:
    assert expected_epochs(searched(8, pruner="asha")) == 1 + 1 / 2 + 2 / 4 + 4 / 8


def test_nothing_is_pruned_with_several_objectives() -> None:
    spec = searched(8, objectives=["psnr", "sparsity"], sampler="tpe")
    assert expected_epochs(spec) == 8


def test_before_a_trial_has_ended_the_first_epochs_tell() -> None:
    begun = RunningTrials(epochs=4, seconds=8.0)
    assert time_to_go_s(COUNTS, [], begun, workers=2, expected_epochs=10) == 2.0 * 10 * 5
    assert time_to_go_s(COUNTS, [], NONE, workers=2, expected_epochs=10) is None, "nothing is known"


def test_finished_trials_take_the_place_of_what_was_expected() -> None:
    for ended, each in ((2, 40.0), (196, 20.6)):
        found = time_to_go_s(COUNTS, ended * [(20, 20.0)], NONE, workers=2, expected_epochs=50)
        assert found == pytest.approx(each * 5)


def test_the_epochs_of_running_trials_count_too() -> None:
    ended = 2 * [(20, 20.0)]
    for running, each in ((NONE, 20.0), (RunningTrials(epochs=60, seconds=1e6), 30.0)):
        found = time_to_go_s(COUNTS, ended, running, workers=2, expected_epochs=20)
        assert found == pytest.approx(each * 5), "the first to end are those that were pruned"


def test_there_is_nothing_to_say_without_workers_or_work() -> None:
    ended = [(20, 20.0)]
    assert time_to_go_s(COUNTS, ended, NONE, workers=0, expected_epochs=20) is None
    over = replace(COUNTS, complete=12)
    assert time_to_go_s(over, ended, NONE, workers=2, expected_epochs=20) is None


def test_the_expected_time_is_said_beside_the_longest() -> None:
    said = Duration(step_s=0.01, epoch_s=1.0, expected_s=600.0, at_most_s=3600.0, trials=6).text
    assert said == "about 10 min 00 s for 6 trials; without pruning, about 1 h 00 min"
    assert Duration(0.01, 1.0, 3600.0, 3600.0, trials=1).text == "about 1 h 00 min for 1 trial"
    assert Duration(0.01, 1.0, 0.0, 0.0).text == "nothing is left to run"
