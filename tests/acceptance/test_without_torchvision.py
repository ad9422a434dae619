"""A machine whose torchvision cannot be imported: only the public data sets need it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from searchae.data.download import require_torchvision
from searchae.errors import DataError
from searchae.study import stored_study
from tests.conftest import RunCommand

ERRORS = {
    "missing": "raise ModuleNotFoundError(\"No module named 'torchvision'\")",
    "of another torch": "raise RuntimeError('operator torchvision::nms does not exist')",
}


def write_torchvision(at: Path, code: str) -> Path:
    """A folder for the import path with a torchvision that is this code."""
    (at / "blocked" / "torchvision").mkdir(parents=True)
    (at / "blocked" / "torchvision" / "__init__.py").write_text(code)
    return at / "blocked"


def test_the_quickstart_runs_and_the_fetched_sets_say_what_they_need(
    new_process: RunCommand, tmp_path: Path
) -> None:
    blocked = write_torchvision(tmp_path, ERRORS["of another torch"])
    path_without = os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")])
    small = ("--set", "train.epochs=1", "--set", "data.train_images=300", "--trials", "1")
    done = new_process(
        "tune", "-s", "quickstart", *small, "--workers", "1", PYTHONPATH=path_without, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1" in done.stdout
    fetched = new_process("data", "mnist", PYTHONPATH=path_without)
    assert fetched.returncode == 2
    assert "torchvision cannot be imported" in fetched.stderr
    assert "house-numbers" in fetched.stderr, "what works without it"


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_imported_is_a_users_error(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(write_torchvision(tmp_path, error))
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DataError, match="torchvision cannot be imported"):
        require_torchvision()


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert stored_study._version("no-such-package-as-this") == "none"
    assert stored_study.package_versions()["torch"] != "none"
