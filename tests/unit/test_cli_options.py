"""What the commands have in common."""

from __future__ import annotations

import gc
import io
from pathlib import Path

import pytest

from searchae.cli.app import run
from searchae.cli.lazy_imports import importing


def test_imports_are_not_searched_for_garbage_and_what_runs_then_is() -> None:
    assert gc.isenabled()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_imports_need_no_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stderr in (None, closed):
        monkeypatch.setattr("sys.stderr", stderr)
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled()


@pytest.mark.parametrize("stderr", [io.StringIO(), _Terminal()], ids=["file", "terminal"])
def test_who_waits_at_a_terminal_sees_that_it_loads(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stderr)
    with importing():
        during = stderr.getvalue()
    assert during == ("loading ..." if stderr.isatty() else "")
    blank = stderr.getvalue().removeprefix(during)
    assert blank.strip() == ""
    assert len(blank.strip("\r")) == len(during)  # all of the word is wiped


def test_a_collector_that_somebody_has_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_page_is_not_written_under_the_name_of_another_format(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([command, "-s", "tiny", "--out", "page.pdf"]) == 2
    assert "--out page.pdf: it is an HTML page: page.html" in capsys.readouterr().err
    assert run([command, "-s", "tiny", "--out", "page"]) == 2
    assert "there is no database" in capsys.readouterr().err, "the name was taken"
