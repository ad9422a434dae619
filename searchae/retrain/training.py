"""One training of a trial with one seed, and its comparison with the search's results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from torch import Tensor

from searchae.data import Splits
from searchae.errors import DeadError, DivergedError
from searchae.retrain.plan import RetrainPlan
from searchae.study import RUNTIME, WARM_START
from searchae.training import CheckpointError, Checkpoints, EpochResult, Trainer

log = logging.getLogger(__name__)

FAILURE_VERBS = {"diverged": "diverged", "dead": "died"}
"""The values of ``RetrainResult.ended`` for failed trainings, with verbs for messages."""


@dataclass(frozen=True, eq=False)
class RetrainResult:
    """The result of one training.

    Attributes:
        seed: The seed.
        history: The results of all epochs.
        epoch: The epoch with the best validation PSNR, from 1; the first of equal ones.
        weights: The weights after that epoch, on the CPU.
        ended: Why the training ended: ``epochs``, ``plateau``, ``diverged`` or ``dead``.
    """

    seed: int
    history: tuple[EpochResult, ...]
    epoch: int
    weights: dict[str, Tensor]
    ended: str


EpochCallback = Callable[[int, EpochResult], None]
"""Called with the seed and the result of each epoch."""


def retrain_once(
    plan: RetrainPlan,
    seed: int,
    splits: Splits,
    *,
    checkpoints: Checkpoints,
    on_epoch: EpochCallback,
) -> RetrainResult:
    """Trains once, from the last checkpoint if there is one.

    Args:
        plan: What to train.
        seed: Seed of initialization, shuffling and noise.
        splits: The data.
        checkpoints: Where the checkpoints of this seed are written.
        on_epoch: Called with the seed and the result of each epoch.

    Returns:
        The best epoch's weights, also of a training that failed after its first epoch.

    Raises:
        DivergedError: The training diverged in its first epoch.
        OutOfMemoryError: The training does not fit on the device.
    """
    trainer = Trainer(
        plan.params,
        train=splits.train,
        validation=splits.validation,
        seed=seed,
        device=plan.device,
        precision=plan.precision,
    )
    best = _resume(trainer, checkpoints)
    ended = ""
    try:
        for result in trainer.epochs():
            best = _save_checkpoint(trainer, checkpoints, result, best)
            on_epoch(seed, result)
    except DivergedError as e:
        if best is None:
            raise DivergedError(f"seed {seed}: {e}") from e
        ended = "dead" if isinstance(e, DeadError) else "diverged"
    assert best is not None  # a training has at least one epoch
    full = len(trainer.history) == plan.params.train.epochs
    return RetrainResult(
        seed=seed,
        history=tuple(trainer.history),
        epoch=best["epoch"],
        weights=best["weights"],
        ended=ended or ("epochs" if full else "plateau"),
    )


def reproduction(
    trial: FrozenTrial, history: Sequence[EpochResult], *, runtime: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Compares a retraining with the search's results, epoch by epoch.

    Args:
        trial: The search's trial.
        history: The retraining's epochs, with the search's seed.
        runtime: Device, threads, precision and versions of the retraining.

    Returns:
        ``epoch`` (the last that both have), ``recorded_db``, ``retrained_db``, ``difference_db``,
        ``epochs_compared``, ``to_the_bit`` (whether all epochs are identical), ``runtime_differs``
        (by name, the search's and this value), and a sentence, ``text``. None if the study has no
        results by epoch, as for a trial imported from another study.
    """
    recorded = {e: v for e, v in trial.intermediate_values.items() if 0 < e <= len(history)}
    if not recorded or WARM_START in trial.user_attrs:
        return None
    # Studies made before these could be chosen used float32 and PyTorch's own kernels.
    searched = {"precision": "fp32", "kernels": "torch", **trial.user_attrs.get(RUNTIME, {})}
    differs = {
        name: [searched.get(name), value]
        for name, value in runtime.items()
        if searched.get(name) != value
    }
    epoch = max(recorded)
    retrained = history[epoch - 1].psnr_db
    identical = all(history[e - 1].psnr_db == value for e, value in recorded.items())
    found = {
        "epoch": epoch,
        "recorded_db": recorded[epoch],
        "retrained_db": retrained,
        "difference_db": retrained - recorded[epoch],
        "epochs_compared": len(recorded),
        "to_the_bit": identical,
        "runtime_differs": differs,
    }
    return {**found, "text": _sentence(found)}


def _save_checkpoint(
    trainer: Trainer, checkpoints: Checkpoints, result: EpochResult, best: dict[str, Any] | None
) -> dict[str, Any]:
    """Saves the trainer's state and the best epoch so far; returns the latter."""
    state = trainer.state()
    if best is None or result.psnr_db > best["psnr_db"]:
        best = {"epoch": result.epoch, "psnr_db": result.psnr_db, "weights": state["model"]}
    checkpoints.save({"trainer": state, "best": best}, result.epoch)
    return best


def _resume(trainer: Trainer, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """Restores the last checkpoint; returns the best epoch until then, None without one."""
    state = checkpoints.latest()
    if state is None:
        return None
    try:
        trainer.restore(state["trainer"])
    except CheckpointError as e:
        log.warning("seed %d starts over: %s", checkpoints.number, e)
        return None
    best: dict[str, Any] = state["best"]
    return best


def _sentence(found: Mapping[str, Any]) -> str:
    epochs, recorded = found["epochs_compared"], found["recorded_db"]
    if found["to_the_bit"]:
        return (
            f"reproduces the search's {recorded:.2f} dB to the bit (epoch {found['epoch']}; "
            f"{epochs} epochs compared)"
        )
    why = ", ".join(f"{k} {a} -> {b}" for k, (a, b) in found["runtime_differs"].items())
    return (
        f"{found['difference_db']:+.4f} dB from the search's {recorded:.2f} dB at epoch "
        f"{found['epoch']}; " + (f"differs from the search: {why}" if why else "same runtime")
    )
