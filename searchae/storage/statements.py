"""SQL statements on Optuna's tables.

A statement is built once per process where its text is always the same: to build one costs more
than to read a trial's few rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite

from searchae.storage.tables import (
    UNFINISHED,
    params,
    reports,
    studies,
    study_attributes,
    study_directions,
    system_attributes,
    trials,
    user_attributes,
    utc_now,
    value_to_row,
    values,
)

_INSERT: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


# -- writes


def upsert(
    dialect: str, table: sa.Table, key: Sequence[str], source: Any, *, keep: Sequence[str] = ()
) -> Any:
    """Returns an INSERT that replaces the row with the same key.

    Args:
        dialect: ``postgresql`` or ``sqlite``.
        table: The table to insert into. An existing row of ``trial_params`` is kept as it is, as
            Optuna does: the trial may already be training with its value.
        key: The columns of a unique constraint.
        source: A row (a dict from column names to values) or a SELECT.
        keep: Columns whose old value stays when a row is replaced.
    """
    insert = _INSERT[dialect](table)
    if isinstance(source, dict):
        insert, names = insert.values(**source), list(source)
    else:
        names = [c.name for c in source.selected_columns]
        insert = insert.from_select(names, source)
    if table is params:
        return insert.on_conflict_do_nothing(index_elements=list(key))
    return insert.on_conflict_do_update(
        index_elements=list(key),
        set_={name: insert.excluded[name] for name in names if name not in (*key, *keep)},
    )


@cache
def upsert_if_unfinished(dialect: str, table: sa.Table, key: str) -> Any:
    """Returns an upsert of one row about a trial that has no effect once the trial has finished.

    The statement's parameters are ``trial`` (the trial's id) and the table's other columns; the
    row count that it returns is 0 for a finished trial.

    Args:
        dialect: ``postgresql`` or ``sqlite``.
        table: A table with a column ``trial_id``.
        key: The column that identifies a row among those of its trial.
    """
    columns = [c for c in table.columns if not c.primary_key]
    # Not ``IN``, which cannot be used with several rows of parameters at once.
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
    connection: sa.Connection,
    trial_id: int,
    state: TrialState,
    value: float | None,
    further: Sequence[float] = (),
) -> bool:
    """Finishes a RUNNING trial.

    Args:
        connection: A connection with an open transaction.
        trial_id: The trial's id in the database.
        state: The trial's new state: COMPLETE, PRUNED or FAIL.
        value: The value of the first objective, if there is one.
        further: The values of the other objectives, in order.

    Returns:
        False if the trial is not RUNNING; nothing is written then.
    """
    finished = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id == trial_id, trials.c.state == TrialState.RUNNING)
        .values(state=state, datetime_complete=utc_now())
    )
    if finished.rowcount == 1 and value is not None:
        for objective, one in enumerate((value, *further)):
            number, kind = value_to_row(one)
            row = {
                "trial_id": trial_id,
                "objective": objective,
                "value": number,
                "value_type": kind,
            }
            key = ("trial_id", "objective")
            connection.execute(upsert(connection.dialect.name, values, key, row))
    return finished.rowcount == 1


def insert_study(
    connection: sa.Connection,
    name: str,
    directions: Sequence[StudyDirection],
    attributes: Mapping[str, Any],
) -> int:
    """Creates a study together with its first user attributes.

    Optuna writes these in a transaction of their own: in between, a study tells nobody whose it is.

    Args:
        connection: A connection with an open transaction.
        name: Its name.
        directions: The directions of its objectives.
        attributes: JSON values by key.

    Returns:
        The study's id.

    Raises:
        sqlalchemy.exc.IntegrityError: There is a study of this name.
    """
    insert = sa.insert(studies).values(study_name=name).returning(studies.c.study_id)
    study_id = int(connection.execute(insert).scalar_one())
    for objective, direction in enumerate(directions):
        row = {"study_id": study_id, "objective": objective, "direction": direction}
        connection.execute(sa.insert(study_directions).values(**row))
    for key, value in attributes.items():
        attribute = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        connection.execute(sa.insert(study_attributes).values(**attribute))
    return study_id


# -- reads


def trial_ids_of_study(study_id: int) -> sa.Select[Any]:
    """Returns a SELECT of the ids of a study's trials."""
    return sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)


def _rows_of(kind: str, table: sa.Table, name: Any, number: Any, text: Any) -> sa.Select[Any]:
    """Returns the rows of a table in the columns that all ``contents`` statements share."""
    (key,) = table.primary_key
    return sa.select(
        sa.literal(kind).label("kind"),
        key.label("id"),
        table.c.trial_id,
        sa.cast(name, sa.Text).label("name"),
        sa.cast(number, sa.Double).label("number"),
        sa.cast(text, sa.Text).label("text"),
    )


def _attribute_rows(kind: str, table: sa.Table) -> sa.Select[Any]:
    return _rows_of(kind, table, table.c.key, sa.null(), table.c.value_json)


_PARAMS = _rows_of(
    "param", params, params.c.param_name, params.c.param_value, params.c.distribution_json
)
_SYSTEM_ATTRIBUTES = _attribute_rows("system", system_attributes)
_CONTENTS = (
    (params, _PARAMS),
    (system_attributes, _SYSTEM_ATTRIBUTES),
    (user_attributes, _attribute_rows("user", user_attributes)),
    (
        reports,
        _rows_of(
            "report",
            reports,
            reports.c.step,
            reports.c.intermediate_value,
            reports.c.intermediate_value_type,
        ),
    ),
    (values, _rows_of("value", values, values.c.objective, values.c.value, values.c.value_type)),
)


@cache
def select_trials(*, of_study: bool) -> tuple[sa.Select[Any], sa.CompoundSelect[Any]]:
    """Returns two SELECTs: the trials in the order of their ids, and all that belongs to them.

    The second one has the columns ``kind``, ``id``, ``trial_id``, ``name``, ``number`` and
    ``text``, which ``frozen_trials.TrialContents`` reads.

    Args:
        of_study: Whether the statements' parameter ``which`` is a study's id or else a list of
            trials' ids.
    """
    ids: Any = sa.bindparam("which", expanding=True)
    if of_study:
        ids = sa.select(trials.c.trial_id).where(trials.c.study_id == sa.bindparam("which"))
    contents = (rows.where(table.c.trial_id.in_(ids)) for table, rows in _CONTENTS)
    heads = sa.select(trials).where(trials.c.trial_id.in_(ids)).order_by(trials.c.trial_id)
    return heads, sa.union_all(*contents)


@cache
def select_changes(*, all_unfinished: bool) -> sa.CompoundSelect[Any]:
    """Returns a SELECT of the trials, parameters and system attributes above high-water marks.

    Rows have the columns of ``select_trials``. A row of the kind ``state`` has a state's name in
    ``name`` and the ids of the trials in that state, separated by commas, in ``text``: of the
    trials above the mark, and of those below it that may have changed, the unfinished ones. The
    finished trials below the mark, by far the most, are not looked at.

    The statement's parameters are ``study`` (a study's id), ``trial`` (the highest trial id that
    has been read), and either ``unfinished`` or ``param`` and ``attribute``.

    Args:
        all_unfinished: False for few unfinished trials: their ids are in ``unfinished``, and all
            their parameters and system attributes are selected. True for many: the state of every
            unfinished trial of the study is selected, and of their parameters and system
            attributes only those with ids above ``param`` and ``attribute``.
    """
    null = sa.cast(sa.null(), sa.Integer)
    (param_id,), (attribute_id,) = params.primary_key, system_attributes.primary_key
    named: Any = sa.bindparam("unfinished", expanding=True)
    unfinished = trials.c.state.in_(UNFINISHED) if all_unfinished else trials.c.trial_id.in_(named)

    def changed(table: sa.Table, key: sa.Column[int], mark: str) -> sa.ColumnElement[bool]:
        if not all_unfinished:
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
        _PARAMS.where(changed(params, param_id, "param")),
        _SYSTEM_ATTRIBUTES.where(changed(system_attributes, attribute_id, "attribute")),
    )


def _is_of_study(table: sa.Table) -> sa.ColumnElement[bool]:
    # Not ``IN`` (all trials of the study): databases would read all of those first.
    return sa.exists().where(
        trials.c.trial_id == table.c.trial_id, trials.c.study_id == sa.bindparam("study")
    )
