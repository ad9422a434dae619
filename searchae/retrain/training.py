"""One training of the winner, and how it compares with what the search recorded."""

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

BAD_ENDS = {"diverged": "diverged", "dead": "died"}
"""How a training may end without having come to its end, and the verb for it."""


@dataclass(frozen=True, eq=False)
class Retraining:
    """One training.

    Attributes:
        seed: Its seed.
        history: Its epochs.
        epoch: The best one on the validation split, the first among equals.
        weights: Those after it, on the CPU.
        ended: ``epochs``, ``plateau``, ``diverged`` or ``dead``.
    """

    seed: int
    history: tuple[EpochResult, ...]
    epoch: int
    weights: dict[str, Tensor]
    ended: str


OnEpoch = Callable[[int, EpochResult], None]
"""Called with the seed and each epoch's result."""


def retrain_once(
    plan: RetrainPlan, seed: int, splits: Splits, *, checkpoints: Checkpoints, on_epoch: OnEpoch
) -> Retraining:
    """One training, from its last checkpoint if it has one.

    Raises:
        DivergedError: In its first epoch already; later, the best epoch stands.
    """
    trainer = Trainer(
        plan.params,
        train=splits.train,
        validation=splits.validation,
        seed=seed,
        device=plan.device,
        precision=plan.precision,
    )
    kept = _resume(trainer, checkpoints)
    ended = ""
    try:
        for result in trainer.epochs():
            state = {"trainer": trainer.state()}
            if kept is None or result.psnr_db > kept["psnr_db"]:
                kept = {
                    "epoch": result.epoch,
                    "psnr_db": result.psnr_db,
                    "weights": state["trainer"]["model"],
                }
            checkpoints.save({**state, "best": kept}, result.epoch)
            on_epoch(seed, result)
    except DivergedError as e:
        if kept is None:
            raise DivergedError(f"seed {seed}: {e}") from e
        ended = "dead" if isinstance(e, DeadError) else "diverged"
    assert kept is not None  # a training has at least one epoch
    full = len(trainer.history) == plan.params.train.epochs
    return Retraining(
        seed=seed,
        history=tuple(trainer.history),
        epoch=kept["epoch"],
        weights=kept["weights"],
        ended=ended or ("epochs" if full else "plateau"),
    )


def reproduction(
    trial: FrozenTrial, history: Sequence[EpochResult], *, runtime: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Compares a retraining with what the search recorded, epoch by epoch.

    Args:
        trial: Of the search.
        history: Of the retraining with the search's seed.
        runtime: Device, threads and versions here.

    Returns:
        ``epoch`` (the last that both have), ``recorded_db``, ``retrained_db``, ``difference_db``,
        ``epochs_compared``, ``to_the_bit``, ``runtime_differs`` (name -> [there, here]) and a
        sentence, ``text``. None where nothing was recorded here, as of another study's trial.
    """
    recorded = {e: v for e, v in trial.intermediate_values.items() if 0 < e <= len(history)}
    if not recorded or WARM_START in trial.user_attrs:
        return None
    # Of before there was a choice, it was float32 and PyTorch's own kernels.
    there = {"precision": "fp32", "kernels": "torch", **trial.user_attrs.get(RUNTIME, {})}
    differs = {
        name: [there.get(name), here] for name, here in runtime.items() if there.get(name) != here
    }
    epoch = max(recorded)
    retrained = history[epoch - 1].psnr_db
    same = all(history[e - 1].psnr_db == value for e, value in recorded.items())
    found = {
        "epoch": epoch,
        "recorded_db": recorded[epoch],
        "retrained_db": retrained,
        "difference_db": retrained - recorded[epoch],
        "epochs_compared": len(recorded),
        "to_the_bit": same,
        "runtime_differs": differs,
    }
    return {**found, "text": _sentence(found)}


def _resume(trainer: Trainer, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """Goes on from the last checkpoint; the best epoch until then, or None without one."""
    state = checkpoints.latest()
    if state is None:
        return None
    try:
        trainer.restore(state["trainer"])
    except CheckpointError as e:
        log.warning("seed %d starts over: %s", checkpoints.number, e)
        return None
    kept: dict[str, Any] = state["best"]
    return kept


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
