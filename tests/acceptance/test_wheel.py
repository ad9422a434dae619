"""What is installed is what was built: the wheel alone, outside of the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.fleet

ROOT = Path(__file__).parents[2]


def test_a_wheel_in_an_empty_environment_runs_a_search_of_a_packed_study(tmp_path: Path) -> None:
    """Its dependencies are lent by this environment (they are gigabytes); searchae is not."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        timeout=120,
    )
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # Appended, and without its own .pth files: an editable searchae there stays unseen.
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    words = ("--trials", "2", "--workers", "1", "--json")
    small = ("--set", "train.epochs=1", "--set", "data.train_images=300")
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "searchae", "tune", "-s", "quickstart", *words, *small],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["trials"]
    assert found["complete"] + found["pruned"] == 2
    asked = "import searchae, pathlib; print(pathlib.Path(searchae.__file__).parent)"
    where = subprocess.run(
        [python, "-c", asked],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()) == site / "searchae"
