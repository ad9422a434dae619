"""The winner: the search's bits again, seeds, interruptions, and what a bundle says of itself."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import FrozenTrial

import searchae
from searchae import data, retrain
from searchae.bundle.evaluation import evaluate_bundle
from searchae.errors import DataError, DivergedError, UserError
from searchae.launch.request import FleetRequest
from searchae.retrain.plan import find_trial
from searchae.retrain.reproduction import reproduction
from searchae.study.stored_study import StoredStudy
from searchae.study.summary import Summary
from searchae.study.training_list import TrainingList, find_training_list
from searchae.training.epoch import EpochResult
from searchae.training.metrics import mean_image_psnr_db
from searchae.tuning import Watcher
from searchae.worker.training_record import read_record, write_record
from tests.integration import finished_studies
from tests.thread_launcher import Recorder, ThreadLauncher

pytestmark = pytest.mark.usefixtures("keeps_threads")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return finished_studies.search(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def home(stored: StoredStudy) -> Path:
    return Path(str(stored.storage.engine.url.database)).parent


def plan(stored: StoredStudy, **changes: Any) -> retrain.RetrainPlan:
    return retrain.plan_retraining(stored, **{"epochs": "search", "device": CPU, **changes})


def train(
    plan: retrain.RetrainPlan,
    home: Path,
    out: Path,
    *,
    watcher: Watcher | None = None,
    artifacts: Path | None = None,
) -> dict[str, Any]:
    request = FleetRequest(
        storage=plan.stored.storage.engine.url,
        workers=1,
        threads=plan.threads,
        device="cpu",
        data_dir=home / "data",
        artifacts=artifacts or home / "artifacts",
    )
    return retrain.train_bundle(
        plan, out=out, request=request, launcher=ThreadLauncher(), watcher=watcher or Recorder()
    )


class Interrupting(Recorder):
    """Interrupts the training of a seed once it has so many epochs."""

    def __init__(self, seed: int, epoch: int) -> None:
        super().__init__()
        self._at = (seed, epoch)

    def progress(self, summary: Summary) -> None:
        seed, epoch = self._at
        if any(r.state == "running" and r.seed == seed and r.epochs >= epoch for r in summary.rows):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(
    stored: StoredStudy, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The best trial, five epochs, three seeds."""
    out = tmp_path_factory.mktemp("undisturbed") / "bundle"
    return out, train(plan(stored, epochs="5", patience=0, seeds=3), home, out)


def test_every_trial_of_the_search_comes_back_to_the_bit(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    trials = stored.study.get_trials(deepcopy=False)
    assert {t.state.name for t in trials} == {"COMPLETE", "PRUNED"}
    for trial in trials:
        told = train(plan(stored, trial=str(trial.number)), home, tmp_path / str(trial.number))
        assert told["search"]["to_the_bit"]
        assert told["search"]["epochs_compared"] == len(trial.intermediate_values)
        last = max(trial.intermediate_values)
        assert told["search"]["retrained_db"] == trial.intermediate_values[last]
        assert told["search"]["runtime_differs"] == {}
        assert (
            f"reproduces the search's {trial.intermediate_values[last]:.2f} dB to the bit"
            in (told["search"]["text"])
        )


def test_a_longer_training_passes_through_the_search_s_numbers(
    stored: StoredStudy, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    told = undisturbed[1]
    assert (told["training"]["epochs"], told["training"]["ended"]) == (5, "epochs")
    assert told["search"]["epoch"] == 3
    assert told["search"]["to_the_bit"]
    assert told["search"]["recorded_db"] == max(
        t.values[0] for t in stored.study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"
    )


def test_a_difference_is_said_with_what_differs_in_the_runtime(stored: StoredStudy) -> None:
    trial = find_trial(stored, "best")
    runtime = {**trial.user_attrs["searchae:runtime"], "threads": 7, "torch": "2.8.0"}
    history = [
        EpochResult(e, 0.1, 0.1, value + 0.25 * (e == 2), value, 0.0, 1.0)
        for e, value in sorted(trial.intermediate_values.items())
    ]
    there = trial.user_attrs["searchae:runtime"]["torch"]
    told = reproduction(trial, history[:2], runtime=runtime)
    assert told is not None
    assert (told["to_the_bit"], told["epoch"]) == (False, 2)
    assert told["difference_db"] == pytest.approx(0.25)
    assert f"+0.2500 dB from the search's {trial.intermediate_values[2]:.2f} dB" in told["text"]
    assert f"threads 1 -> 7, torch {there} -> 2.8.0" in told["text"]


def test_the_weights_kept_are_those_of_the_best_validation_epoch(
    home: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    out, told = undisturbed
    with (out / "history.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "0"]
    psnrs = [float(row["psnr_db"]) for row in rows]
    assert len(psnrs) == 5
    assert told["epoch"] == 1 + psnrs.index(max(psnrs))
    again = evaluate_bundle(out, split="validation", data_dir=home / "data")
    assert again["psnr_db"] == max(psnrs) == told["validation"]["psnr_db"], "to the bit"


def unbounded(made: retrain.RetrainPlan, *, learning_rate: float) -> retrain.RetrainPlan:
    """The same with a net and an optimizer that run away."""
    train = {"optimizer": "sgd", "learning_rate": learning_rate, "regularizer": "none"}
    net = {"output": "none", "activation": "relu"}
    params = replace(
        made.params,
        train=made.params.train.model_copy(update=train),
        model=made.params.model.model_copy(update=net),
    )
    return replace(made, params=params)


def test_an_earlier_epoch_is_kept_where_it_was_the_best(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    made = unbounded(plan(stored, epochs="10", patience=0), learning_rate=3.0)
    told = train(made, home, tmp_path / "bundle")
    assert told["training"]["epochs"] == 10
    assert told["epoch"] < 10, "this one rises, then falls by several dB"
    again = evaluate_bundle(tmp_path / "bundle", split="validation", data_dir=home / "data")
    assert again["psnr_db"] == told["validation"]["psnr_db"]
    assert not told["search"]["to_the_bit"]


def test_a_denoiser_is_measured_under_the_noise_that_it_was_validated_under(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    made = plan(stored, epochs="3", patience=0)
    params = replace(
        made.params,
        train=made.params.train.model_copy(update={"noise_std": 0.2, "batch_size": 30}),
        model=made.params.model.model_copy(
            update={"batch_norm": True, "image_range": "symmetric", "output": "tanh"}
        ),
    )
    told = train(replace(made, params=params), home, tmp_path / "bundle")
    noisy = evaluate_bundle(tmp_path / "bundle", split="validation", data_dir=home / "data")
    assert noisy["psnr_db"] == told["validation"]["psnr_db"], "to the bit"
    model = searchae.load(tmp_path / "bundle")
    splits = data.load_splits(stored.spec.data, data_dir=home / "data", seed=stored.spec.seed)
    images = splits.validation / 255
    error = (model.reconstruct(images) - images).square().mean((1, 2, 3))
    clean = float((-10 * error.log10()).mean())
    assert abs(clean - noisy["psnr_db"]) > 1e-3, "it was not measured on clean images"


@pytest.mark.parametrize(
    ("changes", "ended", "verb"),
    [
        ({"learning_rate": 10.0}, "dead", "died"),
        ({"learning_rate": 5.0, "noise_std": 0.01}, "diverged", "diverged"),
    ],
)
def test_of_a_training_that_goes_wrong_late_the_best_epoch_is_kept(
    stored: StoredStudy, home: Path, tmp_path: Path, changes: dict[str, Any], ended: str, verb: str
) -> None:
    told_to = Recorder()
    made = unbounded(plan(stored, epochs="40", patience=0), learning_rate=10.0)
    params = replace(made.params, train=made.params.train.model_copy(update=changes))
    told = train(replace(made, params=params), home, tmp_path / "bundle", watcher=told_to)
    assert told["training"]["ended"] == ended
    assert 0 < told["epoch"] <= told["training"]["epochs"] < 40
    (said,) = (note for note in told_to.notes if note.startswith(f"seed 0 {verb} ("))
    assert said.endswith(f"); its best epoch until then, {told['epoch']}, is kept")


def test_evaluating_a_bundle_gives_its_metrics_to_the_bit(
    home: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    out, told = undisturbed
    written = json.loads((out / "metrics.json").read_text())
    again = evaluate_bundle(out, split="test", data_dir=home / "data")
    assert {k: v for k, v in again.items() if k != "bundle"} == {
        k: written[k] for k in again if k != "bundle"
    }
    assert {k: v for k, v in told.items() if k not in ("bundle", "files")} == written


def test_figures_are_those_of_the_test_split(
    stored: StoredStudy, home: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    out, told = undisturbed
    splits = data.load_splits(stored.spec.data, data_dir=home / "data", seed=stored.spec.seed)
    images = splits.test.numpy() / np.float32(255)
    error = ((searchae.load(out).reconstruct(images) - images) ** 2).mean((1, 2, 3))
    assert told["images"] == len(images) == 16
    assert told["mse"] == pytest.approx(error.mean(), rel=1e-5)
    assert told["psnr_db"] == pytest.approx((-10 * np.log10(error)).mean(), rel=1e-5)
    assert told["psnr_of_mse_db"] == pytest.approx(-10 * np.log10(error.mean()), rel=1e-5)
    assert told["baseline_db"] == mean_image_psnr_db(splits.train, splits.test)
    assert told["psnr_db"] > told["baseline_db"]


def test_seeds_change_the_net_but_not_the_splits(
    stored: StoredStudy, home: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    seeds = undisturbed[1]["seeds"]
    rows = seeds["rows"]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    assert len({row["psnr_db"] for row in rows}) == 3
    values = [row["psnr_db"] for row in rows]
    assert seeds["psnr_db"]["mean"] == pytest.approx(np.mean(values))
    assert seeds["psnr_db"]["std"] == pytest.approx(np.std(values, ddof=1))
    # The second seed by itself, on the splits of the study.
    alone = replace(plan(stored, epochs="5", patience=0), seeds=(1,))
    told = train(alone, home, tmp_path / "alone")
    assert told["data_hash"] == stored.data_hash
    assert told["psnr_db"] == rows[1]["psnr_db"]
    assert told["seeds"]["psnr_db"]["std"] is None


def test_the_bundle_holds_what_it_names(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, told = undisturbed
    assert sorted(p.name for p in out.iterdir()) == sorted(told["files"]), "no checkpoints left"
    page = (out / "curves.html").read_text()
    assert "seed 2: validation" in page
    assert "<script src" not in page, "opens without a network"
    assert "prefers-color-scheme:dark" in page
    assert '"paper_bgcolor":"rgba(0,0,0,0)"' in page, "which shows the page's own colour"


@pytest.mark.fleet
def test_an_interrupted_training_goes_on_to_the_same_bits(
    stored: StoredStudy, home: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    made, out = plan(stored, epochs="60", patience=0, seeds=3), tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt):
        train(made, home, out, watcher=Interrupting(seed=1, epoch=3))
    assert not (out / "config.json").exists(), "no bundle before its end"
    listed = find_training_list(stored)
    assert listed is not None
    begun = [t for t in listed.trials().values() if not t.state.is_finished()]
    assert sorted(t.state.name for t in begun) == ["WAITING", "WAITING"], "none is left running"
    epochs = max(len(t.intermediate_values) for t in begun)
    assert epochs >= 3
    first = train(made, home, out)
    assert all(len(t.intermediate_values) == 60 for t in map(of(listed), begun))
    assert not (out / ".checkpoint").exists()
    # The same in another folder, where nothing is found of it, and without an interruption.
    again = tmp_path / "again"
    second = train(made, home, again, artifacts=tmp_path / "artifacts")
    for name in ("model.safetensors", "config.json", "reconstructions.png"):
        assert (out / name).read_bytes() == (again / name).read_bytes()
    assert first["seeds"]["psnr_db"] == second["seeds"]["psnr_db"]
    assert without_seconds(out) == without_seconds(again)
    del undisturbed


def of(listed: TrainingList) -> Callable[[FrozenTrial], FrozenTrial]:
    """Returns a function that reads a listed trial again."""
    return lambda trial: listed.stored.study.get_trials(deepcopy=False)[trial.number]


def test_what_was_trained_is_not_trained_again(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    told = Recorder()
    train(plan(stored, epochs="4", patience=0, seeds=2), home, tmp_path / "two", watcher=told)
    assert len(told.rows) == 2
    told = Recorder()
    more = plan(stored, epochs="4", patience=0, seeds=3)
    found = train(more, home, tmp_path / "two", watcher=told)
    assert [row.seed for row in told.rows] == [2], "one seed more is one training more"
    assert [row["seed"] for row in found["seeds"]["rows"]] == [0, 1, 2]
    told = Recorder()
    train(more, home, tmp_path / "elsewhere", watcher=told)
    assert told.rows == []


def test_measurements_that_are_gone_or_damaged_are_made_again(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    made, artifacts = plan(stored, epochs="3", patience=0), tmp_path / "artifacts"
    first = train(made, home, tmp_path / "first", artifacts=artifacts)
    (record,) = (artifacts / "tiny.trainings" / "records").iterdir()
    record.unlink()
    again = train(made, home, tmp_path / "again", artifacts=artifacts)
    assert again["psnr_db"] == first["psnr_db"]
    assert record.exists()
    record.write_bytes(record.read_bytes()[:-100])
    damaged = train(made, home, tmp_path / "damaged", artifacts=artifacts)
    assert damaged["psnr_db"] == first["psnr_db"]


def test_measurements_of_another_list_are_not_taken(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    """The file is whole and has the right key, but the study has another checksum of it."""
    made, artifacts = plan(stored, epochs="3", patience=0), tmp_path / "artifacts"
    first = train(made, home, tmp_path / "first", artifacts=artifacts)
    (path,) = (artifacts / "tiny.trainings" / "records").iterdir()
    forged = replace(read_record(path, path.stem), psnr_db=np.full(16, 99.0))
    write_record(path, forged, path.stem)
    again = train(made, home, tmp_path / "again", artifacts=artifacts)
    assert again["seeds"]["rows"][0]["psnr_db"] == first["seeds"]["rows"][0]["psnr_db"]
    assert read_record(path, path.stem).psnr_db.max() < 99


def without_seconds(bundle: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((bundle / "metrics.json").read_text())
    metrics.pop("seconds")
    for row in metrics["seeds"]["rows"]:
        row.pop("seconds")
    return metrics


def test_more_seeds_may_be_asked_for_after_an_interruption_but_nothing_else_changed(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    out = tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt):
        train(
            plan(stored, epochs="50", patience=0),
            home,
            out,
            watcher=Interrupting(seed=0, epoch=1),
            artifacts=artifacts,
        )
    with pytest.raises(UserError, match=r"unfinished training .*\n  train.epochs: 50 -> 3"):
        train(plan(stored, epochs="3", patience=0), home, out)
    told = train(plan(stored, epochs="50", patience=0, seeds=2), home, out, artifacts=artifacts)
    assert [row["epochs"] for row in told["seeds"]["rows"]] == [50, 50]


def test_two_trainings_do_not_share_a_folder(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    class Second(Recorder):
        def progress(self, summary: Summary) -> None:
            del summary
            train(plan(stored), home, tmp_path / "bundle")

    with pytest.raises(UserError, match="another searchae train is at work in it"):
        train(
            plan(stored),
            home,
            tmp_path / "bundle",
            watcher=Second(),
            artifacts=tmp_path / "artifacts",
        )


def test_a_folder_with_something_else_is_left_alone(
    stored: StoredStudy, home: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("1")
    with pytest.raises(UserError, match="is not empty, and not a bundle"):
        train(plan(stored), home, tmp_path / "thesis")
    with pytest.raises(UserError, match="is a file"):
        train(plan(stored), home, tmp_path / "thesis" / "chapter.tex")
    shutil.copytree(undisturbed[0], tmp_path / "bundle")
    best = find_trial(stored, "best").number
    other = next(t.number for t in stored.study.get_trials(deepcopy=False) if t.number != best)
    with pytest.raises(UserError, match=f"holds the bundle .*\n  trial: {best} -> {other}"):
        train(plan(stored, trial=str(other)), home, tmp_path / "bundle")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.name.startswith(".")) == []
    with pytest.raises(UserError, match=r"(?s)another training.*train\.epochs: 5 -> 3"):
        train(plan(stored), home, tmp_path / "bundle")
    same = {"epochs": "5", "patience": 0}
    with pytest.raises(UserError, match=r"over 3 seeds, here are 1: give --seeds 3 or more"):
        train(plan(stored, **same), home, tmp_path / "bundle")
    was = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    hidden = tmp_path / "bundle" / ".checkpoint"
    hidden.mkdir()
    shorter = plan(stored, seeds=3)
    (hidden / "training.json").write_text(json.dumps(shorter.identity(stored.data_hash)))
    with pytest.raises(UserError, match="holds the bundle of another training"):
        train(shorter, home, tmp_path / "bundle")
    shutil.rmtree(hidden)
    told = train(plan(stored, seeds=3, **same), home, tmp_path / "bundle")
    assert told["psnr_db"] == was["psnr_db"], "its own is made again, to the bit"
    assert told["training"] == was["training"]


def test_other_images_than_the_study_s_are_refused(
    stored: StoredStudy, home: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    finished_studies.other_images(tmp_path)
    with pytest.raises(DataError, match="differs from what the study was made with"):
        train(plan(stored), tmp_path, tmp_path / "bundle")
    with pytest.raises(DataError, match="differs from what the study was made with"):
        evaluate_bundle(undisturbed[0], split="test", data_dir=tmp_path / "data")


def test_the_winner_of_a_part_is_trained_on_all_images(tmp_path: Path) -> None:
    stored = finished_studies.search(tmp_path, **{"data.train_images": 64})
    part = train(plan(stored), tmp_path, tmp_path / "part")
    told = train(plan(stored, train_images="all"), tmp_path, tmp_path / "whole")
    assert (part["training"]["images"], told["training"]["images"]) == (48, 96)
    assert part["search"]["to_the_bit"]
    assert told["search"] is None, "on other images nothing is reproduced"
    assert part["data_hash"] == stored.data_hash
    assert told["data_hash"] != stored.data_hash
    again = evaluate_bundle(tmp_path / "whole", split="test", data_dir=tmp_path / "data")
    assert (again["psnr_db"], again["data_hash"]) == (told["psnr_db"], told["data_hash"])
    assert (
        train(plan(stored, train_images="all"), tmp_path, tmp_path / "whole")["psnr_db"]
        == (told["psnr_db"])
    ), "the same training may replace its own bundle"
    with pytest.raises(UserError, match="data_hash"):
        train(plan(stored), tmp_path, tmp_path / "whole")
    finished_studies.other_images(tmp_path)
    with pytest.raises(DataError, match="differs from what the study was made with"):
        train(plan(stored, train_images="all"), tmp_path, tmp_path / "other")


def test_less_may_be_held_out_than_in_the_search(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    told = train(plan(stored, validation=0.125), home, tmp_path / "bundle")
    assert told["training"]["images"] == 112, "of 128; in the search it was a quarter"
    assert (
        evaluate_bundle(tmp_path / "bundle", split="validation", data_dir=home / "data")["images"]
        == 16
    )


def test_a_denoiser_is_not_retrained_without_its_noise(tmp_path: Path) -> None:
    stored = finished_studies.search(
        tmp_path, **{"train.noise_std": 0.1, "train.noise_from_epoch": 3}
    )
    with pytest.raises(UserError, match=r"--epochs 2: the trial's noise begins in epoch 3"):
        plan(stored, epochs="2")
    assert plan(stored, epochs="3").params.train.noise_from_epoch == 3


def test_a_training_that_diverges_at_once_says_which_seed(
    stored: StoredStudy, home: Path, tmp_path: Path
) -> None:
    made = unbounded(plan(stored, epochs="2"), learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"^seed 0: the training diverged in its first epoch"):
        train(made, home, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("changes", "epochs", "patience"),
    [
        ({"epochs": "search"}, 3, 0),
        ({"epochs": ""}, 100, 10),
        ({"epochs": "7"}, 7, 10),
        ({"epochs": "7", "patience": 0}, 7, 0),
        ({"epochs": "", "patience": 4}, 100, 4),
    ],
)
def test_how_long_is_trained(
    stored: StoredStudy, changes: dict[str, Any], epochs: int, patience: int
) -> None:
    made = plan(stored, **changes)
    assert (made.params.train.epochs, made.params.train.patience) == (epochs, patience)
    assert made.threads == 1, "as many as the search's worker had"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trial": "6"}, "--trial 6: give best, winner, compared, or a number from 0 to 5"),
        ({"trial": "bets"}, "--trial bets: give best"),
        ({"trial": "-1"}, "--trial -1: give best"),
        ({"epochs": "0"}, "--epochs 0: give a number above 0, or search"),
        ({"epochs": "1e3"}, "--epochs 1e3"),
        ({"epochs": "search", "patience": 3}, "search's own plateau rule"),
        ({"train_images": "0"}, "--train-images 0: give a number above 0, or all"),
        ({"train_images": "most"}, "--train-images most"),
        ({"validation": 1.0}, "--validation 1: give a share above 0 and below 1"),
    ],
)
def test_what_cannot_be_retrained_is_refused(
    stored: StoredStudy, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        plan(stored, **changes)


def test_a_study_whose_trials_all_ended_badly_has_no_winner(tmp_path: Path) -> None:
    bad = finished_studies.search(
        tmp_path,
        **{
            "search.trials": 1,
            "train.learning_rate": 1e6,
            "train.regularizer": "none",
            "train.optimizer": "sgd",
            "model.activation": "relu",
            "model.output": "none",
        },
    )
    with pytest.raises(UserError, match="no trial has trained to its end yet"):
        plan(bad)
    with pytest.raises(UserError, match=r"--trial 0: ended badly \(diverged\)"):
        plan(bad, trial="0")
    number = bad.study.ask().number
    with pytest.raises(UserError, match=f"--trial {number}: is running"):
        plan(bad, trial=str(number))
