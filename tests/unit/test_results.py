"""Which trials have a result."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config.loader import spec_from_document
from searchae.study.attributes import OUTCOME, WARM_START
from searchae.study.results import has_result, result_db
from searchae.study.summary import trial_row

SPEC = spec_from_document({"data": {"name": "svhn"}, "train": {"epochs": 2}}, source="test")
COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED


def trial(state: TrialState, value: float | None = None, **attributes: Any) -> FrozenTrial:
    return create_trial(
        state=state,
        value=value,
        intermediate_values={1: 19.0},
        user_attrs=attributes,
    )


WITHOUT_RESULT = {
    "pruned": trial(PRUNED),
    "pruned, with a value": trial(PRUNED, 19.0),
    "diverged": trial(COMPLETE, 11.5, **{OUTCOME: "diverged"}),
    "dead": trial(COMPLETE, 11.5, **{OUTCOME: "dead"}),
    "too large": trial(COMPLETE, 11.5, **{OUTCOME: "out-of-memory"}),
    "imported": trial(COMPLETE, 20.0, **{WARM_START: "other #3"}),
    "imported and pruned": trial(PRUNED, None, **{WARM_START: "other #3"}),
    "lost": trial(TrialState.FAIL, None, **{OUTCOME: "lost"}),
    "failed": trial(TrialState.FAIL),
    "running": trial(TrialState.RUNNING),
    "waiting": trial(TrialState.WAITING),
    "infinite": trial(COMPLETE, math.inf),
}


def test_a_complete_trial_has_a_result() -> None:
    complete = trial(COMPLETE, 20.0)
    assert result_db(complete) == 20.0
    assert has_result(complete)
    assert trial_row(SPEC, complete).has_result


@pytest.mark.parametrize("kind", list(WITHOUT_RESULT))
def test_every_other_trial_has_none(kind: str) -> None:
    other = WITHOUT_RESULT[kind]
    assert result_db(other) is None
    assert not has_result(other)
    assert not trial_row(SPEC, other).has_result, "a row says the same as its trial"
