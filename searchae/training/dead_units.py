"""Whether a net can still learn: some die, and every further epoch would be wasted.

Where the activations of a whole layer are flat, as ReLUs are below zero, no gradient comes through
to what lies before it. If the layer also gives the same for every image, the net knows nothing of
the image any more. What is left to move the weights before it is an optimizer's momentum or a
penalty; once they have stood still for an epoch, they will for ever.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from searchae.config import TrialParams
from searchae.models import ACTIVATION_MODULES, Autoencoder
from searchae.training.images import ResidentImages
from searchae.training.metrics import EVALUATION_BATCH

_LOOK = 4
_ROUNDING = 1e-5  # relative; the same input twice in a batch may come out so different


def can_be_judged(params: TrialParams) -> bool:
    """Whether a silent layer stays so: noise on the input or a batch norm can wake it again."""
    return not (params.train.noise_std or params.model.batch_norm)


def least_constant_mse(images: Tensor) -> float:
    """The least mean squared error of an output that is the same for every image.

    That is the mean over pixels and channels of their variance over the images: the best such
    output is the mean image.

    Args:
        images: uint8 (N, C, H, W), on any device.

    Returns:
        On the [0, 1] scale.
    """
    parts = torch.split(images, EVALUATION_BATCH)
    sums = torch.stack([p.sum(0, dtype=torch.int64) for p in parts]).sum(0).double()
    squares = torch.stack([p.int().square().sum(0, dtype=torch.int64) for p in parts]).sum(0)
    count = len(images)
    return float((squares.double() / count - (sums / count).square()).mean()) / 255**2


@torch.no_grad()
def is_dead(model: Autoencoder, images: ResidentImages) -> str:
    """A layer that is flat and gives the same for every image, to the last bit.

    Two images that come out different tell a net that is alive, in milliseconds; else a few tell
    which layers are, and only then are all of them looked at.

    Args:
        model: ``can_be_told`` of its trial.
        images: That it is trained on.

    Returns:
        Which layer, and a checksum of the weights before it: a net that has the same twice in a
        row, an epoch apart, is dead. Empty if there is no such layer.
    """
    if _differ(model, images):
        return ""
    layers = [*model.encoder, *model.decoder]
    left = {i for i, layer in enumerate(layers) if isinstance(layer, ACTIVATION_MODULES)}
    same: dict[int, Tensor] = {}
    start, count = 0, _LOOK
    while left and start < len(images):
        indices = torch.arange(start, min(start + count, len(images)), device=images.rows.device)
        value = model.to_own_range(images.batch(indices))
        for i, layer in enumerate(layers):
            flat = i in left and _is_flat(layer, value)
            value = layer(value)
            if not flat or not _is_constant(value, same.setdefault(i, value[:1].clone())):
                left.discard(i)
            if not any(j > i for j in left):
                break  # nothing behind it is in question
        start, count = start + count, EVALUATION_BATCH
    return f"{min(left)}-{_checksum(layers[: min(left)])}" if left else ""


def _differ(model: Autoencoder, images: ResidentImages) -> bool:
    """Whether two images are told apart, by more than rounding, so that no layer is silent."""
    two = torch.arange(min(2, len(images)), device=images.rows.device)
    outputs = model.decoder(model.encoder(model.to_own_range(images.batch(two))))
    apart = (outputs[-1] - outputs[0]).abs().max()
    return bool(apart > _ROUNDING * outputs.abs().max())


def _is_flat(activation: nn.Module, value: Tensor) -> bool:
    with torch.enable_grad():
        inputs = value.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(activation(inputs * 1).sum(), inputs)  # some work in place
    return not slope.any()


def _is_constant(value: Tensor, one: Tensor) -> bool:
    return torch.equal(value, one.expand_as(value))


def _checksum(layers: list[nn.Module]) -> str:
    digest = hashlib.sha256()
    for layer in layers:
        for weight in layer.parameters():
            digest.update(weight.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
