"""Sampling: what is asked of a trial, in which order, and how it is read back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, get_args

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchae.config import space
from searchae.config.loader import spec_from_document
from searchae.config.schema import Regularizer
from searchae.config.study_spec import StudySpec
from searchae.search import distributions
from tests.unit.study_documents import documents


class RecordingTrial:
    """Answers at random and remembers what it was asked, in order."""

    def __init__(self, seed: int = 0, **answers: Any) -> None:
        self._random = random.Random(seed)
        self._answers = answers
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._answer(name, self._random.uniform(low, high)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return int(self._answer(name, self._random.randrange(low, high + 1, step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, self._random.choice(choices))

    def _answer(self, name: str, drawn: Any) -> Any:
        assert name not in self.params, f"{name} was asked for twice"
        self.params[name] = self._answers.get(name, drawn)
        return self.params[name]


def read(**sections: Any) -> StudySpec:
    return spec_from_document({"data": {"name": "svhn"}, **sections}, source="test")


L1 = {"low": 1e-6, "high": 1e-3, "log": True}
MOMENTUM = {"low": 0.0, "high": 0.9}


@settings(max_examples=150, deadline=None)
@given(documents(), st.integers(0, 2**16))
def test_a_trial_read_back_is_what_was_sampled(document: dict[str, Any], seed: int) -> None:
    spec = spec_from_document(document, source="random")
    trial = RecordingTrial(seed)
    assert space.sample_params(spec, trial) == space.params_of_trial(spec, trial.params)


@pytest.mark.filterwarnings("ignore:The distribution is specified by")  # a grid that ends early
@settings(max_examples=40, deadline=None)
@given(documents())
def test_optuna_gives_back_what_was_sampled(document: dict[str, Any]) -> None:
    """Through Optuna's own distributions, whose stored values are what a study replays from."""
    spec = spec_from_document(document, source="random")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    sampled = space.sample_params(spec, trial)
    stored = study.trials[0]
    assert space.params_of_trial(spec, stored.params) == sampled
    for p in spec.space:
        if p.name in stored.params:
            assert stored.distributions[p.name] == distributions.to_distribution(p)
            assert distributions.can_take(p, stored.params[p.name])


@pytest.mark.parametrize(
    ("regularizer", "asked"),
    [
        ("none", set()),
        ("clip", set()),
        ("l1", {"l1_weight"}),
        ("clip+l1", {"l1_weight"}),
        ("contractive", {"contractive_weight"}),
        ("clip+contractive", {"contractive_weight"}),
        ("k-sparse", {"active_latents"}),
        ("clip+k-sparse", {"active_latents"}),
    ],
)
def test_what_a_regularizer_needs_is_sampled_only_where_it_acts(
    regularizer: str, asked: set[str]
) -> None:
    weights = {"l1_weight": L1, "contractive_weight": L1, "active_latents": {"low": 2, "high": 8}}
    choices = {"choices": list(get_args(Regularizer))}
    searched = read(train={**weights, "regularizer": choices})
    trial = RecordingTrial(regularizer=regularizer)
    params = space.sample_params(searched, trial)
    assert trial.params.keys() & weights.keys() == asked
    assert (params.train.l1 > 0) is ("l1_weight" in asked)
    assert (params.train.contractive > 0) is ("contractive_weight" in asked)
    assert (params.train.k_sparse is not None) is ("active_latents" in asked)
    fixed = RecordingTrial()
    space.sample_params(read(train={**weights, "regularizer": regularizer}), fixed)
    assert fixed.params.keys() == asked


@pytest.mark.parametrize(
    ("optimizer", "asked"), [("adam", False), ("sgd", True), ("rmsprop", True)]
)
def test_momentum_is_sampled_only_where_it_acts(optimizer: str, *, asked: bool) -> None:
    trial = RecordingTrial()
    space.sample_params(read(train={"momentum": MOMENTUM, "optimizer": optimizer}), trial)
    assert ("momentum" in trial.params) is asked


def test_a_parameter_is_asked_for_after_the_one_it_hangs_on() -> None:
    spec = read(
        train={
            "l1_weight": L1,
            "learning_rate": {"low": 0.1, "high": 0.2},
            "regularizer": {"choices": ["clip+l1"]},
        }
    )
    trial = RecordingTrial()
    space.sample_params(spec, trial)
    assert list(trial.params) == ["learning_rate", "regularizer", "l1_weight"]


def test_lists_travel_as_text_and_come_back_as_lists() -> None:
    spec = read(model={"channels": {"choices": [[4, 8], [16]]}})
    trial = RecordingTrial(channels="[16]")
    assert space.sample_params(spec, trial).model.channels == (16,)
    assert space.readable_params(spec, trial.params) == {"channels": [16]}
    (channels,) = spec.space
    assert space.stored_value(channels, [16]) == "[16]"


def test_readable_parameters_stand_in_the_file_s_order() -> None:
    spec = read(
        model={"activation": {"choices": ["relu", "tanh"]}},
        train={"clip": {"low": 0.1, "high": 1.0}, "l1_weight": L1, "regularizer": "l1"},
    )
    stored: dict[str, float | str] = {"l1_weight": 1e-4, "clip": 0.5, "activation": "tanh"}
    assert list(space.readable_params(spec, stored)) == ["activation", "clip", "l1_weight"]
    assert list(space.readable_params(spec, {"clip": 0.5})) == ["clip"]


def test_every_net_that_can_be_sampled_is_known_before_the_search() -> None:
    spec = read(
        model={
            "activation": {"choices": ["relu", "tanh"]},
            "latent_dim": {"low": 4, "high": 32},
        },
        train={"optimizer": {"choices": ["adam", "sgd"]}},
    )
    found = [(p.model.activation, p.model.latent_dim) for p in space.model_variants(spec)]
    assert sorted(found) == [("relu", 4), ("relu", 32), ("tanh", 4), ("tanh", 32)]
    assert len(space.model_variants(spec, limit=3)) == 3
    assert len(space.model_variants(read())) == 1
