"""``--notify``, as it is typed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunCommand
from tests.notice_service import Service


@pytest.fixture
def service() -> Iterator[Service]:
    pytest.importorskip("apprise", reason="install apprise")
    made = Service()
    yield made
    made.close()


def test_a_search_sends_its_end_and_shows_no_url(
    service: Service, command_line: RunCommand, folder: Path
) -> None:
    words = ("tune", "-s", "tiny", "--trials", "1", "--workers", "1")
    done = command_line(*words, SEARCHAE_NOTIFY=service.url)
    assert done.returncode == 0, done.stderr
    assert [n["title"] for n in service.received][-1] == "tiny: tune has ended"
    assert "1 of 1 trials" in service.received[-1]["message"]
    log = (folder / "artifacts" / "tiny" / "logs" / "worker-0.log").read_text()
    assert "s3cret" not in done.stdout + done.stderr + log


def test_without_apprise_it_says_what_to_install(
    command_line: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    done = command_line("tune", "-s", "tiny", "--notify", "json://ann:s3cret@localhost")
    assert done.returncode == 2
    assert "--notify: needs the package apprise: pip install '.[notify]'" in done.stderr
    assert "s3cret" not in done.stderr
