"""The learning rate of each epoch, beside torch's schedulers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from searchae.config.schema import TrainParams
from searchae.training.schedule import learning_rate
from tests.unit.tiny_training import params, trainer

EPOCHS, RATE, FACTOR = 30, 0.2, 0.3


def ours(psnrs_db: list[float] | None = None, **changes: Any) -> list[float]:
    train = TrainParams(epochs=EPOCHS, learning_rate=RATE, decay_factor=FACTOR, **changes)
    known = psnrs_db or [0.0] * EPOCHS
    return [learning_rate(train, e, known[: e - 1]) for e in range(1, EPOCHS + 1)]


def theirs(make: Any, psnrs_db: list[float] | None = None) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = make(optimizer)
    rates = []
    for epoch in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([] if psnrs_db is None else [psnrs_db[epoch]]))
    return rates


def test_a_constant_rate_is_the_default() -> None:
    assert ours() == [RATE] * EPOCHS


def test_a_cosine_is_torch_s() -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)

    assert ours(schedule="cosine") == pytest.approx(theirs(make))
    assert 0 < ours(schedule="cosine")[-1] < RATE / 100


def test_steps_are_torch_s() -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return lr_scheduler.StepLR(optimizer, step_size=7, gamma=FACTOR)

    assert ours(schedule="step", decay_epochs=7) == pytest.approx(theirs(make))


def test_a_warm_up_comes_before_the_schedule() -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        rising = lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        falling = lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS - 4)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[4])

    assert ours(schedule="cosine", warmup_epochs=4) == pytest.approx(theirs(make))


@pytest.mark.parametrize("seed", range(5))
def test_plateaus_are_torch_s(seed: int) -> None:
    draws = random.Random(seed)
    psnrs_db = [20 + e / 40 + draws.gauss(0, 0.3) for e in range(EPOCHS)]

    def make(optimizer: torch.optim.Optimizer) -> Any:
        return lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="max",
            factor=FACTOR,
            patience=2,  # torch's epochs beyond which, ours after which
            threshold=0.01,
            threshold_mode="abs",
            eps=0,
        )

    found = ours(psnrs_db, schedule="plateau", decay_epochs=3, min_delta_db=0.01)
    assert found == pytest.approx(theirs(make, psnrs_db))
    assert len(set(found)) > 1


def test_each_epoch_is_trained_with_its_rate() -> None:
    """In steps of sgd without momentum the weights move in proportion to the rate."""
    trial = params(epochs=2, optimizer="sgd", schedule="step", decay_epochs=1, decay_factor=1e-30)
    run = trainer(trial)
    epochs = run.epochs()
    start = [w.detach().clone() for w in run.model.parameters()]
    next(epochs)
    after_first = [w.detach().clone() for w in run.model.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(start, after_first, strict=True))
    next(epochs)
    after_second = list(run.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after_first, after_second, strict=True))
