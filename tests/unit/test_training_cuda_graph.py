"""A recorded step in place of the eager one: the same training, and no harm where it fails.

What a CUDA graph does is done here by a recording that simply runs the step: the buffers, the
comparison with an eager step and the way back are the same.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from searchae.training.cuda_graph import Record, RecordedStep, Run
from searchae.training.trainer import Trainer
from tests.unit.tiny_training import params, trainer


class Recorder:
    """Counts replays; runs the step a few times first, as a CUDA graph has to."""

    def __init__(self) -> None:
        self.recorded = self.replays = 0

    def __call__(self, run: Run) -> Run:
        self.recorded += 1
        for _ in range(3):
            run()

        def replay() -> None:
            self.replays += 1
            run()

        return replay


def with_graph(run: Trainer, record: Record, *, batch_size: int = 16) -> Trainer:
    run._step = RecordedStep(run._step, batch_size=batch_size, record=record)  # type: ignore[arg-type]
    return run


def curve(run: Trainer) -> list[tuple[float, float]]:
    return [(r.train_mse, r.psnr_db) for r in run.epochs()]


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"optimizer": "adam", "weight_decay": 1e-3}),
    ({}, {"optimizer": "adamw", "weight_decay": 1e-2}),
    ({}, {"optimizer": "nadam", "schedule": "cosine", "max_gradient_norm": 0.1}),
    ({"variational": True}, {"beta_warmup_epochs": 3, "schedule": "constant"}),
    ({}, {"loss": "l1", "schedule": "step", "decay_epochs": 1}),
    ({}, {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1}),
    ({"batch_norm": True}, {"optimizer": "rmsprop", "momentum": 0.5}),
    ({"kind": "dense", "hidden": (9,)}, {"regularizer": "clip+l1", "l1_weight": 0.1}),
    ({}, {"regularizer": "contractive", "contractive_weight": 0.1}),
    ({}, {"regularizer": "k-sparse", "active_latents": 2}),
    ({}, {"shift_pixels": 2}),
    ({"kind": "dense"}, {"shift_pixels": 1, "flip": True, "brightness": 0.3, "noise_std": 0.1}),
]


@pytest.mark.parametrize(("model", "train"), CASES)
def test_recorded_steps_train_as_eager_ones_to_the_bit(
    model: dict[str, Any], train: dict[str, Any]
) -> None:
    trial, recorder = params(model, **train), Recorder()
    assert curve(with_graph(trainer(trial), recorder)) == curve(trainer(trial))
    # A recording holds the learning rate. 90 images: five full batches and a smaller one, eagerly.
    rates = 1 if "schedule" not in train else 4
    assert (recorder.recorded, recorder.replays) == (rates, rates + 4 * 5)


def test_noise_that_begins_later_has_a_recording_of_its_own() -> None:
    trial, recorder = params(noise_std=0.2, noise_from_epoch=3), Recorder()
    assert curve(with_graph(trainer(trial), recorder)) == curve(trainer(trial))
    assert recorder.recorded == 2


def test_a_recorded_training_resumes_to_the_bit() -> None:
    trial = params()
    whole = curve(with_graph(trainer(trial), Recorder()))
    first, second = (with_graph(trainer(trial), Recorder()) for _ in range(2))
    epochs = first.epochs()
    next(epochs), next(epochs)
    second.restore(first.state())
    assert curve(second) == whole[2:]


def refuses(run: Run) -> Run:
    run()  # half-way through a warm-up
    raise RuntimeError("operation not permitted when stream is capturing")


def breaks_off(run: Run) -> Run:
    """Leaves gradients behind, as a recording that fails between backward and update."""
    from searchae.training import optimizers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers.Optimizer, "step", broken)
        run()
    return run


def broken(_optimizer: object) -> None:
    raise RuntimeError("the stream is no longer capturing")


def is_full(_run: Run) -> Run:
    raise torch.OutOfMemoryError("CUDA out of memory")


def does_nothing(_run: Run) -> Run:
    return lambda: None


def runs_twice(run: Run) -> Run:
    def replay() -> None:
        run()
        run()

    return replay


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (refuses, "not permitted"),
        (breaks_off, "no longer capturing"),
        (is_full, "out of memory"),  # a recording takes more than the step, which fits
        (does_nothing, "differs"),
        (runs_twice, "differs"),
    ],
)
def test_where_it_cannot_be_recorded_the_training_is_eager(
    record: Record, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = params()
    with caplog.at_level(logging.WARNING):
        found = curve(with_graph(trainer(trial), record))
    assert found == curve(trainer(trial))
    assert len(caplog.records) == 1, "told once"
    assert said in caplog.text
