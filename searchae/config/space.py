"""The search space: sampling a trial's parameters, and its first and possible values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, Protocol

from searchae.config.parameters import CONDITIONS, Parameter, Value, label
from searchae.config.schema import ARGUMENT, TrialParams
from searchae.config.study_spec import StudySpec


class SuggestingTrial(Protocol):
    """The part of an ``optuna.Trial`` that sampling needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Returns a number from low to high, both inclusive."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Returns a whole number from low to high, both inclusive."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Returns one of the choices."""


def sample_params(spec: StudySpec, trial: SuggestingTrial) -> TrialParams:
    """Samples each active parameter, in the study file's order.

    Conditional parameters (``l1_weight`` depends on ``regularizer``) are sampled after the others,
    and only if they are active.

    Args:
        spec: The study.
        trial: The trial that suggests the values.
    """
    return spec.resolve(_chosen(spec, lambda p: _suggest(trial, p)))


def _chosen(spec: StudySpec, choose: Callable[[Parameter], Value]) -> dict[str, Any]:
    """Returns key -> value of each active parameter; ``choose`` returns what Optuna stores."""
    values: dict[str, Any] = {}
    for parameter in _parents_first(spec):
        if spec.is_active(parameter.key, values):
            values[parameter.key] = parameter.value(choose(parameter))
    return values


def initial_params(spec: StudySpec, index: int, *, warm: bool = False) -> dict[str, Value]:
    """Returns the fixed parameters of one of the first trials: ``search.first`` or the midpoint.

    Args:
        spec: The study.
        index: The trial's index, from 0, among those that were not imported.
        warm: Whether trials were imported from another study (a warm start).

    Returns:
        Name -> value as Optuna stores it; the trial's other parameters are sampled.
    """
    no_midpoint = warm or spec.search.first or spec.search.sampler == "random"
    if index == 0 and spec.search.midpoint_first and not no_midpoint:
        return midpoint_params(spec)
    if index >= len(spec.search.first):
        return {}
    by_name = {p.name: p for p in spec.space}
    entry = spec.search.first[index]
    return {name: stored_value(by_name[name], value) for name, value in entry.items()}


def midpoint_params(spec: StudySpec) -> dict[str, Value]:
    """Returns the middle of the search space.

    That is the middle of each range (of its logarithm, if that is sampled) and the first of each
    list of choices. Searches of Syne Tune begin with it by default (D. Salinas et al., "Syne Tune:
    a library for large scale hyperparameter tuning and reproducible research", AutoML-Conf 2022).

    Args:
        spec: The study.

    Returns:
        Name -> value of the active parameters, as Optuna stores them.
    """
    values = _chosen(spec, middle_value)
    return {p.name: stored_value(p, values[p.key]) for p in spec.space if p.key in values}


def middle_value(p: Parameter) -> Value:
    """Returns the middle of a range, or the first of several choices, as Optuna stores it."""
    if p.choices:
        return p.labels[0]
    middle = math.sqrt(p.low * p.high) if p.log else (p.low + p.high) / 2
    step = p.step or (1 if p.integer else None)
    if step is None:
        return middle
    on_grid = p.low + math.floor((middle - p.low) / step) * step
    return int(on_grid) if p.integer else on_grid


def values_of(params: TrialParams) -> dict[str, Any]:
    """Returns key -> value of a trial's parameters, as JSON has them."""
    found = {
        f"{section}.{k}": v
        for section, part in (("model", params.model), ("train", params.train))
        for k, v in part.model_dump(mode="json").items()
    }
    return found | {f"{ARGUMENT}{name}": value for name, value in params.model.args.items()}


def params_of_trial(spec: StudySpec, params: Mapping[str, Value]) -> TrialParams:
    """Returns the parameters that a finished trial was trained with.

    Args:
        spec: The trial's study.
        params: Name -> value as Optuna stores it.
    """
    by_name = spec.by_name
    return spec.resolve({by_name[n].key: by_name[n].value(v) for n, v in params.items()})


def stored_value(parameter: Parameter, value: Any) -> Value:
    """Returns a parameter's value as Optuna stores it."""
    return label(value) if parameter.choices else value


def readable_params(spec: StudySpec, params: Mapping[str, Value]) -> dict[str, Any]:
    """Returns a trial's parameters by name, in the study file's order, decoded.

    Args:
        spec: The trial's study.
        params: Name -> value as Optuna stores it.
    """
    return {p.name: p.value(params[p.name]) for p in spec.space if p.name in params}


def untried_choices(spec: StudySpec, tried: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the choices that no trial has had, by the parameter's name.

    Args:
        spec: The trials' study.
        tried: The parameters of each trial, as of ``readable_params``.
    """
    found = {}
    for p in spec.space:
        had = [params[p.name] for params in tried if p.name in params]
        if left := [choice for choice in p.choices if choice not in had]:
            found[p.name] = left
    return found


def model_variants(spec: StudySpec, *, limit: int = 64) -> list[TrialParams]:
    """Returns parameters for every model that a study may build, to check them before a search.

    These are all combinations of the choices under ``[model]``, with both ends of each range.

    Args:
        spec: The study.
        limit: Return the first this many.
    """
    others = {
        p.name: (p.labels or (p.low,))[0] for p in spec.space if not p.key.startswith("model.")
    }
    return [params_of_trial(spec, others | net) for net in islice(model_choices(spec), limit)]


def model_choices(spec: StudySpec) -> Iterator[dict[str, Value]]:
    """Yields all combinations of the choices under ``[model]``, with both ends of each range.

    Each is name -> value as Optuna stores it.
    """
    searched = [p for p in spec.space if p.key.startswith("model.")]
    for values in product(*(p.labels or (p.low, p.high) for p in searched)):
        yield {p.name: v for p, v in zip(searched, values, strict=True)}


def batch_size_variants(spec: StudySpec, nets: Sequence[TrialParams]) -> list[int]:
    """Returns every batch size that a study may train with; of a range, its upper end.

    Args:
        spec: The study.
        nets: What ``model_variants`` returned.
    """
    searched = [p for p in spec.space if p.key == "train.batch_size"]
    if searched:
        return [int(v) for v in searched[0].choices or (searched[0].high,)]
    return [p.train.batch_size for p in nets[:1]]


def _parents_first(spec: StudySpec) -> list[Parameter]:
    return sorted(spec.space, key=lambda p: p.key in CONDITIONS)


def _suggest(trial: SuggestingTrial, p: Parameter) -> Value:
    if p.choices:
        chosen: Value = trial.suggest_categorical(p.name, list(p.labels))
        return chosen
    if p.integer:
        return trial.suggest_int(p.name, int(p.low), int(p.high), step=int(p.step or 1), log=p.log)
    return trial.suggest_float(p.name, p.low, p.high, step=p.step, log=p.log)
