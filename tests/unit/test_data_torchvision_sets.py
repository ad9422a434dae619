"""Downloads of SVHN and MNIST: real formats, a real (local) server, and all that may break them.

The tiny files stand in for the published ones: their checksums are put into torchvision's lists.
"""

import errno
import gzip
import io
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision.datasets import MNIST, SVHN

from searchae.config.data_spec import DataSpec
from searchae.data import mnist, torchvision_sets
from searchae.data.raw_images import RawImages
from searchae.errors import DataError
from tests.unit.data_server import NOWHERE, Server, md5, names, put, serve

DIGITS = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 12), np.uint8)

__all__ = ["serve"]


def mat(images: np.ndarray) -> bytes:
    file = io.BytesIO()
    labels = np.arange(1, images.shape[-1] + 1, dtype=np.uint8)[:, None].clip(1, 10)
    scipy.io.savemat(file, {"X": images, "y": labels}, do_compression=True)
    return file.getvalue()


def publish_svhn(
    monkeypatch: pytest.MonkeyPatch, *, url: str = NOWHERE, **files: bytes
) -> dict[str, bytes]:
    """Makes ``files`` (train, test) the published ones of SVHN."""
    files = {"train": mat(DIGITS), "test": mat(DIGITS[..., :5]), **files}
    names = {split: f"{split}_32x32.mat" for split in files}
    listed = {s: [f"{url}/{names[s]}", names[s], md5(data)] for s, data in files.items()}
    monkeypatch.setattr(SVHN, "split_list", listed)
    return {names[split]: data for split, data in files.items()}


def svhn(folder: Path, said: list[str] | None = None) -> RawImages:
    tell = print if said is None else said.append
    return torchvision_sets.load_svhn(DataSpec(name="svhn"), folder, 0, tell)


def check_svhn(raw: RawImages) -> None:
    assert raw.test is not None
    assert raw.train.flags["C_CONTIGUOUS"]
    assert np.array_equal(raw.train, DIGITS.transpose(3, 2, 0, 1))
    assert len(raw.test) == 5


def test_svhn_that_lies_there_is_read_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, publish_svhn(monkeypatch))
    check_svhn(svhn(tmp_path))
    assert names(tmp_path) == {"train_32x32.mat", "test_32x32.mat"}


def test_svhn_is_fetched_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    put(server.folder, publish_svhn(monkeypatch, url=server.url))
    said: list[str] = []
    check_svhn(svhn(tmp_path / "data", said))
    assert "fetching train_32x32.mat, test_32x32.mat into" in said[0]
    assert "(up to 246 MB)" in said[0]
    assert names(tmp_path / "data") == {"train_32x32.mat", "test_32x32.mat"}
    server.asked.clear()
    check_svhn(svhn(tmp_path / "data"))
    assert server.asked == []


def test_only_the_missing_file_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    files = publish_svhn(monkeypatch, url=server.url)
    put(server.folder, files)
    put(tmp_path / "data", {"test_32x32.mat": files["test_32x32.mat"]})
    check_svhn(svhn(tmp_path / "data"))
    assert {a.split()[1] for a in server.asked} == {"/train_32x32.mat"}


def test_the_extra_images_of_svhn_are_trained_on_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    put(server.folder, publish_svhn(monkeypatch, url=server.url, extra=mat(DIGITS[..., 3:7])))
    svhn(tmp_path)
    assert not (tmp_path / "extra_32x32.mat").exists(), "1.3 GB that nobody asked for"
    said: list[str] = []
    spec = DataSpec(name="svhn", extra=True)
    raw = torchvision_sets.load_svhn(spec, tmp_path, 0, said.append)
    assert "fetching extra_32x32.mat into" in said[0]
    both = np.concatenate([DIGITS, DIGITS[..., 3:7]], axis=3)
    assert np.array_equal(raw.train, both.transpose(3, 2, 0, 1))
    assert raw.test is not None
    assert len(raw.test) == 5


def test_processes_that_start_together_fetch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Threads stand in for processes: the lock tells them apart no less."""
    put(server.folder, publish_svhn(monkeypatch, url=server.url))
    done: list[RawImages] = []
    said: list[str] = []

    def start() -> None:
        done.append(svhn(tmp_path / "data", said))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    for raw in done:
        check_svhn(raw)
    assert sum("fetching" in line for line in said) == 1


def test_without_network_it_says_where_to_put_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    publish_svhn(monkeypatch)
    with pytest.raises(DataError) as caught:
        svhn(tmp_path)
    message = str(caught.value)
    assert "svhn: could not fetch train_32x32.mat, test_32x32.mat: " in message
    assert "refused" in message
    assert str(tmp_path / "train_32x32.mat") in message
    assert "http://ufldl.stanford.edu/housenumbers/" in message
    assert "--study quickstart" in message
    assert names(tmp_path) == set()


def test_a_broken_transfer_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    files = publish_svhn(monkeypatch, url=server.url)
    put(server.folder, {**files, "train_32x32.mat": files["train_32x32.mat"][:500]})
    with pytest.raises(DataError, match=r"could not fetch .*File not found or corrupted"):
        svhn(tmp_path / "data")
    assert names(tmp_path / "data") == set()
    put(server.folder, files)
    check_svhn(svhn(tmp_path / "data"))


def test_what_a_killed_process_left_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    put(server.folder, publish_svhn(monkeypatch, url=server.url))
    put(tmp_path / "data" / ".svhn-dead.part", {"train_32x32.mat": b"half"})
    check_svhn(svhn(tmp_path / "data"))
    assert names(tmp_path / "data") == {"train_32x32.mat", "test_32x32.mat"}


def test_a_full_disk_is_told_from_a_missing_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_svhn(monkeypatch)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", full)
    with pytest.raises(DataError, match=r"cannot write to the data folder .*the disk is full"):
        svhn(tmp_path)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("below", ["", "data"])
def test_a_data_folder_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    publish_svhn(monkeypatch)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data folder .*not a folder; choose another --data-dir"):
        svhn(tmp_path / "file" / below)


def test_a_file_with_another_checksum_is_refused_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = publish_svhn(monkeypatch)
    other = mat(DIGITS[..., :3])
    put(tmp_path, {**files, "test_32x32.mat": other})
    with pytest.raises(DataError, match=rf"test_32x32\.mat \({len(other):,} bytes\) is damaged or"):
        svhn(tmp_path)
    assert (tmp_path / "test_32x32.mat").read_bytes() == other


def test_the_published_checksums_of_svhn_are_checked(tmp_path: Path) -> None:
    put(tmp_path, {"train_32x32.mat": mat(DIGITS), "test_32x32.mat": mat(DIGITS)})
    with pytest.raises(DataError, match=r"train_32x32\.mat .*its checksum is not that .*delete it"):
        svhn(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (mat(DIGITS)[:400], r"train_32x32\.mat \(400 bytes\) is damaged"),
        (b"", r"train_32x32\.mat \(0 bytes\) is damaged"),
        (b"<html>404</html>" * 20, r"train_32x32\.mat \(320 bytes\) is damaged"),
        (mat(DIGITS[:16]), r"it holds uint8 of shape \(12, 3, 16, 32\)"),
        (mat(DIGITS.astype(np.float64)), r"it holds float64"),
    ],
)
def test_a_damaged_mat_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, found: str
) -> None:
    put(tmp_path, publish_svhn(monkeypatch, train=content))
    with pytest.raises(DataError, match=found):
        svhn(tmp_path)


def test_mnist_is_fetched_and_its_idx_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    contents = {}
    for split, count in (("train", 12), ("t10k", 5)):
        images = struct.pack(">4i", 0x803, count, 28, 28) + bytes(count * 784)
        contents[f"{split}-images-idx3-ubyte"] = images
        contents[f"{split}-labels-idx1-ubyte"] = struct.pack(">2i", 0x801, count) + bytes(count)
    packed = {f"{name}.gz": gzip.compress(data) for name, data in contents.items()}
    put(server.folder, packed)
    monkeypatch.setattr(MNIST, "mirrors", [f"{NOWHERE}/", f"{server.url}/"])
    monkeypatch.setattr(MNIST, "resources", [(n, md5(data)) for n, data in packed.items()])
    sums = {n: md5(data) for n, data in contents.items() if "images" in n}
    monkeypatch.setattr(mnist, "CHECKSUMS", sums)
    raw = mnist.load_mnist(DataSpec(name="mnist"), tmp_path / "data", 0, print)
    assert raw.train.shape == (12, 1, 28, 28)
    assert names(tmp_path / "data" / "MNIST" / "raw") == set(contents)
    MNIST(tmp_path / "data", download=False)
