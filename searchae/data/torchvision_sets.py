"""``svhn`` and ``cifar10``: public data sets, downloaded and read by torchvision.

torchvision is imported only when it is needed, because that takes seconds. Files are where
torchvision puts them, so that a data folder can be shared with other programs. Complete data sets
are read without using the network, also from a read-only folder.
"""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchae.config import DataSpec, ProgressCallback
from searchae.data.disk import disk_fault
from searchae.data.download import (
    Download,
    check_published,
    damaged,
    fetch,
    not_published,
    require_torchvision,
)
from searchae.data.large_images import new_images, release
from searchae.data.raw_images import Images, RawImages
from searchae.errors import DataError

SVHN_HOME = "http://ufldl.stanford.edu/housenumbers/"
CIFAR10_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"

_SVHN_MB = {"train": 182, "test": 64, "extra": 1330}

_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    zlib.error,
    pickle.UnpicklingError,
)


def load_svhn(spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback) -> RawImages:
    """Loads SVHN's cropped digits: 73,257 training and 26,032 test images of 3 x 32 x 32.

    With ``spec.extra`` the 531,131 images of the further, easier training set come after them.

    Y. Netzer et al., "Reading digits in natural images with unsupervised feature learning", NIPS
    workshop on deep learning and unsupervised feature learning, 2011.

    Args:
        spec: Whether to take the further images.
        data_dir: The data folder.
        progress: Called before a download and before reading.

    Returns:
        uint8 (N, 3, 32, 32).

    Raises:
        DataError: The files cannot be downloaded, or are not the published ones.
    """
    require_torchvision()
    splits = ("train", "test", *(["extra"] if spec.extra else []))
    names = tuple(f"{split}_32x32.mat" for split in splits)
    size_mb = sum(_SVHN_MB[split] for split in splits)
    download = Download("svhn", SVHN_HOME, size_mb, names, names, _download_svhn)
    fetch(download, data_dir=data_dir, progress=progress)
    progress(f"svhn: reading {data_dir}")
    train, test = _svhn(data_dir, "train"), _svhn(data_dir, "test")
    return RawImages(_with_extra(train, data_dir) if spec.extra else train, test)


def load_cifar10(
    _spec: DataSpec, data_dir: Path, _seed: int, progress: ProgressCallback
) -> RawImages:
    """Loads CIFAR-10: 50,000 training and 10,000 test images of 3 x 32 x 32.

    A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Args:
        data_dir: The data folder.
        progress: Called before a download and before reading.

    Returns:
        uint8 (N, 3, 32, 32).

    Raises:
        DataError: The files cannot be downloaded, or are not the published ones.
    """
    require_torchvision()
    from torchvision.datasets import CIFAR10

    checksums = _cifar10_checksums()
    names = tuple(f"{CIFAR10.base_folder}/{name}" for name in checksums)
    by_hand = (CIFAR10.filename,)
    download = Download("cifar10", CIFAR10_HOME, 171, names, by_hand, _download_cifar10)
    fetch(download, data_dir=data_dir, progress=progress)
    progress(f"cifar10: reading {data_dir}")
    folder = data_dir / CIFAR10.base_folder
    # Before anything is unpickled: a pickle from another source may run code.
    check_published({folder / n: md5 for n, md5 in checksums.items()}, home=CIFAR10_HOME)
    return RawImages(_cifar10(data_dir, train=True), _cifar10(data_dir, train=False))


def _download_svhn(staging: Path, _data_dir: Path, missing: tuple[str, ...]) -> None:
    from torchvision.datasets import SVHN
    from torchvision.datasets.utils import download_url

    for url, filename, md5 in SVHN.split_list.values():
        if filename in missing:
            download_url(url, staging, filename, md5)


def _download_cifar10(staging: Path, data_dir: Path, _missing: tuple[str, ...]) -> None:
    """Unpacks the archive from the data folder if a user has put it there; else downloads it."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import (
        check_integrity,
        download_and_extract_archive,
        extract_archive,
    )

    archive, md5 = data_dir / CIFAR10.filename, CIFAR10.tgz_md5
    if not archive.is_file():
        download_and_extract_archive(CIFAR10.url, staging, filename=CIFAR10.filename, md5=md5)
    elif check_integrity(archive, md5):
        extract_archive(archive, staging)
    else:
        raise not_published(archive, home=CIFAR10_HOME)


def _cifar10_checksums() -> dict[str, str]:
    from torchvision.datasets import CIFAR10

    batches = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    return {**batches, CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}


def _svhn(data_dir: Path, split: str) -> Images:
    from scipy.io.matlab import MatReadError
    from torchvision.datasets import SVHN

    _, filename, md5 = SVHN.split_list[split]
    path = data_dir / filename
    check_published({path: md5}, home=SVHN_HOME)
    try:
        images = SVHN(data_dir, split=split).data
    except (*_UNREADABLE, MatReadError) as e:
        raise _unreadable(path, e) from e
    return _checked(images, path)


def _with_extra(train: Images, data_dir: Path) -> Images:
    """Returns the training images and, after them, those of SVHN's extra set."""
    extra = _svhn(data_dir, "extra")
    shape = (len(train) + len(extra), *train.shape[1:])
    both = new_images(shape, train.dtype, folder=data_dir, what=f"svhn: {shape[0]:,} images")
    both[: len(train)], both[len(train) :] = train, extra
    release(both)
    return both


def _cifar10(data_dir: Path, *, train: bool) -> Images:
    from torchvision.datasets import CIFAR10

    folder = data_dir / CIFAR10.base_folder
    try:
        images = CIFAR10(data_dir, train=train).data
    except _UNREADABLE as e:
        raise _unreadable(folder, e) from e
    return _checked(images.transpose(0, 3, 1, 2), folder)


def _unreadable(path: Path, error: Exception) -> DataError:
    # Scipy reports a truncated file as an OSError too, but without an errno.
    if isinstance(error, OSError) and error.errno is not None:
        return disk_fault("cannot read", path, error)
    return damaged(path, error)


def _checked(images: npt.NDArray[Any], path: Path) -> Images:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (3, 32, 32):
        raise damaged(path, f"it holds {images.dtype} of shape {images.shape}, N first")
    return np.ascontiguousarray(images)
