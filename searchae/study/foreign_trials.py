"""Trials that another program added or enqueued through Optuna.

Those that fit into the study are trials like any other. The others are marked and left alone: they
are not trained, not counted, not shown to the sampler, and never the best.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec
from searchae.search import can_take
from searchae.storage import fetch_trials, trials, upsert, user_attributes
from searchae.study.attributes import ERROR, FOREIGN, OUTCOME, RUNTIME, TRAINING, WARM_START
from searchae.study.transaction import StudyTransaction

INVALID = "invalid"
"""The ``OUTCOME`` of a trial of another program that does not fit into the study."""
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_OWN = (RUNTIME, WARM_START, TRAINING)


def misfit(spec: StudySpec, params: Mapping[str, Any], *, complete: bool) -> str:
    """Returns why parameters do not belong to a study's space; empty if they do.

    Args:
        spec: The study.
        params: Name -> value as Optuna stores it.
        complete: Whether none may be missing.
    """
    space = spec.by_name
    for name, value in params.items():
        if name not in space:
            return f"{name} is not searched (searched: {', '.join(space)})"
        p = space[name]
        if not can_take(p, value):
            allowed = ", ".join(map(str, p.labels)) if p.choices else f"{p.low:g} to {p.high:g}"
            return f"{name} = {value!r} is not in the space ({allowed})"
    if complete:
        values = {space[name].key: space[name].value(value) for name, value in params.items()}
        missing = [n for n, p in space.items() if n not in params and spec.is_active(p.key, values)]
        if missing:
            return f"{', '.join(missing)} missing"
    return ""


def why_invalid(spec: StudySpec, trial: FrozenTrial) -> str:
    """Returns why a trial that has ended is left alone; empty if it is not.

    Args:
        spec: The trial's study.
        trial: The trial; one that searchae has trained, imported or marked is never invalid.
    """
    if trial.state not in _ENDED or OUTCOME in trial.user_attrs:
        return ""
    if any(key in trial.user_attrs for key in _OWN):
        return ""
    if trial.state == TrialState.COMPLETE and not all(map(math.isfinite, trial.values)):
        return "its value is not a finite number"
    return misfit(spec, trial.params, complete=True)


def outcome_of(spec: StudySpec, trial: FrozenTrial) -> str:
    """Returns a trial's ``OUTCOME``; ``INVALID`` also if nobody has marked it yet; else empty."""
    return str(trial.user_attrs.get(OUTCOME) or (INVALID if why_invalid(spec, trial) else ""))


def mark_invalid(transaction: StudyTransaction, spec: StudySpec, fitting: set[int]) -> int:
    """Marks the invalid trials that have been added since the last call.

    Args:
        transaction: A transaction that holds the study's lock.
        spec: The study's spec.
        fitting: Ids of trials that are known to fit; those that are found to do so are added.

    Returns:
        How many were marked.
    """
    connection = transaction.connection
    known = sa.exists().where(
        user_attributes.c.trial_id == trials.c.trial_id,
        user_attributes.c.key.in_((*_OWN, OUTCOME)),
    )
    query = sa.select(trials.c.trial_id).where(
        trials.c.study_id == transaction.study_id, trials.c.state.in_(_ENDED), ~known
    )
    ids = [i for i in connection.scalars(query) if i not in fitting]
    found = fetch_trials(connection, ids) if ids else {}
    reasons = {i: why for i, trial in found.items() if (why := why_invalid(spec, trial))}
    fitting.update(found.keys() - reasons.keys())
    if not reasons:
        return 0
    dialect = connection.dialect.name
    for trial_id, why in reasons.items():
        for key, value in ((OUTCOME, INVALID), (ERROR, f"added by another program: {why}")):
            row = {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            connection.execute(upsert(dialect, user_attributes, ["trial_id", "key"], row))
    attributes, _ = transaction.read_attributes()
    states = Counter(found[trial_id].state.name.lower() for trial_id in reasons)
    transaction.set_attribute(FOREIGN, dict(Counter(attributes.get(FOREIGN, {})) + states))
    return len(reasons)
