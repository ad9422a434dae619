"""What a worker keeps for the report: epochs in the database, pictures in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from searchae import data, gallery, objective
from searchae.errors import DivergedError
from searchae.history import columns
from searchae.report.findings import collect
from searchae.report.page import page
from searchae.storage import connect
from searchae.study import Stored, open_study
from searchae.study_file import load
from searchae.training import psnr_per_image
from searchae.training.images import to_unit_float
from searchae.worker import Options, Worker

pytestmark = pytest.mark.usefixtures("keeps_threads")


@pytest.fixture
def study(folder: Path) -> Callable[..., Stored]:
    def make(**changes: Any) -> Stored:
        keys = {"search.pruner": "none", **{k.replace("__", "."): v for k, v in changes.items()}}
        spec = load(folder / "studies" / "tiny.toml", environment={}, changes=keys)
        splits = data.load(spec.data, data_dir=folder / "data", seed=spec.seed)
        storage = connect(f"sqlite:///{folder}/kept.db")
        return open_study(storage, "kept", spec=spec, data_hash=splits.hash, baseline_db=11.5)[0]

    return make


def work(stored: Stored, folder: Path, **more: Any) -> list[Any]:
    options = Options(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    Worker(stored, options, **more).run()
    return stored.study.get_trials(deepcopy=False)


def pictures_in(folder: Path) -> list[int]:
    return sorted(int(p.stem) for p in gallery.folder(folder / "artifacts", "kept").iterdir())


def test_a_trial_s_epochs_are_kept_with_it(study: Callable[..., Stored], folder: Path) -> None:
    seen: dict[int, list[Any]] = {}

    def train(trial: Any, params: Any, **rest: Any) -> float:
        told = rest.pop("on_epoch")

        def on_epoch(result: Any) -> None:
            seen.setdefault(trial.number, []).append(result)
            told(result)

        return objective.run(trial, params, on_epoch=on_epoch, **rest)

    for trial in work(study(search__trials=3), folder, train=train):
        kept = columns(trial.user_attrs)
        assert kept["val_mse"] == pytest.approx([r.val_mse for r in seen[trial.number]], rel=1e-5)
        assert kept["train_mse"] == pytest.approx(
            [r.train_mse for r in seen[trial.number]], rel=1e-5
        )
        assert len(kept["sparsity"]) == len(trial.intermediate_values) == 3


def test_a_pruned_trial_s_epochs_are_kept_and_it_has_no_picture(
    study: Callable[..., Stored], folder: Path
) -> None:
    stored = study(search__trials=3)

    def train(trial: Any, params: Any, **rest: Any) -> float:
        if trial.number == 1:
            trial.should_prune = lambda: True
        return objective.run(trial, params, **rest)

    trials = work(stored, folder, train=train)
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert len(columns(trials[1].user_attrs)["val_mse"]) == 1
    assert pictures_in(folder) == [0, 2]


def test_a_training_that_hands_over_no_trainer_has_neither(
    study: Callable[..., Stored], folder: Path
) -> None:
    def pretend(trial: Any, params: Any, **rest: Any) -> float:
        trial.report(20.0, 1)
        return 20.0

    (trial,) = work(study(search__trials=1), folder, train=pretend)
    assert trial.value == 20.0
    assert columns(trial.user_attrs) == {}
    assert list(gallery.folder(folder / "artifacts", "kept").glob("*")) == []


def test_a_trial_that_diverged_has_neither(study: Callable[..., Stored], folder: Path) -> None:
    def diverging(trial: Any, params: Any, **rest: Any) -> float:
        raise DivergedError("the loss is nan")

    (trial,) = work(study(search__trials=1), folder, train=diverging)
    assert columns(trial.user_attrs) == {}
    assert not gallery.folder(folder / "artifacts", "kept").exists()


def test_pictures_are_of_the_best_only_and_of_the_net_that_was_measured(
    study: Callable[..., Stored], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "KEPT", 2)
    drawn: dict[int, list[float]] = {}

    def train(trial: Any, params: Any, **rest: Any) -> float:
        told = rest.pop("on_end")

        def on_end(trainer: Any) -> None:
            told(trainer)
            validation = rest["images"][1]
            trainer.model.eval()
            with torch.inference_mode():
                clean = to_unit_float(validation)
                out = trainer.model.decode(trainer.model.encode(clean))
            drawn[trial.number] = psnr_per_image(out, clean).tolist()

        return objective.run(trial, params, on_end=on_end, **rest)

    stored = study()
    trials = work(stored, folder, train=train)
    best = sorted(trials, key=lambda t: -t.value)[:2]
    assert pictures_in(folder) == sorted(t.number for t in best)
    for trial in best:
        path = gallery.path(gallery.folder(folder / "artifacts", "kept"), trial.number)
        with Image.open(path) as image:
            assert image.info["psnr_db"] == repr(trial.value)
        mean = sum(drawn[trial.number]) / len(drawn[trial.number])
        assert trial.value == pytest.approx(mean, abs=1e-3)


def test_a_folder_that_takes_no_picture_does_not_fail_the_trial(
    study: Callable[..., Stored], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = gallery.folder(folder / "artifacts", "kept")
    place.parent.mkdir(parents=True)
    place.write_text("a file, where the folder should be")
    trials = work(study(search__trials=2), folder)
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE"]
    assert "no picture" in caplog.text


def test_the_report_of_a_real_search_shows_all_of_it(
    study: Callable[..., Stored], folder: Path
) -> None:
    stored = study()
    work(stored, folder)
    found = collect(stored, artifacts=folder / "artifacts")
    assert list(found.pictures) == [r.row.number for r in found.best[:5]]
    html = page(found)
    assert html.count('class="picture"') == 5
    assert "Not recorded for this study" not in html
