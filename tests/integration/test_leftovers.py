"""What other studies, other images and other users left in the shared folders."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searchae import data
from searchae.cli.console import print_summary
from searchae.config.loader import load_study_file
from searchae.data import decoded_cache
from searchae.report.last_comparison import (
    comparison_file,
    read_comparison,
    write_comparison_file,
)
from searchae.storage.connection import connect
from searchae.study import gallery
from searchae.study.coordination import Coordinator
from searchae.study.images import keep_images
from searchae.study.stored_study import StoredStudy, open_study
from searchae.study.summary import summarize
from searchae.worker.loop import Worker
from searchae.worker.objective import TrialHooks, TrialJob, run_trial
from searchae.worker.options import WorkerOptions
from tests.conftest import RunCommand, smooth_images

pytestmark = pytest.mark.usefixtures("keeps_threads")


def new_study(folder: Path, database: str = "searchae") -> StoredStudy:
    changes = {"search.pruner": "none", "search.trials": 1}
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={}, changes=changes)
    splits = data.load_splits(spec.data, data_dir=folder / "data", seed=spec.seed)
    storage = connect(f"sqlite:///{folder}/{database}.db")
    return open_study(storage, "tiny", spec=spec, data_hash=splits.hash, baseline_db=11.5)[0]


def options(folder: Path, artifacts: str = "artifacts") -> WorkerOptions:
    return WorkerOptions(device="cpu", data_dir=folder / "data", artifacts=folder / artifacts)


def interrupted_after_two_epochs(folder: Path) -> None:
    """Leaves a checkpoint of trial 0."""
    stop = threading.Event()

    def train(job: TrialJob, hooks: TrialHooks) -> float:
        def on_epoch(result: Any) -> None:
            if result.epoch == 2:
                stop.set()

        return run_trial(job, replace(hooks, on_result=on_epoch))

    Worker(new_study(folder), options(folder), train=train, stop=stop).run()
    left = folder / "artifacts" / "tiny" / "checkpoints"
    assert [p.name[:13] for p in left.glob("*-000002-*")] == ["000000-000002"]


def reports(stored: StoredStudy) -> dict[int, float]:
    (trial,) = stored.study.get_trials()
    assert trial.state.name == "COMPLETE"
    return trial.intermediate_values


@pytest.mark.parametrize("other_images", [True, False])
def test_a_checkpoint_of_a_deleted_database_is_not_taken_up(
    folder: Path, caplog: pytest.LogCaptureFixture, other_images: bool
) -> None:
    interrupted_after_two_epochs(folder)
    (folder / "searchae.db").unlink()
    if other_images:
        images = smooth_images(128, seed=5)
        np.savez(folder / "data" / "tiny.npz", x_train=images, x_test=images[:16])
    again, clean = new_study(folder), new_study(folder, "clean")
    with caplog.at_level(logging.INFO, logger="searchae"):
        Worker(again, options(folder)).run()
    assert "goes on after" not in caplog.text
    assert "of another study or other images" in caplog.text
    Worker(clean, options(folder, "empty")).run()
    assert reports(again) == reports(clean)


def test_a_checkpoint_of_the_study_itself_is_taken_up(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_after_two_epochs(folder)
    with caplog.at_level(logging.INFO, logger="searchae"):
        Worker(new_study(folder), options(folder)).run()
    assert "goes on after epoch 2" in caplog.text


def test_epochs_whose_checkpoint_was_deleted_are_counted_as_repeated(
    folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted_after_two_epochs(folder)
    shutil.rmtree(folder / "artifacts")
    stored = new_study(folder)
    Worker(stored, options(folder)).run()
    assert "trial 0: 2 epochs trained again: no checkpoint in --artifacts" in caplog.text
    summary = summarize(stored, Coordinator(stored))
    assert (summary.epochs_run, summary.epochs_repeated) == (3, 2)
    print_summary(summary)
    assert "3 run, 2 of them trained again after a loss" in capsys.readouterr().out


def test_a_new_search_has_a_folder_of_its_own(searchae: RunCommand, folder: Path) -> None:
    """Others may have the name: in another database, or in one that was deleted."""
    words = ("tune", "-s", "tiny", "--workers", "1", "--trials", "1")
    first = searchae(*words)
    assert first.returncode == 0, first.stderr
    before = {p: p.read_bytes() for p in (folder / "artifacts").rglob("*") if p.is_file()}
    assert {p.relative_to(folder / "artifacts").parts[0] for p in before} == {"tiny"}
    second = searchae(*words, "--storage", "sqlite:///other.db")
    assert second.returncode == 0, second.stderr
    (new,) = {p.name for p in (folder / "artifacts").iterdir()} - {"tiny"}
    assert f"the files of this one go to artifacts/{new}" in second.stderr
    assert {p: p.read_bytes() for p in before} == before, "it is left alone"
    assert list((folder / "artifacts" / new / "pictures").iterdir())
    third = searchae(*words[:-1], "2", "--storage", "sqlite:///other.db")
    assert third.returncode == 0, third.stderr
    assert len(list((folder / "artifacts").iterdir())) == 2, "it is found again"


def test_a_picture_of_another_study_is_not_shown(folder: Path) -> None:
    """Also where the trial's PSNR is the same."""
    place = gallery.gallery_folder(folder / "artifacts", "tiny")
    one, other = new_study(folder), new_study(folder, "other")
    drawn = Image.new("RGB", (2, 2))
    gallery.save_picture(place, 0, drawn, psnr_db=20.5, owner=gallery.picture_owner(one))
    assert gallery.read_picture(place, 0, psnr_db=20.5, owner=gallery.picture_owner(one))
    owner = gallery.picture_owner(other)
    assert gallery.read_picture(place, 0, psnr_db=20.5, owner=owner) is None
    assert gallery.trials_with_picture(place, {0: 20.5}, owner=owner) == set()


COMPARED = {
    "seeds": [1],
    "comparisons": [{"parameter": "activation", "sentence": "s", "notes": [], "sides": []}],
}


def test_a_comparison_is_that_of_the_study(folder: Path) -> None:
    one, other, artifacts = new_study(folder), new_study(folder, "other"), folder / "artifacts"
    document = {**COMPARED, "data_hash": one.data_hash}
    write_comparison_file(artifacts, one, document)
    assert read_comparison(artifacts, one) == document
    assert read_comparison(artifacts, other) is None


@pytest.mark.parametrize("change", [{"comparisons": [{}]}, {"seeds": 3}, {"comparisons": "x"}])
def test_an_odd_comparison_is_none(
    folder: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """In a study of an earlier version, which has no checksum of it."""
    stored = replace(new_study(folder), identity="")
    file = comparison_file(folder / "artifacts", stored)
    file.parent.mkdir(parents=True)
    document = {**COMPARED, "data_hash": stored.data_hash}
    file.write_text(json.dumps(document))
    assert read_comparison(folder / "artifacts", stored) == document
    file.write_text(json.dumps({**document, **change}))
    assert read_comparison(folder / "artifacts", stored) is None
    assert "comparison.json: is damaged" in caplog.text
    file.unlink()
    os.mkfifo(file)
    assert read_comparison(folder / "artifacts", stored) is None


@pytest.mark.parametrize("harm", ["forged", "emptied", "pipe", "link"])
def test_decoded_images_are_those_of_the_study(
    folder: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Forged ones come with checksums that fit them; a power cut leaves empty files."""
    stored, clean = new_study(folder), new_study(folder, "clean")
    splits = data.load_splits(stored.spec.data, data_dir=folder / "data", seed=stored.spec.seed)
    Worker(clean, options(folder, "clean")).run()
    keep_images(stored, splits, folder / "data")
    home = folder / "data" / "decoded" / splits.hash
    if harm == "forged":
        forged = replace(splits, train=255 - splits.train)
        os.rename(home, home.with_name("other"))
        decoded_cache.keep_decoded(forged, folder / "data")
    else:
        (home / "train.npy").unlink()
    if harm == "emptied":
        (home / "train.npy").touch()
    elif harm == "pipe":
        os.mkfifo(home / "train.npy")
    elif harm == "link":
        (home / "train.npy").symlink_to("/dev/zero")
    Worker(stored, options(folder)).run()
    assert reports(stored) == reports(clean)
    assert "are of no use" in caplog.text
    caplog.clear()
    keep_images(stored, splits, folder / "data")
    sums = decoded_cache.decoded_sums(splits)
    assert decoded_cache.find_decoded(splits.hash, folder / "data", sums) is not None, "anew"
