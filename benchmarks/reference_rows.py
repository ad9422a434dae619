"""The rows of ``benchmarks.references``: what was published, on what data, how it is measured."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import searchae
from searchae import data
from searchae.training.generators import named_generator
from searchae.training.images import gaussian, noisy, to_unit_float
from searchae.training.metrics import psnr_per_image


@dataclass(frozen=True)
class Source:
    """Where a row's images come from.

    Attributes:
        name: In words.
        keys: Of ``[data]``; a ``path`` is in the data folder.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, data_dir: Path) -> dict[str, Any]:
        """As keys of a study file."""
        found = {f"data.{k}": v for k, v in self.keys.items()}
        for key in ("data.path", "data.test_path"):
            if key in found:
                found[key] = str(data_dir / found[key])
        return found

    def words(self, *, used: bool) -> str:
        """What the table says of it."""
        return self.name if used else ""


@dataclass(frozen=True)
class Run:
    """One training, by ``searchae train``.

    Attributes:
        bundle: Its folder.
        metrics: What the command printed.
        data_dir: Where the images lie.
    """

    bundle: Path
    metrics: Mapping[str, Any]
    data_dir: Path

    @property
    def validation_psnr_db(self) -> float:
        """After the best validation epoch, the mean over the seeds."""
        return float(self.metrics["seeds"]["validation_psnr_db"]["mean"])

    def last_epoch(self, column: str) -> float:
        """A column of the history after the last epoch, the mean over the seeds."""
        last: dict[str, float] = {}
        with (self.bundle / "history.csv").open() as file:
            for line in csv.DictReader(file):
                last[line["seed"]] = float(line[column])
        return statistics.fmean(last.values())

    def test(self, measure: str) -> float:
        """A measure on the test split, the mean over the seeds."""
        return float(self.metrics["seeds"][measure]["mean"])

    def as_published(self, measure: str, *, count: int | None = 10) -> float:
        """PSNR or SSIM of the first test images as row E was published; the first seed's.

        SSIM is scikit-image's, with a uniform window of 7 pixels and a data range of 2, which is
        its default for floats: twice the range that the images have, so that it flatters.
        """
        from skimage.metrics import structural_similarity

        bundle = searchae.load(self.bundle)
        config = bundle.config
        splits = data.load_splits(config.data, data_dir=self.data_dir, seed=config.split_seed)
        targets = to_unit_float(splits.test[:count])
        draws = named_generator(config.seed, "evaluation noise")
        noise = gaussian(tuple(targets.shape), config.train.noise_std, draws)
        with torch.inference_mode():
            found = bundle.model(noisy(targets, noise))
        if measure == "psnr_db":
            return float(psnr_per_image(found, targets).mean())
        pairs = zip(found.numpy(), targets.numpy(), strict=True)
        ssims = [structural_similarity(a, b, channel_axis=0, data_range=2) for a, b in pairs]
        return float(np.mean(ssims))


@dataclass(frozen=True)
class Measure:
    """A figure of a row.

    Attributes:
        name: What it is.
        published: As the reference has it; empty for one of ours.
        read: Takes it from a training.
        digits: After the point.
    """

    name: str
    published: str
    read: Callable[[Run], float]
    digits: int = 6


@dataclass(frozen=True)
class Row:
    """A published result with figures, or with pictures that figures can stand for.

    Attributes:
        key: Its name; the first letter is the reference's.
        title: For the table.
        study: The study file.
        source: The images.
        measures: What is compared.
        trials: Budget of the search.
        settings: Keys of the study that differ from the file's.
        search: Keys that differ in the search alone: fewer images.
        seeds: Trainings of each side.
        finalists: So many of the search's best trials are trained on all images.
        train_images: Of the trainings; see ``searchae train``.
        validation: The same: the share held out.
        prepare: Called with the data folder before all else.
        note: What one has to know of it.
    """

    key: str
    title: str
    study: str
    source: Source
    measures: tuple[Measure, ...]
    trials: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    finalists: int = 1
    train_images: str = "all"
    validation: float = 0.1
    prepare: Callable[[Path, Callable[[str], None]], None] | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A published verdict; see ``Row``.

    Attributes:
        until_db: The half-width of the intervals that is asked for, in dB.
        max_hours: The comparison ends after so many.
    """

    key: str
    title: str
    study: str
    source: Source
    trials: int
    until_db: float
    max_hours: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def mnist_as_csv(data_dir: Path, say: Callable[[str], None]) -> None:
    """Writes MNIST as it is passed around in CSV form: a label (here 0), then 784 pixels."""
    from searchae.config.data_spec import DataSpec

    files = {"train": data_dir / "mnist_train.csv", "test": data_dir / "mnist_test.csv"}
    if all(path.exists() for path in files.values()):
        return
    from searchae.data.mnist import load_mnist

    say("writing MNIST as CSV")
    images = load_mnist(DataSpec(name="mnist"), data_dir, 0, lambda _text: None)
    assert images.test is not None
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    for split, path in files.items():
        rows = getattr(images, split).reshape(-1, 784)
        labelled = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)
        draft = path.with_suffix(".part")
        np.savetxt(draft, labelled, fmt="%d", delimiter=",", header=header, comments="")
        draft.replace(path)


MNIST = Source("MNIST, all 60,000", {"name": "mnist"})
MNIST_CSV = Source(
    "MNIST, all 60,000, as CSV",
    {"name": "csv", "path": "mnist_train.csv", "test_path": "mnist_test.csv"},
)
CIFAR = Source(
    "10,000 of CIFAR-10's 50,000 training images, 2,000 test images",
    {"name": "npz", "path": "cifar10_10k.npz"},
)
CIFAR_FOR_SVHN = Source(f"stand-in for SVHN: {CIFAR.name}", CIFAR.keys)
HOUSE_NUMBERS = Source(
    "stand-in for SVHN: drawn house numbers, 10,000",
    {"name": "house-numbers", "train_images": 10000, "test_images": 2000},
)

SVHN_GRAY = Source(
    "1,965 of SVHN's digits in grey, 986 test images", {"name": "npz", "path": "svhn_gray.npz"}
)
SVHN_COLOUR = Source(
    "500 of SVHN's digits in colour, 40 test images of four places",
    {"name": "npz", "path": "svhn_small.npz"},
)
CIFAR_PART = Source(
    "1,000 of CIFAR-10's training images, 500 test images",
    {**CIFAR.keys, "train_images": 1000, "test_images": 500},
)
MNIST_PART = Source(
    "2,000 of MNIST's training images, 500 test images",
    {**MNIST.keys, "train_images": 2000, "test_images": 500},
)

SMALL: Mapping[str, Any] = {"search.startup_trials": 5}
"""A search of a dozen trials cannot spend ten of them at random."""

TEST = (
    Measure("test PSNR, dB", "", lambda run: run.test("psnr_db"), 2),
    Measure("test SSIM", "", lambda run: run.test("ssim"), 4),
)


def _b(key: str, latent: int, published: str, source: Source, images: str) -> Row:
    return Row(
        key=key,
        title=f"pool-conv, latent {latent}",
        study="pool-conv",
        source=source,
        measures=(
            Measure("validation MSE", published, lambda run: run.last_epoch("val_mse")),
            *TEST,
        ),
        trials=8,
        settings={"model.latent_dim": latent},
        search={**SMALL, "data.train_images": 2500},
        train_images=images,
        note="The published value is of SVHN and does not compare with other images.",
    )


def _c(key: str, study: str, trials: int) -> Row:
    return Row(
        key=key,
        title=study,
        study=study,
        source=MNIST_CSV,
        measures=(
            Measure("validation MSE", "pictures only", lambda run: run.last_epoch("val_mse")),
            *TEST,
        ),
        trials=trials,
        search={**SMALL, "data.train_images": 12000},
        finalists=2,
        prepare=mnist_as_csv,
    )


def _e(key: str, epochs: int, psnr: str, ssim: str, *, note: str = "", **more: Any) -> Row:
    half = epochs // 2
    return Row(
        key=key,
        title=f"same-size, {half} epochs plain, {half} denoising",
        study="same-size",
        source=CIFAR,
        measures=(
            Measure(
                "PSNR of the first 10 test images, dB",
                psnr,
                lambda run: run.as_published("psnr_db"),
                2,
            ),
            Measure(
                "their SSIM with a data range of 2", ssim, lambda run: run.as_published("ssim"), 4
            ),
            Measure("PSNR of all test images, dB", "", lambda run: run.test("psnr_db"), 2),
            Measure(
                "their SSIM with a data range of 2",
                "",
                lambda run: run.as_published("ssim", count=None),
                4,
            ),
            Measure("their SSIM with a data range of 1", "", lambda run: run.test("ssim"), 4),
        ),
        settings={
            "train.epochs": epochs,
            "train.noise_from_epoch": {"choices": [1, half + 1]},
            "search.first": [
                {
                    "activation": "relu",
                    "learning_rate": 1e-3,
                    "regularizer": "none",
                    "noise_from_epoch": half + 1,
                }
            ],
        },
        # Not pruned before the denoising has begun in all of them.
        search={**SMALL, "data.train_images": 2000, "search.min_epochs": half + half // 4},
        note="The first ten test images are those of this file, not the published ones." + note,
        **more,
    )


def _a(
    key: str,
    source: Source,
    seed: int,
    channels: Sequence[int],
    latent: int,
    *,
    batch_size: int = 64,
) -> Comparison:
    return Comparison(
        key=key,
        title=f"clipped, which choices win; search of seed {seed}",
        study="svhn",
        source=source,
        trials=40,
        until_db=0.3,
        max_hours=1.4,
        settings={"model.channels": list(channels), "model.latent_dim": latent},
        search={
            "seed": seed,
            "train.batch_size": batch_size,
            "train.momentum": 0.9,
            "train.patience": 6,
        },
        note="At most 100 epochs, stopped after 6 without a better validation PSNR.",
    )


ROWS: tuple[Row | Comparison, ...] = (
    *(_a(f"A-svhn-gray-{seed}", SVHN_GRAY, seed, [16, 32, 64], 64) for seed in (0, 1)),
    # Of so few images in batches of 64, most trainings ended on the plateau at the mean image.
    *(_a(f"A-cifar-{s}", CIFAR_PART, s, [8, 16, 32], 64, batch_size=32) for s in (0, 1)),
    *(_a(f"A-mnist-{s}", MNIST_PART, s, [8, 16, 32], 16, batch_size=32) for s in (0, 1)),
    _a("A-svhn", SVHN_COLOUR, 0, [16, 32, 64], 64),
    _b("B64-cifar", 64, "0.003453", CIFAR_FOR_SVHN, "all"),
    _b("B16-cifar", 16, "0.006014", CIFAR_FOR_SVHN, "all"),
    _b("B64-house", 64, "0.003453", HOUSE_NUMBERS, "10000"),
    _b("B16-house", 16, "0.006014", HOUSE_NUMBERS, "10000"),
    _c("C-dense", "dense", 12),
    _c("C-conv", "conv-bn", 12),
    Row(
        key="D",
        title="gap-conv, 64 latents",
        study="gap-conv",
        source=MNIST,
        measures=(
            Measure("training MSE, last epoch", "0.0079", lambda run: run.last_epoch("train_mse")),
            Measure("validation MSE, last epoch", "", lambda run: run.last_epoch("val_mse")),
            Measure("test MSE, best epoch", "", lambda run: run.test("mse")),
            *TEST,
        ),
        trials=16,
        search={**SMALL, "data.train_images": 10000},
        validation=0.01,
        note="Trained on 59,400 of the published 60,000 images; 600 are held out.",
    ),
    _e("E20", 40, "24.79", "0.8988", trials=12),
    _e("E50", 100, "24.86", "0.9045", trials=12),
    _e(
        "E20-steps",
        200,
        "24.79",
        "0.8988",
        trials=8,
        note=" 200 epochs of 9,000 images are about as many steps as the published 40 of all.",
    ),
)
