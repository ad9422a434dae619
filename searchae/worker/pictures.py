"""Keeps pictures of the reconstructions of a study's best trials."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from optuna.trial import FrozenTrial
from PIL import Image
from torch import Tensor

from searchae.config import TrialParams
from searchae.errors import DeviceError, OutOfMemoryError
from searchae.files import ArtifactPath, RemotePath
from searchae.search import FinishedTrialCursor
from searchae.study import (
    StoredStudy,
    best_trials,
    gallery_folder,
    keep_best_pictures,
    picture_owner,
    result_db,
    save_picture,
)
from searchae.training import Trainer, device_errors, draw_reconstructions

log = logging.getLogger(__name__)


class BestPictures:
    """Keeps pictures of a study's best trials.

    Args:
        stored: The study.
        artifacts: The folder that all workers share.
        validation: The validation images, uint8 or uint16 (N, C, H, W).
        later: Calls a function in the thread that writes to an object store.
    """

    def __init__(
        self,
        stored: StoredStudy,
        artifacts: ArtifactPath,
        validation: Tensor,
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._stored, self._validation = stored, validation
        self._later = later if isinstance(artifacts, RemotePath) else lambda write: write()
        self._folder = gallery_folder(artifacts, stored.folder)
        self._owner = picture_owner(stored)
        self._cursor, self._psnrs_db = FinishedTrialCursor(), dict[int, float]()

    def update(self, number: int, params: TrialParams, trainer: Trainer | None) -> None:
        """Draws a trial that is among the best, and removes pictures of trials that are not.

        A picture that cannot be drawn or written is only logged.

        Args:
            number: The number of a trial that has just ended.
            params: The trial's parameters.
            trainer: The trial's trainer; None without one (in tests).
        """
        psnrs_db = self._results(self._stored.study.get_trials(deepcopy=False))
        best = best_trials(psnrs_db)
        picture = None
        if trainer is not None and number in best:
            try:
                picture = self._drawn(number, params, trainer, psnr_db=best[number])
            except (OSError, DeviceError, OutOfMemoryError) as e:
                log.warning("trial %d: no picture: %s", number, e)
        psnrs_db = dict(psnrs_db)  # the other thread's own
        self._later(lambda: self._write(number, picture, psnrs_db))

    def _write(
        self, number: int, picture: Image.Image | None, psnrs_db: Mapping[int, float]
    ) -> None:
        try:
            if picture is not None:
                psnr_db = psnrs_db[number]
                save_picture(self._folder, number, picture, psnr_db=psnr_db, owner=self._owner)
            keep_best_pictures(self._folder, psnrs_db, owner=self._owner)
        except OSError as e:
            log.warning("trial %d: no picture: %s", number, e)

    def _drawn(
        self, number: int, params: TrialParams, trainer: Trainer, *, psnr_db: float
    ) -> Image.Image:
        with device_errors("drawing reconstructions"):
            return draw_reconstructions(
                trainer.model,
                self._validation,
                noise_std=params.train.noise_std,
                seed=self._stored.spec.seed,
                title=f"trial {number}: {psnr_db:.2f} dB on the validation split",
            )

    def _results(self, trials: Sequence[FrozenTrial]) -> dict[int, float]:
        """Returns number -> PSNR in dB of all trials with a result."""
        ended, _ = self._cursor.read(trials)
        for number in ended:
            psnr_db = result_db(trials[number])
            if psnr_db is not None:
                self._psnrs_db[number] = psnr_db
        return self._psnrs_db
