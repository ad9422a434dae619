"""A search from Python: what a script or a notebook calls, with real workers."""

from __future__ import annotations

import os
import signal
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

import searchae
from tests.conftest import TINY, fork_workers, make_folder, smooth_images

SMALL: dict[str, Any] = {"trials": 2, "workers": 1, "device": "cpu", "quiet": True}
ONE_EPOCH = {"train.epochs": 1}


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is the current one."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SEARCHAE_FACTORY", "")
    fork_workers(monkeypatch)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[searchae.Search]:
    """A search that has ended, of which tests only read."""
    home = make_folder(tmp_path_factory.mktemp("done"))
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        yield searchae.tune(
            home / "studies" / "tiny.toml",
            storage=f"sqlite:///{home}/searchae.db",
            set={"train.epochs": 2, "search.pruner": "none"},
            data_dir=home / "data",
            artifacts=home / "artifacts",
            **{**SMALL, "trials": 3},
        )


def test_a_search_is_run_and_the_same_call_goes_on(here: Path) -> None:
    search = searchae.tune("tiny", **SMALL, set=ONE_EPOCH)
    assert search.name == "tiny"
    assert search.status()["trials"]["complete"] == 2
    assert "train.epochs" not in (here / "studies" / "tiny.toml").read_text()
    again = searchae.tune(here / "studies" / "tiny.toml", **{**SMALL, "trials": 3}, set=ONE_EPOCH)
    assert [row["number"] for row in rows(again)] == [0, 1, 2]


def rows(search: searchae.Search) -> list[dict[str, Any]]:
    """The trials as dicts, whether pandas is installed or not."""
    found = search.trials()
    return found if isinstance(found, list) else found.to_dict("records")


def test_a_study_may_be_a_dict_with_python_s_own_values(here: Path) -> None:
    tables = tomllib.loads(TINY)
    tables["data"]["path"] = here / "data" / "tiny.npz"
    tables["train"]["epochs"] = np.int64(1)
    tables["model"]["channels"] = (4, 8)
    search = searchae.tune(tables, name="mine", **SMALL)
    assert search.spec.epochs == 1
    assert tables["model"]["channels"] == (4, 8), "the dict stays as it was"
    with pytest.raises(searchae.UserError, match='name="mine"'):
        searchae.tune(tables)


def test_a_study_may_be_the_spec_of_another_search(here: Path) -> None:
    first = searchae.tune("tiny", **SMALL, set=ONE_EPOCH)
    other = searchae.tune(first.spec, name="other", seed=5, **SMALL)
    assert (other.spec.seed, other.spec.epochs) == (5, 1)
    same = searchae.tune(first.spec, name="tiny", **SMALL)
    assert len(rows(same)) == 2, "it is the same study, and finished"


@pytest.mark.parametrize("kind", ["array", "data set"])
def test_images_take_the_place_of_the_data(here: Path, kind: str) -> None:
    images = smooth_images(80, seed=3)
    given: Any = images
    if kind == "data set":
        tensors = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        given = torch.utils.data.TensorDataset(tensors, torch.zeros(80))
    (here / "data" / "tiny.npz").unlink()  # it is not read
    search = searchae.tune("tiny", images=given, **SMALL, set=ONE_EPOCH)
    data = search.spec.data
    assert (data.name, data.validation) == ("npz", 0.25), "the study's share stays"
    assert (here / "data" / str(data.path)).is_file()
    assert search.best.psnr_db is not None
    # The same images are the same study, others are not.
    searchae.tune("tiny", images=given, **SMALL, set=ONE_EPOCH)
    with pytest.raises(searchae.errors.StudyMismatchError):
        searchae.tune("tiny", images=images[:70], **SMALL, set=ONE_EPOCH)


def test_what_the_environment_says_holds_as_for_the_command_line(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_STORAGE", f"sqlite:///{here}/other.db")
    monkeypatch.setenv("SEARCHAE_ARTIFACTS", str(here / "files"))
    monkeypatch.setenv("SEARCHAE_TRAIN__EPOCHS", "1")
    searchae.tune("tiny", trials=1, workers=1, device="cpu", quiet=True)
    assert (here / "other.db").is_file()
    assert (here / "files" / "tiny" / "logs").is_dir()
    assert searchae.open("tiny").spec.epochs == 1


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("tinny", {}, "did you mean 'tiny'?"),
        ("tiny", {"set": {"train.epoch": 1}}, "--set train.epoch=1: train.epoch"),
        ("tiny", {"set": {"train.epochs": None}}, "set: train.epochs: None is no value"),
        ("tiny", {"set": {"train.epochs": object()}}, "set: train.epochs: Object of type object"),
        ("tiny", {"trials": 0}, "trials: 0: give a whole number of 1 or more"),
        ("tiny", {"workers": 1.5}, "workers: 1.5: give a whole number of 1 or more"),
        ("tiny", {"launcher": "slrm"}, "did you mean 'slurm'?"),
        ("tiny", {"slurm": {"partition": "gpu"}}, "--slurm partition=gpu: only with"),
        ("tiny", {"hosts": ["gpu1", "gpu2:2"]}, "--hosts gpu1,gpu2:2: only with --launcher ssh"),
        ("tiny", {"launcher": "ssh"}, "say where: --hosts"),
        ("tiny", {"launcher": "ssh", "hosts": ["gpu1:x"]}, "write HOST or HOST:WORKERS"),
        ("tiny", {"launcher": "ssh", "hosts": "gpu1"}, "SQLite serves the workers of one machine"),
        ("tiny", {"device": "cuda:99"}, "cuda"),
        ("tiny", {"storage": "mysql://x/y"}, "--storage: mysql"),
        ("tiny", {"images": np.zeros((4, 8))}, "images: is float64 of shape (4, 8)"),
        (3, {"name": "x"}, "study: int is none"),
        ({"data": {}}, {"name": "x"}, "study: data.name"),
        ({"dta": {}}, {"name": "x"}, "dta"),
        ({"data": 3}, {"name": "x", "images": np.zeros((9, 8, 8), np.uint8)}, "images"),
    ],
)
def test_a_mistake_is_the_error_that_the_command_line_has(
    here: Path, study: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(searchae.UserError) as refused:
        searchae.tune(study, **{"quiet": True, "workers": 1, **options})
    assert message in str(refused.value)
    assert not (here / "searchae.db").exists()


def process_state() -> tuple[Any, ...]:
    return (
        torch.get_num_threads(),
        optuna.logging.get_verbosity(),
        signal.getsignal(signal.SIGINT),
    )


def test_this_process_stays_as_it_was() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    before = process_state()
    searchae.tune("tiny", **SMALL, set=ONE_EPOCH)
    assert process_state() == before
    assert torch.equal(torch.rand(3), expected)


def test_progress_is_lines_on_standard_error_unless_it_is_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    searchae.tune("tiny", **SMALL, set=ONE_EPOCH)
    said = capsys.readouterr()
    assert said.out + said.err == ""
    searchae.tune("tiny", **{**SMALL, "quiet": False, "trials": 3}, set=ONE_EPOCH)
    said = capsys.readouterr()
    assert "trial   2  complete" in said.err
    assert said.out == ""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def worker_pids(here: Path) -> list[int]:
    """Processes of the workers that have reported to the database."""
    if not (here / "searchae.db").exists():
        return []
    try:
        return [w["pid"] for w in searchae.open("tiny").status()["workers"]]
    except searchae.SearchaeError:  # it is being made
        return []


def test_an_interrupt_puts_trials_back_and_the_next_call_finishes_exactly(here: Path) -> None:
    overrides = {"train.epochs": 200, "search.pruner": "none"}
    long = {**SMALL, "trials": 3, "workers": 2, "set": overrides}
    seen: list[int] = []

    def interrupt() -> None:
        deadline = time.monotonic() + 200
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
            seen[:] = worker_pids(here)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)  # an impatient second one

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="the same call again continues them"):
        searchae.tune("tiny", **long)
    thread.join()
    assert len(seen) == 2
    assert not any(map(alive, seen)), "no worker is left"
    search = searchae.open("tiny")
    status = search.status()
    assert status["trials"]["running"] == 0
    assert status["trials"]["waiting"] + status["trials"]["complete"] >= 2, "they were put back"
    reached = {row["number"]: row["epochs"] for row in rows(search)}
    finished = searchae.tune("tiny", **{**long, "max_hours": 1})
    assert finished.status()["trials"] == {
        "complete": 3,
        "pruned": 0,
        "failed": 0,
        "running": 0,
        "waiting": 0,
    }
    assert all(row["epochs"] >= reached.get(row["number"], 0) for row in rows(finished))
    assert finished.status()["epochs"]["repeated"] == 0, "each went on from its last epoch"


def test_of_a_study_that_is_there_everything_can_be_read(
    done: searchae.Search, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = done.best
    assert best.psnr_db == max(row["psnr_db"] for row in rows(done))
    text = repr(done)
    assert text.startswith("<search 'tiny': 3 of 3 trials, best ")
    assert f"trial {best.number}" in text
    html = done._repr_html_()
    assert html is not None
    assert f"{best.psnr_db:.2f} dB" in html
    assert len(done.figure("history").data) > 0
    assert done.report("out/report.html") == Path("out/report.html")
    assert "<!doctype html>" in (here / "out" / "report.html").read_text()
    with pytest.raises(searchae.UserError, match=r"r\.pdf: it is an HTML page: r\.html"):
        done.report("r.pdf")
    (here / "file").write_text("")
    with pytest.raises(searchae.UserError, match="cannot be written"):
        done.report("file/r.html")


def test_trials_are_a_data_frame_where_pandas_is_installed(
    done: searchae.Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas", reason="install pandas")
    frame = done.trials()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["number"]) == [0, 1, 2]
    assert "params_learning_rate" in frame
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    assert [row["number"] for row in done.trials()] == [0, 1, 2]


def test_a_study_that_is_not_there_is_named(here: Path) -> None:
    with pytest.raises(searchae.errors.NoStudyError, match="there is no database at"):
        searchae.open("tiny")
    searchae.tune("tiny", **SMALL, set=ONE_EPOCH)
    with pytest.raises(searchae.errors.NoStudyError, match="did you mean 'tiny'"):
        searchae.open("tine")
    gone = searchae.open("tiny")
    (here / "searchae.db").rename(here / "away.db")
    assert "there is no database" in repr(gone), "a repr raises nothing"
    assert gone._repr_html_() is None


def test_the_best_trial_becomes_a_net(done: searchae.Search, here: Path) -> None:
    model = done.train(epochs=2, workers=1)
    assert model.folder == Path("tiny-best")
    assert model.metrics["psnr_db"] > 0
    images = smooth_images(3).transpose(0, 3, 1, 2)
    codes = model.encode(images)
    assert codes.shape == (3, 8)
    again = searchae.load("tiny-best")
    assert np.array_equal(again.encode(images), codes)
    assert repr(again) == "<autoencoder of 3x16x16 images, 8 latents in tiny-best>"
    assert done.train("elsewhere", epochs=2, workers=1).folder == Path("elsewhere")
    with pytest.raises(searchae.UserError, match="--trial 99"):
        done.train("other", trial=99)
    with pytest.raises(searchae.UserError, match="seeds: 0"):
        done.train("other", seeds=0)
    with pytest.raises(searchae.UserError, match="patience: -1: give a whole number of 0 or more"):
        done.train("other", patience=-1)


def test_the_best_trials_are_ranked_over_seeds(done: searchae.Search) -> None:
    ranking = done.compare(top=2, seeds=2, workers=1)
    assert len(ranking.rows) == 2
    assert repr(ranking).startswith("trial ")
    assert "<table" in ranking._repr_html_()
    again = done.compare(top=2, seeds=2, workers=1)
    assert repr(again) == repr(ranking), "nothing is trained again"
    with pytest.raises(searchae.UserError, match="top: ranks trials"):
        done.compare(top=2, by=["optimizer"])  # type: ignore[call-overload]
    with pytest.raises(searchae.UserError, match="seeds: only with top"):
        done.compare(seeds=3)  # type: ignore[call-overload]
    with pytest.raises(searchae.UserError, match="seeds: 1: give a whole number of 2 or more"):
        done.compare(top=2, seeds=1)


def test_choices_are_compared(here: Path) -> None:
    learning = {
        "search.pruner": "none",
        "search.sampler": "random",
        "train.regularizer": "clip",
        "train.l1_weight": 1e-4,
        "train.batch_size": 8,
        "train.epochs": 6,
        "train.learning_rate": 1e-2,
        "train.momentum": 0.0,
        "model.activation": "tanh",
    }
    search = searchae.tune("tiny", **{**SMALL, "trials": 8}, set=learning)
    result = search.compare(by=["optimizer"], until=3.0, workers=1, max_trainings=8)
    assert repr(result).startswith("optimizer: ")
    assert result.html is not None
    assert result.html.is_file()
    shown = result._repr_html_()
    assert "<table" in shown
    assert "adam" in shown
    assert "script" not in shown
