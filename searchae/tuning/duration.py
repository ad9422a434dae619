"""How long a search takes, estimated from a training step that is measured on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch

from searchae.config import StudySpec, TrialParams
from searchae.errors import TrainingError
from searchae.formatting import format_count, format_duration
from searchae.launch import Fleet
from searchae.search import expected_epochs
from searchae.training import Trainer
from searchae.tuning.gpu_sharing import concurrent_trials
from searchae.tuning.preflight import Prepared

ROUNDS, ROUND_STEPS, GPU_ROUND_STEPS = 6, 2, 8
"""Steps are measured in short rounds, after one to warm up, and the fastest counts: what else this
machine does, as the imports of the workers that are started meanwhile, slows some of them down."""
MOST_S = 1.0
"""Seconds after which no further round is begun."""


@dataclass(frozen=True)
class Duration:
    """How long the rest of a search takes, in seconds.

    Attributes:
        step_s: A training step, see ``_measure_step``; where regularizers are searched, the mean
            over them.
        epoch_s: An epoch at that rate, without validation.
        expected_s: The remaining trials at that rate, of which the pruner stops as many as in
            ``search.expected_epochs``.
        at_most_s: The remaining trials if none is stopped.
        step_s_by_regularizer: Regularizer -> ``step_s`` with it, where several are searched.
        trials: The number of the remaining trials.
    """

    step_s: float
    epoch_s: float
    expected_s: float
    at_most_s: float
    step_s_by_regularizer: Mapping[str, float] = field(default_factory=dict)
    trials: int = 0

    @property
    def text(self) -> str:
        """Returns how long the remaining trials take."""
        if not self.at_most_s:
            return "nothing is left to run"
        most = format_duration(self.at_most_s)  # an estimate, too: no bound
        what = f"for {format_count(self.trials, 'trial')}"
        if self.expected_s >= 0.99 * self.at_most_s:
            return f"about {most} {what}"
        return f"about {format_duration(self.expected_s)} {what}; without pruning, about {most}"


def estimate_duration(
    prepared: Prepared, spec: StudySpec, fleet: Fleet, *, left: int
) -> Duration | None:
    """Measures a training step and estimates from it how long a search takes.

    ``tune`` and ``tune --dry-run`` both call it, so that they say the same.

    Args:
        prepared: The search; the step is that of its first net.
        spec: Its spec.
        fleet: The workers.
        left: How many trials are to be run.

    Returns:
        The estimate; None if the training of these steps failed, which trials may do, too.
    """
    torch.set_num_threads(fleet.threads)
    try:
        by_regularizer = _measured_steps(prepared, spec)
    except TrainingError:
        return None
    step_s = fmean(by_regularizer.values())
    batch_size = prepared.networks[0].params.train.batch_size
    epoch_s = step_s * -(-len(prepared.splits.train) // batch_size)
    at_once = concurrent_trials(fleet)
    return Duration(
        step_s=step_s,
        epoch_s=epoch_s,
        # At least one training to the end; what is pruned leaves its worker to another trial.
        expected_s=epoch_s * max(expected_epochs(spec) * left / at_once, float(spec.epochs))
        if left
        else 0.0,
        at_most_s=epoch_s * spec.epochs * math.ceil(left / at_once),
        step_s_by_regularizer=by_regularizer if len(by_regularizer) > 1 else {},
        trials=left,
    )


def _measured_steps(prepared: Prepared, spec: StudySpec) -> dict[str, float]:
    """Returns the seconds of a step with each regularizer that is searched: name -> seconds.

    A contractive penalty takes about twice as long as the others.
    """
    params = prepared.networks[0].params
    first = params.train.regularizer
    found: dict[str, float] = {first: _measure_step(prepared, params)}
    for name in spec.choices_of("train.regularizer"):
        if name == first:
            continue
        train = params.train.model_copy(update={"regularizer": name})
        found[name] = _measure_step(prepared, replace(params, train=train))
    return found


def _measure_step(prepared: Prepared, params: TrialParams) -> float:
    """Returns the seconds of one training step: the mean over the fastest of some short rounds."""
    splits = prepared.splits
    batch_size = params.train.batch_size
    # The learning rate does not change the duration, and with this one no model diverges.
    update = {"epochs": 1 + ROUNDS, "patience": 0, "learning_rate": 1e-6}
    steps = ROUND_STEPS if prepared.device.type == "cpu" else GPU_ROUND_STEPS
    steps = min(steps, max(1, len(splits.train) // batch_size))
    trainer = Trainer(
        replace(params, train=params.train.model_copy(update=update)),
        train=splits.train[: steps * batch_size],
        validation=splits.validation[:1],
        seed=prepared.spec.seed,
        device=prepared.device,
        precision=prepared.precision,
    )
    begun, fastest = time.monotonic(), math.inf
    for result in trainer.epochs():  # a round each
        if result.epoch > 1:
            fastest = min(fastest, result.seconds)
            if time.monotonic() - begun > MOST_S:
                break
    return fastest / steps
