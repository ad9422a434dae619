"""What a study file is refused for, and in which words."""

from __future__ import annotations

import datetime
import itertools
import math
import re
from typing import Any

import pytest

from searchae.config.loader import spec_from_document
from searchae.config.schema import SECTIONS
from searchae.errors import SpecError


def fault(**sections: Any) -> str:
    """The message for a study file of these sections."""
    with pytest.raises(SpecError) as caught:
        spec_from_document({"data": {"name": "svhn"}, **sections}, source="my.toml")
    return str(caught.value)


LAYER = {"channels": 3}

FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "empty path": (
        {"data": {"name": "folder", "path": ""}},
        ["data.path: must not be empty"],
    ),
    "stable with several objectives": (
        {"search": {"objectives": ["psnr", "sparsity"], "stop_when_stable": 3}},
        ["search.stop_when_stable: needs a single objective"],
    ),
    "unknown section": ({"modle": {}}, ["modle", "did you mean 'model'?", "search, seed, train"]),
    "unknown key": (
        {"train": {"optimiser": "adam"}},
        ["train.optimiser", "did you mean 'optimizer'?", "batch_size"],
    ),
    "unknown activation": (
        {"model": {"activation": "rellu"}},
        ["model.activation", "'rellu'", "did you mean 'relu'?", "leaky_relu"],
    ),
    "names in another case": (
        {"model": {"activation": "ReLU"}, "train": {"optimizer": {"choices": ["SGD", "RMSprop"]}}},
        ["train.optimizer.choices[0]", "mean 'sgd'?", "mean 'rmsprop'?", "mean 'relu'?"],
    ),
    "a first trial of a study that searches nothing": (
        {"search": {"first": [{"lr": 0.1}]}},
        ["search.first[0].lr: is not searched, as nothing is: give keys ranges or choices first"],
    ),
    "unknown optimizer": (
        {"train": {"optimizer": "adamm"}},
        ["train.optimizer", "'adamm'", "did you mean 'adam'?", "Valid: adam, adamw, nadam, rms"],
    ),
    "adamw without weight decay": (
        {"train": {"optimizer": {"choices": ["adam", "adamw"]}}},
        ["train.weight_decay", "missing: adamw without weight decay is adam; give one"],
    ),
    "a cross-entropy of outputs that are no shares": (
        {"model": {"output": {"choices": ["sigmoid", "none"]}}, "train": {"loss": "bce"}},
        ["model.output", 'must be "sigmoid" for train.loss = "bce"'],
    ),
    "a cross-entropy of values below 0": (
        {"model": {"image_range": "symmetric"}, "train": {"loss": {"choices": ["mse", "bce"]}}},
        ["model.image_range", 'must be "unit" for train.loss = "bce"'],
    ),
    "a sparse latent that is sampled": (
        {
            "model": {"variational": {"choices": [False, True]}},
            "train": {"regularizer": {"choices": ["clip", "clip+k-sparse"]}},
        },
        ["train.regularizer", '"clip+k-sparse" is not for variational nets'],
    ),
    "a latent of which nothing is left": (
        {"train": {"regularizer": "k-sparse", "active_latents": 0}},
        ["train.active_latents", "at least 1", "0"],
    ),
    "images that may be black": (
        {"train": {"brightness": {"low": 0.0, "high": 1.0}}},
        ["train.brightness.high", "below 1", "1.0"],
    ),
    "a flip that is no yes or no": ({"train": {"flip": 0.5}}, ["train.flip", "0.5"]),
    "a warm-up without end": (
        {"train": {"epochs": 5, "warmup_epochs": {"low": 0, "high": 5}}},
        ["train.warmup_epochs", "5 must be below train.epochs = 5"],
    ),
    "an early stop before the learning rate falls": (
        {"train": {"schedule": "plateau", "patience": 6}},
        ["train.patience", "6 ends a training before train.decay_epochs = 10 epochs without"],
    ),
    "true for 1": (
        {
            "train": {"clip": True, "batch_size": {"choices": [5, True]}},
            "search": {"trials": True},
        },
        ["train.batch_size.choices[1]", "train.clip: must be a number", "not true", "trials"],
    ),
    "unknown choice": (
        {"train": {"optimizer": {"choices": ["adam", "sdg"]}}},
        ["train.optimizer.choices[1]", "'sdg'", "did you mean 'sgd'?"],
    ),
    "choice in another case": (
        {"train": {"optimizer": "AdamW"}, "model": {"activation": "LeakyReLU"}},
        ["model.activation", "'AdamW'", "did you mean 'adamw'?", "did you mean 'leaky_relu'?"],
    ),
    "bits that no file has": (
        {"data": {"name": "npz", "path": "x", "bits": 12}},
        ["data.bits: must be 8 or 16, not 12", "write bits = 16 and white = 4095"],
    ),
    "too many bits": (
        {"data": {"name": "npz", "path": "x", "bits": 32}},
        ["data.bits: must be 8 or 16, not 32"],
    ),
    "unknown pruner": (
        {"search": {"pruner": "hyperbnd"}},
        ["search.pruner", "'hyperbnd'", "did you mean 'hyperband'?", "median, none"],
    ),
    "unknown sampler": (
        {"search": {"sampler": "cma"}},
        ["search.sampler", "'cma'", "Valid: gp, nsga2, random, tpe"],
    ),
    "unknown objective": (
        {"search": {"objectives": ["psnr", "sparcity"]}},
        ["search.objectives.1", "'sparcity'", "did you mean 'sparsity'?", "latent_dim, parameters"],
    ),
    "objective twice": (
        {"search": {"objectives": ["psnr", "sparsity", "sparsity"]}},
        ["search.objectives", "'sparsity' is named twice"],
    ),
    "objectives without the PSNR": (
        {"search": {"objectives": ["sparsity", "parameters"]}},
        ["search.objectives", "must begin with \"psnr\", not ['sparsity', 'parameters']"],
    ),
    "no objective": ({"search": {"objectives": []}}, ["search.objectives", 'begin with "psnr"']),
    "objectives as a word": (
        {"search": {"objectives": "sparsity"}},
        ["search.objectives", 'must be a list such as ["psnr", "sparsity"], not \'sparsity\''],
    ),
    "widths as a number": (
        {"model": {"channels": 16}},
        ["model.channels", "must be a list such as [16, 32], not 16"],
    ),
    "layers as a number": (
        {"model": {"encoder": 3, "decoder": [{"channels": 3}]}},
        ["model.encoder", "must be a list such as [{ channels = 16, stride = 2 }], not 3"],
    ),
    "nsga2 for one objective": (
        {"search": {"sampler": "nsga2"}},
        ["search.sampler", '"nsga2" is for several objectives', 'use "tpe"'],
    ),
    "unknown data set": (
        {"data": {"name": "svnh"}},
        ["data.name", "'svnh'", "did you mean 'svhn'?", "house-numbers"],
    ),
    "data set without its file": (
        {"data": {"name": "csv"}},
        ["data.path", "missing", "csv source needs the file"],
    ),
    "section that is no table": ({"train": 3}, ["train", "must be a table, not 3"]),
    "low above high": (
        {"train": {"learning_rate": {"low": 0.1, "high": 0.01}}},
        ["train.learning_rate", "low = 0.1 must be below high = 0.01"],
    ),
    "low equal to high": (
        {"model": {"latent_dim": {"low": 8, "high": 8}}},
        ["model.latent_dim", "low = 8 must be below high = 8"],
    ),
    "logarithm of zero": (
        {"train": {"noise_std": {"low": 0.0, "high": 0.5, "log": True}}},
        ["train.noise_std", "log needs low above 0, not 0.0"],
    ),
    "logarithm with a step": (
        {"model": {"latent_dim": {"low": 1, "high": 9, "log": True, "step": 2}}},
        ["model.latent_dim", "log and step exclude each other"],
    ),
    "bound outside of the key's own": (
        {"train": {"momentum": {"low": 0.0, "high": 1.5}}},
        ["train.momentum.high", "below 1", "1.5"],
    ),
    "infinite bound": (
        {"train": {"learning_rate": {"low": 1e-4, "high": float("inf")}}},
        ["train.learning_rate.high", "finite", "inf"],
    ),
    "infinite choice": (
        {"train": {"clip": {"choices": [0.5, float("inf")]}}},
        ["train.clip.choices[1]", "finite", "inf"],
    ),
    "half a range": (
        {"model": {"latent_dim": {"high": 8}}},
        ["model.latent_dim", "needs low and high, or choices; low is missing"],
    ),
    "range of text": (
        {"train": {"optimizer": {"low": "adam", "high": "sgd"}}},
        ["train.optimizer.low", "must be a number, not 'adam'"],
    ),
    "range of a named value": (
        {"train": {"optimizer": {"low": 1, "high": 2}}},
        ["train.optimizer.low", "1 is not known", "Valid: adam, adamw, nadam, rmsprop, sgd"],
    ),
    "fraction for a whole number": (
        {"model": {"latent_dim": {"low": 8.5, "high": 16}}},
        ["model.latent_dim.low", "a whole number", "8.5"],
    ),
    "step of nothing": (
        {"model": {"latent_dim": {"low": 8, "high": 16, "step": 0}}},
        ["model.latent_dim.step", "must be a positive number, not 0"],
    ),
    "step without a value": (
        {"train": {"clip": {"low": 0.1, "high": 1.0, "step": float("nan")}}},
        ["train.clip.step", "must be a positive number, not nan"],
    ),
    "broken step of a whole number": (
        {"model": {"latent_dim": {"low": 8, "high": 16, "step": 2.5}}},
        ["model.latent_dim.step", "must be a whole number, not 2.5"],
    ),
    "log that is no truth value": (
        {"train": {"clip": {"low": 0.1, "high": 1.0, "log": "yes"}}},
        ["train.clip.log", "must be true or false, not 'yes'"],
    ),
    "unknown word in a range": (
        {"train": {"clip": {"low": 0.1, "high": 1.0, "hihg": 2.0}}},
        ["train.clip.hihg", "did you mean 'high'?"],
    ),
    "range and choices": (
        {"train": {"clip": {"choices": [0.1, 1.0], "low": 0.1}}},
        ["train.clip.low", "unknown key", "Valid: choices"],
    ),
    "no choices": (
        {"train": {"optimizer": {"choices": []}}},
        ["train.optimizer.choices", "at least one value"],
    ),
    "choice listed twice": (
        {"train": {"optimizer": {"choices": ["adam", "sgd", "adam"]}}},
        ["train.optimizer.choices[2]", "'adam' is listed twice"],
    ),
    "list of widths listed twice": (
        {"model": {"channels": {"choices": [[4, 8], [4, 8]]}}},
        ["model.channels.choices[1]", "[4, 8] is listed twice"],
    ),
    "no trials": ({"search": {"trials": 0}}, ["search.trials", "at least 1", "0"]),
    "no epochs": ({"train": {"epochs": 0}}, ["train.epochs", "at least 1", "0"]),
    "negative batch": ({"train": {"batch_size": -3}}, ["train.batch_size", "-3"]),
    "not a number": ({"train": {"clip": float("nan")}}, ["train.clip", "finite", "nan"]),
    "searched epochs": (
        {"train": {"epochs": {"low": 1, "high": 9}}},
        ["train.epochs", "cannot be searched", "use train.patience"],
    ),
    "searched budget": ({"search": {"trials": {"low": 1, "high": 9}}}, ["search.trials"]),
    "searched split": (
        {"data": {"name": "svhn", "validation": {"low": 0.1, "high": 0.2}}},
        ["data.validation", "must be a number"],
    ),
    "encoder alone": ({"model": {"encoder": [LAYER]}}, ["model.decoder", "encoder and decoder"]),
    "decoder alone": ({"model": {"decoder": [LAYER]}}, ["model.encoder", "encoder and decoder"]),
    "searched encoder alone": (
        {"model": {"encoder": {"choices": [[LAYER], [LAYER, LAYER]]}}},
        ["model.decoder", "encoder and decoder"],
    ),
    "unknown key of a layer": (
        {"model": {"encoder": [{"channels": 3, "kernel": 5}], "decoder": [LAYER]}},
        ["model.encoder.0.kernel", "did you mean 'kernel_size'?"],
    ),
    "more epochs before pruning than epochs": (
        {"train": {"epochs": 3}, "search": {"min_epochs": 4}},
        ["search.min_epochs", "4 exceeds train.epochs = 3"],
    ),
    "noise that never begins": (
        {"train": {"epochs": 20, "noise_std": 0.1, "noise_from_epoch": 21}},
        ["train.noise_from_epoch", "21 exceeds train.epochs = 20", "no epoch would have noise"],
    ),
    "noise that may never begin": (
        {"train": {"epochs": 20, "noise_from_epoch": {"choices": [1, 21]}}},
        ["train.noise_from_epoch", "21 exceeds train.epochs = 20"],
    ),
    "first trials that are no tables": (
        {"search": {"first": [3]}},
        ["search.first.0", "3"],
    ),
    "grace shorter than two heartbeats": (
        {"search": {"heartbeat_s": 20.0, "grace_s": 30.0}},
        ["search.grace_s", "30.0", "twice heartbeat_s = 20.0"],
    ),
    "list for one value": (
        {"model": {"latent_dim": [32, 64]}},
        ["model.latent_dim", "write latent_dim = { choices = [32, 64] }"],
    ),
    "list of names": (
        {"train": {"optimizer": ["adam", "sgd"]}},
        ["train.optimizer", 'write optimizer = { choices = ["adam", "sgd"] }'],
    ),
    "lists of widths": (
        {"model": {"channels": [[4, 8], [8, 16]]}},
        ["model.channels.0", "write channels = { choices = [...] }"],
    ),
    "huge number": (
        {"model": {"latent_dim": {"low": 4, "high": 2**63}}},
        ["model.latent_dim.high", "at most 2147483647"],
    ),
    "thousands of choices": (
        {"model": {"latent_dim": {"choices": list(range(1, 20_001))}}},
        ["model.latent_dim.choices", "has 20,000 values; at most 1000"],
    ),
    "thousands of layers": (
        {"model": {"kind": "dense", "hidden": [4] * 20_000}},
        ["model.hidden", "has 20,000 values; at most 64"],
    ),
    "a text as long as a book": (
        {"train": {"optimizer": "x" * 100_000}},
        ["train.optimizer", "xxx...", "Valid: adam, adamw, nadam, rmsprop, sgd"],
    ),
    "negative seed": ({"seed": -1}, ["seed", "from 0 to 2147483647, not -1"]),
    "description that is no text": ({"description": 5}, ["description", "must be a text, not 5"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_where_what_and_what_to_do(name: str) -> None:
    sections, wanted = FAULTS[name]
    message = fault(**sections)
    assert message.startswith(f"my.toml: {wanted[0]}"), message
    assert all(part in message for part in wanted), message
    assert len(message.splitlines()) == len(set(message.splitlines()))
    assert len(message) < 2000


def test_a_missing_data_section_is_asked_for() -> None:
    with pytest.raises(SpecError, match=r"my\.toml: data: missing: add \[data\]"):
        spec_from_document({"train": {}}, source="my.toml")


def test_all_faults_are_told_at_once_a_line_each() -> None:
    message = fault(
        trane={},
        seed="zero",
        data={"name": "svnh"},
        model={"activation": {"choices": ["relu", "relu"]}, "latent": 3},
        train={"optimizer": "adamm", "learning_rate": {"low": 1, "high": 0.1}, "epochs": 0},
        search={"trials": 0, "pruner": "medain"},
    )
    lines = message.splitlines()
    assert all(line.startswith("my.toml: ") for line in lines)
    keys = {line.split(": ")[1] for line in lines}
    assert keys == {
        "trane",
        "seed",
        "data.name",
        "model.activation.choices[1]",
        "model.latent",
        "train.optimizer",
        "train.learning_rate",
        "train.epochs",
        "search.trials",
        "search.pruner",
    }
    assert len(lines) == len(keys)


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("train", "epochs", 2.5, "must be a whole number, not 2.5"),
        ("train", "epochs", 2**31, "must be at most 2147483647, not 2147483648"),
        ("train", "learning_rate", math.inf, "must be a finite number, not inf"),
        ("train", "learning_rate", 0, "must be above 0, not 0"),
        ("train", "ssim_weight", 2, "must be at most 1, not 2"),
        ("model", "dropout", 1.0, "must be below 1, not 1.0"),
        ("model", "channels", [], "must have at least 1 value, not []"),
        ("model", "encoder", [3], "must be a table, not 3"),
        ("model", "factory_sha256", "x", "must be a SHA-256, which is 64 hexadecimal digits"),
        ("model", "group_norm", datetime.date(2026, 1, 1), "must be a whole number, not datetime"),
        ("data", "path", 3, "must be a text in quotes, not 3"),
    ],
)
def test_a_wrong_value_is_told_in_a_user_s_words(
    section: str, key: str, value: object, said: str
) -> None:
    document: dict[str, dict[str, object]] = {"data": {"name": "svhn"}}
    document.setdefault(section, {})[key] = value
    with pytest.raises(SpecError) as caught:
        spec_from_document(document, source="s")
    assert said in str(caught.value)
    assert "nput should" not in str(caught.value)


def test_none_of_the_library_s_own_words_reach_a_user() -> None:
    """Each key is given values of every kind."""
    odd: list[object] = [True, -(2**70), 2**70, 2.5, math.nan, -1, "x", "", None]
    odd += [[], [{}], [3], {}, {"x": 3}, datetime.date(2026, 1, 1)]
    said = []
    for section, keys in SECTIONS.items():
        for key, value in itertools.product(keys.model_fields, odd):
            document: dict[str, dict[str, object]] = {"data": {"name": "svhn"}}
            document.setdefault(section, {})[key] = value
            try:
                spec_from_document(document, source="s")
            except SpecError as e:
                said.append(str(e))
    assert len(said) > 300
    raw = re.compile("input|should|valid [a-z]|instance|pattern|tuple|dictionary", re.IGNORECASE)
    assert [text for text in said if raw.search(text)] == []
