"""How good a bundle is: the figures of ``metrics.json``, the same to the bit each time."""

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
from searchae.bundle.model import BATCH, Bundle, load_bundle
from searchae.config import ProgressCallback
from searchae.data import Splits, load_splits, require_same_data
from searchae.models import parameter_count
from searchae.training import (
    Metrics,
    evaluate,
    mean_image_psnr_db,
    near_zero,
    penalised_weights,
    psnr_per_image,
    to_unit_float,
)

Split = Literal["test", "validation"]
SPLITS: tuple[Split, ...] = ("test", "validation")


def measure_bundle(bundle: Bundle, images: Tensor) -> Metrics:
    """Measures a bundle's net as the trainer measures it, and SSIM besides.

    Args:
        bundle: Its seed decides the noise, if it was trained to remove some.
        images: uint8 (N, C, H, W).
    """
    return evaluate(
        bundle.model,
        images.to(bundle.device, memory_format=bundle.layout),
        noise_std=bundle.config.train.noise_std,
        seed=bundle.config.seed,
        batch_size=BATCH,
        with_ssim=True,
    )


def metrics_document(bundle: Bundle, splits: Splits, *, split: Split = "test") -> dict[str, Any]:
    """Everything that is measured of a bundle, as JSON can hold it.

    Returns:
        ``split``, ``images``, ``psnr_db``, ``psnr_of_mse_db``, ``ssim``, ``mse``, ``baseline_db``
        (every image reconstructed as the mean training image), ``sparsity`` (share of latents
        below 1e-3 in magnitude), ``weight_sparsity``, ``parameters``, ``compression``, ``latent``.
    """
    images = getattr(splits, split)
    metrics = measure_bundle(bundle, images)
    weights = [w.detach() for w in penalised_weights(bundle.model)]
    return {
        "split": split,
        "images": len(images),
        "psnr_db": metrics.psnr_db,
        "psnr_of_mse_db": metrics.psnr_of_mse_db,
        "ssim": metrics.ssim,
        "mse": metrics.mse,
        "baseline_db": mean_image_psnr_db(splits.train, images),
        "sparsity": metrics.sparsity,
        "weight_sparsity": int(near_zero(weights)) / sum(w.numel() for w in weights),
        "parameters": parameter_count(bundle.model),
        "compression": compression(bundle),
        "latent": latent_statistics(bundle, images),
    }


def evaluate_bundle(
    folder: Path,
    *,
    split: Split,
    data_dir: Path,
    device: torch.device | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measures a bundle on the images that it was trained with; see ``figures``.

    Args:
        folder: The bundle.
        split: Which images.
        data_dir: Where data sets lie.
        device: Where to run; as it was trained, if unset and there is such a device.
        threads: CPU threads; as many as it was trained with, if unset.
        progress: Told what goes on.

    Raises:
        BundleError: The folder is no bundle, or a damaged one.
        DataError: The images here are not those that it was trained with.
    """
    config = read_config(folder)
    torch.set_num_threads(threads or config.threads)
    bundle = load_bundle(folder, device=device or _trained_on(config))
    splits = load_splits(config.data, data_dir=data_dir, seed=config.split_seed, progress=progress)
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


def compression(bundle: Bundle) -> dict[str, Any]:
    """How much smaller a latent is than its image.

    Returns:
        ``image_values``, ``latent_values`` and their ``ratio``; ``image_bytes`` (uint8),
        ``latent_bytes`` (float32) and their ``bytes_ratio``.
    """
    values, size = math.prod(bundle.image_shape), bundle.latent_size
    return {
        "image_values": values,
        "latent_values": size,
        "ratio": values / size,
        "image_bytes": values,
        "latent_bytes": 4 * size,
        "bytes_ratio": values / (4 * size),
    }


def latent_statistics(bundle: Bundle, images: Tensor) -> dict[str, Any]:
    """What the latents of clean images look like, all together and each for itself.

    Args:
        bundle: The net.
        images: uint8 (N, C, H, W).

    Returns:
        ``mean``, ``std`` (of the population), ``min``, ``max`` and ``near_zero`` (share below 1e-3
        in magnitude), and the same under ``per_latent`` as lists of ``latent_size`` numbers.
    """
    # Sums in batches: the latents of a large split need not fit into memory.
    parts = [
        (
            z.sum(0),
            z.square().sum(0),
            z.amin(0),
            z.amax(0),
            (z.abs() < 1e-3).sum(0, dtype=torch.float64),
        )
        for z in latents(bundle, images)
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


def latents(bundle: Bundle, images: Tensor) -> Iterator[Tensor]:
    """The latents of uint8 images (N, C, H, W), in batches: float64 (B, latent_size), on the CPU.

    Float64 since squares and their differences are to come.
    """
    for part in torch.split(images, BATCH):
        with torch.inference_mode():
            batch = to_unit_float(part.to(bundle.device, memory_format=bundle.layout))
            yield bundle.model.encode(batch).double().cpu()


def psnrs(
    reconstruction: npt.NDArray[np.float32], images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """PSNR of each image in dB: both (N, C, H, W), the reconstruction in [0, 1]; gives (N,)."""
    target = to_unit_float(torch.from_numpy(np.ascontiguousarray(images)))
    found: npt.NDArray[np.float32] = psnr_per_image(
        torch.from_numpy(reconstruction), target
    ).numpy()
    return found


def machine(device: torch.device, *, threads: int) -> dict[str, Any]:
    """What a result depends on besides versions, and what its seconds were measured on."""
    found: dict[str, Any] = {
        "system": platform.platform(),
        "device": str(device),
        "threads": threads,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _trained_on(config: BundleConfig) -> torch.device:
    cuda = config.device.startswith("cuda") and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")
