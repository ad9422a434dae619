"""From a finished search to a bundle in use, as typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import searchae as package
from searchae.config import DataSpec, ModelParams
from searchae.data import load_splits
from tests.conftest import smooth_images
from tests.forked_commands import run_command
from tests.integration import finished_studies
from tests.unit import bundles

pytestmark = pytest.mark.usefixtures("keeps_threads")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FIGURES = {"psnr_db", "psnr_of_mse_db", "ssim", "mse", "images", "baseline_db", "sparsity"}
FIGURES |= {"weight_sparsity", "parameters", "compression", "latent", "data_hash"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder in which a search has ended."""
    folder = tmp_path_factory.mktemp("done") / "home"
    folder.mkdir()
    finished_studies.search(folder)
    return folder


@pytest.fixture
def home(done: Path, folder: Path) -> Path:
    """A copy of it, in this test's folder."""
    shutil.copytree(done, folder, dirs_exist_ok=True)
    return folder


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_winner_is_trained_measured_and_used(home: Path, command_line: Run) -> None:
    told = command_line("train", "-s", "tiny", "--epochs", "4", "--seeds", "2", "--out", "w")
    assert told.returncode == 0, told.stderr
    assert "reproduces the search's" in told.stdout
    assert "over 2 seeds" in told.stdout
    assert "seed 1  epoch   4 of 4" in told.stderr, "a line an epoch where there is no terminal"
    assert "seed 1  ended after 4 epochs, " in told.stderr
    assert "; seeds 0 to 1, of which the bundle gets the weights of 0; " in told.stderr
    assert re.search(r"^expected: at most about .* with \d workers?, as fast as", told.stderr, re.M)
    words = ("train", "-s", "tiny", "--epochs", "4", "--seeds", "2", "--out")
    repeated = command_line(*words, "w")
    assert repeated.returncode == 0, repeated.stderr
    assert repeated.stdout == told.stdout
    assert (
        "w: holds the bundle of this training already (2 trainings); nothing is trained again"
        in (repeated.stderr)
    )
    elsewhere = command_line(*words, "elsewhere")
    assert "2 trainings done before, and kept: nothing is trained again" in elsewhere.stderr
    again = answer(command_line("evaluate", "w", "--json"))
    assert again.keys() >= FIGURES
    metrics = json.loads((home / "w" / "metrics.json").read_text())
    assert {k: metrics[k] for k in FIGURES} == {k: again[k] for k in FIGURES}

    with np.load(home / "data" / "tiny.npz") as archive:
        images = archive["x_test"]
    (home / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(home / "photos" / f"{i:02d}.png")
    encoded = answer(command_line("encode", "w", "photos", "codes.npz", "--json"))
    assert (encoded["images"], encoded["latents"]) == (16, [16, 8])
    assert encoded["compression"]["ratio"] == 96
    with np.load(home / "codes.npz") as archive:
        z, names = archive["latents"], archive["files"]
    refused = command_line("encode", "w", "photos", "codes.npz")
    assert refused.returncode == 2
    assert "codes.npz: exists already; --overwrite replaces it" in refused.stderr
    assert answer(command_line("encode", "w", "photos", "codes.npz", "--overwrite", "--json"))
    model = package.load(home / "w")
    np.testing.assert_array_equal(z, model.encode(images.transpose(0, 3, 1, 2)))
    assert list(names[:2]) == ["00.png", "01.png"]

    answer(command_line("decode", "w", "codes.npz", "back", "--json"))
    answer(command_line("decode", "w", "codes.npz", "back.npz", "--json"))
    direct_result = answer(command_line("reconstruct", "w", "photos", "again.npz", "--json"))
    assert direct_result["psnr_db"] == pytest.approx(metrics["psnr_db"], abs=1e-4)
    with np.load(home / "back.npz") as back, np.load(home / "again.npz") as direct:
        assert (back["images"].dtype, back["images"].shape) == (np.uint8, (16, 16, 16, 3))
        np.testing.assert_array_equal(back["images"], direct["images"])
        picture = np.asarray(Image.open(home / "back" / "03.png"))
        np.testing.assert_array_equal(picture, back["images"][3])


@pytest.mark.fleet
def test_a_command_s_last_word_is_its_own(home: Path, new_process: Run) -> None:
    """Training loads libraries that complain at the end of a process that is left in a hurry."""
    told = new_process("train", "-s", "tiny", "--epochs", "1", "--seeds", "1", "--out", "w")
    assert told.returncode == 0, told.stderr
    assert told.stderr.splitlines()[-1].startswith("seed 0  ended after 1 epoch, ")
    assert (home / "w" / "metrics.json").is_file()


def test_a_cosine_over_other_epochs_is_said_to_be_another_one(
    folder: Path, command_line: Run
) -> None:
    cosine = ("--set", 'train.schedule="cosine"', "--trials", "1", "--workers", "1")
    searched = command_line("tune", "-s", "tiny", *cosine)
    assert searched.returncode == 0, searched.stderr
    said = "the learning rate falls over 4 epochs, not over the search's 3"
    longer = command_line("train", "-s", "tiny", "--epochs", "4", "--out", "longer")
    assert said in longer.stderr
    same = command_line("train", "-s", "tiny", "--epochs", "search", "--out", "same")
    assert same.returncode == 0, same.stderr
    assert "the learning rate falls" not in same.stderr


def test_train_prints_what_metrics_json_holds(home: Path, command_line: Run) -> None:
    words = ("--trial", "0", "--epochs", "search", "--json", "--out", "w")
    told = answer(command_line("train", "-s", "tiny", *words))
    written = json.loads((home / "w" / "metrics.json").read_text())
    assert told == {**written, "bundle": "w", "files": told["files"]}
    assert all((home / "w" / name).is_file() for name in told["files"])
    assert told.keys() >= FIGURES | {"study", "trial", "params", "seeds", "search", "versions"}
    assert told["search"]["to_the_bit"]
    exported = answer(command_line("export", "w", "net.pt2", "--json"))
    assert exported["max_difference"] <= 1e-5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "-s", "none", "--out", "w"], "study 'none' is not in"),
        (["train", "-s", "tiny", "--out", "w", "--trial", "99"], "--trial 99: give best"),
        (["train", "-s", "tiny", "--out", "w", "--epochs", "many"], "--epochs many: give a number"),
        (["train", "-s", "tiny", "--out", "data"], "--out data: is not empty"),
        (["evaluate", "data"], "data: is not a bundle"),
        (["evaluate", "data", "--split", "tests"], "--split tests: did you mean"),
        (["encode", "data", "data/tiny.npz", "codes.txt"], "codes.txt: latents go into an .npz"),
        (["encode", "none", "data/tiny.npz", "codes.npz"], "none: there is no such folder"),
        (["decode", "data", "data/tiny.npz", "data"], "data: holds something already"),
        (["export", "data", "data/tiny.npz"], "data/tiny.npz: exists already; --overwrite"),
        (["export", "data", "x.onnx", "--part", "coder"], "--part coder: did you mean"),
    ],
)
def test_a_mistake_is_explained_in_a_line(
    home: Path, command_line: Run, words: list[str], said: str
) -> None:
    before = files(home)
    told = command_line(*words)
    assert told.returncode == 2
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""
    assert files(home) == before, "nothing was written"


def files(home: Path) -> list[Path]:
    """All but what SQLite keeps beside a database."""
    return sorted(p for p in home.rglob("*") if not p.name.startswith("searchae.db"))


def test_the_winner_is_trained_on_as_many_images_as_is_said(
    home: Path, command_line: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = ("train", "-s", "tiny", "--epochs", "search", "--device", "cpu", "--json")
    told = command_line(*words, "--train-images", "64", "--out", "part")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["training"]["images"] == 48, "a quarter of 64 is held out"
    refused = command_line(*words, "--train-images", "many", "--out", "other")
    assert refused.returncode == 2
    assert "--train-images many: give a number above 0, or all" in refused.stderr
    assert not (home / "other").exists()


def test_images_named_from_the_current_folder_are_found_from_any_other(
    folder: Path, searchae: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shutil.move(folder / "data" / "tiny.npz", folder / "here.npz")
    place = ("--storage", f"sqlite:///{folder}/s.db", "--artifacts", str(folder / "artifacts"))
    words = ("--trials", "1", "--workers", "1", "--set", "data.path=here.npz")
    told = searchae("tune", "-s", "tiny", *words, *place)
    assert told.returncode == 0, told.stderr
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    train = ("train", "-s", "tiny", "--epochs", "1", "--seeds", "1", "--out", "w", *place)
    for command in (train, ("evaluate", "w")):
        told = run_command(*command, cwd=elsewhere, env=dict(os.environ))
        assert told.returncode == 0, told.stderr


def test_photographs_of_any_size_are_prepared_as_the_training_s(
    home: Path, command_line: Run
) -> None:
    """A folder like the one trained on, whose pictures have other sizes than the net's images."""
    (home / "photos").mkdir()
    for i, image in enumerate(smooth_images(30, 40)):
        Image.fromarray(image[: 30 + i % 9]).save(home / "photos" / f"{i:02d}.png")
    spec = DataSpec(name="folder", path="photos", image_size=16)
    splits = load_splits(spec, data_dir=home / "photos" / "..", seed=0)
    bundles.write(home / "b", data=spec.model_copy(), data_hash=splits.hash)

    measured = answer(command_line("evaluate", "b", "--data-dir", ".", "--json"))
    assert measured["images"] == 3
    for command, out in (("encode", "z.npz"), ("reconstruct", "again")):
        told = command_line(command, "b", "photos", out, "--json")
        assert answer(told)["images"] == 30
        said = "30 images, each resized and cut to the square in the middle (16x16 pixels)"
        assert told.stderr.count(said) == 1
    with Image.open(home / "again" / "00.png") as picture:
        assert picture.size == (16, 16)


def test_a_variational_net_draws_new_images(folder: Path, command_line: Run) -> None:
    net = {"channels": (4, 8), "latent_dim": 8, "variational": True}
    bundles.write(folder / "vae", model=ModelParams(**net))
    told = answer(command_line("sample", "vae", "300", "new.npz", "--json"))
    assert (told["images"], told["out"]) == (300, "new.npz")
    with np.load(folder / "new.npz") as archive:
        images = archive["images"]
    assert images.shape == (300, 16, 16, 3)
    assert len(np.unique(images.reshape(300, -1), axis=0)) == 300, "all differ"
    assert answer(command_line("sample", "vae", "3", "new", "--json"))["images"] == 3
    first = np.asarray(Image.open(folder / "new" / "000000.png"))
    np.testing.assert_array_equal(first, images[0])
    answer(command_line("sample", "vae", "3", "other.npz", "--seed", "1", "--json"))
    with np.load(folder / "other.npz") as archive:
        assert not np.array_equal(archive["images"], images[:3])
    drawn = package.load(folder / "vae").sample(2)
    np.testing.assert_array_equal(np.rint(drawn * 255), images[:2].transpose(0, 3, 1, 2))

    bundles.write(folder / "plain")
    refused = command_line("sample", "plain", "3", "plain.npz")
    assert refused.returncode == 2
    assert "not variational" in refused.stderr
    assert not (folder / "plain.npz").exists()


@pytest.mark.parametrize(("channels", "bits"), [(4, 8), (1, 16)])
def test_images_of_any_channels_sides_and_bits_are_searched_trained_and_used(
    folder: Path, command_line: Run, channels: int, bits: int
) -> None:
    images = smooth_images(96, 20, channels)[:, :12]
    if bits == 16:
        images = images * np.uint16(257) + images % np.uint16(7) * np.uint16(30)
    np.savez(folder / "data" / "tiny.npz", x_train=images[:80], x_test=images[80:])
    study = folder / "studies" / "tiny.toml"
    keys = 'path = "tiny.npz"\nbits = 16\nwhite = 65535' if bits == 16 else 'path = "tiny.npz"'
    study.write_text(study.read_text().replace('path = "tiny.npz"', keys))
    told = command_line("tune", "-s", "tiny", "--trials", "2", "--workers", "1")
    assert told.returncode == 0, told.stderr
    answer(command_line("train", "-s", "tiny", "--out", "w", "--json"))
    np.savez(folder / "new.npz", images=images[80:])
    measured = answer(command_line("reconstruct", "w", "new.npz", "back.npz", "--json"))
    metrics = json.loads((folder / "w" / "metrics.json").read_text())
    assert measured["psnr_db"] == pytest.approx(metrics["psnr_db"], abs=1e-4)
    with np.load(folder / "back.npz") as archive:
        back = archive["images"]
    assert (back.shape, back.dtype) == ((16, 12, 20, channels), images.dtype)
    white = 255 if bits == 8 else 65535
    errors = (back.astype(float) - images[80:].reshape(back.shape)) / white
    psnrs = -10 * np.log10((errors**2).reshape(16, -1).mean(1))
    assert float(psnrs.mean()) == pytest.approx(measured["psnr_db"], abs=0.05)
    if bits == 16:
        assert len(np.unique(back % 257)) > 50, "values between those of 8 bits"
    told = command_line("reconstruct", "w", "new.npz", "pictures", "--json")
    assert ("white is 65535" in told.stderr) == (bits == 16)
    with Image.open(folder / "pictures" / "000000.png") as picture:
        assert picture.size == (20, 12)
        expected = back[0, ..., 0] if channels == 1 else back[0]
        np.testing.assert_array_equal(np.asarray(picture), expected)
    given = bundle_images(folder / "new.npz", channels, white)
    answer(command_line("reconstruct", "w", "pictures", "from-pictures.npz", "--json"))
    np.testing.assert_array_equal(
        np.rint(package.load(folder / "w").reconstruct(given) * white)[0].astype(images.dtype),
        back[0].transpose(2, 0, 1),
    )


def bundle_images(path: Path, channels: int, white: int) -> np.ndarray:
    """The images of an npz as ``searchae.load(...)`` takes them: floats (N, C, H, W)."""
    with np.load(path) as archive:
        images = archive["images"].reshape(16, 12, 20, channels)
    found: np.ndarray = (images.transpose(0, 3, 1, 2) / white).astype(np.float32)
    return found
