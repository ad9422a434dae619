"""What every test may ask for: a database of its own, tiny images, a tiny study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np
import pytest
import sqlalchemy as sa

from tests.forked_commands import fork_server, forking_subprocess, run_command
from tests.postgres_server import PostgresServer

CompletedCommand: TypeAlias = subprocess.CompletedProcess[str]
RunCommand: TypeAlias = Callable[..., CompletedCommand]

TINY = """
description = "tiny"
[data]
name = "npz"
path = "tiny.npz"
validation = 0.25
[model]
channels = [4, 8]
latent_dim = 8
activation = { choices = ["relu", "tanh"] }
[train]
epochs = 3
batch_size = 16
optimizer = { choices = ["adam", "sgd"] }
learning_rate = { low = 1e-4, high = 1e-1, log = true }
regularizer = { choices = ["clip", "clip+l1"] }
l1_weight = { low = 1e-6, high = 1e-3, log = true }
[search]
trials = 6
startup_trials = 3
heartbeat_s = 0.5
grace_s = 4.0
"""


CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# The files that take longest, to be started first: one that is started late would still run when
# all others have ended. Times: ``pytest --durations=0``.
LONGEST_FIRST = (
    "acceptance/test_tune.py",
    "acceptance/test_documented_commands.py",
    "integration/test_coordination.py",
    "integration/test_compare_study.py",
    "unit/test_training_kernels.py",
    "acceptance/test_real_images.py",
    "integration/test_storage_batched.py",
    "contract/test_launchers.py",
    "contract/test_ssh_launcher.py",
    "acceptance/test_ssh.py",
    "contract/test_artifact_folders.py",
    "acceptance/test_object_store.py",
    "contract/test_storage.py",
    "unit/test_gpu_probe.py",
    "integration/test_dashboard_reading.py",
    "integration/test_dashboard.py",
    "integration/test_worker.py",
    "integration/test_study.py",
    "acceptance/test_bad_input.py",
    "acceptance/test_compare_commands.py",
    "acceptance/test_bundle_commands.py",
    "integration/test_retrain.py",
    "integration/test_incremental_search.py",
    "integration/test_dashboard_outage.py",
    "test_architecture.py",
)

# Tests run side by side: two threads each on two cores would wait for one another.
os.environ["SEARCHAE_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the others keep their order."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips the tests that need a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL server on which databases may be made."""
    given = os.environ.get("SEARCHAE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with PostgresServer() as server:
        yield server.url()


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """A new, empty PostgreSQL database."""
    name = f"test_{uuid4().hex[:12]}"
    admin = sa.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(postgres).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'searchae.db'}"
    return str(request.getfixturevalue("postgres_url"))


def smooth_images(count: int, size_px: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Colour gradients: uint8 (N, H, W, C); an autoencoder learns them in a few steps."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size_px * 1j, 0 : 1 : size_px * 1j]
    slopes = draw.uniform(-1, 1, (2, count, 1, 1, channels))
    plane = slopes[0] * x[None, :, :, None] + slopes[1] * y[None, :, :, None]
    images: np.ndarray = (127.5 + 127.5 * np.tanh(plane)).astype(np.uint8)
    return images


def make_folder(at: Path) -> Path:
    """A user's folder: ``tiny.npz`` under data/, ``tiny.toml`` under studies/."""
    (at / "data").mkdir()
    (at / "studies").mkdir()
    images = smooth_images(128), smooth_images(16, seed=1)
    np.savez(at / "data" / "tiny.npz", x_train=images[0], x_test=images[1])
    (at / "studies" / "tiny.toml").write_text(TINY)
    return at


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new user's folder."""
    return make_folder(tmp_path)


@pytest.fixture
def searchae(folder: Path) -> RunCommand:
    """Runs the command line in a forked process (see ``forked_commands``), in the user's folder."""

    def run(*words: str, timeout: float = 120, **environment: Any) -> CompletedCommand:
        changes = {name: str(value) for name, value in environment.items()}
        return run_command(*words, cwd=folder, env={**os.environ, **changes}, timeout=timeout)

    return run


@pytest.fixture
def new_process(folder: Path) -> RunCommand:
    """Runs the command line as a user does: in a new process, in the user's folder."""

    def run(*words: str, timeout: float = 120, **environment: Any) -> CompletedCommand:
        return subprocess.run(
            [sys.executable, "-m", "searchae", *words],
            cwd=folder,
            env={**os.environ, **{k: str(v) for k, v in environment.items()}},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def fork_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers that this process starts forked (see ``forked_commands``)."""
    from searchae.launch import local

    monkeypatch.setattr(local, "subprocess", forking_subprocess(fork_server))


@pytest.fixture
def command_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[RunCommand]:
    """Runs the command line in this process, in the user's folder."""
    from searchae.cli import app

    monkeypatch.chdir(folder)
    fork_workers(monkeypatch)
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }

    def run(*words: str, **environment: Any) -> CompletedCommand:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setenv("SEARCHAE_FACTORY", "")  # a command sets it for its own process
            for name, value in environment.items():
                patch.setenv(name, str(value))
            code = app.run(words)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def keeps_threads() -> Iterator[None]:
    """Sets back what a worker in this process has set: the number of torch's threads."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"install chromium: {CHROMIUM} is not there")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def real_data() -> Path:
    """A folder with real MNIST and CIFAR-10."""
    named = os.environ.get("SEARCHAE_TEST_DATA")
    if not named:
        pytest.skip("set SEARCHAE_TEST_DATA to a folder with MNIST/raw and cifar10_10k.npz")
    return Path(named)
