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
        shifts: How far each image moves down and to the right in pixels, int64 (B, 2).
        flips: Whether each image is mirrored, bool (B,).
        brightness: The factor of each image, float32 (B,).
        noise: Added to the input images in [0, 1], float32 (B, C, H, W).
        latent: For a variational latent: of a standard normal distribution, float32
            (B, latent_size).
        directions: For a contractive penalty: the same, from a generator of its own.
    """

    shifts: Tensor | None = None
    flips: Tensor | None = None
    brightness: Tensor | None = None
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
        self._shifts = named_generator(seed, "shifts", epoch=epoch)
        self._flips = named_generator(seed, "flips", epoch=epoch)
        self._brightness = named_generator(seed, "brightness", epoch=epoch)
        self._noise = named_generator(seed, "noise", epoch=epoch)
        self._latent = named_generator(seed, "latent", epoch=epoch)
        self._directions = named_generator(seed, "directions", epoch=epoch)

    def step(self, images: int) -> StepDraws:
        """Returns the numbers of the next step.

        Args:
            images: Number of its images.
        """
        train, model = self._params.train, self._model
        found = self._augmentation(images) if train.augments else {}
        if train.noise_std and self._epoch >= train.noise_from_epoch:
            found["noise"] = gaussian((images, *model.image_shape), train.noise_std, self._noise)
        if self._params.model.variational:
            found["latent"] = torch.randn(images, model.latent_size, generator=self._latent)
        if train.contractive:
            found["directions"] = torch.randn(images, model.latent_size, generator=self._directions)
        return StepDraws(**{name: tensor.to(self._device) for name, tensor in found.items()})

    def _augmentation(self, images: int) -> dict[str, Tensor]:
        train = self._params.train
        found: dict[str, Tensor] = {}
        if most := train.shift_pixels:
            found["shifts"] = torch.randint(-most, most + 1, (images, 2), generator=self._shifts)
        if train.flip:
            found["flips"] = torch.rand(images, generator=self._flips) < 0.5
        if train.brightness:
            shares = torch.rand(images, generator=self._brightness)
            found["brightness"] = 1 + train.brightness * (2 * shares - 1)
        return found
