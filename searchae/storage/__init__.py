"""The shared database: URLs, connections, locks, and an Optuna storage that survives outages."""

from searchae.files import Backoff
from searchae.storage.changed_trials import fetch_trials
from searchae.storage.connection import connect, preload_storage
from searchae.storage.copying import copy_study_rows, count_rows, reading_snapshot
from searchae.storage.locks import exclusive_lock, locked_transaction
from searchae.storage.managed import open_url
from searchae.storage.optuna_compatibility import (
    failure_of,
    is_usable,
    optuna_setting,
    require_signature,
)
from searchae.storage.password_file import SECRETS, storage_url
from searchae.storage.reader_storage import ReaderStorage
from searchae.storage.resilient import ResilientStorage, database_error_text
from searchae.storage.statements import (
    finish_trial,
    insert_study,
    upsert,
    upsert_if_unfinished,
)
from searchae.storage.tables import (
    UNFINISHED,
    reports,
    studies,
    study_attributes,
    study_system_attributes,
    system_attributes,
    trials,
    user_attributes,
    utc_now,
    value_to_row,
)
from searchae.storage.tables import values as trial_values
from searchae.storage.url import (
    database_exists,
    is_managed,
    is_sqlite,
    masked_url,
    parse_url,
    require_database,
)

__all__ = [
    "SECRETS",
    "UNFINISHED",
    "Backoff",
    "ReaderStorage",
    "ResilientStorage",
    "connect",
    "copy_study_rows",
    "count_rows",
    "database_error_text",
    "database_exists",
    "exclusive_lock",
    "failure_of",
    "fetch_trials",
    "finish_trial",
    "insert_study",
    "is_managed",
    "is_sqlite",
    "is_usable",
    "locked_transaction",
    "masked_url",
    "open_url",
    "optuna_setting",
    "parse_url",
    "preload_storage",
    "reading_snapshot",
    "reports",
    "require_database",
    "require_signature",
    "storage_url",
    "studies",
    "study_attributes",
    "study_system_attributes",
    "system_attributes",
    "trial_values",
    "trials",
    "upsert",
    "upsert_if_unfinished",
    "user_attributes",
    "utc_now",
    "value_to_row",
]
