"""A study file that is not valid TOML: where, and what is usually meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from searchae.config.toml_file import read_toml
from searchae.errors import SpecError

SLIPS = {
    "a = { low = 1, high = 2, log = True }": "write true and false in lower case",
    "a = None": "leave the key out",
    "name = svhn": "a text needs quotes",
    'name = "svhn': "a quote is missing",
    'path = "C:\\data\\mine"': "in single quotes",
    "// mine": "a comment begins with #",
    "a: 3": "write key = value",
    "a = 0,5": "a decimal point, not a comma",
    "a = { low = 0,1, high = 1 }": "a decimal point, not a comma",
    "a = { low = 1, high = 2, }": "leave out the comma",
    "a = { low = 1,": "on one line",
    "a = “svhn”": "straight quotes",
    "a =\u00a0 2": "a blank that is none",
    '{"data": {"name": "svhn"}}': "TOML, not JSON",
    "a =": "a value is missing",
    "a = 010": "no zeros in front",
    "[train": "a closing bracket is missing",
    "fine = 2": "it stands twice",
    "[model]": "it stands twice",
}


@pytest.mark.parametrize("line", SLIPS)
def test_a_slip_is_shown_with_what_is_meant(line: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f"[model]\nfine = 1\n{line}\n")
    with pytest.raises(SpecError) as caught:
        read_toml(file)
    first, shown, hint = str(caught.value).splitlines()
    assert first.startswith(f"{file}: not valid TOML")
    assert "line 3" in first
    assert shown.strip() == line
    assert SLIPS[line] in hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 100_000, "nested too deep"),
        (b"a = " + b"9" * 5_000, "thousands of digits"),
        (b"#" * (1 << 21), "larger than 1 MiB"),
        (b"\xff\xfea\x00", "cannot be read: it is not UTF-8; save it as UTF-8$"),
    ],
)
def test_what_is_no_study_file_is_refused_in_a_line(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        read_toml(file)
    assert len(str(caught.value)) < 500


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "my.toml"
    os.mkfifo(pipe)
    with pytest.raises(SpecError, match="is a pipe or a device, not a regular file"):
        read_toml(pipe)


def test_the_mark_of_a_windows_editor_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes("\ufeffa = 1".encode())
    assert read_toml(file) == {"a": 1}
