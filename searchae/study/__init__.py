"""Studies in the database: their specs, budgets, trials, workers and pictures.

To find: the budget in ``budget``, who takes which trial in ``claims``, leases and dead workers in
``leases``, the list of live workers in ``worker_registry``. ``coordination`` leads to all of them.
"""

from searchae.study.artifact_folder import claimed_folder, release_folder, remove_folder
from searchae.study.attributes import (
    BUDGET,
    COMPARED,
    COMPARISON,
    DECODED,
    ERROR,
    FOLDER,
    IMPORTED,
    MEASURED,
    OUTCOME,
    REFUSED,
    REPEATED,
    RUNTIME,
    SPEC,
    SPLITS,
    STARTING,
    TRAINING,
    TRAININGS_OF,
    VERSIONS,
    WARM_START,
    WINNER,
)
from searchae.study.bad_ends import worst_values
from searchae.study.budget import NoTrial, TrialCounts
from searchae.study.coordination import Coordinator
from searchae.study.copying import StudyCopy
from searchae.study.epoch_history import HISTORY, compact_history, history_columns
from searchae.study.foreign_trials import INVALID, misfit, outcome_of
from searchae.study.found_study import FoundStudy, find_with_lists, require_idle, with_lists
from searchae.study.gallery import (
    best_trials,
    gallery_folder,
    keep_best_pictures,
    picture_owner,
    read_picture,
    save_picture,
    trials_with_picture,
)
from searchae.study.images import image_sums, keep_images, load_images
from searchae.study.listed_training import ListedTraining, training_of
from searchae.study.overview import StudyOverview, ended_numbers, study_overviews
from searchae.study.own_net import allow_net, keep_factory
from searchae.study.progress_texts import (
    OUTCOME_TEXTS,
    bad_end_lines,
    best_text,
    progress_text,
    study_line,
    trial_line,
)
from searchae.study.removal import Removal, plan_removal, removal_text
from searchae.study.renaming import rename_study
from searchae.study.results import has_result, result_db
from searchae.study.snapshot import StudySnapshot
from searchae.study.stored_study import (
    StoredStudy,
    check_same_study,
    check_spec,
    find_study,
    load_study,
    open_study,
    package_versions,
    study_names,
)
from searchae.study.study_metrics import Metrics, MetricsReader
from searchae.study.summary import (
    Summary,
    TrialRow,
    best_of,
    summarize,
    summarize_snapshot,
    trial_row,
)
from searchae.study.training_list import (
    TrainingList,
    find_training_list,
    list_name,
    open_training_list,
    require_searched,
)
from searchae.study.uploads import upload_folder
from searchae.study.warm_start import (
    describe_import,
    describe_starting_points,
    has_comparable_results,
)
from searchae.study.worker_registry import WorkerInfo

__all__ = [
    "BUDGET",
    "COMPARED",
    "COMPARISON",
    "DECODED",
    "ERROR",
    "FOLDER",
    "HISTORY",
    "IMPORTED",
    "INVALID",
    "MEASURED",
    "OUTCOME",
    "OUTCOME_TEXTS",
    "REFUSED",
    "REPEATED",
    "RUNTIME",
    "SPEC",
    "SPLITS",
    "STARTING",
    "TRAINING",
    "TRAININGS_OF",
    "VERSIONS",
    "WARM_START",
    "WINNER",
    "Coordinator",
    "FoundStudy",
    "ListedTraining",
    "Metrics",
    "MetricsReader",
    "NoTrial",
    "Removal",
    "StoredStudy",
    "StudyCopy",
    "StudyOverview",
    "StudySnapshot",
    "Summary",
    "TrainingList",
    "TrialCounts",
    "TrialRow",
    "WorkerInfo",
    "allow_net",
    "bad_end_lines",
    "best_of",
    "best_text",
    "best_trials",
    "check_same_study",
    "check_spec",
    "claimed_folder",
    "compact_history",
    "describe_import",
    "describe_starting_points",
    "ended_numbers",
    "find_study",
    "find_training_list",
    "find_with_lists",
    "gallery_folder",
    "has_comparable_results",
    "has_result",
    "history_columns",
    "image_sums",
    "keep_best_pictures",
    "keep_factory",
    "keep_images",
    "list_name",
    "load_images",
    "load_study",
    "misfit",
    "open_study",
    "open_training_list",
    "outcome_of",
    "package_versions",
    "picture_owner",
    "plan_removal",
    "progress_text",
    "read_picture",
    "release_folder",
    "removal_text",
    "remove_folder",
    "rename_study",
    "require_idle",
    "require_searched",
    "result_db",
    "save_picture",
    "study_line",
    "study_names",
    "study_overviews",
    "summarize",
    "summarize_snapshot",
    "training_of",
    "trial_line",
    "trial_row",
    "trials_with_picture",
    "upload_folder",
    "with_lists",
    "worst_values",
]
