"""The optimizers of a study file, in torch's fastest form for the device.

They call torch's own update rules, the functions beneath ``torch.optim``. The classes there do
the same, but the first of them imports torch's compiler: some 3 s in each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from searchae.config import TrainParams

_FUSED = frozenset({"cpu", "cuda"})

State = dict[str, list[Tensor]]


class Rule(Protocol):
    """One update of all weights; ``state`` are the tensors that it keeps, in place."""

    state: State

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Changes the weights."""
        ...


class Optimizer:
    """Updates a model's weights from their gradients.

    Args:
        weights: Float32, on one device.
        rule: How.
    """

    def __init__(self, weights: Sequence[Tensor], rule: Rule) -> None:
        self._weights = list(weights)
        self._rule = rule

    def clear(self) -> None:
        """Forgets the gradients, those of a backward pass that was broken off too."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every weight, and forgets the gradients."""
        gradients = [_gradient(w) for w in self._weights]
        self._rule(self._weights, gradients)
        self.clear()

    def state(self) -> State:
        """What it keeps from step to step, by name; one tensor a weight, not copied."""
        return self._rule.state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Takes up where ``state`` of such an optimizer left it."""
        for name, own in self._rule.state.items():
            for mine, given in zip(own, state[name], strict=True):
                mine.copy_(given)


def make_optimizer(
    params: TrainParams, weights: Iterable[nn.Parameter], *, device: torch.device
) -> Optimizer:
    """The optimizer of a trial; ``weights`` lie on ``device``.

    Weight decay is the L2 term inside the optimizer, not the decoupled one. Momentum goes to
    sgd and rmsprop. All else is the default of ``torch.optim``.
    """
    tensors: list[Tensor] = list(weights)
    rules: dict[str, Callable[..., Rule]] = {"adam": _Adam, "sgd": _SGD, "rmsprop": _RMSprop}
    fused = device.type in _FUSED
    return Optimizer(tensors, rules[params.optimizer](params, tensors, fused=fused))


class _Adam:
    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        self._params, self._fused = params, fused
        self.state: State = {
            "mean": _zeros(weights),
            "square": _zeros(weights),
            "steps": _counters(weights),
        }

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        adam(
            weights,
            gradients,
            self.state["mean"],
            self.state["square"],
            [],
            self.state["steps"],
            foreach=not self._fused,
            fused=self._fused,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._params.learning_rate,
            weight_decay=self._params.weight_decay,
            eps=1e-8,
            maximize=False,
        )


class _SGD:
    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        self._params, self._fused = params, fused
        self.state: State = {"velocity": _zeros(weights)} if params.momentum else {}

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        sgd(
            weights,
            gradients,
            # torch starts with no velocity at all: without dampening the same as with zeros.
            list(self.state.get("velocity", [None] * len(weights))),
            foreach=not self._fused,
            fused=self._fused,
            weight_decay=self._params.weight_decay,
            momentum=self._params.momentum,
            lr=self._params.learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


class _RMSprop:
    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        self._params = params  # torch has no fused one
        self.state: State = {
            "square": _zeros(weights),
            "velocity": _zeros(weights) if params.momentum else [],
            "steps": _counters(weights),
        }

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        rmsprop(
            weights,
            gradients,
            self.state["square"],
            [],
            self.state["velocity"],
            self.state["steps"],
            foreach=True,
            lr=self._params.learning_rate,
            alpha=0.99,
            eps=1e-8,
            weight_decay=self._params.weight_decay,
            momentum=self._params.momentum,
            centered=False,
        )


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # every weight of an autoencoder takes part
    return weight.grad


def _zeros(weights: list[Tensor]) -> list[Tensor]:
    """In each weight's own memory format, as the update rules want it."""
    return [torch.zeros_like(w, memory_format=torch.preserve_format) for w in weights]


def _counters(weights: list[Tensor]) -> list[Tensor]:
    return [torch.zeros((), device=w.device) for w in weights]
