"""Python packages that a bare GPU machine lacks: fetched where there is a network, used where not.

The machine has Python 3.12 with torch, torchvision, torchmetrics, numpy, scipy, Pillow,
safetensors, rich, typer, pytest, pytest-timeout and pytest-xdist.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LACKING = (
    *("optuna", "alembic", "colorlog", "mako", "sqlalchemy", "greenlet", "plotly"),
    *("optuna-dashboard", "bottle", "psycopg", "psycopg-binary", "waitress"),
)
"""Fetched alone; what else these need is there."""
WITH_DEPENDENCIES = ("pydantic",)  # its core must be of exactly one version
_FOR = (
    *("--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"),
    *(word for n in (28, 27, 17) for word in ("--platform", f"manylinux_2_{n}_x86_64")),
    *("--platform", "manylinux2014_x86_64"),
)


def download(folder: Path) -> None:
    """Puts the wheels of all packages into a folder, some 25 MB.

    Raises:
        SystemExit: pip failed; it has said why.
    """
    for words in (["--no-deps", *LACKING], list(WITH_DEPENDENCIES)):
        _pip(["download", "--quiet", *_FOR, "--dest", str(folder), *words])


def importable(folder: Path, work: Path) -> Path:
    """Returns a folder for ``PYTHONPATH`` with the packages of another.

    Args:
        folder: Wheels, or packages as ``pip install --target`` leaves them.
        work: Where wheels are unpacked, once.

    Raises:
        SystemExit: pip failed; it has said why.
    """
    wheels = sorted(str(path) for path in folder.glob("*.whl"))
    if not wheels:
        return folder.resolve()
    site = work.resolve() / "site"
    complete = site / "complete"
    if not complete.exists():
        about = ["--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site)]
        _pip(["install", "--quiet", *about, *wheels])
        complete.touch()
    return site


def _pip(words: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=False
    )
    if done.returncode:
        raise SystemExit(f"pip {words[0]} failed: see above")
