"""Validates a parsed study file as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from searchae.config.data_spec import SOURCES_WITHOUT_PATH, DataSpec
from searchae.config.initial_trials import InitialTrials
from searchae.config.parameters import Parameter
from searchae.config.range_parsing import RangeReader
from searchae.config.schema import (
    ARGUMENT,
    PYTHON_KEYS,
    SEARCHABLE,
    SECTIONS,
    ModelParams,
    TrainParams,
)
from searchae.config.search_spec import SearchSpec
from searchae.config.section import Section
from searchae.config.study_file_errors import Faults
from searchae.config.study_spec import StudySpec


def validated_spec(document: Mapping[str, Any], faults: Faults) -> StudySpec | None:
    """Validates a study file.

    Args:
        document: The parsed file.
        faults: Where all faults are added.

    Returns:
        The study; None if there are faults.
    """
    return _Validator(faults).spec(document)


class _Validator:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._ranges = RangeReader(faults)

    def spec(self, document: Mapping[str, Any]) -> StudySpec | None:
        self._check_top_level(document)
        tables = {name: self._section(document, name) for name in SECTIONS}
        space = [p for name in SEARCHABLE for p in self._take_ranges(name, tables[name])]
        sections = {name: self._parse(name, tables[name]) for name in SECTIONS}
        if self._faults:
            return None
        data, model = sections["data"], sections["model"]
        train, search = sections["train"], sections["search"]
        assert isinstance(data, DataSpec)
        assert isinstance(model, ModelParams)
        assert isinstance(train, TrainParams)
        assert isinstance(search, SearchSpec)
        self._check_model_and_data(data, model, space)
        self._check_own_net(model, space, given=document.get("model", {}))
        self._check_epochs(train, search, space)
        self._check_optimizer(train, space)
        self._check_schedule(train, space)
        self._check_loss(model, train, space)
        self._check_regularizer(model, train, space)
        self._check_lease(search)
        self._check_objectives(search)
        if self._faults:
            return None
        fixed = _fixed({"model": model, "train": train}, space)
        trials = InitialTrials(space, fixed, convert=self._ranges.convert, faults=self._faults)
        search = search.model_copy(update={"first": trials.checked(search.first)})
        if self._faults:
            return None
        description, seed = document.get("description", ""), document.get("seed", 0)
        return StudySpec(description, seed, data, search, fixed, tuple(space))

    def _check_top_level(self, document: Mapping[str, Any]) -> None:
        self._faults.add_unknown(document, {"description", "seed", *SECTIONS}, prefix="")
        description, seed = document.get("description", ""), document.get("seed", 0)
        if not isinstance(description, str):
            self._faults.add("description", f"must be a text, not {description!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            self._faults.add("seed", f"must be a whole number from 0 to {2**31 - 1}, not {seed!r}")
        if "data" not in document:
            self._faults.add("data", 'missing: add [data] with name = "house-numbers", say')

    def _section(self, document: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Returns a section's table without unknown keys."""
        table = document.get(name, {})
        if not isinstance(table, Mapping):
            self._faults.add(name, f"must be a table, not {table!r}")
            return {}
        fields = SECTIONS[name].model_fields
        self._faults.add_unknown(table, fields, prefix=f"{name}.")
        return {k: v for k, v in table.items() if k in fields}

    def _take_ranges(self, name: str, section: dict[str, Any]) -> list[Parameter]:
        """Removes the ranges and choices from a section and returns them."""
        found = []
        if name == "model" and isinstance(args := section.get("args"), Mapping):
            section["args"] = args = dict(args)
            found += self._take_tables(ARGUMENT, args, without=())
        return found + self._take_tables(f"{name}.", section, without=("args",))

    def _take_tables(
        self, prefix: str, table: dict[str, Any], *, without: Sequence[str]
    ) -> list[Parameter]:
        read = [
            self._ranges.read(f"{prefix}{key}", table.pop(key))
            for key in [k for k, v in table.items() if isinstance(v, Mapping) and k not in without]
        ]
        return [parameter for parameter in read if parameter is not None]

    def _parse(self, name: str, section: Mapping[str, Any]) -> Section | None:
        try:
            return SECTIONS[name](**section)
        except ValidationError as e:
            self._faults.add_validation_error(name, e)
            return None

    def _check_model_and_data(
        self, data: DataSpec, model: ModelParams, space: Sequence[Parameter]
    ) -> None:
        if data.name not in SOURCES_WITHOUT_PATH and data.path is None:
            what = 'folder: path = "photos"'
            if data.name != "folder":
                what = f'file: path = "images.{data.name}"'
            self._faults.add("data.path", f"missing: a {data.name} source needs the {what}")
        searched = {p.key for p in space}
        given = {
            side: getattr(model, side) is not None or f"model.{side}" in searched
            for side in ("encoder", "decoder")
        }
        if given["encoder"] != given["decoder"]:
            missing = "decoder" if given["encoder"] else "encoder"
            self._faults.add(
                f"model.{missing}", "missing: explicit layers need encoder and decoder"
            )

    def _check_epochs(
        self, train: TrainParams, search: SearchSpec, space: Sequence[Parameter]
    ) -> None:
        if search.min_epochs > train.epochs:
            self._faults.add(
                "search.min_epochs", f"{search.min_epochs} exceeds train.epochs = {train.epochs}"
            )
        self._check_first_report(search)
        searched = [p.choices or (p.high,) for p in space if p.key == "train.noise_from_epoch"]
        latest = max(searched[0]) if searched else train.noise_from_epoch
        if latest > train.epochs:
            self._faults.add(
                "train.noise_from_epoch",
                f"{latest} exceeds train.epochs = {train.epochs}: no epoch would have noise",
            )

    def _check_first_report(self, search: SearchSpec) -> None:
        if search.first_report == 1:
            return
        factor = search.reduction_factor
        if not _is_power(search.reports_per_epoch, factor) or not math.isclose(
            search.first_report * search.reports_per_epoch, 1, rel_tol=0.01
        ):
            shares = ", ".join(f"{factor**-k:.4g}" for k in (1, 2, 3))
            self._faults.add(
                "search.first_report",
                f"{search.first_report:g} is not 1 divided by a power of search.reduction_factor = "
                f"{factor}, as {shares} are",
            )
        if search.min_epochs > 1:
            self._faults.add(
                "search.first_report",
                f"{search.first_report:g} of an epoch contradicts search.min_epochs = "
                f"{search.min_epochs}: give one of them",
            )

    def _check_own_net(
        self, model: ModelParams, space: Sequence[Parameter], *, given: Mapping[str, Any]
    ) -> None:
        if any(p.key == "model.kind" and "python" in p.choices for p in space):
            self._faults.add("model.kind", '"python" cannot be searched beside others')
        elif model.kind == "python":
            if model.factory is None:
                self._faults.add("model.factory", 'missing: write it as "mynets.py:build"')
            for key in given:
                if key not in PYTHON_KEYS and not _is_default(model, key):
                    self._faults.add(
                        f"model.{key}",
                        'is not used with kind = "python"; if the factory takes it, write it '
                        "under [model.args]",
                    )
        elif (
            model.factory is not None
            or model.args
            or any(p.key.startswith(ARGUMENT) for p in space)
        ):
            self._faults.add("model.factory", 'and [model.args] are used with kind = "python" only')
        names = [p.name for p in space]
        for p in space:
            if p.key.startswith(ARGUMENT) and names.count(p.name) > 1:
                self._faults.add(p.key, f"another searched parameter is called {p.name} too")

    def _check_schedule(self, train: TrainParams, space: Sequence[Parameter]) -> None:
        searched = {p.key: p for p in space}
        longest = _values("train.warmup_epochs", train, searched)[-1]
        if longest >= train.epochs:
            self._faults.add(
                "train.warmup_epochs", f"{longest} must be below train.epochs = {train.epochs}"
            )
        waits = _values("train.decay_epochs", train, searched)[0]
        if "plateau" in _values("train.schedule", train, searched) and 0 < train.patience <= waits:
            self._faults.add(
                "train.patience",
                f"{train.patience} ends a training before train.decay_epochs = {waits} epochs "
                "without improvement lower its learning rate; give a larger one",
            )

    def _check_loss(
        self, model: ModelParams, train: TrainParams, space: Sequence[Parameter]
    ) -> None:
        searched = {p.key: p for p in space}
        if "bce" not in _values("train.loss", train, searched):
            return
        for key, needed in (("model.output", "sigmoid"), ("model.image_range", "unit")):
            if _values(key, model, searched) != (needed,):
                self._faults.add(key, f'must be "{needed}" for train.loss = "bce"')

    def _check_regularizer(
        self, model: ModelParams, train: TrainParams, space: Sequence[Parameter]
    ) -> None:
        searched = {p.key: p for p in space}
        sparse = [r for r in _values("train.regularizer", train, searched) if "k-sparse" in r]
        if sparse and True in _values("model.variational", model, searched):
            self._faults.add(
                "train.regularizer",
                f'"{sparse[0]}" is not for variational nets: set model.variational = false',
            )

    def _check_optimizer(self, train: TrainParams, space: Sequence[Parameter]) -> None:
        searched = {p.key: p for p in space}
        used = _values("train.optimizer", train, searched)
        if "adamw" in used and not train.weight_decay and "train.weight_decay" not in searched:
            self._faults.add(
                "train.weight_decay",
                "missing: adamw without weight decay is adam; give one, such as 0.01",
            )

    def _check_lease(self, search: SearchSpec) -> None:
        if search.grace_s < 2 * search.heartbeat_s:
            self._faults.add(
                "search.grace_s",
                f"{search.grace_s} must be at least twice heartbeat_s = {search.heartbeat_s}",
            )

    def _check_objectives(self, search: SearchSpec) -> None:
        names = search.objectives
        if names[:1] != ("psnr",):
            self._faults.add("search.objectives", f'must begin with "psnr", not {list(names)!r}')
        for name in dict.fromkeys(n for n in names if names.count(n) > 1):
            self._faults.add("search.objectives", f"{name!r} is named twice")
        if search.stop_when_stable is not None and len(names) > 1:
            self._faults.add("search.stop_when_stable", "needs a single objective")
        if search.sampler == "nsga2" and len(names) == 1:
            self._faults.add(
                "search.sampler",
                '"nsga2" is for several objectives: name them in search.objectives, or use "tpe"',
            )


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _values(key: str, section: Section, searched: Mapping[str, Parameter]) -> tuple[Any, ...]:
    """Returns what a key may have: its value, its choices, or both ends of its range, sorted."""
    parameter = searched.get(key)
    if parameter is None:
        return (getattr(section, key.rpartition(".")[2]),)
    return tuple(sorted(parameter.choices or (parameter.low, parameter.high)))


def _fixed(
    sections: Mapping[str, Section], space: Sequence[Parameter]
) -> dict[str, dict[str, Any]]:
    """Returns section -> key -> value of what is not searched."""
    searched = {p.key for p in space}
    return {
        name: {k: v for k, v in section.model_dump().items() if f"{name}.{k}" not in searched}
        for name, section in sections.items()
    }


def _is_default(section: Section, key: str) -> bool:
    """Whether a value is not searched and is what it is without being given."""
    default = type(section).model_fields[key].get_default()
    return key in section.model_fields_set and bool(getattr(section, key) == default)
