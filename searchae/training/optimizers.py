"""The optimizers of a study file, in torch's fastest implementation for the device.

They call the functional update rules of ``torch.optim``. Its classes do the same, but making the
first one imports torch's compiler, which takes about 3 s in each worker.

To add one: write its update rule here, name it in ``make_optimizer``, and add the name to
``Optimizer`` in ``config/schema.py``; if it has a momentum, to ``CONDITIONS`` in
``config/parameters.py``, too.
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
    """An update rule.

    Attributes:
        state: The tensors that it keeps from step to step and changes in place, by name; one
            tensor for each weight.
    """

    state: State

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Updates the weights in place from their gradients."""
        ...


class Optimizer:
    """Updates a model's weights from their gradients.

    Args:
        weights: The parameters, float32, all on one device.
        rule: The update rule.
    """

    def __init__(self, weights: Sequence[Tensor], rule: Rule) -> None:
        self._weights = list(weights)
        self._rule = rule

    def clear(self) -> None:
        """Removes the gradients, also those of an interrupted backward pass."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every weight and removes the gradients."""
        gradients = [_gradient(w) for w in self._weights]
        self._rule(self._weights, gradients)
        self.clear()

    def state(self) -> State:
        """Returns the update rule's tensors by name, one for each weight; not copied."""
        return self._rule.state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Restores the state of such an optimizer.

        Args:
            state: What ``state`` returned, on any device.

        Raises:
            ValueError: It is the state of other weights.
        """
        for name, own in self._rule.state.items():
            for mine, given in zip(own, state[name], strict=True):
                if mine.shape != given.shape:
                    raise ValueError(f"{name} has the shape {tuple(given.shape)}")
                mine.copy_(given)


def make_optimizer(
    params: TrainParams, weights: Iterable[nn.Parameter], *, device: torch.device
) -> Optimizer:
    """Makes the optimizer of a trial.

    Weight decay is L2 regularization (added to the gradient), not the decoupled form of AdamW.
    ``momentum`` applies to sgd and rmsprop. Other settings are the defaults of ``torch.optim``.

    Args:
        params: Names the optimizer and its settings.
        weights: The model's parameters, float32, on ``device``.
        device: Decides between the fused and the foreach implementation.
    """
    tensors: list[Tensor] = list(weights)
    rules: dict[str, Callable[..., Rule]] = {"adam": _Adam, "sgd": _SGD, "rmsprop": _RMSprop}
    fused = device.type in _FUSED
    return Optimizer(tensors, rules[params.optimizer](params, tensors, fused=fused))


class _Adam:
    """D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015."""

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
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` has it."""

    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        self._params, self._fused = params, fused
        self.state: State = {"velocity": _zeros(weights)} if params.momentum else {}

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        sgd(
            weights,
            gradients,
            # torch starts without velocity; without dampening zeros give the same result.
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
    """G. Hinton, "Neural networks for machine learning", lecture 6e, 2012."""

    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        del fused  # torch has no fused implementation of it
        self._params = params
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
    assert weight.grad is not None  # every weight of an autoencoder is used in its output
    return weight.grad


def _zeros(weights: list[Tensor]) -> list[Tensor]:
    """Returns zeros like each weight, in its memory format, as the update rules need it."""
    return [torch.zeros_like(w, memory_format=torch.preserve_format) for w in weights]


def _counters(weights: list[Tensor]) -> list[Tensor]:
    return [torch.zeros((), device=w.device) for w in weights]
