"""A net that cannot learn any more ends early; one that can, however badly it does, goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from searchae.errors import DeadError
from searchae.training.dead_units import find_dead_layer, least_constant_mse
from searchae.training.images import ResidentImages
from searchae.training.trainer import Trainer
from tests.unit.tiny_training import TRAIN, VALIDATION, params, trainer


def silenced(**train: Any) -> Trainer:
    """A training whose first convolution is far below zero for every image."""
    free = {"regularizer": "none", "optimizer": "sgd", **train}
    run = trainer(params({"activation": "relu"}, **free))
    with torch.no_grad():
        run.model.encoder[0].get_parameter("bias").fill_(-1000)
    return run


def epochs_of(run: Trainer) -> list[int]:
    return [result.epoch for result in run.epochs()]


def test_a_dead_net_ends_in_its_second_epoch() -> None:
    run = silenced()
    epochs = run.epochs()
    assert next(epochs).epoch == 1
    with pytest.raises(DeadError, match="dead in epoch 2: a layer gives the same for every image"):
        next(epochs)
    assert len(run.history) == 1


def test_dead_after_an_interruption_it_ends_in_the_same_epoch() -> None:
    first, second = silenced(), silenced()
    next(first.epochs())
    second.restore(first.state())
    with pytest.raises(DeadError, match="in epoch 2"):
        list(second.epochs())


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "gelu"])
def test_a_net_that_learns_goes_on(name: str) -> None:
    assert epochs_of(trainer(params({"activation": name}))) == [1, 2, 3, 4]


def test_a_saturated_layer_that_still_tells_images_apart_goes_on() -> None:
    """Each tanh is at -1 or 1, so that its slope is zero; the decoder learns from the pattern."""
    model = {"kind": "dense", "hidden": (8,), "activation": "tanh"}
    run = trainer(params(model, regularizer="none"))
    with torch.no_grad():
        run.model.encoder[1].get_parameter("weight").mul_(1e6)
    results = list(run.epochs())
    assert len(results) == 4
    assert results[-1].train_mse < results[0].train_mse


def test_while_something_before_the_silent_layer_moves_it_goes_on() -> None:
    """Weight decay pulls the bias back towards zero, until a pixel may come through again."""
    assert epochs_of(silenced(weight_decay=1e-3)) == [1, 2, 3, 4]
    l1 = {"regularizer": "l1", "l1_weight": 1e-3, "l1_target": "weights"}
    assert epochs_of(silenced(**l1)) == [1, 2, 3, 4]


def test_noise_may_wake_a_layer() -> None:
    assert epochs_of(silenced(noise_std=0.1)) == [1, 2, 3, 4]
    assert epochs_of(silenced(shift_pixels=1)) == [1, 2, 3, 4]


def test_one_image_for_all_with_a_gradient_is_not_the_end() -> None:
    """An encoder of zeros gives every image the same code, but a step can change that."""
    run = trainer(params({"activation": "tanh"}, learning_rate=1e-30, regularizer="none"))
    with torch.no_grad():
        for weight in run.model.encoder.parameters():
            weight.zero_()
    assert epochs_of(run) == [1, 2, 3, 4]
    first, second = run.model(torch.rand(2, 1, 8, 8))
    assert torch.equal(first, second)


def test_one_image_that_still_passes_a_gradient_is_enough() -> None:
    bright, dark = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), TRAIN // 2
    model = {"kind": "dense", "hidden": (3,), "activation": "relu"}
    run = trainer(params(model), train=torch.cat([dark, bright]))
    with torch.no_grad():
        run.model.encoder[1].get_parameter("weight").fill_(1.0)
        run.model.encoder[1].get_parameter("bias").fill_(-60.0)  # of 64 pixels
    assert not find_dead_layer(run.model, run._images)
    with torch.no_grad():
        run.model.encoder[1].get_parameter("bias").fill_(-65.0)
    assert find_dead_layer(run.model, run._images)


def test_two_images_told_apart_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(params({"activation": "relu"}))
    taken: list[int] = []
    batch = ResidentImages.batch

    def noted(images: ResidentImages, indices: torch.Tensor) -> torch.Tensor:
        taken.extend(indices.tolist())
        return batch(images, indices)

    monkeypatch.setattr(ResidentImages, "batch", noted)
    assert not find_dead_layer(run.model, run._images)
    assert taken == [0, 1]


class Rounding(nn.Module):
    """As two rows of one product may differ in their last bit."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * (1 + 1e-7 * torch.arange(len(images)).view(-1, 1, 1, 1))


def test_a_difference_of_rounding_does_not_hide_a_dead_layer() -> None:
    run = silenced()
    run.model.decoder.append(Rounding())
    first, second = run.model(torch.rand(2, 1, 8, 8))
    assert not torch.equal(first, second)
    assert find_dead_layer(run.model, run._images)


def test_no_constant_output_is_better_than_the_mean_image() -> None:
    images = VALIDATION.double() / 255
    bound = least_constant_mse(VALIDATION)
    assert bound == pytest.approx(float((images - images.mean(0)).square().mean()), rel=1e-12)
    other = images.mean(0) + 0.01
    assert float((images - other).square().mean()) > bound


def test_a_net_that_beats_every_constant_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []

    def noted(*of: object) -> str:
        looked.append(of)
        return ""

    monkeypatch.setattr("searchae.training.dead_units.find_dead_layer", noted)
    run = trainer(params({"activation": "tanh"}, epochs=12))
    results = list(run.epochs())
    beating = [r for r in results if r.val_mse < 0.9999 * least_constant_mse(VALIDATION)]
    assert beating, "it has learned"
    assert len(looked) == len(results) - len(beating)
