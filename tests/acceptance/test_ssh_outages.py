"""Hosts that are cut off in the middle of a search, and what is left when it is interrupted.

The hosts share no folder that they could write to. The long form takes minutes, on purpose: it has
the outages that a user would notice.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from searchae.storage.managed_keeper import DATABASE, HOST, USER
from tests.conftest import make_folder, smooth_images
from tests.processes import wait_for
from tests.s3_server import S3Server
from tests.ssh_hosts import SshHosts, bare_python
from tests.stored_trials import trials

pytestmark = pytest.mark.timeout(1800)

NAMES = ("gpu1", "gpu2", "gpu3")
GRACE_S = 12.0
GONE_S = 120.0
"""Seconds after which nothing may be left on a host."""
SAMPLE_EPOCHS = 10
TUNE = ("tune", "-s", "tiny", "--launcher", "ssh", "--hosts", "hosts.txt", "--install", "--json")


@dataclass(frozen=True)
class Length:
    """How long a test takes.

    Attributes:
        trials: The budget.
        train_s: About how long they are trained on this machine when it has nothing else to do.
        outage_s: How long a host is cut off that comes back: more than the grace.
        store_s: How long the object store is away.
    """

    trials: int
    train_s: float
    outage_s: float
    store_s: float


LENGTHS = [
    pytest.param(Length(30, 100, outage_s=30, store_s=60), id="long", marks=pytest.mark.slow),
    pytest.param(Length(9, 45, outage_s=16, store_s=5), id="short", marks=pytest.mark.fleet),
]


def host_of(trial: FrozenTrial) -> str:
    """The host that has trained a trial last."""
    return str(trial.user_attrs.get("searchae:runtime", {}).get("host", ""))


@dataclass
class User:
    """Who searches on the hosts, from a folder that these do not see."""

    folder: Path
    hosts: SshHosts
    store: S3Server | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Types a command of searchae's; its database is ``managed``."""
        variables = {"SEARCHAE_STORAGE": "managed", "SEARCHAE_MANAGED_IDLE_S": "20"}
        if self.store:
            variables |= {**self.store.environment, "SEARCHAE_ARTIFACTS": self.store.url()}
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-m", "searchae", *words],
                cwd=self.folder,
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=(self.folder / "said.txt").open("a"),
                text=True,
            )
        )
        return self.started[-1]

    def has_begun(self) -> bool:
        """Whether the last command has opened the study."""
        begun = self.said().count(" to run\n") + self.said().count("begun already\n")
        return begun >= len(self.started) - 1  # all but the dry run

    def said(self) -> str:
        """What the commands have written on stderr."""
        return (self.folder / "said.txt").read_text()

    def answer(self, *words: str) -> dict[str, Any]:
        """Types a command, and returns what it prints."""
        process = self.start(*words)
        out, _ = process.communicate(timeout=1500)
        assert process.returncode == 0, self.said()
        told: dict[str, Any] = json.loads(out)
        return told

    def epochs_for(self, length: Length) -> int:
        """How many epochs take the wanted time, as ``--dry-run`` measures them here."""
        words = ("--dry-run", "--trials", "2", "--set", f"train.epochs={SAMPLE_EPOCHS}")
        epoch_s = float(self.answer(*TUNE, *words)["epoch_s"])
        cores = min(len(os.sched_getaffinity(0)), len(NAMES))
        return max(SAMPLE_EPOCHS, round(length.train_s * cores / length.trials / epoch_s))

    @property
    def url(self) -> str:
        """The URL of the managed database."""
        found = json.loads((self.folder / "searchae-postgres" / "settings.json").read_text())
        url = URL.create(
            "postgresql+psycopg", USER, found["password"], HOST, int(found["port"]), DATABASE
        )
        return url.render_as_string(hide_password=False)

    def trial_on(self, name: str) -> int | None:
        """The trial that a host trains; None for none."""
        running = (t for t in trials(self.url) if t.state == TrialState.RUNNING)
        return next((t.number for t in running if host_of(t) == name), None)

    def trained_on(self, number: int) -> str:
        """The host that has trained a trial last."""
        (trial,) = (t for t in trials(self.url) if t.number == number)
        return host_of(trial)

    def is_running(self, number: int) -> bool:
        return any(t.number == number and not t.state.is_finished() for t in trials(self.url))

    def kept_epoch(self, number: int) -> int:
        """The newest checkpoint of a trial that does not lie on a host only; 0 without one."""
        if self.store:
            names = self.store.keys("runs/") if not self.store.is_away else []
        else:
            names = [str(p) for p in self.folder.glob("artifacts/tiny*/checkpoints/*.pt")]
        found = (re.search(r"/checkpoints/(\d+)-(\d+)-", name) for name in names)
        return max((int(m[2]) for m in found if m and int(m[1]) == number), default=0)

    def cut_off(self, name: str, search: subprocess.Popen[str]) -> int:
        """Pulls a host's cable while it trains a trial with a checkpoint; returns the trial."""
        cut: list[int] = []
        # Before that the database may be stopping, after the command before.
        wait_for(lambda: self.has_begun() or search.poll() is not None, seconds=600)

        def is_cut() -> bool:
            assert search.poll() is None, f"it ended before {name} was cut off: {self.said()}"
            number = self.trial_on(name) if self.works(name) else None
            if number is None or self.kept_epoch(number) < 2:
                return False
            self.hosts.plug(name, into=False)
            if not self.is_running(number):  # it has ended just now
                self.hosts.plug(name, into=True)
                return False
            cut.append(number)
            return True

        wait_for(is_cut, seconds=600)
        return cut[0]

    def works(self, name: str) -> bool:
        """Whether a worker runs on a host."""
        return bool(self.hosts.processes(name, "searchae worker"))

    def logs(self) -> str:
        """What all workers have written."""
        return "".join(p.read_text() for p in self.folder.glob("artifacts/tiny*/logs/*.log"))

    def left(self) -> dict[str, list[int]]:
        """What runs on the hosts, also on those that cannot be reached."""
        found = {name: self.hosts.processes(name) for name in NAMES}
        return {name: pids for name, pids in found.items() if pids}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The user's home; the database's user has to be able to enter it."""
    with tempfile.TemporaryDirectory(prefix="user-", dir="/tmp", ignore_cleanup_errors=True) as at:
        yield Path(at)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_python(tmp_path_factory.mktemp("base"))


@pytest.fixture
def hosts(home: Path) -> Iterator[SshHosts]:
    with SshHosts(NAMES, hidden=[home], alone=True) as hosts:
        yield hosts


@pytest.fixture
def user(home: Path, base: Path, hosts: SshHosts) -> Iterator[User]:
    """A user with a study whose trials take a while."""
    folder = make_folder(Path(tempfile.mkdtemp(dir=home)))
    folder.chmod(0o755)
    images = smooth_images(400)
    np.savez(folder / "data" / "tiny.npz", x_train=images, x_test=images[:16])
    study = folder / "studies" / "tiny.toml"
    text = study.read_text().replace("grace_s = 4.0", f'grace_s = {GRACE_S}\npruner = "none"')
    study.write_text(text.replace("channels = [4, 8]", "channels = [8, 16]"))
    (folder / "hosts.txt").write_text("".join(f"{name}:1 python={base}\n" for name in NAMES))
    user = User(folder, hosts)
    try:
        yield user
    finally:
        for process in user.started:
            process.kill()
            process.wait()


@pytest.fixture
def store(hosts: SshHosts) -> Iterator[S3Server]:
    """An object store that the hosts reach, too."""
    with S3Server(hosts.address) as server:
        yield server


def search_through_outages(user: User, length: Length) -> None:
    """The search: one host is cut off for good, another for a while, and so is the store."""
    assert length.outage_s > GRACE_S
    epochs = user.epochs_for(length)
    settings = ("--trials", str(length.trials), "--set", f"train.epochs={epochs}")
    search = user.start(*TUNE, *settings)
    if user.store:
        user.store.refused_share = 0.1
    lost = user.cut_off("gpu1", search)
    kept = user.kept_epoch(lost)
    wait_for(lambda: user.trained_on(lost) in ("gpu2", "gpu3"), seconds=GRACE_S + 300)
    away = user.cut_off("gpu2", search)
    began = time.monotonic()
    if user.store:
        user.store.stop()
        time.sleep(length.store_s)
        user.store.start()
    time.sleep(max(0.0, began + length.outage_s - time.monotonic()))
    user.hosts.plug("gpu2", into=True)
    assert search.poll() is None, "it ended before all of this"
    out, _ = search.communicate(timeout=1500)
    assert search.returncode == 0, user.said()
    told = json.loads(out)
    print(f"{epochs} epochs; trial {lost} cut off after {kept}, trial {away}: {told['epochs']}")
    print(user.said(), user.logs())
    assert told["trials"]["complete"] == length.trials
    assert told["trials"]["running"] == told["trials"]["waiting"] == told["trials"]["failed"] == 0
    assert len(trials(user.url)) == length.trials
    went_on = re.findall(rf"trial {lost}: goes on after epoch (\d+)", user.logs())
    assert went_on, user.logs()
    assert int(went_on[0]) >= kept > 0
    assert user.trained_on(lost) in ("gpu2", "gpu3")


@pytest.mark.parametrize("length", LENGTHS)
def test_the_budget_is_exact_and_a_trial_goes_on_elsewhere_from_its_checkpoint(
    user: User, length: Length
) -> None:
    search_through_outages(user, length)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_same_holds_with_a_store_that_is_away_and_refuses_calls(
    user: User, length: Length, store: S3Server
) -> None:
    user.store = store
    search_through_outages(user, length)
    assert store.refused > 0


@pytest.mark.slow
def test_nothing_is_left_on_any_host_two_minutes_after_tune_was_ended_or_killed(user: User) -> None:
    """One of the hosts has just been cut off, and stays so."""
    epochs = 10 * user.epochs_for(Length(30, 100, outage_s=0, store_s=0))
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        search = user.start(*TUNE, "--set", f"train.epochs={epochs}")
        user.cut_off("gpu1", search)
        wait_for(lambda: all(map(user.works, NAMES)), seconds=300)
        search.send_signal(number)
        began = time.monotonic()
        assert search.wait(timeout=GONE_S) == code
        ended_s, gone_s = time.monotonic() - began, dict[str, float]()
        while left := user.left():
            taken_s = time.monotonic() - began
            gone_s |= {n: round(taken_s) for n in NAMES if n not in left and n not in gone_s}
            assert taken_s < GONE_S, left
            time.sleep(0.5)
        gone_s |= {n: round(time.monotonic() - began) for n in NAMES if n not in gone_s}
        print(
            f"{number.name}: tune ended after {ended_s:.1f} s; nothing on the hosts after {gone_s}"
        )
        user.hosts.plug("gpu1", into=True)
