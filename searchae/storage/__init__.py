"""The shared database: URLs, connections, locks, and Optuna's storage made to outlive outages."""

from searchae.storage.backoff import Backoff
from searchae.storage.connection import connect
from searchae.storage.locks import exclusive_lock, locked_transaction
from searchae.storage.reader import ReaderStorage
from searchae.storage.resilient import ResilientStorage
from searchae.storage.tables import (
    UNFINISHED,
    finish_trial,
    studies,
    study_attributes,
    trials,
    upsert,
    upsert_if_unfinished,
    user_attributes,
    utc_now,
)
from searchae.storage.url import database_exists, is_sqlite, masked_url, parse_url

__all__ = [
    "UNFINISHED",
    "Backoff",
    "ReaderStorage",
    "ResilientStorage",
    "connect",
    "database_exists",
    "exclusive_lock",
    "finish_trial",
    "is_sqlite",
    "locked_transaction",
    "masked_url",
    "parse_url",
    "studies",
    "study_attributes",
    "trials",
    "upsert",
    "upsert_if_unfinished",
    "user_attributes",
    "utc_now",
]
