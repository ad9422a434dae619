"""The searched parameters of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Value = bool | int | float | str
"""A parameter's value as Optuna stores it; lists and tables are stored as their JSON text."""


def label(value: Any) -> Value:
    """Returns a value as Optuna stores it: scalars unchanged, anything else as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


@dataclass(frozen=True)
class Parameter:
    """One searched parameter: a numeric range or a list of choices.

    Attributes:
        key: Its key in the study file, such as ``train.learning_rate``.
        low: Smallest value of a range.
        high: Largest value of a range, inclusive.
        log: Whether the logarithm is sampled uniformly instead of the value.
        step: Distance of the values of a range, counted from ``low``; None for a continuous range
            of floats, or for 1 if ``integer``.
        integer: Whether the range holds whole numbers.
        choices: The values to choose from; empty for a range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    integer: bool = False
    choices: tuple[Any, ...] = ()

    @cached_property
    def name(self) -> str:
        """The last part of the key, which is the parameter's name in Optuna."""
        return self.key.rpartition(".")[2]

    @cached_property
    def labels(self) -> tuple[Value, ...]:
        """The choices as Optuna stores them, in order."""
        return tuple(label(c) for c in self.choices)

    def value(self, label: Value) -> Any:
        """Returns the value that Optuna stores as ``label``."""
        return self.choices[self.labels.index(label)] if self.choices else label

    def document(self) -> dict[str, Any]:
        """Returns the range or choices as a study file has them."""
        if self.choices:
            return {"choices": list(self.choices)}
        number = int if self.integer else float
        entry: dict[str, Any] = {"low": number(self.low), "high": number(self.high)}
        if self.log:
            entry["log"] = True
        if self.step is not None:
            entry["step"] = number(self.step)
        return entry


COMPARED_PARAMETERS = ("regularizer", "activation", "optimizer")
"""Parameters that ``searchae compare`` compares by default, if the study searches them."""


def comparable(space: Sequence[Parameter]) -> dict[str, Parameter]:
    """Returns the searched parameters that can be compared, by name: those with several choices."""
    return {p.name: p for p in space if len(p.choices) > 1}


def compared_by_default(space: Sequence[Parameter]) -> list[Parameter]:
    """Returns the parameters that are compared unless the user names others."""
    found = comparable(space)
    return [found[name] for name in COMPARED_PARAMETERS if name in found]


CONDITIONS: dict[str, tuple[str, frozenset[Value]]] = {
    "train.l1_weight": ("train.regularizer", frozenset({"l1", "clip+l1"})),
    "train.contractive_weight": (
        "train.regularizer",
        frozenset({"contractive", "clip+contractive"}),
    ),
    "train.active_latents": ("train.regularizer", frozenset({"k-sparse", "clip+k-sparse"})),
    "train.momentum": ("train.optimizer", frozenset({"sgd", "rmsprop"})),
    "train.decay_factor": ("train.schedule", frozenset({"step", "plateau"})),
    "train.decay_epochs": ("train.schedule", frozenset({"step", "plateau"})),
    "train.beta": ("model.variational", frozenset({True})),
    "train.beta_warmup_epochs": ("model.variational", frozenset({True})),
    "train.huber_delta": ("train.loss", frozenset({"huber"})),
}
"""Conditional parameters: key -> (parent key, values of the parent under which it is sampled)."""
