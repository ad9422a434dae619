"""Chooses what is compared: parameters, their choices, and the bases that each choice is put into.

A base is a setting of all parameters but the compared one. What holds for one optimizer may not
hold for another, so there is a base for each combination of the other parameters' choices: the
study's best trial with it, or, where the search has no good trial with it, its best trial with
these choices put in.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from optuna.trial import FrozenTrial

from searchae.config import (
    COMPARED_PARAMETERS,
    CONDITIONS,
    Parameter,
    StudySpec,
    Value,
    comparable,
    compared_by_default,
    middle_value,
)
from searchae.errors import UserError, nearest
from searchae.study import RUNTIME, StoredStudy, trial_row

LEARNING_RATE = "train.learning_rate"
GOOD_SHARE = 0.5
"""A trial is good if it gained at least this share of what the best trial gained over the mean
training image, in dB: what happens among nets that learn little is of no interest."""
MAX_BASES = 12
"""Most bases of a parameter, where ranges make them countless."""


@dataclass(frozen=True)
class SearchedTrial:
    """A trial of the search that ended well, or a base made from one.

    Attributes:
        number: Its number.
        psnr_db: Its last validation PSNR in dB.
        is_complete: Whether it was trained to its end.
        values: Searched key -> value, of the active parameters.
        precision: Precision of its training steps.
    """

    number: int
    psnr_db: float
    is_complete: bool
    values: Mapping[str, Any]
    precision: str


@dataclass(frozen=True)
class Factor:
    """A parameter to compare, with the bases in the order in which they are used.

    Attributes:
        parameter: The parameter.
        tuned: Keys of the values that are tuned anew for each choice in each base: the learning
            rate, and parameters that only some choices have. They are the same for all compared
            parameters, so that a choice in one's base and a base's choice in another's are one
            net, which is tuned and trained once.
        bases: The bases.
        population: How many bases there are at all; None if ranges make them countless.
    """

    parameter: Parameter
    tuned: tuple[str, ...]
    bases: tuple[SearchedTrial, ...]
    population: int | None


def compared_parameters(spec: StudySpec, by: Sequence[str]) -> list[Parameter]:
    """Returns the parameters to compare.

    Args:
        spec: The study.
        by: Names of the parameters; empty for the default ones.

    Raises:
        UserError: A name is not that of a searched parameter with choices, or no searched parameter
            can be compared.
    """
    categorical = comparable(spec.space)
    if not by:
        if found := compared_by_default(spec.space):
            return found
        hint = (
            f"; name another with --by: {', '.join(categorical)}"
            if categorical
            else ", and no other parameter has choices"
        )
        raise UserError(
            f"nothing to compare: {', '.join(COMPARED_PARAMETERS)} are not searched here{hint}"
        )
    for name in by:
        if name in categorical:
            continue
        if name in {p.name for p in spec.space}:
            valid = ", ".join(categorical) or "none here"
            raise UserError(
                f"--by {name}: is searched over a range, and only parameters with choices are "
                f"compared: {valid}. The report shows PSNR by the values of a range; for a "
                f"comparison, search it with choices: {name} = {{ choices = [...] }}"
            )
        raise UserError(f"--by {name}: is not searched here; {nearest(name, list(categorical))}")
    return [categorical[n] for n in dict.fromkeys(by)]


@dataclass(frozen=True)
class SearchedTrials:
    """The study's own trials that ended well.

    Attributes:
        all: All of them, the best first.
        good: Those that are good enough for a base.
        good_db: The validation PSNR in dB from which on they are.
    """

    all: tuple[SearchedTrial, ...]
    good: tuple[SearchedTrial, ...]
    good_db: float

    @classmethod
    def of(cls, stored: StoredStudy) -> SearchedTrials:
        """Reads a study's trials.

        Raises:
            UserError: None has ended well.
        """
        trials = stored.study.get_trials(deepcopy=False)
        found = [t for t in (_searched(stored.spec, trial) for trial in trials) if t is not None]
        best_db = max((t.psnr_db for t in found if t.is_complete), default=-math.inf)
        if best_db == -math.inf:
            raise UserError(
                f"study {stored.name!r}: no trial has trained to its end yet; see searchae status"
            )
        if best_db <= stored.baseline_db:
            raise UserError(
                f"study {stored.name!r}: no trial is better than the mean training image; search on"
            )
        good_db = stored.baseline_db + GOOD_SHARE * (best_db - stored.baseline_db)
        ordered = sorted(found, key=lambda t: (-t.psnr_db, t.number))
        return cls(tuple(ordered), tuple(t for t in ordered if t.psnr_db >= good_db), good_db)


def choose_factor(spec: StudySpec, parameter: Parameter, trials: SearchedTrials) -> Factor:
    """Chooses the bases of a parameter: one for each combination of the other choices.

    They come in an order in which all choices are there soon, those with good trials first. Where
    ranges are searched beside the tuned values, further good trials follow.

    Args:
        spec: The study.
        parameter: The parameter to compare.
        trials: The study's trials.
    """
    good = trials.good
    ranges = {p.key for p in spec.space if not p.choices}
    tuned = tuple(k for k in (LEARNING_RATE, *CONDITIONS) if k in ranges)
    own = {key for key, (parent, _) in CONDITIONS.items() if parent == parameter.key}
    left_out = {parameter.key, *tuned, *own}
    others = [p for p in spec.space if p.key not in left_out]
    choosing = [p for p in others if p.choices]
    found: dict[tuple[str, ...], SearchedTrial] = {}
    for trial in good:
        found.setdefault(_setting(trial.values, choosing), trial)
    made: list[SearchedTrial] = []
    settings = set(found)
    for values in _combinations(choosing, trials.all):
        base = _made_base(spec, values, good)
        setting = _setting(base.values, choosing)  # a choice may have no part in it
        if setting not in settings:
            settings.add(setting)
            made.append(base)
    bases = [*found.values(), *made]
    if all(p.choices for p in others):
        return Factor(parameter, tuned, _spread(bases, choosing)[:MAX_BASES], len(bases))
    seen = {_setting(t.values, others) for t in bases}
    further = {_setting(t.values, others): t for t in reversed(good)}
    more = sorted(
        (t for setting, t in further.items() if setting not in seen), key=lambda t: -t.psnr_db
    )
    ordered = (*_spread(list(found.values()), choosing), *more, *_spread(made, choosing))
    return Factor(parameter, tuned, ordered[:MAX_BASES], None)


def _spread(
    bases: Sequence[SearchedTrial], parameters: Sequence[Parameter]
) -> tuple[SearchedTrial, ...]:
    """Returns bases in an order in which each next one has the choices that were there least.

    An experiment mostly ends with the first of them, and a difference may be another with another
    choice: in the order of their trials' PSNR the first six may all be with one optimizer. Of equal
    ones the first comes first.
    """
    left, found = list(bases), []
    used: Counter[tuple[str, ...]] = Counter()
    while left:
        base = min(left, key=lambda b: sum(used[_setting(b.values, [p])] for p in parameters))
        used.update(_setting(base.values, [p]) for p in parameters)
        left.remove(base)
        found.append(base)
    return tuple(found)


def _combinations(
    parameters: Sequence[Parameter], trials: Sequence[SearchedTrial]
) -> list[dict[str, Any]]:
    """Returns all combinations of choices, those of choices with better trials first."""

    def best_db(parameter: Parameter, choice: Any) -> float:
        with_choice = (t.psnr_db for t in trials if t.values.get(parameter.key) == choice)
        return next(with_choice, 0.0)

    rated = [[(best_db(p, c), c) for c in p.choices] for p in parameters]
    ordered = sorted(product(*rated), key=lambda combination: -sum(db for db, _ in combination))
    keys = [p.key for p in parameters]
    return [dict(zip(keys, (c for _, c in found), strict=True)) for found in ordered]


def _made_base(
    spec: StudySpec, choices: Mapping[str, Any], good: Sequence[SearchedTrial]
) -> SearchedTrial:
    """Returns the best trial with other choices; values that it lacks are another trial's."""
    values = with_known_values(spec, {**good[0].values, **choices}, good)
    values = {k: v for k, v in values.items() if spec.is_active(k, values)}
    return replace(good[0], values=values)


def with_known_values(
    spec: StudySpec,
    values: Mapping[str, Any],
    good: Sequence[SearchedTrial],
    *,
    leave_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns values with those that they lack: the best known one of each, or its range's middle.

    Args:
        spec: The study.
        values: Searched key -> value.
        good: The study's good trials, the best first.
        leave_out: Keys that are not added.
    """
    found = dict(values)
    for p in spec.space:
        if p.key not in found and p.key not in leave_out and spec.is_active(p.key, found):
            known = (t.values[p.key] for t in good if p.key in t.values)
            found[p.key] = next(known, middle_value(p))
    return found


def most_at_once(tuned: Sequence[str]) -> int:
    """Returns how many of the tuned values one net has at most.

    Those that depend on one key exclude each other, unless the same choice of it has them.

    Args:
        tuned: Their keys.
    """
    active: dict[str, Counter[Value]] = {}
    for key in tuned:
        parent, wanted = CONDITIONS.get(key, (key, frozenset({True})))
        active.setdefault(parent, Counter()).update(wanted)
    return sum(max(counts.values()) for counts in active.values())


def choice_text(choice: Any) -> str:
    """Returns a choice as text."""
    return choice if isinstance(choice, str) else json.dumps(choice)


def _setting(values: Mapping[str, Any], parameters: Sequence[Parameter]) -> tuple[str, ...]:
    return tuple(f"{p.key}={json.dumps(values.get(p.key), default=str)}" for p in parameters)


def _searched(spec: StudySpec, trial: FrozenTrial) -> SearchedTrial | None:
    """Returns a trial as a candidate for a base; None if it did not end well."""
    row = trial_row(spec, trial)
    is_good_so_far = row.state == "pruned" and not row.outcome and row.psnr_db is not None
    if row.imported or not (row.has_result or is_good_so_far):
        return None
    by_name = {p.name: p for p in spec.space}
    return SearchedTrial(
        number=row.number,
        psnr_db=row.psnr_db or 0.0,
        is_complete=row.has_result,
        values={by_name[n].key: by_name[n].value(v) for n, v in trial.params.items()},
        precision=trial.user_attrs.get(RUNTIME, {}).get("precision", "fp32"),
    )
