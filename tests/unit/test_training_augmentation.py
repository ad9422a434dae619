"""Augmented training images, against loops of numpy and torchvision's functions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as tv

from searchae.training.augmentation import brightened, moved
from searchae.training.draws import EpochDraws, StepDraws
from searchae.training.images import ResidentImages
from searchae.training.metrics import evaluate
from searchae.training.trainer import Trainer
from tests.unit.tiny_training import CPU, TRAIN, VALIDATION, params, trainer

IMAGES = torch.randint(0, 256, (9, 3, 5, 7), dtype=torch.uint8)
INDICES = torch.tensor([8, 0, 3, 3, 1])
FLIPS = torch.tensor([True, False, True, False, False])
SHIFTS = torch.tensor([[0, 0], [2, -3], [-4, 1], [4, 6], [-1, -6]])


def augmented(images: Tensor, draws: StepDraws, *, channels_last: bool = True) -> Tensor:
    resident = ResidentImages.on(CPU, images, channels_last=channels_last)
    return resident.batch(INDICES, shifts=draws.shifts, flips=draws.flips)


def plain(image: np.ndarray, shift: list[int], *, flip: bool) -> np.ndarray:
    """One image, (C, H, W), pixel by pixel."""
    _, height, width = image.shape
    if flip:
        image = image[:, :, ::-1]
    found = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y = min(max(row - shift[0], 0), height - 1)
            x = min(max(column - shift[1], 0), width - 1)
            found[:, row, column] = image[:, y, x]
    return found


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    "draws",
    [StepDraws(shifts=SHIFTS), StepDraws(flips=FLIPS), StepDraws(shifts=SHIFTS, flips=FLIPS)],
)
def test_images_are_mirrored_and_moved_as_one_by_one(
    draws: StepDraws, *, channels_last: bool
) -> None:
    found = augmented(IMAGES, draws, channels_last=channels_last)
    for i, made in enumerate(found):
        shift = [0, 0] if draws.shifts is None else draws.shifts[i].tolist()
        flip = draws.flips is not None and bool(draws.flips[i])
        wanted = plain(IMAGES[INDICES[i]].numpy(), shift, flip=flip)
        np.testing.assert_array_equal(made.numpy(), wanted.astype(np.float32) / 255)
    wanted_format = torch.channels_last if channels_last else torch.contiguous_format
    assert found.is_contiguous(memory_format=wanted_format)


def test_they_are_as_torchvision_has_them() -> None:
    images = IMAGES[INDICES]
    mirrored = augmented(IMAGES, StepDraws(flips=torch.ones(5, dtype=torch.bool)))
    assert torch.equal(mirrored, tv.hflip(images) / 255)
    moved = augmented(IMAGES, StepDraws(shifts=SHIFTS))
    for image, made, (down, right) in zip(images, moved, SHIFTS.tolist(), strict=True):
        padded = tv.pad(image, [6, 6, 6, 6], padding_mode="edge")
        assert torch.equal(made, tv.crop(padded, 6 - down, 6 - right, 5, 7) / 255)
    factors = torch.tensor([0.5, 1.0, 1.3, 1.9, 0.01])
    unit = images / 255
    for image, made, factor in zip(unit, brightened(unit, factors), factors, strict=True):
        torch.testing.assert_close(made, tv.adjust_brightness(image, float(factor)))


def spied(run: Trainer) -> tuple[list[Tensor], list[StepDraws]]:
    """What a trainer's steps are given from now on."""
    indices: list[Tensor] = []
    draws: list[StepDraws] = []
    step = run._step

    def spy(which: Tensor, drawn: StepDraws) -> Tensor:
        indices.append(which)
        draws.append(drawn)
        return step(which, drawn)

    run._step = spy  # type: ignore[assignment]
    return indices, draws


def joined(draws: list[StepDraws], name: str) -> Tensor:
    return torch.cat([draw.given()[name] for draw in draws])


def test_over_an_epoch_draws_have_their_statistics() -> None:
    trial = params(shift_pixels=2, flip=True, brightness=0.4)
    model = trainer(trial).model
    first, second = (EpochDraws(trial, model, seed=3, epoch=epoch, device=CPU) for epoch in (1, 2))
    drawn = [first.step(100) for _ in range(100)]
    shifts, flips, factors = (joined(drawn, name) for name in ("shifts", "flips", "brightness"))
    counts = torch.bincount(5 * (shifts[:, 0] + 2) + shifts[:, 1] + 2, minlength=25)
    assert len(counts) == 25, "two pixels in each direction and no more"
    # 10,000 draws: 400 of each move, with a deviation of 20.
    assert int(counts.min()) > 320
    assert int(counts.max()) < 480
    assert float(flips.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert 0.6 <= float(factors.min()) < 0.61
    assert 1.39 < float(factors.max()) <= 1.4
    assert float(factors.mean()) == pytest.approx(1, abs=0.01)
    assert float(factors.std()) == pytest.approx(0.8 / 12**0.5, abs=0.01)
    together = torch.stack([*shifts.T.float(), flips.float(), factors])
    off_diagonal = torch.corrcoef(together) - torch.eye(4)
    assert float(off_diagonal.abs().max()) < 0.05, "they have nothing to do with each other"
    assert not torch.equal(second.step(100).given()["shifts"], drawn[0].given()["shifts"])


AUGMENTATIONS: list[dict[str, Any]] = [
    {"shift_pixels": 3},
    {"flip": True},
    {"brightness": 0.5},
    {"shift_pixels": 1, "flip": True, "brightness": 0.2},
]


@pytest.mark.parametrize("train", AUGMENTATIONS)
def test_what_is_changed_is_input_and_target(train: dict[str, Any]) -> None:
    """The training error of a net that does not change is that of its augmented images."""
    run = trainer(params(learning_rate=1e-12, optimizer="sgd", epochs=1, **train))
    indices, draws = spied(run)
    (result,) = run.epochs()
    total = 0.0
    for which, drawn in zip(indices, draws, strict=True):
        assert drawn.given().keys() == {
            {"shift_pixels": "shifts", "flip": "flips", "brightness": "brightness"}[name]
            for name in train
        }
        for i, index in enumerate(which):
            given = drawn.given()
            shift = given["shifts"][i].tolist() if "shifts" in given else [0, 0]
            flip = bool(given["flips"][i]) if "flips" in given else False
            image = torch.from_numpy(plain(TRAIN[index].numpy(), shift, flip=flip).copy()) / 255
            if "brightness" in given:
                image = tv.adjust_brightness(image, float(given["brightness"][i]))
            with torch.no_grad():
                total += float((run.model.train()(image[None])[0] - image).square().mean())
    assert sorted(chain(*(which.tolist() for which in indices))) == list(range(len(TRAIN)))
    assert result.train_mse == pytest.approx(total / len(TRAIN), rel=1e-5)


@pytest.mark.parametrize("train", AUGMENTATIONS)
def test_validation_has_the_images_as_they_are(train: dict[str, Any]) -> None:
    run, clean = trainer(params(epochs=3, **train)), trainer(params(epochs=3))
    untouched = run._images.rows.clone(), run._validation.images.clone()
    for result, other in zip(run.epochs(), clean.epochs(), strict=True):
        assert result.val_mse == pytest.approx(evaluate(run.model, VALIDATION).mse, rel=1e-6)
        assert result.train_mse != other.train_mse
    assert torch.equal(run._images.rows, untouched[0])
    assert torch.equal(run._validation.images, untouched[1])


def test_each_augmentation_has_draws_of_its_own() -> None:
    """One more key changes no draw of the others, nor the order of the images."""

    def drawn(**train: Any) -> Iterator[Tensor]:
        run = trainer(params(epochs=1, noise_std=0.1, **train))
        indices, draws = spied(run)
        list(run.epochs())
        yield torch.cat(indices)
        yield joined(draws, "noise")
        yield joined(draws, "flips")

    alone = drawn(flip=True)
    beside = drawn(flip=True, shift_pixels=3, brightness=0.1)
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_it_is_deterministic_and_another_one_for_another_seed() -> None:
    trial = params(shift_pixels=2, flip=True, brightness=0.3)
    curves = [[r.train_mse for r in trainer(trial, seed=s).epochs()] for s in (3, 3, 4)]
    assert curves[0] == curves[1] != curves[2]


def test_images_of_16_bits_are_moved_too() -> None:
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    shifts, flips = torch.tensor([[1, -1], [0, 2]]), torch.tensor([True, False])
    wanted = moved(images, shifts, flips, channels_last=False) * 500
    deep = (images * 500).to(torch.uint16)
    found = moved(deep, shifts, flips, channels_last=False)
    assert found.dtype == torch.uint16
    assert torch.equal(found.to(torch.int64), wanted)
