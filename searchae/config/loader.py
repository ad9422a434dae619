"""A study file, read and checked: TOML -> frozen ``StudySpec``, with all faults at once.

The order of precedence is command line, environment, file, default; it is resolved here, once.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from searchae.config.initial_trials import InitialTrials
from searchae.config.schema import (
    NOT_SEARCHABLE,
    SEARCHABLE,
    SECTIONS,
    SOURCES_WITHOUT_PATH,
    DataSpec,
    Layer,
    Parameter,
    SearchSpec,
    Section,
    Source,
    StudySpec,
    jsonable,
    label,
    refuse_flag,
)
from searchae.errors import SpecError, nearest


def load_study_file(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    changes: Mapping[str, Any] | None = None,
) -> StudySpec:
    """Reads a study file.

    Args:
        path: The TOML file.
        overrides: ``section.key=value`` texts, values in TOML or bare words.
        environment: ``SEARCHAE_SECTION__KEY`` variables stand between overrides and file.
        changes: Key -> value, above everything else (the command line's own options).

    Raises:
        SpecError: The file cannot be read, is no TOML, or has faults; all are listed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise SpecError(f"{path}: cannot be read: {e}") from e
    except tomllib.TOMLDecodeError as e:
        raise SpecError(f"{path}: not valid TOML: {e}") from e
    origins: dict[str, str] = {}
    for key, value in _from_environment(environment).items():
        origins[key] = f"environment, SEARCHAE_{key.replace('.', '__').upper()}"
        _put(document, key, value, origin=origins[key])
    for text in overrides:
        key, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not key:
            raise SpecError(f"--set {text}: write it as section.key=value")
        origins[key] = f"--set {text}"
        _put(document, key, _toml_value(value), origin=origins[key])
    for key, value in (changes or {}).items():
        origins[key] = "command line"
        _put(document, key, value, origin=origins[key])
    return spec_from_document(document, source=str(path), origins=origins)


def spec_from_document(
    document: Mapping[str, Any], *, source: str, origins: Mapping[str, str] | None = None
) -> StudySpec:
    """Checks a parsed study file.

    Args:
        document: As ``tomllib`` or ``json`` returns it.
        source: Named in each error.
        origins: Key -> what is named instead, for values that came from elsewhere.

    Raises:
        SpecError: With every fault, a line each.
    """
    reader = _Reader()
    spec = reader.read(document)
    if spec is None:
        lines = (f"{_origin(fault, origins or {}, source)}: {fault}" for fault in reader.faults)
        raise SpecError("\n".join(lines))
    return spec


def _origin(fault: str, origins: Mapping[str, str], source: str) -> str:
    """Where the value came from that a fault, ``key: message``, is about."""
    at = fault.partition(": ")[0]
    for key, origin in origins.items():
        # A key's own parts, or the table that a wrong override made.
        if at == key or at.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{at}."):
            return origin
    return source


class _Reader:
    """Reads one document and collects its faults."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def read(self, document: Mapping[str, Any]) -> StudySpec | None:
        known = {"description", "seed", *SECTIONS}
        self._reject_unknown(document, known, prefix="")
        description, seed = document.get("description", ""), document.get("seed", 0)
        if not isinstance(description, str):
            self._fault("description", f"must be a text, not {description!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            self._fault("seed", f"must be a whole number from 0 to {2**31 - 1}, not {seed!r}")
        if "data" not in document:
            self._fault("data", 'missing: add [data] with name = "house-numbers", say')
        sections = {name: self._section(document, name) for name in SECTIONS}
        space = [p for name in SEARCHABLE for p in self._ranges(name, sections[name])]
        parsed = {name: self._parse(name, sections[name]) for name in SECTIONS}
        if self.faults:
            return None
        self._check_names(parsed, space)
        if self.faults:
            return None
        data, search = parsed["data"], parsed["search"]
        assert isinstance(data, DataSpec) and isinstance(search, SearchSpec)  # noqa: PT018
        searched = {p.key for p in space}
        fixed = {
            name: {
                k: v
                for k, v in parsed[name].model_dump().items()  # type: ignore[union-attr]
                if f"{name}.{k}" not in searched
            }
            for name in SEARCHABLE
        }
        first = InitialTrials(space, fixed, adapt=self._adapted, fault=self._fault)
        search = search.model_copy(update={"first": first.checked(search.first)})
        if self.faults:
            return None
        return StudySpec(description, seed, data, search, fixed, tuple(space))

    def _fault(self, key: str, message: str) -> None:
        self.faults.append(f"{key}: {message}")

    def _reject_unknown(self, table: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
        known = set(known)
        for key in table:
            if key not in known:
                owners = [f"{s}.{key}" for s, c in SECTIONS.items() if key in c.model_fields]
                meant = f"did you mean {' or '.join(owners)}?" if owners and not prefix else ""
                self._fault(f"{prefix}{key}", f"unknown key; {meant or nearest(key, known)}")

    def _section(self, document: Mapping[str, Any], name: str) -> dict[str, Any]:
        table = document.get(name, {})
        if not isinstance(table, Mapping):
            self._fault(name, f"must be a table, not {table!r}")
            return {}
        fields = SECTIONS[name].model_fields
        self._reject_unknown(table, fields, prefix=f"{name}.")
        return {k: v for k, v in table.items() if k in fields}

    def _ranges(self, name: str, section: dict[str, Any]) -> list[Parameter]:
        """Takes the ranges out of a section; a value that stands for each stays behind."""
        found = []
        for key in [k for k, v in section.items() if isinstance(v, Mapping)]:
            parameter = self._parameter(f"{name}.{key}", section.pop(key), SECTIONS[name], key)
            if parameter is not None:
                found.append(parameter)
        return found

    def _parameter(
        self, key: str, entry: Mapping[str, Any], section: type[Section], field: str
    ) -> Parameter | None:
        before = len(self.faults)
        if key in NOT_SEARCHABLE:
            self._fault(key, f"cannot be searched: {NOT_SEARCHABLE[key]}")
            return None
        adapter = _adapter(section, field)
        if "choices" in entry:
            self._reject_unknown(entry, {"choices"}, prefix=f"{key}.")
            choices = self._choices(key, entry["choices"], adapter)
            return Parameter(key, choices=choices) if len(self.faults) == before else None
        self._reject_unknown(entry, {"low", "high", "log", "step", "choices"}, prefix=f"{key}.")
        parameter = self._range(key, entry, adapter)
        return parameter if len(self.faults) == before else None

    def _choices(self, key: str, values: Any, adapter: TypeAdapter[Any]) -> tuple[Any, ...]:
        if not isinstance(values, list) or not values:
            self._fault(f"{key}.choices", "needs at least one value in a list")
            return ()
        checked = tuple(
            jsonable(self._value(f"{key}.choices[{i}]", v, adapter)) for i, v in enumerate(values)
        )
        for i, value in enumerate(checked):
            if label(value) in [label(v) for v in checked[:i]]:
                self._fault(f"{key}.choices[{i}]", f"{values[i]!r} is listed twice")
        return checked

    def _range(self, key: str, entry: Mapping[str, Any], adapter: TypeAdapter[Any]) -> Parameter:
        bounds = {}
        for end in ("low", "high"):
            if end not in entry:
                self._fault(key, f"a range needs low and high, or choices; {end} is missing")
            elif isinstance(entry[end], bool) or not isinstance(entry[end], int | float):
                self._fault(f"{key}.{end}", f"must be a number, not {entry[end]!r}")
            else:
                bounds[end] = self._value(f"{key}.{end}", entry[end], adapter)
        numeric = all(isinstance(v, int | float) for v in bounds.values())
        log, step = entry.get("log", False), entry.get("step")
        if not isinstance(log, bool):
            self._fault(f"{key}.log", f"must be true or false, not {log!r}")
        if step is not None and (
            isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf
        ):
            self._fault(f"{key}.step", f"must be a positive number, not {step!r}")
            step = None
        if len(bounds) < 2 or not numeric:
            if len(bounds) == 2:
                self._fault(key, "takes no low and high; use choices")
            return Parameter(key)
        low, high = bounds["low"], bounds["high"]
        if low >= high:
            self._fault(key, f"low = {low} must be below high = {high}")
        if log is True and low <= 0:
            self._fault(key, f"log needs low above 0, not {low}")
        if log is True and step is not None:
            self._fault(key, "log and step exclude each other")
        integer = isinstance(low, int) and isinstance(high, int)
        if integer and step is not None and step != int(step):
            self._fault(f"{key}.step", f"must be a whole number, not {step}")
        return Parameter(key, low=low, high=high, log=bool(log), step=step, integer=integer)

    def _adapted(self, key: str, value: Any, parameter: Parameter) -> Any:
        """A value as a searched parameter's field has it; None where it cannot be one."""
        before, (section, _, field) = len(self.faults), parameter.key.partition(".")
        adapted = jsonable(self._value(key, value, _adapter(SECTIONS[section], field)))
        return adapted if len(self.faults) == before else None

    def _value(self, key: str, value: Any, adapter: TypeAdapter[Any]) -> Any:
        try:
            return adapter.validate_python(value, strict=False)
        except ValidationError as e:
            self._explain(key, e)
            return value

    def _parse(self, name: str, section: Mapping[str, Any]) -> Section | None:
        try:
            return SECTIONS[name](**section)
        except ValidationError as e:
            self._explain(name, e)
            return None

    def _explain(self, prefix: str, error: ValidationError) -> None:
        for fault in error.errors():
            if fault["type"] == "too_short" and len(error.errors()) > 1:
                continue  # what is wrong inside the list has been said
            if fault["type"] == "default_factory_not_called":
                continue  # what the default hangs on is wrong, and has been said
            inner = [str(p) for p in fault["loc"] if not str(p).startswith(("function", "tuple["))]
            self._fault(".".join([prefix, *inner]), _explanation(dict(fault)))

    def _check_names(self, parsed: Mapping[str, Any], space: Sequence[Parameter]) -> None:
        data, model = parsed["data"], parsed["model"]
        if data.name not in SOURCES_WITHOUT_PATH and data.path is None:
            self._fault("data.path", f"missing: a {data.name} source needs the file or folder")
        searched = {p.key for p in space}
        given = {
            side: getattr(model, side) is not None or f"model.{side}" in searched
            for side in ("encoder", "decoder")
        }
        if given["encoder"] != given["decoder"]:
            missing = "decoder" if given["encoder"] else "encoder"
            self._fault(f"model.{missing}", "missing: explicit layers need encoder and decoder")
        search, train = parsed["search"], parsed["train"]
        if search.min_epochs > train.epochs:
            self._fault(
                "search.min_epochs", f"{search.min_epochs} exceeds train.epochs = {train.epochs}"
            )
        start = train.noise_from_epoch
        ends = [p.choices or (p.high,) for p in space if p.key == "train.noise_from_epoch"]
        latest = max(ends[0]) if ends else start
        if latest > train.epochs:
            self._fault(
                "train.noise_from_epoch",
                f"{latest} exceeds train.epochs = {train.epochs}: no epoch would have noise",
            )
        if search.grace_s < 2 * search.heartbeat_s:
            self._fault(
                "search.grace_s",
                f"{search.grace_s} must be at least twice heartbeat_s = {search.heartbeat_s}",
            )


def _adapter(section: type[Section], field: str) -> TypeAdapter[Any]:
    declared = section.model_fields[field].annotation
    annotation = section.model_fields[field].rebuild_annotation()
    # A field's annotation alone does not know its section's configuration.
    checked: Any = Annotated[annotation, BeforeValidator(lambda v: refuse_flag(v, declared))]
    return TypeAdapter(checked, config=ConfigDict(allow_inf_nan=False))


def _explanation(fault: Mapping[str, Any]) -> str:
    """One pydantic fault in words, with the value in it and the nearest valid name."""
    value = fault["input"]
    if fault["type"] == "literal_error":
        valid = [v.strip().strip("'") for v in _literals(fault["ctx"]["expected"])]
        return f"{value!r} is not known; {nearest(str(value), valid)}"
    if fault["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(fault['loc'][-1]), Layer.model_fields)}"
    if fault["type"] == "missing":
        name_of_data = fault["loc"] == ("name",)
        return f"missing; one of {', '.join(get_args(Source))}" if name_of_data else "missing"
    plain = {"bool_parsing": "true or false", "tuple_type": "a list", "dict_type": "a table"}
    if fault["type"] in plain:
        return f"must be {plain[fault['type']]}, not {value!r}"
    message = str(fault["msg"])
    return f"{message[0].lower()}{message[1:]}, not {value!r}"


def _literals(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _put(document: dict[str, Any], key: str, value: Any, *, origin: str) -> None:
    parts = key.split(".")
    table: Any = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SpecError(f"{origin}: {key}: {part} is a value, not a table")
    table[parts[-1]] = value


def _toml_value(text: str) -> Any:
    """A TOML value; a bare word is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for name, text in environment.items():
        prefix, _, rest = name.partition("_")
        section, separator, key = rest.partition("__")
        if prefix == "SEARCHAE" and separator and section.lower() in SECTIONS:
            found[f"{section.lower()}.{key.lower()}"] = _toml_value(text)
    return found
