"""The state of a study, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from searchae.study.budget import TrialCounts
from searchae.study.worker_registry import WorkerInfo


@dataclass(frozen=True)
class StudySnapshot:
    """The state of a study, read at one moment.

    Attributes:
        trials: Every trial in order of number, imported ones included; not to be changed.
        counts: The study's budget and its own trials by state.
        workers: The workers alive.
        stopped: Which fault stopped the study; empty if none did.
        stop_asked: Who asked for a stop; empty if nobody did.
        quarantined: Why workers left the study for good, a line each.
        seconds_left: Seconds until the time limit, negative after it; None without one.
        trainings_of: The study whose trainings it lists; empty if it is a search.
        attributes: The study's user attributes.
    """

    trials: Sequence[FrozenTrial]
    counts: TrialCounts
    workers: tuple[WorkerInfo, ...]
    stopped: str
    quarantined: tuple[str, ...]
    seconds_left: float | None
    trainings_of: str = ""
    stop_asked: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What the user calls one of its trials: ``training`` in a list of trainings."""
        return "training" if self.trainings_of else "trial"
