"""A study: its data, its search space and how the space is searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from searchae.config.data_spec import DataSpec
from searchae.config.parameters import CONDITIONS, Parameter
from searchae.config.schema import (
    ARGUMENT,
    SEARCHABLE,
    SECTIONS,
    ModelParams,
    TrainParams,
    TrialParams,
)
from searchae.config.search_spec import SearchSpec
from searchae.config.section import jsonable

NOT_IDENTITY = frozenset(
    {"description", "data.path", "data.test_path", "model.factory"}
    | {
        f"search.{k}"
        for k in ("trials", "stop_when_stable", "heartbeat_s", "grace_s", "max_attempts")
    }
)
"""Keys that may differ between two runs of one study, since no trial's result depends on them."""


@dataclass(frozen=True)
class StudySpec:
    """A validated study file, immutable.

    Examples:
        >>> spec = searchae.open("quickstart").spec
        >>> [parameter.name for parameter in spec.space]
        ['activation', 'optimizer', 'learning_rate', 'regularizer', 'l1_weight']
        >>> again = searchae.tune(spec, name="again", trials=1, seed=1, quiet=True)

    Attributes:
        description: A text for people.
        seed: All random numbers follow from it: splits, initialisation, order, noise and sampling.
        data: The images.
        search: How the space is searched.
        fixed: Section -> key -> value of what is not searched.
        space: The searched parameters, in the file's order.
    """

    description: str
    seed: int
    data: DataSpec
    search: SearchSpec
    fixed: Mapping[str, Mapping[str, Any]]
    space: tuple[Parameter, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        """The searched parameters by name."""
        return {p.name: p for p in self.space}

    @property
    def epochs(self) -> int:
        """Epochs of a full training: ``train.epochs``."""
        return int(self.fixed["train"]["epochs"])

    def choices_of(self, key: str) -> tuple[Any, ...]:
        """Returns the values that a key without a range may have: its choices, or its fixed value.

        Args:
            key: Such as ``train.regularizer``.
        """
        searched = next((p for p in self.space if p.key == key), None)
        section, _, name = key.partition(".")
        return searched.choices if searched else (self.fixed[section][name],)

    def is_active(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a searched parameter is sampled, given the values of others.

        Args:
            key: The parameter's key, such as ``train.l1_weight``.
            values: Key -> value of the parameters sampled so far.
        """
        if key not in CONDITIONS:
            return True
        parent, wanted = CONDITIONS[key]
        section, _, name = parent.partition(".")
        return values.get(parent, self.fixed[section].get(name)) in wanted

    def resolve(self, values: Mapping[str, Any]) -> TrialParams:
        """Returns the parameters of a trial: the fixed values and those of the searched keys.

        Args:
            values: Key -> value; keys that are not active may be left out, and have their defaults.

        Raises:
            pydantic.ValidationError: A value is not allowed for its key.
        """
        parts: dict[str, dict[str, Any]] = {s: dict(self.fixed[s]) for s in SEARCHABLE}
        for key, value in values.items():
            _place(parts, key, value)
        return TrialParams(ModelParams(**parts["model"]), TrainParams(**parts["train"]))

    def document(self) -> dict[str, Any]:
        """Returns the study as the database stores it: a study file with all defaults, as JSON."""
        sections: dict[str, Any] = {
            s: SECTIONS[s].without_later_defaults(jsonable(dict(self.fixed[s]))) for s in SEARCHABLE
        }
        for p in self.space:
            _place(sections, p.key, jsonable(p.document()))
        return {
            "description": self.description,
            "seed": self.seed,
            "data": self.data.model_dump(mode="json"),
            **sections,
            "search": self.search.document(),
        }

    def differences(self, other: StudySpec) -> list[str]:
        """Returns the differences that change results, as ``key: value -> value in other``."""
        here, there = _flattened(self.document()), _flattened(other.document())
        keys = [k for k in {**here, **there} if k not in NOT_IDENTITY]
        return [
            f"{k}: {json.dumps(here.get(k))} -> {json.dumps(there.get(k))}"
            for k in keys
            if here.get(k) != there.get(k)
        ]


def _place(sections: dict[str, dict[str, Any]], key: str, value: Any) -> None:
    """Puts a value at its key; tables that others may hold are copied."""
    section, _, name = key.partition(".")
    if key.startswith(ARGUMENT):
        args = sections[section].get("args", {})
        sections[section]["args"] = {**args, key.removeprefix(ARGUMENT): value}
    else:
        sections[section][name] = value


def _flattened(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if not prefix and isinstance(value, Mapping):
            flat |= _flattened(value, f"{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
