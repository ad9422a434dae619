"""Warnings on how a study stands: what waits, what was lost, and what its trials came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from searchae.config import StudySpec
from searchae.formatting import format_count
from searchae.search import why_nothing_is_pruned
from searchae.study.attributes import ERROR
from searchae.study.foreign_trials import INVALID, outcome_of, why_invalid
from searchae.study.snapshot import StudySnapshot

if TYPE_CHECKING:
    from searchae.study.summary import TrialRow


def summary_warnings(
    spec: StudySpec,
    snapshot: StudySnapshot,
    rows: Sequence[TrialRow],
    best: TrialRow | None,
    baseline_db: float,
) -> list[str]:
    """Returns warnings on how a study stands, a line each.

    Args:
        spec: The study's spec.
        snapshot: What was read of the study.
        rows: Its own trials.
        best: The best of them, if one has a result.
        baseline_db: PSNR in dB of the mean training image on the validation split.
    """
    counts, found = snapshot.counts, list[str]()
    is_search = not snapshot.trainings_of
    command = "`searchae tune`" if is_search else "`searchae compare` or `searchae train`"
    if (
        is_search
        and not spec.search.has_several_objectives
        and counts.complete >= 50
        and counts.pruned == 0
    ):
        found.append(
            f"{counts.complete} trials ended and none was pruned: {why_nothing_is_pruned(spec)}"
        )
    bad = sum(bool(r.outcome) and r.outcome != INVALID for r in rows)
    if is_search and counts.finished >= 10 and bad * 2 > counts.finished:
        found.append(
            f"{bad} of {counts.finished} trials ended without a result: the ranges may reach too "
            "far"
        )
    if snapshot.stop_asked and counts.finished < counts.budget:
        found.append(
            f"stopped by {snapshot.stop_asked} (searchae stop): the same {command} command as "
            "before goes on"
        )
    elif counts.waiting and counts.finished >= counts.budget:
        found.append(
            f"{format_count(counts.waiting, 'trial')} waiting beyond the budget of "
            f"{counts.budget}: --trials {counts.finished + counts.waiting} runs them too"
        )
    elif counts.waiting and not counts.running and not snapshot.workers:
        found.append(
            f"{format_count(counts.waiting, 'trial')} waiting to be continued, and no worker is "
            f"alive: the same {command} command as before goes on"
        )
    if counts.paused and not counts.running and not snapshot.workers:
        found.append(
            f"{format_count(counts.paused, 'trial')} paused, and no worker is alive: the same "
            f"{command} command as before goes on with the best of them"
        )
    if counts.running and not snapshot.workers:
        found.append(
            f"{format_count(counts.running, 'trial')} running, and no worker is alive: their "
            f"workers were killed or lost the database. The same {command} command as before "
            "goes on with them"
        )
    if is_search and counts.finished >= counts.budget:
        found += _without_result(best, baseline_db)
    if is_search and (named := _named_by_optuna(spec, snapshot.trials)):
        found.append(named)
    found += [f"a worker left after three failures in a row: {r}" for r in snapshot.quarantined]
    return found


def _named_by_optuna(spec: StudySpec, trials: Sequence[FrozenTrial]) -> str:
    """Returns a warning if Optuna's own ``best_trial`` is not of the study; empty otherwise."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.values]
    named = max(complete, key=lambda t: t.values[0], default=None)
    if spec.search.has_several_objectives or named is None or outcome_of(spec, named) != INVALID:
        return ""
    why = named.user_attrs.get(ERROR) or why_invalid(spec, named)
    return (
        f"Optuna's own best_trial names trial {named.number} ({named.values[0]:.2f} dB), which is "
        f"invalid here and left out: {why}"
    )


def _without_result(best: TrialRow | None, baseline_db: float) -> list[str]:
    """Returns a warning if a search that is over has found nothing that is of use."""
    if best is None or best.psnr_db is None:
        return ["no trial trained to its end: raise --trials or train fewer epochs"]
    if best.psnr_db > baseline_db:
        return []
    return [
        f"no trial came above the mean training image ({baseline_db:.2f} dB), so none has learned "
        "anything yet: train more epochs (train.epochs), or search other learning rates"
    ]
