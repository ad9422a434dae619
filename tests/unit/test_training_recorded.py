"""Three epochs on fixed images against recorded PSNRs: finds what changes results unnoticed.

Recorded with torch 2.15 on an x86 CPU. The tolerance of 0.02 dB allows for another order of
summation on another machine, not for another algorithm.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from searchae.config.schema import ModelParams, TrainParams, TrialParams
from searchae.training.metrics import mean_image_psnr_db
from searchae.training.trainer import Trainer


def smooth_images(seed: int, count: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 2, 2, generator=g)
    images = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=True)
    return images.mul(255).to(torch.uint8)


TRAIN, VALIDATION = smooth_images(0, 512), smooth_images(1, 64)
MEAN_IMAGE_DB = 14.3234


@pytest.mark.parametrize(
    ("model", "train", "recorded"),
    [
        ({"channels": (8, 16)}, {"regularizer": "clip+l1"}, [14.602, 15.173, 15.438]),
        (
            {"channels": (8, 16), "downsample": "pool", "activation": "tanh"},
            {},
            [16.368, 18.264, 18.759],
        ),
        (
            {"channels": (8, 16), "batch_norm": True, "activation": "elu"},
            {"optimizer": "rmsprop", "learning_rate": 2e-3, "noise_std": 0.1},
            [17.091, 18.356, 18.578],
        ),
        (
            {"kind": "dense", "image_range": "symmetric", "output": "tanh", "activation": "tanh"},
            {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9},
            [14.227, 14.306, 14.399],
        ),
    ],
)
def test_psnrs_are_the_recorded_ones(
    model: dict[str, Any], train: dict[str, Any], recorded: list[float]
) -> None:
    trial = TrialParams(
        ModelParams(**{"latent_dim": 12, **model}),
        TrainParams(**{"epochs": 3, "batch_size": 16, "learning_rate": 5e-3, **train}),
    )
    device = torch.device("cpu")
    run = Trainer(trial, train=TRAIN, validation=VALIDATION, seed=7, device=device)
    psnrs_db = [result.psnr_db for result in run.epochs()]
    assert psnrs_db == pytest.approx(recorded, abs=0.02)
    assert psnrs_db[-1] > MEAN_IMAGE_DB


def test_the_baseline_is_the_recorded_one() -> None:
    assert mean_image_psnr_db(TRAIN, VALIDATION) == pytest.approx(MEAN_IMAGE_DB, abs=1e-3)
