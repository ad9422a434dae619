"""MNIST from idx files or archives: no network where they lie, clear refusal where they are off."""

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from searchae.config.data_spec import DataSpec
from searchae.data import mnist
from searchae.data.raw_images import RawImages
from searchae.errors import DataError

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
IMAGES = {
    TRAIN: np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8),
    TEST: np.random.default_rng(1).integers(0, 256, (10, 28, 28), np.uint8),
}


def idx(images: np.ndarray) -> bytes:
    return struct.pack(">4i", 0x803, *images.shape) + images.tobytes()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty MNIST/raw; the small files' checksums count as published; no download."""
    sums = {name: hashlib.md5(idx(images)).hexdigest() for name, images in IMAGES.items()}
    monkeypatch.setattr(mnist, "CHECKSUMS", sums)

    def no_network(*_args: object) -> None:
        raise ConnectionError("the test has no network")

    monkeypatch.setattr(mnist, "_download", no_network)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


def load(raw: Path) -> RawImages:
    return mnist.load_mnist(DataSpec(name="mnist"), raw.parent.parent, 0, print)


def fill(raw: Path, *, packed: bool) -> None:
    for name, images in IMAGES.items():
        if packed:
            (raw / f"{name}.gz").write_bytes(gzip.compress(idx(images)))
        else:
            (raw / name).write_bytes(idx(images))


def check(loaded: RawImages) -> None:
    assert loaded.test is not None
    assert np.array_equal(loaded.train, IMAGES[TRAIN][:, None])
    assert np.array_equal(loaded.test, IMAGES[TEST][:, None])


def test_idx_files_are_read(raw: Path) -> None:
    fill(raw, packed=False)
    check(load(raw))


def test_archives_are_decompressed_beside_and_kept(raw: Path) -> None:
    fill(raw, packed=True)
    check(load(raw))
    assert (raw / TRAIN).read_bytes() == idx(IMAGES[TRAIN])
    assert len(list(raw.iterdir())) == 4
    for archive in raw.glob("*.gz"):
        archive.unlink()
    check(load(raw))


def test_archives_in_a_folder_that_cannot_be_written_to_are_read(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(raw, packed=True)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(mnist, "atomic_file", refuse)
    check(load(raw))
    assert len(list(raw.iterdir())) == 2


@pytest.mark.parametrize("keep", [10, 200, -1])
def test_a_damaged_archive_is_named_and_leaves_nothing(raw: Path, keep: int) -> None:
    fill(raw, packed=True)
    archive = raw / f"{TRAIN}.gz"
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{TRAIN}\.gz \([\d,]+ bytes\) is damaged: .*delete it"):
        load(raw)
    assert not (raw / TRAIN).exists()


def test_an_archive_that_is_not_gzip_is_named(raw: Path) -> None:
    fill(raw, packed=True)
    (raw / f"{TEST}.gz").write_text("<html>moved</html>")
    with pytest.raises(DataError, match=rf"{TEST}\.gz \(18 bytes\) is damaged: Not a gzipped"):
        load(raw)


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_is_far_too_large_is_not_read_to_its_end(raw: Path, packed: bool) -> None:
    fill(raw, packed=packed)
    content = idx(IMAGES[TRAIN]) + bytes(300_000_000)
    if packed:
        (raw / f"{TRAIN}.gz").write_bytes(gzip.compress(content, 1))
    else:
        (raw / TRAIN).write_bytes(content)
    del content
    tracemalloc.start()
    with pytest.raises(DataError, match=f"{TRAIN}.* is damaged: it holds more than 100,000,000"):
        load(raw)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 250e6


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", r"\(0 bytes\) is damaged: it begins with 0x00000000"),
        (b"\0\0\x08\x01" + bytes(50), "begins with 0x00000801, not with 0x00000803"),
        (idx(IMAGES[TRAIN])[:-5], "30 images of 28 x 28 take 23,536 bytes, not 23,531"),
        (idx(IMAGES[TRAIN]) + b"x", "take 23,536 bytes, not 23,537"),
        (idx(IMAGES[TRAIN])[:-1] + b"!", "its checksum is not that of the file from http"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_was_found(
    raw: Path, content: bytes, found: str
) -> None:
    fill(raw, packed=False)
    (raw / TRAIN).write_bytes(content)
    with pytest.raises(DataError, match=found) as caught:
        load(raw)
    assert TRAIN in str(caught.value)
    assert "delete it" in str(caught.value)


def test_without_files_and_network_it_says_where_to_put_what(raw: Path) -> None:
    (raw / TEST).write_bytes(idx(IMAGES[TEST]))
    with pytest.raises(DataError) as caught:
        load(raw)
    message = str(caught.value)
    assert f"mnist: could not fetch MNIST/raw/{TRAIN}: the test has no network" in message
    assert str(raw / f"{TRAIN}.gz") in message
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/" in message
    assert "--study quickstart" in message


def test_the_published_checksums_are_md5_of_both_files() -> None:
    assert set(mnist.CHECKSUMS) == {TRAIN, TEST}
    assert all(len(md5) == 32 for md5 in mnist.CHECKSUMS.values())
