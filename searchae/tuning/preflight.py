"""The checks before a search and before a dry run: the same, in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from searchae.config import StudySpec, allow_factory, note_on_study_file
from searchae.data import Splits, absolute_paths, load_splits, moved_paths, split_warnings
from searchae.errors import NoStudyError, UserError
from searchae.files import ArtifactPath
from searchae.launch import Fleet, Launcher, Request, sized_fleet
from searchae.storage import (
    ResilientStorage,
    connect,
    database_exists,
    masked_url,
    optuna_setting,
)
from searchae.study import (
    Coordinator,
    StoredStudy,
    check_same_study,
    check_spec,
    describe_starting_points,
    find_study,
    has_comparable_results,
    load_study,
    require_searched,
)
from searchae.training import (
    Precision,
    check_artifact_folder,
    kernels_setting,
    mean_image_psnr_db,
    pick_device,
    pick_precision,
    why_slow,
)
from searchae.tuning.first_rung import choose_first_rung, stored_first_rung
from searchae.tuning.model_checks import (
    Network,
    build_networks,
    check_active_latents,
    check_batch_size,
    check_objectives,
    check_shift,
)
from searchae.tuning.space_checks import check_space


@dataclass(frozen=True)
class Prepared:
    """A search that has passed every check.

    Attributes:
        name: The study's name.
        spec: Its spec, with every override.
        device: Where this machine trains; the CPU if the workers run on other machines.
        precision: Of a training on ``device``.
        fleet: The workers, before workers per GPU are measured.
        storage: The database; None in a dry run if it does not exist yet.
        existing: The study, if it exists already.
        warm_start: The study whose trials a new study starts from, if any.
        splits: The images.
        baseline_db: PSNR of the mean training image on the validation split, in dB.
        networks: The models that the study can train.
    """

    name: str
    spec: StudySpec
    device: torch.device
    precision: Precision
    fleet: Fleet
    storage: ResilientStorage | None
    existing: StoredStudy | None
    warm_start: StoredStudy | None
    splits: Splits
    baseline_db: float
    networks: list[Network]


def preflight(
    request: Request, launcher: Launcher, note: Callable[[str], None], *, dry_run: bool = False
) -> Prepared:
    """Checks everything that a search needs; the quick checks come before loading the images.

    Args:
        request: What to search.
        launcher: Where the workers run.
        note: Called with lines for the user.
        dry_run: Leave no new database file and no new artifact folder behind, and require the
            device on this machine, since a dry run measures a step here.

    Raises:
        UserError: Something in the request is wrong.
    """
    name, spec = request.resolved
    if request.tables is None and (text := note_on_study_file(request.study)):
        note(text)
    if request.factory:
        allow_factory(request.factory)
    trains_here = launcher.is_local or dry_run
    device = pick_device(request.device) if trains_here else torch.device("cpu")
    precision = pick_precision(request.precision, device)
    kernels_setting()
    optuna_setting()
    _check_hours(request.max_hours)
    check_space(spec, (advice := list[str]()).append)
    fleet = sized_fleet(request, launcher)
    _warn_unused_options(request, fleet, note)
    storage, warm_start = _open_database(request, create=not dry_run)
    existing = find_study(storage, name) if storage else None
    if existing:
        require_searched(existing)
        spec = stored_first_rung(spec, existing.spec)
        check_spec(existing, spec)
    # Said once, not whenever the search goes on, and of a number of trials that it takes.
    if not existing or (request.asks_for_trials and _has_trials_left(existing, spec)):
        for text in advice:
            note(f"note: {text}")
    _check_artifacts(request.artifacts, keep=not dry_run)

    data = moved_paths(spec.data, data_dir=request.data_dir) if existing else spec.data
    data = absolute_paths(
        data,
        data_dir=request.data_dir,
        study_folder=request.study_folder,
        progress=note,
    )
    spec = replace(spec, data=data)
    splits = load_splits(
        spec.data,
        data_dir=request.data_dir,
        seed=spec.seed,
        progress=note,
        accept_doubts=existing is not None,
    )
    for warning in split_warnings(splits):
        note(f"warning: {warning}")
    baseline_db = mean_image_psnr_db(splits.train, splits.validation)
    networks = build_networks(spec, splits.image_shape, note)
    check_active_latents(spec, networks)
    check_shift(spec, splits.image_shape)
    batch_size = check_batch_size(spec, networks, images=len(splits.train))
    if not existing:
        images = len(splits.train)
        spec = choose_first_rung(spec, images=images, batch_size=batch_size, note=note)
    check_objectives(spec, networks)
    if (
        warm_start
        and not existing
        and not has_comparable_results(warm_start, spec, data_hash=splits.hash)
    ):
        note(describe_starting_points(spec, warm_start))
    if existing:
        images = sum(map(len, splits.parts.values()))
        check_same_study(existing, spec=spec, data_hash=splits.hash, images=images)
    return Prepared(
        name=name,
        spec=spec,
        device=device,
        precision=precision,
        fleet=fleet,
        storage=storage,
        existing=existing,
        warm_start=warm_start,
        splits=splits,
        baseline_db=baseline_db,
        networks=networks,
    )


def _has_trials_left(existing: StoredStudy, spec: StudySpec) -> bool:
    return Coordinator(existing).counts().finished < spec.search.trials


def _check_hours(hours: float | None) -> None:
    if hours is not None and not (math.isfinite(hours) and hours > 0):
        raise UserError(f"--max-hours {hours:g}: give a number of hours above 0, 0.5 for half one")


def _warn_unused_options(request: Request, fleet: Fleet, note: Callable[[str], None]) -> None:
    """Warns of options that have no effect, or a bad one, on workers without a GPU."""
    if fleet.gpus:
        return
    if request.workers_per_device != 1:
        note("--workers-per-device: no GPU is used, so that it changes nothing; see --workers")
    cpu = torch.device("cpu")
    slow = why_slow(pick_precision(request.precision, cpu), cpu)
    if slow and fleet.is_local:
        note(slow)


def _open_database(
    request: Request, *, create: bool
) -> tuple[ResilientStorage | None, StoredStudy | None]:
    """Connects to the database and opens the warm start's study.

    Args:
        request: Names both.
        create: Create the database if it does not exist; else there is no connection then.

    Raises:
        NoStudyError: The warm start's study does not exist.
        StorageError: The database cannot be used.
    """
    exists = database_exists(request.storage)
    if request.warm_start and not exists:
        where = masked_url(request.storage)
        raise NoStudyError(f"--warm-start {request.warm_start}: there is no database {where}")
    if not (exists or create):
        return None, None
    storage = connect(request.storage)
    return storage, load_study(storage, request.warm_start) if request.warm_start else None


def _check_artifacts(folder: ArtifactPath, *, keep: bool) -> None:
    """Checks that the artifact folder can be written, which creates it if necessary.

    Args:
        folder: The folder.
        keep: Whether to keep a folder that was created by this check.

    Raises:
        ArtifactsError: It cannot be created or written.
    """
    is_new = isinstance(folder, Path) and not folder.exists()
    check_artifact_folder(folder)
    if is_new and not keep and isinstance(folder, Path):
        with suppress(OSError):  # not empty: another process uses it by now
            folder.rmdir()
