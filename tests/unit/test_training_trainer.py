"""The trainer: replay, resume, stopping, and what its numbers mean."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from searchae.errors import SearchaeError
from searchae.training import checkpoint
from searchae.training.checkpoint import CheckpointError
from searchae.training.draws import StepDraws
from searchae.training.early_stopping import LEARNED_DB
from searchae.training.epoch import EpochResult
from searchae.training.metrics import evaluate, mean_image_psnr_db
from searchae.training.trainer import Interrupted, Trainer
from tests.unit.tiny_training import TRAIN, VALIDATION, params, smooth_images, trainer

LEARNED_FROM_DB = mean_image_psnr_db(TRAIN, VALIDATION) + LEARNED_DB


def untimed(results: list[EpochResult]) -> list[EpochResult]:
    return [replace(result, seconds=0.0) for result in results]


def same_weights(one: Trainer, other: Trainer) -> bool:
    first, second = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(first[k], second[k]) for k in first)


def test_the_history_is_what_was_yielded_and_psnrs_rise() -> None:
    run = trainer(params(epochs=8))
    results = list(run.epochs())
    assert run.history == results
    assert [r.epoch for r in results] == list(range(1, 9))
    assert results[-1].psnr_db > results[0].psnr_db + 0.5
    assert all(r.psnr_of_mse_db <= r.psnr_db for r in results)
    assert all(r.psnr_of_mse_db == pytest.approx(-10 * math.log10(r.val_mse)) for r in results)
    assert all(0 <= r.sparsity <= 1 and r.seconds > 0 for r in results)
    assert list(run.epochs()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "regularizer": "clip+l1"},
        {"optimizer": "nadam", "schedule": "cosine", "max_gradient_norm": 0.1},
        {"regularizer": "clip+contractive", "contractive_weight": 0.1, "noise_std": 0.2},
        {"shift_pixels": 2, "flip": True, "brightness": 0.3, "noise_std": 0.1},
        {"loss": "huber", "ssim_weight": 0.2, "schedule": "plateau", "decay_epochs": 1},
        {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.5, "weight_decay": 1e-4},
        {"optimizer": "rmsprop", "momentum": 0.5, "learning_rate": 1e-3, "noise_std": 0.2},
    ],
)
@pytest.mark.parametrize(
    "model",
    [
        {"batch_norm": True, "image_range": "symmetric", "output": "tanh"},
        {"kind": "dense", "hidden": (16,)},
        {"downsample": "pool", "activation": "gelu"},
        {"variational": True},
        {"residual_blocks": 1, "group_norm": 2, "dropout": 0.2},
    ],
)
def test_a_resumed_training_is_to_the_bit_the_undisturbed_one(
    tmp_path: Path, changes: dict[str, Any], model: dict[str, Any]
) -> None:
    check_resuming(tmp_path, changes, model, threads=1)


@pytest.mark.parametrize(
    "model",
    [
        {"batch_norm": True, "latent_activation": "same"},
        {"kind": "dense", "hidden": (16,)},
        {"downsample": "pool", "bottleneck": "none"},
    ],
)
def test_so_is_a_k_sparse_one(tmp_path: Path, model: dict[str, Any]) -> None:
    changes = {"regularizer": "clip+k-sparse", "active_latents": 2}
    check_resuming(tmp_path, changes, model, threads=1)


def test_so_it_is_with_two_threads(tmp_path: Path) -> None:
    check_resuming(tmp_path, {"regularizer": "clip+l1"}, {"batch_norm": True}, threads=2)


def check_resuming(
    tmp_path: Path, changes: dict[str, Any], model: dict[str, Any], *, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        trial = params(model, patience=3, **changes)
        undisturbed = trainer(trial)
        list(undisturbed.epochs())
        killed = trainer(trial)
        epochs = killed.epochs()
        next(epochs)
        next(epochs)
        path = checkpoint.save_checkpoint(tmp_path, killed.state(), stem="trial")
        next(epochs)  # lost with the process
        resumed = trainer(trial)
        resumed.restore(checkpoint.load_checkpoint(path))
        torch.manual_seed(99)  # another process has another global random state
        list(resumed.epochs())
    finally:
        torch.set_num_threads(before)
    assert untimed(resumed.history) == untimed(undisturbed.history)
    assert same_weights(resumed, undisturbed)


def test_the_seed_decides_and_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = trainer(params(noise_std=0.1))
    list(first.epochs())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second, other = trainer(params(noise_std=0.1)), trainer(params(noise_std=0.1), seed=4)
    list(second.epochs())
    list(other.epochs())
    assert same_weights(first, second)
    assert not same_weights(first, other)
    assert untimed(first.history) == untimed(second.history)


def test_a_state_is_not_changed_by_training_on() -> None:
    run = trainer(params(optimizer="sgd", momentum=0.9))
    epochs = run.epochs()
    next(epochs)
    state = run.state()
    weights = {k: v.clone() for k, v in state["model"].items()}
    momentum = state["optimizer"]["velocity"][0].clone()
    next(epochs)
    assert all(torch.equal(v, state["model"][k]) for k, v in weights.items())
    assert torch.equal(momentum, state["optimizer"]["velocity"][0])
    assert len(state["history"]) == 1


def test_a_state_may_be_trained_longer_but_not_otherwise() -> None:
    run = trainer(params(epochs=2))
    list(run.epochs())
    longer = trainer(params(epochs=3, patience=5))
    longer.restore(run.state())
    assert [r.epoch for r in longer.epochs()] == [3]
    with pytest.raises(CheckpointError, match="params"):
        trainer(params(learning_rate=0.5)).restore(run.state())
    with pytest.raises(CheckpointError, match="seed = 3, but this trial has 4"):
        trainer(params(), seed=4).restore(run.state())
    with pytest.raises(CheckpointError, match="format None"):
        trainer(params()).restore({})


def test_the_plateau_ends_the_training_also_after_a_restore() -> None:
    trial = params(epochs=20, patience=2, min_delta_db=50)
    run = trainer(trial)
    history = list(run.epochs())
    counted = [r for r in history if r.psnr_db >= LEARNED_FROM_DB]
    assert history[-2:] == counted, "two after the net has learned something"
    assert len(history) > 3
    resumed = trainer(trial)
    resumed.restore(run.state())
    assert list(resumed.epochs()) == []


def test_noise_begins_with_its_epoch_and_the_same_weights() -> None:
    run, clean = trainer(params(noise_std=0.3, noise_from_epoch=3)), trainer(params())
    for (late, without), noise_has_begun in zip(
        zip(run.epochs(), clean.epochs(), strict=True), [False, False, True, True], strict=True
    ):
        assert same_weights(run, clean) is not noise_has_begun
        assert (late.train_mse == without.train_mse) is not noise_has_begun
        seen = evaluate(run.model, VALIDATION, noise_std=0.3, seed=3)
        assert late.val_mse == pytest.approx(seen.mse, rel=1e-6), "always validated with noise"


def test_a_resumed_training_begins_its_noise_in_the_same_epoch() -> None:
    trial = params(noise_std=0.3, noise_from_epoch=3)
    undisturbed, killed, resumed = trainer(trial), trainer(trial), trainer(trial)
    list(undisturbed.epochs())
    next(killed.epochs())
    resumed.restore(killed.state())
    list(resumed.epochs())
    assert same_weights(resumed, undisturbed)


def test_epochs_before_the_noise_are_no_plateau(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchae.training.trainer.LEARNED_DB", -math.inf)
    trial = params(epochs=20, noise_std=0.3, noise_from_epoch=6, patience=2, min_delta_db=50)
    run = trainer(trial)
    assert len(list(run.epochs())) == 8, "two after the first with noise"


def test_stop_breaks_off_within_an_epoch_and_leaves_no_half_trained_state() -> None:
    calls = iter([False] * 8 + [True])
    run = trainer(params(), stop=lambda: next(calls))
    epochs = run.epochs()
    next(epochs)  # 90 images in batches of 16: six steps
    before = run.state()
    with pytest.raises(Interrupted, match="epoch 2"):
        next(epochs)
    assert len(run.history) == 1
    with pytest.raises(SearchaeError, match="epoch 2 was broken off"):
        run.state()
    with pytest.raises(SearchaeError, match="epoch 2 was broken off"):
        next(run.epochs())
    resumed, undisturbed = trainer(params()), trainer(params())
    resumed.restore(before)
    list(resumed.epochs())
    list(undisturbed.epochs())
    assert same_weights(resumed, undisturbed)


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trainer(params(epochs=2))
    seen: list[list[int]] = []
    step = run._step

    def spy(indices: Tensor, draws: StepDraws) -> Tensor:
        seen.append(indices.tolist())
        return step(indices, draws)

    monkeypatch.setattr(run, "_step", spy)
    list(run.epochs())
    assert [len(s) for s in seen] == [16, 16, 16, 16, 16, 10] * 2
    first, second = list(chain(*seen[:6])), list(chain(*seen[6:]))
    assert sorted(first) == sorted(second) == list(range(90))
    assert first != second


def test_train_mse_weighs_a_short_last_batch_by_its_images() -> None:
    frozen = params(learning_rate=1e-12, optimizer="sgd", epochs=1)
    run = trainer(frozen)
    with torch.no_grad():
        expected = F.mse_loss(run.model(TRAIN / 255), TRAIN / 255)
    (result,) = run.epochs()
    assert result.train_mse == pytest.approx(float(expected), rel=1e-5)


def test_errors_of_a_symmetric_model_are_on_the_scale_of_images() -> None:
    symmetric = {"image_range": "symmetric", "output": "tanh"}
    run = trainer(params(symmetric, learning_rate=1e-12, optimizer="sgd", epochs=1))
    (result,) = run.epochs()
    with torch.no_grad():
        train = F.mse_loss(run.model.train()(TRAIN / 255), TRAIN / 255)
        validation = F.mse_loss(run.model.eval()(VALIDATION / 255), VALIDATION / 255)
    assert result.train_mse == pytest.approx(float(train), rel=1e-5)
    assert result.val_mse == pytest.approx(float(validation), rel=1e-5)


def test_a_single_image_left_over_is_skipped_under_batch_normalisation_only() -> None:
    images = smooth_images(33)
    # The decoder's first norm sees one pixel an image: one image has no variance.
    model = {"batch_norm": True, "channels": (4, 4, 4, 4)}
    plain = trainer(params({"channels": (4, 4, 4, 4)}), train=images)
    normed = trainer(params(model), train=images)
    assert [len(b) for b in plain._batches(1)] == [16, 16, 1]
    assert [len(b) for b in normed._batches(1)] == [16, 16]
    assert len(list(normed.epochs())) == 4


def test_denoising_noise_is_fixed_in_validation_and_changes_in_training() -> None:
    run = trainer(params(noise_std=0.3, learning_rate=1e-12, optimizer="sgd", epochs=3))
    clean = trainer(params(learning_rate=1e-12, optimizer="sgd", epochs=1))
    results = list(run.epochs())
    (reference,) = clean.epochs()
    assert results[0].val_mse == pytest.approx(results[2].val_mse, rel=1e-6)
    assert abs(results[0].train_mse - results[1].train_mse) > 1e-9
    assert results[0].val_mse != pytest.approx(reference.val_mse, rel=1e-6)
