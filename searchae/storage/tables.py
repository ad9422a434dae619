"""Optuna's tables, described here so that no private module of Optuna's is needed.

Only the tables and columns that searchae reads or writes are listed. They are those of Optuna's
schema revision ``SCHEMA``. Enumerations are stored by the names of their members; PostgreSQL has a
type for each, which is named after the Python class in lower case.
"""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

SCHEMA = "v3.2.0.a"
"""The revision of Optuna 3.2 to 5.0."""

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


class TrialValueType(enum.Enum):
    """How an objective value is stored: infinities have a type and no number."""

    FINITE = 1
    INF_POS = 2
    INF_NEG = 3


class TrialIntermediateValueType(enum.Enum):
    """How a reported value is stored: infinities and NaN have a type and no number."""

    FINITE = 1
    INF_POS = 2
    INF_NEG = 3
    NAN = 4


NON_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
"""Name of a value type -> the value."""

_OPTUNA_VERSION, _MIGRATIONS = "version_info", "alembic_version"
_OPTUNA_OTHERS = frozenset({"trial_heartbeats"})
"""Tables of Optuna's that are not listed here."""

metadata = sa.MetaData()


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True)


def _study_id() -> sa.Column[int]:
    return sa.Column("study_id", sa.Integer, sa.ForeignKey("studies.study_id"))


def _trial_id() -> sa.Column[int]:
    return sa.Column("trial_id", sa.Integer, sa.ForeignKey("trials.trial_id"))


def _attributes(name: str, key: str, owner: sa.Column[int]) -> sa.Table:
    text = (sa.Column("key", sa.String(512)), sa.Column("value_json", sa.Text))
    return sa.Table(name, metadata, _key(key), owner, *text)


studies = sa.Table(
    "studies", metadata, _key("study_id"), sa.Column("study_name", sa.String(512), nullable=False)
)
study_directions = sa.Table(
    "study_directions",
    metadata,
    _key("study_direction_id"),
    _study_id(),
    sa.Column("objective", sa.Integer, nullable=False),
    sa.Column("direction", sa.Enum(StudyDirection), nullable=False),
)
study_attributes = _attributes("study_user_attributes", "study_user_attribute_id", _study_id())
study_system_attributes = _attributes(
    "study_system_attributes", "study_system_attribute_id", _study_id()
)
trials = sa.Table(
    "trials",
    metadata,
    _key("trial_id"),
    sa.Column("number", sa.Integer),
    _study_id(),
    sa.Column("state", sa.Enum(TrialState), nullable=False),
    sa.Column("datetime_start", sa.DateTime),  # UTC
    sa.Column("datetime_complete", sa.DateTime),  # UTC
)
params = sa.Table(
    "trial_params",
    metadata,
    _key("param_id"),
    _trial_id(),
    sa.Column("param_name", sa.String(512)),
    sa.Column("param_value", sa.Double),
    sa.Column("distribution_json", sa.Text),
)
values = sa.Table(
    "trial_values",
    metadata,
    _key("trial_value_id"),
    _trial_id(),
    sa.Column("objective", sa.Integer, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("value_type", sa.Enum(TrialValueType), nullable=False),
)
reports = sa.Table(
    "trial_intermediate_values",
    metadata,
    _key("trial_intermediate_value_id"),
    _trial_id(),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("intermediate_value", sa.Double),
    sa.Column("intermediate_value_type", sa.Enum(TrialIntermediateValueType), nullable=False),
)
user_attributes = _attributes("trial_user_attributes", "trial_user_attribute_id", _trial_id())
system_attributes = _attributes("trial_system_attributes", "trial_system_attribute_id", _trial_id())


def missing_columns(engine: sa.Engine) -> list[str]:
    """Returns the columns that the database lacks, as ``table.column``."""
    found = sa.inspect(engine)
    there = set(found.get_table_names())
    missing = []
    for table in metadata.sorted_tables:
        names = {c["name"] for c in found.get_columns(table.name)} if table.name in there else set()
        missing += [f"{table.name}.{c.name}" for c in table.columns if c.name not in names]
    return missing


def foreign_tables(engine: sa.Engine) -> str:
    """Returns what another program's tables in the database would collide with; empty if nothing.

    A SQLite file is expected to hold Optuna's tables only. The tables of Optuna may be in the
    making, one by one.
    """
    found = sa.inspect(engine)
    there = set(found.get_table_names() + found.get_view_names())
    if _OPTUNA_VERSION in there:
        columns = {column["name"] for column in found.get_columns(_OPTUNA_VERSION)}
        return "" if "schema_version" in columns else _OPTUNA_VERSION
    own = {table.name for table in metadata.sorted_tables} & there
    for table in metadata.sorted_tables:
        if table.name in own:
            names = {column["name"] for column in found.get_columns(table.name)}
            if lacking := [c.name for c in table.columns if c.name not in names]:
                return f"{table.name}, without {', '.join(lacking)}"
    if _MIGRATIONS in there:
        return _MIGRATIONS
    others = there - own - _OPTUNA_OTHERS
    return ", ".join(sorted(others)[:3]) if engine.dialect.name == "sqlite" and not own else ""


def value_to_row(value: float) -> tuple[float | None, str]:
    """Returns the number and the name of the type by which Optuna stores a value."""
    if math.isnan(value):
        return None, "NAN"
    if math.isinf(value):
        return None, "INF_POS" if value > 0 else "INF_NEG"
    return value, "FINITE"


def utc_now() -> datetime:
    """Returns the time in UTC without a zone, as Optuna stores it."""
    return datetime.now(UTC).replace(tzinfo=None)
