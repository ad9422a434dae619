"""A search that ends by itself: so many trials in a row have brought nothing better."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.formatting import format_count
from searchae.storage import trial_values, trials, user_attributes
from searchae.study.attributes import BUDGET, EARLY_END, OUTCOME, WARM_START
from searchae.study.budget import TrialCounts
from searchae.study.foreign_trials import INVALID
from searchae.study.transaction import StudyTransaction

LEAST_GAIN_DB = 0.05
"""A trial that is better by less, in dB, counts as no better: seeds differ by more."""


@dataclass(frozen=True)
class EarlyEnd:
    """How a search ended by itself.

    Attributes:
        trials: How many trials it has.
        budget: How many it was to have.
        without_gain: ``search.stop_when_stable`` at that time.
        epochs_saved: About how many epochs the others would have taken.
    """

    trials: int
    budget: int
    without_gain: int
    epochs_saved: int

    @property
    def text(self) -> str:
        """The same as a sentence."""
        return (
            f"ended by itself after {self.trials} of {format_count(self.budget, 'trial')}: none of "
            f"the last {self.without_gain} beat the best one before by {LEAST_GAIN_DB} dB "
            f"(search.stop_when_stable; a larger one goes on), about "
            f"{format_count(self.epochs_saved, 'epoch')} saved"
        )


def is_stable(transaction: StudyTransaction, counts: TrialCounts) -> bool:
    """Returns whether the last ``search.stop_when_stable`` trials that ended were no better.

    Args:
        transaction: A transaction that holds the study's lock.
        counts: The study's trials.
    """
    wanted = transaction.search.stop_when_stable
    if wanted is None or counts.finished <= wanted:
        return False
    return trials_without_gain(_results(transaction)) >= wanted


def trials_without_gain(results: Iterable[float | None]) -> int:
    """Counts the trials at the end of a search that were no better than those before them.

    Args:
        results: Of each trial in the order in which they ended: its PSNR in dB; None if it was
            pruned or ended badly.
    """
    best_db, count = None, 0
    for psnr_db in results:
        count += 1
        if psnr_db is not None and (best_db is None or psnr_db >= best_db + LEAST_GAIN_DB):
            best_db, count = psnr_db, 0
    return count


def end_early(transaction: StudyTransaction, counts: TrialCounts) -> None:
    """Lowers the budget to the trials that have ended.

    Args:
        transaction: A transaction that holds the study's lock; nothing runs, waits or is paused.
        counts: The study's trials.
    """
    kept = {
        "trials": counts.finished,
        "budget": counts.budget,
        "without_gain": transaction.search.stop_when_stable,
    }
    transaction.set_attribute(EARLY_END, kept)
    transaction.set_attribute(BUDGET, counts.finished)


def early_end(
    attributes: Mapping[str, Any], counts: TrialCounts, epochs_run: float
) -> EarlyEnd | None:
    """Returns how a search ended by itself; None if it did not, or has gone on since.

    Args:
        attributes: The study's user attributes.
        counts: Its trials.
        epochs_run: Epochs that its trials have trained.
    """
    kept = attributes.get(EARLY_END)
    if not kept or counts.finished < counts.budget or kept["trials"] != counts.finished:
        return None
    each = epochs_run / counts.finished
    return EarlyEnd(**kept, epochs_saved=round(each * (kept["budget"] - kept["trials"])))


def _results(transaction: StudyTransaction) -> list[float | None]:
    """Returns what ``trials_without_gain`` takes; imported and invalid trials are left out."""
    same_trial = trial_values.c.trial_id == trials.c.trial_id
    outcome, imported = user_attributes.alias(), user_attributes.alias()
    query = (
        sa.select(trials.c.state, trial_values.c.value, outcome.c.value_json.label("outcome"))
        .outerjoin(trial_values, same_trial & (trial_values.c.objective == 0))
        .outerjoin(outcome, (outcome.c.trial_id == trials.c.trial_id) & (outcome.c.key == OUTCOME))
        .outerjoin(
            imported, (imported.c.trial_id == trials.c.trial_id) & (imported.c.key == WARM_START)
        )
        .where(trials.c.study_id == transaction.study_id, imported.c.key.is_(None))
        .where(trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED)))
        .order_by(trials.c.datetime_complete, trials.c.number)
    )
    return [
        row.value if row.state == TrialState.COMPLETE and row.outcome is None else None
        for row in transaction.connection.execute(query)
        if row.outcome != json.dumps(INVALID)
    ]
