"""Deletes the trials of a study on which workers are at work."""

from __future__ import annotations

import sqlalchemy as sa

from searchae.storage.tables import trials


def delete_trials(engine: sa.Engine, study_id: int) -> None:
    """Deletes a study's trials with all that belongs to them, in one transaction.

    Optuna's own deletion of a study reads its rows first: on PostgreSQL it fails as soon as a
    worker adds one meanwhile, which in a large study it always does. Here the trials are locked,
    so that a row is added before or not at all.

    Args:
        engine: The database.
        study_id: The study's id.
    """
    tables = sa.MetaData()
    tables.reflect(engine)  # also those of another Optuna, and searchae's own
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    with engine.begin() as connection:
        connection.execute(of_study.with_for_update())
        for table in reversed(tables.sorted_tables):  # those that refer to others come first
            if table.name != trials.name and "trial_id" in table.c:
                connection.execute(sa.delete(table).where(table.c.trial_id.in_(of_study)))
        connection.execute(sa.delete(trials).where(trials.c.study_id == study_id))
