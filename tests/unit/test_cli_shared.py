"""What the commands have in common."""

from __future__ import annotations

import gc

import pytest

from searchae.cli_shared import importing


def test_imports_are_not_searched_for_garbage_and_what_runs_then_is() -> None:
    assert gc.isenabled()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_somebody_has_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
