"""The folder source: which files, in which order, at which size; damaged ones are named."""

import gzip
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from searchae.config.data_spec import DataSpec
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


def half_white(path: Path, *, size: tuple[int, int]) -> None:
    """Writes a picture whose left half is white and whose right half is black."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, : size[1] // 2] = 255
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_images_need_not_be_square(tmp_path: Path, fit: str) -> None:
    half_white(tmp_path / "a.png", size=(24, 36))
    raw = read(tmp_path, image_size=[8, 12], fit=fit)
    assert raw.train.shape == (1, 3, 8, 12)
    image = raw.train[0, 0].astype(int)
    assert image[:, :4].min() > 240, "the picture has the wanted shape: each way shows all of it"
    assert image[:, 8:].max() < 15


def test_what_is_cut_padded_and_stretched(tmp_path: Path) -> None:
    half_white(tmp_path / "a.png", size=(16, 32))
    crop = read(tmp_path, image_size=16).train[0, 0]
    assert crop[:, 7].min() > 240
    assert crop[:, 8].max() < 15
    pad = read(tmp_path, image_size=16, fit="pad", background="white").train[0, 0]
    assert pad[:4].min() == 255
    assert pad[12:].min() == 255
    assert pad[4:12, 9:].max() < 15, "the whole picture lies between, at half its size"
    black = read(tmp_path, image_size=16, fit="pad", background="black").train[0, 0]
    assert black[:4].max() == 0
    stretch = read(tmp_path, image_size=16, fit="stretch").train[0, 0]
    assert stretch[:, :7].min() > 240
    assert stretch[:, 9:].max() < 15


@pytest.mark.parametrize("grayscale", [True, False])
def test_transparency_is_kept_as_a_channel_where_asked(tmp_path: Path, grayscale: bool) -> None:
    save(tmp_path / "a.png", (200, 200, 200, 60), mode="RGBA")
    save(tmp_path / "b.png", 90, mode="L")
    raw, said = told(tmp_path, image_size=8, alpha=True, grayscale=grayscale)
    colours = 1 if grayscale else 3
    assert raw.train.shape == (2, colours + 1, 8, 8)
    assert raw.train[:, -1].min(axis=(1, 2)).tolist() == [60, 255]
    assert np.all(raw.train[1, :colours] == 90)
    assert "with transparency" in said
    assert "background" not in said, "nothing was put on it"
    padded = read(tmp_path, image_size=[8, 16], alpha=True, fit="pad").train
    assert padded[1, -1, 0].tolist() == [0] * 4 + [255] * 8 + [0] * 4


@pytest.mark.parametrize("size", [3, 513, [8], [8, 8, 8], [8, 3], "8", 8.5, [8, 8.5]])
def test_a_size_that_is_none_says_what_to_write(tmp_path: Path, size: object) -> None:
    with pytest.raises(ValidationError, match=r"height and width, such as .48, 64., each from 4"):
        DataSpec.model_validate({"name": "folder", "path": "x", "image_size": size})


def test_a_square_is_the_same_size_however_it_is_written() -> None:
    assert DataSpec(name="folder", image_size=(32, 32)) == DataSpec(name="folder", image_size=32)


def test_sixteen_bits_are_kept_where_asked(tmp_path: Path) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000 + 7
    Image.fromarray(deep).save(tmp_path / "a.png")
    save(tmp_path / "b.png", 100, mode="L")
    raw = read(tmp_path, image_size=8, grayscale=True, bits=16)
    assert raw.train.dtype == np.uint16
    np.testing.assert_array_equal(raw.train[0, 0], deep)
    assert np.all(raw.train[1] == 100 * 257)
    colour = read(tmp_path, image_size=8, bits=16, alpha=True).train
    np.testing.assert_array_equal(colour[0, :3], np.stack([deep] * 3))
    assert np.all(colour[0, 3] == 65535)
    smaller = read(tmp_path, image_size=4, grayscale=True, bits=16).train[0, 0]
    assert abs(int(smaller.mean(dtype=float)) - int(deep.mean(dtype=float))) < 300
    clear = read(tmp_path, image_size=[8, 16], bits=16, fit="pad", alpha=True).train[:, 3]
    assert clear[:, 0, 0].tolist() == [0, 0], "padding is transparent, however many bits a file has"
    assert np.all(clear[:, :, 4:12] == 65535)
    padded = read(tmp_path, image_size=[8, 16], grayscale=True, bits=16, fit="pad").train[0, 0]
    np.testing.assert_array_equal(padded[:, 4:12], deep)
    assert np.all(padded[:, :4] == 65535)


def test_keys_that_would_suit_the_pictures_better_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "a.png")
    save(tmp_path / "b.png", 90, mode="L")
    _, said = told(tmp_path, image_size=8, alpha=True)
    assert "all images are grey: grayscale = true under [data] takes one channel" in said
    assert "no image is transparent: alpha = true only adds a channel" in said
    assert "1 image of more than 8 bits rounded to 8: bits = 16 keeps them" in said
    _, said = told(tmp_path, image_size=8, grayscale=True, bits=16)
    assert "grayscale = true" not in said
    assert "bits = 16 keeps" not in said
    save(tmp_path / "c.png", (1, 2, 3, 100), mode="RGBA")
    _, said = told(tmp_path, image_size=8, alpha=True)
    assert "all images are grey" not in said
    assert "no image is transparent" not in said


def test_twelve_bits_are_scaled_to_sixteen(tmp_path: Path) -> None:
    deep = np.full((8, 8), 4095, np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    raw = read(tmp_path, image_size=8, grayscale=True, bits=16, white=4095)
    assert np.all(raw.train == 65535)
    assert raw.doubts == ()


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
    (tmp_path / "a.jpeg").write_text("a picture")
    with pytest.raises(DataError, match=r"a\.jpeg: cannot be read as an image"):
        read(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing")
    with pytest.raises(
        DataError, match=r"no image in it, .* formats PNG, JPEG, .*; left out: \.md \(1\)"
    ):
        read(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: .*none.* was not found"):
        read(tmp_path, "none")
    save(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"a\.png: is a file; .* needs a folder"):
        read(tmp_path, "a.png")


def told(folder: Path, path: str = ".", **values: object) -> tuple[RawImages, str]:
    """Reads a folder; returns also what was said."""
    said: list[str] = []
    spec = DataSpec.model_validate({"name": "folder", "path": str(folder / path), **values})
    return load_folder(spec, folder, 0, said.append), "\n".join(said)


# Transparency


def clear_drawing(mode: str, ink: int) -> Image.Image:
    """A square of ink on transparency, under which lies grey."""
    levels = np.full((8, 8, len(mode)), 60, np.uint8)
    levels[..., -1] = 0
    levels[2:6, 2:6] = ink
    levels[2:6, 2:6, -1] = 255
    return Image.fromarray(levels)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_what_is_transparent_shows_the_background_not_what_lies_under_it(
    tmp_path: Path, mode: str, background: str, level: int
) -> None:
    clear_drawing(mode, 90).save(tmp_path / "a.png")
    for grayscale in (False, True):
        raw, said = told(tmp_path, image_size=8, background=background, grayscale=grayscale)
        assert set(np.unique(raw.train)) == {90, level}
        assert f"1 image is transparent, shown on {background} (data.background)" in said


def test_a_palette_with_a_transparent_colour_and_half_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 200, 0, 9, 9, 9])
    image.paste(0, (0, 0, 8, 4))
    image.save(tmp_path / "a.png", transparency=0)
    Image.new("RGBA", (8, 8), (0, 0, 0, 51)).save(tmp_path / "b.png")
    raw, _ = told(tmp_path, image_size=8)
    assert raw.train[0, :, 0, 0].tolist() == [255, 255, 255]
    assert raw.train[0, :, 7, 0].tolist() == [9, 9, 9]
    assert np.all(raw.train[1] == 204)


def test_an_alpha_that_hides_nothing_changes_nothing_and_is_not_mentioned(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    raw, said = told(tmp_path, image_size=8)
    assert np.array_equal(raw.train[0], pixels[..., :3].transpose(2, 0, 1))
    assert "transparent" not in said


# Which files


def test_linked_folders_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "store" / "cats" / "1.png", (10, 0, 0))
    save(tmp_path / "store" / "cats" / "deep" / "2.png", (20, 0, 0))
    save(tmp_path / "set" / "dogs" / "3.png", (30, 0, 0))
    for link, target in {
        "set/cats": "../store/cats",
        "set/again": "../store/cats",
        "set/zoo": "dogs",
        "set/dogs/up": "..",
        "store/cats/deep/round": "../../cats",
        "set/everything": "/",
    }.items():
        (tmp_path / link).symlink_to(target)
    (tmp_path / "set" / "lost.png").symlink_to("nowhere.png")
    (tmp_path / "set" / "self.png").symlink_to("self.png")
    raw, said = told(tmp_path, "set", image_size=8)
    # again/1.png, again/deep/2.png, dogs/3.png; "cats" is "again", which comes first.
    assert raw.train[:, 0, 0, 0].tolist() == [10, 20, 30]
    for left_out in (
        "link to a folder that is read already (3)",
        "link to a folder above (2)",
        "dangling link (2)",
    ):
        assert left_out in said


def test_a_set_of_links_only_is_read(tmp_path: Path) -> None:
    save(tmp_path / "store" / "cats" / "1.png", 1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "store" / "cats")
    assert len(read(tmp_path, "set").train) == 1


def test_test_images_are_not_trained_on_behind_a_link_either(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1.png", 1)
    save(tmp_path / "held" / "2.png", 2)
    (tmp_path / "train" / "more").symlink_to(tmp_path / "held")
    raw = read(tmp_path, "train", test_path=str(tmp_path / "held"))
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (1, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / "b" / "c.png", 1)
    (tmp_path / "b").chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        read(tmp_path)


def test_every_usual_format_is_read_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    suffixes = ["jfif", "webp", "bmp", "tif", "TIFF", "gif", "ppm", "pgm", "jp2", "tga", "jpe"]
    for i, suffix in enumerate(suffixes):
        grey = (20 * i,) * 3
        save(tmp_path / f"{i:02d}.{suffix}", grey)
    for name in ("labels.csv", "a.txt", "b.txt", "README"):
        (tmp_path / name).write_text("no image")
    raw, said = told(tmp_path, image_size=8)
    expected = [20 * i for i in range(len(suffixes))]
    assert np.allclose(raw.train[:, 0, 4, 4], expected, atol=3)
    assert "folder: left out: .txt (2), .csv (1), file without a suffix (1)" in said


def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (40, 90, 140)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "c.png")
    raw, said = told(tmp_path, image_size=8)
    assert np.all(raw.train == 40)
    assert "2 images are of several frames or pages, of which the first was taken" in said


def test_that_images_are_resized_cut_and_enlarged_is_said(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 90, size=(30, 20))
    save(tmp_path / "b.png", 90, size=(4, 20))
    _, said = told(tmp_path, image_size=8)
    assert "each resized and cut to the square in the middle (8x8 pixels)" in said
    assert "1 image is smaller than that and enlarged" in said
    _, said = told(tmp_path, image_size=8, fit="pad")
    assert "enlarged" not in said, "4x20 becomes 2x8"


# Levels


def test_twelve_bits_in_a_file_of_sixteen_are_doubted_until_white_is_given(tmp_path: Path) -> None:
    deep = np.array([[0, 1000], [2000, 4095]], np.uint16).repeat(4, 0).repeat(4, 1)
    Image.fromarray(deep).save(tmp_path / "a.png")
    save(tmp_path / "b.png", 200, mode="L")
    (said,) = read(tmp_path, image_size=8, grayscale=True).doubts
    assert "its 16-bit files: no value exceeds 4095, where white is 65535" in said
    assert "white = 4095 under [data], or white = 65535 if they are that dark" in said
    raw = read(tmp_path, image_size=8, grayscale=True, white=4095)
    assert raw.doubts == ()
    assert raw.train[0, 0, ::7, ::7].tolist() == [[0, 62], [125, 255]]
    assert np.all(raw.train[1] == 200), "white is that of the 16-bit files"


def test_masks_of_0_and_1_are_doubted_until_white_is_given(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "a.png")
    (said,) = read(tmp_path, image_size=8).doubts
    assert "its 8-bit files: no value exceeds 1" in said
    raw = read(tmp_path, image_size=8, grayscale=True, white=1)
    assert raw.doubts == ()
    assert np.array_equal(raw.train[0, 0], 255 * np.eye(8))
    with pytest.raises(DataError, match=r"a\.png: is uint8 .* with values from 0 to 1, not from"):
        read(tmp_path, image_size=8, white=0.5)


def test_floats_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.4, np.float32)).save(tmp_path / "a.tif")
    assert np.all(read(tmp_path, image_size=8).train == 102)
    Image.fromarray(np.full((8, 8), 102, np.float32)).save(tmp_path / "a.tif")
    (said,) = read(tmp_path, image_size=8).doubts
    assert "its float files: values go up to 102, where white is 1" in said
    assert "white = 127 under [data]" in said
    assert np.all(read(tmp_path, image_size=8, white=255).train == 102)


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.array([[0, 100]], np.uint8), "100"),
        (np.array([[0, 99]], np.uint8), "100"),
        (np.array([[0, 127]], np.uint8), "127"),
        (np.array([[0, 32767]], np.uint16), "32767"),
        (np.array([[0, 100]], np.float32), "100"),
        (np.array([[0, 0.392]], np.float32), "0.392"),
        (np.array([[0, 100000]], np.int32), "100000"),
    ],
)
def test_a_range_that_reads_two_ways_is_doubted_and_the_advice_holds(
    tmp_path: Path, values: np.ndarray, white: str
) -> None:
    Image.fromarray(values.repeat(8, 0).repeat(4, 1)).save(tmp_path / "a.tif")
    (said,) = read(tmp_path, image_size=8, grayscale=True).doubts
    advised = float(said.partition("for example white = ")[2].split()[0].rstrip(","))
    assert f"{advised:g}" == f"{float(white):g}"
    raw = read(tmp_path, image_size=8, grayscale=True, white=advised)
    assert raw.doubts == ()
    assert raw.train.max() >= 252


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG in colour; values (H, W, 3)."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_of(struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), zlib.compress(rows))


def test_16_bits_in_colour_are_not_scaled_by_what_pillow_leaves_of_them(tmp_path: Path) -> None:
    deep = np.full((8, 8, 3), 4095)
    (tmp_path / "a.png").write_bytes(png_of_16_bits(deep))
    (said,) = read(tmp_path, image_size=8).doubts
    assert "its 16-bit colour files, whose upper 8 bits are read: no value exceeds 15" in said
    assert "convert them to 8 bits" in said
    with pytest.raises(DataError, match=r"a\.png: has 16 bits in colour.* white = 4095 cannot"):
        read(tmp_path, image_size=8, white=4095)
    assert read(tmp_path, image_size=8, white=65535).doubts == ()
    (tmp_path / "a.png").write_bytes(png_of_16_bits(16 * deep))
    assert np.all(read(tmp_path, image_size=8).train == 255)


# Files that cannot be read, or must not


def test_all_damaged_images_are_named_at_once(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / "train" / f"{i}.png", i)
    save(tmp_path / "test" / "t.png", 1)
    bad = [tmp_path / "train" / "1.png", tmp_path / "train" / "3.png", tmp_path / "test" / "t.png"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="3 of 6 files cannot be read") as caught:
        read(tmp_path, "train", test_path=str(tmp_path / "test"))
    assert [path.name for path in bad if f"{path}: cannot be read" in str(caught.value)] == [
        "1.png",
        "3.png",
        "t.png",
    ]


def test_of_very_many_damaged_images_the_first_are_named(tmp_path: Path) -> None:
    for i in range(70):
        (tmp_path / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match="70 of 70 files cannot be read") as caught:
        read(tmp_path)
    assert str(caught.value).splitlines()[-1] == "  and 50 more"


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_of(header, zlib.compress(b""))


def png_of(header: bytes, content: bytes) -> bytes:
    body = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", content), (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + kind + data
        body += struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (13000, 13000, "has 13000x13000 pixels, more than the 100 megapixels that are read"),
        (20000, 10000, "has far more than the 100 megapixels that are read: make it smaller"),
        (2**31 - 1, 2**31 - 1, "has far more than the 100 megapixels that are read"),
    ],
)
def test_a_huge_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, width: int, height: int, said: str
) -> None:
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(DataError, match=rf"a\.png: {said}"),
    ):
        read(tmp_path)


def test_a_large_picture_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (110, 90), 1).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)  # so that Pillow warns of 9,900
    with warnings.catch_warnings(action="error"):
        assert np.all(read(tmp_path).train == 255)


def test_other_formats_under_a_picture_s_suffix_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would hand EPS to Ghostscript."""
    trap = tmp_path / "bin" / "gs"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{trap.parent}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(eps)
    Image.new("RGB", (8, 8)).save(tmp_path / "p" / "b.png", format="PCX")
    (tmp_path / "p" / "c.jpg").write_bytes(gzip.compress(b"text"))
    with pytest.raises(DataError, match="3 of 3 files") as caught:
        read(tmp_path, "p")
    assert str(caught.value).count("it is damaged, or not PNG, JPEG, GIF, BMP, TIFF, WebP") == 3
    assert not (tmp_path / "started").exists()


def test_pipes_among_the_pictures_are_left_out(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    os.mkfifo(tmp_path / "b.png")
    raw, said = told(tmp_path)
    assert len(raw.train) == 1
    assert "special file (1)" in said


def test_train_and_test_below_one_folder_are_not_mixed_in_silence(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b.png", "test/c.png"):
        save(tmp_path / name, (9, 0, 0))
    said: list[str] = []
    spec = DataSpec.model_validate({"name": "folder", "path": str(tmp_path)})
    load_folder(spec, tmp_path, 0, said.append)
    assert f'test_path = "{tmp_path / "test"}" keep them apart' in said[0]
    said.clear()
    (tmp_path / "test").rename(tmp_path / "cats")
    load_folder(spec, tmp_path, 0, said.append)
    assert not any("warning" in line for line in said)


def test_parts_of_other_usual_names_are_not_mixed_in_silence_either(tmp_path: Path) -> None:
    for train, test in (("Training", "Testing"), ("train", "val"), ("TRAIN", "validation")):
        folder = tmp_path / f"{train}-{test}"
        for name in (f"{train}/a.png", f"{train}/b.png", f"{test}/c.png"):
            save(folder / name, (9, 0, 0))
        said: list[str] = []
        spec = DataSpec.model_validate({"name": "folder", "path": str(folder)})
        load_folder(spec, tmp_path, 0, said.append)
        assert f'path = "{folder / train}" and test_path = "{folder / test}"' in said[0]


def test_of_a_damaged_file_no_line_of_pillow_s_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "good.png", (9, 0, 0))
    (tmp_path / "bad.tif").write_bytes(b"II*\0\x08\0\0\0" + b"\xff" * 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(DataError, match=r"bad.tif: cannot be read as an image"):
            read(tmp_path)
    assert "site-packages" not in capfd.readouterr().err


def test_a_file_of_two_lines_takes_one_line_in_the_list_of_faults(tmp_path: Path) -> None:
    for name in ("a\nb.png", "c.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert len(str(caught.value).splitlines()) == 3
    assert "a\\nb.png: cannot be read" in str(caught.value)


def test_a_data_path_of_two_lines_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a\nb" / "c.png", 1)
    with pytest.raises(DataError, match=r"data.path: .*a\\nb' holds a newline: rename"):
        read(tmp_path, "a\nb")


def test_downloads_that_are_no_pictures_are_called_what_they_are(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 9)
    (tmp_path / "b.jpg").write_text("<!doctype html><title>404</title>")
    (tmp_path / "c.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1")
    with pytest.raises(DataError, match=r"(?s)b\.jpg: is a web page.*c\.png: is a pointer of Git"):
        read(tmp_path, image_size=8)
