"""Loads study files: TOML with overrides, checked, as a ``StudySpec``.

The order of precedence is command line, environment, file, default.
"""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from searchae.config import net_factory
from searchae.config.schema import SECTIONS
from searchae.config.study_file_errors import Faults
from searchae.config.study_spec import StudySpec
from searchae.config.toml_file import read_toml
from searchae.config.validation import validated_spec
from searchae.errors import SpecError


def load_study_file(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    changes: Mapping[str, Any] | None = None,
) -> StudySpec:
    """Loads a study file.

    Args:
        path: The TOML file.
        overrides: Texts ``section.key=value`` (``--set``), with values in TOML or bare words; they
            take precedence over the environment. Without a value the key has its default.
        environment: Environment variables, of which ``SEARCHAE_SECTION__KEY`` take precedence over
            the file.
        changes: Key -> value of the command line's other options, which take precedence over all.

    Raises:
        SpecError: The file cannot be read, is not TOML, or has faults, which are all listed.
    """
    return load_study_tables(
        read_toml(path),
        source=str(path),
        folder=path.parent,
        overrides=overrides,
        environment=environment,
        changes=changes,
    )


def load_study_tables(
    tables: Mapping[str, Any],
    *,
    source: str,
    folder: Path,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    changes: Mapping[str, Any] | None = None,
) -> StudySpec:
    """Checks the tables of a study file, with overrides.

    Args:
        tables: Section -> key -> value, as ``tomllib`` returns them; they are not changed.
        source: Where they come from; errors begin with it.
        folder: Where the file of a net of one's own is looked for first.
        overrides: See ``load_study_file``.
        environment: See ``load_study_file``.
        changes: See ``load_study_file``.

    Raises:
        SpecError: They have faults, which are all listed.
    """
    document = copy.deepcopy(dict(tables))
    origins: dict[str, str] = {}
    for key, value in _from_environment(environment).items():
        origins[key] = f"environment, SEARCHAE_{key.replace('.', '__').upper()}"
        _set(document, key, value, origin=origins[key])
    origins |= apply_overrides(document, overrides)
    for key, value in (changes or {}).items():
        origins[key] = "command line"
        _set(document, key, value, origin=origins[key])
    _add_hash_of_net(document, folder, source=source)
    return spec_from_document(document, source=source, origins=origins)


def load_data_set(
    name: str, *, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> StudySpec:
    """Returns a study of a data set that needs no path, with defaults for everything else.

    Args:
        name: The data set's name.
        overrides: See ``load_study_file``.
        environment: See ``load_study_file``.

    Raises:
        SpecError: The overrides have faults, which are all listed.
    """
    return load_study_tables(
        {"data": {"name": name}},
        source=name,
        folder=Path(),
        overrides=overrides,
        environment=environment,
    )


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Sets the values of ``--set`` in a document, in place.

    Args:
        document: The parsed study file.
        overrides: See ``load_study_file``.

    Returns:
        Key -> where its value comes from, for ``spec_from_document``.

    Raises:
        SpecError: An override is not of the form ``section.key=value``.
    """
    origins = {}
    for text in overrides:
        key, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not key:
            raise SpecError(f"--set {text}: write it as section.key=value")
        origins[key] = f"--set {text}"
        if value or not _take_out(document, key):
            _set(document, key, _toml_value(value), origin=origins[key])
    return origins


def _add_hash_of_net(document: dict[str, Any], folder: Path, *, source: str) -> None:
    """Adds the SHA-256 of the file that builds a net of one's own, unless the study file has it."""
    model = document.get("model")
    if isinstance(model, dict) and isinstance(model.get("factory"), str):
        found = net_factory.find_factory(model["factory"], [folder]).sha256
        wanted = model["factory_sha256"] = model.get("factory_sha256") or found
        if wanted != found:
            raise SpecError(
                f"{source}: model.factory_sha256: is {wanted!r}, but {model['factory']} has {found}"
            )


def spec_from_document(
    document: Mapping[str, Any], *, source: str, origins: Mapping[str, str] | None = None
) -> StudySpec:
    """Checks a parsed study file.

    Args:
        document: What ``tomllib`` or ``json`` returned.
        source: Where it comes from; each error begins with it.
        origins: Key -> where its value comes from, if not from ``source``.

    Raises:
        SpecError: The document has faults; all are listed, one on each line.
    """
    faults = Faults()
    spec = validated_spec(document, faults)
    if spec is None:
        lines = (f"{_origin(fault, origins or {}, source)}: {fault}" for fault in faults.lines)
        raise SpecError(*lines)
    return spec


def _origin(fault: str, origins: Mapping[str, str], source: str) -> str:
    """Returns where the value came from that a fault, ``key: message``, is about."""
    at = fault.partition(": ")[0]
    for key, origin in origins.items():
        # The key, a part of its value, or a table that an override of it created.
        if at == key or at.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{at}."):
            return origin
    return source


def _set(document: dict[str, Any], key: str, value: Any, *, origin: str) -> None:
    """Sets ``section.key`` in a document, in place, and creates tables as needed."""
    parts = key.split(".")
    table: Any = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SpecError(f"{origin}: {key}: {part} is a value, not a table")
    table[parts[-1]] = value


def _take_out(document: dict[str, Any], key: str) -> bool:
    """Takes ``section.key`` out of a document, in place; returns whether there is such a key."""
    *parts, name = key.split(".")
    table: Any = document
    for part in parts:
        table = table.get(part) if isinstance(table, dict) else None
    if isinstance(table, dict) and name in table:
        del table[name]
        return True
    return len(parts) == 1 and parts[0] in SECTIONS and name in SECTIONS[parts[0]].model_fields


def _toml_value(text: str) -> Any:
    """Parses a TOML value; returns the text itself if it is none, such as a bare word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # ValueError: not TOML, or a number of too many digits
        return text


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns ``section.key`` -> value of the variables ``SEARCHAE_SECTION__KEY``."""
    found = {}
    for name, text in environment.items():
        prefix, _, rest = name.partition("_")
        section, separator, key = rest.partition("__")
        if prefix == "SEARCHAE" and separator and section.lower() in SECTIONS:
            found[f"{section.lower()}.{key.lower().replace('__', '.')}"] = _toml_value(text)
    return found
