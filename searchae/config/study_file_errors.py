"""The list of everything that is wrong with a study file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from searchae.config.data_spec import Source
from searchae.config.schema import SEARCHABLE, SECTIONS, Layer
from searchae.errors import nearest
from searchae.formatting import format_count

_TYPES = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(
        ("int_parsing", "int_parsing_size", "int_type", "int_from_float"), "a whole number"
    ),
    "finite_number": "a finite number",
    "string_type": "a text in quotes",
    "string_pattern_mismatch": "a SHA-256, which is 64 hexadecimal digits in lower case",
}
"""Pydantic's error types for a value of the wrong type -> the type in a user's words."""

_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
"""Pydantic's error types for a number out of bounds -> its name of the bound, and ours."""

_LISTS = {
    "channels": "[16, 32]",
    "hidden": "[128, 64]",
    "objectives": '["psnr", "sparsity"]',
    "first": "[{ learning_rate = 1e-3 }]",
    "encoder": "[{ channels = 16, stride = 2 }]",
    "decoder": "[{ channels = 3, stride = 2 }]",
}
"""Keys whose value is a list -> a list as it is written."""

LONGEST_SHOWN = 200
"""Characters of a value that a message repeats."""


class Faults:
    """Collects faults, so that a user sees all of them at once.

    Attributes:
        lines: The faults so far, each as ``key: message``.
    """

    lines: list[str]

    def __init__(self) -> None:
        self.lines = []

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, key: str, message: str) -> None:
        """Adds a fault.

        Args:
            key: Where it is, such as ``train.learning_rate.low``.
            message: What is wrong.
        """
        self.lines.append(f"{key}: {message}")

    def add_unknown(self, table: Mapping[str, Any], known: Iterable[str], *, prefix: str) -> None:
        """Adds a fault for each key of a table that is not known.

        Args:
            table: The table.
            known: The keys that it may have.
            prefix: What comes before the table's keys, such as ``train.``; empty at the top.
        """
        known = set(known)
        for key in table:
            if key not in known:
                owners = [f"{s}.{key}" for s, c in SECTIONS.items() if key in c.model_fields]
                meant = f"did you mean {' or '.join(owners)}?" if owners else ""
                self.add(f"{prefix}{key}", f"unknown key; {meant or nearest(key, known)}")

    def add_validation_error(self, key: str, error: ValidationError) -> None:
        """Adds the faults that pydantic found.

        Args:
            key: The key of the validated value.
            error: Pydantic's error.
        """
        for fault in error.errors():
            if fault["type"] == "too_short" and len(error.errors()) > 1:
                continue  # a consequence of another fault inside the list
            if fault["type"] == "default_factory_not_called":
                continue  # a consequence of a fault in the key that the default depends on
            inner = [str(p) for p in fault["loc"] if not str(p).startswith(("function", "tuple["))]
            where = ".".join([key, *inner])
            is_length = fault["type"] in ("too_short", "too_long")
            hint = "" if is_length else _list_explanation(where, fault["input"])
            self.add(where, hint or explain_fault(dict(fault), where))


def _list_explanation(where: str, value: Any) -> str:
    """Returns what to write instead of a list at a key of one value; empty if it is no such case.

    Args:
        where: Such as ``model.latent_dim``, or ``model.channels.0`` for lists in a list.
        value: What stands there.
    """
    if not isinstance(value, list):
        return ""
    section, _, rest = where.partition(".")
    key, _, index = rest.partition(".")
    if section not in SEARCHABLE or key not in SECTIONS[section].model_fields:
        return ""
    shown = "[...]" if index else _toml_list(value)
    return f"to search several values, write {key} = {{ choices = {shown} }}"


def _toml_list(values: list[Any]) -> str:
    try:
        text = json.dumps(values)  # the same in TOML for numbers, texts, flags and lists
    except TypeError:  # a date
        return "[...]"
    return text if len(text) <= LONGEST_SHOWN else "[...]"


def explain_fault(fault: Mapping[str, Any], where: str) -> str:
    """Returns one of pydantic's faults as a message with the value and the nearest valid name.

    Args:
        fault: One of ``ValidationError.errors()``.
        where: The key with the fault.
    """
    value = fault["input"]
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    if len(shown) > LONGEST_SHOWN:
        shown = f"{shown[:LONGEST_SHOWN]}..."
    if fault["type"] == "literal_error":
        return _not_among(fault, where, shown)
    if fault["type"] == "extra_forbidden":
        is_layer = any(part in ("encoder", "decoder") for part in where.split("."))
        if not is_layer:  # of a bundle; those of a study file are found before
            return "unknown key"
        return f"unknown key; {nearest(str(fault['loc'][-1]), Layer.model_fields)}"
    if fault["type"] == "missing":
        is_source = fault["loc"] == ("name",)
        return f"missing; one of {', '.join(get_args(Source))}" if is_source else "missing"
    if fault["type"] == "tuple_type":
        example = _LISTS.get(where.rpartition(".")[2])
        return f"must be a list{f' such as {example}' if example else ''}, not {shown}"
    if fault["type"] in _TYPES:
        return f"must be {_TYPES[fault['type']]}, not {shown}"
    if fault["type"] == "too_long":
        return f"has {fault['ctx']['actual_length']:,} values; at most {fault['ctx']['max_length']}"
    if limit := _limit(fault):
        return f"{limit}, not {shown}"
    message = str(fault["msg"])
    return f"{message[0].lower()}{message[1:]}, not {shown}"


def _not_among(fault: Mapping[str, Any], where: str, shown: str) -> str:
    """Returns what to write instead of a value that is none of a few."""
    value = fault["input"]
    if where == "data.bits":
        hint = ""
        if isinstance(value, int) and 8 < value < 16:  # the valid ones
            hint = f"; of {value} bits in files of 16, write bits = 16 and white = {2**value - 1}"
        return f"must be 8 or 16, not {shown}{hint}"
    expected = fault["ctx"]["expected"].replace(" or ", ", ").split(", ")
    valid = [name.strip("'") for name in expected]
    return f"{shown} is not known; {nearest(str(value)[:LONGEST_SHOWN], valid)}"


def _limit(fault: Mapping[str, Any]) -> str:
    """Returns the limit that a number or the length of a list does not keep; empty if none."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _BOUNDS:
        name, word = _BOUNDS[kind]
        bound = context[name]
        return f"must be {word} {int(bound) if bound == int(bound) else bound}"
    if kind == "too_short":
        return f"must have at least {format_count(context['min_length'], 'value')}"
    return ""
