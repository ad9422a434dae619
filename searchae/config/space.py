"""From a spec and a trial to the values that the trial is trained with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

from searchae.config.schema import CONDITIONS, Parameter, StudySpec, TrialParams, Value, label


class SuggestingTrial(Protocol):
    """The part of a trial that sampling needs; an Optuna trial is one."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from low to high, both inclusive."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number from low to high, both inclusive."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


def sample_params(spec: StudySpec, trial: SuggestingTrial) -> TrialParams:
    """Asks the trial for each active parameter, in the study file's order.

    A parameter that hangs on another one (``l1_weight`` on ``regularizer``) is asked for after
    it, and only where it matters.
    """
    return spec.resolve(_chosen(spec, lambda p: _suggest(trial, p)))


def _chosen(spec: StudySpec, choose: Callable[[Parameter], Value]) -> dict[str, Any]:
    """Key -> value of each parameter that matters, from what is chosen as Optuna stores it."""
    values: dict[str, Any] = {}
    for parameter in _parents_first(spec):
        if spec.is_active(parameter.key, values):
            values[parameter.key] = parameter.value(choose(parameter))
    return values


def initial_params(spec: StudySpec, index: int, *, warm: bool = False) -> dict[str, Value]:
    """What is set of a trial that the search begins with: ``search.first``, or the midpoint.

    Args:
        spec: The study.
        index: Which of its own trials, from 0; imported ones are not counted.
        warm: Whether there are imported ones.

    Returns:
        Name -> value, as Optuna stores them; empty for a trial that is sampled as a whole.
    """
    known = warm or spec.search.first or spec.search.sampler == "random"
    if index == 0 and spec.search.midpoint_first and not known:
        return midpoint_params(spec)
    if index >= len(spec.search.first):
        return {}
    by_name = {p.name: p for p in spec.space}
    entry = spec.search.first[index]
    return {name: stored_value(by_name[name], value) for name, value in entry.items()}


def midpoint_params(spec: StudySpec) -> dict[str, Value]:
    """The middle of a space: where people begin by hand, and seldom a bad net.

    Of a range its middle, that of the logarithm where it is searched so; of choices the first, as
    in Syne Tune (Salinas et al., 2022, AutoML-Conf, whose searches begin so by default).

    Args:
        spec: The study.

    Returns:
        Name -> value, as Optuna stores them; parameters that do not matter there are left out.
    """
    values = _chosen(spec, _middle)
    return {p.name: stored_value(p, values[p.key]) for p in spec.space if p.key in values}


def _middle(p: Parameter) -> Value:
    if p.choices:
        return p.labels[0]
    middle = math.sqrt(p.low * p.high) if p.log else (p.low + p.high) / 2
    step = p.step or (1 if p.integer else None)
    if step is None:
        return middle
    on_grid = p.low + math.floor((middle - p.low) / step) * step
    return int(on_grid) if p.integer else on_grid


def params_of_trial(spec: StudySpec, params: Mapping[str, Value]) -> TrialParams:
    """What a finished trial was trained with.

    Args:
        spec: Its study's.
        params: Name -> value, as Optuna stores them.
    """
    by_name = {p.name: p for p in spec.space}
    return spec.resolve({by_name[n].key: by_name[n].value(v) for n, v in params.items()})


def stored_value(parameter: Parameter, value: Any) -> Value:
    """A value as Optuna stores it."""
    return label(value) if parameter.choices else value


def readable_params(spec: StudySpec, params: Mapping[str, Value]) -> dict[str, Any]:
    """A trial's parameters in the study file's order, lists as lists."""
    return {p.name: p.value(params[p.name]) for p in spec.space if p.name in params}


def model_variants(spec: StudySpec, *, limit: int = 64) -> list[TrialParams]:
    """Every net that the choices under ``[model]`` allow, to be built before a search starts.

    Ranges of numbers stand at both of their ends.

    Args:
        spec: The study.
        limit: At most this many, the first in order.
    """
    searched = [p for p in spec.space if p.key.startswith("model.")]
    ends = [p.choices or (p.low, p.high) for p in searched]
    combinations = list(product(*ends))[:limit]
    others = {p.key: (p.choices or (p.low,))[0] for p in spec.space if p not in searched}
    return [
        spec.resolve({**others, **{p.key: v for p, v in zip(searched, c, strict=True)}})
        for c in combinations
    ]


def batch_size_variants(spec: StudySpec, nets: Sequence[TrialParams]) -> list[int]:
    """Every batch size that a study may train with, of a range its upper end; see ``models``."""
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
