"""A study in the database: made, opened, or refused because it is another one.

A study carries everything that a worker needs: its whole spec, the data's hash, the versions
that made it and the budget. What is stored is JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import optuna

from searchae.config import StudySpec, spec_from_document
from searchae.errors import NoStudyError, StorageError, StudyMismatchError, nearest
from searchae.storage import ResilientStorage, exclusive_lock, masked_url
from searchae.study.attributes import BASELINE_DB, DATA_HASH, SPEC, VERSIONS
from searchae.study.warm_start import check_warm_start, import_trials

_MAKING_S = 3.0


def study_names(storage: ResilientStorage) -> list[str]:
    """Every study in the database, by name."""
    return sorted(s.study_name for s in storage.get_all_studies())


@dataclass(frozen=True)
class StoredStudy:
    """A study in the database.

    Attributes:
        study: Optuna's handle on it; its sampler is a worker's to set.
        storage: Where it lies.
        spec: What it searches.
        data_hash: The hash of the images that it was made with.
        baseline_db: PSNR of the mean training image on its validation split, in dB.
    """

    study: optuna.Study
    storage: ResilientStorage
    spec: StudySpec
    data_hash: str
    baseline_db: float

    @property
    def id(self) -> int:
        """The study's id in the database."""
        return int(self.study._study_id)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name


def load_study(storage: ResilientStorage, name: str) -> StoredStudy:
    """Opens a study that is there.

    Raises:
        NoStudyError: There is none of that name, or it is being made.
        StorageError: searchae did not make it.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        names = study_names(storage)
        hint = nearest(name, names) if names else "it holds none yet; `searchae tune` makes one"
        raise NoStudyError(
            f"study {name!r} is not in {masked_url(storage.engine.url)}; {hint}"
        ) from None
    deadline = time.monotonic() + _MAKING_S
    # Another process has just made it, or else it is not searchae's: the first thing that is
    # written to a new study is its data's hash.
    while not (attributes := storage.get_study_user_attrs(study_id)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if DATA_HASH in attributes and SPEC not in attributes:
        raise NoStudyError(f"study {name!r} is being made; try again in a moment")
    if SPEC not in attributes:
        raise StorageError(f"study {name!r} was not made by searchae; choose another --name")
    return StoredStudy(
        study=optuna.load_study(
            study_name=name,
            storage=storage,
            # Set trial by trial; these only keep Optuna from making its own.
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
        ),
        storage=storage,
        spec=spec_from_document(attributes[SPEC], source=f"study {name!r} in the database"),
        data_hash=attributes[DATA_HASH],
        baseline_db=attributes[BASELINE_DB],
    )


def find_study(storage: ResilientStorage, name: str) -> StoredStudy | None:
    """A study if it is there; None where ``open_study`` would make it.

    Raises:
        StorageError: There is one that searchae did not make.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    return None if _cut_short(storage, study_id) else load_study(storage, name)


def open_study(
    storage: ResilientStorage,
    name: str,
    *,
    spec: StudySpec,
    data_hash: str,
    baseline_db: float,
    warm_start: StoredStudy | None = None,
) -> tuple[StoredStudy, bool]:
    """Creates a study, or opens the one of that name if it is the same.

    Args:
        storage: Where.
        name: The study's name.
        spec: What it searches.
        data_hash: Of the images here.
        baseline_db: See ``Stored``.
        warm_start: Put this study's finished trials into a new one; they do not count.

    Returns:
        The study, and whether it is new.

    Raises:
        StudyMismatchError: It was made with another spec or other data; the difference is shown.
    """
    if warm_start is not None:
        check_warm_start(warm_start, data_hash=data_hash)

    def make() -> bool:
        with exclusive_lock(storage.engine, 0) as still_held:
            if not _make_room(storage, name):
                return False
            study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
            study.set_user_attr(DATA_HASH, data_hash)
            study.set_metric_names(["psnr_db"])
            study.set_user_attr(BASELINE_DB, baseline_db)
            study.set_user_attr(VERSIONS, package_versions())
            if warm_start is not None:
                import_trials(study, spec, warm_start, still_held)
            # Last: a study without its spec was cut off here, and is made again.
            study.set_user_attr(SPEC, spec.document())
            return True

    created: bool = storage.retried(make)
    stored = load_study(storage, name)
    check_same_study(stored, spec=spec, data_hash=data_hash)
    if stored.spec != spec:  # in keys that change no result: workers go by the stored ones
        stored.study.set_user_attr(SPEC, spec.document())
        stored = load_study(storage, name)
    return stored, created


def check_same_study(stored: StoredStudy, *, spec: StudySpec, data_hash: str) -> None:
    """Refuses to go on with a study that was made with something else.

    Raises:
        StudyMismatchError: With the differences, a line each.
    """
    check_spec(stored, spec)
    if stored.data_hash != data_hash:
        raise StudyMismatchError(
            f"study {stored.name!r} was made with data {stored.data_hash[:12]}, here it is "
            f"{data_hash[:12]}: check --data-dir and the files' versions"
        )


def check_spec(stored: StoredStudy, spec: StudySpec) -> None:
    """The part of ``check_same`` that needs no images.

    Raises:
        StudyMismatchError: With the differences, a line each.
    """
    changes = stored.spec.differences(spec)
    if changes:
        lines = "\n".join(f"  {line}" for line in changes)
        raise StudyMismatchError(
            f"study {stored.name!r} was made with another spec (stored -> now):\n{lines}\n"
            f"Give the new one another --name; --warm-start {stored.name} lets it learn from these "
            "trials. Or go on with this one: --set KEY=VALUE with what is stored."
        )


def package_versions() -> dict[str, str]:
    """What a result depends on besides the spec: the versions of the parts, and Python's."""
    names = ("searchae", "torch", "torchvision", "optuna", "numpy")
    return {"python": platform.python_version(), **{n: _version(n) for n in names}}


_version = cache(version)  # it reads files: some 10 ms for these, in each trial


def _make_room(storage: ResilientStorage, name: str) -> bool:
    """Whether a study of that name has to be made; removes the rest of a creation cut short."""
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return True
    if not _cut_short(storage, study_id):
        return False
    storage.delete_study(study_id)
    return True


def _cut_short(storage: ResilientStorage, study_id: int) -> bool:
    """Whether a study was not made to the end; its spec comes last."""
    attributes = storage.get_study_user_attrs(study_id)
    if not attributes:
        return bool(storage.get_n_trials(study_id) == 0)
    return DATA_HASH in attributes and SPEC not in attributes
