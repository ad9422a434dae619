"""Optuna's own contract for storages, held by searchae's storage on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from searchae.storage import ResilientStorage, connect


class TestResilientStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database: str) -> Iterator[ResilientStorage]:
        storage = connect(database)
        yield storage
        storage.engine.dispose()
