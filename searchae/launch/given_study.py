"""A study as a Python program gives it: by name, as a file, as tables or as a spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searchae.config import StudySpec, find_study_file, read_toml, toml_value
from searchae.errors import SpecError, UserError

_KEPT_DATA_KEYS = ("validation", "train_images", "test_images", "white", "bits")
"""Keys of ``[data]`` that hold for images from Python too."""


@dataclass(frozen=True)
class GivenStudy:
    """A study that was given; see the fields of these names of ``Request``.

    Attributes:
        study: Name or path of a study file, or what errors call the tables.
        name: The study's name in the database; the file's name if empty.
        tables: What a study file would hold, where there is none.
        folder: Where relative paths in the tables are looked for.
    """

    study: str
    name: str
    tables: Mapping[str, Any] | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, study: object, name: str) -> GivenStudy:
        """Takes what was given.

        Args:
            study: A name, a path, a mapping, or a ``StudySpec``.
            name: The study's name in the database; needed unless there is a file.

        Raises:
            UserError: It is something else, or has no name.
        """
        if isinstance(study, str | os.PathLike):
            return cls(os.fspath(study), name)
        if isinstance(study, StudySpec):
            study = study.document()
        if not isinstance(study, Mapping):
            raise UserError(
                f"study: {type(study).__name__} is none: give the name or the path of a study "
                "file, a dict with its tables, or a StudySpec"
            )
        if not name:
            raise UserError(
                'name: a study without a file needs one, such as name="mine"; the same name goes '
                "on with the same study"
            )
        return cls("study", name, {str(k): _plain(v) for k, v in study.items()})

    def with_images(
        self, images: object, overrides: Mapping[str, Any], data_dir: Path
    ) -> GivenStudy:
        """Returns the study with images from Python in place of its ``[data]``.

        Args:
            images: See ``write_array_file``.
            overrides: Key -> value, of which those of ``[data]`` matter here.
            data_dir: The folder that the images are written to.

        Raises:
            SpecError: There is no such study file.
            DataError: The images cannot be used.
        """
        from searchae.data import write_array_file

        source = self
        if self.tables is None:
            path = find_study_file(self.study)
            source = GivenStudy(str(path), self.name or path.stem, read_toml(path), path.parent)
        assert source.tables is not None
        given = source.tables.get("data", {})
        data = dict(given) if isinstance(given, Mapping) else {}
        changed = {k.removeprefix("data."): v for k, v in overrides.items()}
        kept = {k: data[k] for k in _KEPT_DATA_KEYS if data.get(k) is not None}
        how = {k: v for k, v in {**kept, **changed}.items() if k in ("white", "bits")}
        path_below = write_array_file(images, data_dir, **how)
        tables = {**source.tables, "data": {"name": "npz", "path": path_below, **kept}}
        return replace(source, tables=tables)


def override_texts(overrides: Mapping[str, Any]) -> list[str]:
    """Returns overrides of a study as the command line has them, ``KEY=VALUE``.

    Raises:
        SpecError: A value cannot stand in a study file.
    """
    texts = []
    for key, value in overrides.items():
        try:
            if value is None:
                raise TypeError("None is no value; leave the key out")
            texts.append(f"{key}={toml_value(_plain(value))}")
        except TypeError as e:
            raise SpecError(f"set: {key}: {e}") from None
    return texts


def _plain(value: Any) -> Any:
    """Returns a value as a parsed study file has it: lists, texts, and Python's own numbers."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    return value
