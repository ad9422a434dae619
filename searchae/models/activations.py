"""The activations of a study file by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

MONOTONE = frozenset({"relu", "leaky_relu", "sigmoid", "tanh", "elu", "none"})
"""Non-decreasing activations: they give the same values before or after max-pooling."""

# In place where the gradient needs only the output: the activation's input is not stored then.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

ACTIVATION_MODULES = tuple(type(make()) for make in _ACTIVATIONS.values())
"""The modules' classes, for ``isinstance``."""


def activation(name: str) -> list[nn.Module]:
    """Returns the activation of a name as a list of modules, which is empty for ``none``.

    Leaky ReLU has a slope of 0.01, ELU an alpha of 1, and GELU is exact (not approximated by tanh).
    """
    return [] if name == "none" else [_ACTIVATIONS[name]()]
