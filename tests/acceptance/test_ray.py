"""A search on a real Ray cluster of three nodes, one of which dies in the middle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import RayCluster
from tests.stored_trials import finished, states

pytestmark = pytest.mark.fleet

TRIALS = 30


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """A head with room for one worker, two nodes with room for two each."""
    cluster = RayCluster(cpus=1)
    try:
        for _ in range(2):
            cluster.add(cpus=2)
        yield cluster
    finally:
        cluster.shut_down()


def wait_for(search: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert search.poll() is None, search.communicate()[1]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_a_cluster_that_loses_a_node_ends_with_the_exact_budget(
    cluster: RayCluster, folder: Path, postgres_url: str
) -> None:
    from searchae.launch.ray import RayLauncher

    launcher = RayLauncher(cluster.address)
    deadline = time.monotonic() + 180
    while launcher.resources().cpus < 5:
        assert time.monotonic() < deadline, "the nodes do not join"
        time.sleep(0.5)
    launcher.stop(wait_s=0)
    search = subprocess.Popen(
        [
            *(sys.executable, "-m", "searchae", "tune", "--study", "tiny"),
            *("--trials", str(TRIALS), "--workers", "3", "--json"),
            *("--set", "train.epochs=20", "--set", 'search.pruner="none"'),
            *("--launcher", "ray", "--ray-address", cluster.address),
        ],
        cwd=folder,
        env={**os.environ, "SEARCHAE_STORAGE": postgres_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(search, lambda: finished(postgres_url) >= 3)
        on_nodes = {node: cluster.workers(node) for node in (0, 1, 2)}
        assert sum(map(len, on_nodes.values())) == 3
        dying = max((1, 2), key=lambda node: len(on_nodes[node]))
        assert on_nodes[dying], on_nodes
        cluster.kill(dying)
        done_before = finished(postgres_url)
        assert done_before < TRIALS
        others = {w for node, workers in on_nodes.items() if node != dying for w in workers}
        rest = [node for node in on_nodes if node != dying]
        wait_for(search, lambda: {w for node in rest for w in cluster.workers(node)} - others)
        out, err = search.communicate(timeout=150)
    finally:
        search.kill()
    assert search.returncode == 0, err
    found = states(postgres_url)
    assert found.keys() <= {"COMPLETE", "PRUNED"}
    assert found.total() == TRIALS
    told = json.loads(out)
    assert told["trials"]["complete"] + told["trials"]["pruned"] == TRIALS
    assert told["trials"]["running"] == told["trials"]["waiting"] == 0
    assert re.search(r"worker-\d: lost: ", err), err
    assert "starting it again" in err
    assert "ray" not in out.lower()


def test_a_comparison_is_trained_on_a_cluster(
    cluster: RayCluster, folder: Path, postgres_url: str
) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "searchae", *words, "--study", "tiny", "--workers", "2"],
            cwd=folder,
            env={**os.environ, "SEARCHAE_STORAGE": postgres_url},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    on_ray = ("--launcher", "ray", "--ray-address", cluster.address)
    more = ("--set", "train.epochs=6", "--set", "train.batch_size=8", "--trials", "8")
    searched = command("tune", *more, *on_ray)
    assert searched.returncode == 0, searched.stderr
    compared = command("compare", "--until", "5", "--max-trainings", "1", "--json", *on_ray)
    assert compared.returncode == 0, compared.stderr
    (first, *_) = json.loads(compared.stdout)["comparisons"]
    assert first["trainings"] >= 4
