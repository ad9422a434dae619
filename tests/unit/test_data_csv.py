"""The csv source: MNIST's rows, with and without label, header and gzip; errors by line."""

import bz2
import gzip
import lzma
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from searchae.config.data_spec import DataSpec
from searchae.data import csv_text, memory
from searchae.data.csv_file import load_csv, read
from searchae.data.raw_images import RawImages
from searchae.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9), np.uint8)


def silent(message: str) -> None: ...


def text(pixels: np.ndarray, *, label: str = "7,", header: str = "", end: str = "\n") -> str:
    return header + "".join(label + ",".join(map(str, row)) + end for row in pixels.tolist())


def parse(folder: Path, content: str | bytes, name: str = "x.csv") -> np.ndarray:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path, progress=silent).images.reshape(-1, 9)


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
    assert read(tmp_path / "x.csv", progress=silent).images.shape == (3, 1, 20, 20)


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
        patch.setattr(csv_text, "_BLOCK_BYTES", block)
        assert np.array_equal(read(path, progress=silent).images.reshape(-1, 16), pixels)


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
        ("7", "line 4: has 1 value; line 2 has 10"),
        ("7,1,2,3,4,5,6,7,8,9,10", "line 4: has 11 values; line 2 has 10"),
    ],
)
@pytest.mark.parametrize("block", [50, 1 << 20])
def test_a_wrong_row_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, found: str, block: int
) -> None:
    monkeypatch.setattr(csv_text, "_BLOCK_BYTES", block)
    lines = text(PIXELS).splitlines()
    content = "\n".join(["", *lines[:2], row, *lines[2:]])
    with pytest.raises(DataError, match=rf"x\.csv: {found}"):
        parse(tmp_path, content)


@pytest.mark.parametrize("content", ["1,2,3\n4,5,6\n", "hello\n", "\xef\xbb\xbf\n"])
def test_columns_that_make_no_square_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"x\.csv: line \d: \d columns? (are|is) neither a square"):
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


DRAW = np.random.default_rng(1)
PICTURES = DRAW.integers(0, 256, (40, 64), np.uint8)
LABELS = (np.arange(40) % 10)[:, None]
SIGNS = 2 * (LABELS % 2) - 1
NAMES = [f"pixel{i}" for i in range(64)]


def load(folder: Path, content: str | bytes, **values: object) -> tuple[RawImages, str]:
    """Loads ``x.csv``; returns also what was said."""
    (folder / "x.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    said: list[str] = []
    spec = DataSpec.model_validate({"name": "csv", "path": "x.csv", **values})
    return load_csv(spec, folder, 0, said.append), "\n".join(said)


def table(*columns: np.ndarray, header: list[str] | None = None) -> str:
    lines = [header] if header else []
    lines += np.concatenate(columns, axis=1).tolist()
    return "".join(",".join(map(str, line)) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table(PICTURES, LABELS, header=[*NAMES, "label"]), "by the header, column 65 (label)"),
        (table(PICTURES, LABELS, header=[*NAMES, "kind"]), "by the header, column 65 (kind)"),
        (table(LABELS, PICTURES, header=["class", *NAMES]), "by the header, column 1 (class)"),
        (table(PICTURES, LABELS), "the last is taken for the label (by its values)"),
        (table(LABELS, PICTURES), "the first is taken for the label (by its values)"),
        (
            table(PICTURES, LABELS, header=[*map(str, range(64)), "y"]),
            "with a header, separated by commas; of 65 columns by the header, column 65 (y)",
        ),
        (
            table(LABELS + 30, LABELS, PICTURES, header=["", "label", *NAMES]),
            "columns by the header, columns 1 (no name), 2 (label)",
        ),
        (table(PICTURES, SIGNS), "the last is taken for the label (by its values)"),
        (table(SIGNS, PICTURES), "the first is taken for the label (by its values)"),
        (
            table(PICTURES, np.tile(LABELS, 9), header=[*NAMES, *(f"c{i}" for i in range(9))]),
            "by the header, columns 65 (c0), 66 (c1), 67 (c2), ... 73 (c8) are left out",
        ),
        (table(PICTURES, header=[*map(str, range(64))]), "with a header, separated by commas"),
        (table(PICTURES), "of 64 columns all are pixels"),
    ],
)
def test_the_label_is_found_wherever_it_is_and_what_was_taken_is_said(
    tmp_path: Path, content: str, said: str
) -> None:
    raw, told = load(tmp_path, content)
    assert np.array_equal(raw.train.reshape(-1, 64), PICTURES)
    assert raw.doubts == ()
    assert said in told


@pytest.mark.parametrize("last", [True, False])
def test_a_label_of_text_or_after_an_empty_border_is_found(tmp_path: Path, *, last: bool) -> None:
    few = DRAW.integers(0, 3, (40, 64)).astype(np.uint8) * 127
    few[:, 0] = 0
    words = np.where(LABELS < 5, "cat", "dog")
    for labels in (words, LABELS) if last else (words,):
        parts = (few, labels) if last else (labels, few)
        raw, _ = load(tmp_path, table(*parts))
        assert np.array_equal(raw.train.reshape(-1, 64), few)
        assert raw.doubts == ()


def test_where_both_ends_may_be_the_label_the_user_has_to_say(tmp_path: Path) -> None:
    few = DRAW.integers(200, 203, (40, 64)).astype(np.uint8)
    raw, _ = load(tmp_path, table(few, LABELS))
    assert len(raw.doubts) == 1
    assert 'label = "first" or label = "last" under [data]' in raw.doubts[0]
    for label, content in (("last", table(few, LABELS)), ("first", table(LABELS, few))):
        raw, _ = load(tmp_path, content, label=label)
        assert np.array_equal(raw.train.reshape(-1, 64), few)
        assert raw.doubts == ()


def test_a_column_that_may_be_the_label_says_nothing_of_which_value_is_white(
    tmp_path: Path,
) -> None:
    raw, _ = load(tmp_path, table(PICTURES // 128, LABELS))
    assert len(raw.doubts) == 2
    assert "no value exceeds 1, where white is 255" in raw.doubts[1]


def test_a_wrong_value_in_the_last_column_does_not_make_it_the_label(tmp_path: Path) -> None:
    content = table(LABELS, PICTURES).splitlines()
    content[7] = content[7].rpartition(",")[0] + ",abc"
    with pytest.raises(DataError, match="line 8, column 65: 'abc' is not a whole number"):
        load(tmp_path, "\n".join(content))


def test_a_header_that_names_a_label_among_a_square_of_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"64 columns; column 1 \(label\) is left out, and 63"):
        load(tmp_path, table(PICTURES, header=["label", *NAMES[:63]]))


def test_a_test_file_without_a_header_has_its_label_where_the_training_file_has_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "t.csv").write_text(table(PICTURES[:3], LABELS[:3]))
    raw, told = load(tmp_path, table(PICTURES, LABELS), test_path="t.csv")
    assert raw.test is not None
    assert np.array_equal(raw.test.reshape(-1, 64), PICTURES[:3])
    assert "as in the training file" in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table(LABELS, PICTURES).replace(",", ";"), "separated by semicolons"),
        (table(LABELS, PICTURES).replace(",", "\t"), "separated by tabs"),
        (table(LABELS, PICTURES).replace(",", "   "), "separated by spaces"),
        (table(LABELS, PICTURES).replace(",", "|"), "separated by vertical bars"),
        (table(LABELS, PICTURES).replace("\n", "\r"), "separated by commas"),
        (table(LABELS, PICTURES).encode("utf-16"), "separated by commas"),
        (b"\xfe\xff" + table(LABELS, PICTURES).encode("utf-16-be"), "separated by commas"),
        ("sep=;\r\n" + table(LABELS, PICTURES).replace(",", ";"), "separated by semicolons"),
        ("SEP=:\n" + table(LABELS, PICTURES).replace(",", ":"), "separated by ':'"),
        ("# made by numpy, 2024\n\n" + table(LABELS, PICTURES), "separated by commas"),
        ("# a; b\n" + table(LABELS, PICTURES, header=["# y", *NAMES]), "column 1 (y)"),
        ("# " + table(PICTURES, header=NAMES).replace(",", " "), "of 64 columns all are pixels"),
        (gzip.compress(table(LABELS, PICTURES).encode()), "separated by commas"),
        (gzip.compress(table(LABELS, PICTURES).encode("utf-16")), "separated by commas"),
    ],
)
def test_other_separators_line_ends_and_encodings_are_recognised(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    raw, told = load(tmp_path, content)
    assert np.array_equal(raw.train.reshape(-1, 64), PICTURES)
    assert said in told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table(LABELS, PICTURES).replace(",", ";").replace(";7;", ";0,7;"), "write decimal points"),
        (table(LABELS, PICTURES).encode("utf-16-le"), "holds NUL bytes: it is no text in UTF-8"),
        (table(LABELS, PICTURES).replace(",", ":"), r"1 column is neither .*by commas"),
        (table(LABELS, PICTURES).encode("utf-32"), "holds NUL bytes: .* UTF-32"),
        (table(LABELS, PICTURES).replace("\n", ",\n"), "its lines end with a separator"),
        (bz2.compress(table(LABELS, PICTURES).encode()), "is compressed by bzip2: unpack it"),
        (lzma.compress(table(LABELS, PICTURES).encode()), "is compressed by xz: unpack it"),
        (b"PK\x03\x04" + bytes(99), "is a zip archive, as Excel's files are"),
        ("<!DOCTYPE html>\n<p>a, b</p>\n", "is a web page .* fetch it again"),
        ("version https://git-lfs.github.com/spec/v1\nsize 9\n", "is a pointer of Git LFS"),
        ("% x\n@RELATION a\n@data\n" + table(PICTURES), "remove the lines up to @data"),
        ("[[1, 2], [3, 4]]\n", "is JSON; a csv source reads text, with a line of numbers"),
        ("5 " + " ".join(f"{i}:{i}" for i in range(1, 65)) + "\n", "NUMBER:VALUE, as LIBSVM does"),
        (
            table(PICTURES / 100).replace(",", "\t").replace(".", ","),
            "separated by tabs, .* points",
        ),
        (table(PICTURES / 100).replace(",", " ").replace(".", ","), "separated by spaces, .* poin"),
        (table(LABELS, PICTURES, LABELS), "66 columns .* a header has to name them"),
        (table(PICTURES[:, :48]), "48 columns .* not square go into an npz or a folder"),
        (table(-PICTURES.astype(int)), "line 1, .*scale the values .* write white = 1 under"),
        ("emotion,pixels\n3,0 1 2 3\n", "begins with 'emotion,pixels', but .* in each line"),
        (table(np.tile(PICTURES, 3)), "192 columns are neither .* colour or not square go into"),
        (b"\xff\xfe" + b"1\0,\0\0\xdc1\0", "is not UTF-16"),
    ],
)
def test_text_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    with pytest.raises(DataError, match=rf"x\.csv: .*{said}"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ([], sorted(NAMES)),  # pixel0, pixel1, pixel10 ...
        (["label"], sorted(NAMES)),
        ([], NAMES[::-1]),
        ([], [f"{column}x{row}" for row in range(8) for column in range(8)]),
        ([], sorted(map(str, range(64)))),
        (["label"], sorted(map(str, range(64)))),
    ],
)
def test_pixels_that_the_header_numbers_in_another_order_are_refused(
    tmp_path: Path, label: list[str], names: list[str]
) -> None:
    columns = [LABELS, PICTURES] if label else [PICTURES]
    with pytest.raises(DataError, match=r"line 1: the header does not number .* or remove"):
        load(tmp_path, table(*columns, header=[*label, *names]))
    raw, _ = load(tmp_path, table(*columns))  # as advised
    assert np.array_equal(raw.train.reshape(-1, 64), PICTURES)


def test_an_empty_last_column_is_called_so(tmp_path: Path) -> None:
    raw, told = load(tmp_path, table(PICTURES).replace("\n", ",\n"))
    assert np.array_equal(raw.train.reshape(-1, 64), PICTURES)
    assert "the last is taken for the label (it is empty)" in told


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (PICTURES // 128, 1),
        (PICTURES // 16, 15),
        ((PICTURES / 2.56).astype(int), 100),
        (PICTURES // 2, 127),
        (PICTURES / 255.0, 1),
        (PICTURES.astype(int) * 257, 65535),
    ],
)
def test_values_whose_white_is_not_255_are_never_read_as_if(
    tmp_path: Path, values: np.ndarray, white: float
) -> None:
    content = table(LABELS, values, header=["label", *NAMES])
    try:
        raw, _ = load(tmp_path, content)
        (said,) = raw.doubts
    except DataError as e:
        said = str(e)
    assert f"white = {white} " in said
    raw, _ = load(tmp_path, content, white=white)
    expected = np.rint(np.asarray(values, float) * 255 / white)
    assert np.array_equal(raw.train.reshape(-1, 64), expected)
    assert raw.doubts == ()


def test_a_value_above_the_given_white_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2, column 2: .* is not a number from 0 to .* = 15"):
        load(tmp_path, table(LABELS, PICTURES | 16, header=["label", *NAMES]), white=15)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(csv_text, "_LONGEST_LINE_BYTES", 1 << 20)
    packed = gzip.compress(b"7," * (8 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="line 1: has no end within 1 MiB"):
            load(tmp_path, packed)
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_expands_as_no_images_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(memory, "_MAX_EXPANSION", 100)
    with pytest.raises(DataError, match=r"bytes expand to .* or more, as no images do"):
        load(tmp_path, gzip.compress((b"0," * 63 + b"0\n") * 100_000))


@pytest.mark.parametrize("texts", ["cat,train,", "a.png,cat,"])
def test_a_first_row_with_several_texts_is_not_taken_for_names(tmp_path: Path, texts: str) -> None:
    with pytest.raises(DataError, match="11 columns are neither"):
        parse(tmp_path, text(PIXELS, label=texts))


@pytest.mark.parametrize("label", ['"cat, no 1",', '"0,8039",'])
def test_separators_within_quotes_are_spoken_of(tmp_path: Path, label: str) -> None:
    first = text(PIXELS[:1], label=label)
    told = "decimal commas here.*: write decimal points" if "0,8" in label else "a separator here"
    for content in (first + text(PIXELS), text(PIXELS) + first):
        with pytest.raises(DataError, match=f"quotes hold {told}"):
            parse(tmp_path, content)


def test_decimal_commas_in_quotes_are_spoken_of(tmp_path: Path) -> None:
    lines = [",".join(f'"0,{v:04d}"' for v in row) for row in PICTURES]
    with pytest.raises(DataError, match=r'decimal commas here, such as "0,\d+": write decimal po'):
        load(tmp_path, "\n".join(lines))


def test_a_value_a_little_above_one_does_not_make_white_three(tmp_path: Path) -> None:
    values = PICTURES / 255.0
    values[0, 0] = 1.00002
    with pytest.raises(DataError, match=r"'1.00002' .* write it: white = 1 under \[data\]"):
        load(tmp_path, table(values))
    with pytest.raises(DataError, match=r"line 1, column 1: .*; clip what is above 1 to it"):
        load(tmp_path, table(values), white=1)
    values[0, 0] = 1.00001
    raw, _ = load(tmp_path, table(values), white=1)
    assert raw.train[0, 0, 0, 0] == 255


@pytest.mark.parametrize("test", ["a,b\n", table(PICTURES[:3, :49]), table(PICTURES // 128)])
def test_nothing_is_said_to_be_taken_of_files_that_are_refused(tmp_path: Path, test: str) -> None:
    said: list[str] = []
    (tmp_path / "x.csv").write_text(table(PICTURES))
    (tmp_path / "t.csv").write_text(test)
    spec = DataSpec.model_validate({"name": "csv", "path": "x.csv", "test_path": "t.csv"})
    with suppress(DataError):  # or it is a doubt, which ``load_splits`` refuses
        assert load_csv(spec, tmp_path, 0, said.append).doubts
    assert [line.partition(" /")[0] for line in said] == ["csv: reading"] * 2


def test_a_label_that_the_header_contradicts_is_spoken_of(tmp_path: Path) -> None:
    header = "label," + ",".join(f"p{i}" for i in range(9)) + "\n"
    path = tmp_path / "x.csv"
    path.write_text(text(PIXELS, header=header))
    for end, is_right in (("first", True), ("last", False)):
        _, *warnings = read(path, progress=silent, label=end).notes  # type: ignore[arg-type]
        assert bool(warnings) != is_right
    against = 'by the header, column 1 (label) is no pixels, against data.label = "last"'
    assert warnings == [f"warning: {path}: line 1: {against}"]
