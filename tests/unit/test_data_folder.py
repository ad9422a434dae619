"""The folder source: which files, in which order, at which size; damaged ones are named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchae.config.schema import DataSpec
from searchae.data.folder import load_folder
from searchae.data.raw_images import RawImages
from searchae.errors import DataError


def silent(message: str) -> None: ...


def save(path: Path, colour: object, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]


def read(folder: Path, path: str = ".", **values: object) -> RawImages:
    spec = DataSpec.model_validate({"name": "folder", "path": str(folder / path), **values})
    return load_folder(spec, folder, 0, silent)


def test_a_tree_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for i, name in enumerate(["a/2.PNG", "a/10.png", "b.JPEG", "B.Jpg", "a.png"]):
        save(tmp_path / name, (40 * i, 0, 0))
    (tmp_path / "notes.txt").write_text("no image")
    raw = read(tmp_path, image_size=8)
    assert raw.test is None
    assert raw.train.shape == (5, 3, 8, 8)
    # B.Jpg, a.png, a/10.png, a/2.PNG, b.JPEG; JPEG rounds by a level or two.
    assert np.allclose(raw.train[:, 0, 0, 0], [120, 160, 40, 0, 80], atol=3)


def test_grayscale_gives_one_channel(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (255, 0, 0))
    raw = read(tmp_path, image_size=4, grayscale=True)
    assert raw.train.shape == (1, 1, 4, 4)
    assert np.all(raw.train == 76)


@pytest.mark.parametrize(("mode", "colour"), [("L", 90), ("RGBA", (90, 90, 90, 255)), ("P", 0)])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, colour: object) -> None:
    save(tmp_path / "a.png", colour, mode=mode)
    raw = read(tmp_path, image_size=8)
    assert raw.train.shape == (1, 3, 8, 8)
    assert np.all(raw.train == (0 if mode == "P" else 90))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16).repeat(4, 0).repeat(4, 1)
    Image.fromarray(deep).save(tmp_path / "a.png")
    corners = read(tmp_path, image_size=8, grayscale=True).train[0, 0, ::7, ::7]
    assert corners.tolist() == [[0, 100], [200, 255]]


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, 8:16] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert np.all(read(tmp_path, image_size=8).train == 200)


def test_images_are_resized(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read(tmp_path, image_size=4).train[0, 0]
    assert image[0].min() > 240
    assert image[3].max() < 15


def test_exif_orientation_turns_the_image(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read(tmp_path, image_size=16).train[0, 0]
    assert image[:, 15].min() > 200
    assert image[:, 0].max() < 50


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    (tmp_path / "._a.png").write_bytes(b"resource fork")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b.png").write_bytes(b"")
    assert len(read(tmp_path).train) == 1


def test_a_test_folder_below_the_training_folder_is_not_trained_on(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"train{i}.png", i)
    save(tmp_path / "test" / "a.png", 99)
    raw = read(tmp_path, test_path=str(tmp_path / "test"))
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (3, 1)
    for path in (".", "test"):
        with pytest.raises(DataError, match=r"data\.test_path: .* holds the training images too"):
            read(tmp_path, path, test_path=str(tmp_path / path))


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
@pytest.mark.parametrize("keep", [0, 20, 700])
def test_a_truncated_image_is_named(tmp_path: Path, name: str, keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    save(tmp_path / "a.png", 1)
    Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{name}: cannot be read as an image \({keep} bytes\)"):
        read(tmp_path)


def test_a_text_that_calls_itself_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpeg").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"a\.jpeg: cannot be read as an image"):
        read(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing")
    with pytest.raises(DataError, match="no PNG or JPEG image in it"):
        read(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: .*none.* was not found"):
        read(tmp_path, "none")
    save(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"a\.png: is a file; .* needs a folder"):
        read(tmp_path, "a.png")
