"""Batches from resident images, and the memory format they come in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from searchae.config.schema import Layer, ModelParams
from searchae.models.builder import build_model
from searchae.training.images import ResidentImages, gaussian, noisy
from searchae.training.memory_format import preferred_memory_format

IMAGES = torch.randint(0, 256, (9, 3, 4, 5), dtype=torch.uint8)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_batch_is_the_images_at_the_indices_over_255(*, channels_last: bool) -> None:
    resident = ResidentImages.on(torch.device("cpu"), IMAGES, channels_last=channels_last)
    indices = torch.tensor([8, 0, 3, 3])
    batch = resident.batch(indices)
    assert len(resident) == 9
    assert torch.equal(batch, IMAGES[indices] / 255)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.is_contiguous(memory_format=wanted)


def test_noise_has_its_deviation_and_noisy_images_stay_within_their_bounds() -> None:
    noise = gaussian((50, 1, 20, 20), 0.5, torch.Generator().manual_seed(0))
    assert float(noise.std()) == pytest.approx(0.5, abs=0.01)
    images = torch.full_like(noise, 0.25)
    found = noisy(images, noise)
    assert float(found.min()) == -1
    assert float(found.max()) == 1
    assert torch.equal(found, (images + noise).clamp(-1, 1))
    assert (images == 0.25).all()


def is_channels_last(params: ModelParams, side_px: int = 8) -> bool:
    model = build_model(params, image_shape=(3, side_px, side_px))
    return preferred_memory_format(model) is torch.channels_last


def test_convolutions_have_their_channels_last_and_dense_layers_do_not() -> None:
    assert is_channels_last(ModelParams())
    assert not is_channels_last(ModelParams(kind="dense"))


def test_group_normalisation_keeps_the_channels_first() -> None:
    assert not is_channels_last(ModelParams(channels=(4, 8), group_norm=2))


def test_strided_1x1_convolutions_keep_their_channels_first() -> None:
    assert not is_channels_last(ModelParams(kernel_size=1))
    explicit = ModelParams(
        encoder=(Layer(channels=4, stride=2),),
        decoder=(Layer(channels=4, stride=2, kernel_size=1, padding=0), Layer(channels=3)),
        bottleneck="none",
    )
    assert not is_channels_last(explicit, side_px=7)


_TRAINING = """
import torch
from searchae.config import ModelParams, TrainParams, TrialParams
from searchae.training import Trainer
torch.set_num_threads(1)
images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
model = ModelParams(channels=(4, 6), kernel_size=1)
trial = TrialParams(model, TrainParams(epochs=10, batch_size=4))
list(Trainer(trial, train=images, validation=images, seed=0, device=torch.device("cpu")).epochs())
"""


def test_training_strided_1x1_convolutions_does_not_corrupt_memory() -> None:
    """In a process of its own: with channels last it dies of a signal."""
    ended = subprocess.run([sys.executable, "-c", _TRAINING], check=False, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
