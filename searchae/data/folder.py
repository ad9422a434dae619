"""``folder``: picture files in a folder and the folders below it."""

from __future__ import annotations

from pathlib import Path

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import find_data_file
from searchae.data.picture_files import PictureFiles, find_pictures, train_and_test_folders
from searchae.data.pictures import Pictures, Preparation, read_pictures, require_readable
from searchae.data.raw_images import RawImages
from searchae.errors import DataError
from searchae.formatting import format_count


def load_folder(
    spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback
) -> RawImages:
    """Loads every picture below ``spec.path``, in the order of the relative paths.

    Each is prepared as ``read_pictures`` says. Hidden files are skipped, and so are test images in
    a folder below ``spec.path``; ``find_pictures`` says which files are pictures.

    Args:
        spec: ``path`` and ``test_path`` are the folders.
        data_dir: The data folder.
        progress: Called before reading, from time to time, and with what was done.

    Returns:
        uint8 (N, C, H, W), with C from 1 to 4: grey or RGB, and transparency where it is kept.

    Raises:
        DataError: A folder is missing or has no picture, or pictures cannot be read; all are named.
    """
    how = Preparation.of(spec)
    train = find_data_file(spec.path or "", data_dir=data_dir, key="data.path").resolve()
    if spec.test_path is None:
        files = find_pictures(train)
        if parts := train_and_test_folders(train):
            progress(
                f"folder: warning: {parts[0]} and {parts[1]} below {train} are read as one and "
                f'split anew; path = "{train / parts[0]}" and test_path = "{train / parts[1]}" '
                "keep them apart"
            )
        return _read(how, [files], data_dir, progress)
    test = find_data_file(spec.test_path, data_dir=data_dir, key="data.test_path").resolve()
    if train.is_relative_to(test):
        raise DataError(
            f"data.test_path: {test} holds the training images too ({train}): "
            "a model must not be tested on what it was trained on"
        )
    return _read(how, [find_pictures(train, without=test), find_pictures(test)], data_dir, progress)


def _read(
    how: Preparation, parts: list[PictureFiles], data_dir: Path, progress: ProgressCallback
) -> RawImages:
    read: list[Pictures] = []
    notes: list[str] = []
    doubts: list[str] = []
    for files in parts:
        count = format_count(len(files.paths), "image")
        progress(f"folder: reading {count} from {files.folder}, each {how.text}")
        if files.left_out:
            progress(f"folder: left out: {files.left_out_text}")
        pictures = read_pictures(
            files.paths,
            how,
            where=f"folder {files.folder}",
            progress=progress,
            scratch=data_dir,
        )
        notes += [*pictures.notes(how), *pictures.advice(how)]
        doubts += pictures.doubts(how, where=str(files.folder))
        read.append(pictures)
    require_readable(*read)
    for note in notes:
        progress(f"folder: {note}")
    test = read[1].images if len(read) > 1 else None
    return RawImages(read[0].images, test, tuple(doubts))
