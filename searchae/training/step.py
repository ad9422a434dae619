"""One training step, the code that a search spends its time in.

The trainer uses the ``Step`` protocol only: ``EagerStep`` here, ``RecordedStep`` of ``cuda_graph``
on a GPU. A step must not read anything back from the device, which would wait for it.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from searchae.config import TrainParams
from searchae.models import Autoencoder
from searchae.training.augmentation import brightened
from searchae.training.draws import NO_DRAWS, StepDraws
from searchae.training.fused_forward import Forward
from searchae.training.images import ResidentImages, noisy
from searchae.training.kernels.convolution import Convolutions
from searchae.training.loss import ReconstructionLoss
from searchae.training.optimizers import Optimizer
from searchae.training.precision import Precision
from searchae.training.regularizers import (
    clip_,
    contractive_penalty,
    l1_penalty,
    penalised_weights,
)
from searchae.training.variational import divergence


class Step(Protocol):
    """A training step: gathers a batch and updates the weights, without waiting for the device."""

    def __call__(self, indices: Tensor, draws: StepDraws = NO_DRAWS) -> Tensor:
        """Trains on one batch.

        Args:
            indices: The images of the batch, int64 (B,), on the device.
            draws: The step's random numbers.

        Returns:
            The mean squared error before the update, without penalties, for values in the model's
            own range: a float32 scalar tensor on the device, without a gradient.
        """
        ...


class EagerStep:
    """The training step in PyTorch's eager mode.

    Args:
        model: The model; updated in place.
        optimizer: The optimizer of its weights.
        images: The training images.
        params: Loss, penalty and clip.
        precision: Of the forward and the backward pass; see ``Forward``.
        compiled: Compiled convolutions to use where they fit, if any.

    Attributes:
        forward: The forward pass that the step uses.
        divergence_weight: Weight of the divergence of a variational latent; it may be changed
            between two steps.
    """

    def __init__(
        self,
        model: Autoencoder,
        optimizer: Optimizer,
        *,
        images: ResidentImages,
        params: TrainParams,
        precision: Precision,
        compiled: Convolutions | None = None,
    ) -> None:
        self._model = model
        self.forward = Forward(model, precision, compiled, is_contractive=bool(params.contractive))
        self._optimizer = optimizer
        self._images = images
        self._params = params
        self._weights = penalised_weights(model)
        self._loss = ReconstructionLoss(model, params)
        self.divergence_weight = params.beta

    @property
    def constants(self) -> tuple[float, float]:
        """What may differ from step to step without being a tensor."""
        return self._optimizer.learning_rate, self.divergence_weight

    def tensors(self) -> list[Tensor]:
        """Returns all tensors that a step changes, the model's own first; they are not copied."""
        kept = self._optimizer.state().values()
        return [*self._model.state_dict().values(), *(t for tensors in kept for t in tensors)]

    def weights(self) -> list[Tensor]:
        """Returns the model's parameters, detached; they are not copied."""
        return [w.detach() for w in self._model.parameters()]

    def _batch(self, indices: Tensor, draws: StepDraws) -> Tensor:
        """Returns the images of a batch in [0, 1], augmented."""
        images = self._images.batch(indices, shifts=draws.shifts, flips=draws.flips)
        return images if draws.brightness is None else brightened(images, draws.brightness)

    def __call__(self, indices: Tensor, draws: StepDraws = NO_DRAWS) -> Tensor:
        """See ``Step``."""
        model, params, noise = self._model, self._params, draws.noise
        images = self._batch(indices, draws)
        targets = model.to_own_range(images)
        inputs = targets if noise is None else model.to_own_range(noisy(images, noise))
        if draws.directions is not None:
            inputs = inputs.detach().requires_grad_()  # not the targets, which may be the same
        if draws.latent is None:
            latents, reconstructions = self.forward(inputs)
        else:
            latents, log_variances, reconstructions = self.forward.sampled(inputs, draws.latent)
        loss = self._loss(reconstructions, targets)
        mse = loss.detach()
        if not self._loss.is_mse:
            mse = F.mse_loss(reconstructions.detach(), targets)
        if draws.latent is not None:
            # The loss is a mean over an image's values: the divergence is shared out among them.
            weight = self.divergence_weight / targets[0].numel()
            loss = loss + weight * divergence(latents, log_variances)
        if draws.directions is not None:
            penalty = contractive_penalty(latents, inputs, draws.directions)
            loss = loss + params.contractive * penalty
        if params.l1:
            loss = loss + l1_penalty(params, latents=latents, weights=self._weights)
        self._optimizer.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if params.clips:
            clip_(self._weights, params.clip)
        return mse
