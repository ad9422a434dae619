"""Searches and trainings on real MNIST and CIFAR-10, where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest
import torch

from searchae import data
from searchae.config import study_file_catalog
from searchae.config.loader import load_study_file
from searchae.training.trainer import Trainer
from tests.conftest import RunCommand

PUBLISHED = {
    "train.learning_rate": 1e-3,
    "train.regularizer": "none",
    "model.activation": "relu",
    "model.output": "none",
    "data.train_images": 10_000,
    "data.test_images": 1_000,
}

CIFAR = """
description = "A small conv net on real CIFAR-10 images"
[data]
name = "npz"
path = "cifar10_10k.npz"
train_images = 2000
test_images = 100
[model]
channels = [16, 32, 64]
latent_dim = 128
activation = { choices = ["relu", "leaky_relu", "sigmoid", "tanh"] }
[train]
epochs = 3
batch_size = 16
optimizer = { choices = ["adam", "rmsprop", "sgd"] }
learning_rate = { low = 1e-4, high = 1e-1, log = true }
regularizer = { choices = ["clip", "clip+l1"] }
l1_weight = { low = 1e-7, high = 1e-2, log = true }
[search]
trials = 8
pruner = "none"
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_gap_conv_learns_mnist_as_published(real_data: Path, tmp_path: Path) -> None:
    """Adam at 1e-3, batches of 32, 10 epochs on 10,000 images: validation MSE below 0.02."""
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    spec = load_study_file(
        study_file_catalog.find_study_file("gap-conv"), environment={}, changes=PUBLISHED
    )
    splits = data.load_splits(spec.data, data_dir=tmp_path, seed=spec.seed)
    assert len(splits.train) + len(splits.validation) == 10_000
    trainer = Trainer(
        spec.resolve({}),
        train=splits.train,
        validation=splits.validation,
        seed=spec.seed,
        device=torch.device("cpu"),
    )
    results = list(trainer.epochs())
    assert len(results) == 10
    assert results[-1].val_mse < 0.02


@pytest.mark.fleet
@pytest.mark.timeout(400)
def test_a_search_on_cifar10_tells_good_from_bad(
    real_data: Path,
    folder: Path,
    searchae: RunCommand,
) -> None:
    """Eight trials of a small net: the best at least 3 dB above the worst completed one."""
    shutil.copy(real_data / "cifar10_10k.npz", folder / "data")
    (folder / "studies" / "cifar.toml").write_text(CIFAR)
    done = searchae("tune", "-s", "cifar", "--workers", "2", "--json", timeout=380)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["budget"] == 8
    study = optuna.load_study(study_name="cifar", storage=f"sqlite:///{folder / 'searchae.db'}")
    trained = [
        t.values[0]
        for t in study.trials
        if t.state.name == "COMPLETE" and "searchae:outcome" not in t.user_attrs
    ]
    assert max(trained) >= min(trained) + 3
