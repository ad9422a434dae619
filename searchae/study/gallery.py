"""Pictures of the reconstructions of a study's best trials, in the folder that workers share.

Each file carries the PSNR of its trial. A file with another PSNR belongs to an older study of the
same name, and is treated as missing.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from searchae.files import atomic_file

PICTURES_KEPT = 20
"""How many of a study's best trials keep their picture."""
_PSNR_KEY = "psnr_db"


def gallery_folder(artifacts: Path, study: str) -> Path:
    """Returns the folder of a study's pictures."""
    return artifacts / study / "pictures"


def picture_path(folder: Path, number: int) -> Path:
    """Returns the path of a trial's picture in the folder of its study."""
    return folder / f"{number:06d}.png"


def best_trials(psnrs_db: Mapping[int, float]) -> dict[int, float]:
    """Returns the ``PICTURES_KEPT`` best trials, the best first, then the lowest number.

    Args:
        psnrs_db: Number of each trial with a result -> its PSNR in dB.

    Returns:
        The same, of the best trials only.
    """
    lowest_db = min(heapq.nlargest(PICTURES_KEPT, psnrs_db.values()), default=0.0)
    candidates = [number for number, psnr_db in psnrs_db.items() if psnr_db >= lowest_db]
    order = sorted(candidates, key=lambda number: (-psnrs_db[number], number))
    return {number: psnrs_db[number] for number in order[:PICTURES_KEPT]}


def save_picture(folder: Path, number: int, picture: Image.Image, *, psnr_db: float) -> None:
    """Writes a trial's picture.

    Args:
        folder: The study's pictures; created if missing.
        number: The trial's number.
        picture: The picture.
        psnr_db: The trial's PSNR in dB.

    Raises:
        OSError: The file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata = PngInfo()
    metadata.add_text(_PSNR_KEY, repr(psnr_db))
    with atomic_file(picture_path(folder, number)) as file:
        # Half the time of the default level, for a tenth more bytes: the worker waits for it.
        picture.save(file, format="PNG", pnginfo=metadata, compress_level=1)


def read_picture(folder: Path, number: int, *, psnr_db: float) -> bytes | None:
    """Reads a trial's picture.

    Args:
        folder: The study's pictures.
        number: The trial's number.
        psnr_db: The trial's PSNR in dB.

    Returns:
        The PNG file's bytes; None if the trial has no picture.
    """
    file = picture_path(folder, number)
    return file.read_bytes() if _belongs(file, psnr_db) else None


def trials_with_picture(folder: Path, psnrs_db: Mapping[int, float]) -> set[int]:
    """Returns the numbers of the trials that have a picture.

    Args:
        folder: The study's pictures.
        psnrs_db: Number of each trial with a result -> its PSNR in dB.
    """
    found = {int(f.stem): f for f in folder.glob("[0-9]*.png") if f.stem.isdecimal()}
    return {n for n, file in found.items() if n in psnrs_db and _belongs(file, psnrs_db[n])}


def keep_best_pictures(folder: Path, psnrs_db: Mapping[int, float]) -> None:
    """Removes the pictures of trials that are not among the best.

    Args:
        folder: The study's pictures.
        psnrs_db: Number of each trial with a result -> its PSNR in dB. Pictures of other trials are
            kept: they may have ended since this was read.

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
            return bool(image.info.get(_PSNR_KEY) == repr(psnr_db))
    except (OSError, SyntaxError, ValueError):  # removed since it was listed, or not a picture
        return False
