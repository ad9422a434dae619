"""Two hosts, each in a network and a process namespace of its own, and a link that is cut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from searchae import data
from searchae.config import loader
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, open_study
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.fleet

GRACE_S = 3.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """A bridge with an address of its own, and hosts that hang on it."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid() % 10000}"
        self._bridge = f"sb{self._mark}"
        self._net = f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self._hosts: list[str] = []
        self.address = f"{self._net}.1"
        ip("link", "add", self._bridge, "type", "bridge")
        ip("address", "add", f"{self.address}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")

    def add(self, name: str) -> None:
        """A host that reaches the bridge's address and nothing else."""
        number = len(self._hosts) + 2
        inner, outer, space = f"si{number}{self._mark}", self._outer(name), self._space(name)
        self._hosts.append(name)
        ip("netns", "add", space)
        ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
        ip("link", "set", outer, "master", self._bridge, "up")
        ip("-n", space, "address", "add", f"{self._net}.{number}/24", "dev", inner)
        ip("-n", space, "link", "set", inner, "up")

    def plug(self, name: str, *, into: bool) -> None:
        """Plugs a host's cable in, or pulls it out."""
        ip("link", "set", self._outer(name), "up" if into else "down")

    def run(self, name: str, argv: list[str], **how: Any) -> subprocess.Popen[str]:
        """A process on a host, which sees that host's network, name and processes only."""
        enter = ["ip", "netns", "exec", self._space(name)]
        alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
        called = ["sh", "-c", 'hostname "$0" && exec "$@"', name]
        process: subprocess.Popen[str] = subprocess.Popen(
            [*enter, *alone, *called, *argv], text=True, **how
        )
        return process

    def close(self) -> None:
        """Takes everything down."""
        for name in self._hosts:
            ip("netns", "delete", self._space(name))
        ip("link", "delete", self._bridge)

    def _outer(self, name: str) -> str:
        return f"so{name[-1]}{self._mark}"

    def _space(self, name: str) -> str:
        return f"searchae-{name}-{self._mark}"


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and Debian's iproute2")
    try:
        made = Network()
    except subprocess.CalledProcessError as e:
        pytest.skip(f"no network can be made here: {e.stderr}")
    yield made
    made.close()


@pytest.fixture
def server(network: Network) -> Iterator[PostgresServer]:
    with PostgresServer(listen=[network.address]) as server:
        yield server


def make_study(url: str, folder: Path, budget: int) -> StoredStudy:
    changes = {
        "search.pruner": "none",
        "search.trials": budget,
        "search.heartbeat_s": GRACE_S / 4,
        "search.grace_s": GRACE_S,
        "train.epochs": 12,
    }
    spec = loader.load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    return open_study(connect(url), "tiny", spec=spec, data_hash=splits.hash, baseline_db=10.0)[0]


def hosts_at_work(stored: StoredStudy) -> dict[int, str]:
    """Unfinished trials, and the host that each is trained on."""
    return {
        t.number: t.user_attrs["searchae:runtime"]["host"]
        for t in stored.study.get_trials(deepcopy=False)
        if not t.state.is_finished() and "searchae:runtime" in t.user_attrs
    }


def wait_until(condition: Callable[[], object], workers: Iterable[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        for worker in workers:
            assert worker.poll() is None, worker.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def cut_off(
    stored: StoredStudy, network: Network, workers: dict[str, subprocess.Popen[str]]
) -> int:
    """Cuts host1 off in the middle of a trial; the trial's number."""
    while True:
        wait_until(lambda: "host1" in hosts_at_work(stored).values(), workers.values())
        network.plug("host1", into=False)
        time.sleep(GRACE_S / 4)  # what was under way has arrived
        found = [n for n, host in hosts_at_work(stored).items() if host == "host1"]
        if found:
            return found[0]
        network.plug("host1", into=True)  # between two trials


def test_a_link_cut_for_longer_than_the_grace_loses_and_doubles_nothing(
    network: Network, server: PostgresServer, folder: Path
) -> None:
    budget = 40
    stored = make_study(server.url(), folder, budget)
    ledger = Coordinator(stored)
    workers = {}
    for host in ("host1", "host2"):
        network.add(host)
        workers[host] = network.run(
            host,
            [sys.executable, "-m", "searchae", "worker", "--study", "tiny", "--json"],
            cwd=folder,
            env={**os.environ, "SEARCHAE_STORAGE": server.url(network.address)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    wait_until(lambda: "host2" in hosts_at_work(stored).values(), workers.values())
    number = cut_off(stored, network, workers)
    time.sleep(GRACE_S)
    wait_until(lambda: hosts_at_work(stored).get(number) != "host1", [workers["host2"]])
    assert {w.host for w in ledger.workers()} <= {"host2"}, "the other is heard of no more"
    network.plug("host1", into=True)
    counts = {}
    for host, worker in workers.items():
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        counts[host] = json.loads(out)
    trials = stored.study.get_trials(deepcopy=False)
    assert len(trials) == budget, "none was run twice"
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert {len(t.intermediate_values) for t in trials} == {12}
    assert sum(c["complete"] for c in counts.values()) == budget
    assert counts["host1"]["taken_away"] == 1, "its trial went on elsewhere"
    assert trials[number].user_attrs["searchae:runtime"]["host"] == "host2"
    assert counts["host1"]["complete"] >= 1, "and it took part again"
