"""One training that is given, not sampled, and how a trial stores it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from searchae.config import ModelParams, TrainParams, TrialParams
from searchae.study.attributes import TRAINING
from searchae.study.stored_study import package_versions

if TYPE_CHECKING:
    from searchae.training import Precision

_VERSIONS = ("searchae", "torch", "numpy")


@dataclass(frozen=True)
class ListedTraining:
    """A training that is given, not sampled: a trial of a list of trainings.

    Attributes:
        params: The parameters, with the epochs and the patience of this training.
        seed: Seed of initialization, shuffling and noise.
        precision: Precision of the training steps.
        is_tested: Whether the weights of the best validation epoch are measured on the test split
            at the end. Otherwise only the validation PSNR counts.
        keeps_weights: Whether these weights are stored with the measurements.
        is_pruned: Whether the training is stopped early once it falls far behind another one of
            the same group.
        group: Trainings of one group differ only in values that are being tuned.
        values: Searched parameters by name as Optuna stores them, for tables and the dashboard.
    """

    params: TrialParams
    seed: int
    precision: Precision
    values: Mapping[str, Any]
    is_tested: bool = True
    keeps_weights: bool = False
    is_pruned: bool = False
    group: str = ""

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that identify the training by all that its result depends on.

        Machines differ in the last bits of a result; that is not part of the identity.
        """
        text = json.dumps(self._identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def document(self) -> dict[str, Any]:
        """Returns the training as JSON values, for the trial's attribute ``TRAINING``."""
        return {"key": self.key, **self._identity(), "group": self.group}

    def _identity(self) -> dict[str, Any]:
        versions = package_versions()
        return {
            "model": self.params.model.document(),
            "train": self.params.train.document(),
            "seed": self.seed,
            "precision": self.precision,
            "is_tested": self.is_tested,
            "keeps_weights": self.keeps_weights,
            "is_pruned": self.is_pruned,
            "versions": {name: versions[name] for name in _VERSIONS},
        }


def training_of(trial: FrozenTrial) -> ListedTraining | None:
    """Returns the training that a trial of a list stores; None for a trial of a search."""
    stored = trial.user_attrs.get(TRAINING)
    if stored is None:
        return None
    return ListedTraining(
        params=TrialParams(ModelParams(**stored["model"]), TrainParams(**stored["train"])),
        seed=stored["seed"],
        precision=stored["precision"],
        values=trial.params,
        is_tested=stored["is_tested"],
        keeps_weights=stored["keeps_weights"],
        is_pruned=stored["is_pruned"],
        group=stored["group"],
    )


def training_key(trial: FrozenTrial) -> str:
    """Returns the key of a listed trial's training; empty for a trial of a search."""
    return str(trial.user_attrs.get(TRAINING, {}).get("key", ""))
