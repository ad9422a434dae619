"""What a search would do: checks everything and measures a training step, but trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from searchae.config import StudySpec, initial_params, readable_params
from searchae.data import describe_splits
from searchae.launch import Launcher, LocalLauncher, Request
from searchae.search import SizeLimit, note_on_objectives
from searchae.study import Coordinator
from searchae.training import Trainer, chosen_kernels, uses_compiled
from searchae.tune.gpu_sharing import concurrent_trials, crowding_warning, measured_fleet
from searchae.tune.limits import agreed_trials
from searchae.tune.preflight import Prepared, preflight


@dataclass(frozen=True)
class DryRun:
    """The result of ``tune --dry-run``.

    Attributes:
        name: The study's name.
        spec: The resolved spec.
        device: Where the trials would run.
        workers: Number of workers at once.
        threads: CPU threads of each worker.
        precision: ``fp32`` or ``bf16`` on this machine.
        kernels: Convolutions: ``winograd`` (compiled, where they fit) or ``torch``.
        splits: Number of images of each split, their shape and hash.
        baseline_db: PSNR of the mean training image, in dB.
        parameters: Trainable parameters of the smallest and the largest model.
        done: Number of finished trials of the study.
        begins: Parameters of the first trial that are fixed, name -> value; the others are
            sampled. Empty if the study has begun.
        objectives: What several objectives mean for the search; empty for one.
        step_s: Seconds of a training step, measured on one batch after a warm-up.
        epoch_s: Seconds of an epoch at that rate, without validation.
        at_most_s: Seconds of the remaining trials at that rate if none is pruned.
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
    objectives: str
    step_s: float
    epoch_s: float
    at_most_s: float


def plan_search(
    request: Request, note: Callable[[str], None], launcher: Launcher | None = None
) -> DryRun:
    """Checks everything that a search needs and measures a training step on this machine.

    Args:
        request: What to search.
        note: Called with lines for the user.
        launcher: Where the workers would run; this machine if unset.

    Raises:
        SearchaeError: What ``tune`` would raise before it starts workers.
    """
    launcher = launcher or LocalLauncher()
    prepared = preflight(request, launcher, note, dry_run=True)
    trials = agreed_trials(prepared.existing, request, note)
    search = prepared.spec.search.model_copy(update={"trials": trials})
    spec = replace(prepared.spec, search=search)
    done, has_begun = _progress(prepared)
    left = max(0, spec.search.trials - done)
    fleet = measured_fleet(prepared, request, launcher, lambda _: None)
    if warning := crowding_warning(fleet, left=left):
        note(warning)
    torch.set_num_threads(fleet.threads)
    step_s = _measure_step(prepared)
    batch_size = prepared.networks[0].params.train.batch_size
    epoch_s = step_s * -(-len(prepared.splits.train) // batch_size)
    sizes = [n.parameters for n in prepared.networks]
    first = {} if has_begun else initial_params(spec, 0, warm=bool(request.warm_start))
    first = SizeLimit(spec, prepared.splits.image_shape).possible(first)
    return DryRun(
        name=prepared.name,
        spec=spec,
        device=str(prepared.device),
        workers=fleet.workers,
        threads=fleet.threads,
        precision=prepared.precision,
        kernels=_kernels(prepared),
        splits=describe_splits(prepared.splits),
        baseline_db=prepared.baseline_db,
        parameters=(min(sizes), max(sizes)),
        done=done,
        begins=readable_params(spec, first),
        objectives=note_on_objectives(spec),
        step_s=step_s,
        epoch_s=epoch_s,
        at_most_s=epoch_s * spec.epochs * math.ceil(left / concurrent_trials(fleet)),
    )


def _progress(prepared: Prepared) -> tuple[int, bool]:
    """Returns the number of finished trials, and whether the study has any trial."""
    if prepared.existing is None:
        return 0, False
    counts = Coordinator(prepared.existing).counts()
    return counts.finished, bool(
        counts.finished or counts.running or counts.waiting or counts.paused
    )


def _kernels(prepared: Prepared) -> str:
    """Returns ``winograd`` if compiled kernels are chosen and fit a layer of some model."""
    compiled = chosen_kernels(prepared.device, prepared.precision)
    if compiled and any(uses_compiled(n.model, compiled) for n in prepared.networks):
        return "winograd"
    return "torch"


def _measure_step(prepared: Prepared) -> float:
    """Returns the seconds of one training step, averaged over up to eight after a warm-up."""
    params, splits = prepared.networks[0].params, prepared.splits
    batch_size = params.train.batch_size
    # The learning rate does not change the duration, and with this one no model diverges.
    update = {"epochs": 2, "patience": 0, "learning_rate": 1e-6}
    steps = min(8, max(1, len(splits.train) // batch_size))
    trainer = Trainer(
        replace(params, train=params.train.model_copy(update=update)),
        train=splits.train[: steps * batch_size],
        validation=splits.validation[:1],
        seed=prepared.spec.seed,
        device=prepared.device,
        precision=prepared.precision,
    )
    return list(trainer.epochs())[-1].seconds / steps
