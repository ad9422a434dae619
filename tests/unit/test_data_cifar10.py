"""CIFAR-10: its pickles are read only where their checksums are the published ones.

Tiny batches stand in for the published ones: their checksums are put into torchvision's lists.
"""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from searchae.config.data_spec import DataSpec
from searchae.data import torchvision_sets
from searchae.data.raw_images import RawImages
from searchae.errors import DataError
from tests.unit.data_server import NOWHERE, Server, md5, names, put, serve

__all__ = ["serve"]


def publish_cifar10(monkeypatch: pytest.MonkeyPatch, *, url: str = NOWHERE) -> dict[str, bytes]:
    """Makes tiny batches the published ones; returns the archive and what it holds."""
    batches = {}
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels = np.full((4, 3072), i, np.uint8)
        batches[name] = pickle.dumps({"data": pixels, "labels": [0, 1, 2, 3]})
    meta = pickle.dumps({"label_names": ["a", "b", "c", "d"]})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in {**batches, "batches.meta": meta}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    sums = [[name, md5(data)] for name, data in batches.items()]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(meta)})
    monkeypatch.setattr(CIFAR10, "url", f"{url}/cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.getvalue()))
    return {"cifar-10-python.tar.gz": archive.getvalue()}


def cifar10(folder: Path) -> RawImages:
    return torchvision_sets.load_cifar10(DataSpec(name="cifar10"), folder, 0, print)


def check_cifar10(raw: RawImages) -> None:
    assert raw.test is not None
    assert raw.train.shape == (20, 3, 32, 32)
    assert raw.train[::4, 2, 31, 31].tolist() == [0, 1, 2, 3, 4]
    assert np.all(raw.test == 5)


def test_cifar10_is_fetched_then_read_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    put(server.folder, publish_cifar10(monkeypatch, url=server.url))
    check_cifar10(cifar10(tmp_path / "data"))
    assert names(tmp_path / "data") == {"cifar-10-batches-py"}
    server.asked.clear()
    check_cifar10(cifar10(tmp_path / "data"))
    assert server.asked == []


def test_an_archive_put_there_by_hand_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, publish_cifar10(monkeypatch))
    check_cifar10(cifar10(tmp_path))
    assert names(tmp_path) == {"cifar-10-batches-py", "cifar-10-python.tar.gz"}


def test_a_damaged_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = publish_cifar10(monkeypatch)["cifar-10-python.tar.gz"]
    put(tmp_path, {"cifar-10-python.tar.gz": archive[:-9]})
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz .*is damaged or another file"):
        cifar10(tmp_path)
    assert names(tmp_path) == {"cifar-10-python.tar.gz"}


class Trap:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_foreign_pickle_is_refused_without_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    put(tmp_path / "data", publish_cifar10(monkeypatch))
    cifar10(tmp_path / "data")
    trap = tmp_path / "data" / "cifar-10-batches-py" / name
    trap.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match=rf"{name} .*checksum"):
        cifar10(tmp_path / "data")
    assert not (tmp_path / "sprung").exists()


def test_cifar10_without_network_asks_for_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    publish_cifar10(monkeypatch)
    with pytest.raises(DataError, match=r"data_batch_2 and 5 more: .*refused") as caught:
        cifar10(tmp_path)
    assert str(tmp_path / "cifar-10-python.tar.gz") in str(caught.value)
