"""The shape of the code: who imports whom, what loads when, how long files are."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "searchae"
LONGEST_FILE = 600
HEAVY = {"torch", "torchvision", "optuna", "sqlalchemy", "numpy", "plotly"}
FOREIGN = {".git", "build", "dist", "data", "artifacts", "venv", "node_modules", "__pycache__"}
# Written apart, so that this file does not find itself.
HOMES = re.compile("|".join(rf"(?<![\w.~-])/{home}/" for home in ("work", "root", r"home/\w+")))


def text_files() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository, without what was built or fetched."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(p.startswith(".") and p not in (".ci", ".github") for p in parts[:-1])
        if hidden or FOREIGN & set(parts[:1]) or "__pycache__" in parts:
            continue
        if path.is_file() and path.stat().st_size < 2**20:
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a new process has loaded after running some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = set(done.stderr.split())
    assert "searchae" in names
    return names & HEAVY


def test_imports_point_one_way() -> None:
    """In a process of its own: import-linter switches off the loggers that it finds."""
    code = (
        "from importlinter.cli import lint_imports; "
        "raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_tree_can_be_seen_at_a_glance() -> None:
    modules = {p.stem for p in PACKAGE.glob("*.py")}
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    assert len(modules) <= 6
    assert 10 < len(packages) <= 17
    assert 5 < len(layers) <= 14
    protected = {
        c["allowed_importers"][0] for c in contracts["contracts"] if c["type"] == "protected"
    }
    assert protected == {f"searchae.{package}" for package in packages}


def test_optuna_s_private_names_stand_in_two_files() -> None:
    """Attributes are ruff's to find (SLF001); this is about what is imported."""
    private = re.compile(
        r"^\s*(?:from optuna[\w.]*\._\w|from optuna[\w.]* import .*\b_\w|import optuna[\w.]*\._)"
    )
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if private.match(line)
    }
    assert found == {"storage/batched_storage.py", "search/incremental_algorithms.py"}


def test_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_after("import searchae.cli") == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import searchae; searchae.tune, searchae.open, searchae.load, searchae.UserError"
    assert loaded_after(code) == set()


def test_workers_are_started_ahead_of_torch() -> None:
    assert "torch" in HEAVY
    assert "torch" not in loaded_after("import searchae.launch")


@pytest.mark.parametrize("door", ["study", "report", "dashboard"])
def test_what_only_looks_at_studies_does_not_load_torch(door: str) -> None:
    """It takes two seconds and 300 MiB, and ``status``, ``report`` and ``dashboard`` need none."""
    assert not loaded_after(f"import searchae.{door}") & {"torch", "torchvision"}


@pytest.mark.parametrize("words", [["--help"], ["tune", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """As ``python -m searchae`` runs it."""
    code = (
        f"import runpy, sys\nsys.argv = ['searchae', *{words!r}]\n"
        "try:\n    runpy.run_module('searchae', run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code, e.code"
    )
    assert loaded_after(code) == set()


def test_only_the_command_line_imports_typer() -> None:
    """Also from modules that are not there yet."""
    importing = re.compile(r"^\s*(?:import|from) (?:typer|click)\b", re.MULTILINE)
    found = {p.parent.name for p in PACKAGE.rglob("*.py") if importing.search(p.read_text())}
    assert found == {"cli"}


def test_no_file_has_grown_too_long() -> None:
    lengths = {p.name: len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert len(lengths) > 20
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_file_names_a_developer_s_machine() -> None:
    files = dict(text_files())
    assert ROOT / "pyproject.toml" in files
    assert PACKAGE / "cli" / "app.py" in files
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if HOMES.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("home", ["work", "root", "home/me"])
def test_such_a_line_would_be_found(home: str) -> None:
    assert HOMES.search(f"see /{home}/searchae")
    assert HOMES.search(f"('/{home}/data')")
    assert not HOMES.search("$HOME/work/x and src/root/x and https://example.org/work/")
