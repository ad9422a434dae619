"""A search on hosts that are reached by ssh, have nothing of searchae and share nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from searchae.storage.managed_keeper import DATABASE, HOST, USER
from tests.conftest import make_folder
from tests.ssh_hosts import SshHosts, bare_python
from tests.stored_trials import trials

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

TRIALS = 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with all that searchae needs, but without it."""
    return bare_python(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def user() -> Iterator[Path]:
    """The user's folder, which the hosts do not see, but which the database's user can enter."""
    with tempfile.TemporaryDirectory(
        prefix="user-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        yield make_folder(Path(folder))


@pytest.fixture(scope="module")
def hosts(user: Path, base: Path) -> Iterator[SshHosts]:
    with SshHosts(["gpu1", "gpu2"], hidden=[user]) as hosts:
        (user / "hosts.txt").write_text(
            f"# two old machines\ngpu1:1 python={base}\ngpu2 workers=1 python={base}\n"
        )
        yield hosts


def searchae(user: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "searchae", *words],
        cwd=user,
        env={**os.environ, "SEARCHAE_STORAGE": "managed", "SEARCHAE_MANAGED_IDLE_S": "10"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ON_HOSTS = ("--study", "tiny", "--launcher", "ssh", "--hosts", "hosts.txt")


def finish(process: subprocess.Popen[str], timeout_s: float = 600) -> tuple[str, str]:
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    return out, err


def wait_for(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def joined(user: Path) -> int:
    """How many workers have joined the search, by their logs, which come home."""
    logs = (user / "artifacts" / "tiny" / "logs").glob("worker-*.log")
    return sum("joined study 'tiny'" in log.read_text() for log in logs)


def test_a_host_without_searchae_is_refused_with_what_to_do(hosts: SshHosts, user: Path) -> None:
    refused = searchae(user, "tune", *ON_HOSTS, "--dry-run")
    out, err = refused.communicate(timeout=300)
    assert (refused.returncode, out) == (2, "")
    assert "searchae: --hosts: 2 of 2 hosts cannot run workers\n" in err
    for name in hosts.names:
        assert f"{name}: searchae is not installed for " in err
    assert "add --install to have it installed there" in err


def test_from_nothing_a_search_that_loses_a_host_ends_with_the_exact_budget(
    hosts: SshHosts, user: Path
) -> None:
    search = searchae(
        user,
        *("tune", *ON_HOSTS, "--install", "--trials", str(TRIALS), "--json"),
        *("--set", "train.epochs=30", "--set", 'search.pruner="none"'),
    )
    checkpoints = user / "artifacts" / "tiny" / "checkpoints"
    try:
        wait_for(search, lambda: len(list(checkpoints.glob("*.pt"))) >= 2)
        wait_for(search, lambda: joined(user) == len(hosts.names))
        assert all(hosts.processes(name, "searchae worker") for name in hosts.names)
        hosts.cut_power("gpu1")
        out, err = finish(search)
    finally:
        search.kill()
    told = json.loads(out)
    assert told["trials"]["complete"] == TRIALS
    assert told["trials"]["running"] == told["trials"]["waiting"] == 0
    assert told["storage"] == "managed"
    assert "gpu1: installing searchae" in err
    assert "gpu1: sending the images" in err
    assert "gpu1: the connection is lost" in err
    # The trial that gpu1 had began again at the last epoch that had come home.
    assert told["epochs"]["repeated"] < 30
    assert not list(checkpoints.glob("*.pt"))
    hosts.start("gpu1")


def test_the_winner_is_trained_on_hosts_and_its_bundle_is_here(hosts: SshHosts, user: Path) -> None:
    words = ("--seeds", "2", "--epochs", "4", "--out", "best", "--install", "--json")
    out, err = finish(searchae(user, "train", *ON_HOSTS, *words))
    assert json.loads(out)["seeds"]["count"] == 2
    assert (user / "best" / "model.safetensors").exists()
    assert "installing" not in err.replace("gpu1: installing", ""), "gpu2 has it"


def hosts_of(user: Path, study: str) -> set[str]:
    """The hosts that have trained a study's trials."""
    settings = json.loads((user / "searchae-postgres" / "settings.json").read_text())
    place = f"{USER}:{settings['password']}@{HOST}:{settings['port']}/{DATABASE}"
    found = trials(f"postgresql+psycopg://{place}", study)
    return {t.user_attrs["searchae:runtime"]["host"] for t in found}


def test_a_python_program_searches_on_hosts(hosts: SshHosts, user: Path) -> None:
    program = (
        "import searchae\n"
        "search = searchae.tune('tiny', name='by-python', trials=8, storage='managed',\n"
        "                       launcher='ssh', hosts='hosts.txt', install=True)\n"
        "print(search.status()['trials'], search.best.psnr_db)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=user,
        env={**os.environ, "SEARCHAE_MANAGED_IDLE_S": "10"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'running': 0" in done.stdout
    assert set() < hosts_of(user, "by-python") <= set(hosts.names)
    for name in hosts.names:
        assert re.search(rf"^{name}: 1 worker, searchae .*, database: tunnel$", done.stderr, re.M)


def test_compare_trains_on_hosts(hosts: SshHosts, user: Path) -> None:
    where = ("--launcher", "ssh", "--hosts", "hosts.txt", "--install")
    words = ("--by", "optimizer", "--until", "90", "--no-l1-curve", "--epochs", "2", "--json")
    out, _ = finish(searchae(user, "compare", "-s", "by-python", *where, *words))
    (verdict,) = json.loads(out)["comparisons"]
    assert verdict["parameter"] == "optimizer"
    assert set() < hosts_of(user, "by-python.trainings") <= set(hosts.names)
