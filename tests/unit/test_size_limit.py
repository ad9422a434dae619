"""``search.max_parameters``: no sampler proposes a larger net."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from searchae.config import space
from searchae.config.loader import spec_from_document
from searchae.config.parameters import Value
from searchae.config.study_spec import StudySpec
from searchae.errors import SpecError
from searchae.search import samplers, size_limit
from searchae.search.size_limit import SizeLimit, SizeLimitedSampler
from searchae.tuning import model_checks

SHAPE = (1, 16, 16)
MODEL = {
    "channels": {"choices": [[4, 8], [16, 32], [64, 128]]},
    "latent_dim": {"low": 8, "high": 512},
    "activation": {"choices": ["relu", "tanh"]},
}
LIMIT = 40_000
"""About a tenth of the space is below it; with 64 and 128 channels nothing is."""


def read(model: dict[str, Any] = MODEL, **search: Any) -> StudySpec:
    document = {
        "data": {"name": "svhn"},
        "model": model,
        "train": {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}},
        "search": {"startup_trials": 4, "max_parameters": LIMIT, **search},
    }
    return spec_from_document(document, source="test")


def searched(spec: StudySpec, trials: int, **fixed: Any) -> optuna.Study:
    """A study of which each trial's value is its latent size: the sampler wants large nets."""
    study, limit = optuna.create_study(direction="maximize"), SizeLimit(spec, SHAPE)
    for number in range(trials):
        sampler = samplers.make_sampler(spec, number=number)
        study.sampler = limited = SizeLimitedSampler(sampler, limit, seed=number)
        study.enqueue_trial(fixed)
        trial = study.ask()
        params = space.sample_params(spec, trial)
        trial.set_user_attr("refused", limited.refused)
        study.tell(trial, params.model.latent_dim)
    return study


def sizes(spec: StudySpec, study: optuna.Study) -> list[int]:
    return [SizeLimit(spec, SHAPE).parameters(t.params) for t in study.trials]


@pytest.mark.parametrize(("name", "count"), [("tpe", 12), ("random", 12), ("gp", 6)])
def test_a_trial_s_net_is_sampled_again_until_it_is_small_enough(name: str, count: int) -> None:
    spec = read(sampler=name)
    study = searched(spec, count)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert max(sizes(spec, study)) <= LIMIT
    assert sum(t.user_attrs["refused"] for t in study.trials) > 0
    assert len({t.params["latent_dim"] for t in study.trials}) > count // 2
    again = searched(spec, count)
    assert [t.params for t in again.trials] == [t.params for t in study.trials], "it replays"


def test_of_a_space_that_is_nearly_all_too_large_a_net_at_its_ends_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(size_limit, "RANDOM_ATTEMPTS", 5)
    smallest: dict[str, Value] = {"channels": "[4, 8]", "latent_dim": 8, "activation": "relu"}
    spec = read(max_parameters=SizeLimit(read(), SHAPE).parameters(smallest))
    study = searched(spec, 6)
    assert {(t.params["channels"], t.params["latent_dim"]) for t in study.trials} == {("[4, 8]", 8)}
    assert {t.params["activation"] for t in study.trials} == {"relu", "tanh"}
    attempts = size_limit.SAMPLER_ATTEMPTS + size_limit.RANDOM_ATTEMPTS
    assert {t.user_attrs["refused"] for t in study.trials} == {attempts}, (
        "it does not go on forever"
    )


def test_what_a_trial_begins_with_is_kept_and_the_rest_fits_to_it() -> None:
    spec = read()
    study = searched(spec, 4, channels="[16, 32]")
    assert {t.params["channels"] for t in study.trials} == {"[16, 32]"}
    assert max(sizes(spec, study)) <= LIMIT
    with pytest.raises(SpecError, match=r"search.max_parameters = 40000: no net"):
        searched(spec, 1, channels="[64, 128]")


def test_the_middle_of_the_space_is_left_out_where_it_is_too_large() -> None:
    limit, middle = SizeLimit(read(), SHAPE), space.initial_params(read(), 0)
    assert middle["latent_dim"] == 260
    assert limit.possible(middle) == {"learning_rate": pytest.approx(1e-3)}
    roomy = SizeLimit(read(max_parameters=10**7), SHAPE)
    assert roomy.possible(middle) == middle


def test_a_study_none_of_whose_nets_fits_is_refused_before_it_begins() -> None:
    said: list[str] = []
    networks = model_checks.build_networks(read(), SHAPE, said.append)
    assert all(n.parameters <= LIMIT for n in networks)
    assert said == [
        "search.max_parameters: 40,000 refuses 8 of 12 nets (at the ends of ranges, of all "
        f"choices); the largest has {largest_of(read()):,} parameters"
    ]
    with pytest.raises(SpecError, match=r"max_parameters: 100 refuses every net .* smallest has"):
        model_checks.build_networks(read(max_parameters=100), SHAPE)
    first = [{"latent_dim": 8}, {"channels": [64, 128]}]
    with pytest.raises(SpecError, match=r"search.first\[1\]: every such net has more"):
        model_checks.build_networks(read(first=first), SHAPE)


def largest_of(spec: StudySpec) -> int:
    return SizeLimit(spec, SHAPE).parameters(
        {"channels": "[64, 128]", "latent_dim": 512, "activation": "relu"}
    )


@pytest.mark.parametrize("wrong", [0, -5, "many", True])
def test_a_limit_that_is_no_number_of_parameters_is_refused(wrong: Any) -> None:
    with pytest.raises(SpecError, match=r"search.max_parameters: .*"):
        read(max_parameters=wrong)


def test_a_study_without_a_limit_is_stored_as_before() -> None:
    assert "max_parameters" not in read(max_parameters=None).document()["search"]
    assert read().differences(read(max_parameters=None)) == ["search.max_parameters: 40000 -> null"]
