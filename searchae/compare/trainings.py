"""The trainings that a comparison needs: each done once, kept on disk, taken up where it ended."""

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

from searchae.compare.kept_training import (
    RecordError,
    TrainingRecord,
    read_record,
    shown,
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
    """How far the trainings are.

    Attributes:
        number: Of the training that runs, from 1.
        of: Trainings in all that had to be done.
        trial: Of the one that runs.
        seed: The same.
        seconds_left: Estimated, this one included; None before the first has ended, where the
            search recorded no times.
    """

    number: int
    of: int
    trial: int
    seed: int
    seconds_left: float | None


class TrainingStore:
    """Trainings of a study's trials over seeds, kept in the artifact folder.

    A training is known by what decides its result: trial, parameters, seed, epochs, data,
    device, precision, kernels, threads and versions; one that is there is not done again.
    """

    def __init__(
        self,
        stored: StoredStudy,
        plans: Mapping[int, RetrainPlan],
        seeds: Sequence[int],
        folder: Path,
    ) -> None:
        """Names what is wanted; nothing is read or trained yet.

        Args:
            stored: The study.
            plans: Trial number -> how it is trained; their own seeds do not matter.
            seeds: Each trial is trained with each.
            folder: Where trainings are kept; created where it is needed.
        """
        self._stored, self._plans, self._folder = stored, plans, folder
        # Seed by seed: what is there after an interruption covers all trials.
        self.wanted = [(trial, seed) for seed in seeds for trial in plans]

    def missing(self) -> list[tuple[int, int]]:
        """Trial and seed of what is still to be trained, in order."""
        return [key for key in self.wanted if self._kept(*key) is None]

    def seconds(self, keys: Sequence[tuple[int, int]]) -> float | None:
        """How long trainings will take, by what the search's trials took; None if unknown."""
        each = {trial: self._trial_seconds(trial) for trial, _ in keys}
        if None in each.values():
            return None
        return sum(each[trial] or 0.0 for trial, _ in keys)

    def train(
        self, *, data_dir: Path, tell: Callable[[PlannedTraining], None], note: ProgressCallback
    ) -> dict[tuple[int, int], TrainingRecord]:
        """Trains what is missing.

        Args:
            data_dir: Where data sets lie.
            tell: Told of each training before it starts.
            note: Told what else goes on.

        Returns:
            Every wanted training, by trial and seed.

        Raises:
            DataError: The images here are not the study's.
            ArtifactsError: The folder cannot be written.
            OutOfMemoryError: A training did not fit on the device.
        """
        kept = {key: self._kept(*key) for key in self.wanted}
        missing = [key for key, record in kept.items() if record is None]
        if missing:
            check_artifact_folder(self._folder)
            splits = self.splits(data_dir, note)
            estimate, started = self.seconds(missing), time.monotonic()
            for done, (trial, seed) in enumerate(missing):
                left = self._left(missing, done, estimate, time.monotonic() - started)
                tell(PlannedTraining(done + 1, len(missing), trial, seed, left))
                kept[trial, seed] = self._train(trial, seed, splits, note)
        return {key: record for key, record in kept.items() if record is not None}

    def splits(self, data_dir: Path, note: ProgressCallback) -> Splits:
        """The study's images, made sure to be the same.

        Raises:
            DataError: They are not.
        """
        spec = self._stored.spec
        splits = load_splits(spec.data, data_dir=data_dir, seed=spec.seed, progress=note)
        require_same_data(splits, self._stored.data_hash)
        return splits

    def _left(
        self, missing: Sequence[tuple[int, int]], done: int, estimate: float | None, spent: float
    ) -> float | None:
        """Seconds left: the search's times, scaled by how it went so far."""
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
        draft = self._folder / "checkpoints" / path.stem
        checkpoints = Checkpoints(draft, seed)
        try:
            run = retrain_once(
                plan, seed, splits, checkpoints=checkpoints, on_epoch=lambda *_: None
            )
        except DivergedError as e:
            note(f"trial {number}, {e}; it counts as the mean training image, as in the search")
            record = _of_nothing(number, seed, splits)
        else:
            verb = FAILURE_VERBS.get(run.ended)
            if verb:
                note(f"trial {number}, seed {seed} {verb}; its best epoch, {run.epoch}, is kept")
            record = _measured(plan, run, splits)
        try:
            write_record(path, record, self._identity(number, seed))
        except OSError as e:
            raise ArtifactsError(f"{path}: cannot be written: {e.strerror or e}") from e
        shutil.rmtree(draft, ignore_errors=True)
        return record

    def _kept(self, number: int, seed: int) -> TrainingRecord | None:
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


def _measured(plan: RetrainPlan, run: RetrainResult, splits: Splits) -> TrainingRecord:
    """A training on the test split, as a bundle of it would be measured."""
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
    clean = to_unit_float(splits.test[shown(len(splits.test))])
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
        pictures=_levels(back),
    )


def _of_nothing(number: int, seed: int, splits: Splits) -> TrainingRecord:
    """What diverged in its first epoch learned nothing: the mean training image for every image."""
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
        pictures=_levels(mean.expand(len(shown(len(splits.test))), -1, -1, -1)),
    )


def _levels(images: Tensor) -> Any:
    """Images in [0, 1] as uint8 (N, C, H, W)."""
    return (images * 255).round().to(torch.uint8).contiguous().numpy()
