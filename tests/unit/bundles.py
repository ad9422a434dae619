"""A bundle of a tiny net that was never trained, for the tests of ``bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from searchae import bundle
from searchae.config.data_spec import DataSpec
from searchae.config.schema import ModelParams, TrainParams
from searchae.models.builder import build_model
from searchae.training.regularizers import clip_, penalised_weights


def config(**changes: Any) -> bundle.BundleConfig:
    values: dict[str, Any] = {
        "searchae": "0.1.0",
        "study": "tiny",
        "trial": 3,
        "params": {"activation": "tanh"},
        "data": DataSpec(name="npz", path="tiny.npz"),
        "data_hash": "ab" * 32,
        "split_seed": 0,
        "seed": 0,
        "epoch": 2,
        "image_shape": (3, 16, 16),
        "latent_size": 8,
        "model": ModelParams(channels=(4, 8), latent_dim=8, activation="tanh"),
        "train": TrainParams(epochs=3),
        "device": "cpu",
        "threads": 1,
        "weights_sha256": "0" * 64,
    }
    return bundle.BundleConfig(**{**values, **changes})


def weights(of: bundle.BundleConfig) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build_model(of.model, image_shape=of.image_shape)
    clip_(penalised_weights(model), of.train.clip)
    return dict(model.state_dict())


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = config(**changes)
    bundle.write_bundle(folder, made, weights(made))
    return folder


def images(count: int, shape: tuple[int, int, int] = (3, 16, 16)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)
