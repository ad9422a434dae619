"""Artifacts in an object store, as a user has them there: a real S3 server, real processes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import RunCommand, smooth_images
from tests.processes import wait_for, worker_pids
from tests.s3_server import S3Server
from tests.stored_trials import finished, trials

SEARCH = (
    *("tune", "-s", "tiny", "--trials", "6", "--device", "cpu"),
    # Parameters that follow from a trial's number, whoever trains the others.
    *("--set", "search.sampler=random", "--set", "search.pruner=none"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def variables(server: S3Server, folder: Path) -> dict[str, str]:
    """The environment of a user whose artifacts are in the store."""
    return {
        **server.environment,
        "SEARCHAE_ARTIFACTS": server.url(folder.name),
        "SEARCHAE_STORAGE": f"sqlite:///{folder / 'searchae.db'}",
    }


@pytest.fixture
def slow_folder(folder: Path) -> Path:
    """Trials of many epochs, so that a signal meets them at work."""
    images = smooth_images(600)
    np.savez(folder / "data" / "tiny.npz", x_train=images, x_test=images[:16])
    path = folder / "studies" / "tiny.toml"
    text = path.read_text().replace("channels = [4, 8]", "channels = [16, 32]")
    path.write_text(text.replace("epochs = 3", "epochs = 8"))
    return folder


def started(folder: Path, *words: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "searchae", *words],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def steps(server: S3Server, prefix: str) -> dict[int, list[int]]:
    """The steps of each trial's checkpoints in the store."""
    found: dict[int, list[int]] = {}
    for key in server.keys(f"{prefix}/"):
        if match := re.search(r"/checkpoints/(\d+)-(\d+)-", key):
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return found


@pytest.mark.fleet
@pytest.mark.timeout(600)  # on a busy machine
def test_a_killed_worker_s_trial_goes_on_from_the_store_to_the_same_bit(
    slow_folder: Path, server: S3Server, variables: dict[str, str], new_process: RunCommand
) -> None:
    """While one call in ten is refused, and the store is away for some seconds."""
    alone = new_process(
        *(*SEARCH, "--workers", "1", "--artifacts", "on-disk"),
        SEARCHAE_STORAGE=f"sqlite:///{slow_folder / 'alone.db'}",
        timeout=280,
    )
    assert alone.returncode == 0, alone.stderr
    url, prefix = variables["SEARCHAE_STORAGE"], slow_folder.name
    server.refused_share = 0.1
    running = started(slow_folder, *SEARCH, "--workers", "2", variables=variables)
    most = Counter[int]()

    def frozen() -> list[int]:
        """The two workers, stopped while both trials have checkpoints; none if they have not."""
        pids = worker_pids(running)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if len(pids) == 2 and sum(max(s) >= 2 for s in steps(server, prefix).values()) == 2:
            return pids
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        return []

    try:
        wait_for(lambda: sum(max(s) >= 2 for s in steps(server, prefix).values()) >= 2, seconds=120)
        while not (both := frozen()):
            assert running.poll() is None, "it ended before both had checkpoints at once"
            time.sleep(0.1)
        victim, other = both
        words = Path(f"/proc/{victim}/cmdline").read_text()
        os.kill(victim, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        wait_for(lambda: finished(url) >= 2, seconds=120)
        server.stop()
        time.sleep(4)
        server.start()
        while running.poll() is None:
            for number, found in steps(server, prefix).items():
                most[number] = max(most[number], len(found))
            time.sleep(0.1)
        told, progress = running.communicate(timeout=10)
    finally:
        if server.is_away:
            server.start()
        server.refused_share = 0.0
        running.kill()
    assert running.returncode == 0, progress
    same = [(t.params, t.value, t.intermediate_values) for t in trials(url)]
    assert same == [
        (t.params, t.value, t.intermediate_values)
        for t in trials(f"sqlite:///{slow_folder / 'alone.db'}")
    ]
    assert server.refused > 0
    logs = "".join(p.read_text() for p in (slow_folder / "artifacts").rglob("*.log"))
    assert re.search(r"trial \d+: goes on after epoch \d+", logs), "not from its start"
    # The newest, the one before, and a third while it is being replaced.
    assert 1 <= max(most.values()) <= 3
    assert steps(server, prefix) == {}
    kinds = Counter(key.split("/")[-2] for key in server.keys(f"{prefix}/"))
    results = sum(t.value is not None and math.isfinite(t.value) for t in trials(url))
    assert kinds.keys() == {"pictures"}
    assert kinds["pictures"] >= results - 1, "that of the killed worker may not have been sent"
    secret = variables["AWS_SECRET_ACCESS_KEY"]
    shown = (
        words,
        told,
        progress,
        logs,
        (slow_folder / "searchae.db").read_bytes().decode("latin"),
    )
    assert not any(secret in text for text in shown)


@pytest.fixture
def searched(searchae: RunCommand, variables: dict[str, str]) -> dict[str, str]:
    done = searchae("tune", "-s", "tiny", "--workers", "2", **variables)
    assert done.returncode == 0, done.stderr
    assert "another study's" not in done.stderr
    return variables


def test_a_study_s_files_are_in_the_store_alone_and_go_with_it(
    searched: dict[str, str], searchae: RunCommand, server: S3Server, folder: Path
) -> None:
    prefix = searched["SEARCHAE_ARTIFACTS"].rpartition("/")[2]
    keys = server.keys(f"{prefix}/")
    assert {key.split("/")[-2] for key in keys} == {"pictures"}
    local = {p.suffix for p in (folder / "artifacts").rglob("*") if p.is_file()}
    assert local == {".log"}

    page = searchae("report", "-s", "tiny", "--out", "r.html", **searched)
    assert page.returncode == 0, page.stderr
    assert "no pictures in it" not in page.stderr
    listed = json.loads(searchae("studies", "--json", **searched).stdout)
    (study,) = listed["studies"]
    assert study["artifact_bytes"] > 1000

    again = searchae("tune", "-s", "tiny", "--name", "other", "--workers", "1", **searched)
    assert again.returncode == 0, again.stderr
    removed = searchae("rm", "tiny", "--yes", "--json", **searched)
    assert removed.returncode == 0, removed.stderr
    assert server.keys(f"{prefix}/tiny-") == []
    assert list((folder / "artifacts").glob("tiny-*")) == [], "nor are its logs"
    assert server.keys(f"{prefix}/other-")


def test_files_are_copied_between_a_store_and_a_folder(
    searched: dict[str, str], searchae: RunCommand, server: S3Server, folder: Path
) -> None:
    there = server.url("copied")
    words = ("copy", "-s", "tiny", "--from", searched["SEARCHAE_STORAGE"], "--to")
    done = searchae(*words, "sqlite:///a.db", "--artifacts-to", "kept", **searched)
    assert done.returncode == 0, done.stderr
    kept = list((folder / "kept").rglob("*.png"))
    assert len(kept) >= 4
    back = searchae(
        *("copy", "-s", "tiny", "--from", "sqlite:///a.db", "--to", "sqlite:///b.db"),
        *("--artifacts", "kept", "--artifacts-to", there),
        **server.environment,
    )
    assert back.returncode == 0, back.stderr
    copied = [key for key in server.keys("copied/") if key.endswith(".png")]
    assert [key.rpartition("/")[2] for key in copied] == sorted(path.name for path in kept)


@pytest.mark.fleet
def test_a_comparison_s_measurements_and_result_are_in_the_store(
    searched: dict[str, str], searchae: RunCommand, server: S3Server, folder: Path
) -> None:
    words = ("compare", "-s", "tiny", "--until", "90", "--no-l1-curve", "--by", "optimizer")
    server.refused_share = 0.1
    done = searchae(*words, "--workers", "1", "--device", "cpu", **searched, timeout=280)
    server.refused_share = 0.0
    assert done.returncode == 0, done.stderr
    prefix = searched["SEARCHAE_ARTIFACTS"].rpartition("/")[2]
    names = [key.split("/", 1)[1] for key in server.keys(f"{prefix}/")]
    assert any(re.fullmatch(r"tiny-\w+/compare/comparison\.json", name) for name in names)
    assert any(re.fullmatch(r"tiny-\w+\.trainings/records/\w+\.npz", name) for name in names)
    assert list((folder / "artifacts").rglob("compare.html")), "a page is opened from a disk"
    page = searchae("report", "-s", "tiny", "--out", "r.html", **searched)
    assert page.returncode == 0, page.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("optimizer: "))
    sentence = re.split(r"[,(\[]", line.removeprefix("optimizer: "))[0].strip()
    assert "adam" in sentence
    assert sentence in (folder / "r.html").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SEARCHAE_ARTIFACTS": "s3://no-such-bucket-of-mine/runs"}, "there is no such bucket"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect to the endpoint"),
        ({"SEARCHAE_ARTIFACTS": "s3://me:hidden@bucket/runs"}, "me:***@bucket"),
        ({"SEARCHAE_ARTIFACTS": "gs://bucket/runs"}, "gcsfs is not installed; pip install gcsfs"),
        ({"SEARCHAE_ARTIFACTS": "ftp://host/runs"}, "Valid: abfs, az, gs, s3"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_at_the_start(
    changes: dict[str, str],
    said: str,
    searchae: RunCommand,
    folder: Path,
    variables: dict[str, str],
) -> None:
    no_files = {"HOME": str(folder), "AWS_CONFIG_FILE": str(folder / "none")}
    done = searchae("tune", "-s", "tiny", **variables | no_files | changes)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "--artifacts" in line]
    assert said in line
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr


def test_a_library_that_is_not_there_is_named(
    new_process: RunCommand, folder: Path, variables: dict[str, str]
) -> None:
    (folder / "blocked" / "s3fs").mkdir(parents=True)
    code = "raise ModuleNotFoundError(\"No module named 's3fs'\")"
    (folder / "blocked" / "s3fs" / "__init__.py").write_text(code)
    path = os.pathsep.join([str(folder / "blocked"), os.environ.get("PYTHONPATH", "")])
    done = new_process("tune", "-s", "tiny", **variables, PYTHONPATH=path)
    assert done.returncode == 2
    assert "pip install '.[s3]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_leaves_nothing_in_the_store(
    searchae: RunCommand, server: S3Server, variables: dict[str, str]
) -> None:
    done = searchae("tune", "-s", "tiny", "--dry-run", **variables)
    assert done.returncode == 0, done.stderr
    assert server.keys(variables["SEARCHAE_ARTIFACTS"].rpartition("/")[2]) == []
