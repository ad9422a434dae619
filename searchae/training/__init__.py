"""Training one autoencoder, epoch by epoch; knows nothing of the search.

``trainer`` runs epochs, ``step`` is the hot path, ``metrics`` measures, ``checkpoint`` keeps.
"""

from searchae.training.checkpoint import CheckpointError
from searchae.training.epoch import EpochResult
from searchae.training.metrics import (
    Metrics,
    PerImage,
    evaluate,
    evaluate_images,
    mean_image_psnr_db,
    psnr_per_image,
    ssim,
)
from searchae.training.trainer import Interrupted, Trainer

__all__ = [
    "CheckpointError",
    "EpochResult",
    "Interrupted",
    "Metrics",
    "PerImage",
    "Trainer",
    "evaluate",
    "evaluate_images",
    "mean_image_psnr_db",
    "psnr_per_image",
    "ssim",
]
