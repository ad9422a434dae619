"""The npz source: Keras's layout in every accepted shape, and each way to get it wrong."""

import io
import os
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from searchae.config.data_spec import DataSpec
from searchae.data import memory
from searchae.data.npz import as_images, load_npz
from searchae.data.raw_images import RawImages
from searchae.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (16, 5, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 7, 3), np.uint8)


def read(folder: Path, **arrays: object) -> RawImages:
    np.savez(folder / "x.npz", **arrays)  # type: ignore[arg-type]
    return load_npz(DataSpec(name="npz", path="x.npz"), folder, 0, print)


def test_x_train_and_x_test_of_kerass_layout(tmp_path: Path) -> None:
    raw = read(tmp_path, x_train=COLOUR, y_train=np.arange(6), x_test=COLOUR[:2])
    assert raw.test is not None
    assert np.array_equal(raw.train, COLOUR.transpose(0, 3, 1, 2))
    assert np.array_equal(raw.test, raw.train[:2])


@pytest.mark.parametrize("key", ["x_train", "images"])
def test_without_a_test_part_there_is_none(tmp_path: Path, key: str) -> None:
    raw = read(tmp_path, **{key: GREY})
    assert raw.test is None
    assert np.array_equal(raw.train, GREY[:, None])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY[..., None], GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
    ],
)
def test_channels_may_stand_first_or_last(
    tmp_path: Path, array: np.ndarray, expected: np.ndarray
) -> None:
    assert np.array_equal(read(tmp_path, images=array).train, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_become_the_nearest_of_256_levels(
    tmp_path: Path, dtype: type[np.floating]
) -> None:
    levels = np.arange(256, dtype=np.float64).reshape(1, 16, 16) / 255
    raw = read(tmp_path, images=levels.astype(dtype))
    assert raw.train.dtype == np.uint8
    assert raw.train.ravel().tolist() == list(range(256))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (GREY.astype(np.int64), r"images: is int64 of shape \(16, 5, 7\)"),
        (GREY.astype(np.float32), "float32 of shape .* with values from 0 to 25"),
        (np.full((2, 4, 4), -0.1), "with values from -0.1 to -0.1"),
        (np.full((2, 4, 4), np.nan), "values that are NaN or infinite: leave these"),
        (np.full((2, 4, 4), np.inf), "values that are NaN or infinite: leave these"),
        (GREY > 3, "images: is bool"),
        (GREY[0], r"uint8 of shape \(5, 7\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"shape \(2, 8, 8, 5\)"),
        (np.zeros((0, 8, 8), np.uint8), r"no image in it: its shape is \(0, 8, 8\)"),
    ],
)
def test_other_arrays_are_refused_with_key_dtype_and_shape(
    tmp_path: Path, array: np.ndarray, found: str
) -> None:
    with pytest.raises(DataError, match=found) as caught:
        read(tmp_path, images=array)
    assert "x.npz: images" in str(caught.value)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.npz: images cannot be read .*Python objects"):
        read(tmp_path, images=np.array([{}, []], dtype=object))


def test_missing_keys_list_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"needs x_train .*, or images, but holds a, b; save it again"
    ):
        read(tmp_path, a=GREY, b=GREY)


def test_train_and_test_images_of_different_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 x 5 x 7, but test images are 1 x 4 x 7"):
        read(tmp_path, x_train=GREY, x_test=GREY[:, :4])


def test_a_truncated_archive_is_named_with_its_size(tmp_path: Path) -> None:
    read(tmp_path, images=GREY)
    whole = (tmp_path / "x.npz").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.npz").write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"x\.npz: .*\({size:,} bytes\) is damaged"):
            load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=RNG.integers(0, 256, (50, 9, 9), np.uint8))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[300:340] = bytes(40)
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npz: images cannot be read"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)


def test_a_bare_array_and_a_text_file_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="one bare array"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)
    (tmp_path / "x.npz").write_text("hello")
    with pytest.raises(DataError, match=r"\(5 bytes\) is damaged, not an npz"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(DataError, match=r"x\.npz is a folder"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)


def test_a_missing_file_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"'no\.npz' was not found.*{Path.cwd()}.*{tmp_path}"):
        load_npz(DataSpec(name="npz", path="no.npz"), tmp_path, 0, print)


def test_a_test_path_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.test_path: .*'t\.npz'.*x_test"):
        load_npz(DataSpec(name="npz", path="x.npz", test_path="t.npz"), tmp_path, 0, print)


def test_what_was_taken_and_left_out_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=COLOUR, y_train=np.arange(6), images=GREY)
    said: list[str] = []
    load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, said.append)
    assert said[1:] == [
        "npz: x_train: uint8 of shape (6, 5, 7, 3), (N, H, W, C): 6 colour images of 7x5 pixels; "
        "255 is white",
        "npz: left out: y_train, images",
    ]


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (GREY // 128, 1),
        (GREY // 16, 15),
        ((GREY / 255 / 255).astype(np.float32), 0.00392157),
        (GREY.astype(np.uint16) * 16, 4095),
        (GREY.astype(np.int64) * 257, 65535),
        (GREY.astype(np.float64), 255),
        (GREY > 127, 1),
        ((GREY / 2.55).astype(np.uint8), 100),
        ((GREY / 2.56).astype(np.uint8), 100),
        (GREY // 2, 127),
        (GREY // 100, 3),
        (GREY / 2.55, 100),
        (GREY.astype(np.uint16) * 128, 32767),
    ],
)
def test_values_whose_white_is_not_their_type_s_are_never_read_as_if(
    tmp_path: Path, array: np.ndarray, white: float
) -> None:
    try:
        (said,) = read(tmp_path, images=array).doubts
    except DataError as e:
        said = str(e)
    assert re.search(rf"white = {white}( or white = 16)? under \[data\]", said)
    raw = load_npz(DataSpec(name="npz", path="x.npz", white=white), tmp_path, 0, print)
    assert raw.doubts == ()
    expected = np.rint(np.asarray(array, np.float64)[:, None] * 255 / white)
    assert np.array_equal(raw.train, expected)
    with pytest.raises(DataError, match="not from 0 to"):
        load_npz(DataSpec(name="npz", path="x.npz", white=white / 2), tmp_path, 0, print)


def test_a_test_split_of_another_range_than_the_training_split_is_doubted(tmp_path: Path) -> None:
    (said,) = read(tmp_path, x_train=GREY, x_test=GREY // 16).doubts
    assert "x_test: no value exceeds 15" in said


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((9, 3, 32, 3), "channels may stand first or last"),
        ((9, 1, 28, 1), "channels may stand first or last"),
        ((32, 32, 3), "read as .N, H, W., its images have only 3x32 pixels"),
        ((28, 28, 600), "it may be .N, H, W., or .H, W, N. as MATLAB has it"),
        ((28, 28, 28), "it may be .N, H, W., or .H, W, N. as MATLAB has it"),
        ((24, 32, 400), "it may be .N, H, W., or .H, W, N. as MATLAB has it"),
        ((64, 48, 20), "it may be .N, H, W., or .H, W, N. as MATLAB has it"),
        ((28, 28, 40, 3), "it may be .N, H, W, C., or .H, W, N, C."),
        ((9, 4, 32, 2), "channels may stand first or last"),
        ((3, 30, 30), "it may be 3 grey images, or one image of 3 channels"),
        ((2, 30, 40), "it may be 2 grey images, or one image of 2 channels"),
    ],
)
def test_a_shape_that_can_be_read_in_two_ways_is_doubted(
    tmp_path: Path, shape: tuple[int, ...], reason: str
) -> None:
    (said,) = read(tmp_path, images=np.full(shape, 200, np.uint8)).doubts
    assert "x.npz: images: the order of the axes of" in said
    assert re.search(reason, said)


@pytest.mark.parametrize(
    "shape",
    [
        (28, 28, 28, 2),
        (9, 4, 28, 28),
        (1, 28, 28),
        (28, 28, 28, 1),
        (28, 28, 28, 3),
        (5, 28, 28),
        (5, 24, 32, 3),
        (28, 3, 28, 40),
        (64, 24, 32),
    ],
)
def test_shapes_that_are_usual_are_clear(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert read(tmp_path, images=np.full(shape, 200, np.uint8)).doubts == ()


def test_a_few_images_of_the_size_that_a_net_takes_are_clear() -> None:
    array = np.full((5, 24, 32), 200, np.uint8)
    said: list[str] = []
    assert as_images(array, where="x", size=(24, 32), warn=said.append).shape == (5, 1, 24, 32)
    with pytest.raises(DataError, match="order of the axes"):
        as_images(array, where="x", size=(24, 24), warn=said.append)
    assert said == []
    as_images(array[..., None] // 200, where="x", warn=said.append)
    assert "no value exceeds 1, where white is 255" in said[0]
    assert "under [data]" not in said[0]


def test_floats_that_overshoot_are_to_be_clipped_not_darkened(tmp_path: Path) -> None:
    """As after resizing with a bicubic filter."""
    images = np.linspace(0, 1.02, 30 * 64, dtype=np.float32).reshape(30, 8, 8)
    with pytest.raises(DataError, match=r"from 0 to 1\.02, not from 0 to 1: clip them to 1"):
        read(tmp_path, images=images)


def test_floats_that_rounding_put_outside_are_clipped(tmp_path: Path) -> None:
    levels = np.array([-1e-7, 0.5, 1.0000002], np.float32).repeat(75).reshape(3, 5, 5, 3)
    raw = read(tmp_path, images=levels)
    assert raw.doubts == ()
    assert raw.train[:, 0, 0, 0].tolist() == [0, 128, 255]


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**6, 1000, 1000), (2**62, 2**62, 1), (10**12, 0, 8)])
def test_a_shape_that_the_file_does_not_hold_is_refused_before_anything_is_allocated(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header(shape) + bytes(640))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"x\.npz: images cannot be read .*header says"):
            load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", ["(True, 8, 8)", f"({'9' * 5000}, 8, 8)", "(" * 3000])
def test_a_header_that_is_none_is_refused_in_one_short_sentence(tmp_path: Path, shape: str) -> None:
    fields = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = len(fields).to_bytes(2, "little")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + size + fields + bytes(64))
    with pytest.raises(DataError, match=r"x\.npz: images cannot be read \(") as caught:
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


def test_a_bare_array_of_any_size_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(header((10**12,)))
    with pytest.raises(DataError, match="one bare array"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)


def test_an_archive_that_expands_as_no_images_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_LARGE_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((8 << 20, 1, 1), np.uint8))
    with pytest.raises(DataError, match=r"x\.npz: images: .* bytes expand to .* as no images do"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)


def test_images_that_take_more_than_half_of_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 400)
    with pytest.raises(DataError, match=r"x\.npz: images: takes 0\.0 GiB of memory, and this"):
        read(tmp_path, images=GREY)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"x\.npz is a pipe or a device, not a regular"):
        load_npz(DataSpec(name="npz", path=str(tmp_path / "x.npz")), tmp_path, 0, print)


@pytest.mark.parametrize(
    ("shape", "advice", "ordered"),
    [
        ((20, 144), r"save array.reshape\(-1, 12, 12\)", lambda a: a.reshape(-1, 12, 12)),
        ((20, 96), r"save array.reshape\(-1, H, W\)", lambda a: a.reshape(-1, 8, 12)),
        ((8, 9, 3, 20), r"transpose\(array, \(3, 0, 1, 2\)\)", lambda a: a.transpose(3, 0, 1, 2)),
        ((3, 20, 8, 9), r"transpose\(array, \(1, 2, 3, 0\)\)", lambda a: a.transpose(1, 2, 3, 0)),
    ],
)
def test_how_to_order_an_array_is_said_and_the_advice_holds(
    tmp_path: Path,
    shape: tuple[int, ...],
    advice: str,
    ordered: Callable[[np.ndarray], np.ndarray],
) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with pytest.raises(DataError, match=advice):
        read(tmp_path, images=array)
    assert read(tmp_path, images=ordered(array)).train.shape[0] == 20


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"<html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "is a file of MATLAB"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    ],
)
def test_what_a_file_is_instead_of_an_npz_is_said(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "x.npz").write_bytes(start)
    with pytest.raises(DataError, match=rf"x\.npz: {what}.*numpy.savez"):
        load_npz(DataSpec(name="npz", path="x.npz"), tmp_path, 0, print)
