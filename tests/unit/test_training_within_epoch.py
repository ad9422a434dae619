"""Reports within the first epoch: they change nothing, and a training resumes at each of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from searchae.config import ModelParams, TrainParams, TrialParams
from searchae.training import CheckpointError, Trainer
from searchae.training.metrics import EVALUATION_BATCH
from searchae.training.validation_images import sample_images

SHARES = (0.125, 0.25, 0.5)
IMAGES = torch.randint(0, 256, (80, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator())
NETS: dict[str, dict[str, Any]] = {
    "conv": {"kind": "conv", "channels": (4, 8), "latent_dim": 6},
    "batch norm": {"kind": "conv", "channels": (4, 8), "latent_dim": 6, "batch_norm": True},
    "dropout": {"kind": "dense", "hidden": (12,), "latent_dim": 6, "dropout": 0.3},
    "variational": {"kind": "dense", "hidden": (12,), "latent_dim": 6, "variational": True},
}


def training(net: str, shares: tuple[float, ...] = SHARES, **train: Any) -> Trainer:
    params = TrialParams(
        ModelParams(**NETS[net]),
        TrainParams(
            epochs=3,
            batch_size=5,
            learning_rate=0.003,
            noise_std=0.1,
            shift_pixels=1,
            flip=True,
            **train,
        ),
    )
    return Trainer(
        params,
        train=IMAGES,
        validation=IMAGES[:30],
        seed=3,
        device=torch.device("cpu"),
        shares=shares,
    )


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("net", NETS)
def test_a_training_ends_the_same_to_the_bit_whether_measured_within_or_not(net: str) -> None:
    plain, measured = training(net, ()), training(net)
    list(plain.epochs())
    results = list(measured.results())
    assert [r.epochs for r in results] == [0.125, 0.25, 0.5, 1, 2, 3]
    assert [r.psnr_db for r in plain.history] == [r.psnr_db for r in measured.history]
    assert [r.train_mse for r in plain.history] == [r.train_mse for r in measured.history]
    assert same(plain.model.state_dict(), measured.model.state_dict())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("reports", [1, 3, 4])
def test_one_resumed_after_any_report_ends_the_same_to_the_bit(net: str, reports: int) -> None:
    whole, first = training(net), training(net)
    list(whole.results())
    for _, _result in zip(range(reports), first.results(), strict=False):
        pass
    state = copy.deepcopy(first.state())
    torch.manual_seed(99)  # another trial's draws
    resumed = training(net)
    resumed.restore(state)
    assert resumed.reported == first.reported
    assert [r.epochs for r in resumed.results()] == [0.125, 0.25, 0.5, 1, 2, 3][reports:]
    assert [r.psnr_db for r in resumed.history] == [r.psnr_db for r in whole.history]
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_epochs_leaves_out_what_was_measured_within_and_the_history_too() -> None:
    run = training("conv")
    assert [r.share for r in run.epochs()] == [1, 1, 1]
    assert [r.epoch for r in run.history] == [1, 2, 3]
    assert run.reported == run.history


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"steps": 0},
        {"total": torch.tensor(float("nan"))},
        {"total": torch.zeros(3)},
        {"total": 1.0},
        {"draws": {}},
        {"results": [{"epoch": 1}]},
        {"seconds": float("inf")},
        {"generators": None},
    ],
    ids=str,
)
def test_a_state_that_is_wrong_within_its_epoch_is_refused(change: dict[str, Any]) -> None:
    run = training("dropout")
    next(iter(run.results()))
    state = run.state()
    state["within"] |= change
    with pytest.raises(CheckpointError, match="does not fit this training"):
        training("dropout").restore(state)


def test_a_net_that_diverges_within_the_epoch_is_told_there() -> None:
    from searchae.errors import DivergedError

    run = training("dropout", optimizer="sgd")
    next(results := run.results())
    with torch.no_grad():
        next(run.model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError):
        next(results)


def test_the_sample_is_the_same_for_every_trial_and_costs_a_few_per_cent() -> None:
    images = torch.arange(4000, dtype=torch.int16).to(torch.uint8)[:, None, None, None]
    first = sample_images(images, trained=8000, seed=1)
    assert torch.equal(first, sample_images(images, trained=8000, seed=1))
    assert not torch.equal(first, sample_images(images, trained=8000, seed=2))
    assert len(first) == 1200
    assert len(sample_images(images, trained=100, seed=1)) == EVALUATION_BATCH
    assert sample_images(images[:200], trained=8000, seed=1).data_ptr() == images.data_ptr()
