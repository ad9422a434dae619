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
from torch.optim.nadam import nadam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from searchae.config import TrainParams

_FUSED = frozenset({"cpu", "cuda"})

State = dict[str, list[Tensor]]


class Rule(Protocol):
    """An update rule.

    Attributes:
        learning_rate: May be changed between two steps.
        state: The tensors that it keeps from step to step and changes in place, by name; one
            tensor for each weight.
    """

    learning_rate: float
    state: State

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Updates the weights in place from their gradients."""
        ...


class Optimizer:
    """Updates a model's weights from their gradients.

    Args:
        weights: The parameters, float32, all on one device.
        rule: The update rule.
        max_norm: Longer gradients are scaled down to this Euclidean norm; None for none.
    """

    def __init__(
        self, weights: Sequence[Tensor], rule: Rule, *, max_norm: float | None = None
    ) -> None:
        self._weights = list(weights)
        self._rule = rule
        self._max_norm = max_norm

    @property
    def learning_rate(self) -> float:
        """The learning rate; it may be changed between two steps."""
        return self._rule.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._rule.learning_rate = value

    def clear(self) -> None:
        """Removes the gradients, also those of an interrupted backward pass."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every weight and removes the gradients."""
        if self._max_norm is not None:
            nn.utils.clip_grad_norm_(self._weights, self._max_norm)
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

    Weight decay is L2 regularization, added to the gradient; with adamw it is decoupled from it.
    ``momentum`` applies to sgd and rmsprop. Other settings are the defaults of ``torch.optim``.

    Args:
        params: Names the optimizer and its settings.
        weights: The model's parameters, float32, on ``device``.
        device: Decides between the fused and the foreach implementation.
    """
    tensors: list[Tensor] = list(weights)
    rules: dict[str, Callable[..., Rule]] = {
        "adam": _Adam,
        "adamw": _Adam,
        "nadam": _NAdam,
        "rmsprop": _RMSprop,
        "sgd": _SGD,
    }
    fused = device.type in _FUSED
    rule = rules[params.optimizer](params, tensors, fused=fused)
    return Optimizer(tensors, rule, max_norm=params.max_gradient_norm)


class _Adam:
    """D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    With adamw: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        self._params, self._fused = params, fused
        self.learning_rate = params.learning_rate
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
            decoupled_weight_decay=self._params.optimizer == "adamw",
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self._params.weight_decay,
            eps=1e-8,
            maximize=False,
        )


class _NAdam:
    """T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016."""

    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        del fused  # torch has no fused implementation of it
        self._params, self.learning_rate = params, params.learning_rate
        # Without it the rule reads its counters back from the device in each step.
        self._on_device = weights[0].device.type == "cuda"
        self.state: State = {
            "mean": _zeros(weights),
            "square": _zeros(weights),
            "momentum": [torch.ones((), device=w.device) for w in weights],
            "steps": _counters(weights),
        }

    def __call__(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        nadam(
            weights,
            gradients,
            self.state["mean"],
            self.state["square"],
            self.state["momentum"],
            self.state["steps"],
            foreach=True,
            capturable=self._on_device,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self._params.weight_decay,
            momentum_decay=4e-3,
            eps=1e-8,
        )


class _SGD:
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` has it."""

    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        self._params, self._fused = params, fused
        self.learning_rate = params.learning_rate
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
            lr=self.learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


class _RMSprop:
    """G. Hinton, "Neural networks for machine learning", lecture 6e, 2012."""

    def __init__(self, params: TrainParams, weights: list[Tensor], *, fused: bool) -> None:
        del fused  # torch has no fused implementation of it
        self._params, self.learning_rate = params, params.learning_rate
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
            lr=self.learning_rate,
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
