"""How a study stands in its database, seen from outside: for tests that look again and again."""

from __future__ import annotations

from collections import Counter

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool


def trials(url: str, name: str = "tiny") -> list[FrozenTrial]:
    """The trials of a study; none before there is such a study.

    No connection outlives the look: a hundred looks would else take all that a server has.
    """
    if not _has_tables(url):
        return []
    storage = RDBStorage(
        url,
        engine_kwargs={"poolclass": NullPool},
        skip_compatibility_check=True,
        skip_table_creation=True,
    )
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # no study yet
        return []
    return study.get_trials(deepcopy=False)


def _has_tables(url: str) -> bool:
    """Whether whoever makes the tables has marked them with their version, which is done last.

    Before that ``RDBStorage`` would mark them itself, and be in the way of who makes them.
    """
    engine = sa.create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(sa.text("SELECT count(*) FROM alembic_version")))
    except DBAPIError:  # there are no tables, or they are being made
        return False


def states(url: str, name: str = "tiny") -> Counter[str]:
    """How many trials are in each state."""
    return Counter(t.state.name for t in trials(url, name))


def finished(url: str, name: str = "tiny") -> int:
    """How many trials ended by themselves or were pruned."""
    found = states(url, name)
    return found["COMPLETE"] + found["PRUNED"]
