"""New study files: a built-in study's net and search for images of any size and number."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from searchae.config import (
    LIKES,
    DraftImages,
    StudyDraft,
    batch_size_variants,
    built_in_studies,
    draft_study,
    model_variants,
)
from searchae.errors import SpecError, UserError
from searchae.models import build_on_meta

SHAPES = [(1, 28, 28), (3, 32, 32), (4, 64, 64), (3, 48, 64), (2, 8, 8), (3, 24, 40)]
ODD = [(3, 37, 53), (1, 5, 9), (1, 4, 4)]
POOLING = ("pool-conv", "pool-conv-8x8")


def draft(
    shape: tuple[int, int, int] = (3, 32, 32), train: int = 5000, **options: Any
) -> StudyDraft:
    data = {"name": "npz", "path": "images.npz", "validation": 0.1}
    images = DraftImages(data, {"path": "where it is"}, shape, train, "100 images", "90 and 10")
    return draft_study(images, name="mine", **options)


def test_a_new_study_can_be_like_every_built_in_one() -> None:
    assert set(built_in_studies()) == set(LIKES.values())
    assert set(LIKES.values()) <= set(LIKES)


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_of_its_nets_can_be_built(like: str, shape: tuple[int, int, int]) -> None:
    if like == "pool-conv-8x8" and shape[1] % 4:
        pytest.skip("pools twice")
    spec = draft(shape, like=like).spec
    nets = model_variants(spec)
    assert all(build_on_meta(net.model, shape).latent_size > 0 for net in nets)


@pytest.mark.parametrize("like", sorted(set(LIKES) - set(POOLING)))
@pytest.mark.parametrize("shape", ODD, ids=str)
def test_nets_that_do_not_pool_take_any_size(like: str, shape: tuple[int, int, int]) -> None:
    if like == "same-size" and shape == (1, 4, 4):
        with pytest.raises(UserError, match="more than 4 pixels a side"):
            draft(shape, like=like)
        return
    for net in model_variants(draft(shape, like=like).spec):
        build_on_meta(net.model, shape)


@pytest.mark.parametrize("like", POOLING)
def test_a_net_that_cannot_halve_the_images_is_refused(like: str) -> None:
    with pytest.raises(UserError, match=r"multiples of [24] pixels.* 53x37.*--like conv"):
        draft((3, 37, 53), like=like)


def test_an_unknown_one_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'pool-conv'"):
        draft(like="pol-conv")


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("train", [1, 2, 20, 300, 3000, 20_000])
def test_there_are_no_more_images_in_a_batch_than_in_training(like: str, train: int) -> None:
    spec = draft(train=train, like=like).spec
    (size,) = batch_size_variants(spec, model_variants(spec))
    assert 1 <= size <= train
    assert 20 <= spec.epochs <= 100


def test_more_images_get_larger_batches_and_fewer_epochs() -> None:
    specs = [draft(train=train).spec for train in (300, 3000, 8000, 20_000)]
    trained = [(s.fixed["train"]["batch_size"], s.epochs) for s in specs]
    assert trained == [(16, 100), (32, 40), (64, 30), (128, 30)]


def test_the_latent_follows_the_size_of_the_images() -> None:
    sizes = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 128, 128)]
    assert [draft(s).spec.fixed["model"]["latent_dim"] for s in sizes] == [16, 64, 4, 256]


def test_what_is_searched_is_what_the_built_in_study_searches() -> None:
    for like, built_in in LIKES.items():
        document = tomllib.loads(built_in_studies()[built_in].read_text())
        searched = {
            f"{section}.{key}"
            for section in ("model", "train")
            for key, value in document[section].items()
            if isinstance(value, dict)
        }
        spec = draft(like=like).spec
        assert {p.key for p in spec.space} == searched
        assert len(spec.search.first) == len(document["search"].get("first", ()))


def test_noise_that_begins_later_does_so_within_the_epochs() -> None:
    spec = draft(train=20_000, like="same-size").spec
    assert spec.epochs == 30
    assert spec.choices_of("train.noise_from_epoch") == (1, 16)
    assert spec.search.first[0]["noise_from_epoch"] == 16


def test_what_is_set_stands_in_the_text_without_a_comment_that_denies_it() -> None:
    found = draft(
        overrides=[
            "train.epochs=7",
            "model.activation={ choices = ['silu', 'elu'] }",
            'data.path=C:\\a "b" ü\x7f',
            "search.trials=3",
        ]
    )
    assert "epochs = 7\n" in found.text
    assert found.spec.epochs == 7
    assert found.spec.search.trials == 3
    assert found.spec.data.path == 'C:\\a "b" ü\x7f'
    assert 'activation = { choices = ["silu", "elu"] }\n' in found.text


@pytest.mark.parametrize("override", ["train.lr=3", "model=3", "train.epochs=0", "data.path=1"])
def test_what_is_set_wrongly_is_named(override: str) -> None:
    with pytest.raises(SpecError, match=override.partition("=")[0]):
        draft(overrides=[override])


def test_no_line_is_longer_than_a_screen_but_for_its_value() -> None:
    for like in LIKES:
        lines = draft((3, 48, 64), like=like).text.splitlines()
        assert all(len(line) <= 100 for line in lines), like


def test_a_value_has_a_comment_wherever_a_newcomer_needs_one() -> None:
    text = draft().text
    for key in ("channels", "latent_dim", "activation", "epochs", "batch_size", "optimizer"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"{key} ="))
        assert "  # " in line
    assert 'path = "images.npz"              # where it is' in text
