"""The csv source: MNIST's rows, with and without label, header and gzip; errors by line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from searchae.config.schema import DataSpec
from searchae.data import csv_file
from searchae.data.csv_file import load_csv, read
from searchae.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9), np.uint8)


def silent(message: str) -> None: ...


def text(pixels: np.ndarray, *, label: str = "7,", header: str = "", end: str = "\n") -> str:
    return header + "".join(label + ",".join(map(str, row)) + end for row in pixels.tolist())


def parse(folder: Path, content: str | bytes, name: str = "x.csv") -> np.ndarray:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path, progress=silent).reshape(-1, 9)


@pytest.mark.parametrize(
    "content",
    [
        text(PIXELS),
        text(PIXELS, header="label," + ",".join(f"pixel{i}" for i in range(9)) + "\n"),
        text(PIXELS, label=""),
        text(PIXELS, label="", header=",".join(f"1x{i}" for i in range(9)) + "\n"),
        text(PIXELS, label="cat,"),
        text(PIXELS, end="\r\n"),
        text(PIXELS, end="\n\n"),
        text(PIXELS).rstrip("\n"),
        "\n\n" + text(PIXELS) + "\n\n",
        text(PIXELS).replace(",", ", "),
        text(PIXELS).replace(",", ".0,"),
        text(PIXELS).replace(",", '","').replace("7", '"7', 1),
        b"\xef\xbb\xbf" + text(PIXELS).encode(),
    ],
)
def test_every_usual_way_to_write_it_is_read(tmp_path: Path, content: str | bytes) -> None:
    assert np.array_equal(parse(tmp_path, content), PIXELS)


def test_images_are_square_and_grey(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text(PIXELS))
    raw = load_csv(DataSpec(name="csv", path="x.csv"), tmp_path, 0, silent)
    assert raw.train.shape == (12, 1, 3, 3)
    assert raw.train[1, 0].tolist() == PIXELS[1].reshape(3, 3).tolist()
    assert raw.test is None


def test_a_test_file_is_the_test_split(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text(PIXELS))
    (tmp_path / "b.csv").write_text(text(PIXELS[:3]))
    spec = DataSpec(name="csv", path="a.csv", test_path="b.csv")
    test = load_csv(spec, tmp_path, 0, silent).test
    assert test is not None
    assert np.array_equal(test.reshape(-1, 9), PIXELS[:3])


def test_a_name_in_gz_is_decompressed(tmp_path: Path) -> None:
    packed = gzip.compress(text(PIXELS).encode())
    assert np.array_equal(parse(tmp_path, packed, "x.csv.gz"), PIXELS)


def test_a_header_of_counted_columns_is_skipped(tmp_path: Path) -> None:
    pixels = np.full((3, 400), 9, np.uint8)
    header = "label," + ",".join(map(str, range(400))) + "\n"
    (tmp_path / "x.csv").write_text(text(pixels, header=header))
    assert read(tmp_path / "x.csv", progress=silent).shape == (3, 1, 20, 20)


@settings(max_examples=50, deadline=None)
@given(
    pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.just(16))),
    block=st.integers(1, 300),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_are_the_same_however_the_file_falls_into_blocks(
    tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray, block: int, end: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text(text(pixels, end=end), newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_file, "_BLOCK_BYTES", block)
        assert np.array_equal(read(path, progress=silent).reshape(-1, 16), pixels)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("7,1,2,3,256,5,6,7,8,9", "line 4, column 5: '256' is not a whole number from 0 to 255"),
        ("7,1,2,3,-4,5,6,7,8,9", "line 4, column 5: '-4'"),
        ("7,1,2,3,0.5,5,6,7,8,9", "line 4, column 5: '0.5'"),
        ("7,1,2,3,,5,6,7,8,9", "line 4, column 5: ''"),
        ("7,1,2,3,abc,5,6,7,8,9", "line 4, column 5: 'abc'"),
        ("7,1,2,3,nan,5,6,7,8,9", "line 4, column 5: 'nan'"),
        ("7,1,2,3", "line 4: has 4 values; line 2 has 10"),
        ("7,1,2,3,4,5,6,7,8,9,10", "line 4: has 11 values; line 2 has 10"),
    ],
)
@pytest.mark.parametrize("block", [50, 1 << 20])
def test_a_wrong_row_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, found: str, block: int
) -> None:
    monkeypatch.setattr(csv_file, "_BLOCK_BYTES", block)
    lines = text(PIXELS).splitlines()
    content = "\n".join(["", *lines[:2], row, *lines[2:]])
    with pytest.raises(DataError, match=rf"x\.csv: {found}"):
        parse(tmp_path, content)


@pytest.mark.parametrize("content", ["1,2,3\n4,5,6\n", "hello\n", "\xef\xbb\xbf\n"])
def test_columns_that_make_no_square_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"x\.csv: line \d: \d columns are neither a square"):
        parse(tmp_path, content)


@pytest.mark.parametrize("content", ["", "\n\n", "label," + ",".join("abcdefghi") + "\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"x\.csv: there is no row"):
        parse(tmp_path, content)


@pytest.mark.parametrize("keep", [5, 60, -1])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, keep: int) -> None:
    packed = gzip.compress(text(PIXELS).encode())[:keep]
    with pytest.raises(DataError, match=rf"x\.gz: .*\({len(packed)} bytes\) is damaged"):
        parse(tmp_path, packed, "x.gz")
    with pytest.raises(DataError, match=r"y\.gz: .*not gzip"):
        parse(tmp_path, text(PIXELS), "y.gz")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text(PIXELS))
    spec = DataSpec(name="csv", path="a.csv", test_path="b.csv")
    with pytest.raises(DataError, match=r"data\.test_path: 'b\.csv' was not found"):
        load_csv(spec, tmp_path, 0, silent)
