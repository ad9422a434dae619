"""What bases are called: by their choices, and by what else tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from searchae.compare.bases import SearchedTrial, choice_text
from searchae.config import StudySpec
from searchae.formatting import format_value


def base_names(
    bases: Sequence[SearchedTrial], spec: StudySpec, leave_out: Sequence[str]
) -> tuple[str, ...]:
    """Returns bases as texts, each of which differs from the others.

    A base is called by its choices: ``latent_dim=8 tanh adam``, where a choice that is no word has
    its parameter's name. Those of which several would be called alike have the values that differ
    among these too, and, if that does not help, the numbers of their trials.

    Args:
        bases: The bases.
        spec: The study.
        leave_out: Keys that are not named: the compared parameter, and what is tuned.
    """
    names = [_choices(base, spec, leave_out) for base in bases]
    names = [
        name if count == 1 else f"{name} {_differing(base, alike, spec, leave_out)}".strip()
        for base, name, alike, count in _with_others(bases, names)
    ]
    return tuple(
        _with_number(base, name) if count > 1 or not name else name
        for base, name, _, count in _with_others(bases, names)
    )


def _with_number(base: SearchedTrial, name: str) -> str:
    return f"{name} (trial {base.number})" if name else f"trial {base.number}"


def _with_others(
    bases: Sequence[SearchedTrial], names: Sequence[str]
) -> list[tuple[SearchedTrial, str, list[SearchedTrial], int]]:
    """Returns each base, its name, the bases of this name, and how many these are."""
    counts = Counter(names)
    return [
        (base, name, [b for b, n in zip(bases, names, strict=True) if n == name], counts[name])
        for base, name in zip(bases, names, strict=True)
    ]


def _choices(base: SearchedTrial, spec: StudySpec, leave_out: Sequence[str]) -> str:
    texts = []
    for p in spec.space:
        if p.choices and p.key in base.values and p.key not in leave_out:
            value: Any = base.values[p.key]
            texts.append(value if isinstance(value, str) else f"{p.name}={choice_text(value)}")
    return " ".join(texts)


def _differing(
    base: SearchedTrial, alike: Sequence[SearchedTrial], spec: StudySpec, leave_out: Sequence[str]
) -> str:
    """Returns the values from ranges in which bases differ that have the same choices."""
    texts = []
    for p in spec.space:
        shown = {format_value(b.values[p.key]) for b in alike if p.key in b.values}
        if not p.choices and p.key not in leave_out and len(shown) > 1 and p.key in base.values:
            texts.append(f"{p.name}={format_value(base.values[p.key])}")
    return " ".join(texts)
