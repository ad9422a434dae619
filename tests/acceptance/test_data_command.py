"""``searchae data``, and what a dry run says of a folder of photographs, as typed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunCommand, smooth_images

pytestmark = pytest.mark.usefixtures("keeps_threads")

PHOTOS = """
[data]
name = "folder"
path = "photos"
image_size = 16
[train]
batch_size = 4
learning_rate = { low = 1e-4, high = 1e-1, log = true }
"""


@pytest.fixture
def photos(folder: Path) -> Path:
    """A user's folder with 20 photographs and a study of them."""
    (folder / "photos").mkdir()
    for i, image in enumerate(smooth_images(20, 40)):
        Image.fromarray(image[:30]).save(folder / "photos" / f"{i:02d}.png")
    (folder / "photos" / "notes.txt").write_text("no image")
    (folder / "photos.toml").write_text(PHOTOS)
    return folder


def test_a_folder_s_images_are_described_and_shown(photos: Path, command_line: RunCommand) -> None:
    done = command_line("data", "./photos.toml", "--show", "sheet.png", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["train"] == 16
    levels = document["levels"]["train"]
    assert levels["min"] < 20
    assert levels["max"] > 235
    assert levels["min"] < levels["mean"] < levels["max"]
    assert document["also_in_train"] == {"validation": 0, "test": 0}
    assert "each resized and cut to the square in the middle (16x16 pixels)" in done.stderr
    assert "left out: .txt (1)" in done.stderr
    with Image.open(photos / "sheet.png") as sheet:
        assert sheet.format == "PNG"
    plain = command_line("data", "./photos.toml").stdout
    assert f"train: {levels['min']} to {levels['max']}, mean {levels['mean']:.1f}" in plain


def test_the_same_pictures_in_two_folders_are_told_of(
    photos: Path, command_line: RunCommand
) -> None:
    (photos / "photos" / "again").mkdir()
    for path in sorted((photos / "photos").glob("*.png")):
        (photos / "photos" / "again" / path.name).write_bytes(path.read_bytes())
    for words in (("data", "./photos.toml"), ("tune", "-s", "./photos.toml", "--dry-run")):
        done = command_line(*words)
        assert done.returncode == 0, done.stderr
        assert "test images are in the training split too, pixel by pixel" in done.stderr


def test_a_dry_run_says_how_pictures_are_prepared(photos: Path, command_line: RunCommand) -> None:
    done = command_line("tune", "-s", "./photos.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("data "))
    assert line.endswith("each image resized and cut to the square in the middle (16x16 pixels)")
    assert "batches of 4 are 4 steps an epoch: trials are pruned from epoch 7 on" in done.stderr


def test_images_that_can_be_read_in_two_ways_are_refused_with_what_to_write(
    folder: Path, command_line: RunCommand
) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (64, 16, 16), np.uint8)
    np.savez(folder / "data" / "tiny.npz", images=masks)
    for words in (("data", "studies/tiny.toml"), ("tune", "-s", "tiny", "--dry-run")):
        refused = command_line(*words)
        assert refused.returncode == 2
        assert "no value exceeds 1, where white is 255" in refused.stderr
        assert "white = 1 under [data]" in refused.stderr
        done = command_line(*words, "--set", "data.white=1", "--json")
        assert done.returncode == 0, done.stderr
    levels = json.loads(done.stdout)["splits"]["levels"]
    assert levels["train"]["max"] == 255
    study = folder / "studies" / "tiny.toml"  # now what the message says, as it stands
    study.write_text(study.read_text().replace("[data]", "[data]\nwhite = 1"))
    assert command_line("data", "studies/tiny.toml").returncode == 0


def test_a_study_of_dark_images_that_an_earlier_version_made_goes_on(
    folder: Path, command_line: RunCommand
) -> None:
    """Its images were accepted when it was made; their hash is what it was made with."""
    words = ("tune", "-s", "tiny", "--workers", "1", "--device", "cpu", "--set", "train.epochs=1")
    masks = (smooth_images(64) // 8).astype(np.uint8)
    np.savez(folder / "data" / "tiny.npz", images=masks)
    assert command_line(*words, "--trials", "1").returncode == 2
    made = command_line(*words, "--trials", "1", "--set", "data.white=255")
    assert made.returncode == 0, made.stderr
    forget_white(folder / "searchae.db")
    done = command_line(*words, "--trials", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["complete"] == 2
    assert "warning: " in done.stderr
    assert "white = 31 under [data]" in done.stderr


def forget_white(database: Path) -> None:
    """Makes a study's spec what it was before ``data.white`` existed."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT study_user_attribute_id, value_json FROM study_user_attributes"
        ).fetchall()
        for number, text in rows:
            if '"white": 255.0' in text:
                without = text.replace(', "white": 255.0', "")
                assert without != text
                connection.execute(
                    "UPDATE study_user_attributes SET value_json = ?"
                    " WHERE study_user_attribute_id = ?",
                    (without, number),
                )


def test_keys_of_a_data_set_are_set_too(command_line: RunCommand) -> None:
    small = command_line(
        "data",
        "house-numbers",
        "--json",
        *("--set", "data.train_images=60", "--set", "data.test_images=12"),
    )
    document = json.loads(small.stdout)
    assert (document["train"] + document["validation"], document["test"]) == (60, 12)
    refused = command_line("data", "svhn", "--set", "x=1")  # before anything is fetched
    assert refused.returncode == 2
    assert refused.stderr.startswith("searchae: --set x=1: ")
