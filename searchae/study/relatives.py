"""A study and the lists of its trainings, which are moved, copied and deleted with it."""

from __future__ import annotations

import json

import sqlalchemy as sa

from searchae.storage import ResilientStorage, studies, study_attributes
from searchae.study.attributes import TRAININGS_OF
from searchae.study.stored_study import StoredStudy, load_study


def list_names(storage: ResilientStorage, name: str) -> list[str]:
    """Returns the names of the lists of a study's trainings, sorted.

    Args:
        storage: The database.
        name: The study's name.
    """
    same = study_attributes.c.study_id == studies.c.study_id
    query = (
        sa.select(studies.c.study_name)
        .join(study_attributes, same)
        .where(
            study_attributes.c.key == TRAININGS_OF,
            study_attributes.c.value_json == json.dumps(name),
        )
    )

    def read() -> list[str]:
        with storage.engine.connect() as connection:
            return sorted(connection.scalars(query))

    found: list[str] = storage.retried(read)
    return found


def with_lists(stored: StoredStudy) -> list[StoredStudy]:
    """Returns a study, then the lists of its trainings."""
    storage = stored.storage
    return [stored, *(load_study(storage, name) for name in list_names(storage, stored.name))]
