"""From nothing to a search on hosts: README's three commands, as they stand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchae.storage.managed_keeper import DATABASE, HOST, USER
from tests import documents
from tests.ssh_hosts import SshHosts, bare_python
from tests.stored_trials import states, trials

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

README = documents.ROOT / "README.md"
PAGE = documents.ROOT / "docs" / "how-to" / "fleet.md"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "searchae", "studies")
SMALL = {
    "SEARCHAE_DATA__NAME": "house-numbers",  # drawn here, where SVHN would be downloaded
    "SEARCHAE_DATA__TRAIN_IMAGES": "200",
    "SEARCHAE_DATA__TEST_IMAGES": "20",
    "SEARCHAE_MODEL__CHANNELS": "[4, 8]",
    "SEARCHAE_TRAIN__EPOCHS": "3",
    "SEARCHAE_SEARCH__TRIALS": "8",
    "SEARCHAE_SEARCH__PRUNER": "none",
    "SEARCHAE_MANAGED_IDLE_S": "20",
}
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
"""pip reads the second one as what the option sets, which is whether there is isolation."""


def lend_packages(site: Path, to: Path) -> None:
    """Lends an environment all packages of this one but searchae: they are gigabytes."""
    to.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("searchae", "_editable", "__editable__")):
            (to / path.name).symlink_to(path)
    (site / "lent.pth").write_text(f"{to}\n")


@pytest.fixture
def home() -> Iterator[Path]:
    """The user's home, which no host sees, with the source code in ``searchae``."""
    with tempfile.TemporaryDirectory(prefix="user-", dir="/tmp", ignore_cleanup_errors=True) as at:
        source = Path(at) / "searchae"
        source.mkdir()
        for name in SOURCES:
            path = documents.ROOT / name
            if path.is_dir():
                shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, source)
        yield Path(at)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """Variables of a user who has activated a new virtual environment."""
    venv.create(home / "env")
    (site,) = (home / "env" / "lib").glob("python*/site-packages")
    lend_packages(site, home / "lent")
    # pip alone: the setuptools that come with it may be older than those that torch asks for.
    pip = home / "env" / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {home}/env/bin/python -m pip "$@"\n')
    pip.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return kept | SMALL | OFFLINE


def test_the_three_commands_of_the_readme_lead_from_nothing_to_a_search_on_hosts(
    home: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (block,) = [b for b in documents.blocks(README, "sh") if "--launcher ssh" in b]
    assert block in documents.blocks(PAGE, "sh")
    install, first, search = typed = block.splitlines()
    assert install.startswith("pip install")
    python = bare_python(tmp_path / "base")
    path = f"PATH={python.parent}:/usr/bin:/bin"  # what ssh HOST finds as python3
    with SshHosts(["gpu1", "gpu2", "gpu3"], hidden=[home], environment=path, alone=True) as hosts:
        # The hosts' own ssh comes first in the path.
        environment["PATH"] = f"{home / 'env' / 'bin'}:{os.environ['PATH']}"
        said = []
        for line in typed:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=home / "searchae",
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            said.append(done.stdout + done.stderr)
            assert done.returncode == 0, f"{line}\n{said[-1]}"
            print(f"$ {line}\n{said[-1]}")
        assert all(f"{name}: installing searchae" in said[1] for name in hosts.names), first
        assert "installing" not in said[2], search
    settings = json.loads((home / "searchae" / "searchae-postgres" / "settings.json").read_text())
    place = f"{USER}:{settings['password']}@{HOST}:{settings['port']}/{DATABASE}"
    url = f"postgresql+psycopg://{place}"
    assert states(url, "svhn") == {"COMPLETE": 8}
    trained = {t.user_attrs["searchae:runtime"]["host"] for t in trials(url, "svhn")}
    # On a busy machine the first workers may have done all before the last ones have begun.
    assert trained
    assert trained <= {"gpu1", "gpu2", "gpu3"}
