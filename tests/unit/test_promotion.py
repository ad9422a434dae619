"""Which paused trial goes on."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config.loader import spec_from_document
from searchae.search.promotion import PAUSED, Rungs, is_paused


def rungs(epochs: int = 10, factor: int = 2, first: int = 1) -> Rungs:
    document = {
        "data": {"name": "svhn"},
        "train": {"epochs": epochs, "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        "search": {"pruner": "asha", "reduction_factor": factor, "min_epochs": first},
    }
    return Rungs(spec_from_document(document, source="test"))


def trial(
    *psnrs_db: float, state: TrialState = TrialState.WAITING, **attributes: Any
) -> FrozenTrial:
    user_attrs = attributes or ({PAUSED: len(psnrs_db)} if state == TrialState.WAITING else {})
    value = psnrs_db[-1] if state in (TrialState.COMPLETE, TrialState.PRUNED) else None
    return create_trial(
        state=state,
        value=value,
        intermediate_values=dict(enumerate(psnrs_db, start=1)),
        user_attrs=user_attrs,
    )


def numbered(*trials: FrozenTrial) -> list[FrozenTrial]:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study.get_trials(deepcopy=False)


def test_rungs_lie_below_the_last_epoch() -> None:
    assert rungs(10).steps == (1, 2, 4, 8)
    assert rungs(8).steps == (1, 2, 4)
    assert rungs(10, factor=3, first=2).steps == (2, 6)
    assert rungs(3, first=3).steps == ()


def test_one_in_so_many_goes_on_and_the_first_waits_for_others() -> None:
    asked = rungs(factor=3)
    assert not asked.goes_on(numbered(trial(20.0)), 0, step=1, psnr_db=20.0)
    three = numbered(trial(20.0), trial(19.0), trial(18.0))
    assert asked.promotable(three) == [0]
    assert asked.goes_on(three, 3, step=1, psnr_db=20.5)
    assert not rungs(factor=3).goes_on(three, 3, step=1, psnr_db=19.5)
    assert rungs(factor=3).goes_on(three, 3, step=2, psnr_db=1.0), "no rung"


def test_the_highest_rung_comes_first_and_then_the_best() -> None:
    found = numbered(
        trial(10.0, 11.0),
        trial(10.0, 12.0),
        trial(9.0),
        trial(9.5),
        trial(1.0),
        trial(2.0),
        trial(3.0, state=TrialState.PRUNED),
        trial(4.0, state=TrialState.PRUNED),
    )
    assert rungs().promotable(found) == [1, 3, 2], "1 of 2 after two epochs, 4 of 8 after one"


def test_running_and_finished_trials_count_but_only_paused_ones_are_taken_up() -> None:
    running = trial(18.0, state=TrialState.RUNNING)
    put_back = trial(17.0, other=1)
    found = numbered(trial(19.0), running, put_back, trial(5.0, state=TrialState.PRUNED))
    assert [is_paused(t) for t in found] == [True, False, False, False]
    assert rungs().promotable(found) == [0]
    assert rungs().promotable(numbered(trial(19.0), running)) == [0]
    better = trial(20.0, state=TrialState.RUNNING)
    assert rungs().promotable(numbered(trial(19.0), better, put_back)) == []


def test_a_plateau_counts_on_the_rungs_that_it_did_not_come_to() -> None:
    ended = trial(20.0, 21.0, state=TrialState.COMPLETE)
    waits = trial(19.0, 19.5, 19.6, 19.7)
    assert rungs().promotable(numbered(waits, trial(15.0, 15.0, 15.0, 15.0))) == [0]
    assert rungs().promotable(numbered(ended, waits)) == [], "21 dB are better than 19.7"


def test_what_was_read_once_is_read_no_more() -> None:
    asked = rungs()
    found = numbered(trial(20.0, state=TrialState.PRUNED), trial(19.0))
    assert asked.promotable(found) == []
    found = [*found, numbered(*found, trial(1.0), trial(1.0, state=TrialState.PRUNED))[2]]
    assert asked.promotable(found) == [], "two of three are no better than half"
    found = numbered(*found[:2], trial(1.0), trial(1.0, state=TrialState.PRUNED))
    assert asked.promotable(found) == [1]


@pytest.mark.parametrize("psnr_db", [math.nan, -math.inf])
def test_what_is_no_number_is_the_worst(psnr_db: float) -> None:
    found = numbered(trial(psnr_db), trial(-5.0))
    assert rungs().promotable(found) == [1]
