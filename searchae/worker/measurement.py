"""Measures a listed training on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from searchae.config import TrialParams
from searchae.data import gather, release
from searchae.models import build_model
from searchae.training import (
    EVALUATION_BATCH,
    EpochResult,
    evaluate_images,
    gaussian,
    load_weights,
    mean_image,
    named_generator,
    noisy,
    psnr_per_image,
    ssim,
    to_unit_float,
)
from searchae.worker.best_epoch import BestEpoch
from searchae.worker.training_record import TrainingRecord, shown_indices


def measure_training(
    params: TrialParams,
    best: BestEpoch,
    test: Tensor,
    *,
    seed: int,
    ended: str,
    history: Sequence[EpochResult],
    device: torch.device,
    keep_weights: bool,
    runtime: Mapping[str, Any],
) -> TrainingRecord:
    """Measures the best epoch's weights on the test split, in the same way as a bundle.

    Args:
        params: The training's parameters.
        best: Its best epoch.
        test: Test images, uint8 or uint16 (N, C, H, W).
        seed: Its seed.
        ended: Why it ended.
        history: The results of its epochs.
        device: Where to measure.
        keep_weights: Whether the record holds the weights.
        runtime: What it was trained on.
    """
    channels, height, width = test.shape[1:]
    with torch.device("meta"):
        model = build_model(
            params.model,
            image_shape=(channels, height, width),
            active_latents=params.train.k_sparse,
        )
    layout = load_weights(model, dict(best.weights), device=device)
    noise_std = params.train.noise_std
    found = evaluate_images(
        model,
        test,
        noise_std=noise_std,
        seed=seed,
        with_ssim=True,
    )
    clean = to_unit_float(gather(test, torch.tensor(shown_indices(len(test)))))
    inputs = clean
    if noise_std:
        draws = named_generator(seed, "picture noise")
        inputs = noisy(clean, gaussian(tuple(clean.shape), noise_std, draws))
    with torch.inference_mode():
        back = model.decode(model.encode(inputs.to(device, memory_format=layout))).cpu()
    assert found.ssim is not None
    return TrainingRecord(
        seed=seed,
        epoch=best.epoch,
        ended=ended,
        history=tuple(history),
        sparsity=found.sparsity,
        hoyer=found.hoyer,
        psnr_db=found.psnr_db.numpy(),
        mse=found.mse.numpy(),
        ssim=found.ssim.numpy(),
        pictures=_to_uint8(back),
        runtime=runtime,
        weights=best.weights if keep_weights else {},
    )


def mean_image_record(
    train: Tensor, test: Tensor, *, seed: int, ended: str, runtime: Mapping[str, Any]
) -> TrainingRecord:
    """Returns the record of a training that failed in its first epoch.

    Each of its reconstructions counts as the mean training image.

    Args:
        train: Training images, uint8 or uint16 (N, C, H, W).
        test: Test images, uint8 or uint16 (M, C, H, W).
        seed: The training's seed.
        ended: How it failed.
        runtime: What it was trained on.
    """
    mean = mean_image(train)[None]
    errors, psnrs_db, similarities = [], [], []
    for part in torch.split(test, EVALUATION_BATCH):
        images = to_unit_float(part)
        same = mean.expand_as(images)
        errors.append((same - images).square().flatten(1).mean(1))
        psnrs_db.append(psnr_per_image(same, images))
        similarities.append(ssim(same, images))
        release(test)
    return TrainingRecord(
        seed=seed,
        epoch=0,
        ended=ended,
        history=(),
        sparsity=1.0,
        hoyer=1.0,
        psnr_db=torch.cat(psnrs_db).double().numpy(),
        mse=torch.cat(errors).double().numpy(),
        ssim=torch.cat(similarities).double().numpy(),
        pictures=_to_uint8(mean.expand(len(shown_indices(len(test))), -1, -1, -1)),
        runtime=runtime,
    )


def _to_uint8(images: Tensor) -> Any:
    """Rounds images in [0, 1] to uint8 (N, C, H, W)."""
    return (images * 255).round().to(torch.uint8).contiguous().numpy()
