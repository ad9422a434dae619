"""One training step: the hot path.

The trainer knows only ``Step``. Another variant, as ``graph`` has one, is another function of the
same form; it may keep what it likes, if it reads nothing back to the host.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from searchae.config import TrainParams
from searchae.models import Autoencoder
from searchae.training.fused_forward import Forward
from searchae.training.images import ResidentImages, noisy
from searchae.training.kernels.convolution import Convolutions
from searchae.training.optimizers import Optimizer
from searchae.training.precision import Precision
from searchae.training.regularizers import clip_, l1_penalty, penalised_weights


class Step(Protocol):
    """Gathers a batch, updates the weights, and does not wait for the device."""

    def __call__(self, indices: Tensor, *, noise: Tensor | None) -> Tensor:
        """Trains on one batch.

        Args:
            indices: Which images, int64 (B,), on the device.
            noise: Added to the input, float32 (B, C, H, W) on the [0, 1] scale; None for none.

        Returns:
            The mean squared error before the update, without penalties, in the model's own
            range; float32, no dimensions, on the device, without a gradient.
        """
        ...


class EagerStep:
    """The step in PyTorch as it comes, one operation after the other.

    Args:
        model: Updated in place.
        optimizer: Of its weights.
        images: Where batches come from.
        params: Loss, penalty and clip.
        precision: Of the forward and the backward pass; see ``Forward``.
        compiled: Convolutions for it, if any.

    Attributes:
        forward: The model's forward pass, as it trains.
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
        self.forward = Forward(model, precision, compiled)
        self._optimizer = optimizer
        self._images = images
        self._params = params
        self._weights = penalised_weights(model)

    def tensors(self) -> list[Tensor]:
        """Everything that a step changes, the model's own tensors first; not copied."""
        kept = self._optimizer.state().values()
        return [*self._model.state_dict().values(), *(t for tensors in kept for t in tensors)]

    def weights(self) -> list[Tensor]:
        """What is learned; not copied."""
        return [w.detach() for w in self._model.parameters()]

    def __call__(self, indices: Tensor, *, noise: Tensor | None) -> Tensor:
        """See ``Step``."""
        model, params = self._model, self._params
        images = self._images.batch(indices)
        targets = model.to_own_range(images)
        inputs = targets if noise is None else model.to_own_range(noisy(images, noise))
        latents, reconstructions = self.forward(inputs)
        mse = F.mse_loss(reconstructions, targets)
        loss = mse
        if params.l1:
            loss = mse + l1_penalty(params, latents=latents, weights=self._weights)
        self._optimizer.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if params.clips:
            clip_(self._weights, params.clip)
        return mse.detach()
