"""The attributes that searchae stores with Optuna's studies and trials. All values are JSON."""

from __future__ import annotations

SPEC, DATA_HASH, VERSIONS = "searchae:spec", "searchae:data_hash", "searchae:versions"


BUDGET, STOPPED, IMPORTED = "searchae:budget", "searchae:stopped", "searchae:imported"


TIME_LIMIT, QUARANTINED = "searchae:time_limit", "searchae:quarantined:"


BASELINE_DB, WARM_START = "searchae:baseline_db", "searchae:warm_start"


SPLITS = "searchae:splits"
"""User attribute of a study: ``data.describe`` of its images."""


RUNTIME, ERROR = "searchae:runtime", "searchae:error"
"""User attributes of a trial: where its last worker ran it; what made it end badly."""


WINNER = "searchae:winner"
"""User attribute of a study: what `compare --top` found: ``number``, ``seeds``, ``mean_db``."""


OUTCOME = "searchae:outcome"
"""User attribute of a trial that ended badly; its values are the names in ``worker``."""
