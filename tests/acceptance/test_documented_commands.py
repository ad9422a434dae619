"""What the documentation tells a user to type is typed, page by page, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests import documents
from tests.conftest import smooth_images
from tests.documents import Command, commands
from tests.forked_commands import run_command

ORDER = (
    "README.md",
    "docs/tutorial.md",
    "docs/how-to/report.md",
    "docs/how-to/compare.md",
    "docs/how-to/winner.md",
    "docs/how-to/study-file.md",
    "docs/how-to/images.md",
    "docs/how-to/go-on.md",
    "docs/how-to/objectives.md",
    "docs/how-to/own-net.md",
    "docs/how-to/stored-studies.md",
)
OWN_NET = "docs/how-to/own-net.md"
"""The pages whose commands are typed; a later page uses the studies of the earlier ones."""

SMALL = {
    "SEARCHAE_DATA__TRAIN_IMAGES": "48",
    "SEARCHAE_DATA__TEST_IMAGES": "6",
    "SEARCHAE_TRAIN__EPOCHS": "7",  # nets have to learn a little to be compared
    "SEARCHAE_TRAIN__BATCH_SIZE": "8",
    "SEARCHAE_SEARCH__TRIALS": "4",
}
FEW_CHOICES = {
    "SEARCHAE_MODEL__ACTIVATION": '{ choices = ["relu", "tanh"] }',
    "SEARCHAE_TRAIN__OPTIMIZER": "adam",
}
"""Of the pages without nets of one's own, which have no such keys."""

APPENDED = {
    "compare": ("--workers", "1", "--until", "90", "--no-l1-curve"),
    "train": ("--workers", "1", "--epochs", "2"),
    "tune": ("--workers", "1"),
}
"""What makes a command small that the environment does not; the last of an option counts."""

NOT_TYPED = {
    r".*python3 -m venv .*|.*pip install .*|\. \.venv/.*": "installs packages; .ci/run does",
    r".*/python -m pytest .*": "runs these tests; .ci/run types it",
    r"searchae --version|searchae --install-completion": "searchae's installation, not its use",
    r"(mkdir|cd) first-search": "the test's folder stands for it",
    r"searchae dashboard$|searchae dashboard --host .*": "ends with Ctrl-C: test_dashboard.py",
    r"umask .*|searchae dashboard --hash-password .*": "asks for a password: test_dashboard.py",
    r"searchae data mnist": "needs a data-set server",
    r".* best\.onnx": "takes long: test_bundle_commands.py exports to ONNX",
    r".* --tensorboard .*": "takes long: test_report_exports.py",
    r"searchae sample .*": "needs a variational net: test_bundle_commands.py",
    r".* data\.train_images=2000": "needs 2,000 pictures",
    r"(export|docker) .*": "sets up the next commands; test_compose.py runs the containers",
    r"mlflow server .*": "runs until Ctrl-C; tests/mlflow_server.py starts one",
    r"searchae (tune|train) .* --track .*": "needs a tracker: test_track.py",
    r"kubectl .*|.* --out from-cluster": "needs a cluster; test_kubernetes.py runs the containers",
    r"cd deploy/kubernetes|mkdir -p secrets|openssl .*": "test_kubernetes.py makes the secrets",
    r"searchae (tune|worker|status|stop) (--study|-s) svhn.*": "needs a data-set server",
}
"""Commands as regular expressions -> why no test of this file types them. All are parsed."""


def is_typed(command: Command) -> bool:
    return not any(re.fullmatch(pattern, command.text) for pattern in NOT_TYPED)


def test_every_command_is_typed_or_says_why_not() -> None:
    shown = [c for page in documents.user_pages() for c in commands(page)]
    for command in shown:
        assert command.page in ORDER or not is_typed(command), f"{command.page}: {command.text}"
    for pattern in NOT_TYPED:
        assert any(re.fullmatch(pattern, c.text) for c in shown), f"{pattern}: no page shows it"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder, with the study file that a page shows."""
    (tmp_path / "studies").mkdir()
    template = documents.blocks(documents.ROOT / "docs/how-to/study-file.md", "toml")[0]
    (tmp_path / "studies" / "mine.toml").write_text(template)
    return tmp_path


def save_own_net(home: Path) -> None:
    """Saves the two files that the page on nets of one's own shows, under the names it gives."""
    page = documents.ROOT / OWN_NET
    (home / "mynets.py").write_text(documents.blocks(page, "python")[0])
    (home / "mynet.toml").write_text(documents.blocks(page, "toml")[0])


def take_pictures(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(smooth_images(80, 40)):
        Image.fromarray(image).save(folder / f"{number}.png")


def type_command(command: Command, home: Path) -> subprocess.CompletedProcess[str]:
    program, *words = command.words
    if program.rpartition("/")[2] != "searchae":
        return subprocess.run(
            command.words, cwd=home, capture_output=True, text=True, timeout=60, check=False
        )
    choices = {} if command.page == OWN_NET else FEW_CHOICES
    words += APPENDED.get(words[0], ())
    return run_command(*words, cwd=home, env={**os.environ, **SMALL, **choices}, timeout=600)


@pytest.mark.fleet  # as many trainings as a search
@pytest.mark.timeout(1800)  # all commands of ten pages; most of it on a busy machine
def test_the_commands_of_each_page_work_in_their_order(home: Path) -> None:
    kept = {"studies", "photos", "data", "artifacts"}
    for name in ORDER:
        for path in home.iterdir():  # what another page's commands wrote, but its studies
            if path.name not in kept and not path.name.startswith("searchae.db"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if name != "docs/tutorial.md":  # which makes the folder itself
            take_pictures(home / "photos")
        else:
            shutil.rmtree(home / "photos", ignore_errors=True)
        if name == OWN_NET:
            save_own_net(home)
        for command in filter(is_typed, commands(documents.ROOT / name)):
            done = type_command(command, home)
            assert done.returncode == 0, f"{name}: {command.text}\n{done.stdout}{done.stderr}"


JSON_COMMANDS = (
    ("status", "-s", "tiny"),
    ("best", "-s", "tiny"),
    ("studies",),
    ("data", "tiny"),
    ("tune", "-s", "tiny", "--trials", "1"),
)


def test_every_key_of_a_json_document_is_described(folder: Path) -> None:
    page = (documents.ROOT / "docs/reference/json.md").read_text()
    made = run_command("tune", "-s", "tiny", "--trials", "1", "--workers", "1", cwd=folder)
    assert made.returncode == 0, made.stderr
    for words in JSON_COMMANDS:
        done = run_command(*words, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        for key in json.loads(done.stdout):
            assert f"`{key}`" in page, f"{words[0]}: {key}"
