"""What trials that ended badly are worth: less than every trained trial."""

from __future__ import annotations

import json
import math

import sqlalchemy as sa
from optuna.trial import TrialState

from searchae.config import OBJECTIVES, StudySpec
from searchae.storage import trial_values, trials, user_attributes, value_to_row
from searchae.study.attributes import OUTCOME
from searchae.study.foreign_trials import INVALID


def worst_values(spec: StudySpec) -> list[float]:
    """Returns the values of a trial without a result: infinitely bad ones in each objective.

    No finite number is below what every net comes to: the PSNR of one that goes wrong, but does not
    diverge, has no lower bound.
    """
    return [OBJECTIVES[name].score(-math.inf) for name in spec.search.objectives]


def rank_bad_ends_last(connection: sa.Connection, study_id: int, spec: StudySpec) -> int:
    """Gives the trials of a study that ended badly their values anew.

    Earlier versions gave them the baseline's PSNR, which is more than some nets come to.

    Args:
        connection: A connection with an open transaction.
        study_id: The study's id in the database.
        spec: Its spec.

    Returns:
        How many values were changed.
    """
    ended_badly = (
        sa.select(trials.c.trial_id)
        .join(user_attributes, user_attributes.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
        .where(user_attributes.c.key == OUTCOME)
        .where(user_attributes.c.value_json != json.dumps(INVALID))  # it is not searchae's
    )
    changed = 0
    for objective, worst in enumerate(worst_values(spec)):
        number, kind = value_to_row(worst)
        changed += connection.execute(
            sa.update(trial_values)
            .where(trial_values.c.trial_id.in_(ended_badly))
            .where(trial_values.c.objective == objective, trial_values.c.value.is_not(None))
            .values(value=number, value_type=kind)
        ).rowcount
    return changed
