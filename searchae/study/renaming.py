"""Renames a study, with the lists of its trainings."""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from searchae.config import check_study_name
from searchae.errors import UserError
from searchae.storage import ResilientStorage, studies, study_attributes, upsert
from searchae.study.attributes import FOLDER, TRAININGS_OF
from searchae.study.found_study import find_with_lists, require_idle


def rename_study(storage: ResilientStorage, old: str, new: str) -> dict[str, str]:
    """Renames a study and the lists of its trainings, all of them or none.

    Its files stay where they are: they go by the folder that is stored with the study.

    Args:
        storage: The database.
        old: The study's name.
        new: The name that it gets.

    Returns:
        Old name -> new name, the study first.

    Raises:
        NoStudyError: There is no study of the old name.
        UserError: No study can have the new name, one has it, a worker is at work on the study, or
            it is a list.
    """
    check_study_name(new, option="NEW")
    found = find_with_lists(storage, old)
    if found[0].trainings_of:
        raise UserError(
            f"study {old!r} lists trainings of study {found[0].trainings_of!r}: it is renamed "
            "with that one"
        )
    names = {study.name: new + study.name.removeprefix(old) for study in found}
    if taken := set(names.values()) & set(storage.study_names()):
        raise UserError(f"study {min(taken)!r} exists: choose another name, or `searchae rm` it")
    require_idle(found)

    def rename() -> None:
        with storage.engine.begin() as connection:
            dialect = connection.dialect.name
            for study in found:
                connection.execute(
                    sa.update(studies)
                    .where(studies.c.study_id == study.id)
                    .values(study_name=names[study.name])
                )
                # The folder of an earlier version's study went by its name.
                kept = {FOLDER: study.folder, **({TRAININGS_OF: new} if study.trainings_of else {})}
                for key, value in kept.items():
                    row = {"study_id": study.id, "key": key, "value_json": json.dumps(value)}
                    connection.execute(upsert(dialect, study_attributes, ["study_id", "key"], row))

    try:
        storage.retried(rename)
    except IntegrityError:  # another process has just made one
        raise UserError(f"study {new!r} exists: choose another name") from None
    return names
