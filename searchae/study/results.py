"""Which trials have a result: the one definition for pictures, tables, reports and comparisons."""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial, TrialState

from searchae.study.attributes import OUTCOME, WARM_START


def is_result(psnr_db: float | None, *, complete: bool, ended_badly: bool, imported: bool) -> bool:
    """Returns whether a trial has a result of its own.

    A trial has a result if this study trained it to its end and measured it: it is complete, its
    PSNR is a finite number, it did not end badly, and it was not imported. Pruned trials have no
    result, only reports. A trial that ended badly (it diverged, died or was too large) is stored as
    complete with infinitely bad values (by earlier versions with the baseline's PSNR), for the
    sampler to learn from; that is not a result.

    Args:
        psnr_db: The trial's value in dB, if any.
        complete: Whether its state is COMPLETE.
        ended_badly: Whether it has an ``OUTCOME``.
        imported: Whether a warm start copied it from another study.
    """
    has_value = psnr_db is not None and math.isfinite(psnr_db)
    return has_value and complete and not ended_badly and not imported


def result_db(trial: FrozenTrial) -> float | None:
    """Returns a trial's PSNR in dB if it has a result, else None; see ``is_result``."""
    psnr_db = trial.values[0] if trial.values else None
    found = is_result(
        psnr_db,
        complete=trial.state == TrialState.COMPLETE,
        ended_badly=OUTCOME in trial.user_attrs,
        imported=WARM_START in trial.user_attrs,
    )
    return psnr_db if found else None


def has_result(trial: FrozenTrial) -> bool:
    """Returns whether a trial has a result; see ``is_result``."""
    return result_db(trial) is not None
