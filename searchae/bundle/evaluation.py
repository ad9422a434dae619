"""Measurements of a bundle, as in ``metrics.json``; identical bit by bit each time."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from searchae.bundle.config import BundleConfig, read_config
from searchae.bundle.model import Bundle, load_bundle
from searchae.config import ProgressCallback
from searchae.data import Splits, load_splits, require_same_data
from searchae.models import parameter_count
from searchae.training import (
    EVALUATION_BATCH,
    Metrics,
    evaluate,
    mean_image_psnr_db,
    near_zero,
    penalised_weights,
    psnr_per_image,
    to_unit_float,
)

EvaluationSplit = Literal["test", "validation"]
EVALUATION_SPLITS: tuple[EvaluationSplit, ...] = ("test", "validation")


def measure_bundle(bundle: Bundle, images: Tensor) -> Metrics:
    """Measures a net as the trainer does, and SSIM in addition.

    Args:
        bundle: The bundle. If it was trained to remove noise, its seed decides the noise.
        images: uint8 or uint16 (N, C, H, W).
    """
    return evaluate(
        bundle.model,
        images.to(bundle.device, memory_format=bundle.layout),
        noise_std=bundle.config.train.noise_std,
        seed=bundle.config.seed,
        with_ssim=True,
    )


def metrics_document(
    bundle: Bundle, splits: Splits, *, split: EvaluationSplit = "test"
) -> dict[str, Any]:
    """Returns all measurements of a bundle as a JSON document.

    Args:
        bundle: The bundle.
        splits: The data; also the training split is needed, for the baseline.
        split: The split to measure on.

    Returns:
        ``split``, ``images``, ``psnr_db``, ``psnr_of_mse_db``, ``ssim``, ``mse``, ``baseline_db``
        (PSNR with the mean training image as every reconstruction), ``sparsity`` (share of latents
        below 1e-3 in magnitude), ``weight_sparsity``, ``parameters``, ``compression``, ``latent``;
        the last two are None for a net without a latent, whose ``sparsity`` is that of the weights.
    """
    images = getattr(splits, split)
    metrics = measure_bundle(bundle, images)
    weights = [w.detach() for w in penalised_weights(bundle.model)]
    weight_sparsity = int(near_zero(weights)) / sum(w.numel() for w in weights)
    has_latent = bundle.model.has_latent
    return {
        "split": split,
        "images": len(images),
        "psnr_db": metrics.psnr_db,
        "psnr_of_mse_db": metrics.psnr_of_mse_db,
        "ssim": metrics.ssim,
        "mse": metrics.mse,
        "baseline_db": mean_image_psnr_db(splits.train, images),
        "sparsity": metrics.sparsity if has_latent else weight_sparsity,
        "weight_sparsity": weight_sparsity,
        "parameters": parameter_count(bundle.model),
        "compression": compression_ratios(bundle) if has_latent else None,
        "latent": latent_statistics(bundle, images) if has_latent else None,
    }


def evaluate_bundle(
    folder: Path,
    *,
    split: EvaluationSplit,
    data_dir: Path,
    device: torch.device | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measures a bundle on a split of the data that it was trained with.

    Args:
        folder: The bundle's folder.
        split: The split to measure on.
        data_dir: The folder of the data sets.
        device: The device; None for the training's if available, else the CPU.
        threads: CPU threads; None for as many as the training had.
        progress: Called with messages about loading the data.

    Returns:
        Where the bundle comes from, and what ``metrics_document`` returns.

    Raises:
        BundleError: The folder is not a bundle, or the bundle is damaged.
        DataError: The data here differs from the training's.
    """
    config = read_config(folder)
    torch.set_num_threads(threads or config.threads)
    bundle = load_bundle(folder, device=device or _training_device(config))
    splits = load_splits(
        config.data,
        data_dir=data_dir,
        seed=config.split_seed,
        progress=progress,
        accept_doubts=True,
    )
    require_same_data(splits, config.data_hash)
    return {
        "bundle": str(folder),
        "study": config.study,
        "trial": config.trial,
        "seed": config.seed,
        "epoch": config.epoch,
        **metrics_document(bundle, splits, split=split),
        "data_hash": config.data_hash,
    }


def compression_ratios(bundle: Bundle) -> dict[str, Any]:
    """Returns how much smaller a latent is than its image.

    Args:
        bundle: The bundle.

    Returns:
        ``image_values``, ``latent_values`` and their ``ratio``; ``image_bytes`` (8 or 16 bits),
        ``latent_bytes`` (float32) and their ``bytes_ratio``.
    """
    values, size = math.prod(bundle.image_shape), bundle.latent_size
    image_bytes = values * bundle.config.data.value_bits // 8
    return {
        "image_values": values,
        "latent_values": size,
        "ratio": values / size,
        "image_bytes": image_bytes,
        "latent_bytes": 4 * size,
        "bytes_ratio": image_bytes / (4 * size),
    }


def latent_statistics(bundle: Bundle, images: Tensor) -> dict[str, Any]:
    """Returns statistics of the latents of images without noise.

    Args:
        bundle: The bundle.
        images: uint8 or uint16 (N, C, H, W).

    Returns:
        ``mean``, ``std`` (of the population), ``min``, ``max`` and ``near_zero`` (share below 1e-3
        in magnitude) over all latents; ``per_latent`` has the same for each latent dimension, as
        lists of ``latent_size`` numbers.
    """
    # Summed batch by batch: the latents of a large split may not fit into memory.
    parts = [
        (
            z.sum(0),
            z.square().sum(0),
            z.amin(0),
            z.amax(0),
            (z.abs() < 1e-3).sum(0, dtype=torch.float64),
        )
        for z in latent_batches(bundle, images)
    ]
    sums, squares, lows, highs, zeros = (torch.stack(p) for p in zip(*parts, strict=True))
    n = len(images)
    mean = sums.sum(0) / n
    second = squares.sum(0) / n
    low, high, near = lows.amin(0), highs.amax(0), zeros.sum(0) / n
    overall = float(mean.mean())
    return {
        "mean": overall,
        "std": math.sqrt(max(0.0, float(second.mean()) - overall**2)),
        "min": float(low.min()),
        "max": float(high.max()),
        "near_zero": float(near.mean()),
        "per_latent": {
            "mean": mean.tolist(),
            "std": (second - mean.square()).clamp(min=0).sqrt().tolist(),
            "min": low.tolist(),
            "max": high.tolist(),
            "near_zero": near.tolist(),
        },
    }


def latent_batches(bundle: Bundle, images: Tensor) -> Iterator[Tensor]:
    """Encodes images batch by batch.

    Args:
        bundle: The bundle.
        images: uint8 or uint16 (N, C, H, W).

    Yields:
        Latents (B, latent_size) on the CPU, as float64 so that variances can be computed from them
        without loss of precision.
    """
    for part in torch.split(images, EVALUATION_BATCH):
        with torch.inference_mode():
            batch = to_unit_float(part.to(bundle.device, memory_format=bundle.layout))
            yield bundle.model.encode(batch).double().cpu()


def image_psnrs_db(
    reconstruction: npt.NDArray[np.float32], images: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Returns the PSNR of each image in dB.

    Args:
        reconstruction: float32 (N, C, H, W) in [0, 1].
        images: uint8 or uint16 (N, C, H, W).

    Returns:
        float32 (N,).
    """
    target = to_unit_float(torch.from_numpy(np.ascontiguousarray(images)))
    found: npt.NDArray[np.float32] = psnr_per_image(
        torch.from_numpy(reconstruction), target
    ).numpy()
    return found


def machine_info(device: torch.device, *, threads: int) -> dict[str, Any]:
    """Returns the properties of this machine that results and timings depend on.

    Args:
        device: The device used.
        threads: CPU threads used.
    """
    found: dict[str, Any] = {
        "system": platform.platform(),
        "device": str(device),
        "threads": threads,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _training_device(config: BundleConfig) -> torch.device:
    cuda = config.device.startswith("cuda") and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")
