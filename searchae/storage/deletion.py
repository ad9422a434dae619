"""Deletes a study on which workers are at work."""

from __future__ import annotations

import sqlalchemy as sa

from searchae.storage.tables import studies, trials


def delete_study(engine: sa.Engine, study_id: int) -> None:
    """Deletes a study with all that belongs to it, in one transaction.

    Optuna's own deletion reads the rows first: on PostgreSQL it fails as soon as a worker adds one
    meanwhile, which in a large study it always does. Here the study and its trials are locked, so
    that a row is added before or not at all.

    Args:
        engine: The database.
        study_id: The study's id; nothing happens if there is no such study.
    """
    tables = sa.MetaData()
    tables.reflect(engine)  # also those of another Optuna, and searchae's own
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    study = sa.select(studies.c.study_id).where(studies.c.study_id == study_id)
    with engine.begin() as connection:
        connection.execute(study.with_for_update())
        connection.execute(of_study.with_for_update())
        for table in reversed(tables.sorted_tables):  # those that refer to others come first
            if "study_id" in table.c:  # searchae's leases name the trial, too
                connection.execute(sa.delete(table).where(table.c.study_id == study_id))
            elif "trial_id" in table.c:
                connection.execute(sa.delete(table).where(table.c.trial_id.in_(of_study)))
