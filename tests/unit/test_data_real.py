"""Real images, where SEARCHAE_TEST_DATA names a folder that holds them."""

import os
from pathlib import Path

import pytest

from searchae.config.data_spec import DataSpec
from searchae.data.splits import load_splits

FOLDER = os.environ.get("SEARCHAE_TEST_DATA")

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="SEARCHAE_TEST_DATA names no folder with MNIST and cifar10_10k.npz"
)


@pytest.fixture
def real() -> Path:
    return Path(FOLDER or "")


def test_the_published_mnist_is_read_from_its_archives(real: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (real / "MNIST" / "raw").glob("*-images-*.gz"):
        (raw / archive.name).symlink_to(archive)
    splits = load_splits(DataSpec(name="mnist"), data_dir=tmp_path, seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [54000, 6000, 10000]
    assert splits.image_shape == (1, 28, 28)
    # The mean grey of MNIST's training images, as is well known, is 0.1307.
    total = splits.train.double().sum() + splits.validation.double().sum()
    assert float(total / 60000 / 784 / 255) == pytest.approx(0.1307, abs=1e-4)
    assert splits.hash.startswith("c9556016ce9f")


def test_cifar_images_in_kerass_layout_are_read(real: Path) -> None:
    splits = load_splits(DataSpec(name="npz", path="cifar10_10k.npz"), data_dir=real, seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [9000, 1000, 2000]
    assert splits.image_shape == (3, 32, 32)
    # CIFAR-10's channels have the means 0.491, 0.482 and 0.447.
    means = (splits.train.double().mean(dim=(0, 2, 3)) / 255).tolist()
    assert means == pytest.approx([0.491, 0.482, 0.447], abs=0.01)
