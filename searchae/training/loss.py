"""The losses of a study file: how far a reconstruction is from its image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from searchae.config import TrainParams
from searchae.models import Autoencoder
from searchae.training.metrics import ssim

_LEAST = 1e-7
"""Outputs nearer to 0 or 1 count as this near, since a logarithm has no end there."""


class ReconstructionLoss:
    """The loss between reconstructions and their images, without penalties.

    Args:
        model: Says which range of values it has.
        params: Names the loss and its settings.

    Attributes:
        is_mse: Whether it is the mean squared error and nothing else.
    """

    def __init__(self, model: Autoencoder, params: TrainParams) -> None:
        self._model, self._params = model, params
        self.is_mse = params.loss == "mse" and not params.ssim_weight

    def __call__(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Returns the loss, a float32 scalar tensor.

        Args:
            reconstructions: Float32 (N, C, H, W), in the model's own range, not clamped.
            images: The same, of what was to be reconstructed.
        """
        share, by_pixel = self._params.ssim_weight, self._by_pixel(reconstructions, images)
        if not share:
            return by_pixel
        own = self._model.to_unit_range
        unlike = 1 - ssim(own(reconstructions), own(images)).mean()
        return (1 - share) * by_pixel + share * unlike

    def _by_pixel(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        match self._params.loss:
            case "mse":
                return F.mse_loss(reconstructions, images)
            case "l1":
                return F.l1_loss(reconstructions, images)
            case "huber":
                return F.huber_loss(reconstructions, images, delta=self._params.huber_delta)
            case "bce":
                return _cross_entropy(reconstructions, images)


def _cross_entropy(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Returns the binary cross-entropy; unlike torch's, NaN gives NaN, and no error."""
    inside = reconstructions.clamp(_LEAST, 1 - _LEAST)
    return -(images * inside.log() + (1 - images) * (-inside).log1p()).mean()
