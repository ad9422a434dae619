"""Creates and opens studies in the database.

A study holds everything that a worker needs: its whole spec, the hash of its images, the versions
of the packages that created it, and its budget. All of it is stored as JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection
from sqlalchemy.exc import IntegrityError

from searchae import __version__
from searchae.config import (
    OBJECTIVES,
    StudySpec,
    folder_name,
    is_folder_name,
    spec_from_document,
    study_files,
)
from searchae.errors import NoStudyError, StorageError, StudyMismatchError, nearest
from searchae.storage import (
    ResilientStorage,
    exclusive_lock,
    insert_study,
    masked_url,
    study_attributes,
    upsert,
)
from searchae.study.attributes import (
    BASELINE_DB,
    CREATED,
    CREATING,
    DATA_HASH,
    FOLDER,
    IDENTITY,
    SHARES_FOLDER,
    SPEC,
    SPLITS,
    TYPES,
    VERSIONS,
)
from searchae.study.bad_ends import rank_bad_ends_last
from searchae.study.warm_start import learn_from


def study_names(storage: ResilientStorage) -> list[str]:
    """Returns the names of all studies in the database, sorted."""
    return storage.study_names()


def _is_own(storage: ResilientStorage, name: str) -> bool:
    """Returns whether a study was made by searchae, or cannot be read."""
    try:
        return SPEC in storage.get_study_user_attrs(storage.get_study_id_from_name(name))
    except KeyError:  # deleted meanwhile
        return False
    except StorageError:
        return True


@dataclass(frozen=True)
class StoredStudy:
    """A study in the database.

    Attributes:
        study: Optuna's study. Its sampler and pruner are placeholders; see ``worker``.
        storage: The database.
        spec: The stored spec.
        data_hash: SHA-256 of the images that it was created with, in hexadecimal.
        baseline_db: PSNR in dB of the mean training image on the validation split.
        id: The study's id in the database.
        identity: What its files are marked with; empty for a study of an earlier version.
        stored_folder: Its folder's name as stored; empty for a study of an earlier version.
        folder_shared_with: The database in which a copy of it has the same folder; else empty.
    """

    study: optuna.Study
    storage: ResilientStorage
    spec: StudySpec
    data_hash: str
    baseline_db: float
    id: int
    identity: str = ""
    stored_folder: str = ""
    folder_shared_with: str = ""

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @property
    def folder(self) -> str:
        """The name of its folder below the artifact folder; never a path."""
        return self.stored_folder or folder_name(self.name)


def no_study_error(storage: ResilientStorage, name: str) -> NoStudyError:
    """Returns the error of a study that is not in the database, with what may have been meant."""
    names = [n for n in study_names(storage) if _is_own(storage, n)]
    hint = nearest(name, names) if names else "it holds none yet; `searchae tune` makes one"
    if name in study_files():
        hint = f"the search has not begun: `searchae tune --study {name}` begins it"
    return NoStudyError(f"study {name!r} is not in {masked_url(storage.engine.url)}; {hint}")


def load_study(storage: ResilientStorage, name: str) -> StoredStudy:
    """Opens an existing study.

    Raises:
        NoStudyError: There is no study of that name, or it is still being created.
        StorageError: The study was not created by searchae.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        raise no_study_error(storage, name) from None
    attributes = storage.get_study_user_attrs(study_id)
    if DATA_HASH in attributes and SPEC not in attributes:
        raise NoStudyError(
            f"study {name!r} is being made; try again in a moment, and if it stays so, delete it "
            f"with `searchae rm {name}`"
        )
    if SPEC not in attributes:
        raise StorageError(
            f"study {name!r} was made by another program, not by searchae; a new study needs "
            "another --name"
        )
    for key, expected in TYPES.items():
        if key in attributes and not isinstance(attributes[key], expected):
            raise StorageError(
                f"study {name!r} is damaged: {key} is {json.dumps(attributes[key])[:80]}; "
                "did another program change it?"
            )
    folder = attributes.get(FOLDER)
    return StoredStudy(
        study=_optuna_study(storage, name),
        storage=storage,
        spec=spec_from_document(attributes[SPEC], source=f"study {name!r} in the database"),
        data_hash=attributes[DATA_HASH],
        baseline_db=attributes[BASELINE_DB],
        id=study_id,
        identity=str(attributes.get(IDENTITY, "")),
        stored_folder=str(folder) if is_folder_name(folder) else "",
        folder_shared_with=attributes.get(SHARES_FOLDER, ""),
    )


def find_study(storage: ResilientStorage, name: str) -> StoredStudy | None:
    """Opens a study; returns None where ``open_study`` would create it.

    Raises:
        NoStudyError: The study is still being created.
        StorageError: The study was not created by searchae.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    return None if _is_incomplete(storage, study_id) else load_study(storage, name)


def open_study(
    storage: ResilientStorage,
    name: str,
    *,
    spec: StudySpec,
    data_hash: str,
    baseline_db: float,
    warm_start: StoredStudy | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[StoredStudy, bool]:
    """Opens the study of a name if spec and images are the same; creates it if there is none.

    Args:
        storage: The database.
        name: The study's name.
        spec: The spec to search.
        data_hash: SHA-256 of the images on this machine, in hexadecimal.
        baseline_db: PSNR in dB of the mean training image on the validation split.
        warm_start: What a new study learns from; see ``learn_from``. Imported trials do not count
            towards its budget.
        attributes: Further user attributes of a new study.

    Returns:
        The study, and whether it was created.

    Raises:
        StudyMismatchError: The study was created with another spec or other images; the message
            lists the differences.
        StorageError: There is a study of that name that searchae did not create.
    """

    def create() -> bool:
        with exclusive_lock(storage.engine, 0) as check_lock:
            if not _needs_creation(storage, name):
                return False
            objectives = [OBJECTIVES[objective] for objective in spec.search.objectives]
            directions = [
                StudyDirection.MAXIMIZE if o.maximize else StudyDirection.MINIMIZE
                for o in objectives
            ]
            study_id = _insert(storage, name, directions, {CREATING: True, DATA_HASH: data_hash})
            if study_id is None:
                return False
            study = _optuna_study(storage, name)
            study.set_metric_names([o.metric for o in objectives])
            study.set_user_attr(IDENTITY, secrets.token_hex(16))
            study.set_user_attr(CREATED, round(time.time(), 3))
            study.set_user_attr(BASELINE_DB, baseline_db)
            study.set_user_attr(VERSIONS, package_versions())
            for key, value in (attributes or {}).items():
                study.set_user_attr(key, value)
            if warm_start is not None:
                learn_from(study, spec, warm_start, data_hash=data_hash, check_lock=check_lock)
            _complete(storage, study_id, spec)
            return True

    created: bool = storage.retried(create)
    stored = load_study(storage, name)
    check_same_study(stored, spec=spec, data_hash=data_hash)
    if not created:

        def rank_last() -> None:
            with storage.engine.begin() as connection:
                rank_bad_ends_last(connection, stored.id, spec)

        storage.retried(rank_last)
    if stored.spec != spec:  # only in keys that change no result, which workers read from it
        stored.study.set_user_attr(SPEC, spec.document())
        stored = load_study(storage, name)
    return stored, created


def check_same_study(
    stored: StoredStudy, *, spec: StudySpec, data_hash: str, images: int | None = None
) -> None:
    """Checks that a study was created with this spec and these images.

    Args:
        stored: The study.
        spec: The spec to search.
        data_hash: SHA-256 of the images on this machine, in hexadecimal.
        images: Number of the images on this machine, where it is known; for the message.

    Raises:
        StudyMismatchError: It was not; the message lists the differences, a line each.
    """
    check_spec(stored, spec)
    if stored.data_hash != data_hash:
        splits = stored.study.user_attrs.get(SPLITS, {})
        before = sum(splits.get(name, 0) for name in ("train", "validation", "test"))
        counts = f" ({before:,} then, {images:,} now)" if before and images else ""
        raise StudyMismatchError(
            f"study {stored.name!r} was made with data {stored.data_hash[:12]}, here it is "
            f"{data_hash[:12]}: images were added, removed or changed{counts}. Restore them (check "
            "data.path and --data-dir), or give the study of these images another --name; "
            f"--warm-start {stored.name} has it begin with the best trials of this one"
        )


def check_spec(stored: StoredStudy, spec: StudySpec) -> None:
    """Checks that a study was created with this spec.

    Raises:
        StudyMismatchError: It was not; the message lists the differences, a line each.
    """
    changes = stored.spec.differences(spec)
    if changes:
        raise StudyMismatchError(
            f"study {stored.name!r} was made with other settings (stored -> now):",
            *(f"  {_explained(line)}" for line in changes),
            f"Give the new one another --name; --warm-start {stored.name} lets it learn from these "
            f"trials. Or go on with this one: {_way_back(changes)}.",
        )


def _way_back(changes: Sequence[str]) -> str:
    """Returns how a user undoes the differences of two specs."""
    code = [line for line in changes if _is_code(line)]
    ways = ["restore the code of the net as it was"] if code else []
    if len(code) < len(changes):
        ways.append("leave out the options, or change the study file back")
    return "; ".join(ways)


def _is_code(change: str) -> bool:
    return change.startswith("model.factory_sha256:")


def _explained(change: str) -> str:
    """Returns a difference of two specs, with what it comes from where that is not the spec."""
    return f"{change} (the code of the net was edited)" if _is_code(change) else change


def package_versions() -> dict[str, str]:
    """Returns the versions that a result depends on, of Python and of packages by name."""
    names = ("torch", "torchvision", "optuna", "numpy")
    # searchae's own is not in the metadata of a checkout that is not installed.
    own = {"python": platform.python_version(), "searchae": __version__}
    return {**own, **{n: _version(n) for n in names}}


@cache  # reading the packages' metadata takes about 10 ms, in each trial
def _version(package: str) -> str:
    """Returns a package's version; ``none`` if it is not installed, as torchvision need not be."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _needs_creation(storage: ResilientStorage, name: str) -> bool:
    """Returns whether a study has to be created; deletes one that was not created to the end."""
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return True
    if not _is_incomplete(storage, study_id):
        return False
    storage.delete_study(study_id)
    return True


def _is_incomplete(storage: ResilientStorage, study_id: int) -> bool:
    """Returns whether searchae began to create a study and did not come to the end."""
    attributes = storage.get_study_user_attrs(study_id)
    return CREATING in attributes and SPEC not in attributes


def _optuna_study(storage: ResilientStorage, name: str) -> optuna.Study:
    # Workers set their own for each trial; without these Optuna would create its defaults.
    sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
    return optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)


def _insert(
    storage: ResilientStorage,
    name: str,
    directions: Sequence[StudyDirection],
    attributes: Mapping[str, Any],
) -> int | None:
    """Creates a study; returns its id, or None if another program was quicker."""
    try:
        with storage.engine.begin() as connection:
            return insert_study(connection, name, directions, attributes)
    except IntegrityError:
        return None


def _complete(storage: ResilientStorage, study_id: int, spec: StudySpec) -> None:
    """Writes the last attribute of a study and removes the first one, both at once."""
    row = {"study_id": study_id, "key": SPEC, "value_json": json.dumps(spec.document())}
    table = study_attributes
    with storage.engine.begin() as connection:
        connection.execute(
            upsert(connection.dialect.name, table, ["study_id", "key"], row),
        )
        connection.execute(
            sa.delete(table).where(table.c.study_id == study_id, table.c.key == CREATING)
        )
