"""Statements on Optuna's tables, of its schema ``SCHEMA``, and rows made into trials again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql, sqlite

SCHEMA = "v3.2.0.a"
"""Optuna 3.2 to 5.0 have it, and as long as their head revision says so."""

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
studies, trials = models.StudyModel.__table__, models.TrialModel.__table__
values = models.TrialValueModel.__table__
reports = models.TrialIntermediateValueModel.__table__
params = models.TrialParamModel.__table__
user_attributes = models.TrialUserAttributeModel.__table__
system_attributes = models.TrialSystemAttributeModel.__table__
study_attributes = models.StudyUserAttributeModel.__table__

_INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
distribution_of = lru_cache(maxsize=1024)(json_to_distribution)


def upsert(
    dialect: str, table: sa.Table, key: Sequence[str], source: Any, *, keep: Sequence[str] = ()
) -> Any:
    """INSERT of a row (a dict) or of a SELECT's, in place of the one with the same key.

    Args:
        dialect: ``postgresql`` or ``sqlite``.
        table: Where.
        key: The columns of a unique constraint.
        source: What.
        keep: Columns that an older row keeps.
    """
    insert = _INSERT[dialect](table)
    if isinstance(source, dict):
        insert, names = insert.values(**source), list(source)
    else:
        names = [c.name for c in source.selected_columns]
        insert = insert.from_select(names, source)
    if table is params:  # a trial's first value stands, as with Optuna: it may be in training
        return insert.on_conflict_do_nothing(index_elements=list(key))
    return insert.on_conflict_do_update(
        index_elements=list(key),
        set_={name: insert.excluded[name] for name in names if name not in (*key, *keep)},
    )


@cache
def upsert_if_unfinished(dialect: str, table: sa.Table, key: str) -> Any:
    """Writes a row about the trial ``:trial`` unless it has ended; ``key`` names it there."""
    columns = [c for c in table.columns if not c.primary_key]
    # Spelled out: several rows at once take no IN.
    unfinished = sa.or_(*(trials.c.state == state for state in UNFINISHED))
    source = sa.select(
        *(
            (
                trials.c.trial_id if c.name == "trial_id" else sa.bindparam(c.name, type_=c.type)
            ).label(c.name)
            for c in columns
        )
    ).where(trials.c.trial_id == sa.bindparam("trial"), unfinished)
    statement = upsert(dialect, table, ("trial_id", key), source)
    return statement.execution_options(preserve_rowcount=True)


def finish_trial(
    connection: sa.Connection, trial_id: int, state: TrialState, value: float | None
) -> bool:
    """Ends a RUNNING trial with its value; False if it is not RUNNING."""
    ended = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id == trial_id, trials.c.state == TrialState.RUNNING)
        .values(state=state, datetime_complete=utc_now())
    )
    if ended.rowcount == 1 and value is not None:
        number, kind = models.TrialValueModel.value_to_stored_repr(value)
        row = {"trial_id": trial_id, "objective": 0, "value": number, "value_type": kind}
        key = ("trial_id", "objective")
        connection.execute(upsert(connection.dialect.name, values, key, row))
    return ended.rowcount == 1


def utc_now() -> datetime:
    """Now, as Optuna stores it."""
    return datetime.now(UTC).replace(tzinfo=None)


def trial_ids_of_study(study_id: int) -> sa.Select[Any]:
    """The ids of a study's trials."""
    return sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)


def _part(kind: str, table: sa.Table, name: Any, number: Any, text: Any) -> sa.Select[Any]:
    """The rows of one table in the form that all have in common."""
    (key,) = table.primary_key
    return sa.select(
        sa.literal(kind).label("kind"),
        key.label("id"),
        table.c.trial_id,
        sa.cast(name, sa.Text).label("name"),
        sa.cast(number, sa.Double).label("number"),
        sa.cast(text, sa.Text).label("text"),
    )


_PARAMS = _part(
    "param", params, params.c.param_name, params.c.param_value, params.c.distribution_json
)
_ATTRIBUTES = _part(
    "attribute",
    system_attributes,
    system_attributes.c.key,
    sa.null(),
    system_attributes.c.value_json,
)
_CONTENTS = (
    (params, _PARAMS),
    (system_attributes, _ATTRIBUTES),
    (
        user_attributes,
        _part(
            "user", user_attributes, user_attributes.c.key, sa.null(), user_attributes.c.value_json
        ),
    ),
    (
        reports,
        _part(
            "report",
            reports,
            reports.c.step,
            reports.c.intermediate_value,
            reports.c.intermediate_value_type,
        ),
    ),
    (values, _part("value", values, values.c.objective, values.c.value, values.c.value_type)),
)


@cache
def select_trials(*, of_study: bool) -> tuple[sa.Select[Any], sa.CompoundSelect[Any]]:
    """Trials in their order, and everything that hangs on them.

    Made once: to make the statements costs more than a trial's few rows.

    Args:
        of_study: Whether their parameter ``which`` is a study's id; else it is the trials' own.
    """
    ids: Any = sa.bindparam("which", expanding=True)
    if of_study:
        ids = sa.select(trials.c.trial_id).where(trials.c.study_id == sa.bindparam("which"))
    parts = (part.where(table.c.trial_id.in_(ids)) for table, part in _CONTENTS)
    own = sa.select(trials).where(trials.c.trial_id.in_(ids)).order_by(trials.c.trial_id)
    return own, sa.union_all(*parts)


@cache
def select_changes(*, many: bool) -> sa.CompoundSelect[Any]:
    """What is new since some marks: states of trials, parameters and system attributes.

    Its parameters are the ``study``, the mark ``trial``, and ``unfinished``: the trials before the
    mark that may still be so. Looking for those needs no look at all the others, which are the
    most by far, and only to theirs are parameters and attributes added; a trial that is not known
    yet is read whole.

    Args:
        many: Whether there are so many of these that all unfinished trials are asked for instead,
            and only parameters and attributes above the marks ``param`` and ``attribute``;
            ``unfinished`` is not wanted then.
    """
    null = sa.cast(sa.null(), sa.Integer)
    (param_id,), (attribute_id,) = params.primary_key, system_attributes.primary_key
    named: Any = sa.bindparam("unfinished", expanding=True)
    unfinished = trials.c.state.in_(UNFINISHED) if many else trials.c.trial_id.in_(named)

    def of_them(table: sa.Table, key: sa.Column[int], mark: str) -> sa.ColumnElement[bool]:
        if not many:
            return table.c.trial_id.in_(named)
        return sa.and_(key > sa.bindparam(mark), _is_of_study(table))

    states = (
        sa.select(
            sa.literal("state").label("kind"),
            null.label("id"),
            null.label("trial_id"),
            sa.cast(trials.c.state, sa.Text).label("name"),
            sa.cast(sa.null(), sa.Double).label("number"),
            sa.func.aggregate_strings(sa.cast(trials.c.trial_id, sa.Text), ",").label("text"),
        )
        .where(trials.c.study_id == sa.bindparam("study"))
        .where((trials.c.trial_id > sa.bindparam("trial")) | unfinished)
        .group_by(trials.c.state)
    )
    return sa.union_all(
        states,
        _PARAMS.where(of_them(params, param_id, "param")),
        _ATTRIBUTES.where(of_them(system_attributes, attribute_id, "attribute")),
    )


def _is_of_study(table: sa.Table) -> sa.ColumnElement[bool]:
    # Not ``IN (all trials of the study)``, which would be looked through first.
    return sa.exists().where(
        trials.c.trial_id == table.c.trial_id, trials.c.study_id == sa.bindparam("study")
    )


def to_frozen_trial(row: Any) -> FrozenTrial:
    """A trial without what hangs on it; times in UTC become local ones, as Optuna has them."""

    def local(time: datetime | None) -> datetime | None:
        return time and time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)

    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        datetime_start=local(row.datetime_start),
        datetime_complete=local(row.datetime_complete),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=row.trial_id,
    )


_WORDS = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}


def add_row(trial: FrozenTrial, row: Any) -> None:
    """Adds a row of ``_part`` to its trial."""
    if row.kind == "param":
        distribution = distribution_of(row.text)
        trial._params[row.name] = distribution.to_external_repr(row.number)
        trial._distributions[row.name] = distribution
    elif row.kind == "attribute":
        trial._system_attrs[row.name] = json.loads(row.text)
    elif row.kind == "user":
        trial._user_attrs[row.name] = json.loads(row.text)
    elif row.kind == "report":
        trial.intermediate_values[int(row.name)] = _WORDS.get(row.text, row.number)
    elif row.kind == "value":
        # Objectives come in the order of their rows, which is theirs.
        trial._values = [*(trial._values or []), _WORDS.get(row.text, row.number)]
