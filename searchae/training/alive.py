"""Whether a net can still learn: some die, and every further epoch would be wasted.

The derivative of a ReLU is zero where its input is negative, and that of a sigmoid or a tanh where
it is saturated to the last digit. If a whole layer is flat like that for every image, what comes
before it has no gradient, does not change any more, and so leaves the layer flat for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from searchae.models import Autoencoder
from searchae.spec import TrialParams
from searchae.training.images import ResidentImages

_LOOK = 16
_BATCH = 250
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU)


def can_be_told(params: TrialParams) -> bool:
    """Whether a flat layer stays so in such a training.

    A penalty on the weights or the weight decay moves weights without a gradient, noise on the
    input and a batch norm bring back units that were silent.
    """
    train = params.train
    on_weights = bool(train.l1) and train.l1_target == "weights"
    return not (train.noise_std or train.weight_decay or on_weights or params.model.batch_norm)


@torch.no_grad()
def is_dead(model: Autoencoder, images: ResidentImages) -> bool:
    """Whether some layer of activations is flat for every image, to the last bit.

    A few images tell a net that is alive, in milliseconds; only else are all of them looked at.

    Args:
        model: ``can_be_told`` of its trial.
        images: That it is trained on.
    """
    layers = [*model.encoder, *model.decoder]
    flat = {i for i, layer in enumerate(layers) if isinstance(layer, _ACTIVATIONS)}
    start, count = 0, _LOOK
    while flat and start < len(images):
        indices = torch.arange(start, min(start + count, len(images)), device=images.rows.device)
        value = model.to_own_range(images.batch(indices))
        for i, layer in enumerate(layers):
            if i in flat and not _is_flat(layer, value):
                flat.discard(i)
            value = layer(value)
        start, count = start + count, _BATCH
    return bool(flat)


def _is_flat(activation: nn.Module, value: Tensor) -> bool:
    with torch.enable_grad():
        inputs = value.detach().clone().requires_grad_()  # some work in place
        (slope,) = torch.autograd.grad(activation(inputs * 1).sum(), inputs)
    return not slope.any()
