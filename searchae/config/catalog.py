"""Where study files lie: ``./studies``, those packed with searchae, or a path."""

from __future__ import annotations

from pathlib import Path

from searchae.errors import SpecError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]


def packed_folder() -> Path:
    """The study files that came with searchae: inside the wheel, or beside it in a checkout."""
    inside = _PACKAGE / "studies"
    return inside if inside.is_dir() else _PACKAGE.parent / "studies"


def study_files(here: Path | None = None) -> dict[str, Path]:
    """Every study that can be named, the nearer folder first.

    Args:
        here: The folder whose ``studies/`` is looked into; the current one if unset.

    Returns:
        Name -> TOML file, by name.
    """
    found: dict[str, Path] = {}
    for folder in ((here or Path.cwd()) / "studies", packed_folder()):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_study_file(name: str, here: Path | None = None) -> Path:
    """Finds a study file by name or path.

    Args:
        name: ``svhn`` (``./studies/svhn.toml``, then the packed one), or a file's path.
        here: The folder that names and paths start from; the current one if unset.

    Raises:
        SpecError: There is none; the valid names are listed.
    """
    known = study_files(here)
    if name in known:
        return known[name]
    path = (here or Path.cwd()) / name
    if path.is_file():
        return path
    if path.suffix == ".toml" or "/" in name:
        raise SpecError(f"study file {name}: there is no such file")
    raise SpecError(
        f"study {name!r}: not found in ./studies nor among the packed ones; {nearest(name, known)}"
    )
