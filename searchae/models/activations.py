"""Activations by the names of a study file."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

MONOTONE = frozenset({"relu", "leaky_relu", "sigmoid", "tanh", "elu", "none"})
"""Never falling, so that max-pooling before or after gives the same values."""

# In place where the gradient needs only the result: the convolution's own output is not kept.
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
"""Their classes, to know them by in a net."""


def activation(name: str) -> list[nn.Module]:
    """The activation of that name as a list of modules: empty for ``none``.

    Leaky ReLU has a slope of 0.01, ELU an alpha of 1, GELU is the exact one.
    """
    return [] if name == "none" else [_ACTIVATIONS[name]()]
