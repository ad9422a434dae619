"""What a search would do: checks everything and measures a training step, but trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from searchae.config import StudySpec, initial_params, readable_params
from searchae.data import describe_splits
from searchae.launch import Launcher, LocalLauncher, Request
from searchae.search import SizeLimit, note_on_objectives
from searchae.study import Coordinator
from searchae.training import chosen_kernels, kernels_of, uses_compiled
from searchae.tuning.duration import Duration, estimate_duration
from searchae.tuning.gpu_sharing import crowding_warning, measured_fleet
from searchae.tuning.limits import agreed_trials
from searchae.tuning.preflight import Prepared, preflight


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
        kernels: Convolutions that a worker has, as reports name them: ``winograd`` (compiled) or
            ``torch``.
        kernels_fit: Whether ``winograd`` fits a layer of some model; PyTorch computes the others.
        splits: Number of images of each split, their shape and hash.
        baseline_db: PSNR of the mean training image, in dB.
        parameters: Trainable parameters of the smallest and the largest model.
        done: Number of finished trials of the study.
        begins: Parameters of the first trial that are fixed, name -> value; the others are
            sampled. Empty if the study has begun.
        objectives: What several objectives mean for the search; empty for one.
        duration: How long it would take; None if the measured training steps failed.
    """

    name: str
    spec: StudySpec
    device: str
    workers: int
    threads: int
    precision: str
    kernels: str
    kernels_fit: bool
    splits: dict[str, Any]
    baseline_db: float
    parameters: tuple[int, int]
    done: int
    begins: dict[str, Any]
    objectives: str
    duration: Duration | None


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
    compiled = chosen_kernels(prepared.device, prepared.precision)
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
        kernels=kernels_of(prepared.device, prepared.precision),
        kernels_fit=compiled is not None
        and any(uses_compiled(n.model, compiled) for n in prepared.networks),
        splits=describe_splits(prepared.splits),
        baseline_db=prepared.baseline_db,
        parameters=(min(sizes), max(sizes)),
        done=done,
        begins=readable_params(spec, first),
        objectives=note_on_objectives(spec),
        duration=estimate_duration(prepared, spec, fleet, left=left),
    )


def _progress(prepared: Prepared) -> tuple[int, bool]:
    """Returns the number of finished trials, and whether the study has any trial."""
    if prepared.existing is None:
        return 0, False
    counts = Coordinator(prepared.existing).counts()
    return counts.finished, bool(
        counts.finished or counts.running or counts.waiting or counts.paused
    )
