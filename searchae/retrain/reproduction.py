"""Compares a retraining with the search's results, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from searchae.formatting import format_count
from searchae.study import RUNTIME, WARM_START
from searchae.training import EpochResult


def reproduction(
    trial: FrozenTrial,
    history: Sequence[EpochResult],
    *,
    runtime: Mapping[str, Any],
    reports_per_epoch: int = 1,
) -> dict[str, Any] | None:
    """Compares a retraining with the search's results, epoch by epoch.

    Args:
        trial: The search's trial.
        history: The retraining's epochs, with the search's seed.
        runtime: Device, threads, precision and versions of the retraining.
        reports_per_epoch: See ``SearchSpec``; reports within an epoch are not compared.

    Returns:
        ``epoch`` (the last that both have), ``recorded_db``, ``retrained_db``, ``difference_db``,
        ``epochs_compared``, ``to_the_bit`` (whether all epochs are identical), ``runtime_differs``
        (by name, the search's and this value), and a sentence, ``text``. None if the study has no
        results by epoch, as for a trial imported from another study.
    """
    recorded = {
        step // reports_per_epoch: value
        for step, value in trial.intermediate_values.items()
        if step % reports_per_epoch == 0 and 0 < step // reports_per_epoch <= len(history)
    }
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


def _sentence(found: Mapping[str, Any]) -> str:
    epochs, recorded = found["epochs_compared"], found["recorded_db"]
    if found["to_the_bit"]:
        return (
            f"reproduces the search's {recorded:.2f} dB to the bit (epoch {found['epoch']}; "
            f"{format_count(epochs, 'epoch')} compared)"
        )
    why = ", ".join(f"{k} {a} -> {b}" for k, (a, b) in found["runtime_differs"].items())
    return (
        f"{found['difference_db']:+.4f} dB from the search's {recorded:.2f} dB at epoch "
        f"{found['epoch']}; " + (f"differs from the search: {why}" if why else "same runtime")
    )
