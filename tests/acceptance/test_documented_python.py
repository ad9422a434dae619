"""The Python blocks of the documentation run, in a user's folder with one small search."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import searchae
from tests import documents
from tests.acceptance.test_python_names import QUICK
from tests.conftest import fork_workers, make_folder
from tests.forked_commands import run_command

FIRST = "docs/how-to/notebook.md"
"""The page whose first block searches and trains; what it leaves, all other blocks use."""
COMMANDS = (
    ("encode", "best", "photos", "codes.npz"),
    ("reconstruct", "best", "photos", "out.npz"),
)
"""Commands of the pages that write what later blocks read."""

SMALL = {
    "SEARCHAE_DATA__TRAIN_IMAGES": "48",
    "SEARCHAE_TRAIN__EPOCHS": "2",
    "SEARCHAE_TRAIN__BATCH_SIZE": "16",
    "SEARCHAE_TRAIN__PATIENCE": "2",
}
"""What makes the search small that the blocks do not name."""

NOT_RUN: dict[tuple[str, int], str] = {}
"""Page and number of a block, from 0 -> why it is not run."""

BLOCKS = [
    (documents.name(page), number, text)
    for page in documents.pages()
    for number, text in enumerate(documents.blocks(page, "python"))
]
OTHERS = [(*b[:2],) for b in BLOCKS if b[:2] != (FIRST, 0) and b[:2] not in NOT_RUN]


def run_block(name: str, number: int) -> dict[str, Any]:
    """Runs a block; returns its variables."""
    (text,) = (text for page, n, text in BLOCKS if (page, n) == (name, number))
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, f"{name}, block {number}", "exec"), variables)
    return variables


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first block has been run, and ``COMMANDS`` typed."""
    folder = make_folder(tmp_path_factory.mktemp("python"))
    (folder / "studies" / "quickstart.toml").write_text(QUICK)
    (folder / "photos").mkdir()
    for number in range(3):
        image = np.full((20, 20, 3), 80 * number, np.uint8)
        Image.fromarray(image).save(folder / "photos" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fork_workers(patch)
        for variable, value in SMALL.items():
            patch.setenv(variable, value)
        run_block(FIRST, 0)
    shutil.copytree(folder / "quickstart-best", folder / "best")  # as README's train names it
    for words in COMMANDS:
        done = run_command(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_what_is_not_run_is_there() -> None:
    assert NOT_RUN.keys() <= {block[:2] for block in BLOCKS}


def test_the_first_block_searches_and_trains(home: Path) -> None:
    trials = searchae.open("quickstart", storage=f"sqlite:///{home}/searchae.db").status()["trials"]
    assert trials["complete"] + trials["pruned"] == 24, "as the page says"
    assert (home / "quickstart-best" / "metrics.json").is_file()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "number"), OTHERS)
def test_a_block_runs(name: str, number: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    fork_workers(monkeypatch)
    found = run_block(name, number)
    if "codes" in found:
        assert found["codes"].shape == (3, searchae.load("best").latent_size)
        assert found["pictures"].shape == (3, *searchae.load("best").image_shape)
