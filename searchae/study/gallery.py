"""Pictures of the reconstructions of a study's best trials, in the folder that workers share.

Each file carries the study's identity and the PSNR of its trial. A file with others belongs to
another study of the same name, and is treated as missing.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from searchae.files import AnyPath, ArtifactPath, RemoteError, artifact_folder, below

if TYPE_CHECKING:
    from searchae.study.stored_study import StoredStudy

log = logging.getLogger(__name__)

LARGEST_PICTURE = 2**24
"""Bytes of the largest file that is read; those that searchae draws have a hundredth of that."""
PICTURES_KEPT = 20
"""How many of a study's best trials keep their picture."""
_PSNR_KEY, _OWNER_KEY = "psnr_db", "owner"


def gallery_folder(artifacts: AnyPath, study: str) -> AnyPath:
    """Returns the folder of a study's pictures.

    Args:
        artifacts: The folder that all workers share.
        study: The name of the study's folder in it.
    """
    return below(artifacts, study, "pictures")


def picture_path(folder: AnyPath, number: int) -> AnyPath:
    """Returns the path of a trial's picture in the folder of its study."""
    return below(folder, _file_name(number))


def _file_name(number: int) -> str:
    return f"{number:06d}.png"


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


def picture_owner(stored: StoredStudy) -> str:
    """Returns what a study's pictures are marked with: the study and its images.

    Args:
        stored: The study; the mark is empty for one of an earlier version.
    """
    if not stored.identity:
        return ""
    # The identity itself stays in the database: it also seals checkpoints.
    about = f"picture {stored.identity} {stored.data_hash}".encode()
    return hashlib.sha256(about).hexdigest()[:32]


def save_picture(
    folder: ArtifactPath, number: int, picture: Image.Image, *, psnr_db: float, owner: str = ""
) -> None:
    """Writes a trial's picture.

    Args:
        folder: The study's pictures; created if missing.
        number: The trial's number.
        picture: The picture.
        psnr_db: The trial's PSNR in dB.
        owner: See ``picture_owner``.

    Raises:
        OSError: The file cannot be written.
    """
    metadata = PngInfo()
    metadata.add_text(_PSNR_KEY, repr(psnr_db))
    metadata.add_text(_OWNER_KEY, owner)
    with artifact_folder(folder).writing(_file_name(number)) as file:
        # Half the time of the default level, for a tenth more bytes: the worker waits for it.
        picture.save(file, format="PNG", pnginfo=metadata, compress_level=1)


def read_picture(
    folder: ArtifactPath, number: int, *, psnr_db: float, owner: str = ""
) -> bytes | None:
    """Reads a trial's picture.

    Args:
        folder: The study's pictures.
        number: The trial's number.
        psnr_db: The trial's PSNR in dB.
        owner: See ``picture_owner``.

    Returns:
        The PNG file's bytes; None if the trial has no picture, or another file is in its place.
    """
    try:
        return _read(folder, number, psnr_db=psnr_db, owner=owner)
    except OSError as e:
        _warn(number, e)
        return None


def _read(folder: ArtifactPath, number: int, *, psnr_db: float, owner: str) -> bytes | None:
    """As ``read_picture``, but what keeps a file from being read is raised as ``OSError``."""
    try:
        with artifact_folder(folder).reading(_file_name(number), limit=LARGEST_PICTURE) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            about = image.info.get(_PSNR_KEY), image.info.get(_OWNER_KEY, "")
    # Pillow raises these for a file that is no picture, and the last for one of too many pixels.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        _warn(number, e)
        return None
    return content if about == (repr(psnr_db), owner) else None


def _warn(number: int, error: Exception) -> None:
    log.warning("trial %d: its picture cannot be used: %s", number, error)


def trials_with_picture(
    folder: ArtifactPath, psnrs_db: Mapping[int, float], *, owner: str = ""
) -> set[int]:
    """Returns the numbers of the trials that have a picture.

    Args:
        folder: The study's pictures.
        psnrs_db: Number of each trial with a result -> its PSNR in dB.
        owner: See ``picture_owner``.
    """
    found = _numbers(folder) & psnrs_db.keys()
    return {n for n in found if read_picture(folder, n, psnr_db=psnrs_db[n], owner=owner)}


def keep_best_pictures(
    folder: ArtifactPath, psnrs_db: Mapping[int, float], *, owner: str = ""
) -> None:
    """Removes the pictures of trials that are not among the best.

    Args:
        folder: The study's pictures.
        psnrs_db: Number of each trial with a result -> its PSNR in dB. Pictures of other trials are
            kept: they may have ended since this was read.
        owner: See ``picture_owner``.

    Raises:
        OSError: A file cannot be removed.
    """
    wanted = best_trials(psnrs_db)
    for number in _numbers(folder) & psnrs_db.keys():
        if number not in wanted or not _may_be_used(folder, number, wanted[number], owner):
            artifact_folder(folder).remove(_file_name(number))


def _may_be_used(folder: ArtifactPath, number: int, psnr_db: float, owner: str) -> bool:
    try:
        return _read(folder, number, psnr_db=psnr_db, owner=owner) is not None
    except RemoteError:  # it can be read another time
        return True
    except OSError as e:
        _warn(number, e)
        return False


def _numbers(folder: ArtifactPath) -> set[int]:
    """Returns the numbers of the trials with a file; none where the folder cannot be read."""
    try:
        names = artifact_folder(folder).names()
    except OSError as e:
        log.warning("no picture can be read: %s", e)
        return set()
    return {int(n[:-4]) for n in names if n.endswith(".png") and n[:-4].isdecimal()}
