"""Each choice gets its trials, also one whose first learning rates were bad."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from searchae.config import space
from searchae.config.loader import spec_from_document
from searchae.config.study_spec import StudySpec
from searchae.search import samplers
from searchae.search.choice_floor import ChoiceFloor
from searchae.search.distributions import to_distribution
from searchae.search.tpe_history import TrialHistory
from searchae.storage import optuna_compatibility

ACTIVATIONS = ["relu", "leaky_relu", "sigmoid", "tanh"]
FLOOR = 6
STARTUP = 8
BASELINE_DB = 12.0


def read(seed: int = 0, **searched_by: Any) -> StudySpec:
    document = {
        "seed": seed,
        "data": {"name": "svhn"},
        "model": {"activation": {"choices": ACTIVATIONS}, "latent_dim": {"low": 8, "high": 64}},
        "train": {
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "regularizer": {"choices": ["clip", "clip+l1"]},
            "l1_weight": {"low": 1e-7, "high": 1e-2, "log": True},
        },
        "search": {"startup_trials": STARTUP, "midpoint_first": False, **searched_by},
    }
    return spec_from_document(document, source="test")


def psnr_db(params: dict[str, Any], number: int) -> float:
    """Learning rates near 3e-3 are good; tanh is best there, but bad in the startup trials."""
    if params["activation"] == "tanh" and number < STARTUP + 2:
        return BASELINE_DB
    gain_db = 12.0 if params["activation"] == "tanh" else 10.0
    decades = math.log10(params["learning_rate"] / 3e-3)
    return BASELINE_DB + gain_db * math.exp(-((2 * decades) ** 2))


def search(
    spec: StudySpec,
    trials: int,
    objective: Callable[[dict[str, Any], int], float] = psnr_db,
    study: optuna.Study | None = None,
) -> optuna.Study:
    """Searches as a worker does; goes on where it gets a study."""
    study = study or optuna.create_study(direction="maximize", study_name="simulated")
    floor, history = ChoiceFloor(spec), TrialHistory()
    for number in range(len(study.trials), trials):
        study.sampler = samplers.make_sampler(spec, number=number, history=history)
        fixed = floor.params(study, number)
        if fixed:
            study.enqueue_trial(fixed)
        trial = study.ask()
        space.sample_params(spec, trial)
        study.tell(trial, objective(trial.params, number))
    return study


def counted(study: optuna.Study, name: str = "activation") -> Counter[Any]:
    return Counter(t.params.get(name) for t in study.trials)


def forced(study: optuna.Study) -> list[int]:
    return [t.number for t in study.trials if "fixed_params" in t.system_attrs]


@pytest.mark.parametrize("seed", range(3))
def test_a_choice_whose_first_trials_are_bad_is_tried_where_others_learn(seed: int) -> None:
    study = search(read(seed), 40)
    assert all(counted(study)[a] >= FLOOR for a in ACTIVATIONS)
    of_tanh = [t.value or 0.0 for t in study.trials if t.params["activation"] == "tanh"]
    assert max(of_tanh) > BASELINE_DB + 6


def test_without_the_floor_a_choice_is_left_out() -> None:
    """With some seed; Optuna's releases sample differently."""
    without = [search(read(seed, min_trials_per_choice=0), 40) for seed in range(3)]
    assert min(counted(study)[a] for study in without for a in ACTIVATIONS) < FLOOR
    assert all(forced(study) == [] for study in without)


def test_at_most_every_second_trial_after_the_startup_is_spent_on_it() -> None:
    numbers = forced(search(read(min_trials_per_choice=50), 30))
    assert numbers == list(range(STARTUP, 30, 2))


@pytest.mark.parametrize("ends", [BASELINE_DB, None])
def test_a_choice_that_always_fails_gets_no_more_than_its_floor(ends: float | None) -> None:
    """Neither as a diverged training, which has the baseline's PSNR, nor as a failed trial."""
    spec = read()
    study = optuna.create_study(direction="maximize")
    floor = ChoiceFloor(spec)
    for number in range(60):
        study.sampler = samplers.make_sampler(spec, number=number)
        fixed = floor.params(study, number)
        if fixed:
            study.enqueue_trial(fixed)
        trial = study.ask()
        space.sample_params(spec, trial)
        fails = trial.params["activation"] == "tanh"
        state = TrialState.FAIL if fails and ends is None else TrialState.COMPLETE
        value = ends if fails else psnr_db(trial.params, number)
        study.tell(trial, value, state=state)
    of_tanh = [t for t in study.trials if t.params["activation"] == "tanh"]
    assert len(of_tanh) >= FLOOR
    assert not any("fixed_params" in t.system_attrs for t in of_tanh[FLOOR:])


def test_a_resumed_search_samples_what_it_would_have_sampled() -> None:
    spec = read()
    whole = search(spec, 30)
    resumed = search(spec, 30, study=search(spec, 15))
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]
    assert forced(resumed) == forced(whole) != []


def ended(spec: StudySpec, *, of_tanh: TrialState, each: int) -> optuna.Study:
    """A study with trials that another one made: each activation equally often, all with clip."""
    study = optuna.create_study(direction="maximize")
    described = {p.name: to_distribution(p) for p in spec.space if p.name != "l1_weight"}
    for n, activation in enumerate(ACTIVATIONS * each):
        state = of_tanh if activation == "tanh" else TrialState.COMPLETE
        params = {"activation": activation, "learning_rate": 1e-3 * (n + 1), "latent_dim": 8}
        study.add_trial(
            create_trial(
                params={**params, "regularizer": "clip"},
                distributions=described,
                state=state,
                value=20.0 + n if state == TrialState.COMPLETE else None,
            )
        )
    return study


def test_workers_that_sample_at_once_take_different_choices() -> None:
    spec = read()
    study = ended(spec, of_tanh=TrialState.COMPLETE, each=2)
    first = len(study.trials)
    for _ in range(9):
        study.ask()  # claimed, and not sampled yet
    found = [ChoiceFloor(spec).params(study, first + n) for n in range(9)]
    assert found == [ChoiceFloor(spec).params(study, first + n) for n in range(9)]
    assert found[1::2] == [{}] * 4
    # Nothing was tried with clip+l1, so it is the rarest twice; then the activations' turn comes.
    assert [f["regularizer"] for f in found[::2]] == ["clip+l1"] * 2 + ["clip"] * 3
    assert {f["activation"] for f in found[4::2]} >= {"relu", "leaky_relu"}


def test_imported_and_running_trials_count() -> None:
    spec = read()
    study = ended(spec, of_tanh=TrialState.RUNNING, each=FLOOR)
    found = ChoiceFloor(spec).params(study, len(study.trials))
    assert found["regularizer"] == "clip+l1"  # the activations all have their trials
    assert found["activation"] != "tanh"  # from one of the best that have ended
    study = ended(spec, of_tanh=TrialState.COMPLETE, each=FLOOR)
    alone = read(min_trials_per_choice=FLOOR).document()
    alone["train"]["regularizer"], alone["train"]["l1_weight"] = "clip", 1e-4
    fixed = spec_from_document(alone, source="test")
    assert ChoiceFloor(fixed).params(study, len(study.trials)) == {}


def test_what_hangs_on_the_exchanged_choice_comes_and_goes_with_it() -> None:
    """``l1_weight`` is sampled under clip+l1 only."""
    study = search(read(), 40)
    for trial in (study.trials[n] for n in forced(study)):
        fixed = trial.system_attrs["fixed_params"]
        assert fixed.items() <= trial.params.items()
        assert ("l1_weight" in trial.params) == (trial.params["regularizer"] == "clip+l1")


def test_its_learning_rates_differ() -> None:
    study = search(read(), 40)
    rates = [t.params["learning_rate"] for t in study.trials if t.params["activation"] == "tanh"]
    decades = sorted(math.log10(r) for r in rates[:FLOOR])
    assert min(b - a for a, b in pairwise(decades)) > 0.003


def test_gp_has_it_and_a_random_search_has_not() -> None:
    assert forced(search(read(sampler="gp", startup_trials=4), 5)) == [4]
    assert forced(search(read(sampler="random"), 30)) == []


def test_a_long_list_of_choices_has_no_floor() -> None:
    document = read().document()
    document["model"] = {"latent_dim": {"choices": list(range(8, 17))}}
    document["train"]["regularizer"], document["train"]["l1_weight"] = "clip", 1e-4
    spec = spec_from_document(document, source="test")
    assert forced(search(spec, 20, lambda params, _: params["learning_rate"])) == []


@pytest.mark.skipif(
    bool(optuna_compatibility.failure_of(samplers._check_sampler)),
    reason="the incremental sampler does not fit the installed Optuna",
)
def test_both_tpe_samplers_search_alike_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    public = search(read(), 40)
    monkeypatch.setattr(samplers, "INCREMENTAL_FROM", 0)
    incremental = search(read(), 40)
    assert [t.params for t in incremental.trials] == [t.params for t in public.trials]
    assert forced(public)
