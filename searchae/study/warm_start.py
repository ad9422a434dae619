"""Warm start: a finished study's trials, put into a new one that can take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config import StudySpec, params_of_trial, stored_value
from searchae.errors import StudyMismatchError
from searchae.search import can_take, to_distribution
from searchae.study.attributes import IMPORTED, OUTCOME, WARM_START

if TYPE_CHECKING:
    from searchae.study.stored import StoredStudy


def check_warm_start(source: StoredStudy, *, data_hash: str) -> None:
    """Refuses trials that were measured on other images.

    Raises:
        StudyMismatchError: They were.
    """
    if source.data_hash != data_hash:
        raise StudyMismatchError(
            f"--warm-start {source.name}: its trials were measured on other images "
            f"({source.data_hash[:12]}, here {data_hash[:12]}); their PSNRs do not compare"
        )


def import_trials(
    study: optuna.Study, spec: StudySpec, source: StoredStudy, still_held: Callable[[], None]
) -> None:
    """Adds another study's finished trials as far as they fit into this space."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    for trial in source.study.get_trials(deepcopy=False, states=states):
        params = _translate(spec, source.spec, trial)
        if params is None or OUTCOME in trial.user_attrs:
            continue
        study.add_trial(
            create_trial(
                state=trial.state,
                values=trial.values,
                params=params,
                distributions={p.name: to_distribution(p) for p in spec.space if p.name in params},
                intermediate_values=trial.intermediate_values,
                user_attrs={WARM_START: f"{source.name} #{trial.number}"},
            )
        )
        still_held()
    # What is there, not what was added: an answer that was lost leaves one more.
    count = Counter(t.state.name.lower() for t in study.get_trials(deepcopy=False))
    study.set_user_attr(IMPORTED, dict(count))


def _translate(spec: StudySpec, source: StudySpec, trial: FrozenTrial) -> dict[str, Any] | None:
    """A trial of another study as one of this; None where it was trained with something else."""
    trained = params_of_trial(source, trial.params)
    was = {
        f"{s}.{k}": v
        for s, part in (("model", trained.model), ("train", trained.train))
        for k, v in part.model_dump(mode="json").items()
    }
    values = {p.key: was[p.key] for p in spec.space}
    params = {
        p.name: stored_value(p, values[p.key]) for p in spec.space if spec.is_active(p.key, values)
    }
    if any(not can_take(p, params[p.name]) for p in spec.space if p.name in params):
        return None
    now = spec.resolve({k: v for k, v in values.items() if spec.is_active(k, values)})
    return params if now == trained else None
