"""``[[search.first]]``: trials that a study file sets, and what they are refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchae.config import space
from searchae.config.loader import load_study_file, spec_from_document
from searchae.config.study_spec import StudySpec
from searchae.errors import SpecError

MODEL = {
    "activation": {"choices": ["relu", "tanh"]},
    "channels": {"choices": [[8, 16], [16, 32]]},
    "latent_dim": {"low": 8, "high": 64, "step": 8},
}
TRAIN = {
    "learning_rate": {"low": 1e-4, "high": 1, "log": True},
    "regularizer": {"choices": ["clip", "clip+l1"]},
    "l1_weight": {"low": 1e-6, "high": 1e-3, "log": True},
    "batch_size": 32,
}


def read(*first: dict[str, Any], **train: Any) -> StudySpec:
    document = {
        "data": {"name": "svhn"},
        "model": MODEL,
        "train": {**TRAIN, **train},
        "search": {"first": list(first)},
    }
    return spec_from_document(document, source="my.toml")


def test_given_trials_have_their_fields_types_and_the_space_s_order() -> None:
    spec = read({"learning_rate": 1, "latent_dim": 16.0, "channels": [16, 32]})
    (entry,) = spec.search.first
    assert list(entry) == ["channels", "latent_dim", "learning_rate"]
    assert [type(v) for v in entry.values()] == [list, int, float]
    assert space.initial_params(spec, 0) == {
        "channels": "[16, 32]",
        "latent_dim": 16,
        "learning_rate": 1.0,
    }
    assert space.initial_params(spec, 1) == {}


def searched(changes: dict[str, Any], *, sampler: str = "tpe", **search: Any) -> StudySpec:
    document = {
        "data": {"name": "svhn"},
        "train": changes,
        "search": {"sampler": sampler, **search},
    }
    return spec_from_document(document, source="my.toml")


def test_a_search_begins_with_the_middle_of_its_space() -> None:
    begun = space.initial_params(read(), 0)
    assert begun.pop("learning_rate") == pytest.approx(1e-2)
    assert begun == {
        "activation": "relu",
        "channels": "[8, 16]",
        "latent_dim": 32,  # 36 is not on the grid
        "regularizer": "clip",  # and so no l1_weight
    }
    assert space.initial_params(read(), 1) == {}
    with_l1 = read(regularizer={"choices": ["clip+l1", "clip"]})
    assert space.initial_params(with_l1, 0)["l1_weight"] == pytest.approx(10**-4.5)


@pytest.mark.parametrize(
    ("searched_range", "middle"),
    [
        ({"low": 3, "high": 8}, 5),
        ({"low": 16, "high": 1024, "log": True}, 128),
        ({"low": 1, "high": 2}, 1),
    ],
)
def test_the_middle_of_whole_numbers_is_one(searched_range: dict[str, Any], middle: int) -> None:
    found = space.initial_params(searched({"batch_size": searched_range}), 0)["batch_size"]
    assert (found, type(found)) == (middle, int)


def test_the_middle_is_not_taken_where_it_would_teach_nothing_or_is_not_wanted() -> None:
    rates = {"learning_rate": {"low": 0.1, "high": 0.3}}
    assert space.initial_params(searched(rates), 0) == {"learning_rate": pytest.approx(0.2)}
    assert space.initial_params(searched(rates, midpoint_first=False), 0) == {}
    assert space.initial_params(searched(rates, sampler="random"), 0) == {}, (
        "all of it is to be random"
    )
    assert space.initial_params(searched(rates), 0, warm=True) == {}, "a warm start knows more"
    assert space.initial_params(searched(rates, first=[{}]), 0) == {}, "what the user begins with"
    given = searched(rates, first=[{"learning_rate": 0.15}])
    assert space.initial_params(given, 0, warm=True) == {"learning_rate": 0.15}


def test_a_study_file_has_a_table_for_each(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        '[data]\nname = "mnist"\n[train]\noptimizer = { choices = ["adam", "sgd"] }\n'
        '[search]\ntrials = 3\n[[search.first]]\noptimizer = "sgd"\n'
        '[[search.first]]\noptimizer = "adam"\n'
    )
    spec = load_study_file(path, environment={})
    assert spec.search.first == ({"optimizer": "sgd"}, {"optimizer": "adam"})
    dropped = load_study_file(path, environment={}, overrides=["search.first=[]"])
    assert dropped.search.first == ()


def test_they_are_stored_with_the_study_and_decide_which_study_it_is() -> None:
    spec = read({"activation": "relu", "channels": [8, 16]})
    assert spec_from_document(spec.document(), source="stored") == spec
    (line,) = spec.differences(read())
    assert line.startswith("search.first: [{")
    assert spec.differences(read({"channels": [8, 16], "activation": "relu"})) == []


def test_a_value_that_an_override_fixes_may_stay_in_the_file_if_it_is_the_same() -> None:
    entry = {"learning_rate": 0.5, "activation": "relu", "batch_size": 32}
    spec = read(entry, learning_rate=0.5)
    assert spec.search.first == ({"activation": "relu"},)
    with pytest.raises(SpecError, match=r"search\.first\[0\]\.learning_rate: is 0\.5, but .*0\.01"):
        read(entry, learning_rate=0.01)


def test_the_l1_weight_may_be_given_where_the_regularizer_is_sampled() -> None:
    assert read({"l1_weight": 1e-4}).search.first == ({"l1_weight": 1e-4},)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"learning_rate": 2.0}, "learning_rate: 2.0 is outside of its range, 0.0001 to 1"),
        ({"latent_dim": 12}, "latent_dim: 12 is not on its grid: 8 + n * 8"),
        ({"latent_dim": 12.5}, "latent_dim: "),
        ({"learning_rate": True}, "learning_rate: must be a number, not True"),
        ({"learning_rate": "fast"}, "learning_rate: "),
        ({"activation": "gelu"}, "activation: 'gelu' is not one of its choices: relu, tanh"),
        ({"activation": "rulu"}, "activation: 'rulu' is not known; did you mean 'relu'?"),
        ({"channels": [8]}, "channels: [8] is not one of its choices: [8, 16], [16, 32]"),
        ({"lerning_rate": 0.1}, "lerning_rate: is not searched; did you mean 'learning_rate'?"),
        (
            {"regularizer": "clip", "l1_weight": 1e-4},
            "l1_weight: is not sampled under regularizer = 'clip'; leave it out",
        ),
    ],
)
def test_what_the_space_does_not_hold_is_refused_with_its_place(
    entry: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        read({"activation": "tanh"}, entry)
    assert f"my.toml: search.first[1].{said}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1, "one fault, one line"
