"""Which sides there are, and which trials stand for each."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from searchae.config import Parameter, StudySpec
from searchae.errors import UserError, nearest
from searchae.study import StoredStudy, TrialRow, trial_row

USUAL = ("regularizer", "activation", "optimizer")
"""Compared unless others are named, as far as they are searched."""


@dataclass(frozen=True)
class SideChoice:
    """One choice of a parameter.

    Attributes:
        name: The choice, as text.
        finished: The study's own trials with it that ended complete or pruned.
        eligible: Those that did not end badly.
        trials: The best of these, the best first: by search PSNR those that trained to their end,
            then pruned ones, the furthest first. All are trained anew, so that a choice need not
            do without a verdict since the search gave it up early.
        pruned: How many of ``trials`` are such.
    """

    name: str
    finished: int
    eligible: int
    trials: tuple[int, ...]
    pruned: int = 0


@dataclass(frozen=True)
class Contest:
    """One parameter, and the trials that stand for its choices, in the study file's order."""

    parameter: str
    sides: tuple[SideChoice, ...]

    @property
    def tried(self) -> tuple[SideChoice, ...]:
        """The sides that have a trial to stand for them."""
        return tuple(s for s in self.sides if s.trials)


def choose_sides(stored: StoredStudy, *, by: Sequence[str] = (), best: int) -> list[Contest]:
    """Chooses what is compared; only the search's validation PSNR has a part in it.

    Args:
        stored: The study.
        by: Names of parameters; the usual ones if empty.
        best: At most so many trials a side.

    Raises:
        UserError: A name is none of a searched parameter with choices, or nothing is searched
            that could be compared, or no trial has ended well.
    """
    parameters = _parameters(stored.spec, by)
    rows = _own(stored)
    if not any(map(_ended_well, rows)):
        raise _nothing_yet(stored)
    return [_contest(p, rows, best) for p in parameters]


def chosen_top(stored: StoredStudy, count: int) -> list[TrialRow]:
    """The study's best trials by search PSNR, the best first, at most ``count``.

    Raises:
        UserError: There is none.
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
        found = [categorical[n] for n in USUAL if n in categorical]
        if found:
            return found
        hint = (
            f"; name another with --by: {', '.join(categorical)}"
            if categorical
            else ", and no other parameter has choices"
        )
        raise UserError(f"nothing to compare: {', '.join(USUAL)} are not searched here{hint}")
    for name in by:
        if name in categorical:
            continue
        if name in {p.name for p in spec.space}:
            valid = f"Valid: {', '.join(categorical)}" if categorical else "None here has choices"
            raise UserError(f"--by {name}: is a range; sides are made of choices. {valid}")
        raise UserError(f"--by {name}: {nearest(name, list(categorical))}")
    return [categorical[n] for n in dict.fromkeys(by)]


def _contest(parameter: Parameter, rows: Sequence[TrialRow], best: int) -> Contest:
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
    return Contest(parameter.name, tuple(sides))


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
