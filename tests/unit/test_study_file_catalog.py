"""Study files by name, by path, and the words for one that is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from searchae.config import load_study_file, study_file_catalog
from searchae.errors import SpecError


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.toml").write_text("")
    (tmp_path / "studies" / "svhn.toml").write_text("")
    (tmp_path / "other.toml").write_text("")
    return tmp_path


def test_a_study_packed_with_searchae_is_found_from_anywhere(tmp_path: Path) -> None:
    found = study_file_catalog.find_study_file("quickstart", tmp_path)
    assert found.is_file()
    assert found.parent == study_file_catalog.packed_folder()


def test_a_file_in_studies_here_comes_before_the_packed_one(here: Path) -> None:
    assert study_file_catalog.find_study_file("svhn", here) == here / "studies" / "svhn.toml"
    assert (
        study_file_catalog.find_study_file("mnist", here).parent
        == study_file_catalog.packed_folder()
    )


def test_a_path_is_taken_as_it_is(here: Path) -> None:
    assert study_file_catalog.find_study_file("other.toml", here) == here / "other.toml"
    assert study_file_catalog.find_study_file("studies/mine.toml", here).samefile(
        here / "studies" / "mine.toml"
    )
    assert study_file_catalog.find_study_file(str(here / "other.toml")) == here / "other.toml"


def test_the_current_folder_is_where_names_start(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    assert study_file_catalog.find_study_file("mine").samefile(here / "studies" / "mine.toml")


def test_all_that_can_be_named_are_listed_by_name(here: Path) -> None:
    names = list(study_file_catalog.study_files(here))
    assert names == sorted(names)
    assert {"mine", "svhn", "quickstart"} <= set(names)
    assert "other" not in names


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest(here: Path) -> None:
    with pytest.raises(SpecError) as caught:
        study_file_catalog.find_study_file("quikstart", here)
    message = str(caught.value)
    assert "'quikstart'" in message
    assert "did you mean 'quickstart'?" in message
    assert "mine" in message


def test_a_name_that_no_study_has_may_be_a_file_in_this_folder(here: Path) -> None:
    assert study_file_catalog.find_study_file("other", here) == here / "other.toml"
    said = study_file_catalog.note_on_study_file("other", here)
    assert said == "study 'other': read from ./other.toml"


def test_a_file_in_this_folder_that_is_not_read_is_spoken_of(here: Path) -> None:
    for name, where in (("svhn", "studies/svhn.toml"), ("mnist", "the built-in study")):
        assert study_file_catalog.note_on_study_file(name, here) == ""
        (here / f"{name}.toml").write_text("")
        assert study_file_catalog.find_study_file(name, here) != here / f"{name}.toml"
        said = study_file_catalog.note_on_study_file(name, here)
        assert said == f"study {name!r}: {where}, not ./{name}.toml; -s {name}.toml takes that file"
    assert study_file_catalog.note_on_study_file("svhn.toml", here) == ""


@pytest.mark.parametrize("path", ["absent.toml", "studies/absent", "studies"])
def test_what_is_no_file_is_refused(here: Path, path: str) -> None:
    with pytest.raises(SpecError, match=path):
        study_file_catalog.find_study_file(path, here)


def test_a_file_that_lies_among_the_studies_is_found_by_its_message(here: Path) -> None:
    with pytest.raises(SpecError, match="did you mean --study mine"):
        study_file_catalog.find_study_file("mine.toml", here)


def test_a_pipe_is_named_as_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "my.toml")
    with pytest.raises(SpecError, match="is a pipe or a device, not a regular file"):
        load_study_file(study_file_catalog.find_study_file("my.toml", tmp_path))
