"""Detection of nets that can no longer learn because a whole layer of units is dead.

Where the activations of a whole layer are flat, as ReLU is below zero, no gradient reaches the
weights before it. If that layer also gives the same output for every image, the net's output no
longer depends on the image. The weights before it can then be moved only by the optimizer's
momentum or by a penalty; if they have not changed for an epoch, they never will.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
from torch import Tensor, nn

from searchae.config import TrialParams
from searchae.data import parts
from searchae.errors import DeadError
from searchae.models import ACTIVATION_MODULES, Autoencoder
from searchae.training.device_faults import device_errors
from searchae.training.epoch import EpochResult
from searchae.training.images import ResidentImages
from searchae.training.metrics import EVALUATION_BATCH

_FIRST_BATCH = 4  # images; most layers are found alive with these
_ROUNDING = 1e-5  # relative difference that two outputs for one input may have within a batch
_BELOW_CONSTANT = 0.9999  # allows for rounding in the validation error


class DeadNetDetector:
    """Raises an error when a net is found dead after two epochs in a row.

    Nets with noise on the input, with augmented images or with batch normalisation are not judged:
    each can bring a dead layer back to life.

    Args:
        params: The trial.
        model: The net, checked as it is when ``check`` is called.
        train: The training images.
        validation: The validation images, uint8 or uint16 (M, C, H, W).

    Attributes:
        dead_layer: What ``find_dead_layer`` found after the last epoch; part of a checkpoint.
    """

    dead_layer: str

    def __init__(
        self, params: TrialParams, *, model: Autoencoder, train: ResidentImages, validation: Tensor
    ) -> None:
        self._params, self._model = params, model
        self._train, self._validation = train, validation
        self.dead_layer = ""

    def check(self, result: EpochResult) -> None:
        """Judges the net after an epoch.

        Args:
            result: The epoch's result.

        Raises:
            DeadError: The same layer is dead as after the epoch before, with the same weights.
            OutOfMemoryError: The device's memory is full.
            DeviceError: The device failed.
        """
        train = self._params.train
        if train.noise_std or train.augments or self._params.model.batch_norm:
            return
        before, self.dead_layer = self.dead_layer, ""
        with device_errors(f"epoch {result.epoch}"):
            if result.val_mse < self._least_constant_mse:
                return  # so the outputs differ between images
            self.dead_layer = find_dead_layer(self._model, self._train)
        if self.dead_layer and self.dead_layer == before:
            raise DeadError(
                f"the net is dead in epoch {result.epoch}: a layer gives the same for every "
                "image, with no gradient that could change it (activation = "
                f"{self._params.model.activation}, learning_rate = "
                f"{self._params.train.learning_rate}): lower the learning rate, or choose another "
                "activation"
            )

    @cached_property
    def _least_constant_mse(self) -> float:
        return _BELOW_CONSTANT * least_constant_mse(self._validation)


def least_constant_mse(images: Tensor) -> float:
    """Returns the least mean squared error of an output that is the same for every image.

    The best such output is the mean image; its error is the variance over the images, averaged
    over pixels and channels.

    Args:
        images: uint8 or uint16 (N, C, H, W), on any device.

    Returns:
        The error for values in [0, 1].
    """
    wide = torch.int32 if images.dtype == torch.uint8 else torch.int64
    sums = torch.zeros(images.shape[1:], dtype=torch.int64, device=images.device)
    squares = torch.zeros_like(sums)
    for part in parts(images):
        sums += part.sum(0, dtype=torch.int64)
        squares += part.to(wide).square().sum(0, dtype=torch.int64)
    count, highest = len(images), torch.iinfo(images.dtype).max
    return float((squares.double() / count - (sums.double() / count).square()).mean()) / highest**2


@torch.no_grad()
def find_dead_layer(model: Autoencoder, images: ResidentImages) -> str:
    """Finds the first activation that is flat and has the same output for every image.

    A net whose outputs for two images differ has no such layer, which takes milliseconds to see.
    Otherwise layers are ruled out with a few images first, and only those that remain are
    checked with all of them.

    Args:
        model: The net, without batch normalisation.
        images: All training images.

    Returns:
        The layer's index (over encoder and decoder) and a SHA-256 of the weights before it, as
        ``INDEX-HASH``; empty if there is no such layer.
    """
    if _outputs_differ(model, images):
        return ""
    layers = [*model.encoder, *model.decoder]
    suspects = {i for i, layer in enumerate(layers) if isinstance(layer, ACTIVATION_MODULES)}
    first_outputs: dict[int, Tensor] = {}
    start, count = 0, _FIRST_BATCH
    while suspects and start < len(images):
        indices = torch.arange(start, min(start + count, len(images)), device=images.rows.device)
        value = model.to_own_range(images.batch(indices))
        for i, layer in enumerate(layers):
            flat = i in suspects and _is_flat(layer, value)
            value = layer(value)
            if not flat or not _is_constant(value, first_outputs.setdefault(i, value[:1].clone())):
                suspects.discard(i)
            if not any(j > i for j in suspects):
                break
        start, count = start + count, EVALUATION_BATCH
    return f"{min(suspects)}-{_checksum(layers[: min(suspects)])}" if suspects else ""


def _outputs_differ(model: Autoencoder, images: ResidentImages) -> bool:
    """Whether the outputs for the first two images differ by more than rounding."""
    two = torch.arange(min(2, len(images)), device=images.rows.device)
    outputs = model.decoder(model.encoder(model.to_own_range(images.batch(two))))
    difference = (outputs[-1] - outputs[0]).abs().max()
    return bool(difference > _ROUNDING * outputs.abs().max())


def _is_flat(activation: nn.Module, value: Tensor) -> bool:
    """Whether an activation's derivative is zero at every element of its input."""
    with torch.enable_grad():
        inputs = value.detach().clone().requires_grad_()
        # "* 1", since some activations work in place, which autograd forbids on a leaf.
        (slope,) = torch.autograd.grad(activation(inputs * 1).sum(), inputs)
    return not slope.any()


def _is_constant(value: Tensor, one: Tensor) -> bool:
    return torch.equal(value, one.expand_as(value))


def _checksum(layers: list[nn.Module]) -> str:
    digest = hashlib.sha256()
    for layer in layers:
        for weight in layer.parameters():
            digest.update(weight.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
