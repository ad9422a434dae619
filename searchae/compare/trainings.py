"""The trainings that a comparison needs, stored on disk and resumed after an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from searchae.compare.training_record import (
    RecordError,
    TrainingRecord,
    read_record,
    shown_indices,
    write_record,
)
from searchae.config import ProgressCallback
from searchae.data import Splits, load_splits, require_same_data
from searchae.errors import ArtifactsError, DivergedError
from searchae.models import build_model
from searchae.retrain import FAILURE_VERBS, RetrainPlan, RetrainResult, retrain_once
from searchae.study import StoredStudy, package_versions, trial_row
from searchae.training import (
    EVALUATION_BATCH,
    Checkpoints,
    check_artifact_folder,
    evaluate_images,
    gaussian,
    load_weights,
    named_generator,
    noisy,
    psnr_per_image,
    ssim,
    to_unit_float,
)

log = logging.getLogger(__name__)

_VERSIONS = ("searchae", "torch", "numpy")


@dataclass(frozen=True)
class PlannedTraining:
    """A training that is about to start.

    Attributes:
        number: Its position, from 1.
        of: Number of trainings to do.
        trial: The trial's number.
        seed: The seed.
        seconds_left: Estimated seconds for this and the remaining trainings; None if the search
            stored no times and no training has ended.
    """

    number: int
    of: int
    trial: int
    seed: int
    seconds_left: float | None


class TrainingStore:
    """Trainings of a study's trials with several seeds, stored in the artifact folder.

    A training is identified by all that its result depends on: trial, parameters, seed, epochs,
    data, device, precision, kernels, threads and versions. A stored training is not repeated.
    """

    def __init__(
        self,
        stored: StoredStudy,
        plans: Mapping[int, RetrainPlan],
        seeds: Sequence[int],
        folder: Path,
    ) -> None:
        """Lists the trainings; reads and trains nothing.

        Args:
            stored: The study.
            plans: How each trial is trained, by trial number; the plans' seeds are not used.
            seeds: The seeds; each trial is trained with each.
            folder: Folder of the stored trainings, created when needed.
        """
        self._stored, self._plans, self._folder = stored, plans, folder
        # Ordered by seed, so that after an interruption all trials have as many trainings.
        self.wanted = [(trial, seed) for seed in seeds for trial in plans]

    def missing(self) -> list[tuple[int, int]]:
        """Returns trial and seed of the trainings that are not stored, in order."""
        return [key for key in self.wanted if self._read_kept(*key) is None]

    def seconds(self, keys: Sequence[tuple[int, int]]) -> float | None:
        """Estimates the trainings' duration from the search's times; None if it stored none.

        Args:
            keys: Trial and seed of the trainings.
        """
        each = {trial: self._trial_seconds(trial) for trial, _ in keys}
        if None in each.values():
            return None
        return sum(each[trial] or 0.0 for trial, _ in keys)

    def train(
        self,
        *,
        data_dir: Path,
        on_training: Callable[[PlannedTraining], None],
        note: ProgressCallback,
    ) -> dict[tuple[int, int], TrainingRecord]:
        """Trains what is missing.

        Args:
            data_dir: The folder of the data sets.
            on_training: Called before each training.
            note: Called with other progress messages.

        Returns:
            All trainings, by trial and seed.

        Raises:
            DataError: The data here differs from the study's.
            ArtifactsError: The folder cannot be written.
            OutOfMemoryError: A training does not fit on the device.
        """
        kept = {key: self._read_kept(*key) for key in self.wanted}
        missing = [key for key, record in kept.items() if record is None]
        if missing:
            check_artifact_folder(self._folder)
            splits = self.splits(data_dir, note)
            estimate, started = self.seconds(missing), time.monotonic()
            for done, (trial, seed) in enumerate(missing):
                left = self._seconds_left(missing, done, estimate, time.monotonic() - started)
                on_training(PlannedTraining(done + 1, len(missing), trial, seed, left))
                kept[trial, seed] = self._train(trial, seed, splits, note)
        return {key: record for key, record in kept.items() if record is not None}

    def splits(self, data_dir: Path, note: ProgressCallback) -> Splits:
        """Loads the study's data.

        Args:
            data_dir: The folder of the data sets.
            note: Called with progress messages.

        Raises:
            DataError: The data here differs from the study's.
        """
        spec = self._stored.spec
        splits = load_splits(spec.data, data_dir=data_dir, seed=spec.seed, progress=note)
        require_same_data(splits, self._stored.data_hash)
        return splits

    def _seconds_left(
        self, missing: Sequence[tuple[int, int]], done: int, estimate: float | None, spent: float
    ) -> float | None:
        """Estimates the seconds left from the search's times, scaled by the trainings so far."""
        if not done:
            return estimate
        before, after = self.seconds(missing[:done]), self.seconds(missing[done:])
        if before and after is not None:
            return spent * after / before
        return spent * (len(missing) - done) / done

    def _trial_seconds(self, number: int) -> float | None:
        plan = self._plans[number]
        row = trial_row(self._stored.spec, plan.trial)
        if row.seconds is None or not row.epochs:
            return None
        return row.seconds / row.epochs * plan.params.train.epochs

    def _train(
        self, number: int, seed: int, splits: Splits, note: ProgressCallback
    ) -> TrainingRecord:
        plan = self._plans[number]
        torch.set_num_threads(plan.threads)
        path = self._path(number, seed)
        checkpoint_folder = self._folder / "checkpoints" / path.stem
        checkpoints = Checkpoints(checkpoint_folder, seed)
        try:
            run = retrain_once(
                plan, seed, splits, checkpoints=checkpoints, on_epoch=lambda *_: None
            )
        except DivergedError as e:
            note(f"trial {number}, {e}; it counts as the mean training image, as in the search")
            record = _diverged_record(number, seed, splits)
        else:
            if verb := FAILURE_VERBS.get(run.ended):
                note(f"trial {number}, seed {seed} {verb}; its best epoch, {run.epoch}, is kept")
            record = _measured_record(plan, run, splits)
        try:
            write_record(path, record, self._identity(number, seed))
        except OSError as e:
            raise ArtifactsError(f"{path}: cannot be written: {e.strerror or e}") from e
        shutil.rmtree(checkpoint_folder, ignore_errors=True)
        return record

    def _read_kept(self, number: int, seed: int) -> TrainingRecord | None:
        path = self._path(number, seed)
        try:
            return read_record(path, self._identity(number, seed)) if path.exists() else None
        except RecordError as e:
            log.warning("%s is trained again: %s", path, e)
            return None

    def _path(self, number: int, seed: int) -> Path:
        text = json.dumps(self._identity(number, seed), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._folder / f"{number:06d}-{seed}-{digest}.npz"

    def _identity(self, number: int, seed: int) -> dict[str, Any]:
        here = package_versions()
        return {
            **self._plans[number].identity(),
            "seed": seed,
            "versions": {name: here[name] for name in _VERSIONS},
        }


def _measured_record(plan: RetrainPlan, run: RetrainResult, splits: Splits) -> TrainingRecord:
    """Measures a training on the test split, in the same way as a bundle."""
    with torch.device("meta"):
        model = build_model(plan.params.model, image_shape=splits.image_shape)
    layout = load_weights(model, run.weights, device=plan.device)
    noise_std = plan.params.train.noise_std
    found = evaluate_images(
        model,
        splits.test.to(plan.device, memory_format=layout),
        noise_std=noise_std,
        seed=run.seed,
        with_ssim=True,
    )
    clean = to_unit_float(splits.test[shown_indices(len(splits.test))])
    inputs = clean
    if noise_std:
        draws = named_generator(run.seed, "picture noise")
        inputs = noisy(clean, gaussian(tuple(clean.shape), noise_std, draws))
    with torch.inference_mode():
        back = model.decode(model.encode(inputs.to(plan.device, memory_format=layout))).cpu()
    assert found.ssim is not None
    return TrainingRecord(
        trial=plan.trial.number,
        seed=run.seed,
        epoch=run.epoch,
        ended=run.ended,
        history=run.history,
        sparsity=found.sparsity,
        psnr_db=found.psnr_db.numpy(),
        mse=found.mse.numpy(),
        ssim=found.ssim.numpy(),
        pictures=_to_uint8(back),
    )


def _diverged_record(number: int, seed: int, splits: Splits) -> TrainingRecord:
    """Returns the record of a training that diverged in its first epoch.

    Each of its reconstructions counts as the mean training image.
    """
    mean = to_unit_float(splits.train.sum(0, dtype=torch.int64).div(len(splits.train)))[None]
    parts = [to_unit_float(p) for p in torch.split(splits.test, EVALUATION_BATCH)]
    pairs = [(mean.expand_as(p), p) for p in parts]
    return TrainingRecord(
        trial=number,
        seed=seed,
        epoch=0,
        ended="diverged",
        history=(),
        sparsity=1.0,
        psnr_db=torch.cat([psnr_per_image(m, p) for m, p in pairs]).double().numpy(),
        mse=torch.cat([(m - p).square().flatten(1).mean(1) for m, p in pairs]).double().numpy(),
        ssim=torch.cat([ssim(m, p) for m, p in pairs]).double().numpy(),
        pictures=_to_uint8(mean.expand(len(shown_indices(len(splits.test))), -1, -1, -1)),
    )


def _to_uint8(images: Tensor) -> Any:
    """Rounds images in [0, 1] to uint8 (N, C, H, W)."""
    return (images * 255).round().to(torch.uint8).contiguous().numpy()
