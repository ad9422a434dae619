"""The shipped studies, resolved with the values that were published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from searchae.config import loader
from searchae.config.schema import TrialParams
from searchae.config.study_spec import StudySpec
from searchae.models.builder import build_model, parameter_count

STUDIES = Path(__file__).parents[2] / "studies"
PUBLISHED = {"model.activation": "relu", "train.learning_rate": 1e-3, "train.regularizer": "none"}
SVHN, MNIST = (3, 32, 32), (1, 28, 28)


REFERENCES = ("pool-conv", "pool-conv-8x8", "dense", "conv-bn", "gap-conv", "same-size")


def reference(name: str) -> StudySpec:
    return loader.load_study_file(STUDIES / f"{name}.toml", environment={})


def resolved(name: str, **values: Any) -> TrialParams:
    study = reference(name)
    searched = {p.key for p in study.space}
    assert searched >= {"model.activation", "train.learning_rate"}
    return study.resolve({**PUBLISHED, **{f"model.{k}": v for k, v in values.items()}})


@pytest.mark.parametrize(
    ("name", "values", "image_shape", "parameters"),
    [
        ("pool-conv", {"latent_dim": 64}, SVHN, 598_211),
        ("pool-conv", {"latent_dim": 16}, SVHN, 401_555),
        ("pool-conv-8x8", {}, SVHN, 1_390_787),
        ("dense", {}, MNIST, 223_955),
        ("gap-conv", {}, MNIST, 62_905),
        ("same-size", {}, SVHN, 1_611),
        # Convolutions without a bias, the dense bottleneck, scale and shift of five norms.
        ("conv-bn", {}, MNIST, 144 + 4_608 + 18_432 + 66_592 + 18_432 + 8_192 + 257 + 2 * 160),
    ],
)
def test_the_study_has_the_published_number_of_parameters(
    name: str, values: dict[str, Any], image_shape: tuple[int, int, int], parameters: int
) -> None:
    model = build_model(resolved(name, **values).model, image_shape=image_shape)
    assert parameter_count(model) == parameters


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "weight_decay"),
    [
        ("pool-conv", 20, 128, 0),
        ("pool-conv-8x8", 20, 128, 0),
        ("dense", 20, 64, 1e-5),
        ("conv-bn", 10, 64, 1e-5),
        ("gap-conv", 10, 32, 0),
        ("same-size", 40, 100, 0),
    ],
)
def test_the_study_trains_as_published(
    name: str, epochs: int, batch_size: int, weight_decay: float
) -> None:
    train = resolved(name).train
    assert (train.epochs, train.batch_size, train.weight_decay) == (
        epochs,
        batch_size,
        weight_decay,
    )
    assert train.optimizer == "adam"


@pytest.mark.parametrize("name", REFERENCES)
def test_the_search_begins_with_what_was_published(name: str) -> None:
    study = reference(name)
    (first,) = study.search.first
    assert set(first) == {p.name for p in study.space if p.key != "train.l1_weight"}, "all of it"
    values = {p.key: first[p.name] for p in study.space if p.name in first}
    assert values.items() >= PUBLISHED.items()


def test_the_published_denoiser_trains_without_noise_first() -> None:
    study = reference("same-size")
    (first,) = study.search.first
    assert study.fixed["train"]["noise_std"] == 0.1
    assert (first["noise_from_epoch"], study.epochs) == (21, 40)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_study_says_what_it_is_and_can_be_read(path: Path) -> None:
    study = loader.load_study_file(path, environment={})
    assert study.description
    assert study.space


@pytest.mark.parametrize(
    ("name", "image_shape"), [("svhn", SVHN), ("cifar10", SVHN), ("mnist", MNIST)]
)
def test_our_own_studies_build_for_their_images(
    name: str, image_shape: tuple[int, int, int]
) -> None:
    model = build_model(resolved(name).model, image_shape=image_shape)
    assert parameter_count(model) > 0
