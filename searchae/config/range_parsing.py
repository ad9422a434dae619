"""Reads searched parameters: the ranges and choices in a study file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from searchae.config.parameters import Parameter, label
from searchae.config.schema import ARGUMENT, NOT_SEARCHABLE, SECTIONS, check_argument
from searchae.config.section import jsonable, refuse_flag
from searchae.config.study_file_errors import Faults

MOST_CHOICES = 1000
"""Values in a list of choices: far more than a search can tell apart."""


class RangeReader:
    """Reads ranges and choices, and collects what is wrong with them.

    Args:
        faults: Where faults are added.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def read(self, key: str, entry: Mapping[str, Any]) -> Parameter | None:
        """Reads one range or list of choices.

        Args:
            key: Its key, such as ``train.learning_rate``.
            entry: The table of ``low``, ``high``, ``log`` and ``step``, or of ``choices``.

        Returns:
            The parameter; None if there is a fault in it.
        """
        before = len(self._faults)
        if key in NOT_SEARCHABLE:
            self._faults.add(key, f"cannot be searched: {NOT_SEARCHABLE[key]}")
            return None
        adapter = _field_adapter(key)
        if "choices" in entry:
            self._faults.add_unknown(entry, {"choices"}, prefix=f"{key}.")
            parameter = Parameter(key, choices=self._choices(key, entry["choices"], adapter))
        else:
            known = {"low", "high", "log", "step", "choices"}
            self._faults.add_unknown(entry, known, prefix=f"{key}.")
            parameter = self._range(key, entry, adapter)
        return parameter if len(self._faults) == before else None

    def convert(self, key: str, value: Any, parameter: Parameter) -> Any:
        """Converts a value to the type of a searched parameter's field.

        Args:
            key: Where the value is, for the fault.
            value: The value.
            parameter: The parameter that it is for.

        Returns:
            The value, as JSON has it; None if it cannot be converted, which adds a fault.
        """
        before = len(self._faults)
        converted = jsonable(self._validated(key, value, _field_adapter(parameter.key)))
        return converted if len(self._faults) == before else None

    def _choices(self, key: str, values: Any, adapter: TypeAdapter[Any]) -> tuple[Any, ...]:
        if not isinstance(values, list) or not values:
            self._faults.add(f"{key}.choices", "needs at least one value in a list")
            return ()
        if len(values) > MOST_CHOICES:
            self._faults.add(
                f"{key}.choices", f"has {len(values):,} values; at most {MOST_CHOICES}"
            )
            return ()
        checked = tuple(
            jsonable(self._validated(f"{key}.choices[{i}]", v, adapter))
            for i, v in enumerate(values)
        )
        labels = [label(v) for v in checked]
        for i, value in enumerate(labels):
            if labels.index(value) < i:
                self._faults.add(f"{key}.choices[{i}]", f"{values[i]!r} is listed twice")
        return checked

    def _range(self, key: str, entry: Mapping[str, Any], adapter: TypeAdapter[Any]) -> Parameter:
        """Reads a range; what it returns is of no use if that adds a fault."""
        bounds = self._bounds(key, entry, adapter)
        log, step = self._log(key, entry), self._step(key, entry)
        if len(bounds) < 2:
            return Parameter(key)
        if not all(isinstance(value, int | float) for value in bounds):
            self._faults.add(key, "takes no low and high; use choices")
            return Parameter(key)
        low, high = bounds
        if low >= high:
            self._faults.add(key, f"low = {low} must be below high = {high}")
        if log and low <= 0:
            self._faults.add(key, f"log needs low above 0, not {low}")
        if log and step is not None:
            self._faults.add(key, "log and step exclude each other")
        integer = isinstance(low, int) and isinstance(high, int)
        if integer and step is not None and step != int(step):
            self._faults.add(f"{key}.step", f"must be a whole number, not {step}")
        return Parameter(key, low=low, high=high, log=log, step=step, integer=integer)

    def _bounds(self, key: str, entry: Mapping[str, Any], adapter: TypeAdapter[Any]) -> list[Any]:
        """Returns low and high; fewer if one is missing or is not a number."""
        found: list[Any] = []
        for end in ("low", "high"):
            if end not in entry:
                self._faults.add(key, f"a range needs low and high, or choices; {end} is missing")
            elif not _is_number(entry[end]):
                self._faults.add(f"{key}.{end}", f"must be a number, not {entry[end]!r}")
            else:
                found.append(self._validated(f"{key}.{end}", entry[end], adapter))
        return found

    def _log(self, key: str, entry: Mapping[str, Any]) -> bool:
        log = entry.get("log", False)
        if not isinstance(log, bool):
            self._faults.add(f"{key}.log", f"must be true or false, not {log!r}")
        return log is True

    def _step(self, key: str, entry: Mapping[str, Any]) -> float | None:
        step: float | None = entry.get("step")
        if step is None:
            return None
        if not _is_number(step) or not 0 < step < math.inf:
            self._faults.add(f"{key}.step", f"must be a positive number, not {step!r}")
            return None
        return step

    def _validated(self, key: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
        try:
            return adapter.validate_python(value, strict=False)
        except ValidationError as e:
            self._faults.add_validation_error(key, e)
            return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _field_adapter(key: str) -> TypeAdapter[Any]:
    """Returns what validates a value of one field as its section would."""
    if key.startswith(ARGUMENT):
        return TypeAdapter(
            Annotated[Any, BeforeValidator(check_argument)], config=ConfigDict(allow_inf_nan=False)
        )
    section, _, name = key.partition(".")
    field = SECTIONS[section].model_fields[name]
    declared = field.annotation
    # The annotation alone does not include the section's configuration and validator.
    checked: Any = Annotated[
        field.rebuild_annotation(), BeforeValidator(lambda v: refuse_flag(v, declared))
    ]
    return TypeAdapter(checked, config=ConfigDict(allow_inf_nan=False))
