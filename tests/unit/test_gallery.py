"""Pictures of a study's best trials, and their histories."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from searchae.config.schema import ModelParams
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model
from searchae.study import gallery
from searchae.study.epoch_history import compact_history, history_columns
from searchae.training import reconstructions
from searchae.training.epoch import EpochResult

TILE = reconstructions.TILE_PX + reconstructions.GUTTER_PX


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return build_model(
        ModelParams(kind="dense", hidden=(8,), latent_dim=4), image_shape=(3, 16, 16)
    )


def put(folder: Path, number: int, psnr_db: float) -> None:
    gallery.save_picture(folder, number, Image.new("RGB", (2, 2)), psnr_db=psnr_db)


def kept(folder: Path) -> list[int]:
    return sorted(int(p.stem) for p in folder.iterdir())


def test_originals_stand_above_in_their_own_pixels(model: Autoencoder, images: Tensor) -> None:
    picture = reconstructions.draw_reconstructions(model, images, noise_std=0.0, seed=0, title="t")
    assert picture.width > 8 * TILE
    pixels = np.asarray(picture)
    x = reconstructions.MARGIN_PX + reconstructions.NAMES_PX
    y = reconstructions.MARGIN_PX + 2 * reconstructions.LABEL_PX
    first = pixels[y : y + 96, x : x + 96]
    expected = images[0].permute(1, 2, 0).numpy().repeat(6, axis=0).repeat(6, axis=1)
    assert (first[..., :3] == expected).all()
    assert (first[..., 3] == 255).all()
    below = pixels[y + TILE : y + TILE + 96, x : x + 96]
    assert not (below[..., :3] == expected).all()


def test_what_surrounds_a_picture_shows_through_dark_pages_too(
    model: Autoencoder, images: Tensor
) -> None:
    picture = reconstructions.draw_reconstructions(model, images, noise_std=0.0, seed=0, title="t")
    title = np.asarray(picture)[: 2 * reconstructions.LABEL_PX]
    assert (title[..., :3] == reconstructions.INK).all(), "edges of letters are not darker"
    assert title[0, 0, 3] == 0
    assert title[..., 3].max() == 255


def test_a_net_that_removes_noise_is_shown_what_it_got(model: Autoencoder, images: Tensor) -> None:
    plain = reconstructions.draw_reconstructions(model, images, noise_std=0.0, seed=0, title="t")
    noisy = reconstructions.draw_reconstructions(model, images, noise_std=0.3, seed=0, title="t")
    assert noisy.height == plain.height + TILE
    again = reconstructions.draw_reconstructions(model, images, noise_std=0.3, seed=0, title="t")
    assert (np.asarray(noisy) == np.asarray(again)).all(), "from the seed alone"


def test_fewer_images_than_places_are_drawn_as_they_are(model: Autoencoder, images: Tensor) -> None:
    assert (
        reconstructions.draw_reconstructions(
            model, images[:3], noise_std=0.0, seed=0, title="t"
        ).width
        >= 3 * TILE
    )


def test_only_the_best_twenty_are_kept(tmp_path: Path) -> None:
    psnrs = {n: float(n % 25) for n in range(30)}
    for number, psnr_db in psnrs.items():
        put(tmp_path, number, psnr_db)
    gallery.keep_best_pictures(tmp_path, psnrs)
    best = sorted(psnrs, key=lambda n: (-psnrs[n], n))[: gallery.PICTURES_KEPT]
    assert kept(tmp_path) == sorted(best)


def test_a_trial_that_ended_since_we_looked_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, 7, 3.0)
    put(tmp_path, 8, 1.0)
    gallery.keep_best_pictures(tmp_path, {7: 3.0})
    assert kept(tmp_path) == [7, 8]


def test_a_picture_of_an_older_study_of_the_same_name_is_removed(tmp_path: Path) -> None:
    put(tmp_path, 7, 3.0)
    assert gallery.read_picture(tmp_path, 7, psnr_db=3.5) is None
    assert (
        gallery.read_picture(tmp_path, 7, psnr_db=3.0)
        == gallery.picture_path(tmp_path, 7).read_bytes()
    )
    gallery.keep_best_pictures(tmp_path, {7: 3.5})
    assert kept(tmp_path) == []


def test_what_is_no_picture_is_none(tmp_path: Path) -> None:
    gallery.picture_path(tmp_path, 1).write_bytes(b"\x89PNG\r\n\x1a\n but not really")
    assert gallery.read_picture(tmp_path, 1, psnr_db=3.0) is None
    assert gallery.read_picture(tmp_path / "missing", 1, psnr_db=3.0) is None
    # A few bytes that take 30 GB once they are decoded, which a page must not begin with.
    gallery.picture_path(tmp_path, 2).write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
        + png_chunk(b"tEXt", b"psnr_db\x003.0")
        + png_chunk(b"IDAT", zlib.compress(bytes(9)))
        + png_chunk(b"IEND", b"")
    )
    assert gallery.read_picture(tmp_path, 2, psnr_db=3.0) is None


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


# -- histories


def epoch(number: int) -> EpochResult:
    return EpochResult(number, 1 / 3, 0.1, 10.0, 10.0, 0.5, 123.456789)


def test_a_history_is_kept_with_six_digits() -> None:
    stored = compact_history([epoch(1), epoch(2)])
    assert stored["train_mse"] == [0.333333, 0.333333]
    assert stored["seconds"] == [123.457, 123.457]
    assert history_columns({"searchae:history": stored})["val_mse"] == (0.1, 0.1)


@pytest.mark.parametrize(
    "broken",
    [None, "text", {}, {"train_mse": [1.0]}, {**compact_history([epoch(1)]), "val_mse": ["x"]},
     {**compact_history([epoch(1)]), "val_mse": [0.1, 0.2]}],
)  # fmt: skip
def test_a_history_that_cannot_be_read_is_none(broken: object) -> None:
    assert history_columns({"searchae:history": broken}) == {}
    assert history_columns({}) == {}
