"""Pictures of a study's best trials, in the folder that its workers share."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from searchae.files import atomic_file

PICTURES_KEPT = 20
"""Trials of a study whose pictures are kept: its best."""
_PSNR = "psnr_db"


def gallery_folder(artifacts: Path, study: str) -> Path:
    """Where the pictures of a study's best trials are kept."""
    return artifacts / study / "pictures"


def picture_path(folder: Path, number: int) -> Path:
    """A trial's picture in that folder."""
    return folder / f"{number:06d}.png"


def best_trials(psnrs_db: Mapping[int, float]) -> dict[int, float]:
    """The ``KEPT`` best trials, the first among equals, the best first.

    Args:
        psnrs_db: Number of each trial with a result -> its PSNR in dB.
    """
    lowest_db = min(heapq.nlargest(PICTURES_KEPT, psnrs_db.values()), default=0.0)
    among = [number for number, psnr_db in psnrs_db.items() if psnr_db >= lowest_db]
    order = sorted(among, key=lambda number: (-psnrs_db[number], number))
    return {number: psnrs_db[number] for number in order[:PICTURES_KEPT]}


def save_picture(folder: Path, number: int, picture: Image.Image, *, psnr_db: float) -> None:
    """Writes a trial's picture; it carries the trial's PSNR.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = PngInfo()
    about.add_text(_PSNR, repr(psnr_db))
    with atomic_file(picture_path(folder, number)) as file:
        # Half the time of the usual level, for a tenth more bytes: a worker waits for it.
        picture.save(file, format="PNG", pnginfo=about, compress_level=1)


def read_picture(folder: Path, number: int, *, psnr_db: float) -> bytes | None:
    """A trial's picture as PNG.

    Args:
        folder: The study's pictures.
        number: The trial's.
        psnr_db: Its PSNR: a picture with another one is of an older study of the same name.

    Returns:
        The file's bytes; None where there is none of this trial.
    """
    file = picture_path(folder, number)
    return file.read_bytes() if _belongs(file, psnr_db) else None


def trials_with_picture(folder: Path, psnrs_db: Mapping[int, float]) -> set[int]:
    """The trials that have a picture.

    Args:
        folder: The study's pictures.
        psnrs_db: As for ``best``.
    """
    found = {int(f.stem): f for f in folder.glob("[0-9]*.png") if f.stem.isdecimal()}
    return {n for n, file in found.items() if n in psnrs_db and _belongs(file, psnrs_db[n])}


def keep_best_pictures(folder: Path, psnrs_db: Mapping[int, float]) -> None:
    """Removes the pictures of trials that are not among the best.

    Args:
        folder: The study's pictures.
        psnrs_db: As for ``best``. Trials that it does not know are left alone: they ended since.

    Raises:
        OSError: A file cannot be removed.
    """
    wanted = best_trials(psnrs_db)
    for file in folder.glob("[0-9]*.png"):
        number = int(file.stem) if file.stem.isdecimal() else -1
        if number in psnrs_db and not (number in wanted and _belongs(file, wanted[number])):
            file.unlink(missing_ok=True)


def _belongs(file: Path, psnr_db: float) -> bool:
    try:
        with Image.open(file) as image:
            return bool(image.info.get(_PSNR) == repr(psnr_db))
    except (OSError, SyntaxError, ValueError):  # gone since it was listed, or no picture
        return False
