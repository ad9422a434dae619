"""What a worker stores for the report: histories in the database, pictures in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from searchae import data
from searchae.config.loader import load_study_file
from searchae.errors import DivergedError
from searchae.report.findings import collect_findings
from searchae.report.page import report_page
from searchae.storage.connection import connect
from searchae.study import gallery
from searchae.study.epoch_history import history_columns
from searchae.study.stored_study import StoredStudy, open_study
from searchae.training.images import to_unit_float
from searchae.training.metrics import psnr_per_image
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from searchae.worker.options import WorkerOptions

pytestmark = pytest.mark.usefixtures("keeps_threads")


@pytest.fixture
def study(folder: Path) -> Callable[..., StoredStudy]:
    def make(**changes: Any) -> StoredStudy:
        keys = {"search.pruner": "none", **{k.replace("__", "."): v for k, v in changes.items()}}
        spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=keys)
        splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
        storage = connect(f"sqlite:///{folder}/kept.db")
        return open_study(storage, "kept", spec=spec, data_hash=splits.hash, baseline_db=11.5)[0]

    return make


def work(stored: StoredStudy, folder: Path, **more: Any) -> list[Any]:
    options = WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / "artifacts")
    Worker(stored, options, **more).run()
    return stored.study.get_trials(deepcopy=False)


def pictures_in(folder: Path) -> list[int]:
    return sorted(
        int(p.stem) for p in gallery.gallery_folder(folder / "artifacts", "kept").iterdir()
    )


def test_a_trial_s_epochs_are_kept_with_it(study: Callable[..., StoredStudy], folder: Path) -> None:
    seen: dict[int, list[Any]] = {}

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: Any) -> None:
            seen.setdefault(job.checkpoints.number, []).append(result)
            hooks.on_result(result)

        return run_trial(job, replace(hooks, on_result=on_epoch))

    for trial in work(study(search__trials=3), folder, train=train):
        kept = history_columns(trial.user_attrs)
        assert kept["val_mse"] == pytest.approx([r.val_mse for r in seen[trial.number]], rel=1e-5)
        assert kept["train_mse"] == pytest.approx(
            [r.train_mse for r in seen[trial.number]], rel=1e-5
        )
        assert len(kept["sparsity"]) == len(trial.intermediate_values) == 3


def test_a_pruned_trial_s_epochs_are_kept_and_it_has_no_picture(
    study: Callable[..., StoredStudy], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = study(search__trials=3)

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        if job.checkpoints.number == 1:
            monkeypatch.setattr(job.trial, "should_prune", lambda: True)
        return run_trial(job, hooks)

    trials = work(stored, folder, train=train)
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert len(history_columns(trials[1].user_attrs)["val_mse"]) == 1
    assert pictures_in(folder) == [0, 2]


def test_a_training_that_hands_over_no_trainer_has_neither(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    def pretend(job: TrialJob, _hooks: TrialHooks) -> float:
        job.trial.report(20.0, 1)
        return 20.0

    (trial,) = work(study(search__trials=1), folder, train=pretend)
    assert trial.value == 20.0
    assert history_columns(trial.user_attrs) == {}
    assert list(gallery.gallery_folder(folder / "artifacts", "kept").glob("*")) == []


def test_a_trial_that_diverged_has_neither(study: Callable[..., StoredStudy], folder: Path) -> None:
    def diverging(_job: TrialJob, _hooks: TrialHooks) -> float:
        raise DivergedError("the loss is nan")

    (trial,) = work(study(search__trials=1), folder, train=diverging)
    assert history_columns(trial.user_attrs) == {}
    assert not gallery.gallery_folder(folder / "artifacts", "kept").exists()


def test_pictures_are_of_the_best_only_and_of_the_net_that_was_measured(
    study: Callable[..., StoredStudy], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "PICTURES_KEPT", 2)
    drawn: dict[int, list[float]] = {}

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_end(trainer: Any) -> None:
            hooks.on_end(trainer)
            validation = job.images[1]
            trainer.model.eval()
            with torch.inference_mode():
                clean = to_unit_float(validation)
                out = trainer.model.decode(trainer.model.encode(clean))
            drawn[job.checkpoints.number] = psnr_per_image(out, clean).tolist()

        return run_trial(job, replace(hooks, on_end=on_end))

    stored = study()
    trials = work(stored, folder, train=train)
    best = sorted(trials, key=lambda t: -t.value)[:2]
    assert pictures_in(folder) == sorted(t.number for t in best)
    for trial in best:
        path = gallery.picture_path(
            gallery.gallery_folder(folder / "artifacts", "kept"), trial.number
        )
        with Image.open(path) as image:
            assert image.info["psnr_db"] == repr(trial.value)
        mean = sum(drawn[trial.number]) / len(drawn[trial.number])
        assert trial.value == pytest.approx(mean, abs=1e-3)


def test_a_folder_that_takes_no_picture_does_not_fail_the_trial(
    study: Callable[..., StoredStudy], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = gallery.gallery_folder(folder / "artifacts", "kept")
    place.parent.mkdir(parents=True)
    place.write_text("a file, where the folder should be")
    trials = work(study(search__trials=2), folder)
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE"]
    assert "no picture" in caplog.text


def test_the_report_of_a_real_search_shows_all_of_it(
    study: Callable[..., StoredStudy], folder: Path
) -> None:
    stored = study()
    work(stored, folder)
    found = collect_findings(stored, artifacts=folder / "artifacts")
    assert list(found.pictures) == [r.row.number for r in found.best[:5]]
    html = report_page(found)
    assert html.count('class="picture"') == 5
    assert "Not recorded for this study" not in html
