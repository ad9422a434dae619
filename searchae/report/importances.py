"""How much each searched parameter distinguishes the best trials from the others."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from searchae.formatting import format_count

MIN_TRIALS, TOP_SHARE, MIN_TOP = 10, 0.1, 12
"""Ended trials needed; share of the trials that count as the best; and at least so many."""


_HAS_TARGET_QUANTILE = (
    "target_quantile" in inspect.signature(PedAnovaImportanceEvaluator).parameters
)


@dataclass(frozen=True)
class Importances:
    """How much each searched parameter distinguishes the best trials from the others.

    Attributes:
        shares: Share of the importance by parameter name, the largest first; their sum is 1.
            Empty if it is not known.
        top: How many of the best trials were compared with all.
        trials: How many trials had ended.
        missing: Why there are no shares; empty if there are.
    """

    shares: dict[str, float]
    top: int = 0
    trials: int = 0
    missing: str = ""


def parameter_importances(trials: Sequence[FrozenTrial]) -> Importances:
    """Estimates the parameters' importances by PED-ANOVA (Watanabe et al. 2023).

    PED-ANOVA supports conditional parameters. It compares the best tenth of the trials with all of
    them; here at least twelve, or half of all if there are fewer, because the values of a handful
    of trials are chance. Pruned trials count with their last PSNR: without them, a choice that is
    always pruned would seem not to matter.

    Args:
        trials: The study's own trials, in any state, without those that another program added.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    ended = _with_finite_values([_as_complete(t) for t in trials if t.state in states])
    count = len(ended)
    if count < MIN_TRIALS:
        return Importances(
            {},
            trials=count,
            missing=f"{format_count(count, 'trial')} ended; importances take at least {MIN_TRIALS}",
        )
    if len({t.values[0] for t in ended}) == 1:
        return Importances({}, trials=count, missing="all trials came to the same PSNR")
    if not any(t.params for t in ended):
        return Importances({}, trials=count, missing="nothing was searched")
    top = _top([t.values[0] for t in ended])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental; a choice that only one trial has
        shares = get_param_importances(
            _in_memory_study(ended),
            evaluator=_evaluator((top - 0.5) / count),
        )
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return Importances({name: float(share) for name, share in ordered}, top=top, trials=count)


def _evaluator(top_share: float) -> PedAnovaImportanceEvaluator:
    """Returns Optuna's evaluator.

    Args:
        top_share: Share of the trials that count as the best, above 0 and below 1.
    """
    evaluator: Any = PedAnovaImportanceEvaluator
    # Optuna renamed the argument in 4.7.
    name = "target_quantile" if _HAS_TARGET_QUANTILE else "baseline_quantile"
    return cast(PedAnovaImportanceEvaluator, evaluator(**{name: top_share}))


def _top(values: Sequence[float]) -> int:
    """Returns how many trials are the best ones; fewer than all."""
    count = len(values)
    cut = max(math.ceil(TOP_SHARE * count), min(MIN_TOP, count // 2))
    lowest = sorted(values, reverse=True)[cut - 1]
    top = sum(v >= lowest for v in values)
    # Trials that ended badly all have the same value, and may be more than half.
    return top if top < count else sum(v > lowest for v in values)


def _with_finite_values(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials with a value; those that ended badly come to the worst one, less 1 dB."""
    finite = [t.values[0] for t in trials if t.values and math.isfinite(t.values[0])]
    for trial in trials:
        if trial.values and not math.isfinite(trial.values[0]):
            trial.values = [min(finite, default=0.0) - 1.0]
    return [t for t in trials if t.values]


def _as_complete(trial: FrozenTrial) -> FrozenTrial:
    """Returns a copy in state COMPLETE, the only state that Optuna's importances consider."""
    ended = copy.copy(trial)
    psnr_db = _final_psnr_db(trial)
    ended.state = TrialState.COMPLETE
    ended.values = None if psnr_db is None else [psnr_db]  # of several objectives the PSNR
    return ended


def _final_psnr_db(trial: FrozenTrial) -> float | None:
    """Returns a trial's last finite PSNR in dB; None if it has none."""
    if trial.values:
        return float(trial.values[0])
    finite = [v for _, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
    return finite[-1] if finite else None


def _in_memory_study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Returns a study in memory with these trials."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(storage=_GivenTrials(trials), direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)


class _GivenTrials(optuna.storages.InMemoryStorage):
    """Returns the given trials as they are: Optuna copies each that is added, in 0.2 ms.

    Args:
        trials: All trials of the only study.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._given = list(trials)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  # Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Returns the trials in one of the states; in any, if it is None."""
        del study_id, deepcopy
        return [t for t in self._given if states is None or t.state in states]
