"""Optuna's own contract for storages, held by searchae's storage on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.storage.trial_batching import NoBatching

try:
    from optuna.testing.pytest_storages import StorageTestCase
except ImportError:  # before Optuna 4.9
    pytest.skip("the installed Optuna has no contract for storages", allow_module_level=True)


class TestResilientStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database: str) -> Iterator[ResilientStorage]:
        storage = connect(database)
        yield storage
        storage.engine.dispose()


class TestResilientStorageOnOptunasOwn(StorageTestCase):
    @pytest.fixture
    def storage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[ResilientStorage]:
        monkeypatch.setenv("SEARCHAE_OPTUNA", "public")
        storage = connect(f"sqlite:///{tmp_path / 'searchae.db'}")
        assert isinstance(storage.batching, NoBatching)
        yield storage
        storage.engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        IntegrityError("INSERT INTO alembic_version", {}, Exception("UNIQUE")),
        OperationalError("CREATE TABLE alembic_version", {}, Exception("table already exists")),
        ProgrammingError("CREATE TABLE alembic_version", {}, Exception("it already exists")),
    ],
)
def test_another_program_may_create_the_new_tables_in_the_same_moment(
    database: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stamp = MigrationContext.stamp
    refused: list[tuple[Any, ...]] = []

    def late(*words: Any) -> None:
        if not refused:
            refused.append(words)
            raise error
        stamp(*words)

    monkeypatch.setattr(MigrationContext, "stamp", late)
    storage = connect(database)
    assert refused
    assert storage.get_all_studies() == []
