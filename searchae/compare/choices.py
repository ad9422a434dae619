"""Chooses the sides of a comparison, and the trials that represent each side."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from searchae.config import Parameter, StudySpec
from searchae.errors import UserError, nearest
from searchae.study import StoredStudy, TrialRow, trial_row

DEFAULT_PARAMETERS = ("regularizer", "activation", "optimizer")
"""Parameters that are compared by default, if the study searches them."""


@dataclass(frozen=True)
class SideChoice:
    """One choice of a parameter.

    Attributes:
        name: The choice, as text.
        finished: Number of the study's own trials with it that are complete or pruned.
        eligible: Number of those that did not end badly.
        trials: Numbers of the best of these: first completed trials by PSNR in the search, then
            pruned ones by epochs. All are trained again, so that a choice whose trials were all
            pruned can be compared too.
        pruned: How many of ``trials`` were pruned.
    """

    name: str
    finished: int
    eligible: int
    trials: tuple[int, ...]
    pruned: int = 0


@dataclass(frozen=True)
class ParameterSides:
    """One parameter and its choices, in the study file's order."""

    parameter: str
    sides: tuple[SideChoice, ...]

    @property
    def tried(self) -> tuple[SideChoice, ...]:
        """The sides that have trials."""
        return tuple(s for s in self.sides if s.trials)


def choose_sides(stored: StoredStudy, *, by: Sequence[str] = (), best: int) -> list[ParameterSides]:
    """Chooses the trials of each side, by their validation PSNR in the search only.

    Args:
        stored: The study.
        by: Names of the parameters; empty for the default ones.
        best: Trials per side, at most.

    Raises:
        UserError: A name is not that of a searched parameter with choices, no searched parameter
            can be compared, or no trial has ended well.
    """
    parameters = _parameters(stored.spec, by)
    rows = _own(stored)
    if not any(map(_ended_well, rows)):
        raise _nothing_yet(stored)
    return [_parameter_sides(p, rows, best) for p in parameters]


def top_trials(stored: StoredStudy, count: int) -> list[TrialRow]:
    """Returns the study's best completed trials by PSNR in the search, the best first.

    Args:
        stored: The study.
        count: Trials, at most.

    Raises:
        UserError: No trial has trained to its end.
    """
    good = [r for r in _own(stored) if r.has_result]
    if not good:
        raise _nothing_yet(stored)
    return sorted(good, key=_rank)[:count]


def _nothing_yet(stored: StoredStudy) -> UserError:
    return UserError(
        f"study {stored.name!r}: no trial has trained to its end yet; see searchae status"
    )


def _parameters(spec: StudySpec, by: Sequence[str]) -> list[Parameter]:
    categorical = {p.name: p for p in spec.space if len(p.choices) > 1}
    if not by:
        found = [categorical[n] for n in DEFAULT_PARAMETERS if n in categorical]
        if found:
            return found
        hint = (
            f"; name another with --by: {', '.join(categorical)}"
            if categorical
            else ", and no other parameter has choices"
        )
        raise UserError(
            f"nothing to compare: {', '.join(DEFAULT_PARAMETERS)} are not searched here{hint}"
        )
    for name in by:
        if name in categorical:
            continue
        if name in {p.name for p in spec.space}:
            valid = f"Valid: {', '.join(categorical)}" if categorical else "None here has choices"
            raise UserError(f"--by {name}: is a range; sides are made of choices. {valid}")
        raise UserError(f"--by {name}: {nearest(name, list(categorical))}")
    return [categorical[n] for n in dict.fromkeys(by)]


def _parameter_sides(parameter: Parameter, rows: Sequence[TrialRow], best: int) -> ParameterSides:
    sides = []
    for choice in parameter.choices:
        name = parameter.name
        mine = [r for r in rows if name in r.params and r.params[name] == choice]
        good = sorted(filter(_ended_well, mine), key=_rank)
        finished = sum(r.state in ("complete", "pruned") for r in mine)
        chosen = good[:best]
        pruned = sum(r.state == "pruned" for r in chosen)
        numbers = tuple(r.number for r in chosen)
        sides.append(SideChoice(_text(choice), finished, len(good), numbers, pruned))
    return ParameterSides(parameter.name, tuple(sides))


def _own(stored: StoredStudy) -> list[TrialRow]:
    rows = [trial_row(stored.spec, t) for t in stored.study.get_trials(deepcopy=False)]
    return [r for r in rows if not r.imported]


def _ended_well(row: TrialRow) -> bool:
    is_good_so_far = row.state == "pruned" and not row.outcome and row.psnr_db is not None
    return row.has_result or is_good_so_far


def _rank(row: TrialRow) -> tuple[float, ...]:
    reached = math.inf if row.state == "complete" else row.epochs
    return (-reached, -(row.psnr_db or 0.0), row.number)


def _text(choice: Any) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)
