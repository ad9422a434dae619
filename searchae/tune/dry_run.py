"""What a search would do: everything checked, a step measured, nothing trained."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from searchae.config import (
    ProgressCallback,
    StudySpec,
    initial_params,
    model_variants,
    readable_params,
)
from searchae.data import Splits, describe_splits
from searchae.launch import (
    Fleet,
    Launcher,
    LocalLauncher,
    Request,
    available_cores,
    resolve_study,
    sized_fleet,
)
from searchae.models import build_model
from searchae.storage import connect, database_exists, parse_url
from searchae.study import (
    Coordinator,
    StoredStudy,
    check_same_study,
    check_spec,
    check_warm_start,
    find_study,
)
from searchae.training import (
    Precision,
    Trainer,
    chosen_kernels,
    pick_device,
    pick_precision,
    uses_compiled,
)
from searchae.tune.run import (
    check_hours,
    check_models,
    crowding_warning,
    load_images,
    measured_workers_per_device,
    warm_start_source,
    warn_unused_options,
)


@dataclass(frozen=True)
class DryRun:
    """What a search would do: ``tune --dry-run``.

    Attributes:
        name: The study's name.
        spec: The resolved spec.
        device: Where it would run.
        workers: How many at once.
        threads: CPU threads of each.
        precision: ``fp32`` or ``bf16``, on this machine.
        kernels: What convolves there: ``winograd`` (compiled, where it fits) or ``torch``.
        splits: Images by split, their shape and hash.
        baseline_db: PSNR of the mean training image, in dB.
        parameters: Trainable parameters of the smallest and the largest net.
        done: Trials of the study that are finished already.
        begins: What is set of the first trial, name -> value; the rest of it is sampled. Nothing
            is of a study that has begun.
        step_s: Seconds a training step takes, measured on one batch after a warm-up.
        epoch_s: Seconds an epoch would take at that rate, without validation.
        at_most_s: Seconds that the trials to run would take at it if none were pruned.
    """

    name: str
    spec: StudySpec
    device: str
    workers: int
    threads: int
    precision: str
    kernels: str
    splits: dict[str, Any]
    baseline_db: float
    parameters: tuple[int, int]
    done: int
    begins: dict[str, Any]
    step_s: float
    epoch_s: float
    at_most_s: float


def plan_search(
    request: Request, progress: ProgressCallback, launcher: Launcher | None = None
) -> DryRun:
    """Checks everything that a search needs, measures a step on this machine, trains nothing.

    Raises:
        SearchaeError: What ``tune`` would raise before it starts.
    """
    name, spec = resolve_study(request)
    device = pick_device(request.device)
    precision = pick_precision(request.precision, device)
    check_hours(request.max_hours)
    source = warm_start_source(request)
    stored = _stored(request, name)
    if stored:
        check_spec(stored, spec)
    is_new = not request.artifacts.exists()
    splits, baseline_db = load_images(spec, request, progress)
    if is_new:  # made to see whether it can be; somebody else may use it by now
        with contextlib.suppress(OSError):
            request.artifacts.rmdir()
    if stored:
        check_same_study(stored, spec=spec, data_hash=splits.hash)
    if source:
        check_warm_start(source, data_hash=splits.hash)
    counts = Coordinator(stored).counts() if stored else None
    done = counts.finished if counts else 0
    left = max(0, spec.search.trials - done)
    sizes = check_models(spec, splits)
    launcher = launcher or LocalLauncher()
    crew = sized_fleet(request, launcher)
    warn_unused_options(request, crew, progress)
    crew = measured_workers_per_device(crew, request, launcher, spec, splits, lambda _: None)
    if crowded := crowding_warning(crew, left=left):
        progress(crowded)
    torch.set_num_threads(crew.threads)
    step_s = _measure_step(spec, splits, device, precision)
    params = model_variants(spec)[0]
    steps = -(-len(splits.train) // params.train.batch_size)
    return DryRun(
        name=name,
        spec=spec,
        device=str(device),
        workers=crew.workers,
        threads=crew.threads,
        precision=precision,
        kernels=_kernels(spec, splits, device, precision),
        splits=describe_splits(splits),
        baseline_db=baseline_db,
        parameters=(min(sizes), max(sizes)),
        done=done,
        begins={}
        if counts and (done or counts.running or counts.waiting)
        else readable_params(spec, initial_params(spec, 0, warm=bool(request.warm_start))),
        step_s=step_s,
        epoch_s=step_s * steps,
        at_most_s=step_s * steps * spec.epochs * math.ceil(left / _at_once(crew)),
    )


def _stored(request: Request, name: str) -> StoredStudy | None:
    """The study, if it is there already; no SQLite file is made by looking for it."""
    url = parse_url(request.storage)
    return find_study(connect(url), name) if database_exists(url) else None


def _at_once(crew: Fleet) -> int:
    """Trials that train at the same time, each at the speed of one alone."""
    if crew.gpus or not crew.is_local:
        return crew.workers
    return max(1, min(crew.workers, available_cores() // crew.threads))


def _kernels(spec: StudySpec, splits: Splits, device: torch.device, precision: Precision) -> str:
    """What convolves in the study's nets: compiled kernels that fit none of them do not count."""
    compiled = chosen_kernels(device, precision)
    shape = splits.image_shape
    if compiled and any(
        uses_compiled(build_model(p.model, image_shape=shape), compiled)
        for p in model_variants(spec)
    ):
        return "winograd"
    return "torch"


def _measure_step(
    spec: StudySpec, splits: Splits, device: torch.device, precision: Precision
) -> float:
    """Seconds of one training step, from eight of them after a warm-up."""
    first = model_variants(spec)[0]
    # A step takes as long at any rate, and at this one nothing diverges.
    harmless = {"epochs": 2, "patience": 0, "learning_rate": 1e-6}
    steps = min(8, max(1, len(splits.train) // first.train.batch_size))
    trainer = Trainer(
        replace(first, train=first.train.model_copy(update=harmless)),
        train=splits.train[: steps * first.train.batch_size],
        validation=splits.validation[:1],
        seed=spec.seed,
        device=device,
        precision=precision,
    )
    return list(trainer.epochs())[-1].seconds / steps
