"""Two storages on one database: ours, and Optuna's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.storages import RDBStorage

from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage


@pytest.fixture
def lean(database: str) -> Iterator[ResilientStorage]:
    """As a worker has it."""
    made = connect(database)
    yield made
    made.engine.dispose()


@pytest.fixture
def plain(lean: ResilientStorage, database: str) -> Iterator[RDBStorage]:
    """Optuna's own storage on the same database, without its cache."""
    made = RDBStorage(database)
    yield made
    made.engine.dispose()
