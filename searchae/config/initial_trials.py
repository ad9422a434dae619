"""``[[search.first]]``: the trials that a search begins with, checked against its space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from searchae.config.schema import CONDITIONS, Parameter, label
from searchae.errors import nearest

Adapt = Callable[[str, Any, Parameter], Any]
"""Brings a value to its field's type; told where it stands. None: that is a fault, and told."""


class InitialTrials:
    """Checks trials that are given, and collects their faults.

    Args:
        space: The searched parameters.
        fixed: Section -> key -> value of what is not searched.
        adapt: See ``Adapt``.
        fault: Called with the key and what is wrong with it.
    """

    def __init__(
        self,
        space: Sequence[Parameter],
        fixed: Mapping[str, Mapping[str, Any]],
        *,
        adapt: Adapt,
        fault: Callable[[str, str], None],
    ) -> None:
        self._space = {p.name: p for p in space}
        self._fixed = {k: v for section in fixed.values() for k, v in section.items()}
        self._adapt, self._fault = adapt, fault

    def checked(self, entries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
        """The same with every value of its field's type, in the order of the space.

        A parameter that is not searched, since ``--set`` fixes it, say, may be named with the
        value that it has; it is left out of what is returned.
        """
        return tuple(self._entry(f"search.first[{i}]", e) for i, e in enumerate(entries))

    def _entry(self, where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in entry.items():
            if name in self._space:
                found[name] = self._value(f"{where}.{name}", value, self._space[name])
            elif name not in self._fixed:
                self._fault(f"{where}.{name}", f"unknown parameter; {nearest(name, self._space)}")
            elif value != self._fixed[name]:
                self._fault(
                    f"{where}.{name}",
                    f"is {value!r}, but {name} is not searched and is {self._fixed[name]!r}; "
                    "give that, or leave it out (--set search.first=[] drops all of them)",
                )
        for name in [n for n in found if not self._is_sampled(n, found)]:
            parent = CONDITIONS[self._space[name].key][0].rpartition(".")[2]
            at = found.get(parent, self._fixed.get(parent))
            self._fault(f"{where}.{name}", f"is not sampled under {parent} = {at!r}; leave it out")
        return {name: found[name] for name in self._space if name in found}

    def _value(self, key: str, value: Any, parameter: Parameter) -> Any:
        if isinstance(value, bool) and not parameter.choices:
            self._fault(key, f"must be a number, not {value!r}")
            return value
        adapted = self._adapt(key, value, parameter)
        wrong = None if adapted is None else _outside(parameter, adapted)
        if wrong:
            self._fault(key, f"{value!r} {wrong}")
        return adapted

    def _is_sampled(self, name: str, found: Mapping[str, Any]) -> bool:
        """False only where the entry itself, or a fixed value, rules the parameter out."""
        condition = CONDITIONS.get(self._space[name].key)
        if condition is None:
            return True
        parent, wanted = condition[0].rpartition(".")[2], condition[1]
        return found.get(parent, self._fixed.get(parent, next(iter(wanted)))) in wanted


def _outside(parameter: Parameter, value: Any) -> str:
    """Why a searched parameter cannot take a value; empty if it can."""
    p = parameter
    if p.choices:
        listed = ", ".join(map(str, p.labels))
        return "" if label(value) in p.labels else f"is not one of its choices: {listed}"
    if not p.low <= value <= p.high:
        return f"is outside of its range, {p.low} to {p.high}"
    steps = (value - p.low) / p.step if p.step else 0.0
    return "" if abs(steps - round(steps)) < 1e-8 else f"is not on its grid: {p.low} + n * {p.step}"
