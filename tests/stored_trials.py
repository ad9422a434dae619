"""How a study stands in its database, seen from outside: for tests that look again and again."""

from __future__ import annotations

from collections import Counter

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool


def trials(url: str, name: str = "tiny") -> list[FrozenTrial]:
    """The trials of a study; none before there is such a study.

    No connection outlives the look: a hundred looks would else take all that a server has.
    """
    try:
        storage = RDBStorage(
            url,
            engine_kwargs={"poolclass": NullPool},
            skip_compatibility_check=True,
            skip_table_creation=True,  # who looks must not be in the way of who makes them
        )
        study = optuna.load_study(study_name=name, storage=storage)
    except (KeyError, StorageInternalError):  # no study yet, or no tables
        return []
    except IntegrityError:  # Optuna marks tables with their version, and somebody else just did
        return []
    return study.get_trials(deepcopy=False)


def states(url: str, name: str = "tiny") -> Counter[str]:
    """How many trials are in each state."""
    return Counter(t.state.name for t in trials(url, name))


def finished(url: str, name: str = "tiny") -> int:
    """How many trials ended by themselves or were pruned."""
    found = states(url, name)
    return found["COMPLETE"] + found["PRUNED"]
