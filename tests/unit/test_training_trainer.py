"""The trainer: replay, resume, stopping, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from searchae.errors import (
    DataError,
    DivergedError,
    ModelError,
    OutOfMemoryError,
    SearchaeError,
)
from searchae.spec import ModelParams, TrainParams, TrialParams
from searchae.training import CheckpointError, EpochResult, Interrupted, Trainer, checkpoint

CPU = torch.device("cpu")


def smooth_images(count: int, *, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    """Random images that a small net can learn something about; uint8."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 2, 2, generator=g)
    images = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return images.mul(255).round().to(torch.uint8)


TRAIN, VALIDATION = smooth_images(90), smooth_images(20, seed=1)


def params(model: dict[str, Any] | None = None, **train: Any) -> TrialParams:
    """A tiny net and four short epochs, unless told otherwise."""
    return TrialParams(
        ModelParams(**{"channels": (4, 8), "latent_dim": 4, **(model or {})}),
        TrainParams(**{"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, **train}),
    )


def trainer(
    trial: TrialParams,
    *,
    seed: int = 3,
    stop: Callable[[], bool] | None = None,
    train: Tensor = TRAIN,
    validation: Tensor = VALIDATION,
) -> Trainer:
    return Trainer(trial, train=train, validation=validation, seed=seed, device=CPU, stop=stop)


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
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_resumed_training_is_to_the_bit_the_undisturbed_one(
    tmp_path: Path, changes: dict[str, Any], model: dict[str, Any], threads: int
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
        path = tmp_path / "trial.pt"
        digest = checkpoint.save(path, killed.state())
        next(epochs)  # lost with the process
        resumed = trainer(trial)
        resumed.restore(checkpoint.load(path, digest))
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
    momentum = state["optimizer"][0]["momentum_buffer"].clone()
    next(epochs)
    assert all(torch.equal(v, state["model"][k]) for k, v in weights.items())
    assert torch.equal(momentum, state["optimizer"][0]["momentum_buffer"])
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
    assert len(list(run.epochs())) == 3  # the first one counts as an improvement
    resumed = trainer(trial)
    resumed.restore(run.state())
    assert list(resumed.epochs()) == []


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

    def spy(indices: Tensor, *, noise: Tensor | None) -> Tensor:
        seen.append(indices.tolist())
        return step(indices, noise=noise)

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


@pytest.mark.parametrize(("images", "batch_size"), [(1, 16), (90, 1)])
def test_batch_normalisation_refuses_batches_of_one(images: int, batch_size: int) -> None:
    with pytest.raises(ModelError, match=r"at least 2 images"):
        trainer(params({"batch_norm": True}, batch_size=batch_size), train=TRAIN[:images])


@settings(max_examples=15, deadline=None)
@given(
    optimizer=st.sampled_from(["adam", "rmsprop", "sgd"]),
    learning_rate=st.floats(-6, 1).map(lambda e: 10**e),
    activation=st.sampled_from(["relu", "sigmoid", "tanh", "elu", "gelu"]),
    output=st.sampled_from(["sigmoid", "none"]),
    regularizer=st.sampled_from(
        [("clip", "latent"), ("clip+l1", "latent"), ("clip+l1", "weights")]
    ),
    clip=st.sampled_from([0.01, 0.5, 10.0]),
    epochs=st.integers(0, 3),
    batch_norm=st.booleans(),
)
def test_no_weight_is_ever_outside_the_clip(  # noqa: PLR0917
    optimizer: str,
    learning_rate: float,
    activation: str,
    output: str,
    regularizer: tuple[str, str],
    clip: float,
    epochs: int,
    batch_norm: bool,
) -> None:
    model = {"activation": activation, "output": output, "batch_norm": batch_norm}
    run = trainer(
        params(
            model,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=0.5,
            regularizer=regularizer[0],
            l1_target=regularizer[1],
            l1_weight=10.0,
            clip=clip,
            epochs=max(1, epochs),
        )
    )
    try:
        for _ in zip(range(epochs), run.epochs(), strict=False):
            assert largest_clipped(run) <= clip
    except DivergedError:
        return
    assert largest_clipped(run) <= clip  # false for NaN


def largest_clipped(run: Trainer) -> float:
    norms = {
        id(p) for m in run.model.modules() if isinstance(m, _BatchNorm) for p in m.parameters()
    }
    weights = [p.detach().flatten() for p in run.model.parameters() if id(p) not in norms]
    return float(torch.cat(weights).abs().max())


def test_norms_keep_their_scale_under_a_clip() -> None:
    run = trainer(params({"batch_norm": True}, clip=0.1))
    list(run.epochs())
    scales = [m.weight for m in run.model.modules() if isinstance(m, _BatchNorm)]
    assert scales
    assert all((s > 0.5).all() for s in scales)


def test_without_a_clip_weights_grow_past_it() -> None:
    run = trainer(params(regularizer="none", clip=0.01, epochs=1))
    list(run.epochs())
    assert largest_clipped(run) > 0.01


@pytest.mark.parametrize("target", ["latent", "weights"])
def test_l1_makes_its_target_smaller(target: str) -> None:
    def size(regularizer: str) -> float:
        run = trainer(params(regularizer=regularizer, l1_weight=1.0, l1_target=target, epochs=6))
        list(run.epochs())
        with torch.no_grad():
            if target == "latent":
                return float(run.model.encode(VALIDATION / 255).abs().mean())
            return float(torch.cat([p.flatten() for p in run.model.parameters()]).abs().mean())

    assert size("l1") < 0.5 * size("none")


def test_sparsity_is_of_what_the_penalty_is_on() -> None:
    run = trainer(params(l1_target="weights", epochs=1))
    (result,) = run.epochs()
    weights = torch.cat([p.flatten() for p in run.model.parameters()])
    assert result.sparsity == pytest.approx(float((weights.abs() < 1e-3).float().mean()))


def test_a_training_that_diverges_says_so_and_hands_out_no_state() -> None:
    run = trainer(
        params({"output": "none"}, optimizer="sgd", learning_rate=1e6, regularizer="none")
    )
    with pytest.raises(DivergedError, match=r"diverged.*learning_rate = 1000000\.0.*lower"):
        list(run.epochs())
    with pytest.raises(SearchaeError, match="broken off"):
        run.state()


def test_an_infinite_weight_behind_a_relu_is_found() -> None:
    run = trainer(params(regularizer="none", optimizer="sgd"))
    with torch.no_grad():
        run.model.encoder[0].bias[0] = -math.inf
    with pytest.raises(DivergedError):
        list(run.epochs())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory_running_out_in_a_step_is_translated(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = trainer(params())

    def full(indices: Tensor, *, noise: Tensor | None) -> Tensor:
        raise error

    monkeypatch.setattr(run, "_step", full)
    with pytest.raises(OutOfMemoryError, match=r"epoch 1: out of memory.*lower train\.batch_size"):
        list(run.epochs())


def test_a_model_larger_than_any_memory_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemoryError, match="building the model"):
        trainer(params({"latent_dim": 10**13}))


def test_other_runtime_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(params())

    def broken(indices: Tensor, *, noise: Tensor | None) -> Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "_step", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(run.epochs())


def test_a_model_that_does_not_fit_the_images_is_refused() -> None:
    with pytest.raises(ModelError, match="multiples of"):
        trainer(params({"downsample": "pool"}), train=smooth_images(5, side=9))


def test_what_are_no_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"validation images.*torch\.float32"):
        trainer(params(), validation=VALIDATION / 255)
    with pytest.raises(DataError, match="training images"):
        trainer(params(), train=TRAIN[:0])


def test_denoising_noise_is_fixed_in_validation_and_changes_in_training() -> None:
    run = trainer(params(noise_std=0.3, learning_rate=1e-12, optimizer="sgd", epochs=3))
    clean = trainer(params(learning_rate=1e-12, optimizer="sgd", epochs=1))
    results = list(run.epochs())
    (reference,) = clean.epochs()
    assert results[0].val_mse == pytest.approx(results[2].val_mse, rel=1e-6)
    assert abs(results[0].train_mse - results[1].train_mse) > 1e-9
    assert results[0].val_mse != pytest.approx(reference.val_mse, rel=1e-6)
