"""A study file: what is read from it, who has the last word, and what is stored of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchae.config.loader import load_study_file, spec_from_document
from searchae.config.schema import TrainParams
from searchae.config.study_spec import NOT_IDENTITY, StudySpec
from searchae.errors import SpecError
from tests.unit.study_documents import documents


def read(**sections: Any) -> StudySpec:
    return spec_from_document({"data": {"name": "svhn"}, **sections}, source="my.toml")


def parameter(spec: StudySpec, name: str) -> Any:
    return next(p for p in spec.space if p.name == name)


LAYER = {"channels": 3}


def test_what_is_left_out_has_its_default_and_nothing_is_searched() -> None:
    spec = read()
    assert spec.space == ()
    assert (spec.seed, spec.epochs, spec.search.trials) == (0, 20, 100)
    assert spec.fixed["train"]["clip"] == 0.5
    assert spec.fixed["model"]["channels"] == (32, 64, 128)


def test_a_range_makes_a_value_a_searched_parameter() -> None:
    spec = read(
        model={"latent_dim": {"low": 8, "high": 64, "step": 8}},
        train={
            "learning_rate": {"low": 1e-5, "high": 1, "log": True},
            "optimizer": {"choices": ["adam", "sgd"]},
        },
    )
    assert [p.key for p in spec.space] == [
        "model.latent_dim",
        "train.learning_rate",
        "train.optimizer",
    ]
    latent, rate, optimizer = spec.space
    assert (latent.integer, latent.low, latent.high, latent.step) == (True, 8, 64, 8)
    assert (rate.integer, rate.log, rate.high) == (False, True, 1.0)
    assert optimizer.choices == ("adam", "sgd")
    assert "latent_dim" not in spec.fixed["model"]


def test_encoder_and_decoder_may_both_be_explicit_or_searched() -> None:
    choices = {"choices": [[LAYER], [LAYER, LAYER]]}
    assert read(model={"encoder": [LAYER], "decoder": [LAYER]}).space == ()
    spec = read(model={"encoder": choices, "decoder": [LAYER]})
    assert [p.key for p in spec.space] == ["model.encoder"]


# -- the file, and who has the last word


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nname = "mnist"\n[train]\nepochs = 3\nclip = 0.25\nbatch_size = 32\n')
    return path


def test_command_line_beats_override_beats_environment_beats_file_beats_default(
    file: Path,
) -> None:
    spec = load_study_file(
        file,
        changes={"train.epochs": 7, "seed": 9},
        overrides=["train.epochs=6", "train.clip=0.75", "seed=8"],
        environment={
            "SEARCHAE_TRAIN__EPOCHS": "5",
            "SEARCHAE_TRAIN__CLIP": "0.6",
            "SEARCHAE_TRAIN__BATCH_SIZE": "64",
            "SEARCHAE_STORAGE": "sqlite:///elsewhere.db",
            "PATH": "/bin",
        },
    )
    train = spec.fixed["train"]
    assert (spec.seed, spec.epochs) == (9, 7), "the command line's own options"
    assert train["clip"] == 0.75, "--set over the environment"
    assert train["batch_size"] == 64, "the environment over the file"
    assert spec.data.name == "mnist", "the file over the default"
    assert train["optimizer"] == "adam", "the default"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.optimizer=sgd", "optimizer", "sgd"),
        ('train.optimizer="sgd"', "optimizer", "sgd"),
        (" train.optimizer = sgd ", "optimizer", "sgd"),
        ("train.regularizer=clip+l1", "regularizer", "clip+l1"),
        ("train.learning_rate=1e-3", "learning_rate", 1e-3),
        ("train.patience=4", "patience", 4),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(
    file: Path, override: str, key: str, value: object
) -> None:
    spec = load_study_file(file, overrides=[override], environment={})
    assert spec.fixed["train"][key] == value


def test_an_override_without_a_value_takes_the_default(file: Path) -> None:
    file.write_text(file.read_text() + "learning_rate = { low = 1e-4, high = 1e-1, log = true }\n")
    texts = ["train.clip=", "train.learning_rate =", "train.l1_weight="]
    spec = load_study_file(file, overrides=texts, environment={})
    default = TrainParams()
    assert spec.fixed["train"]["clip"] == default.clip != 0.25
    assert spec.fixed["train"]["learning_rate"] == default.learning_rate
    assert spec.space == ()


def test_an_override_may_be_a_range_and_a_range_a_value(file: Path) -> None:
    file.write_text(file.read_text() + "learning_rate = { low = 1e-4, high = 1e-1, log = true }\n")
    spec = load_study_file(
        file,
        overrides=[
            "train.learning_rate=0.01",
            'train.optimizer={ choices = ["adam", "sgd"] }',
            "model.latent_dim={ low = 4, high = 8 }",
        ],
        environment={},
    )
    assert {p.key for p in spec.space} == {"train.optimizer", "model.latent_dim"}
    assert spec.fixed["train"]["learning_rate"] == 0.01


def test_one_bound_of_a_range_can_be_overridden(file: Path) -> None:
    file.write_text(file.read_text() + "learning_rate = { low = 1e-4, high = 1e-1, log = true }\n")
    spec = load_study_file(file, overrides=["train.learning_rate.high=0.5"], environment={})
    rate = parameter(spec, "learning_rate")
    assert (rate.low, rate.high, rate.log) == (1e-4, 0.5, True)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("train.epochs", "--set train.epochs: write it as section.key=value"),
        ("train.epochs.more=3", "epochs is a value, not a table"),
        ("train.epoch=", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("train.epoch=3", "train.epoch: unknown key; did you mean 'epochs'?"),
        ("train.optimizer=adamm", "train.optimizer: 'adamm' is not known; did you mean 'adam'?"),
        ("train.epochs=many", "train.epochs: must be a whole number, not 'many'"),
    ],
)
def test_a_wrong_override_is_refused(file: Path, override: str, wanted: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_study_file(file, overrides=[override], environment={})
    assert wanted in str(caught.value)


def test_toml_that_cannot_be_read_is_told_with_its_line(file: Path) -> None:
    file.write_text('[data]\nname = "mnist"\n[train\nepochs = 3\n')
    with pytest.raises(SpecError, match=r"mine\.toml: not valid TOML: .*line 3"):
        load_study_file(file, environment={})


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (binary, tmp_path / "absent.toml", tmp_path):
        with pytest.raises(SpecError, match=r"cannot be read|not a regular file") as caught:
            load_study_file(path, environment={})
        assert str(caught.value).startswith(f"{path}: ")


# -- what is stored with the study


@settings(max_examples=100, deadline=None)
@given(documents())
def test_a_stored_document_reads_back_as_the_same_spec(document: dict[str, Any]) -> None:
    spec = spec_from_document(document, source="random")
    again = spec_from_document(json.loads(json.dumps(spec.document())), source="stored")
    assert again == spec
    assert spec.differences(again) == []
    assert again.document() == spec.document()


@settings(max_examples=50, deadline=None)
@given(documents(), st.data())
def test_every_key_that_changes_results_is_a_difference(
    document: dict[str, Any], data: st.DataObject
) -> None:
    spec = spec_from_document(document, source="random")
    changes = {
        "seed": (spec.seed + 1) % 2**31,
        "train.epochs": spec.epochs + 1,
        "train.weight_decay": 0.125,
        "data.validation": 0.375,
        "search.startup_trials": 77,
    }
    key = data.draw(st.sampled_from(sorted(changes)))
    changed = spec.document()
    section, _, name = key.rpartition(".")
    (changed[section] if section else changed)[name] = changes[key]
    (line,) = spec.differences(spec_from_document(changed, source="changed"))
    assert line.startswith(f"{key}: ")
    assert line.endswith(f" -> {changes[key]}")


def test_a_value_in_the_place_of_a_range_is_a_difference() -> None:
    searched = read(train={"clip": {"choices": [0.25, 0.5]}})
    assert searched.differences(read(train={"clip": 0.25})) == [
        'train.clip: {"choices": [0.25, 0.5]} -> 0.25'
    ]


def test_what_changes_no_result_is_no_difference() -> None:
    spec = read()
    other = read(
        description="other words",
        data={"name": "svhn", "path": "elsewhere", "test_path": "there"},
        search={"trials": 7, "heartbeat_s": 1.0, "grace_s": 9.0, "max_attempts": 9}
        | {"stop_when_stable": 9},
    )
    assert spec.differences(other) == []
    assert set(NOT_IDENTITY) == {
        "description",
        "data.path",
        "data.test_path",
        "model.factory",
        "search.trials",
        "search.stop_when_stable",
        "search.heartbeat_s",
        "search.grace_s",
        "search.max_attempts",
    }


def test_documents_have_no_later_key_of_a_training_that_is_not_used() -> None:
    """Keys of trainings and checkpoints of earlier versions stay what they are."""
    later: dict[str, Any] = {"contractive_weight": 1e-3, "active_latents": 4}
    later |= {"shift_pixels": 2, "flip": True, "brightness": 0.2}
    assert TrainParams().document().keys() == {
        *("epochs", "batch_size", "optimizer", "learning_rate", "momentum", "weight_decay"),
        *("regularizer", "clip", "l1_weight", "l1_target", "noise_std", "noise_from_epoch"),
        *("patience", "min_delta_db"),
    }
    assert later.keys() <= TrainParams(**later).document().keys()
    assert not later.keys() & read().document()["train"].keys()
    assert later.items() <= read(train=later).document()["train"].items()


def test_later_keys_of_data_are_written_only_where_they_are_set() -> None:
    """Earlier versions refuse keys that they do not know, in the database and in bundles."""
    later = {"background": "black", "white": 4095.0, "label": "last"}
    plain = {"name": "csv", "path": "x.csv"}
    for data in (plain, {**plain, **later}):
        spec = spec_from_document({"data": data}, source="test")
        written = spec.document()["data"]
        assert {k: v for k, v in written.items() if k in later} == {
            k: v for k, v in data.items() if k in later
        }
        assert spec_from_document(spec.document(), source="test") == spec
