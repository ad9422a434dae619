"""What ``searchae init`` finds out about images."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from searchae.config import DataSpec
from searchae.data import Survey, load_splits, survey_images
from searchae.data.picture_survey import MOST_LOOKED_AT, choose_fit, choose_size
from searchae.data.survey import _KNOWN  # what is known of data sets
from searchae.errors import DataError, SpecError
from tests.conftest import smooth_images


def look(images: str | Path, folder: Path, **given: Any) -> Survey:
    return survey_images(str(images), given, data_dir=folder / "data", progress=lambda _: None)


def write_pictures(folder: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    folder.mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        (image,) = smooth_images(1, max(height, width), seed=i)
        Image.fromarray(image[:height, :width]).convert(mode).save(folder / f"{i:04d}.png")
    return folder


def splits_as_said(found: Survey, folder: Path) -> bool:
    """Whether loading the images gives what the survey said, at any rate."""
    splits = load_splits(found.spec, data_dir=folder / "data", seed=0)
    sizes = [len(part) for part in splits.parts.values()]
    return (sizes, splits.image_shape) == (
        [found.train, found.validation, found.test],
        found.shape,
    )


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([(28, 28)] * 3, (28, 28)),
        ([(37, 53)] * 3, (37, 53)),
        ([(480, 640)] * 3, (48, 64)),
        ([(640, 480)] * 3, (64, 48)),
        ([(480, 640)] * 20 + [(640, 480)], (48, 64)),
        ([(480, 640), (640, 480)], (64, 64)),
        ([(300, 310), (290, 300)], (64, 64)),
        ([(40, 44), (60, 50), (50, 70), (300, 200)], (56, 56)),
        ([(3, 2)], (4, 4)),
        ([(5000, 10)], (64, 4)),
    ],
)
def test_the_size_is_the_pictures_own_or_one_that_is_cheap(
    sizes: list[tuple[int, int]], wanted: tuple[int, int]
) -> None:
    size, _ = choose_size(sizes)
    assert size == wanted
    assert DataSpec(name="folder", path="x", image_size=list(size)).height_and_width == wanted


@pytest.mark.parametrize(
    ("sizes", "wanted", "fit", "why"),
    [
        ([(100, 100)], (32, 32), "crop", "little"),
        ([(300, 400)], (32, 32), "crop", "25%"),
        ([(100, 200)], (32, 32), "pad", "50%"),
        ([(100, 200)], (32, 64), "crop", "little"),
        ([(200, 100)], (32, 64), "pad", "75%"),
    ],
)
def test_pictures_are_cut_unless_that_takes_much_away(
    sizes: list[tuple[int, int]], wanted: tuple[int, int], fit: str, why: str
) -> None:
    found = choose_fit(sizes, wanted)
    assert found[0] == fit
    assert why in found[1]


def test_colour_pictures_of_mixed_sizes(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", [(60, 80), (80, 60), (70, 90)] * 10)
    found = look(folder, tmp_path)
    assert found.keys["image_size"] == 64
    assert found.keys["grayscale"] is False
    assert "bits" not in found.keys
    assert found.text == "30 pictures of 60 to 90 pixels wide and 60 to 80 high, in colour"
    assert splits_as_said(found, tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_a_picture_turned_by_its_exif_orientation_has_the_size_that_it_is_shown_in(
    suffix: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (pixels,) = smooth_images(1, 40)
    for number in range(12):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = (1, 3, 6, 8)[number % 4]
        Image.fromarray(pixels[:20]).save(tmp_path / "photos" / f"{number}.{suffix}", exif=exif)
    found = look(tmp_path / "photos", tmp_path)
    assert found.text == "12 pictures of 40x20 and 20x40 pixels, in colour"


def test_the_sizes_are_those_of_all_pictures_and_both_directions(tmp_path: Path) -> None:
    train = [(20, 20), (24, 32), (30, 40)] * 4
    write_pictures(tmp_path / "photos" / "train", train)
    write_pictures(tmp_path / "photos" / "test", [(60, 80)] * 3)
    assert "of 20x20 to 80x60 pixels" in look(tmp_path / "photos", tmp_path).text
    write_pictures(tmp_path / "upright", [*train, (40, 30)])
    text = "of 20 to 40 pixels wide and 20 to 40 high"
    assert text in look(tmp_path / "upright", tmp_path).text


def test_grey_pictures_become_grey_ones(tmp_path: Path) -> None:
    found = look(write_pictures(tmp_path / "grey", [(20, 20)] * 12, "L"), tmp_path)
    assert found.shape == (1, 20, 20)
    assert splits_as_said(found, tmp_path)


def test_one_colour_picture_among_grey_ones_keeps_the_colours(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "grey", [(20, 20)] * 12, "L")
    Image.new("RGB", (20, 20), (255, 0, 0)).save(folder / "red.png")
    assert look(folder, tmp_path).shape == (3, 20, 20)


def test_transparent_pictures_are_told_of(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "icons", [(24, 24)] * 9)
    Image.new("RGBA", (24, 24), (255, 0, 0, 90)).save(folder / "clear.png")
    found = look(folder, tmp_path)
    assert found.keys["background"] == "white"
    assert "1 of 10 pictures are transparent" in found.reasons["background"]
    kept = look(folder, tmp_path, alpha=True)
    assert kept.shape == (4, 24, 24)
    assert splits_as_said(kept, tmp_path)


def test_pictures_of_16_bits_keep_them(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for i, image in enumerate(smooth_images(12, 20, channels=1)[..., 0]):
        Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / "scans" / f"{i}.png")
    found = look(tmp_path / "scans", tmp_path)
    assert found.spec.bits == 16
    assert splits_as_said(found, tmp_path)


def test_a_test_folder_beside_the_training_folder_is_the_test_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos" / "train", [(20, 20)] * 10)
    write_pictures(tmp_path / "photos" / "test", [(20, 20)] * 4)
    found = look(tmp_path / "photos", tmp_path)
    assert found.test == 4
    assert found.keys["path"] == str(tmp_path / "photos" / "train")
    assert splits_as_said(found, tmp_path)
    (tmp_path / "photos" / "test").rename(tmp_path / "photos" / "Val")
    assert look(tmp_path / "photos", tmp_path).keys["test_path"] == str(tmp_path / "photos" / "Val")


def test_of_many_pictures_some_are_looked_at_and_that_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(MOST_LOOKED_AT + 50):
        Image.new("L", (8, 8), i).save(folder / f"{i:03d}.png")
    said: list[str] = []
    found = survey_images(str(folder), {}, data_dir=tmp_path, progress=said.append)
    assert f"looking at {MOST_LOOKED_AT} of {MOST_LOOKED_AT + 50} pictures" in said[0]
    assert f"{MOST_LOOKED_AT} of them were looked at" in found.text
    assert found.train + found.validation + found.test == MOST_LOOKED_AT + 50


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", [(20, 20)] * 5)
    (folder / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png: cannot be read as an image"):
        look(folder, tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"there is no image in it.*left out: \.txt \(1\)"):
        look(tmp_path / "empty", tmp_path)


GREY = smooth_images(40, 12, channels=1)[..., 0]
DEEP = np.linspace(0, 4000, 40 * 144).astype(np.uint16).reshape(40, 12, 12)


@pytest.mark.parametrize(
    ("images", "keys"),
    [
        (GREY, {}),
        (GREY / 255, {}),
        (GREY.astype(np.float32), {"white": 255}),
        (GREY.astype(np.int64), {}),
        (GREY > 100, {"white": 1}),
        (DEEP * 16, {"white": 65535, "bits": 16}),
        (DEEP / 4000, {"bits": 16}),
    ],
    ids=["uint8", "unit floats", "floats", "int64", "bool", "uint16", "fine floats"],
)
def test_an_npz_of_every_type(tmp_path: Path, images: np.ndarray, keys: dict[str, Any]) -> None:
    if images.dtype == np.int64:
        images = np.clip(images + 10, 0, 255)  # 255 is there
        keys = {"white": 255}
    if images.dtype == np.float32:
        images = np.clip(images + 10, 0, 255)
    np.savez(tmp_path / "a.npz", images=images)
    found = look(tmp_path / "a.npz", tmp_path)
    assert {k: v for k, v in found.keys.items() if k in ("white", "bits")} == keys
    assert found.shape == (1, 12, 12)
    assert splits_as_said(found, tmp_path)


def test_twelve_bits_are_not_guessed_but_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=DEEP, x_test=DEEP[:7])
    with pytest.raises(DataError, match=r"--set data\.white=4095"):
        look(tmp_path / "a.npz", tmp_path)
    found = look(tmp_path / "a.npz", tmp_path, white=4095)
    assert (found.spec.white, found.spec.bits, found.test) == (4095, 16, 7)
    assert splits_as_said(found, tmp_path)


def write_csv(path: Path, *, label: bool) -> Path:
    rows = [[*([i % 10] if label else []), *image.ravel()] for i, image in enumerate(GREY)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("label", [True, False])
def test_a_csv(tmp_path: Path, label: bool) -> None:
    found = look(write_csv(tmp_path / "a.csv", label=label), tmp_path)
    assert found.spec.name == "csv"
    assert found.shape == (1, 12, 12)
    assert splits_as_said(found, tmp_path)


def test_a_compressed_csv_under_another_name(tmp_path: Path) -> None:
    plain = write_csv(tmp_path / "a.csv", label=True).read_bytes()
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(plain))
    assert look(tmp_path / "rows.csv.gz", tmp_path).spec.name == "csv"


def test_a_label_at_either_end_is_asked_for(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (30, 17)) * 255
    (tmp_path / "a.csv").write_text("".join(",".join(map(str, r)) + "\n" for r in pixels))
    with pytest.raises(DataError) as caught:
        look(tmp_path / "a.csv", tmp_path)
    assert '--set data.label="first" or --set data.label="last"' in str(caught.value)
    assert look(tmp_path / "a.csv", tmp_path, label="last").shape == (1, 4, 4)


def test_files_of_mnist_are_read_by_its_name(tmp_path: Path) -> None:
    raw = tmp_path / "here" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    name = "train-images-idx3-ubyte"
    (raw / name).write_bytes(b"\0\0\x08\x03" + bytes(12))
    for given in (raw, raw.parent):
        with pytest.raises(DataError, match=rf"--images mnist --data-dir {tmp_path / 'here'}"):
            look(given, tmp_path)
    with pytest.raises(DataError, match="--images mnist"):
        look(raw / name, tmp_path)
    found = look("mnist", tmp_path)
    assert (found.shape, found.test) == ((1, 28, 28), 10_000)
    assert found.train + found.validation == found.keys["train_images"] == 20_000


def test_what_is_known_of_a_data_set_is_what_it_has(tmp_path: Path) -> None:
    found = look("house-numbers", tmp_path, train_images=50, test_images=20)
    assert splits_as_said(found, tmp_path)
    assert found.train == 45
    from searchae.config import SOURCES_WITHOUT_PATH

    assert set(_KNOWN) == set(SOURCES_WITHOUT_PATH)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"\x89PNG", "is one picture; name the folder"),
        ("a.bin", b"\x00\x01\xff", "neither an npz nor a csv"),
        ("a.npz", b"PK\x03\x04", "cannot be read"),
        ("a.csv", b"", "no row of pixels"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        look(tmp_path / name, tmp_path)


def test_what_is_not_there_names_the_data_sets_too(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        look("svnh", tmp_path)
    first, second = caught.value.args
    assert first.startswith("--images: 'svnh' was not found: there is neither /")
    assert first.count("svnh") == 3, "here and in the data folder"
    assert "did you mean 'svhn'?" in second


def test_a_wrong_value_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.image_size"):
        look(tmp_path / "absent", tmp_path, image_size=2)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", [(20, 20)] * 2)
    with pytest.raises(DataError, match="at least one each"):
        look(folder, tmp_path)
