"""Which settings each choice is put into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from searchae.compare.bases import SearchedTrial, SearchedTrials, choose_factor
from searchae.compare.cells import CellMaker, Schedule
from searchae.config.loader import spec_from_document
from searchae.config.parameters import Parameter
from searchae.config.study_spec import StudySpec

RATE = {"low": 1e-4, "high": 1e-1, "log": True}


def spec(train: Mapping[str, Any] | None = None, **model: Any) -> StudySpec:
    made = {
        "data": {"name": "mnist"},
        "model": {"activation": {"choices": ["relu", "tanh"]}, **model},
        "train": {
            "optimizer": {"choices": ["adam", "sgd"]},
            "regularizer": {"choices": ["clip", "clip+l1"]},
            "learning_rate": RATE,
            "l1_weight": {"low": 1e-7, "high": 1e-2, "log": True},
            "momentum": {"low": 0.0, "high": 0.99},
            **(train or {}),
        },
    }
    return spec_from_document(made, source="a test")


def trial(number: int, psnr_db: float, activation: str, optimizer: str, **more: Any) -> Any:
    regularizer = more.pop("regularizer", "clip")
    values = {
        "model.activation": activation,
        "train.optimizer": optimizer,
        "train.regularizer": regularizer,
        "train.learning_rate": more.pop("rate", 1e-3),
        **({"train.l1_weight": 1e-4} if regularizer == "clip+l1" else {}),
        **({"train.momentum": 0.9} if optimizer == "sgd" else {}),
        **more,
    }
    return SearchedTrial(number, psnr_db, True, values, "fp32")


def trials(*found: SearchedTrial, good_db: float = 20.0) -> SearchedTrials:
    ordered = tuple(sorted(found, key=lambda t: -t.psnr_db))
    return SearchedTrials(ordered, tuple(t for t in ordered if t.psnr_db >= good_db), good_db)


THREE = trials(
    trial(0, 25.0, "relu", "adam", rate=3e-3),
    trial(1, 24.0, "tanh", "adam", rate=1e-2),
    trial(2, 23.0, "relu", "sgd", rate=1e-1),
)


def parameter(of: StudySpec, name: str) -> Parameter:
    return next(p for p in of.space if p.name == name)


def test_there_is_a_base_for_each_combination_of_the_other_choices() -> None:
    made = spec()
    found = trials(
        trial(0, 25.0, "relu", "adam"),
        trial(1, 24.0, "relu", "adam", rate=3e-3),
        trial(2, 23.0, "tanh", "adam", regularizer="clip+l1"),
        trial(3, 14.0, "tanh", "sgd"),
    )
    factor = choose_factor(made, parameter(made, "regularizer"), found)
    assert factor.population == len(factor.bases) == 4
    assert factor.bases[0].number == 0, "the best trial of all comes first"
    searched = {(t.number, str(t.values)) for t in found.all}
    own = [(b.number, str(b.values)) in searched for b in factor.bases]
    assert sorted(own) == [False, False, True, True], "the others have choices put in"
    assert {b.number for b, searched in zip(factor.bases, own, strict=True) if searched} == {0, 2}
    others = {(b.values["model.activation"], b.values["train.optimizer"]) for b in factor.bases}
    assert len(others) == 4
    assert factor.tuned == ("train.learning_rate", "train.l1_weight", "train.momentum")


def test_the_first_bases_have_all_choices_though_the_best_trials_are_of_one_optimizer() -> None:
    """On MNIST the first six were with adam and sgd, and the L1 penalty gained with rmsprop."""
    optimizers = ("adam", "rmsprop", "sgd")
    activations = ("relu", "leaky_relu", "tanh", "sigmoid")
    made = spec(
        {"optimizer": {"choices": list(optimizers)}}, activation={"choices": list(activations)}
    )
    found = trials(
        *(trial(i, 25.0 - i, name, "adam") for i, name in enumerate(activations)),
        trial(4, 20.0, "relu", "sgd"),
    )
    factor = choose_factor(made, parameter(made, "regularizer"), found)
    assert factor.population == len(factor.bases) == 12
    assert factor.bases[0].number == 0
    for count in (3, 6):
        seen = Counter(b.values["train.optimizer"] for b in factor.bases[:count])
        assert seen == dict.fromkeys(optimizers, count // 3)
    assert {b.values["model.activation"] for b in factor.bases[:4]} == set(activations)


def test_where_a_range_is_searched_too_bases_are_countless_and_further_trials_follow() -> None:
    made = spec(latent_dim={"low": 8, "high": 64})
    more = {f"t{i}": 20.0 + i for i in range(3)}
    found = trials(
        *(
            trial(i, psnr, "relu", "adam", **{"model.latent_dim": 8 + i})
            for i, psnr in enumerate(more.values())
        )
    )
    factor = choose_factor(made, parameter(made, "optimizer"), found)
    assert factor.population is None
    assert [b.number for b in factor.bases[:3]] == [2, 1, 0]


def test_each_regularizer_s_own_value_is_tuned_for_it() -> None:
    train = {
        "regularizer": {"choices": ["clip", "clip+l1", "clip+contractive", "clip+k-sparse"]},
        "contractive_weight": {"low": 1e-6, "high": 1e-1, "log": True},
        "active_latents": {"low": 4, "high": 12},
    }
    made = spec(train=train)
    schedule = Schedule(epochs=50, patience=None, precision="fp32", first_seed=1)
    factor = choose_factor(made, parameter(made, "regularizer"), THREE)
    assert len(factor.bases) == factor.population == 4, "activation x optimizer"
    cells = CellMaker(made, factor, THREE.good, schedule)
    base = next(b for b in factor.bases if b.values["train.optimizer"] == "adam")
    tuned = {c: [g.parameter.name for g in cells.cell(base, c).grids] for c in cells.choices}
    assert tuned == {
        "clip": ["learning_rate"],
        "clip+l1": ["learning_rate", "l1_weight"],
        "clip+contractive": ["learning_rate", "contractive_weight"],
        "clip+k-sparse": ["learning_rate", "active_latents"],
    }
    assert {cells.cell(base, c).tries for c in cells.choices} == {11}, "as with l1_weight alone"
    sparse = cells.cell(base, "clip+k-sparse")
    assert sparse.settings(sparse.start)["active_latents"] == 8, "the middle: no trial has it"
    trained = sparse.measured(sparse.start, 0).params.train
    assert (trained.k_sparse, trained.contractive, trained.l1) == (8, 0, 0)


def test_each_choice_is_put_into_a_base_with_all_else_equal() -> None:
    made = spec()
    schedule = Schedule(epochs=50, patience=4, precision="fp32", first_seed=1)
    factor = choose_factor(made, parameter(made, "optimizer"), THREE)
    cells = CellMaker(made, factor, THREE.good, schedule)
    base = factor.bases[0]
    adam, sgd = (cells.cell(base, c) for c in ("adam", "sgd"))
    assert adam.tries == sgd.tries == 11, "also of the one that has no momentum"
    assert [g.parameter.name for g in adam.grids] == ["learning_rate"]
    assert [g.parameter.name for g in sgd.grids] == ["learning_rate", "momentum"]
    assert sgd.settings(sgd.start)["learning_rate"] == 0.1, "the search's best with it"
    assert adam.settings(adam.start)["learning_rate"] == 0.003162
    point = sgd.start
    attempt, measured = sgd.attempt(point), sgd.measured(point, 2)
    assert (attempt.seed, measured.seed) == (made.seed, 3)
    assert (attempt.is_tested, measured.is_tested) == (False, True)
    assert attempt.params.train.epochs == 8, "15% of 50"
    final = sgd.final_attempt(point, 0)
    assert (final.params.train.epochs, final.params.train.patience) == (30, 4), "60% of 50"
    assert not final.is_tested
    assert not final.is_pruned
    assert final.seed not in range(1, 1000), "another seed than those that are measured"
    assert (measured.params.train.epochs, measured.params.train.patience) == (50, 4)
    assert measured.params.model == adam.measured(adam.start, 2).params.model
    assert attempt.key != measured.key


@pytest.mark.parametrize(
    ("images", "tried"),
    [
        pytest.param(None, 5, id="not known: five epochs"),
        pytest.param(128 * 30, 5, id="30 steps an epoch: five epochs"),
        pytest.param(128 * 110, 2, id="110 steps an epoch: 200 steps"),
        pytest.param(128 * 900, 2, id="900 steps an epoch: 15%"),
    ],
)
def test_a_try_of_a_short_training_has_enough_steps_but_no_more(
    images: int | None, tried: int
) -> None:
    made = spec(train={"batch_size": 128})
    schedule = Schedule(epochs=9, patience=None, precision="fp32", first_seed=1, images=images)
    factor = choose_factor(made, parameter(made, "optimizer"), THREE)
    cell = CellMaker(made, factor, THREE.good, schedule).cell(factor.bases[0], "adam")
    assert cell.attempt(cell.start).params.train.epochs == tried
    assert cell.final_attempt(cell.start, 0).params.train.epochs == 6, "60% of 9"


def test_a_net_that_two_parameters_have_in_common_is_tuned_and_trained_once() -> None:
    """relu, adam and clip+l1 is a cell of each of the three parameters."""
    made = spec()
    found = trials(trial(0, 25.0, "relu", "adam", rate=3e-3), trial(1, 24.0, "tanh", "adam"))
    schedule = Schedule(epochs=None, patience=None, precision="fp32", first_seed=1)
    net = {"model.activation": "tanh", "train.optimizer": "sgd", "train.regularizer": "clip+l1"}
    keys = set()
    for name in ("activation", "optimizer", "regularizer"):
        factor = choose_factor(made, parameter(made, name), found)
        others = {k: v for k, v in net.items() if k != factor.parameter.key}
        base = next(b for b in factor.bases if others.items() <= b.values.items())
        cells = CellMaker(made, factor, found.good, schedule)
        cell = cells.cell(base, net[factor.parameter.key])
        assert cell.tries == 11
        keys.add((cell.attempt(cell.start).key, cell.measured(cell.start, 0).key))
    assert len(keys) == 1


def test_tries_begin_at_the_values_of_the_trial_that_is_most_like_the_net() -> None:
    made = spec()
    schedule = Schedule(epochs=None, patience=None, precision="fp32", first_seed=1)
    factor = choose_factor(made, parameter(made, "activation"), THREE)
    cells = CellMaker(made, factor, THREE.good, schedule)
    adam = next(b for b in factor.bases if b.values["train.optimizer"] == "adam")
    sgd = next(b for b in factor.bases if b.values["train.optimizer"] == "sgd")
    starts = {
        (optimizer, choice): cell.settings(cell.start)["learning_rate"]
        for optimizer, base in (("adam", adam), ("sgd", sgd))
        for choice in ("relu", "tanh")
        for cell in [cells.cell(base, choice)]
    }
    assert starts["adam", "relu"] == 0.003162
    assert starts["adam", "tanh"] == 0.01
    assert starts["sgd", "tanh"] == 0.1, "the optimizer matters more than the activation"


def test_a_choice_that_has_no_part_in_a_base_does_not_make_another_one() -> None:
    """The weight of a penalty is a choice here; without the penalty all weights are one net."""
    made = spec(train={"l1_weight": {"choices": [1e-5, 1e-3]}})
    found = trials(trial(0, 25.0, "relu", "adam", rate=3e-3), trial(1, 24.0, "tanh", "adam"))
    factor = choose_factor(made, parameter(made, "regularizer"), found)
    assert factor.population == len(factor.bases) == 4, "activation x optimizer"
    schedule = Schedule(epochs=None, patience=None, precision="fp32", first_seed=1)
    cells = CellMaker(made, factor, found.good, schedule)
    cell = cells.cell(factor.bases[0], "clip+l1")
    assert cell.measured(cell.start, 0).params.train.l1_weight in (1e-5, 1e-3)
    others = choose_factor(made, parameter(made, "optimizer"), found)
    settings = {
        (b.values["model.activation"], b.values.get("train.l1_weight")) for b in others.bases
    }
    assert len(settings) == others.population == 6, "no weight, and two, for each activation"
