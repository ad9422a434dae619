"""Samplers that replay, and pruners that give up the bad and never the best."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from searchae.config import space
from searchae.config.loader import spec_from_document
from searchae.config.parameters import Parameter
from searchae.config.study_spec import StudySpec
from searchae.search import distributions, pruners, samplers
from searchae.search.tpe_history import TrialHistory
from searchae.storage import connection, optuna_compatibility

TRAIN = {
    "epochs": 9,
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
    "regularizer": {"choices": ["clip", "clip+l1"]},
    "l1_weight": {"low": 1e-7, "high": 1e-2, "log": True},
}
MODEL = {"latent_dim": {"low": 8, "high": 64, "step": 8}}


ENDS = (TrialState.PRUNED, TrialState.COMPLETE)


def read(seed: int = 0, epochs: int = 9, **searched_by: Any) -> StudySpec:
    document = {
        "seed": seed,
        "data": {"name": "svhn"},
        "model": MODEL,
        "train": {**TRAIN, "epochs": epochs},
        "search": {"startup_trials": 4, **searched_by},
    }
    return spec_from_document(document, source="test")


def study_with(spec: StudySpec, trials: int) -> optuna.Study:
    """A study with finished trials for a sampler to learn from, the same ones each time."""
    study = optuna.create_study(direction="maximize", study_name="fixed")
    for number in range(trials):
        study.sampler = samplers.make_sampler(spec, number=number)
        trial = study.ask()
        space.sample_params(spec, trial)
        study.tell(trial, random.Random(number).uniform(10, 30))
    return study


def proposal(spec: StudySpec, *, number: int, after: int = 0) -> dict[str, Any]:
    study = study_with(spec, after)
    study.sampler = samplers.make_sampler(spec, number=number)
    trial = study.ask()
    space.sample_params(spec, trial)
    return dict(trial.params)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random", "gp"])
def test_several_objectives_are_sampled_for_by_optuna_and_replay(name: str) -> None:
    spec = read(sampler=name, objectives=["psnr", "parameters"], startup_trials=4)
    assert isinstance(pruners.make_pruner(spec, optuna.create_study()), NopPruner)

    def params() -> list[dict[str, Any]]:
        study = optuna.create_study(directions=["maximize", "minimize"])
        for number in range(9):
            study.sampler = samplers.make_sampler(spec, number=number)
            trial = study.ask()
            chosen = space.sample_params(spec, trial)
            latent = chosen.model.latent_dim
            study.tell(trial, [math.log(latent) + chosen.train.learning_rate, latent])
        return [t.params for t in study.trials]

    first = params()
    assert params() == first
    assert len({p["learning_rate"] for p in first}) >= 4, "nsga2 recombines those of its parents"


@pytest.mark.parametrize(("name", "after"), [("random", 0), ("tpe", 0), ("tpe", 8), ("gp", 0)])
def test_a_trial_s_proposal_hangs_on_seed_and_number_only(name: str, after: int) -> None:
    spec = read(sampler=name)
    first = proposal(spec, number=after, after=after)
    assert proposal(spec, number=after, after=after) == first, "as after a crash"
    rates = {first["learning_rate"]}
    rates |= {proposal(spec, number=n, after=after)["learning_rate"] for n in (50, 51)}
    other_seed = proposal(read(seed=1, sampler=name), number=after)
    rates.add(other_seed["learning_rate"])
    assert len(rates) == 4


@pytest.mark.parametrize(
    ("name", "kind"), [("random", RandomSampler), ("tpe", TPESampler), ("gp", GPSampler)]
)
def test_a_sampler_is_known_by_its_name(name: str, kind: type[BaseSampler]) -> None:
    assert isinstance(samplers.make_sampler(read(sampler=name), number=0), kind)


needs_sampler = pytest.mark.skipif(
    bool(optuna_compatibility.failure_of(samplers._check_sampler)),
    reason="the incremental sampler does not fit the installed Optuna",
)
needs_pruners = pytest.mark.skipif(
    bool(optuna_compatibility.failure_of(pruners._check_pruners)),
    reason="the incremental pruners do not fit the installed Optuna",
)


@pytest.mark.skipif(not optuna.__version__.startswith("5.0."), reason="is about Optuna 5.0")
@pytest.mark.parametrize(
    "check", [samplers._check_sampler, pruners._check_pruners, connection._check]
)
def test_what_uses_private_names_fits_optuna_5_0(check: Callable[[], None]) -> None:
    assert optuna_compatibility.failure_of(check) == ""


@pytest.fixture
def incremental(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses the incremental sampler from the first trial on."""
    monkeypatch.setattr(samplers, "INCREMENTAL_FROM", 0)


@needs_sampler
def test_the_sampler_of_one_objective_s_large_studies_serves_no_others() -> None:
    several = read(objectives=["psnr", "sparsity"])
    assert type(samplers.make_sampler(several, number=10**6)) is TPESampler
    assert type(samplers.make_sampler(read(), number=10**6)) is not TPESampler


@needs_sampler
@pytest.mark.usefixtures("incremental")
def test_what_is_found_with_less_work_is_what_optuna_itself_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a parameter hangs on another, trials run meanwhile, and much is remembered."""
    spec = read(pruner="hyperband")

    def proposals(history: TrialHistory | None) -> list[dict[str, Any]]:
        study = study_with(spec, 30)
        study.ask()  # and runs still
        found = []
        for number in range(31, 41):
            study.sampler = samplers.make_sampler(spec, number=number, history=history)
            trial = study.ask()
            space.sample_params(spec, trial)
            found.append(dict(trial.params))
            study.tell(trial, number if number % 2 else None, state=ENDS[number % 2])
        return found

    kept = TrialHistory()
    lean = proposals(kept)
    assert {number for _, number in kept.ranking} == {*range(30), *range(31, 40)}
    assert len(kept.tables) > 1
    assert proposals(None) == lean
    assert {"l1_weight" in t.params for t in study_with(spec, 30).trials} == {True, False}
    monkeypatch.setattr(samplers, "INCREMENTAL_FROM", 1000)
    assert proposals(None) == lean


@needs_sampler
@pytest.mark.usefixtures("incremental")
@pytest.mark.parametrize("complete", [0, 1, 12])
def test_tpe_takes_the_same_trials_for_the_best_however_few_are_complete(
    complete: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruned ones too, those that came further first; among equals the first."""
    spec = read()

    def proposals() -> list[dict[str, Any]]:
        study = optuna.create_study(direction="maximize")
        for number in range(40):
            study.sampler = samplers.make_sampler(read(sampler="random"), number=number)
            trial = study.ask()
            space.sample_params(spec, trial)
            for epoch in range(1, 1 + number % 4):
                trial.report(float(number % 3), epoch)
            ended = TrialState.COMPLETE if number < complete else TrialState.PRUNED
            study.tell(trial, number % 5 if number < complete else None, state=ended)
        found = []
        for number in range(40, 46):
            study.sampler = samplers.make_sampler(spec, number=number)
            trial = study.ask()
            space.sample_params(spec, trial)
            found.append(dict(trial.params))
        return found

    lean = proposals()
    monkeypatch.setattr(samplers, "INCREMENTAL_FROM", 1000)
    assert proposals() == lean


@needs_pruners
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_halving_is_optuna_s_own(seed: int, factor: int) -> None:
    """Of many workers at once, with equal values, trials that diverge, fail or are put back."""
    spec = read(epochs=16, pruner="successive-halving", reduction_factor=factor)
    own = optuna.create_study(direction="maximize")
    plain = optuna.create_study(direction="maximize")
    own.pruner = pruners.make_pruner(spec, own)
    plain.pruner = SuccessiveHalvingPruner(
        min_resource=spec.search.min_epochs, reduction_factor=factor
    )
    draw = random.Random(seed)
    running: list[tuple[Any, Any, int]] = []
    decisions = []
    for _ in range(400):
        if len(running) < 4:
            running.append((own.ask(), plain.ask(), 1))
        mine, theirs, epoch = running.pop(draw.randrange(len(running)))
        psnr_db = draw.choice([float("nan"), *(float(n) for n in range(12))])
        if epoch > 1 and draw.random() < 0.05:
            for study, trial in ((own, mine), (plain, theirs)):
                study.tell(trial, state=TrialState.FAIL)
            continue
        for trial in (mine, theirs):
            trial.report(psnr_db, epoch)
        decisions.append((mine.should_prune(), theirs.should_prune()))
        pruned = decisions[-1][1]
        if pruned or epoch == spec.epochs:
            for study, trial in ((own, mine), (plain, theirs)):
                study.tell(trial, None if pruned else psnr_db, state=ENDS[not pruned])
        else:
            running.append((mine, theirs, epoch + draw.choice([1, 1, 3])))
    assert [a for a, _ in decisions] == [b for _, b in decisions]
    assert {a for a, _ in decisions} == {True, False}
    assert [t.system_attrs for t in own.trials] == [t.system_attrs for t in plain.trials]


@needs_pruners
def test_brackets_are_optuna_s_own() -> None:
    spec = read(pruner="hyperband")
    study = optuna.create_study(direction="maximize", study_name="shared")
    ours: Any = pruners.make_pruner(spec, study)
    plain = HyperbandPruner(
        min_resource=spec.search.min_epochs,
        max_resource=spec.epochs,
        reduction_factor=spec.search.reduction_factor,
    )
    found = []
    for number in range(50):
        trial = create_trial(state=TrialState.RUNNING)
        trial.number = number
        plain.prune(study, trial)
        found.append([p._get_bracket_id(study, trial) for p in (ours, ours, plain)])
    assert all(len(set(one)) == 1 for one in found)
    assert len({one[0] for one in found}) > 1


def simulate(spec: StudySpec, qualities_db: list[float]) -> optuna.Study:
    """Trials one after the other whose PSNR climbs to their quality, pruned as a worker prunes."""
    study = optuna.create_study(direction="maximize", study_name="simulated")
    study.pruner = pruners.make_pruner(spec, study)
    for quality_db in qualities_db:
        trial = study.ask()
        state, psnr_db = TrialState.COMPLETE, None
        for epoch in range(1, spec.epochs + 1):
            psnr_db = quality_db * (1 - 0.5**epoch)
            trial.report(psnr_db, epoch)
            if epoch < spec.epochs and trial.should_prune():
                state, psnr_db = TrialState.PRUNED, None
                break
        study.tell(trial, psnr_db, state=state)
    return study


def qualities(seed: int) -> list[float]:
    """Thirty trials: the first six are usable, then good ones, and every third one hopeless."""
    draw = random.Random(seed)
    good = [draw.uniform(18, 28) for _ in range(30)]
    return [q if i < 6 or i % 3 else draw.uniform(1, 2) for i, q in enumerate(good)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["hyperband", "successive-halving", "median"])
def test_a_pruner_gives_up_the_hopeless_and_never_the_best(name: str, seed: int) -> None:
    simulated = qualities(seed)
    study = simulate(read(pruner=name), simulated)
    hopeless = [t for t in study.trials if simulated[t.number] < 3]
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    share = sum(t in pruned for t in hopeless) / len(hopeless)
    # Hyperband's last bracket runs its trials to the end: that is its hedge.
    assert share >= (0.4 if name == "hyperband" else 1.0)
    best = max(range(len(simulated)), key=simulated.__getitem__)
    assert study.trials[best].state == TrialState.COMPLETE
    assert study.best_trial.number == best


@pytest.mark.parametrize("name", ["hyperband", "successive-halving", "median"])
def test_nothing_is_pruned_before_the_least_number_of_epochs(name: str) -> None:
    study = simulate(read(pruner=name, min_epochs=3), qualities(0))
    pruned_at = [t.last_step or 0 for t in study.trials if t.state == TrialState.PRUNED]
    assert pruned_at
    assert min(pruned_at) >= 3


def test_what_is_left_out_is_successive_halving_by_two_and_hyperband_by_three() -> None:
    plain = read().search
    assert (plain.pruner, plain.reduction_factor) == ("successive-halving", 2)
    assert read(pruner="hyperband", reduction_factor=2).search.reduction_factor == 2
    for pruner in ("hyperband", "median", "none"):
        before = read(pruner=pruner).document()
        before["search"]["reduction_factor"] = 3  # as studies have it that were made before
        del before["search"]["midpoint_first"], before["search"]["min_trials_per_choice"]
        stored = spec_from_document(before, source="stored")
        assert stored.differences(read(pruner=pruner)) == []


def test_without_a_pruner_every_trial_is_run_to_its_end() -> None:
    study = simulate(read(pruner="none"), qualities(0))
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}


def test_a_new_worker_s_hyperband_puts_trials_where_the_others_do() -> None:
    spec = read(pruner="hyperband")
    study = optuna.create_study(direction="maximize", study_name="shared")
    trials = [create_trial(state=TrialState.RUNNING) for _ in range(20)]
    for number, trial in enumerate(trials):
        trial.number = number
    old: Any = pruners.make_pruner(spec, study)
    new: Any = pruners.make_pruner(spec, study)
    for trial in trials:
        old.prune(study, trial)
    brackets = [[p._get_bracket_id(study, t) for t in trials] for p in (old, new)]
    assert brackets[0] == brackets[1]
    assert len(set(brackets[0])) > 1
    assert len(new._pruners) == len(old._pruners) > 1


def test_a_value_is_checked_against_the_range_that_it_shall_go_into() -> None:
    choices = Parameter("train.optimizer", choices=("adam", "sgd"))
    numbers = Parameter("train.clip", low=0.25, high=1.0)
    assert [distributions.can_take(choices, v) for v in ("adam", "sgd", "rmsprop", 1)] == [
        True,
        True,
        False,
        False,
    ]
    wanted: dict[float | str, bool] = {
        0.25: True,
        1.0: True,
        0.2499: False,
        1.0001: False,
        "0.5": False,
    }
    assert {v: distributions.can_take(numbers, v) for v in wanted} == wanted


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (read(pruner="none"), 'search.pruner is "none"'),
        (read(epochs=3, pruner="successive-halving", min_epochs=3), "leaves no rung"),
        (read(epochs=2, pruner="successive-halving"), "than the successive-halving pruner's cut"),
        (read(epochs=2, min_epochs=2), "train.epochs = 2 leaves no rung after search.min_epochs"),
        (
            read(pruner="median"),
            'median pruner\'s cut; search.pruner = "successive-halving" prunes',
        ),
        (read(min_epochs=2), "cut; search.min_epochs below 2 or search.reduction_factor above 2"),
    ],
)
def test_says_why_nothing_is_pruned(spec: StudySpec, wanted: str) -> None:
    assert wanted in pruners.why_nothing_is_pruned(spec)
