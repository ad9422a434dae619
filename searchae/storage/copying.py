"""Copies the rows of a study from one database to another, as they are.

Only ids change, which each database gives out for itself. Numbers, times, states, the order of the
rows, and values that are infinite or NaN stay: they are read and written by their stored types,
and no row is made into an object of Optuna's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from searchae.storage.engine_settings import READS
from searchae.storage.tables import (
    params,
    reports,
    studies,
    study_attributes,
    study_directions,
    study_system_attributes,
    system_attributes,
    trials,
    user_attributes,
    values,
)
from searchae.storage.url import is_sqlite

ROWS = 5000
"""Rows that are read and written at once."""

_OF_STUDY = (study_directions, study_attributes, study_system_attributes)
_OF_TRIALS = (params, values, reports, user_attributes, system_attributes)


@contextmanager
def reading_snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Opens a connection whose statements all see one state of the database.

    Others can write meanwhile, also to a SQLite file.

    Args:
        engine: The engine of the database.
    """
    if is_sqlite(engine.url):
        options: dict[str, Any] = {READS: True}
    else:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def count_rows(source: sa.Connection, study_id: int) -> int:
    """Returns how many rows of trials ``copy_study_rows`` copies, for its progress."""
    counts = [
        sa.select(sa.func.count()).select_from(trials).where(trials.c.study_id == study_id),
        *(
            sa.select(sa.func.count()).select_from(t).where(t.c.trial_id.in_(_ids(study_id)))
            for t in _OF_TRIALS
        ),
    ]
    return sum(int(source.scalar(count) or 0) for count in counts)


def copy_study_rows(
    source: sa.Connection,
    target: sa.Connection,
    study_id: int,
    *,
    name: str,
    further: Sequence[sa.Table] = (),
    progress: Callable[[int], object] = lambda _rows: None,
) -> int:
    """Copies a study with its trials and all that belongs to them.

    Args:
        source: A connection with a transaction, to read from.
        target: A connection with a transaction, to write to.
        study_id: The study's id in the source.
        name: The study's name in the target.
        further: Tables with the columns ``study_id`` and ``trial_id``, the latter as the only
            primary key, that both databases have.
        progress: Called with the number of rows that have been written since the last call.

    Returns:
        The study's id in the target.

    Raises:
        sqlalchemy.exc.IntegrityError: There is a study of this name in the target.
    """
    made = sa.insert(studies).values(study_name=name).returning(studies.c.study_id)
    new_study_id = int(target.execute(made).scalar_one())
    for table in _OF_STUDY:
        query = sa.select(*_columns(table)).where(table.c.study_id == study_id)
        found = source.execute(query.order_by(*table.primary_key)).mappings()
        _write(target, table, [{**row, "study_id": new_study_id} for row in found])
    new_ids = _copy_trials(source, target, study_id, new_study_id, progress)
    for table in _OF_TRIALS:
        query = sa.select(*_columns(table)).where(table.c.trial_id.in_(_ids(study_id)))
        for rows in _batches(source, query.order_by(*table.primary_key)):
            _write(target, table, [{**r, "trial_id": new_ids[r["trial_id"]]} for r in rows])
            progress(len(rows))
    for table in further:
        query = sa.select(table).where(table.c.study_id == study_id)
        for rows in _batches(source, query.order_by(table.c.trial_id)):
            # A deleted trial may have left a row.
            _write(
                target,
                table,
                [
                    {**r, "study_id": new_study_id, "trial_id": new_ids[r["trial_id"]]}
                    for r in rows
                    if r["trial_id"] in new_ids
                ],
            )
    return new_study_id


def _copy_trials(
    source: sa.Connection,
    target: sa.Connection,
    study_id: int,
    new_study_id: int,
    progress: Callable[[int], object],
) -> dict[int, int]:
    """Copies the rows of the trials; returns their ids in the source -> those in the target."""
    query = sa.select(trials).where(trials.c.study_id == study_id).order_by(trials.c.trial_id)
    insert = sa.insert(trials).returning(trials.c.trial_id, sort_by_parameter_order=True)
    new_ids: dict[int, int] = {}
    for rows in _batches(source, query):
        heads = [{k: v for k, v in row.items() if k != "trial_id"} for row in rows]
        made = target.scalars(insert, [{**head, "study_id": new_study_id} for head in heads])
        new_ids.update(zip((row["trial_id"] for row in rows), made, strict=True))
        progress(len(rows))
    return new_ids


def _ids(study_id: int) -> sa.Select[tuple[int]]:
    return sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    return [c for c in table.columns if not c.primary_key]


def _batches(source: sa.Connection, query: sa.Select[Any]) -> Iterator[list[Mapping[str, Any]]]:
    """Reads rows without holding all of them in memory."""
    result = source.execute(query, execution_options={"yield_per": ROWS}).mappings()
    for rows in result.partitions():
        yield [dict(row) for row in rows]


def _write(target: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        target.execute(sa.insert(table), list(rows))
