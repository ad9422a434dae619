"""The random numbers of training steps, each kind from a generator of its own for each epoch."""

from __future__ import annotations

from collections.abc import Mapping
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
        kinds = [field.name for field in fields(StepDraws)]
        self._generators = {kind: named_generator(seed, kind, epoch=epoch) for kind in kinds}

    def states(self) -> dict[str, Tensor]:
        """Returns the states of the generators after the last step, uint8."""
        return {kind: generator.get_state() for kind, generator in self._generators.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Continues from what ``states`` returned.

        Raises:
            KeyError: The state of one generator is missing.
            RuntimeError: One of them is no state.
            TypeError: The same.
        """
        for kind, generator in self._generators.items():
            generator.set_state(states[kind])

    def step(self, images: int) -> StepDraws:
        """Returns the numbers of the next step.

        Args:
            images: Number of its images.
        """
        train, model, drawn = self._params.train, self._model, self._generators
        found = self._augmentation(images) if train.augments else {}
        if train.noise_std and self._epoch >= train.noise_from_epoch:
            found["noise"] = gaussian((images, *model.image_shape), train.noise_std, drawn["noise"])
        if self._params.model.variational:
            found["latent"] = torch.randn(images, model.latent_size, generator=drawn["latent"])
        if train.contractive:
            found["directions"] = torch.randn(
                images, model.latent_size, generator=drawn["directions"]
            )
        return StepDraws(**{name: tensor.to(self._device) for name, tensor in found.items()})

    def _augmentation(self, images: int) -> dict[str, Tensor]:
        train, drawn = self._params.train, self._generators
        found: dict[str, Tensor] = {}
        if most := train.shift_pixels:
            found["shifts"] = torch.randint(-most, most + 1, (images, 2), generator=drawn["shifts"])
        if train.flip:
            found["flips"] = torch.rand(images, generator=drawn["flips"]) < 0.5
        if train.brightness:
            shares = torch.rand(images, generator=drawn["brightness"])
            found["brightness"] = 1 + train.brightness * (2 * shares - 1)
        return found
