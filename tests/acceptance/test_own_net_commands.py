"""A net of one's own, from a study file to a bundle that encodes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from searchae import load
from searchae.errors import BundleError

pytestmark = pytest.mark.usefixtures("keeps_threads")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
EXAMPLES = Path(__file__).parents[2] / "docs" / "own_net"

# The net of L1aoXingyu's pytorch-beginner, 08-AutoEncoder/conv_autoencoder.py, which many notebooks
# have: MNIST's 28x28 pixels, scaled to [-1, 1].
PUBLISHED = """
from torch import nn


class autoencoder(nn.Module):
    def __init__(self):
        super(autoencoder, self).__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=3, padding=1),
            nn.ReLU(True),
            nn.MaxPool2d(2, stride=2),
            nn.Conv2d(16, 8, 3, stride=2, padding=1),
            nn.ReLU(True),
            nn.MaxPool2d(2, stride=1),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 3, stride=2),
            nn.ReLU(True),
            nn.ConvTranspose2d(16, 8, 5, stride=3, padding=1),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 1, 2, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, x):
        x = self.encoder(x)
        x = self.decoder(x)
        return x


def build(image_shape):
    return autoencoder()
"""
STUDY = """
[data]
name = "npz"
path = "digits.npz"
[model]
kind = "python"
factory = "published.py:build"
image_range = "symmetric"
[train]
epochs = 2
batch_size = 32
optimizer = { choices = ["adam", "sgd"] }
learning_rate = { low = 1e-3, high = 1e-1, log = true }
[search]
trials = 3
"""


def digits(count: int) -> np.ndarray:
    """Bright bars on black, uint8 (N, 28, 28)."""
    draws = np.random.default_rng(0)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, at in zip(images, draws.integers(4, 22, (count, 2)), strict=True):
        image[at[0] : at[0] + 3, 4:24] = 255
        image[4:24, at[1] : at[1] + 3] = 200
    return images


def write_study(folder: Path, *, images: int, code: str = PUBLISHED) -> None:
    np.savez(folder / "digits.npz", x_train=digits(images), x_test=digits(20))
    (folder / "published.py").write_text(code)
    (folder / "mine.toml").write_text(STUDY)


def test_a_published_net_is_searched_trained_and_used_as_it_is(
    folder: Path, command_line: Run
) -> None:
    write_study(folder, images=200)
    told = command_line("tune", "-s", "mine.toml", "--device", "cpu", "--workers", "2")
    assert told.returncode == 0, told.stderr
    assert "3 of 3" in told.stdout
    assert "train -s mine --factory published.py:build" in told.stderr, "next"

    refused = command_line("train", "-s", "mine", "--epochs", "1", "--out", "best")
    assert refused.returncode == 2
    assert "name the file here with --factory published.py:build" in refused.stderr
    words = ("--factory", "published.py:build", "--json")
    trained = command_line("train", "-s", "mine", "--epochs", "2", "--out", "best", *words)
    assert trained.returncode == 0, trained.stderr

    assert command_line("evaluate", "best", "--json").returncode == 2
    measured = command_line("evaluate", "best", *words)
    assert json.loads(measured.stdout)["psnr_db"] == json.loads(trained.stdout)["psnr_db"]
    coded = command_line("encode", "best", "digits.npz", "codes.npz", "--array", "x_test", *words)
    assert coded.returncode == 0, coded.stderr
    assert np.load(folder / "codes.npz")["latents"].shape == (20, 8 * 2 * 2)
    exported = command_line("export", "best", "best.pt2", *words)
    assert exported.returncode == 0, exported.stderr

    compared = command_line("compare", "-s", "mine", "--dry-run")
    assert compared.returncode == 2
    assert "never taken from a database" in compared.stderr


def test_a_worker_runs_no_code_that_it_was_not_told_to(folder: Path, command_line: Run) -> None:
    write_study(folder, images=60)
    words = ("--device", "cpu", "--workers", "1")
    assert command_line("tune", "-s", "mine.toml", "--trials", "1", *words).returncode == 0
    refused = command_line("worker", "-s", "mine", "--device", "cpu")
    assert refused.returncode == 2
    assert "never taken from a database" in refused.stderr
    (folder / "published.py").write_text(PUBLISHED + "\n# changed\n")
    given = ("--factory", "published.py:build")
    refused = command_line("worker", "-s", "mine", "--device", "cpu", *given)
    assert refused.returncode == 2
    assert "differs from the one that the study was made with" in refused.stderr
    refused = command_line("tune", "-s", "mine.toml", "--trials", "2", *words)
    assert refused.returncode == 2
    assert "model.factory_sha256" in refused.stderr
    assert "(the code of the net was edited)" in refused.stderr
    assert "go on with this one: restore the code of the net as it was." in refused.stderr
    advised = ("--name", "new", "--warm-start", "mine", "--trials", "1")
    told = command_line("tune", "-s", "mine.toml", *advised, *words)
    assert told.returncode == 0, told.stderr
    assert "its PSNRs are of other code of the net and do not compare; the search begins by" in (
        told.stderr
    )


def test_the_hint_names_the_file_from_whatever_folder_the_command_is_typed(
    folder: Path, command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my nets").mkdir()
    write_study(folder / "my nets", images=60)
    words = ("--device", "cpu", "--workers", "1")
    told = command_line("tune", "-s", "my nets/mine.toml", "--trials", "1", *words)
    assert told.returncode == 0, told.stderr
    train = ("train", "-s", "mine", "--epochs", "1", "--out", "best")
    hint = "--factory 'my nets/published.py:build'"
    assert f"train -s mine {hint} --device cpu --out" in told.stderr
    for given in ((), ("--factory", "published.py:build")):
        refused = command_line(*train, *given)
        assert refused.returncode == 2
        assert hint in refused.stderr
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    places = ("--storage", f"sqlite:///{folder}/searchae.db", "--data-dir", f"{folder}/my nets")
    refused = command_line(*train, *places)
    assert f"--factory '{folder}/my nets/published.py:build'" in refused.stderr
    (folder / "my nets" / "published.py").rename(folder / "elsewhere" / "moved.py")
    refused = command_line(*train, *places)
    assert "--factory FOLDER/published.py:build" in refused.stderr
    trained = command_line(*train, *places, *words, "--factory", "moved.py:build")
    assert trained.returncode == 0, trained.stderr


def test_a_net_without_a_latent_has_no_figures_of_one(folder: Path, command_line: Run) -> None:
    code = "from torch import nn\ndef build(image_shape): return nn.Conv2d(1, 1, 3, padding=1)"
    write_study(folder, images=60, code=code)
    words = ("--device", "cpu", "--workers", "1")
    assert command_line("tune", "-s", "mine.toml", "--trials", "1", *words).returncode == 0
    given = ("--factory", "published.py:build", "--epochs", "1", "--out", "best")
    told = command_line("train", "-s", "mine", *given, *words)
    assert told.returncode == 0, told.stderr
    assert "10 parameters; no latent" in told.stdout
    assert "near zero" not in told.stdout
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert metrics["latent"] is None
    assert metrics["sparsity"] == metrics["weight_sparsity"]


def test_a_penalty_on_a_latent_that_is_not_there_is_refused_before_anything_is_trained(
    folder: Path, command_line: Run
) -> None:
    write_study(
        folder,
        images=60,
        code="from torch import nn\ndef build(image_shape): return nn.Conv2d(1, 1, 3, padding=1)",
    )
    words = ("--set", 'train.regularizer={ choices = ["clip", "clip+l1"] }')
    refused = command_line("tune", "-s", "mine.toml", "--device", "cpu", *words)
    assert refused.returncode == 2
    assert 'the net has no latent to put a penalty on; use "weights"' in refused.stderr


@pytest.mark.parametrize("name", ["residual", "notebook"])
def test_the_examples_can_be_searched(name: str, folder: Path, command_line: Run) -> None:
    shutil.copytree(EXAMPLES, folder / "nets")
    small = ("--set", "data.train_images=100", "--set", "train.epochs=1", "--trials", "1")
    told = command_line("tune", "-s", f"nets/{name}.toml", *small, "--device", "cpu", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["trials"]["complete"] == 1


def test_a_bundle_of_ones_own_net_is_loaded_by_its_factory(
    folder: Path, command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(folder, images=60)
    words = ("--device", "cpu", "--workers", "1")
    assert command_line("tune", "-s", "mine.toml", "--trials", "1", *words).returncode == 0
    given = ("--factory", "published.py:build", "--epochs", "1", "--out", "best")
    assert command_line("train", "-s", "mine", *given, *words).returncode == 0
    monkeypatch.setenv("SEARCHAE_FACTORY", "")
    with pytest.raises(BundleError, match="--factory"):
        load(folder / "best")
    bundle = load(folder / "best", factory="published.py:build")
    images = digits(3)[:, None]
    assert bundle.encode(images).shape == (3, 32)
    assert bundle.reconstruct(images).shape == images.shape


@pytest.mark.parametrize("words", [("--dry-run",), ()], ids=["dry run", "search"])
def test_a_net_with_a_layer_in_a_list_is_refused_before_anything_is_trained(
    folder: Path, command_line: Run, words: tuple[str, ...]
) -> None:
    code = PUBLISHED.replace(
        "    def forward(self, x):\n        x = self.encoder(x)\n        x = self.decoder(x)\n",
        "        self.final = [nn.Conv2d(1, 1, 1)]\n\n"
        "    def encode(self, x):\n        return self.encoder(x)\n\n"
        "    def decode(self, x):\n        x = self.final[0](self.decoder(x))\n",
    )
    write_study(folder, images=60, code=code)
    refused = command_line("tune", "-s", "mine.toml", "--device", "cpu", *words)
    assert refused.returncode == 2
    assert "not registered (final)" in refused.stderr
    assert "nn.ModuleList" in refused.stderr
    assert not list(folder.glob("artifacts/*"))
