"""The random numbers of training steps, each kind from a generator of its own for each epoch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from searchae.config import TrialParams
from searchae.models import Autoencoder
from searchae.training.generators import named_generator
from searchae.training.images import gaussian


@dataclass(frozen=True)
class StepDraws:
    """The random numbers of one step, on the device; None for what a training does not need.

    Attributes:
        noise: Added to the input images in [0, 1], float32 (B, C, H, W).
        latent: For a variational latent: of a standard normal distribution, float32
            (B, latent_size).
        directions: For a contractive penalty: the same, from a generator of its own.
    """

    noise: Tensor | None = None
    latent: Tensor | None = None
    directions: Tensor | None = None

    def given(self) -> dict[str, Tensor]:
        """Returns name -> tensor of those that are not None."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


NO_DRAWS = StepDraws()


class EpochDraws:
    """Draws the random numbers of an epoch's steps, one step after the other.

    Args:
        params: The trial.
        model: The net, for the shapes.
        seed: The training's seed.
        epoch: The epoch's number, from 1.
        device: Where the steps run.
    """

    def __init__(
        self,
        params: TrialParams,
        model: Autoencoder,
        *,
        seed: int,
        epoch: int,
        device: torch.device,
    ) -> None:
        self._params, self._model, self._epoch, self._device = params, model, epoch, device
        self._noise = named_generator(seed, "noise", epoch=epoch)
        self._latent = named_generator(seed, "latent", epoch=epoch)
        self._directions = named_generator(seed, "directions", epoch=epoch)

    def step(self, images: int) -> StepDraws:
        """Returns the numbers of the next step.

        Args:
            images: Number of its images.
        """
        train, model = self._params.train, self._model
        found: dict[str, Tensor] = {}
        if train.noise_std and self._epoch >= train.noise_from_epoch:
            found["noise"] = gaussian((images, *model.image_shape), train.noise_std, self._noise)
        if self._params.model.variational:
            found["latent"] = torch.randn(images, model.latent_size, generator=self._latent)
        if train.contractive:
            found["directions"] = torch.randn(images, model.latent_size, generator=self._directions)
        return StepDraws(**{name: tensor.to(self._device) for name, tensor in found.items()})
