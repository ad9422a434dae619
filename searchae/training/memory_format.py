"""The memory format of models and images, and models moved to a device in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def preferred_memory_format(model: nn.Module) -> torch.memory_format:
    """Returns the memory format that a model and its input images should have.

    Convolutions train 1.4 times as fast on a CPU with ``torch.channels_last``. Models without
    convolutions get ``torch.contiguous_format``, and so do those with group normalisation, which
    takes three times as long with channels last, and those with strided 1x1 convolutions, whose
    weight gradient writes out of bounds with channels last (oneDNN issue 6035, seen with torch
    2.15).
    """
    if any(isinstance(m, nn.GroupNorm) for m in model.modules()):
        return torch.contiguous_format
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    unsafe = any(m.kernel_size == (1, 1) and max(m.stride) > 1 for m in convolutions)
    return torch.channels_last if convolutions and not unsafe else torch.contiguous_format


def to_device(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Moves a model to a device, in place, in its memory format.

    Returns:
        That format; input images should have it too.
    """
    found = preferred_memory_format(model)
    model.to(device=device, memory_format=found)  # type: ignore[call-overload]
    return found


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, device: torch.device
) -> torch.memory_format:
    """Gives a model copies of stored weights, in evaluation mode and on a device.

    Args:
        model: Changed in place; it may be on torch's meta device, where it takes no memory.
        weights: As ``model.state_dict()`` has them, on any device.
        device: Where to put the model.

    Returns:
        The model's memory format; input images should have it too.

    Raises:
        RuntimeError: The weights are not those of such a model.
    """
    copies = {name: tensor.detach().clone() for name, tensor in weights.items()}
    model.load_state_dict(copies, assign=True)
    model.eval()
    return to_device(model, device)
