"""Sampler and pruner on the storage that workers use propose and decide what Optuna's own do."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from searchae.config import space
from searchae.config.loader import spec_from_document
from searchae.config.study_spec import StudySpec
from searchae.search import distributions, pruners, samplers
from searchae.search.tpe_history import TrialHistory
from searchae.storage import connection, optuna_compatibility
from searchae.storage.resilient import ResilientStorage

EPOCHS = 8

pytestmark = pytest.mark.skipif(
    any(
        optuna_compatibility.failure_of(check)
        for check in (samplers._check_sampler, pruners._check_pruners, connection._check)
    ),
    reason="the incremental sampler or the batched storage does not fit the installed Optuna",
)


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    """One parameter hangs on another, and some of each kind."""
    document = {
        "data": {"name": "svhn"},
        "model": {"latent_dim": {"low": 8, "high": 64, "step": 8}},
        "train": {
            "epochs": EPOCHS,
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
            "regularizer": {"choices": ["clip", "clip+l1"]},
            "l1_weight": {"low": 1e-7, "high": 1e-2, "log": True},
        },
        "search": {"startup_trials": 4},
    }
    return spec_from_document(document, source="test")


def proposed(study: optuna.Study, sampler: BaseSampler, trial: FrozenTrial) -> dict[str, Any]:
    study._thread_local.cached_all_trials = None
    return sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))


def told_by_optuna(pruner: SuccessiveHalvingPruner, plain: RDBStorage, trial: FrozenTrial) -> bool:
    """Optuna's decision; what it would write of the trial is left to the other side."""
    trials = plain.get_all_trials(plain.get_study_id_from_name("compared"))
    nowhere = SimpleNamespace(set_trial_system_attr=lambda *_: None)
    study = SimpleNamespace(
        get_trials=lambda deepcopy: trials, _storage=nowhere, direction=StudyDirection.MAXIMIZE
    )
    return pruner.prune(study, trial)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("database", "many"), [("sqlite", 100), ("postgresql", 0)], indirect=["database"]
)
def test_whatever_the_others_do_meanwhile(
    lean: ResilientStorage,
    plain: RDBStorage,
    spec: StudySpec,
    many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They end, fail, are put back and gone on with; some trials are another study's."""
    monkeypatch.setattr("searchae.storage.changed_trials.MANY_UNFINISHED", many)
    draw = random.Random(many)
    theirs = optuna.create_study(storage=plain, study_name="compared", direction="maximize")
    described = {p.name: distributions.to_distribution(p) for p in spec.space}
    for value in range(3):
        names = ["learning_rate", "latent_dim"][: 1 + value % 2]
        some = {n: described[n] for n in names}
        values = {"learning_rate": 0.01, "latent_dim": 16}
        params = {n: values[n] for n in names}
        theirs.add_trial(create_trial(params=params, distributions=some, value=float(value)))
    mine = optuna.load_study(storage=lean, study_name="compared")
    history, halving = TrialHistory(), pruners.make_pruner(spec, mine)
    monkeypatch.setattr(samplers, "INCREMENTAL_FROM", 0)
    optuna_s = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    going: list[int] = []
    proposals, decisions, states = 0, set[bool](), set[TrialState]()
    for _ in range(36):
        for trial_id in draw.sample(going, min(len(going), draw.randrange(3))):
            to = draw.choice(["COMPLETE", "PRUNED", "FAIL", "WAITING", "WAITING", "a rung"])
            if to == "a rung":
                rung = f"completed_rung_{draw.randrange(3)}"
                plain.set_trial_system_attr(trial_id, rung, float(draw.randrange(6)))
            elif to == "WAITING":
                plain.set_trial_state_values(trial_id, TrialState.WAITING)
                if draw.random() < 0.5:
                    plain.set_trial_state_values(trial_id, TrialState.RUNNING)
            else:
                result = None if to == "FAIL" else [float(draw.randrange(6))]
                plain.set_trial_state_values(trial_id, TrialState[to], result)
                going.remove(trial_id)
        states |= {t.state for t in plain.get_all_trials(theirs._study_id)}
        trial_id = plain.create_new_trial(theirs._study_id)
        trial = lean.get_trial(trial_id)
        ours = samplers.make_sampler(spec, number=trial.number, history=history)
        with monkeypatch.context() as patch:
            patch.setattr(samplers, "INCREMENTAL_FROM", 1000)
            expected = proposed(theirs, samplers.make_sampler(spec, number=trial.number), trial)
        with lean.exclusive_trial(trial_id):
            with lean.batched_writes():
                found = proposed(mine, ours, trial)
            assert found == expected
            proposals += bool(found)
            mine.sampler = samplers.make_sampler(spec, number=trial.number, history=history)
            mine._thread_local.cached_all_trials = None
            with lean.batched_writes():
                space.sample_params(spec, Trial(mine, trial_id))
            state = TrialState.COMPLETE
            for epoch in range(1, draw.choice([2, EPOCHS, EPOCHS])):
                psnr_db = float(draw.randrange(6))
                lean.set_trial_intermediate_value(trial_id, epoch, psnr_db)
                reported = plain.get_trial(trial_id)
                decision = told_by_optuna(optuna_s, plain, reported)
                assert halving.prune(mine, reported) == decision
                decisions.add(decision)
                if decision:
                    state = TrialState.PRUNED
                    break
        if draw.random() < 0.7:
            going.append(trial_id)  # somebody else's from now on
        else:
            plain.set_trial_state_values(trial_id, state, [psnr_db])
    assert proposals > 15
    assert decisions == {True, False}
    assert states == set(TrialState)
