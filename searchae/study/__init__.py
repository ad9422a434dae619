"""A study in the database: its spec, its budget and claims, its trials and their pictures."""

from searchae.study.attributes import (
    ERROR,
    IMPORTED,
    OUTCOME,
    RUNTIME,
    SPEC,
    SPLITS,
    VERSIONS,
    WARM_START,
    WINNER,
)
from searchae.study.claims import NoTrial, TrialCounts
from searchae.study.coordination import Coordinator, WorkerInfo
from searchae.study.gallery import (
    best_trials,
    gallery_folder,
    keep_best_pictures,
    read_picture,
    save_picture,
    trials_with_picture,
)
from searchae.study.history import HISTORY, compact_history, history_columns
from searchae.study.stored import (
    StoredStudy,
    check_same_study,
    check_spec,
    find_study,
    load_study,
    open_study,
    package_versions,
    study_names,
)
from searchae.study.summary import Summary, TrialRow, best_of, summarize, trial_row
from searchae.study.warm_start import check_warm_start

__all__ = [
    "ERROR",
    "HISTORY",
    "IMPORTED",
    "OUTCOME",
    "RUNTIME",
    "SPEC",
    "SPLITS",
    "VERSIONS",
    "WARM_START",
    "WINNER",
    "Coordinator",
    "NoTrial",
    "StoredStudy",
    "Summary",
    "TrialCounts",
    "TrialRow",
    "WorkerInfo",
    "best_of",
    "best_trials",
    "check_same_study",
    "check_spec",
    "check_warm_start",
    "compact_history",
    "find_study",
    "gallery_folder",
    "history_columns",
    "keep_best_pictures",
    "load_study",
    "open_study",
    "package_versions",
    "read_picture",
    "save_picture",
    "study_names",
    "summarize",
    "trial_row",
    "trials_with_picture",
]
