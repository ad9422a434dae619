"""The validation images on the device, and a sample of them for measuring within an epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from searchae.config import TrainParams
from searchae.data import gather, is_large, release
from searchae.models import Autoencoder
from searchae.training.generators import named_generator
from searchae.training.metrics import EVALUATION_BATCH, ForwardPass, Metrics, evaluate

_PER_TRAINED = 0.15
"""Images measured for each image trained on. Measuring one takes a third of training on it, so that
a sample costs 5% of the part of the epoch before it."""


class ValidationImages:
    """The validation images of one training.

    Args:
        images: uint8 or uint16 (M, C, H, W).
        params: How the net is trained.
        seed: The training's seed, which decides noise and sample.
        device: The device that trains.
        layout: Memory format of the net.
        first: Number of images that are trained on until the sample is measured first; None if it
            is never measured.

    Attributes:
        images: All of them. On a CPU, large ones that are mapped stay as they are.
    """

    def __init__(
        self,
        images: Tensor,
        params: TrainParams,
        *,
        seed: int,
        device: torch.device,
        layout: torch.memory_format,
        first: int | None = None,
    ) -> None:
        self._params, self._seed = params, seed
        self.images = images
        sample = images if first is None else sample_images(images, trained=first, seed=seed)
        if device.type != "cpu" or not is_large(images):
            self.images = images.to(device, memory_format=layout)
            release(images)
        self._sample = self.images
        if sample is not images:
            self._sample = sample.to(device, memory_format=layout)

    def measure(
        self, model: Autoencoder, forward: ForwardPass | None = None, *, only_sample: bool = False
    ) -> Metrics:
        """Measures a net.

        Args:
            model: The net.
            forward: Its forward pass with compiled kernels; the net's own if unset.
            only_sample: Whether to measure on the sample alone.
        """
        return evaluate(
            model,
            self._sample if only_sample else self.images,
            noise_std=self._params.noise_std,
            seed=self._seed,
            sparsity_of=self._params.l1_target if model.has_latent else "weights",
            forward=forward,
        )


def sample_images(images: Tensor, *, trained: int, seed: int) -> Tensor:
    """Returns a sample of validation images, or all of them where they are few.

    Args:
        images: uint8 or uint16 (M, C, H, W).
        trained: Number of images that are trained on until the net is measured first.
        seed: Decides which images are taken.

    Returns:
        ``images`` itself, or some of them in memory: the same ones, in the same order, for every
        trial of a study.
    """
    count = max(EVALUATION_BATCH, round(_PER_TRAINED * trained))
    if count >= len(images):
        return images
    order = torch.randperm(len(images), generator=named_generator(seed, "sample"))
    return gather(images, order[:count].sort().values)
