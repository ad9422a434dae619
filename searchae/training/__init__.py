"""Trains one autoencoder; independent of the search.

``trainer`` runs the epochs and ``step`` one training step, with ``optimizers`` and
``regularizers``; ``metrics`` computes PSNR and SSIM, ``checkpoint`` saves states, and ``kernels``
has compiled convolutions for the CPU.
"""

from searchae.training.checkpoint import CheckpointError, Owner
from searchae.training.device import CONTEXT_BYTES, held_by_others, pick_device
from searchae.training.device_faults import device_errors
from searchae.training.early_stopping import LEARNED_DB
from searchae.training.epoch import EpochResult
from searchae.training.fused_forward import uses_compiled
from searchae.training.generators import named_generator
from searchae.training.images import gaussian, mean_image, noisy, to_unit_float
from searchae.training.kernels import chosen_kernels, kernels_of, kernels_setting
from searchae.training.memory_format import load_weights, preferred_memory_format, to_device
from searchae.training.metrics import (
    EVALUATION_BATCH,
    MAX_PSNR_DB,
    Metrics,
    evaluate,
    evaluate_images,
    hoyer,
    mean_image_psnr_db,
    mean_image_psnr_per_image,
    near_zero,
    psnr_of_mse_db,
    psnr_per_image,
    ssim,
)
from searchae.training.precision import Precision, pick_precision, why_slow
from searchae.training.reconstructions import INK, blank_picture, draw_reconstructions
from searchae.training.regularizers import penalised_weights
from searchae.training.trainer import Interrupted, Trainer
from searchae.training.trial_checkpoints import (
    BackgroundCheckpoints,
    Checkpoints,
    PausedError,
    PrunedError,
    check_artifact_folder,
    checkpoint_folder,
    remove_old_checkpoints,
)

__all__ = [
    "CONTEXT_BYTES",
    "EVALUATION_BATCH",
    "INK",
    "LEARNED_DB",
    "MAX_PSNR_DB",
    "BackgroundCheckpoints",
    "CheckpointError",
    "Checkpoints",
    "EpochResult",
    "Interrupted",
    "Metrics",
    "Owner",
    "PausedError",
    "Precision",
    "PrunedError",
    "Trainer",
    "blank_picture",
    "check_artifact_folder",
    "checkpoint_folder",
    "chosen_kernels",
    "device_errors",
    "draw_reconstructions",
    "evaluate",
    "evaluate_images",
    "gaussian",
    "held_by_others",
    "hoyer",
    "kernels_of",
    "kernels_setting",
    "load_weights",
    "mean_image",
    "mean_image_psnr_db",
    "mean_image_psnr_per_image",
    "named_generator",
    "near_zero",
    "noisy",
    "penalised_weights",
    "pick_device",
    "pick_precision",
    "preferred_memory_format",
    "psnr_of_mse_db",
    "psnr_per_image",
    "remove_old_checkpoints",
    "ssim",
    "to_device",
    "to_unit_float",
    "uses_compiled",
    "why_slow",
]
