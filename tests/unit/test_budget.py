"""Counting the budget: may one more trial start?"""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from searchae.study.attributes import BUDGET, IMPORTED, STOPPED, TIME_LIMIT
from searchae.study.budget import NoTrial, TrialCounts, seconds_left, why_no_trial

NOW_S = 1000.0
COMPLETE, PRUNED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING


@pytest.mark.parametrize(
    ("by_state", "attributes", "answer"),
    [
        ({}, {}, None),
        ({COMPLETE: 2, PRUNED: 1}, {}, NoTrial.DONE),
        ({COMPLETE: 2, PRUNED: 1}, {BUDGET: 4}, None),
        ({COMPLETE: 2, RUNNING: 1}, {}, NoTrial.WAIT),
        ({COMPLETE: 2, TrialState.FAIL: 7}, {}, None),
        ({COMPLETE: 2, TrialState.WAITING: 1}, {}, None),
        ({COMPLETE: 2, PRUNED: 2}, {IMPORTED: {"complete": 1, "pruned": 1}}, None),
        ({COMPLETE: 1}, {TIME_LIMIT: NOW_S}, NoTrial.TIME_UP),
        ({COMPLETE: 1}, {TIME_LIMIT: NOW_S + 1}, None),
        ({COMPLETE: 1}, {TIME_LIMIT: None}, None),
        ({COMPLETE: 3}, {TIME_LIMIT: 0.0}, NoTrial.DONE),
        ({COMPLETE: 3}, {STOPPED: "a bug"}, NoTrial.STOPPED),
        ({COMPLETE: 1}, {STOPPED: ""}, None),
    ],
)
def test_why_no_trial_may_be_claimed(
    by_state: dict[TrialState, int], attributes: dict[str, Any], answer: NoTrial | None
) -> None:
    counts = TrialCounts.of(by_state, attributes, default_budget=3)
    assert why_no_trial(counts, attributes, NOW_S) is answer


def test_seconds_until_the_time_limit() -> None:
    assert seconds_left({}, NOW_S) is None
    assert seconds_left({TIME_LIMIT: NOW_S + 5}, NOW_S) == 5.0
    assert seconds_left({TIME_LIMIT: NOW_S - 5}, NOW_S) == -5.0
