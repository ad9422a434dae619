"""Warm start: what a new study takes over from another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from searchae.config import (
    StudySpec,
    initial_params,
    params_of_trial,
    stored_value,
    values_of,
)
from searchae.search import SizeLimit, can_take, to_distribution
from searchae.study.attributes import (
    IMPORTED,
    OUTCOME,
    SPLITS,
    STARTED_FROM,
    STARTING,
    WARM_START,
)
from searchae.study.epoch_history import history_columns
from searchae.study.results import result_db

if TYPE_CHECKING:
    from searchae.study.stored_study import StoredStudy


STARTING_POINTS = 5
"""Most trials of a study of other images that a new study trains again, as its first ones."""


def learn_from(
    study: optuna.Study,
    spec: StudySpec,
    source: StoredStudy,
    *,
    data_hash: str,
    check_lock: Callable[[], None],
) -> None:
    """Gives a new study what another one has learned.

    Of a study of the same images the finished trials are imported. PSNRs on other images, or of a
    net of one's own whose code has changed, do not compare: of such a study the best trials become
    the first ones of the new study, which trains them itself.

    Args:
        study: The new study.
        spec: Its spec.
        source: The study to learn from.
        data_hash: SHA-256 of the new study's images, in hexadecimal.
        check_lock: Called after each trial; raises if the lock under which the study is created
            has been lost.
    """
    if has_comparable_results(source, spec, data_hash=data_hash):
        import_trials(study, spec, source, check_lock)
        return
    points = starting_points(spec, source)
    study.set_user_attr(STARTING, len(points))
    for number, params in points.items():
        study.enqueue_trial(params, user_attrs={STARTED_FROM: f"{source.name} #{number}"})
        check_lock()


def has_comparable_results(source: StoredStudy, spec: StudySpec, *, data_hash: str) -> bool:
    """Returns whether another study had the same images, and the same code of a net of one's own.

    Args:
        source: The other study.
        spec: This study's spec.
        data_hash: SHA-256 of this study's images, in hexadecimal.
    """
    return source.data_hash == data_hash and _code_hash(source.spec) == _code_hash(spec)


def _code_hash(spec: StudySpec) -> object:
    return spec.fixed["model"].get("factory_sha256")


def starting_points(spec: StudySpec, source: StoredStudy) -> dict[int, dict[str, Any]]:
    """Returns the best trials of a study of other images that fit into this study's space.

    Args:
        spec: The new study's spec; at most a quarter of its trials are taken.
        source: The study of other images.

    Returns:
        Number in ``source`` -> parameters by name, as Optuna stores them; the best first.
    """
    trials = source.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    scored = [(db, -t.number, t) for t in trials if (db := result_db(t)) is not None]
    entries = range(len(spec.search.first))
    own = [initial_params(spec, i, warm=True) for i in entries]  # they are trained anyway
    found: dict[int, dict[str, Any]] = {}
    for _, _, trial in sorted(scored, key=lambda s: s[:2], reverse=True):
        if len(found) >= max(1, min(STARTING_POINTS, spec.search.trials // 4)):
            break
        params = _params_here(spec, source.spec, trial)
        if params is not None and params not in (*own, *found.values()):
            found[trial.number] = params
    return found


def describe_starting_points(spec: StudySpec, source: StoredStudy) -> str:
    """Returns what ``--warm-start`` does with a study of other images or code, as a sentence."""
    found = starting_points(spec, source)
    other = (
        "other images" if _code_hash(source.spec) == _code_hash(spec) else "other code of the net"
    )
    text = f"--warm-start {source.name}: its PSNRs are of {other} and do not compare"
    if not found:
        return f"{text}, and none of its trials fits into this search: nothing is taken"
    numbers = ", ".join(map(str, found))
    these = "trial" if len(found) == 1 else "trials"
    return f"{text}; the search begins by training its best {these} again ({these} {numbers} there)"


def describe_import(study: optuna.Study, source: StoredStudy) -> str:
    """Returns what ``--warm-start`` took from a study of the same images, as a sentence.

    Args:
        study: The new study.
        source: The study that its trials were imported from.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    there = len(source.study.get_trials(deepcopy=False, states=states))
    taken = min(sum(study.user_attrs.get(IMPORTED, {}).values()), there)
    if not there:
        return f"--warm-start {source.name}: has no finished trials: nothing is taken"
    text = f"--warm-start {source.name}: {taken} of its {there} finished trials"
    if taken == there:
        return f"{text} imported"
    others = "the others" if taken else "they"
    return f"{text} imported; {others} do not fit this search, or ended badly"


def import_trials(
    study: optuna.Study, spec: StudySpec, source: StoredStudy, check_lock: Callable[[], None]
) -> None:
    """Adds the finished trials of another study that fit into this study's search space.

    Trials that ended badly, or whose nets are larger than ``search.max_parameters``, are left out;
    with several objectives also pruned ones.

    Args:
        study: The new study.
        spec: Its spec.
        source: The study to import from.
        check_lock: Called after each trial; raises if the lock under which the study is created
            has been lost.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    shape = source.study.user_attrs.get(SPLITS, {}).get("image_shape")
    image_shape = tuple(shape) if shape else None  # older studies have none
    limit = SizeLimit(spec, image_shape) if image_shape else None
    several = spec.search.has_several_objectives
    for trial in source.study.get_trials(deepcopy=False, states=states):
        params = _params_here(spec, source.spec, trial)
        if params is None or OUTCOME in trial.user_attrs or (limit and not limit.allows(params)):
            continue
        values = _values_here(spec, source.spec, trial, image_shape)
        reports = _reports_here(spec, source.spec, trial)
        if (values is None and several) or (trial.intermediate_values and not reports):
            continue
        study.add_trial(
            create_trial(
                state=trial.state,
                values=values,
                params=params,
                distributions={p.name: to_distribution(p) for p in spec.space if p.name in params},
                intermediate_values=reports,
                user_attrs={WARM_START: f"{source.name} #{trial.number}"},
            )
        )
        check_lock()
    # Counted in the database: a call repeated after a broken connection adds a trial twice.
    count = Counter(t.state.name.lower() for t in study.get_trials(deepcopy=False))
    study.set_user_attr(IMPORTED, dict(count))


def _reports_here(spec: StudySpec, source: StudySpec, trial: FrozenTrial) -> dict[int, float]:
    """Returns the reports of another study's trial by the steps of this one, where it has them."""
    here, there = spec.search.reports_per_epoch, source.search.reports_per_epoch
    return {
        step * here // there: value
        for step, value in trial.intermediate_values.items()
        if step * here % there == 0
    }


def _values_here(
    spec: StudySpec,
    source: StudySpec,
    trial: FrozenTrial,
    image_shape: tuple[int, int, int] | None,
) -> list[float] | None:
    """Returns the values of another study's trial for this study's objectives.

    None if the trial has none, or if this study has several objectives and one of them was not
    measured, as in every pruned trial.
    """
    if not trial.values or not spec.search.has_several_objectives:
        return list(trial.values[:1]) if trial.values else None
    if trial.state == TrialState.PRUNED:
        return None
    known = dict(zip(source.search.objectives, trial.values, strict=True))
    history = history_columns(trial.user_attrs)
    if history:
        known.setdefault("sparsity", history["sparsity"][-1])
    if image_shape is not None:
        from searchae.models import model_size  # torch, which few users of this package need

        size = model_size(params_of_trial(source, trial.params).model, image_shape)
        known |= {"parameters": float(size.parameters), "latent_dim": float(size.latent)}
    wanted = spec.search.objectives
    return [known[name] for name in wanted] if known.keys() >= set(wanted) else None


def _params_here(spec: StudySpec, source: StudySpec, trial: FrozenTrial) -> dict[str, Any] | None:
    """Returns the parameters of another study's trial as this study stores them.

    None if the trial is outside this search space, or was trained with other fixed values.
    """
    trained = params_of_trial(source, trial.params)
    was = values_of(trained)
    if any(p.key not in was for p in spec.space):  # an argument that the other net does not have
        return None
    values = {p.key: was[p.key] for p in spec.space}
    params = {
        p.name: stored_value(p, values[p.key]) for p in spec.space if spec.is_active(p.key, values)
    }
    if any(not can_take(p, params[p.name]) for p in spec.space if p.name in params):
        return None
    now = spec.resolve({k: v for k, v in values.items() if spec.is_active(k, values)})
    # Trials of another code of the net are trained again, see ``learn_from``.
    code = {"factory_sha256": trained.model.factory_sha256}
    now = replace(now, model=now.model.model_copy(update=code))
    return params if now == trained else None
