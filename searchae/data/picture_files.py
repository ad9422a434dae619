"""Finding the picture files below a folder, and counting what is left out."""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from searchae.data.disk import disk_fault
from searchae.errors import DataError
from searchae.formatting import one_line

SUFFIX_FORMATS: Mapping[str, str] = {
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "JPEG"),
    ".gif": "GIF",
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".webp": "WEBP",
    ".avif": "AVIF",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), "PPM"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".j2c"), "JPEG2000"),
    ".qoi": "QOI",
    **dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA"),
}
"""Suffixes of the files that are read -> Pillow's name of the format."""

NAMED_FORMATS = "PNG, JPEG, GIF, BMP, TIFF, WebP, AVIF, PPM, JPEG 2000, QOI or TGA"

_TRAINING_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")

_DANGLING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_Identity = tuple[int, int]


@dataclass(frozen=True)
class PictureFiles:
    """The picture files of a folder.

    Attributes:
        folder: The folder.
        paths: The files in it and below it, in the order of their relative paths.
        left_out: What else is there, in words -> how often. Hidden files do not count.
    """

    folder: Path
    paths: tuple[Path, ...]
    left_out: Mapping[str, int]

    @property
    def left_out_text(self) -> str:
        """What was left out, as ``.txt (3), dangling link (1)``; empty if nothing was."""
        found = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{kind} ({count:,})" for kind, count in found)


def find_pictures(folder: Path, *, without: Path | None = None) -> PictureFiles:
    """Finds the picture files in a folder and below it, by their suffixes.

    Links are followed. A folder that is reached on several ways is read once: where it lies, else
    by the first of its links; links to a folder above are not followed.

    Args:
        folder: The folder; messages name it.
        without: A folder below it that is left out.

    Raises:
        DataError: A folder cannot be read, or there is no picture.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; a folder source needs a folder of images")
    found = _Walk(folder, without)
    found.run()
    files = sorted(found.files, key=lambda p: p.relative_to(folder).as_posix())
    pictures = PictureFiles(folder, tuple(files), found.left_out)
    if not files:
        others = f"; left out: {pictures.left_out_text}" if found.left_out else ""
        raise DataError(
            f"{folder}: there is no image in it, nor below it, in the formats {NAMED_FORMATS}"
            f"{others}"
        )
    return pictures


def train_and_test_folders(folder: Path) -> tuple[str, str] | None:
    """Returns the names of a training and a test folder in a folder, or None if one is lacking.

    Without a folder of test images one of validation images counts, as ImageNet has it.

    Args:
        folder: A folder that can be read.
    """
    names = {name.lower(): name for name in os.listdir(folder)}
    train, test = (
        [names[word] for word in words if word in names and (folder / names[word]).is_dir()]
        for words in (_TRAINING_FOLDERS, _TEST_FOLDERS)
    )
    return (train[0], test[0]) if train and test else None


class _Walk:
    def __init__(self, folder: Path, without: Path | None) -> None:
        self.files: list[Path] = []
        self.left_out: Counter[str] = Counter()
        self._root = folder.resolve()
        self._without = without
        self._entered: set[_Identity] = set()
        # Shown path and real path of folders; real ones come before those behind links.
        self._folders = deque([(folder, self._root)])
        self._links: deque[Path] = deque()

    def run(self) -> None:
        while self._folders or self._links:
            if self._folders:
                self._enter(*self._folders.popleft())
            else:
                self._follow(self._links.popleft())

    def _enter(self, shown: Path, real: Path) -> None:
        if self._without is not None and real.is_relative_to(self._without):
            return
        try:
            status = real.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in self._entered:
                self.left_out["link to a folder that is read already"] += 1
                return
            self._entered.add(identity)
            entries = sorted(os.scandir(real), key=lambda entry: entry.name)
            for entry in entries:
                if not entry.name.startswith("."):
                    self._take(entry, shown / entry.name, real / entry.name)
        except OSError as e:
            raise disk_fault("cannot read", Path(one_line(str(shown))), e) from e

    def _take(self, entry: os.DirEntry[str], shown: Path, real: Path) -> None:
        if entry.is_dir(follow_symlinks=False):
            self._folders.append((shown, real))
        elif entry.is_symlink() and not _exists(real):
            self.left_out["dangling link"] += 1
        elif entry.is_dir():
            self._links.append(shown)
        elif not entry.is_file():
            self.left_out["special file"] += 1
        elif shown.suffix.lower() in SUFFIX_FORMATS:
            self.files.append(shown)
        else:
            suffix = shown.suffix.lower()
            self.left_out[suffix or "file without a suffix"] += 1

    def _follow(self, link: Path) -> None:
        target = link.resolve()
        if self._root.is_relative_to(target):
            self.left_out["link to a folder above"] += 1
        else:
            self._folders.append((link, target))


def _exists(path: Path) -> bool:
    """Whether a link leads to something: it is not dangling, nor endless."""
    try:
        path.stat()
    except OSError as e:
        if e.errno in _DANGLING:
            return False
        raise
    return True
