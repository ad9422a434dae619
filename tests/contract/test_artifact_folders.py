"""What a folder of artifacts does on a disk and in an object store: one class of tests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from searchae.errors import ArtifactsError
from searchae.files import (
    ArtifactFolder,
    ArtifactPath,
    RemoteError,
    RemoteFolder,
    RemotePath,
    SharedFolder,
    artifact_folder,
    artifact_path,
    files_here,
)
from searchae.training.checkpoint import Owner
from searchae.training.trial_checkpoints import BackgroundCheckpoints, Checkpoints
from tests.processes import wait_for
from tests.s3_server import S3Server

LIMIT = 2**20


def write(folder: ArtifactFolder, name: str, content: bytes) -> None:
    with folder.writing(name) as file:
        file.write(content)


class FolderContract:
    @pytest.fixture
    def path(self, tmp_path: Path) -> ArtifactPath:
        raise NotImplementedError

    @pytest.fixture
    def folder(self, path: ArtifactPath) -> ArtifactFolder:
        return artifact_folder(path)

    def test_what_is_written_is_read(self, folder: ArtifactFolder) -> None:
        assert folder.names() == []
        write(folder, "b.pt", b"two")
        write(folder, "a.pt", bytes(range(256)) * 500)
        assert folder.names() == ["a.pt", "b.pt"]
        assert folder.sizes() == {"a.pt": 128_000, "b.pt": 3}
        assert folder.reading("a.pt", limit=LIMIT).read() == bytes(range(256)) * 500

    def test_a_file_is_replaced_as_a_whole(self, folder: ArtifactFolder) -> None:
        write(folder, "a.json", b"the old, longer content")
        with folder.writing("a.json") as file:
            file.write(b"new")
            assert folder.reading("a.json", limit=LIMIT).read() == b"the old, longer content"
        assert folder.reading("a.json", limit=LIMIT).read() == b"new"
        assert folder.names() == ["a.json"]

    def test_an_error_while_writing_leaves_nothing(self, folder: ArtifactFolder) -> None:
        write(folder, "a.png", b"whole")
        with pytest.raises(ZeroDivisionError), folder.writing("a.png") as file:
            file.write(b"half" * (1 // 0))
        assert folder.reading("a.png", limit=LIMIT).read() == b"whole"
        assert folder.names() == ["a.png"]

    def test_what_is_not_there_is_said_so(self, folder: ArtifactFolder) -> None:
        with pytest.raises(FileNotFoundError):
            folder.reading("none.pt", limit=LIMIT)
        write(folder, "a.pt", b"1")
        with pytest.raises(FileNotFoundError):
            folder.reading("none.pt", limit=LIMIT)

    def test_removing_is_no_error_where_nothing_is(self, folder: ArtifactFolder) -> None:
        write(folder, "a.pt", b"1")
        folder.remove("a.pt")
        folder.remove("a.pt")
        assert folder.names() == []

    def test_a_file_larger_than_any_of_searchae_s_is_not_read(self, folder: ArtifactFolder) -> None:
        write(folder, "a.pt", b"12345")
        with pytest.raises(OSError, match="has 5 bytes, more than searchae writes"):
            folder.reading("a.pt", limit=4)

    def test_a_folder_inside_is_no_file_of_it(
        self, folder: ArtifactFolder, path: ArtifactPath
    ) -> None:
        write(folder, "a.pt", b"1")
        write(artifact_folder(path / "inner"), "b.pt", b"2")
        assert list(folder.sizes()) == ["a.pt"]

    def test_two_writers_of_one_name_leave_one_of_the_two(self, folder: ArtifactFolder) -> None:
        contents = [bytes([n]) * 100_000 for n in range(4)]
        threads = [threading.Thread(target=write, args=(folder, "a.pt", c)) for c in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert folder.reading("a.pt", limit=LIMIT).read() in contents
        assert folder.names() == ["a.pt"]

    def test_checkpoints_are_the_newest_two_and_are_resumed_from(self, path: ArtifactPath) -> None:
        checkpoints = Checkpoints(path, 7, Owner("identity", "images"))
        other = Checkpoints(path, 8, Owner("identity", "images"))
        other.save({"epoch": 1}, 1)
        for step in range(1, 5):
            checkpoints.save({"epoch": step}, step)
        assert checkpoints.latest() == {"epoch": 4}
        assert checkpoints.newest_epoch() == 4
        names = artifact_folder(path).names()
        assert [name[:13] for name in names] == ["000007-000003", "000007-000004", "000008-000001"]
        sizes = artifact_folder(path).sizes()
        assert checkpoints.size() == sum(sizes[name] for name in names[:2])
        checkpoints.clear()
        assert artifact_folder(path).names() == names[2:]

    def test_a_damaged_checkpoint_and_another_study_s_are_passed_over(
        self, path: ArtifactPath, caplog: pytest.LogCaptureFixture
    ) -> None:
        checkpoints = Checkpoints(path, 7, Owner("identity", "images"))
        checkpoints.save({"epoch": 1}, 1)
        checkpoints.save({"epoch": 2}, 2)
        folder = artifact_folder(path)
        newest = folder.names()[-1]
        content = folder.reading(newest, limit=LIMIT).read()
        write(folder, newest, content[:-1] + bytes([content[-1] ^ 1]))
        assert checkpoints.latest() == {"epoch": 1}
        assert "damaged" in caplog.text
        assert Checkpoints(path, 7, Owner("another", "images")).latest() is None


class TestOnADisk(FolderContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> ArtifactPath:
        path = artifact_path(str(tmp_path / "artifacts")) / "study" / "checkpoints"
        assert isinstance(artifact_folder(path), SharedFolder)
        return path


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def in_s3(s3: S3Server) -> ArtifactPath:
    path = artifact_path(s3.url(uuid4().hex)) / "study" / "checkpoints"
    assert isinstance(artifact_folder(path), RemoteFolder)
    return path


class TestInS3(FolderContract):
    @pytest.fixture
    def path(self, in_s3: ArtifactPath) -> ArtifactPath:
        return in_s3


class TestInS3ThatRefusesOneCallInThree(FolderContract):
    @pytest.fixture
    def path(self, in_s3: ArtifactPath, s3: S3Server) -> Iterator[ArtifactPath]:
        s3.refused_share = 0.3
        yield in_s3
        s3.refused_share = 0.0


def test_a_call_in_three_has_been_refused(s3: S3Server) -> None:
    assert s3.refused > 10


def test_a_large_file_is_sent_in_one_request(in_s3: ArtifactPath, s3: S3Server) -> None:
    """A worker that is killed in the middle leaves no parts, which would be stored for ever."""
    before = len(s3.calls)
    write(artifact_folder(in_s3), "a.pt", bytes(120 * 2**20))
    assert [method for method, _ in s3.calls[before:]] == ["PUT"]
    assert s3.uploads() == 0


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    in_s3: ArtifactPath, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    s3.stop()
    back = threading.Thread(target=_start_once_missed, args=(s3, caplog), daemon=True)
    back.start()
    write(artifact_folder(in_s3), "a.pt", b"1")
    back.join()
    assert artifact_folder(in_s3).names() == ["a.pt"]
    assert all("secret" not in record.getMessage() for record in caplog.records)


def _start_once_missed(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    """Starts a server again once a call to it has failed, however long the first call takes."""
    wait_for(lambda: "s3 store away" in caplog.text)
    s3.start()


@pytest.fixture
def away(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that is away for longer than anything waits."""
    monkeypatch.setattr("searchae.files.remote.BRIEF_S", 0.5)
    monkeypatch.setattr("searchae.training.trial_checkpoints.PATIENT_S", 0.5)
    s3.stop()
    yield
    s3.start()


@pytest.mark.usefixtures("away")
def test_checkpoints_that_cannot_be_sent_cost_a_warning_and_delay_no_epoch(
    in_s3: ArtifactPath,
    s3: S3Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("searchae.files.remote.BRIEF_S", 4.0)  # far above what a call takes here
    checkpoints = Checkpoints(in_s3, 7)
    slowest_s = 0.0
    with BackgroundCheckpoints(checkpoints) as background:
        for step in range(1, 21):
            began = time.monotonic()
            background.save({"epoch": step}, step)
            background.begin()
            slowest_s = max(slowest_s, time.monotonic() - began)
            time.sleep(0.05)
        assert slowest_s < 3
        until = time.monotonic() + 60
        while "trial 7: no checkpoint" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert checkpoints.latest() is None
        assert checkpoints.size() == 0
        s3.start()
        background.save({"epoch": 21}, 21)
        background.wait()
        assert checkpoints.latest() == {"epoch": 21}
        s3.stop()


def test_the_newest_checkpoint_is_sent_before_a_worker_leaves(
    in_s3: ArtifactPath, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, sending = Checkpoints(in_s3, 7), threading.Event()
    save = Checkpoints.save

    def slow(self: Checkpoints, state: dict[str, int], step: int) -> None:
        sending.wait(10)
        save(self, state, step)

    monkeypatch.setattr(Checkpoints, "save", slow)
    with BackgroundCheckpoints(checkpoints) as background:
        for step in (1, 2, 3):
            background.save({"epoch": step}, step)
            background.begin()
        sending.set()
        background.wait()
        assert [name[:13] for name in artifact_folder(in_s3).names()] == [
            "000007-000001",
            "000007-000003",
        ]


@pytest.mark.usefixtures("away")
def test_what_was_given_up_is_then_tried_once_only(
    in_s3: ArtifactPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing the checkpoints of many trials must not keep a worker from its end."""
    monkeypatch.setattr("searchae.files.remote.BRIEF_S", 2.0)
    folder = artifact_folder(in_s3)
    with pytest.raises(RemoteError):
        folder.names()
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(RemoteError):
            folder.remove("a.pt")
    assert time.monotonic() - began < 15, "ten times two seconds, if each were waited for"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://", "write s3://BUCKET/PREFIX"),
        (str(Path("s3://bucket/runs")), "write s3://bucket/runs, as a text"),
        ("s3:///runs", "write s3://BUCKET/PREFIX"),
        ("s3://bucket/../other", "write s3://BUCKET/PREFIX"),
        ("s4://bucket/runs", "did you mean 's3'"),
        ("http://host/runs", "Valid: abfs, az, gs, s3"),
        ("s3://bucket/runs?token=hidden", "? and # cannot stand"),
        ("s3://bucket/my runs", "spaces"),
        ("s3://me:hidden@bucket/runs", "s3://me:***@bucket/runs: a password in a URL"),
        ("s3://me:hid/den@bucket/runs", "a password in a URL"),
        ("gs://bucket/runs", "gcsfs is not installed; pip install gcsfs"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ArtifactsError) as raised:
        artifact_path(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_urls_and_folders_are_told_apart() -> None:
    path = artifact_path("S3://bucket/runs//of/")
    assert path == RemotePath("s3://bucket/runs/of")
    assert files_here(path) == Path("artifacts")
    assert (path / "a-b.pt").stem == "a-b"
    assert (path / "a" / "b").parent == path / "a"
    assert artifact_path("s3/runs") == Path("s3/runs")
    assert files_here(Path("there")) == Path("there")
