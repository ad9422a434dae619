"""``[[search.first]]``: the trials that a search begins with, checked against its space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from searchae.config.parameters import CONDITIONS, Parameter, label
from searchae.config.study_file_errors import Faults
from searchae.errors import nearest

Convert = Callable[[str, Any, Parameter], Any]
"""Converts a value, given its place, to its parameter's type; returns None after adding a fault."""


class InitialTrials:
    """Checks the trials in ``search.first`` and collects what is wrong with them.

    Args:
        space: The searched parameters.
        fixed: Section -> key -> value of what is not searched.
        convert: See ``Convert``.
        faults: Where faults are added.
    """

    def __init__(
        self,
        space: Sequence[Parameter],
        fixed: Mapping[str, Mapping[str, Any]],
        *,
        convert: Convert,
        faults: Faults,
    ) -> None:
        self._space = {p.name: p for p in space}
        self._fixed = {k: v for section in fixed.values() for k, v in section.items()}
        self._convert, self._faults = convert, faults

    def checked(self, entries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
        """Checks trials and converts their values.

        A parameter that is not searched, for example because ``--set`` fixes it, may be named with
        its fixed value; it is left out of the result.

        Args:
            entries: Name -> value of each trial.

        Returns:
            Name -> value of each trial, with the types of the fields and in the space's order.
        """
        return tuple(self._trial(f"search.first[{i}]", e) for i, e in enumerate(entries))

    def _trial(self, where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in entry.items():
            if name in self._space:
                found[name] = self._value(f"{where}.{name}", value, self._space[name])
            elif name not in self._fixed:
                message = f"is not searched; {nearest(name, self._space)}"
                if not self._space:
                    message = "is not searched, as nothing is: give keys ranges or choices first"
                self._faults.add(f"{where}.{name}", message)
            elif value != self._fixed[name]:
                self._faults.add(
                    f"{where}.{name}",
                    f"is {value!r}, but {name} is not searched and is {self._fixed[name]!r}; "
                    "give that, or leave it out (--set search.first=[] drops all of them)",
                )
        for name in [n for n in found if not self._is_sampled(n, found)]:
            parent = CONDITIONS[self._space[name].key][0].rpartition(".")[2]
            at = found.get(parent, self._fixed.get(parent))
            message = f"is not sampled under {parent} = {at!r}; leave it out"
            self._faults.add(f"{where}.{name}", message)
        return {name: found[name] for name in self._space if name in found}

    def _value(self, key: str, value: Any, parameter: Parameter) -> Any:
        if isinstance(value, bool) and not parameter.choices:
            self._faults.add(key, f"must be a number, not {value!r}")
            return value
        converted = self._convert(key, value, parameter)
        wrong = "" if converted is None else _why_outside(parameter, converted)
        if wrong:
            self._faults.add(key, f"{value!r} {wrong}")
        return converted

    def _is_sampled(self, name: str, found: Mapping[str, Any]) -> bool:
        """Whether a parameter can be sampled, given the trial's own values and the fixed ones."""
        condition = CONDITIONS.get(self._space[name].key)
        if condition is None:
            return True
        parent, wanted = condition[0].rpartition(".")[2], condition[1]
        return found.get(parent, self._fixed.get(parent, next(iter(wanted)))) in wanted


def _why_outside(parameter: Parameter, value: Any) -> str:
    """Returns why a parameter cannot have a value; empty if it can."""
    p = parameter
    if p.choices:
        listed = ", ".join(map(str, p.labels))
        return "" if label(value) in p.labels else f"is not one of its choices: {listed}"
    if not p.low <= value <= p.high:
        return f"is outside of its range, {p.low} to {p.high}"
    steps = (value - p.low) / p.step if p.step else 0.0
    return "" if abs(steps - round(steps)) < 1e-8 else f"is not on its grid: {p.low} + n * {p.step}"
