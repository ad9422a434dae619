"""A study as far as it can be read, with the lists of its trainings: to stop, move or delete it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from searchae.config import SearchSpec, folder_name, is_folder_name
from searchae.errors import SearchaeError, StorageError, UserError
from searchae.formatting import format_count
from searchae.storage import ResilientStorage, studies, study_attributes, trials
from searchae.study import worker_registry
from searchae.study.attributes import (
    CREATING,
    DATA_HASH,
    FOLDER,
    SHARES_FOLDER,
    SPEC,
    TRAININGS_OF,
)
from searchae.study.process_identity import ProcessIdentity
from searchae.study.stored_study import StoredStudy, load_study, no_study_error
from searchae.study.transaction import StudyTransaction
from searchae.study.worker_registry import WorkerInfo


@dataclass(frozen=True)
class FoundStudy:
    """A study of searchae's in a database, which may be damaged or half made.

    Attributes:
        storage: The database.
        id: Its id there.
        name: Its name.
        trials: How many trials it has.
        attributes: Its user attributes; None in place of a value that is no JSON.
    """

    storage: ResilientStorage
    id: int
    name: str
    trials: int
    attributes: Mapping[str, Any]

    @property
    def trainings_of(self) -> str:
        """The study whose trainings it lists; empty for a search."""
        return str(self.attributes.get(TRAININGS_OF) or "")

    @property
    def owned_folder(self) -> str:
        """The name of its folder below the artifact folder; empty if it may be another study's."""
        folder = self.attributes.get(FOLDER)
        return str(folder) if is_folder_name(folder) else ""

    @property
    def folder(self) -> str:
        """The same; of a study of an earlier version the folder that goes by its name."""
        return self.owned_folder or folder_name(self.name)

    @property
    def folder_shared_with(self) -> str:
        """The database in which a copy of the study has the same folder; empty without one."""
        return str(self.attributes.get(SHARES_FOLDER) or "")

    def workers(self) -> list[WorkerInfo]:
        """Returns the workers heard of within the grace period."""
        engine = self.storage.engine
        try:
            search = load_study(self.storage, self.name).spec.search
        except SearchaeError:  # damaged, or being made
            search = SearchSpec()

        def read() -> list[WorkerInfo]:
            if not sa.inspect(engine).has_table(worker_registry.workers.name):
                return []
            with engine.begin() as connection:
                identity = ProcessIdentity.of_this_process()
                return worker_registry.live_workers(
                    StudyTransaction(connection, self.id, search, identity, self.name, "")
                )

        found: list[WorkerInfo] = self.storage.retried(read)
        return found


def find_with_lists(storage: ResilientStorage, name: str) -> list[FoundStudy]:
    """Returns a study, then the lists of its trainings by name.

    Args:
        storage: The database.
        name: The study's name.

    Raises:
        NoStudyError: There is no study of that name.
        StorageError: Another program has made it.
    """

    def read() -> list[FoundStudy]:
        with storage.engine.connect() as connection:
            names = [name, *_list_names(connection, name)]
            found = (_find(storage, connection, one) for one in names)
            return [study for study in found if study is not None]

    found: list[FoundStudy] = storage.retried(read)
    if not found or found[0].name != name:
        raise no_study_error(storage, name)
    if not {SPEC, DATA_HASH, CREATING} & found[0].attributes.keys():
        raise StorageError(
            f"study {name!r} was made by another program, not by searchae: it is left alone"
        )
    return found


def with_lists(stored: StoredStudy) -> list[StoredStudy]:
    """Returns a study, then the lists of its trainings."""
    storage = stored.storage
    _, *lists = find_with_lists(storage, stored.name)
    return [stored, *(load_study(storage, listed.name) for listed in lists)]


def require_idle(found: Sequence[FoundStudy]) -> None:
    """Checks that no worker is at work on any of some studies.

    Raises:
        UserError: Some are; the message names them.
    """
    for study in found:
        if alive := study.workers():
            who = ", ".join(f"{w.host} pid {w.pid}" for w in alive[:5])
            more = f" and {len(alive) - 5} more" if len(alive) > 5 else ""
            raise UserError(
                f"study {study.name!r}: {format_count(len(alive), 'worker')} alive ({who}{more}): "
                f"`searchae stop -s {study.trainings_of or study.name}` first"
            )


def _list_names(connection: sa.Connection, name: str) -> list[str]:
    same = study_attributes.c.study_id == studies.c.study_id
    query = sa.select(studies.c.study_name).join(study_attributes, same)
    is_list = study_attributes.c.key == TRAININGS_OF
    of_study = study_attributes.c.value_json == json.dumps(name)
    return sorted(connection.scalars(query.where(is_list, of_study)))


def _find(storage: ResilientStorage, connection: sa.Connection, name: str) -> FoundStudy | None:
    query = sa.select(studies.c.study_id).where(studies.c.study_name == name)
    study_id = connection.scalar(query)
    if study_id is None:
        return None
    table = study_attributes
    rows = connection.execute(
        sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id)
    )
    count = sa.select(sa.func.count()).where(trials.c.study_id == study_id)
    return FoundStudy(
        storage=storage,
        id=study_id,
        name=name,
        attributes={row.key: _value(row.value_json) for row in rows},
        trials=int(connection.scalar(count) or 0),
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # another program wrote it
        return None
