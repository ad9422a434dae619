"""Chooses the trial to retrain, its epochs, data and seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState

from searchae.config import DataSpec, TrainParams, TrialParams, params_of_trial
from searchae.errors import UserError
from searchae.formatting import format_count, format_duration
from searchae.launch import available_cores
from searchae.study import (
    COMPARED,
    RUNTIME,
    SPLITS,
    WARM_START,
    WINNER,
    ListedTraining,
    StoredStudy,
    best_of,
    find_training_list,
    list_name,
    require_searched,
    trial_row,
)
from searchae.training import Precision, pick_precision

MIN_EPOCHS, DEFAULT_PATIENCE = 100, 10
"""Defaults of a retraining: at least so many epochs; the patience if the study has none."""


@dataclass(frozen=True)
class RetrainPlan:
    """A trial to retrain, and how.

    Attributes:
        stored: The study.
        trial: The trial.
        params: The trial's parameters, with the epochs and patience of this training.
        data: The study's data, perhaps with another number of training images.
        seeds: One training per seed; the first is the study's.
        device: The device of this machine, for measuring the bundle.
        threads: CPU threads of each worker.
        precision: Precision of the training steps.
        study: Name of the study that has the trial: the search, or its list of trainings.
    """

    stored: StoredStudy
    trial: FrozenTrial
    params: TrialParams
    data: DataSpec
    seeds: tuple[int, ...]
    device: torch.device
    threads: int
    precision: Precision
    study: str

    @property
    def seeds_at_once(self) -> int:
        """How many seeds this machine trains at once, unless the user says otherwise."""
        return min(len(self.seeds), max(1, available_cores() // self.threads))

    @property
    def is_searched(self) -> bool:
        """Whether the trial is one of the search."""
        return self.study == self.stored.name

    @property
    def as_searched(self) -> bool:
        """Whether it trains on exactly the study's images."""
        return self.data == self.stored.spec.data

    def notes(self, *, hint_at_winner: bool, workers: int) -> list[str]:
        """Returns what will be trained, as lines for the user.

        Args:
            hint_at_winner: Whether to add that the comparison over seeds had another winner.
            workers: How many seeds are trained at once.
        """
        trial = f"trial {self.trial.number}{'' if self.is_searched else f' of {self.study}'}"
        train, searched = self.params.train, self.stored.spec.epochs
        before = "" if train.epochs == searched else f" (the search had {searched})"
        first, last = self.seeds[0], self.seeds[-1]
        seeds = f"seed {first}"
        if first != last:
            seeds = f"seeds {first} to {last}, of which the bundle gets the weights of {first}"
        can_end = 0 < train.patience < train.epochs
        plateau = f", ended after {train.patience} without improvement" if can_end else ""
        found = [
            f"{trial}: up to {format_count(train.epochs, 'epoch')}{before}"
            f"{plateau}; {seeds}; {self._images_text()}; on {self.device} "
            f"with {format_count(self.threads, 'thread')}"
        ]
        if expected := self._expected_text(workers):
            found.append(expected)
        if train.schedule == "cosine" and train.epochs != searched:
            found.append(
                f'schedule = "cosine": the learning rate falls over {train.epochs} epochs, not '
                f"over the search's {searched}, so that it is another one from the second epoch "
                "on; --epochs search trains as the search did"
            )
        winner = self.stored.study.user_attrs.get(WINNER, {}).get("number", self.trial.number)
        if hint_at_winner and winner != self.trial.number:
            found.append(f"over seeds trial {winner} was better: --trial winner takes that one")
        return found

    def _expected_text(self, workers: int) -> str:
        """Returns the most that it takes, by the trial's epochs; empty if that is not known."""
        row = trial_row(self.stored.spec, self.trial)
        if not (row.seconds and row.epochs and self.as_searched):
            return ""
        most_s = row.seconds / row.epochs * self.params.train.epochs
        most_s *= math.ceil(len(self.seeds) / workers)
        return (
            f"expected: at most about {format_duration(most_s)} with "
            f"{format_count(workers, 'worker')}, as fast as in the search"
        )

    def _images_text(self) -> str:
        """Returns how many images it trains on, as far as that is known before they are read."""
        if self.as_searched:
            count = self.stored.study.user_attrs.get(SPLITS, {}).get("train")
            return "the study's training images" if count is None else f"{count:,} training images"
        images = self.data.train_images
        some = "all training images" if images is None else f"{images:,} training images"
        return f"{some}, {self.data.validation:g} of them held out for validation"

    def identity(self, data_hash: str = "") -> dict[str, Any]:
        """Returns what a bundle's training must have in common with this one to be replaced.

        Args:
            data_hash: Hash of the training's data; empty for the study's.
        """
        return {
            "study": self.study,
            "trial": self.trial.number,
            "data_hash": data_hash or self.stored.data_hash,
            "seed": self.seeds[0],
            "model": self.params.model.model_dump(mode="json"),
            "train": self.params.train.model_dump(mode="json"),
            "precision": self.precision,
        }

    def listed(self) -> list[ListedTraining]:
        """Returns the trainings for a list; the first seed's weights are kept."""
        return [
            ListedTraining(
                params=self.params,
                seed=seed,
                precision=self.precision,
                values=self.trial.params,
                keeps_weights=seed == self.seeds[0],
            )
            for seed in self.seeds
        ]


def plan_retraining(
    stored: StoredStudy,
    *,
    trial: str = "best",
    epochs: str = "",
    patience: int | None = None,
    train_images: str = "",
    validation: float | None = None,
    seeds: int = 1,
    device: torch.device,
    threads: int | None = None,
    precision: str | None = None,
) -> RetrainPlan:
    """Makes a plan from the options of ``searchae train``.

    Args:
        stored: The study.
        trial: ``best``, ``winner``, ``compared``, or a trial's number.
        epochs: A number; ``search`` for the search's own epochs and patience; empty for the
            search's epochs, but at least 100.
        patience: Epochs without improvement until early stopping; None for the study's, or 10 if
            it has none; 0 for no early stopping.
        train_images: Number of training images including those for validation, or ``all``; empty
            for the study's.
        validation: Share of them held out for validation, above 0 and below 1; None for the
            study's.
        seeds: Number of seeds, counted up from the study's.
        device: The device.
        threads: CPU threads; None for as many as the trial had in the search.
        precision: ``auto``, ``fp32`` or ``bf16``; None for the trial's in the search.

    Raises:
        UserError: There is no such trial, it cannot be retrained, or an option is not valid.
    """
    require_searched(stored)
    chosen = find_trial(stored, trial)
    params = params_of_trial(stored.spec, chosen.params)
    params = replace(params, train=_schedule(params.train, epochs=epochs, patience=patience))
    recorded = chosen.user_attrs.get(RUNTIME, {})
    return RetrainPlan(
        stored=stored,
        trial=chosen,
        params=params,
        data=_data_spec(stored.spec.data, train_images, validation),
        seeds=tuple(range(stored.spec.seed, stored.spec.seed + seeds)),
        device=device,
        threads=threads or recorded.get("threads") or torch.get_num_threads(),
        # Studies made before the precision could be chosen used float32.
        precision=pick_precision(precision or recorded.get("precision", "fp32"), device),
        study=list_name(stored) if trial == "compared" else stored.name,
    )


def find_trial(stored: StoredStudy, trial: str) -> FrozenTrial:
    """Finds a trial that can be retrained.

    Args:
        stored: The study.
        trial: ``best``; ``winner``, the best over several seeds by ``searchae compare --top``;
            ``compared``, the best setting that ``searchae compare`` measured, which is in the list
            of trainings; or the trial's number.

    Raises:
        UserError: There is no such trial, or it has no result or ended badly.
    """
    if trial == "compared":
        return _compared_trial(stored)
    trials = stored.study.get_trials(deepcopy=False)
    if trial == "best":
        row = best_of([trial_row(stored.spec, t) for t in trials if WARM_START not in t.user_attrs])
        if row is None:
            raise UserError(
                f"study {stored.name!r}: no trial has trained to its end yet; see searchae status"
            )
        trial = str(row.number)
    if trial == "winner":
        kept = stored.study.user_attrs.get(WINNER)
        if kept is None:
            raise UserError(
                f"--trial winner: study {stored.name!r} has none yet; `searchae compare --study "
                f"{stored.name} --top 10` finds it"
            )
        trial = str(kept["number"])
    if not trial.isdecimal() or int(trial) >= len(trials):
        raise UserError(
            f"--trial {trial}: give best, winner, compared, or a number from 0 to {len(trials) - 1}"
            if trials
            else f"--trial {trial}: study {stored.name!r} has no trials yet"
        )
    found = trials[int(trial)]
    if found.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        state = trial_row(stored.spec, found).state
        raise UserError(f"--trial {trial}: is {state}; give one that is complete or pruned")
    if outcome := trial_row(stored.spec, found).outcome:
        raise UserError(
            f"--trial {trial}: ended badly ({outcome}), and would again; give another one"
        )
    return found


def _compared_trial(stored: StoredStudy) -> FrozenTrial:
    kept, listed = stored.study.user_attrs.get(COMPARED), find_training_list(stored)
    if kept is None or listed is None:
        raise UserError(
            f"--trial compared: no comparison of study {stored.name!r} has ended with a best "
            f"setting; `searchae compare --study {stored.name}` begins one. Type one that "
            "was interrupted again as it was, with its options such as --until. Without --trial "
            "compared the search's best trial is trained"
        )
    found: FrozenTrial = listed.stored.study.get_trials(deepcopy=False)[kept["number"]]
    return found


def _data_spec(spec: DataSpec, train_images: str, validation: float | None) -> DataSpec:
    if validation is not None:
        if not 0 < validation < 1:
            raise UserError(f"--validation {validation:g}: give a share above 0 and below 1")
        spec = spec.model_copy(update={"validation": validation})
    if not train_images:
        return spec
    if train_images != "all" and not (train_images.isdecimal() and int(train_images) > 0):
        raise UserError(f"--train-images {train_images}: give a number above 0, or all")
    count = None if train_images == "all" else int(train_images)
    return spec.model_copy(update={"train_images": count})


def _schedule(train: TrainParams, *, epochs: str, patience: int | None) -> TrainParams:
    """Returns the training parameters with the epochs and patience of a retraining."""
    if epochs == "search":
        if patience is not None:
            raise UserError("--patience: --epochs search has the search's own plateau rule")
        return train
    if epochs and not (epochs.isdecimal() and int(epochs) > 0):
        raise UserError(f"--epochs {epochs}: give a number above 0, or search")
    if train.noise_std and epochs and int(epochs) < train.noise_from_epoch:
        raise UserError(
            f"--epochs {epochs}: the trial's noise begins in epoch {train.noise_from_epoch}; "
            "give at least as many"
        )
    return train.model_copy(
        update={
            "epochs": int(epochs) if epochs else max(MIN_EPOCHS, train.epochs),
            "patience": (train.patience or DEFAULT_PATIENCE) if patience is None else patience,
        }
    )
