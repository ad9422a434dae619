"""Finds study files: in ``./studies``, among those packaged with searchae, or by path."""

from __future__ import annotations

import shlex
from pathlib import Path

from searchae.errors import SpecError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]


def packed_folder() -> Path:
    """Returns the folder of the packaged study files: in the wheel, or in a checkout's root."""
    inside = _PACKAGE / "studies"
    return inside if inside.is_dir() else _PACKAGE.parent / "studies"


def built_in_studies() -> dict[str, Path]:
    """Returns the packaged study files: name -> TOML file, sorted by name."""
    return {path.stem: path for path in sorted(packed_folder().glob("*.toml"))}


def study_files(here: Path | None = None) -> dict[str, Path]:
    """Returns all study files that can be named; ``./studies`` hides packaged ones of its names.

    Args:
        here: The folder that contains ``studies/``; the current one if unset.

    Returns:
        Name -> TOML file, sorted by name.
    """
    own = {path.stem: path for path in ((here or Path.cwd()) / "studies").glob("*.toml")}
    return dict(sorted({**built_in_studies(), **own}.items()))


def find_study_file(name: str, here: Path | None = None) -> Path:
    """Finds a study file by name or path.

    Args:
        name: A name such as ``svhn`` (``./studies/svhn.toml``, the packaged file, or, where there
            is neither, ``./svhn.toml``), or a path.
        here: The folder that names and relative paths start from; the current one if unset.

    Raises:
        SpecError: There is no such file; the message lists the valid names.
    """
    known = study_files(here)
    if name in known:
        return known[name]
    path = (here or Path.cwd()) / name
    if kind := _source_of(path, is_path="/" in name):
        what = "a folder" if kind == "folder" else "a file of images"
        raise SpecError(
            f"{name}: is {what}, no study file; `searchae init --images {shlex.quote(name)}` "
            f'writes one, which names it under [data] as name = "{kind}", path = "{name}"'
        )
    if path.is_file():
        return path
    if path.exists() and (path.suffix == ".toml" or "/" in name):
        return path  # a folder or a pipe: ``read_toml`` says so
    if path.suffix == ".toml" or "/" in name:
        meant = f"did you mean --study {path.stem}? S" if path.stem in known else "s"
        raise SpecError(f"study file {name}: there is no such file; {meant}ee searchae studies")
    if (beside := _beside(path)).is_file():
        return beside
    raise SpecError(
        f"study {name!r}: neither in ./studies nor built in, nor is there a ./{name}.toml; "
        f"{nearest(name, known)}. `searchae init --images FOLDER` writes one for your images"
    )


def note_on_study_file(name: str, here: Path | None = None) -> str:
    """Returns which file a name stands for, as a line for the user, where it may be mistaken.

    Args:
        name: As of ``find_study_file``.
        here: As of ``find_study_file``.

    Returns:
        The line; empty for a path, and for a name that only one study file has.
    """
    path = (here or Path.cwd()) / name
    if "/" in name or path.suffix == ".toml" or not _beside(path).is_file():
        return ""
    if (known := study_files(here).get(name)) is None:
        return f"study {name!r}: read from ./{name}.toml"
    where = (
        "the built-in study" if known.is_relative_to(packed_folder()) else f"studies/{name}.toml"
    )
    return f"study {name!r}: {where}, not ./{name}.toml; -s {name}.toml takes that file"


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.toml")


def _source_of(path: Path, *, is_path: bool) -> str | None:
    """Returns the kind of source that what somebody named in place of a study file is, or None."""
    if path.is_dir():
        return "folder" if is_path and path.suffix != ".toml" else None
    if path.is_file() and not {".npz", ".csv"}.isdisjoint(path.suffixes):
        return "csv" if ".csv" in path.suffixes else "npz"
    return None
